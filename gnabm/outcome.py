"""What a run comes to: one number for each observable, or for each stage that is counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gnabm.agents import Stages
from gnabm.errors import UnknownFieldError, nearest
from gnabm.model import Model


@dataclass(frozen=True)
class Outcome:
    """A number that is linear in what a run observes.

    Args:
        name: `deaths`, or `stage_count.recovered`.
        observable: Name of the observable.
        stage: Place of the stage, or None.
    """

    name: str
    observable: str
    stage: int | None

    def __call__(self, observed: Mapping[str, Tensor]) -> Tensor:
        """() float64: agents in the stage at the end, or the sum over all steps; groups added up; differentiable."""
        values = observed[self.observable].to(torch.float64)
        return values.sum() if self.stage is None else values[-1, self.stage].sum()


def outcomes(model: Model, names: tuple[str, ...] | None = None) -> list[Outcome]:
    """The outcomes of a model.

    Args:
        model: The model.
        names: Which, in this order; the name of an observable that counts stages means all of them. None for all.

    Raises:
        UnknownFieldError: There is none of that name.
    """
    found: list[Outcome] = []
    for observable in model.observe:
        if observable.counts is None:
            found.append(Outcome(observable.name, observable.name, None))
            continue
        family = model.state[observable.counts]
        assert isinstance(family, Stages)
        found += [Outcome(f"{observable.name}.{name}", observable.name, at) for at, name in enumerate(family.names)]
    if names is None:
        return found
    known = {outcome.name for outcome in found} | {outcome.observable for outcome in found}
    for name in names:
        if name not in known:
            raise UnknownFieldError(f"there is no outcome {name!r}; {nearest(name, sorted(known))}")
    return [outcome for name in names for outcome in found if name in (outcome.name, outcome.observable)]
