"""The parameters of a run: who stands for them while it is made and walked back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import chain

from torch import Tensor, nn

from gnabm.errors import ConfigError
from gnabm.model import Model
from gnabm.parameters import Parameters
from gnabm.periods import Period


def learnable(model: Model, changes: Sequence[Period] = ()) -> list[nn.Parameter]:
    """All parameters of a run that ask for a gradient, each once: those of the model, then those of its periods."""
    found = chain(model.parameters(), *(period.model.parameters() for period in changes))
    return list({id(p): p for p in found if p.requires_grad}.values())


@contextmanager
def standing_for(
    models: Sequence[nn.Module], parameters: Sequence[nn.Parameter], values: Sequence[Tensor]
) -> Iterator[None]:
    """Let tensors stand for parameters wherever these occur in some models, for the time of a block."""
    found = {id(p): v for p, v in zip(parameters, values, strict=True)}
    slots = [
        (module._parameters, name, p)
        for model in models
        for module in model.modules()
        for name, p in module._parameters.items()
        if id(p) in found
    ]
    try:
        for table, name, p in slots:
            table[name] = found[id(p)]  # type: ignore[assignment]  # any tensor serves as a parameter of a rule
        yield
    finally:
        for table, name, p in slots:
            table[name] = p


@dataclass(frozen=True, eq=False)
class Bound:
    """The parameters of a run, and the leaves that stand for them while it is made and walked back.

    Args:
        models: The model and those of the periods.
        parameters: All that ask for a gradient.
        given: What the caller differentiates in: the parameters, or tensors given for them.
        inputs: The same in the types of the parameters.
        leaves: Copies of the inputs, from which the run's own graphs start.
    """

    models: list[Model]
    parameters: list[nn.Parameter]
    given: list[Tensor]
    inputs: list[Tensor]
    leaves: list[Tensor]

    @staticmethod
    def of(model: Model, changes: Sequence[Period], values: Mapping[str, Tensor]) -> Bound:
        """The parameters of a model and its periods, with tensors in place of some.

        Args:
            model: The model.
            changes: Its periods.
            values: Tensors by name of a parameter of the model.

        Raises:
            ConfigError: Tensors are given for a run with periods, whose models have parameters of their own.
            GnabmError: A name is unknown, or a tensor is refused.
        """
        if values and changes:
            raise ConfigError(
                "parameters= is for a run with one model; with changes, set the values in the models of the periods"
            )
        known = Parameters.of(model)
        checked = {id(known[name].value): (value, known[name].check(value)) for name, value in values.items()}
        own = {id(p): p for p in learnable(model, changes)}
        for name in values:  # also one that is frozen in the model
            value = known[name].value
            assert isinstance(value, nn.Parameter)
            own[id(value)] = value
        parameters = list(own.values())
        pairs = [checked.get(id(p), (p, p)) for p in parameters]
        given, inputs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        leaves = [v.detach().clone().requires_grad_() for v in inputs]  # the run's node joins them to the inputs
        return Bound([model, *(period.model for period in changes)], parameters, given, inputs, leaves)

    def standing(self) -> AbstractContextManager[None]:
        """Let the leaves stand for the parameters for the time of a block."""
        return standing_for(self.models, self.parameters, self.leaves)
