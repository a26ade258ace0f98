"""What a sensitivity is of: an observable, summed over a window of days within groups of ages, regions or weeks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from gnabm.errors import ConfigError, UnknownFieldError, nearest
from gnabm.trajectory import Schema

WEEK, DAY, ALL = "week", "day", "all"
_DAYS = {WEEK: 7, DAY: 1}
"""Groupings along time, and how many days each of their groups has."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Sums of one observable within groups: numbers that are linear in what a run observes.

    Args:
        observable: Its name.
        names: Name of each group, such as `age_group 0-9` or `region Otago, week 2`.
        places: For each grouping, (time, ...) number of the group that an entry of the observable counts in; -1 where
            it counts in none.
    """

    observable: str
    names: tuple[str, ...]
    places: tuple[Tensor, ...]

    @staticmethod
    def of(
        schema: Schema, steps: int, observable: str, groups: Sequence[str], window: tuple[float, float] | None = None
    ) -> Outcomes:
        """Groups of a run's observable.

        Args:
            schema: Schema of the run.
            steps: Its steps.
            observable: Name of an observable.
            groups: Groupings: each a dim of the observable (`age_group`, `region`, `stage`), `week` or `day`, or
                several with a colon between, such as `region:week`; `all` is one group of everything.
            window: First day and the day after the last, since the start; None for the whole run.

        Raises:
            UnknownFieldError: There is no such observable or grouping.
            ConfigError: No step lies in the window.
        """
        whole, _, member = observable.partition(".")
        if observable not in schema.dims and "stage" in schema.dims.get(whole, ()):
            raise UnknownFieldError(
                f"outcome {observable!r}: ask for {whole!r} by 'stage' (--outcome {whole} --by stage); {member!r} is "
                "one of its groups"
            )
        if observable not in schema.dims:
            raise UnknownFieldError(f"outcome {observable!r}: {nearest(observable, schema.dims)}")
        days = torch.arange(steps, dtype=torch.float64) * schema.dt
        low, high = (0.0, float("inf")) if window is None else window
        inside = (days >= low) & (days < high)
        if not inside.any():
            raise ConfigError(
                f"the window from day {low:g} to day {high:g} holds none of the {steps} steps; give days within "
                f"0 to {steps * schema.dt:g}"
            )
        shape, names, places = schema.shape(observable, steps), [], []
        for grouping in groups:
            labels, codes = _codes(schema, observable, grouping, days, inside)
            code = torch.zeros(shape, dtype=torch.int64)
            for size, (axis, along) in zip(map(len, labels), codes, strict=True):
                code = code * size + along.reshape([-1 if n == axis else 1 for n in range(len(shape))])
            code[~inside] = -1
            names += [", ".join(parts) for parts in product(*labels)]
            places.append(code)
        return Outcomes(observable, tuple(names), tuple(places))

    def __call__(self, observed: Mapping[str, Tensor]) -> Tensor:
        """The sums.

        Args:
            observed: (time, ...) observables of a run.

        Returns:
            (num_groups,) float64, without gradient.
        """
        values = observed[self.observable].detach().to(torch.float64)  # the gradient is asked of `cotangents`
        return torch.cat([_sums(values, place) for place in self.places])

    def cotangents(self) -> Tensor:
        """What each outcome takes from each entry of the observable: (num_groups, time, ...) of 0 and 1, float64."""
        found = []
        for place in self.places:
            numbers = torch.arange(_size(place)).reshape(-1, *[1] * place.dim())
            found.append((place == numbers).to(torch.float64))
        return torch.cat(found)


def _codes(
    schema: Schema, observable: str, grouping: str, days: Tensor, inside: Tensor
) -> tuple[list[list[str]], list[tuple[int, Tensor]]]:
    """Names of the groups along each part of a grouping; the axis of each and the group of each entry along it."""
    dims = schema.dims[observable]
    labels: list[list[str]] = []
    codes: list[tuple[int, Tensor]] = []
    for dim in grouping.split(":"):
        if dim == ALL:
            labels.append([ALL])
            codes.append((0, torch.zeros(days.shape[0], dtype=torch.int64)))
        elif dim in _DAYS:
            number = (days // _DAYS[dim]).to(torch.int64)
            number = number - number[inside].min()
            first = int((days[inside].min() // _DAYS[dim]).item())
            labels.append([f"{dim} {first + n}" for n in range(int(number[inside].max()) + 1)])
            codes.append((0, number.clamp(0, len(labels[-1]) - 1)))
        elif dim in dims:
            labels.append([f"{dim} {name}" for name in schema.labels[dim]])
            codes.append((1 + dims.index(dim), torch.arange(len(labels[-1]))))
        else:
            raise UnknownFieldError(
                f"group {dim!r}: {nearest(dim, (*dims, *_DAYS, ALL))} of the observable {observable!r}"
            )
    return labels, codes


def _size(place: Tensor) -> int:
    return int(place.max()) + 1


def _sums(values: Tensor, place: Tensor) -> Tensor:
    inside = place >= 0
    return torch.zeros(_size(place), dtype=torch.float64).index_add(0, place[inside], values[inside])
