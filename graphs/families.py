r"""Who lives together before any table of households is met: couples, parents, children and people who share.

A home begins with one adult, of an age of the country. The adult has a partner, or has none, or shares a home
with people of like age. Children are born from the age at first birth on, some years apart, and live at home
until they leave; a grandparent or others may live there too. What comes out is the chance of every
composition, the number of people of each ten-year band. It is the prior that `graphs.compositions` bends as
little as the published tables of households demand, so it decides only what those tables leave open.

All of it is counted, not drawn: a distribution over compositions is one vector, "one more person of band b" moves
its entries.

Reference:
    Keyfitz and Caswell (2005), Applied Mathematical Demography, 3rd ed., ch. 15 (kinship as a renewal from ages
    at birth).
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations_with_replacement
from math import erf, lgamma, sqrt

import numpy as np
from numpy.typing import NDArray

from graphs.sources import MAX_AGE, NUM_BANDS, Country

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
MAX_SIZE = 8
ORDERS = ("second", "third", "fourth", "fifth", "sixth")
"""Children after the first."""
_ADULT = 18
_FERTILE = np.arange(16, 46)
_OLDEST_CHILD = MAX_AGE - int(_FERTILE[0])
_BAND = np.minimum(np.arange(MAX_AGE + 1) // 10, NUM_BANDS - 1)


@lru_cache(maxsize=1)
def lattice() -> tuple[Ints, Ints]:
    """Every number of people of each band in a home of 0 to 8 people.

    Returns:
        (C, 8) people of each band, the empty home first, and (8, C) the row with one person more of each band,
        -1 where the home is full.
    """
    people = np.array(
        [
            np.bincount(bands, minlength=NUM_BANDS)
            for size in range(MAX_SIZE + 1)
            for bands in combinations_with_replacement(range(NUM_BANDS), size)
        ],
        dtype=np.int64,
    )
    row = {tuple(entry): number for number, entry in enumerate(people.tolist())}
    more = np.full((NUM_BANDS, len(people)), -1, np.int64)
    room = np.flatnonzero(people.sum(axis=1) < MAX_SIZE)
    for band in range(NUM_BANDS):
        grown = people[room]
        grown[:, band] += 1
        more[band, room] = [row[tuple(entry)] for entry in grown.tolist()]
    return people, more


def with_person(homes: Floats, band: int) -> Floats:
    """One more person of a band in every home; homes that are full drop out.

    Args:
        homes: (C,) mass of each composition of the lattice.
        band: Index of the band.
    """
    more = lattice()[1][band]
    result = np.zeros_like(homes)
    result[more[more >= 0]] = homes[more >= 0]
    return result


def _with_one_of(homes: Floats, bands: Floats) -> Floats:
    """One more person, of band b with chance bands[b]."""
    result = np.zeros_like(homes)
    for band in np.flatnonzero(bands > 0):
        result += bands[band] * with_person(homes, int(band))
    return result


def age_shares(country: Country) -> Floats:
    """(101,) share of people of each year of age, years of a five-year group alike."""
    years = np.repeat(country.age_5yr[:-1] / 5, 5)
    people = np.append(years, country.age_5yr[-1])
    return np.asarray(people / people.sum())


def bell(values: Ints, mean: float, sd: float) -> Floats:
    """Normal density at the values, scaled to sum 1."""
    weight = np.exp(-0.5 * ((values - mean) / sd) ** 2)
    return np.asarray(weight / weight.sum())


def _bands_near(ages: Ints, mean: float, sd: float) -> Floats:
    """(8,) chance of each band for an age near `mean`, among `ages`."""
    return np.bincount(_BAND[ages], bell(ages, mean, sd), minlength=NUM_BANDS).astype(np.float64)


def births(country: Country) -> Floats:
    """(101,) share of all births by the age of the mother, years."""
    family = country.families
    born = np.zeros(MAX_AGE + 1)
    born[_FERTILE] = bell(_FERTILE, family["first_birth_mean"], family["first_birth_sd"])
    total = born.copy()
    for order in ORDERS:
        born = family[f"{order}_child"] * np.convolve(born, country.birth_spacing)[: MAX_AGE + 1]
        total += born
    return np.asarray(total / total.sum())


def at_home(country: Country) -> Floats:
    """(101,) share of the children of each age who live with their parents."""
    family = country.families
    mean, sd, stay = family["leaving_home_mean"], family["leaving_home_sd"], family["staying_home"]
    middle = np.arange(MAX_AGE + 1) + 0.5
    before = np.array([0.5 * (1.0 - erf((age - mean) / (sd * sqrt(2.0)))) for age in middle])
    return np.asarray((1.0 - stay) * before + stay * np.maximum(0.0, 1.0 - middle / family["staying_until"]))


def children(country: Country) -> Floats:
    """(A, C) distribution of the children at home, by the age of the oldest child (0, 1, ... years).

    Counted from the last child to the first: after each, another may follow some years later, if it is born yet.
    """
    family = country.families
    another = [family[f"{order}_child"] for order in ORDERS]
    stays, spacing = at_home(country), country.birth_spacing
    nobody = np.zeros(len(lattice()[0]))
    nobody[0] = 1.0
    later = np.zeros((_OLDEST_CHILD + 1, len(nobody)))
    for chance in (0.0, *reversed(another)):
        these = np.empty_like(later)
        for age in range(_OLDEST_CHILD + 1):
            born = chance * spacing[: age + 1]
            rest = (1.0 - float(born.sum())) * nobody
            for years in np.flatnonzero(born > 0):
                rest += born[years] * later[age - years]
            these[age] = (1.0 - stays[age]) * rest + stays[age] * with_person(rest, int(_BAND[age]))
        later = these
    return later


def _with_grandparents(country: Country, homes: Floats, adult: int, alive: Floats) -> Floats:
    """Some homes of an adult of this age also hold one or two of the adult's parents."""
    family = country.families
    ages = np.arange(adult + _FERTILE[0], min(adult + int(_FERTILE[-1]), MAX_AGE) + 1)
    if not len(ages):
        return homes
    weight = bell(ages, adult + family["first_birth_mean"], family["first_birth_sd"]) * alive[ages]
    bands = family["grandparent"] * np.bincount(_BAND[ages], weight, minlength=NUM_BANDS)
    both = family["second_grandparent"]
    result = (1.0 - float(bands.sum())) * homes
    for band in np.flatnonzero(bands > 0):
        one = with_person(homes, int(band))
        result += bands[band] * ((1.0 - both) * one + both * with_person(one, int(band)))
    return result


def _shared(country: Country, bands: Floats) -> Floats:
    """(C,) homes of people whose bands are drawn independently, by the sizes of shared homes."""
    people = lattice()[0]
    size = people.sum(axis=1)
    factorial = np.array([lgamma(n + 1) for n in range(MAX_SIZE + 1)])
    log_chance = factorial[size] - factorial[people].sum(axis=1) + (people * np.log(np.maximum(bands, 1e-99))).sum(1)
    wanted = np.array([country.families.get(f"shared_by_{n}", 0.0) for n in range(MAX_SIZE + 1)])
    return np.asarray(wanted[size] * np.exp(log_chance))


def chance_of_homes(country: Country) -> Floats:
    """(C,) chance of each composition of the lattice, before any table of households is met.

    Args:
        country: Tables; of households only what is assumed about families is used.
    """
    family, shares, stays = country.families, age_shares(country), at_home(country)
    alive = shares / shares.max()
    first = bell(_FERTILE, family["first_birth_mean"], family["first_birth_sd"])
    born = children(country)
    adults = np.arange(_ADULT, MAX_AGE + 1)
    nobody = np.zeros(born.shape[1])
    nobody[0] = 1.0
    homes = np.zeros_like(nobody)
    for adult in adults:
        partnered, sharing = country.living[adult]
        past = adult >= _FERTILE
        raised = np.einsum("x,xc->c", first[past], born[adult - _FERTILE[past]])
        raised += (1.0 - float(first[past].sum())) * nobody  # a first child may still come
        alone = (1.0 - partnered) * (1.0 - sharing) * (1.0 - stays[adult])
        partner = _bands_near(adults, adult + family["partner_gap"], family["partner_gap_sd"])
        both = [family["couple_has_children"], family["single_has_children"]]
        with_children = [share * raised + (1.0 - share) * nobody for share in both]
        couple, single = (
            _with_grandparents(country, with_person(part, int(_BAND[adult])), int(adult), alive)
            for part in with_children
        )
        # Two adults make one home of a couple: each is counted once as the one it begins with.
        homes += shares[adult] * (0.5 * partnered * _with_one_of(couple, partner) + alone * single)
        flat = _shared(country, _bands_near(adults, float(adult), family["flatmate_spread"]))
        size = np.maximum(lattice()[0].sum(axis=1), 1)
        homes += shares[adult] * (1.0 - partnered) * sharing * flat / size
    return _with_others(country, homes, np.bincount(_BAND, shares, minlength=NUM_BANDS).astype(np.float64))


def _with_others(country: Country, homes: Floats, bands: Floats) -> Floats:
    """Add people of any age to some homes, so that no composition with an adult is impossible; sums to 1."""
    total = homes.copy()
    chance = country.families["other_person"]
    for _ in range(MAX_SIZE):
        homes = chance * _with_one_of(homes, bands)
        total += homes
        chance = country.families["further_person"]
    return np.asarray(total / total.sum())
