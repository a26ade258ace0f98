"""Parameters: what a model can learn, with units, bounds, scales and how the gradient of each is had.

A rule's parameters are its `nn.Parameter`s, and `Rule.inputs` says what they are. `Parameters.of(model)` lists them by
name: `Infect.transmission_rate`, `Infect.layer_weights.home`; one entry of a vector is `Infect.susceptibility[3]`. A
tensor that several rules share has one name, that of the first rule of the phases that has it. Other tensors stand for
them in a run by `simulate(parameters=...)`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from gnabm.errors import DataError, KindError, ShapeError, UnknownFieldError, nearest

Scale = Literal["identity", "log", "logit"]
"""Unbounded scale of a parameter: x itself, log(x - low), or the logit of (x - low) / (high - low)."""
Gradient = Literal["local-score", "pathwise", "none"]
"""How a gradient reaches a parameter: by the likelihood of draws, through values without draws, or not at all."""


@dataclass(frozen=True)
class Input:
    """What a learnable tensor of a rule is.

    Args:
        meaning: One line for people.
        unit: Unit.
        low: Lowest value that makes sense.
        high: Highest value that makes sense.
        prior: What is known of each of its numbers before any data, or None.
        transform: Unbounded scale; None for the one that follows from the bounds.
        axis: What the entries of a vector stand for, such as `ten-year age`.
        gradient: How a differentiable run reaches it; where `none`, the score function of the whole run or differences
            of runs with common draws have to serve.
    """

    meaning: str
    unit: str = ""
    low: float = 0.0
    high: float = math.inf
    prior: torch.distributions.Distribution | None = None
    transform: Scale | None = None
    axis: str = ""
    gradient: Gradient = "local-score"

    def __post_init__(self) -> None:
        """Check that bounds and scale fit each other."""
        if not self.low < self.high:
            raise DataError(f"{self.meaning}: low must be less than high, got {self.low} and {self.high}")
        lacks = {"log": not math.isfinite(self.low), "logit": not math.isfinite(self.low + self.high)}
        if self.transform is not None and lacks.get(self.transform, False):
            raise DataError(
                f"{self.meaning}: the scale {self.transform!r} needs finite bounds, got [{self.low}, {self.high}]; "
                "give them, or another transform"
            )

    @property
    def scale(self) -> Scale:
        """The unbounded scale."""
        if self.transform is not None:
            return self.transform
        if not math.isfinite(self.low):
            return "identity"
        return "logit" if math.isfinite(self.high) else "log"

    def unbounded(self, value: Tensor) -> Tensor:
        """A value (any shape) on the unbounded scale; differentiable. A value on a bound becomes infinite.

        Args:
            value: Within the bounds.
        """
        if self.scale == "log":
            return (value - self.low).log()
        if self.scale == "logit":
            share = (value - self.low) / (self.high - self.low)
            return share.log() - (1 - share).log()
        return value

    def bounded(self, value: Tensor) -> Tensor:
        """The inverse of `unbounded`; differentiable."""
        if self.scale == "log":
            return value.exp() + self.low
        if self.scale == "logit":
            return torch.sigmoid(value) * (self.high - self.low) + self.low
        return value


_UNTOLD = Input("", low=-math.inf)


class Described(Protocol):
    """A rule as seen from here: a module with a name that says what its parameters are."""

    name: str
    inputs: ClassVar[Mapping[str, Input]]


class Ruled(Protocol):
    """A model as seen from here."""

    @property
    def initial(self) -> Sequence[Any]:
        """Rules that make the initial state."""

    def rules(self) -> Sequence[Any]:
        """Rules of the phases."""


@dataclass(frozen=True)
class Parameter:
    """One learnable tensor of a model.

    Args:
        name: RULE.ATTRIBUTE.
        value: The model's own tensor, now.
        input: What it is.
    """

    name: str
    value: Tensor
    input: Input

    @property
    def gradient(self) -> Gradient:
        """How a differentiable run reaches it."""
        return self.input.gradient if self.value.is_floating_point() else "none"

    @property
    def differentiable(self) -> bool:
        """Whether one does."""
        return self.gradient != "none"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return tuple(self.value.shape)

    def element_names(self) -> list[str]:
        """A name for each number, in the order of the flat tensor."""
        if not self.shape:
            return [self.name]
        where = torch.cartesian_prod(*(torch.arange(n) for n in self.shape)).reshape(-1, len(self.shape)).tolist()
        return [f"{self.name}[{','.join(map(str, at))}]" for at in where]

    def check(self, value: Tensor) -> Tensor:
        """Refuse a tensor that cannot stand for it; returns it in the type of the model's own, with its gradient.

        Raises:
            KindError: It is no floating-point tensor.
            ShapeError: It has another shape.
            DataError: A number is NaN or out of bounds.
        """
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise KindError(f"{self.name} must be a floating-point tensor, got {kind}; give torch.tensor(...)")
        if tuple(value.shape) != self.shape:
            raise ShapeError(f"{self.name} must have shape {self.shape}, got {tuple(value.shape)}; reshape it")
        low, high = self.input.low, self.input.high
        numbers = value.detach()  # whether a value is allowed has no gradient
        wrong = numbers[~((numbers >= low) & (numbers <= high))]
        if wrong.numel():
            raise DataError(
                f"{self.name} must lie in [{low:g}, {high:g}]{f' ({self.input.unit})' if self.input.unit else ''}, got "
                f"{wrong.reshape(-1)[0].item():g}; learn it on the unbounded scale (Parameters.of_vector), or clamp it"
            )
        return value.to(self.value.dtype)

    def to_dict(self) -> dict[str, Any]:
        """In plain types."""
        told, prior = self.input, self.input.prior
        return {
            "name": self.name, "value": self.value.detach().tolist(), "shape": list(self.shape), "axis": told.axis,
            "unit": told.unit, "meaning": told.meaning, "low": told.low if math.isfinite(told.low) else None,
            "high": told.high if math.isfinite(told.high) else None, "prior": None if prior is None else str(prior),
            "transform": told.scale, "differentiable": self.differentiable, "gradient": self.gradient,
        }  # fmt: skip


class Parameters:
    """The learnable tensors of a model, in the order of its rules: those of the phases, then the initial ones.

    Args:
        entries: The tensors.

    Example:
        >>> from gnabm.models.epidemic import sir
        >>> parameters = Parameters.of(sir(0.05, 0.1))
        >>> parameters.names
        ['Infect.transmission_rate', 'Recover.rate', 'SeedAtRandom.share']
        >>> parameters.scaled("Recover.rate", 2.0)
        {'Recover.rate': tensor(0.2000)}
    """

    def __init__(self, entries: Sequence[Parameter]) -> None:
        self._entries = {entry.name: entry for entry in entries}

    @staticmethod
    def of(model: Ruled) -> Parameters:
        """What a model can learn."""
        found: dict[int, Parameter] = {}
        for rule in (*model.rules(), *model.initial):
            for path, value in rule.named_parameters():
                found.setdefault(id(value), Parameter(f"{rule.name}.{path}", value, _told(rule, path)))
        return Parameters(list(found.values()))

    def __len__(self) -> int:
        """Number of tensors."""
        return len(self._entries)

    def __iter__(self) -> Iterator[Parameter]:
        """One tensor after the other."""
        return iter(self._entries.values())

    def __contains__(self, name: object) -> bool:
        """Whether there is one of that name."""
        return name in self._entries

    def __getitem__(self, name: str) -> Parameter:
        """The entry of a name.

        Raises:
            UnknownFieldError: There is none.
        """
        if name not in self._entries:
            raise UnknownFieldError(f"there is no parameter {name!r}; {nearest(str(name), self._entries)}")
        return self._entries[name]

    @property
    def names(self) -> list[str]:
        """Name of each tensor."""
        return list(self._entries)

    def element_names(self) -> list[str]:
        """Name of each number, in the order of `vector`."""
        return [name for entry in self for name in entry.element_names()]

    def select(self, *patterns: str) -> Parameters:
        """Those whose names match one of some patterns such as `Infect.*`.

        Raises:
            UnknownFieldError: A pattern matches none.
        """
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in self.names):
                raise UnknownFieldError(f"no parameter matches {pattern!r}; {nearest(pattern, self.names)}")
        return Parameters([e for e in self if any(fnmatchcase(e.name, pattern) for pattern in patterns)])

    def values(self) -> dict[str, Tensor]:
        """A copy of each tensor, ready for `simulate(parameters=...)`; those that are differentiable are leaves."""
        return {e.name: e.value.detach().clone().requires_grad_(e.differentiable) for e in self}

    def vector(self) -> Tensor:
        """(num_numbers,) float64 of all values on their unbounded scales, without gradient."""
        parts = [e.input.unbounded(e.value.detach().to(torch.float64)).reshape(-1) for e in self]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)

    def of_vector(self, vector: Tensor) -> dict[str, Tensor]:
        """Tensors by name from numbers on the unbounded scales; differentiable.

        Args:
            vector: (num_numbers,) as `vector` gives them.

        Raises:
            ShapeError: There are more or fewer numbers.
        """
        sizes = [e.value.numel() for e in self]
        if vector.shape != (sum(sizes),):
            raise ShapeError(
                f"expected ({sum(sizes)},) numbers, one for each of element_names(), got {tuple(vector.shape)}"
            )
        parts = torch.split(vector, sizes)
        return {
            e.name: e.input.bounded(part).reshape(e.shape).to(e.value.dtype)
            for e, part in zip(self, parts, strict=True)
        }

    def scaled(self, name: str, factor: float) -> dict[str, Tensor]:
        """One parameter, or one number of it such as `Infect.susceptibility[3]`, multiplied.

        Args:
            name: Of the parameter or the number.
            factor: By which.

        Returns:
            The tensor by the name of the parameter, ready for `simulate(parameters=...)`, without gradient.

        Raises:
            UnknownFieldError: There is none of that name.
            DataError: The result is out of bounds.
        """
        entry = self[name.partition("[")[0]]
        elements = entry.element_names()
        if name != entry.name and name not in elements:
            raise UnknownFieldError(f"there is no number {name!r}; {nearest(name, elements)}")
        value = entry.value.detach().clone()
        if name == entry.name:
            value *= factor
        else:
            value.reshape(-1)[elements.index(name)] *= factor
        return {entry.name: entry.check(value)}

    def to_dict(self) -> list[dict[str, Any]]:
        """In plain types, for JSON."""
        return [entry.to_dict() for entry in self]

    def __repr__(self) -> str:
        """A table: name, value, unit, bounds, gradient, meaning."""
        rows = [("parameter", "value", "unit", "bounds", "gradient", "meaning")]
        for e in self:
            shown = " x ".join(map(str, e.shape)) + f" by {e.input.axis or 'entry'}"
            shown = shown if e.shape else f"{e.value.item():g}"
            bounds = f"[{e.input.low:g}, {e.input.high:g}]"
            rows.append((e.name, shown, e.input.unit, bounds, e.gradient, e.input.meaning))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _told(rule: Described, path: str) -> Input:
    """What a rule says of a parameter, or of the container that holds it."""
    while path:
        if path in rule.inputs:
            return rule.inputs[path]
        path = path.rpartition(".")[0]
    return _UNTOLD
