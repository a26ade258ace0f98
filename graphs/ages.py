r"""Single years of age: the ages of the country dealt out over the ten-year bands of the households.

Ages are dealt evenly first, and then exchanged between people of one band and district until the members of a
household fit each other. With d the difference in age of two of its members, a deal has the weight

.. math:: \pi \propto \prod_{\text{pairs of one household}} f(d)

where f is the sum of the densities of what two people of one home can be to each other: partners, parent and
child, grandparent and grandchild, and others of any ages; brothers and sisters when both are under 20. A swap is
accepted with min(1, pi'/pi), so it leaves pi as it is, and since ages only change hands, the people of each age
and district stay exactly as many as they are.

Reference:
    Metropolis et al. (1953), J. Chem. Phys. 21, 1087-1092.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from graphs.families import ORDERS, bell, births
from graphs.keyed import generator
from graphs.rounding import deal, largest_remainder, split_evenly
from graphs.sources import MAX_AGE, NUM_BANDS, Country

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_ROUNDS = 6  # swaps proposed to each person; by then 98 % of the rise of the mean log weight is made
_NEAR = 2048  # people of the band, from among whom the other one is chosen: near rows are quick to reach
_MINOR = 20  # years


def age_counts(country: Country, band_people: Ints) -> Ints:
    """(101,) people of each single year of age (100 = 100 and older) for given people per ten-year band.

    Within a band the five-year groups get their share by largest remainder; single years share a group
    evenly.
    """
    counts = np.zeros(MAX_AGE + 1, np.int64)
    for band in range(NUM_BANDS):
        groups = np.arange(2 * band, 2 * band + 2 if band < NUM_BANDS - 1 else len(country.age_5yr))
        people = largest_remainder(country.age_5yr[groups], int(band_people[band]))
        for group, total in zip(groups, people, strict=True):
            years = 5 if group < len(country.age_5yr) - 1 else 1
            counts[5 * group : 5 * group + years] = split_evenly(int(total), years)
    return counts


def district_ages(seed: int, entity: int, band: NDArray[np.uint8], counts: Ints, before: Ints) -> NDArray[np.uint8]:
    """Age of each person of one district.

    Args:
        seed: Seed of the population.
        entity: Number of the district in keyed draws.
        band: (n,) ten-year band of each person.
        counts: (101,) people of the country by age.
        before: (8,) people of each band in the districts before this one.

    Returns:
        (n,) uint8 age, years.
    """
    age = np.empty(len(band), np.uint8)
    for number in range(NUM_BANDS):
        rows = np.flatnonzero(band == number)
        first = 10 * number
        last = first + 10 if number < NUM_BANDS - 1 else MAX_AGE + 1
        start = int(before[number])
        years = first + deal(counts[first:last], start, start + len(rows))
        age[rows] = generator(seed, f"ages/{number}", entity).permutation(years).astype(np.uint8)
    return age


def closeness(country: Country) -> Floats:
    """Densities f of the difference in age of two members of a household, per year.

    Returns:
        (2, 101) for 0, 1, ... 100 years: for any two people, and for two who are under 20.
    """
    family, years = country.families, np.arange(MAX_AGE + 1)
    either = np.arange(-MAX_AGE, MAX_AGE + 1)
    gap = bell(either, family["partner_gap"], family["partner_gap_sd"])
    partners = gap[MAX_AGE:] + np.append(0.0, gap[:MAX_AGE][::-1])
    mother = births(country)
    father = np.convolve(mother, gap)[MAX_AGE : 2 * MAX_AGE + 1]
    parent = (mother + father) / 2
    grandparent = np.convolve(parent, parent)[: MAX_AGE + 1]
    spacing = np.zeros(MAX_AGE + 1)
    spacing[: len(country.birth_spacing)] = country.birth_spacing
    siblings, further = spacing.copy(), spacing
    for order in ORDERS[1:]:
        further = family[f"{order}_child"] * np.convolve(further, spacing)[: MAX_AGE + 1]
        siblings += further
    siblings = np.convolve(siblings, [0.25, 0.5, 0.25])[1 : len(years) + 1]  # a birthday may lie between
    return np.stack([partners + parent + grandparent, siblings / siblings.sum()]) + family["unrelated"]


@numba.njit(cache=True, nogil=True)
def _fit_of(
    age: NDArray[np.uint8], first: np.int64, last: np.int64, own: np.int64, years: np.int64, close: Floats
) -> float:  # pragma: no cover - compiled
    """Product of f over the pairs of one person, as if `years` old, with the others of the household."""
    weight = 1.0
    for other in range(first, last):
        if other != own:
            their = np.int64(age[other])  # bytes would be subtracted without a sign
            both = 1 if years < _MINOR and their < _MINOR else 0
            weight *= close[both, abs(years - their)]
    return weight


@numba.njit(cache=True, nogil=True)
def _swap(
    age: NDArray[np.uint8],
    home: NDArray[np.int32],
    start: Ints,
    order: Ints,
    band_start: Ints,
    close: Floats,
    rounds: int,
    key: np.uint64,
) -> None:  # pragma: no cover - compiled
    """Propose to everybody, `rounds` times, to exchange ages with somebody of the same band, in place."""
    state = key
    for _ in range(rounds):
        for band in range(len(band_start) - 1):
            low, number = band_start[band], band_start[band + 1] - band_start[band]
            near = np.uint64(min(number, _NEAR))
            for place in range(number):
                # splitmix64: the upper half of the bits chooses the partner, the lower half decides.
                state = state + np.uint64(0x9E3779B97F4A7C15)
                bits = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
                bits = bits ^ (bits >> np.uint64(31))
                ahead = np.int64(((bits >> np.uint64(32)) * near) >> np.uint64(32))
                one, two = order[low + place], order[low + (place + ahead) % number]
                a, b = np.int64(age[one]), np.int64(age[two])
                if a == b or home[one] == home[two]:
                    continue
                from_one, to_one = start[home[one]], start[home[one] + 1]
                from_two, to_two = start[home[two]], start[home[two] + 1]
                now = _fit_of(age, from_one, to_one, one, a, close) * _fit_of(age, from_two, to_two, two, b, close)
                then = _fit_of(age, from_one, to_one, one, b, close) * _fit_of(age, from_two, to_two, two, a, close)
                if float(bits & np.uint64(0xFFFFFFFF)) * 2.0**-32 * now < then:
                    age[one], age[two] = b, a


def exchange_ages(
    age: NDArray[np.uint8], home: NDArray[np.int32], close: Floats, key: int, rounds: int = _ROUNDS
) -> NDArray[np.uint8]:
    """Exchange ages between people of one ten-year band until households fit.

    Args:
        age: (n,) years; members of a household in neighbouring rows.
        home: (n,) int32 household, ascending from 0.
        close: (2, 101) densities of `closeness`.
        key: Of the draws, below 2^64.
        rounds: Swaps proposed to each person.

    Returns:
        (n,) uint8: the same ages, in each band, for other people of it.
    """
    band = np.minimum(age // 10, NUM_BANDS - 1)
    start = np.searchsorted(home, np.arange(int(home[-1]) + 2)).astype(np.int64)
    band_start = np.concatenate([[0], np.cumsum(np.bincount(band, minlength=NUM_BANDS))])
    made = age.copy()
    _swap(made, home, start, np.argsort(band, kind="stable"), band_start, close, rounds, np.uint64(key))
    return made
