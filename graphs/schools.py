"""Schools of one region and their classes: rolls from the table, pupils from nearby, classes by age."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from graphs.keyed import generator
from graphs.people import People
from graphs.placement import choose_by_age, fill, scaled_quota, subdivide
from graphs.rounding import group_by, largest_remainder
from graphs.sources import MAX_AGE, SECTORS, Country

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_SMALLEST_ROLL = 5.0


@dataclass(frozen=True)
class Membership:
    """Who belongs to which place, rows and places counted within one region.

    Attributes:
        place: (n,) int32 place of each row, -1 = none.
        indptr: (P + 1,) int64.
        member: (M,) int32 rows of each place, ascending.
    """

    place: NDArray[np.int32]
    indptr: Ints
    member: NDArray[np.int32]

    @classmethod
    def from_place(cls, place: NDArray[np.int32], num_places: int) -> Membership:
        """Build both directions from the place of each row."""
        return cls(place, *group_by(place, num_places))


@dataclass(frozen=True)
class Schools:
    """Classes and schools of one region, and the sector (0 primary, 1 secondary) of each school."""

    classes: Membership
    schools: Membership
    sector: NDArray[np.uint8]


def quantile_scores(count: int) -> Floats:
    """(count,) standard normal quantiles at the middles of `count` equal shares."""
    normal = NormalDist()
    return np.array([normal.inv_cdf((i + 0.5) / count) for i in range(count)])


def rolls(total: int, count: int, median: float, largest: float) -> Ints:
    """Rolls of the schools of one sector: lognormal quantiles with the table's median that sum to `total`.

    The spread is what makes the mean right, since the median is given; it is found by bisection.

    Args:
        total: Pupils.
        count: Schools, at least 1.
        median: Median roll, pupils.
        largest: Largest roll, pupils; exceeded only if the schools could not hold everybody.

    Returns:
        (count,) int64.
    """
    score = quantile_scores(count)
    low, high = 0.05, 3.0

    def spread_out(sigma: float) -> Floats:
        return np.asarray(np.clip(median * np.exp(sigma * score), min(_SMALLEST_ROLL, median), largest))

    for _ in range(50):
        middle = (low + high) / 2
        if float(spread_out(middle).sum()) < total:
            low = middle
        else:
            high = middle
    return largest_remainder(spread_out(low), total)


def pupil_quotas(country: Country, available: Ints, students: Ints) -> Ints:
    """(2, 101) pupils of each age and sector, as near to `students` as the ages allow."""
    primary = scaled_quota(available, country.enrolment[:, 0], int(students[0]), 0.99)
    left = available - primary
    share = country.enrolment[:, 1] / np.maximum(1.0 - country.enrolment[:, 0], 0.02)
    secondary = scaled_quota(left, np.minimum(share, 1.0), int(students[1]), 1.0)
    return np.stack([primary, secondary])


def make_schools(
    country: Country, seed: int, region: int, people: People, students: Ints, num_schools: Ints
) -> Schools:
    """Enrol the children of a region.

    Brothers and sisters share one random displacement, so that they mostly go to one school.

    Args:
        country: Tables.
        seed: Seed of the population.
        region: Index of the region.
        people: Rows of the region.
        students: (2,) students that the table asks for, at this number of agents.
        num_schools: (2,) schools, likewise.
    """
    num_people = len(people.age)
    quotas = pupil_quotas(country, np.bincount(people.age, minlength=MAX_AGE + 1), students)
    sector_of = choose_by_age(people.age, quotas, generator(seed, "schools/choice", region))
    drift = generator(seed, "schools/place", region).standard_normal(int(people.home[-1]) + 1)
    school = np.full(num_people, -1, np.int32)
    group = np.full(num_people, -1, np.int32)
    sectors: list[NDArray[np.uint8]] = []
    first_school = first_class = 0
    for sector in range(len(SECTORS)):
        rows = np.flatnonzero(sector_of == sector)
        if not len(rows):
            continue
        count = min(max(1, int(num_schools[sector])), len(rows))
        size = rolls(len(rows), count, country.median_roll[region, sector], country.max_roll[region, sector])
        size = generator(seed, f"schools/order/{sector}", region).permutation(size[size > 0])
        position = rows + drift[people.home[rows]] * country.assumed["school_spread"]
        rows, place = fill(rows, position, size)
        school[rows] = first_school + place
        rows = rows[np.lexsort((people.age[rows], place))]
        parts = np.ceil(size / country.assumed["class_size"]).astype(np.int64)
        group[rows] = first_class + subdivide(place, size, parts)
        sectors.append(np.full(len(size), sector, np.uint8))
        first_school += len(size)
        first_class += int(parts.sum())
    return Schools(
        classes=Membership.from_place(group, first_class),
        schools=Membership.from_place(school, first_school),
        sector=np.concatenate(sectors) if sectors else np.empty(0, np.uint8),
    )
