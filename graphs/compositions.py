r"""Kinds of household: how many people of each ten-year band live together, and how common each kind is.

Every composition of 1 to 8 people over the bands 0-9, ..., 60-69, 70+ has the weight

.. math:: w_c \propto q_c \exp(\lambda \cdot f_c)

which is nearest (in relative entropy) to the prior q of `graphs.families` among those whose means of the
features f (size, people per band, pairs of people per two bands) meet the census. Pairs are met softly (a
Gaussian slack of 2 %), since their table is rounded and no household here has more than 8 people.

The table of co-members is of 2018 and the ages are of 2023, with fewer children among as many people of the age
of parents. Three things are held when it is moved to 2023 (`comember_targets`): families stay as common and have
fewer children each; a child misses its co-members of an age by as many people as they miss it; the sizes of
households stay, so adults make up the people whom children no longer are.

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
from graphs.families import MAX_SIZE, chance_of_homes, lattice
from graphs.sources import NUM_BANDS, Country

Floats = NDArray[np.float64]
_PAIRS = list(combinations_with_replacement(range(NUM_BANDS), 2))
_CHILDREN = 2  # bands of people under 20
_SLACK_EXACT = 1e-4  # of households by size and people by band
_SLACK_PAIRS = 0.02  # of pairs per household
_LEAST_PAIRS = 5e-4  # pairs per household below which a share says little: the table has four decimals


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
def _inhabited() -> NDArray[np.int64]:
    """(C,) rows of the lattice with an adult aged 20 or more, or one or two people aged 10-19 alone."""
    people = lattice()[0]
    size = people.sum(axis=1)
    teenagers = (people[:, 1] == size) & (size >= 1) & (size <= 2)
    rows = np.flatnonzero((people[:, _CHILDREN:].sum(axis=1) > 0) | teenagers)
    # One order along which neighbours are alike, so that systematic rounding controls the youngest bands.
    keys = (*(people[rows, band] for band in reversed(range(NUM_BANDS))), size[rows])
    return np.asarray(rows[np.lexsort(keys)])


def enumerate_people() -> NDArray[np.int64]:
    """(C, 8) people of each band in every composition that a household can have."""
    return np.asarray(lattice()[0][_inhabited()])


def _features(people: NDArray[np.int64]) -> Floats:
    size = people.sum(axis=1)
    sizes = [size == s for s in range(1, MAX_SIZE + 1)]
    bands = [people[:, b] for b in range(NUM_BANDS)]
    pairs = [people[:, a] * (people[:, b] - (a == b)) for a, b in _PAIRS]
    return np.stack([*sizes, *bands, *pairs], axis=1).astype(np.float64)


def census_bands(comembers: Floats) -> Floats:
    """(8,) shares of people by band that make a table of co-members mutual.

    a's meetings with b are b's with a, so C_ab / C_ba = N_b / N_a: the table itself says how many people of each
    band it was counted on (least squares over the logarithms of all ratios).

    Args:
        comembers: (8, 8) mean household co-members, row = participant.
    """
    people = np.exp(np.log(comembers.T / comembers).mean(axis=1))
    return np.asarray(people / people.sum())


def comember_targets(country: Country) -> Floats:
    """(8, 8) pairs of people by band, per household: the co-members of the census moved to the ages of now."""
    sizes, number = size_shares(country), np.arange(1, MAX_SIZE + 1)
    mean = float((sizes * number).sum())
    then, now = census_bands(country.comembers) * mean, band_shares(country) * mean
    each = 1.0 / now
    # Mutual on the people of now; this choice misses both rows of the table by the same number of people.
    pairs = (country.comembers + country.comembers.T) / (each[:, None] + each)
    counted = then[:, None] * country.comembers
    change = now / then
    young = slice(0, _CHILDREN)
    # As many families with fewer children each: brothers and sisters thin out on both sides of a pair.
    pairs[young, young] = ((counted + counted.T) / 2 * change[:, None] * change)[young, young]
    grown = slice(_CHILDREN, NUM_BANDS)
    total = float((sizes * number * (number - 1)).sum())
    left = total - float(pairs[young, young].sum()) - 2 * float(pairs[young, grown].sum())
    pairs[grown, grown] *= left / float(pairs[grown, grown].sum())
    return np.asarray(pairs)


def _targets(country: Country) -> Floats:
    """Means of the features per household."""
    sizes = size_shares(country)
    people = band_shares(country) * float((sizes * np.arange(1, MAX_SIZE + 1)).sum())
    pairs = comember_targets(country)
    return np.concatenate([sizes, people, [pairs[a, b] for a, b in _PAIRS]])


def log_prior(country: Country) -> Floats:
    """(C,) logarithm of the prior q of each composition of `enumerate_people`."""
    people = enumerate_people()
    size = people.sum(axis=1)
    prior = np.log(np.maximum(chance_of_homes(country)[_inhabited()], 1e-99))
    # No family explains teenagers on their own; they are as if drawn from the country, and rare.
    factorial = np.array([lgamma(n + 1) for n in range(MAX_SIZE + 1)])
    drawn = factorial[size] - factorial[people].sum(axis=1) + (people * np.log(band_shares(country))).sum(axis=1)
    teenage = people[:, _CHILDREN:].sum(axis=1) == 0
    return np.where(teenage, drawn + np.log(country.assumed["lone_teenager_prior"]), prior)


def fit(country: Country) -> Compositions:
    """Find the weights nearest to the prior by minimising the dual with Newton steps in a trust region.

    Features are counted in units of their targets, which keeps the problem well conditioned. The sums run
    through einsum rather than BLAS, so that the result has the same bits for any number of threads.

    Raises:
        DataError: The tables contradict each other so that the optimiser does not converge.
    """
    people = enumerate_people()
    size = people.sum(axis=1)
    aim = _targets(country)
    features, target = _features(people) / aim, np.ones(len(aim))
    slack = np.sqrt(_SLACK_PAIRS**2 + (_LEAST_PAIRS / aim) ** 2)
    slack[: MAX_SIZE + NUM_BANDS] = _SLACK_EXACT
    prior = log_prior(country)

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
        options={"gtol": 1e-7, "maxiter": 200},
    )
    if not found.success:
        raise DataError(
            f"{country.name}: no household weights meet the tables (the optimiser stopped after {found.nit} steps: "
            f"{found.message}); check household_size, age_5yr and household_comembers against each other"
        )
    weight, _ = weights(found.x)
    return Compositions(people=people, size=size, weight=weight)
