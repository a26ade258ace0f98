"""The same derivatives by brute force: central differences of plain runs with common draws, and how both agree."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

from gnabm.contacts import Contacts
from gnabm.errors import DataError
from gnabm.population import Population
from gnabm.sensitivity.elements import Elements
from gnabm.sensitivity.oneshot import Sensitivity
from gnabm.sensitivity.question import Campaign, Question, Variant, in_process

SURE = 3.0
"""Standard errors by which a difference must exceed 0 to be compared."""


def differences(
    question: Question,
    population: Population | Contacts,
    *,
    seeds: Sequence[int],
    parameters: Sequence[str] = ("*",),
    factor: float = 1.1,
    campaign: Campaign | None = None,
) -> Sensitivity:
    """Central differences with common random numbers: two runs for each parameter and seed.

    A number is divided and multiplied by a factor, within its bounds, and the difference of the outcomes is taken over
    that of its logarithm; numbers that are 0 have no logarithm and NaN for an answer.

    Args:
        question: The run.
        population: Who it is run on.
        seeds: Seeds of the runs.
        parameters: Patterns of names; a gradient is not needed.
        factor: Greater than 1; the bias of a difference grows with it, and its error shrinks.
        campaign: Makes the runs; in this process where None.

    Raises:
        DataError: The factor is not greater than 1, there is no seed, or every number is 0.
    """
    if not seeds:
        raise DataError("differences need a seed at least; give seeds=[1, 2, 3]")
    began, elements = time.perf_counter(), Elements.of(question.model, parameters)
    number, moved = len(elements.names), apart(elements, factor)
    ends = [elements.around(place, factor) for place in range(number)]
    asked = moved.isfinite().nonzero().reshape(-1).tolist()
    variants = [
        Variant(seed, elements.replaced({place: end})) for seed in seeds for place in asked for end in ends[place]
    ]
    run = in_process(question, population) if campaign is None else campaign
    found = torch.stack(list(run(variants))).reshape(len(seeds), len(asked), 2, -1)
    slopes = torch.full((len(seeds), found.shape[-1], number), torch.nan, dtype=torch.float64)
    per_log = (found[:, :, 1] - found[:, :, 0]) / moved[asked].unsqueeze(1)
    slopes[:, :, asked] = (per_log / elements.values[asked].unsqueeze(1)).transpose(1, 2)
    return Sensitivity(
        elements.names, elements.values, question.names(population), found.mean((1, 2)), slopes,
        time.perf_counter() - began, "differences",
    )  # fmt: skip


def apart(elements: Elements, factor: float) -> Tensor:
    """How far each number is moved.

    Args:
        elements: The numbers.
        factor: By which each is divided and multiplied, within its bounds.

    Returns:
        (num_elements,) float64 distance of the logarithms of both ends; NaN where a number is not above 0, or is kept.

    Raises:
        DataError: The factor is not greater than 1, or no number can be moved.
    """
    if not 1 < factor < math.inf:
        raise DataError(f"differences need a factor greater than 1, got {factor}; 1.1 is usual")
    ends = (elements.around(place, factor) for place in range(len(elements.names)))
    found = [math.log(high / low) if 0 < low < high else math.nan for low, high in ends]
    if all(map(math.isnan, found)):
        raise DataError(
            f"none of {', '.join(elements.names)} has a value above 0 that can be multiplied within its bounds; ask "
            "for others, or at other values"
        )
    return torch.tensor(found, dtype=torch.float64)


@dataclass(frozen=True)
class Agreement:
    """How a one-shot sensitivity agrees with differences, in cells that differences tell from 0.

    Args:
        parameters: Names.
        cells: Number of such cells of each parameter.
        rank: Spearman correlation of the elasticities over these cells; None with fewer than three.
        signs: Share of these cells with the same sign; None without any.
        halves: The correlation of the differences of every other seed with those of the rest, in the same cells: what
            their own noise leaves of 1.
        ratio: Sum of the one-shot elasticities over that of the differences, signs of the latter; None without any.
        cost: Seconds of the differences over seconds of the one-shot sensitivity, at the seeds that each had.
        per_seed: The same for one seed each.
        per_error: The same for the same standard error, in the middle of these cells; None where an error is unknown.
    """

    parameters: tuple[str, ...]
    cells: tuple[int, ...]
    rank: tuple[float | None, ...]
    halves: tuple[float | None, ...]
    signs: tuple[float | None, ...]
    ratio: tuple[float | None, ...]
    cost: float
    per_seed: float
    per_error: float | None

    @property
    def all_signs(self) -> float | None:
        """Share of all cells with the same sign."""
        pairs = [(n, s) for n, s in zip(self.cells, self.signs, strict=True) if s is not None]
        total = sum(n for n, _ in pairs)
        return sum(n * s for n, s in pairs) / total if total else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rows = zip(self.parameters, self.cells, self.rank, self.halves, self.signs, self.ratio, strict=True)
        keys = ("parameter", "cells", "rank_correlation", "rank_of_halves", "share_of_signs", "ratio")
        return {
            "rows": [dict(zip(keys, row, strict=True)) for row in rows],
            "share_of_signs": self.all_signs, "cost_ratio": self.cost, "cost_ratio_per_seed": self.per_seed,
            "cost_ratio_per_error": self.per_error,
        }  # fmt: skip


def agreement(found: Sensitivity, brute: Sensitivity) -> Agreement:
    """Compare a one-shot sensitivity with differences.

    Args:
        found: The one-shot sensitivity.
        brute: Differences of the same groups and parameters; those of more are left out.

    Raises:
        DataError: They are of other parameters or groups.
    """
    if found.groups != brute.groups or not set(found.parameters) <= set(brute.parameters):
        raise DataError("both must have the same parameters and groups; make them with the same arguments")
    brute = _of_parameters(brute, found.parameters)
    ours, theirs = found.elasticity, brute.elasticity
    sure = (theirs.abs() > SURE * brute.se) & ours.isfinite()
    rows = [_row(ours[sure[:, n], n], theirs[sure[:, n], n]) for n in range(len(found.parameters))]
    cells, rank, signs, ratio = zip(*rows, strict=True)
    even, odd = (_of_seeds(brute, slice(first, None, 2)).elasticity for first in (0, 1))
    known = sure & even.isfinite() & odd.isfinite()
    halves = tuple(_rank(even[known[:, n], n], odd[known[:, n], n]) for n in range(len(rows)))
    cost = brute.seconds / found.seconds
    per_seed = cost * found.outcomes.shape[0] / brute.outcomes.shape[0]
    noise = (brute.se / found.se)[sure & (found.se > 0)].square()
    per_error = cost * noise.median().item() if len(noise) else None
    return Agreement(found.parameters, cells, rank, halves, signs, ratio, cost, per_seed, per_error)


def _row(ours: Tensor, theirs: Tensor) -> tuple[int, float | None, float | None, float | None]:
    number = len(ours)
    if not number:
        return 0, None, None, None
    signs = (ours.sign() == theirs.sign()).to(torch.float64).mean().item()
    return number, _rank(ours, theirs), signs, ((ours * theirs.sign()).sum() / theirs.abs().sum()).item()


def _rank(one: Tensor, other: Tensor) -> float | None:
    """Spearman correlation; None with fewer than three numbers, or without any difference between them."""
    if len(one) < 3 or bool((one == one[0]).all() | (other == other[0]).all()):
        return None
    return float(spearmanr(one.numpy(), other.numpy()).statistic)


def _of_parameters(found: Sensitivity, names: tuple[str, ...]) -> Sensitivity:
    at = [found.parameters.index(name) for name in names]
    return replace(found, parameters=names, values=found.values[at], gradients=found.gradients[:, :, at])


def _of_seeds(found: Sensitivity, seeds: slice) -> Sensitivity:
    return replace(found, outcomes=found.outcomes[seeds], gradients=found.gradients[seeds])
