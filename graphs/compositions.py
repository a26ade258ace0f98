r"""Kinds of household: how many people of each ten-year band live together, and how common each kind is.

Every composition of 1 to 8 people over the bands 0-9, ..., 60-69, 70+ is enumerated. Its weight is the
maximum-entropy one

.. math:: w_c \propto q_c \exp(\lambda \cdot f_c)

whose means of the features f (size, people per band, pairs of people per two bands) meet the census, with q_c
the chance of the composition when people of a household were drawn independently from the ages of the
country. The census of 2018 and the ages of 2023 disagree a little, so the pairs are met softly (a Gaussian
slack).

Reference:
    Jaynes (1957), Phys. Rev. 106, 620-630; Sullivan et al. (2024), R. Soc. Open Sci. (the co-member table).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement
from math import lgamma

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from gnabm.errors import DataError
from graphs.sources import NUM_BANDS, Country

Floats = NDArray[np.float64]
MAX_SIZE = 8
_PAIRS = list(combinations_with_replacement(range(NUM_BANDS), 2))
_SLACK_EXACT = 1e-4  # households by size and people by band, per household
_SLACK_PAIRS = 1e-3  # pairs per household; the tables disagree by about this much


@dataclass(frozen=True)
class Compositions:
    """Household compositions and their weights.

    Attributes:
        people: (C, 8) int64 people of each band; sorted by size, then by bands, oldest band first.
        size: (C,) int64 people.
        weight: (C,) share of all households, sums to 1.
    """

    people: NDArray[np.int64]
    size: NDArray[np.int64]
    weight: Floats


def band_shares(country: Country) -> Floats:
    """(8,) share of the people in each ten-year band."""
    people = country.age_5yr
    bands = np.append(people[:14].reshape(7, 2).sum(axis=1), people[14:].sum())
    return np.asarray(bands / bands.sum())


def size_shares(country: Country) -> Floats:
    """(8,) share of households by size, the largest pooled."""
    sizes = country.household_size
    pooled = np.append(sizes[: MAX_SIZE - 1], sizes[MAX_SIZE - 1 :].sum())
    return np.asarray(pooled / pooled.sum())


@lru_cache(maxsize=1)
def enumerate_people() -> NDArray[np.int64]:
    """(C, 8) every composition with an adult aged 20 or more, and one or two people aged 10-19 alone."""
    rows = [
        np.bincount(bands, minlength=NUM_BANDS)
        for size in range(1, MAX_SIZE + 1)
        for bands in combinations_with_replacement(range(NUM_BANDS), size)
    ]
    people = np.array(rows, dtype=np.int64)
    size = people.sum(axis=1)
    teenagers = (people[:, 1] == size) & (size <= 2)
    people = people[(people[:, 2:].sum(axis=1) > 0) | teenagers]
    # One order along which neighbours are alike, so that systematic rounding controls the youngest bands.
    keys = (*(people[:, band] for band in reversed(range(NUM_BANDS))), people.sum(axis=1))
    return np.asarray(people[np.lexsort(keys)])


def _features(people: NDArray[np.int64]) -> Floats:
    size = people.sum(axis=1)
    sizes = [size == s for s in range(1, MAX_SIZE + 1)]
    bands = [people[:, b] for b in range(NUM_BANDS)]
    pairs = [people[:, a] * (people[:, b] - (a == b)) for a, b in _PAIRS]
    return np.stack([*sizes, *bands, *pairs], axis=1).astype(np.float64)


def _targets(country: Country) -> Floats:
    """Means of the features per household; pairs are co-members times people, symmetrised."""
    sizes = size_shares(country)
    mean = float((sizes * np.arange(1, MAX_SIZE + 1)).sum())
    people = band_shares(country) * mean
    # a's meetings with b must be b's with a; this choice misses both rows of the table by the same number.
    each = 1.0 / people
    meetings = (country.comembers + country.comembers.T) / (each[:, None] + each)
    return np.concatenate([sizes, people, [meetings[a, b] for a, b in _PAIRS]])


def fit(country: Country) -> Compositions:
    """Find the maximum-entropy weights by minimising the dual with Newton steps in a trust region.

    The sums run through einsum rather than BLAS, so that the result has the same bits for any number of
    threads.

    Raises:
        DataError: The tables contradict each other so that the optimiser does not converge.
    """
    people = enumerate_people()
    size = people.sum(axis=1)
    features, target = _features(people), _targets(country)
    slack = np.full(len(target), _SLACK_PAIRS)
    slack[: MAX_SIZE + NUM_BANDS] = _SLACK_EXACT
    bands = band_shares(country)
    log_factorial = np.array([lgamma(n + 1) for n in range(MAX_SIZE + 1)])
    prior = log_factorial[size] - log_factorial[people].sum(axis=1) + (people * np.log(bands)).sum(axis=1)
    teenage = people[:, 2:].sum(axis=1) == 0
    prior = prior + np.where(teenage, np.log(country.assumed["lone_teenager_prior"]), 0.0)

    def weights(multipliers: Floats) -> tuple[Floats, float]:
        logit = prior + np.einsum("cf,f->c", features, multipliers)
        top = float(logit.max())
        mass = np.exp(logit - top)
        total = float(mass.sum())
        return mass / total, top + float(np.log(total))

    def dual(multipliers: Floats) -> tuple[float, Floats]:
        weight, log_mass = weights(multipliers)
        gradient = np.einsum("c,cf->f", weight, features) - target + slack**2 * multipliers
        value = log_mass - float((multipliers * target).sum()) + 0.5 * float(((slack * multipliers) ** 2).sum())
        return value, gradient

    def curvature(multipliers: Floats) -> Floats:
        weight, _ = weights(multipliers)
        mean = np.einsum("c,cf->f", weight, features)
        second = np.einsum("cf,cg->fg", features * weight[:, None], features)
        return np.asarray(second - mean[:, None] * mean + np.diag(slack**2))

    found = minimize(
        dual,
        np.zeros(len(target)),
        jac=True,
        hess=curvature,
        method="trust-exact",
        options={"gtol": 1e-9, "maxiter": 200},
    )
    if not found.success:
        raise DataError(
            f"{country.name}: no household weights meet the tables (the optimiser stopped after {found.nit} steps: "
            f"{found.message}); check household_size, age_5yr and household_comembers against each other"
        )
    weight, _ = weights(found.x)
    return Compositions(people=people, size=size, weight=weight)
