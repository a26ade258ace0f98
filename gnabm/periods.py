"""Runs whose model changes on the way, and runs that begin in the middle.

A `Period` says from which step on another model and seed hold. A `Snapshot` is the state at the start of a step: all
that a run knows of its past, since draws are keyed and a rule reads only the agents and yesterday's observables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from gnabm.agents import Column, Stage, Stages
from gnabm.errors import DataError, KindError, ShapeError
from gnabm.model import Model, Observable, State


@dataclass(frozen=True, eq=False)
class Period:
    """From a step on, another model and seed hold.

    Args:
        step: The first step of it, 0 or more; the initial state is always made by the run's own model and seed.
        model: Rules of that time; its state and observables are those of the run.
        seed: Seed of all draws of that time.
    """

    step: int
    model: Model
    seed: int


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The state of the agents of a shard at the start of a step.

    Args:
        step: That step: how many steps were made.
        columns: (num_owned,) state columns by name, as the model declares them; codes (uint8) for stages.
        observed: Observables of the step before, or of the initial state.
    """

    step: int
    columns: Mapping[str, Tensor]
    observed: Mapping[str, Tensor]

    def restored(self, model: Model, num_owned: int) -> dict[str, Column]:
        """The state columns of a model.

        Args:
            model: The model.
            num_owned: Rows of the shard.

        Raises:
            DataError: The snapshot is of another model.
            ShapeError: It is of another shard.
        """
        found: dict[str, Column] = {}
        wanted = {name: dtype_of(kind) for name, kind in model.state.items()}
        here = {name: column.dtype for name, column in self.columns.items()}
        if here != wanted:
            raise DataError(
                f"the state has the columns {here}, model {model.name} has {wanted}; take a state of its own"
            )
        if set(self.observed) != {o.name for o in model.observe}:
            raise DataError(
                f"the state has the observables {sorted(self.observed)}, model {model.name} has "
                f"{sorted(o.name for o in model.observe)}; take a state of its own"
            )
        for name, column in self.columns.items():
            kind = model.state[name]
            if column.shape != (num_owned,):
                raise ShapeError(f"state {name!r} has {tuple(column.shape)} rows, its shard {num_owned}")
            if isinstance(kind, Stages):
                if num_owned and int(column.max()) >= len(kind):
                    raise DataError(f"state {name!r} has the code {int(column.max())}, but only {len(kind)} stages")
                found[name] = Stage(kind, column)
            else:
                found[name] = column
        return found


def dtype_of(kind: Stages | State) -> torch.dtype:
    """Type of the column of a state field in a forward run."""
    return torch.uint8 if isinstance(kind, Stages) else kind.dtype


def check_periods(model: Model, periods: Sequence[Period]) -> tuple[Period, ...]:
    """The periods of a run in the order of their steps.

    Args:
        model: The model that the run begins with.
        periods: What changes on the way.

    Raises:
        KindError: A step or seed is no integer.
        DataError: Two periods begin at one step, or one has another state or other observables than the model.
    """
    ordered = sorted(periods, key=lambda period: period.step)
    for period in ordered:
        for name, value in (("step", period.step), ("seed", period.seed)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise KindError(f"{name} of a period must be an integer, got {value!r}")
        if period.step < 0:
            raise DataError(f"a period must begin at step 0 or later, got {period.step}; step 0 is the first")
        differs = other_record(model, period.model)
        if differs is not None:
            raise DataError(f"the model from step {period.step} on has {differs}; only what the rules do can change")
    for earlier, later in pairwise(ordered):
        if earlier.step == later.step:
            raise DataError(f"two periods begin at step {later.step}; put what changes there into one")
    return tuple(ordered)


def other_record(model: Model, other: Model) -> str | None:
    """How the state or the observables of another model differ, in words, or None when they are the same."""
    state, others = _state(model), _state(other)
    for name in {**state, **others}:
        if state.get(name) != others.get(name):
            return f"the state {name!r} as {others.get(name)}, the run has {state.get(name)}"
    seen = [_observable(o) for o in model.observe]
    if seen != [_observable(o) for o in other.observe]:
        return f"the observables {[o.name for o in other.observe]}, the run has {[o.name for o in model.observe]}"
    return None


def _state(model: Model) -> dict[str, Stages | torch.dtype]:
    return {name: kind if isinstance(kind, Stages) else kind.dtype for name, kind in model.state.items()}


def _observable(observable: Observable) -> tuple[object, ...]:
    return observable.name, observable.by, observable.unit, observable.counts
