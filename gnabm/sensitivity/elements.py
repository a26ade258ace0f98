"""The numbers that a sensitivity asks about: parameters of a model, entries of vectors apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gnabm.errors import DataError
from gnabm.model import Model
from gnabm.parameters import Parameter, Parameters


@dataclass(frozen=True, eq=False)
class Elements:
    """Single numbers of a model's parameters.

    Args:
        parameters: The parameters.
        names: (num_elements,) name of each number, in the order of `Parameters.element_names`.
        values: (num_elements,) float64.
    """

    parameters: Parameters
    names: tuple[str, ...]
    values: Tensor

    @staticmethod
    def of(model: Model, patterns: Sequence[str] = ("*",), *, differentiable: bool = False) -> Elements:
        """Those of the parameters whose names match.

        Args:
            model: The model.
            patterns: Such as `Infect.*`.
            differentiable: Take only those that a gradient reaches.

        Raises:
            UnknownFieldError: A pattern matches no parameter.
            DataError: None that matches is a floating-point number, or differentiable if it must be.
        """
        selected = Parameters.of(model).select(*patterns)
        found = Parameters([e for e in selected if e.differentiable or (not differentiable and _is_real(e))])
        if not len(found) and not differentiable:
            raise DataError(f"none of {', '.join(selected.names) or 'no parameters'} is a floating-point number")
        if not len(found):
            raise DataError(
                f"none of {', '.join(selected.names) or 'no parameters'} is differentiable; ask for others, or use "
                "`differences` or `over_ranges`, which need no gradient"
            )
        values = torch.cat([entry.value.detach().reshape(-1).to(torch.float64) for entry in found])
        return Elements(found, tuple(found.element_names()), values)

    def tensors(self) -> dict[str, Tensor]:
        """A copy of each parameter, ready for a differentiable run."""
        return self.parameters.values()

    def columns(self, derivatives: Mapping[str, Tensor]) -> Tensor:
        """Derivatives in the order of the numbers.

        Args:
            derivatives: (num_groups, *shape) float64 by parameter.

        Returns:
            (num_groups, num_elements) float64.
        """
        return torch.cat([derivatives[e.name].reshape(-1, math.prod(e.shape)) for e in self.parameters], 1)

    def replaced(self, new: Mapping[int, float]) -> dict[str, Tensor]:
        """Parameters with some numbers replaced, ready for a plain run.

        Args:
            new: Values by the place of the number.

        Returns:
            The parameters that have one of them.
        """
        found: dict[str, Tensor] = {}
        for place, value in new.items():
            entry, within = self._site(place)
            tensor = found.setdefault(entry.name, entry.value.detach().clone())
            tensor.reshape(-1)[within] = value
        return found

    def bounds(self, place: int) -> tuple[float, float]:
        """Lowest and highest value of a number."""
        told = self._site(place)[0].input
        return told.low, told.high

    def around(self, place: int, factor: float) -> tuple[float, float]:
        """A number divided and multiplied by a factor, as far as its bounds allow."""
        value, (low, high) = self.values[place].item(), self.bounds(place)
        near, far = sorted((value / factor, value * factor))
        return max(near, low), min(far, high)

    def _site(self, place: int) -> tuple[Parameter, int]:
        for entry in self.parameters:
            size = math.prod(entry.shape)
            if place < size:
                return entry, place
            place -= size
        raise AssertionError


def _is_real(entry: Parameter) -> bool:
    return entry.value.is_floating_point()
