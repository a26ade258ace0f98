"""Schools of all levels and their classes: rolls from the tables, pupils from nearby, classes by age.

Schools are made zone by zone. A zone is one district when all its schools are modelled; where the population is
scaled down so far that a district would keep a fraction of a school, neighbouring ones share their schools, so that
a school keeps the size of a school.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from graphs.districts import shared_out
from graphs.keyed import generator
from graphs.people import People
from graphs.placement import choose_by_age, fill, scaled_quota, subdivide
from graphs.rounding import group_by, largest_remainder
from graphs.sources import EDUCATION, MAX_AGE, SECTORS, Country

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_SMALLEST_ROLL = 5.0
_SPREADS = (0.05, 3.0)
"""Least and largest standard deviation of the logarithm of rolls."""
_LEAST_SCHOOLS = 5.0
"""Schools of a sector below which a zone cannot show the spread of rolls; no region of the tables has fewer."""


@dataclass(frozen=True)
class Membership:
    """Who belongs to which place, rows and places counted within one zone.

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
    """Classes and schools of one zone, without their staff, and the sector of each school (index in EDUCATION)."""

    classes: Membership
    schools: Membership
    sector: NDArray[np.uint8]


def school_zones(schools: Floats, districts: Ints, scale: float) -> tuple[tuple[int, ...], ...]:
    """Runs of districts that share their schools, at `scale` agents per resident.

    Args:
        schools: (R, 2) schools of each region by sector, at one agent per resident.
        districts: (R,) districts of each region.
        scale: Agents per resident.

    Returns:
        Districts of each zone; every zone has at least `_LEAST_SCHOOLS` of each sector, or is the whole country. A
        district shares schools with another region only if its whole region must.
    """
    first = np.cumsum(districts) - districts
    each = shared_out(schools, districts) * scale
    zones: list[tuple[int, ...]] = []
    for regions in _runs(schools * scale):
        inside = range(int(first[regions[0]]), int(first[regions[-1]] + districts[regions[-1]]))
        zones.extend(tuple(inside[n] for n in run) for run in _runs(each[inside]))
    return tuple(zones)


def _runs(schools: Floats) -> list[list[int]]:
    """Shortest runs of entries that have schools enough (n, 2); what is left over goes to the last one."""
    runs: list[list[int]] = []
    count = np.full(len(SECTORS), _LEAST_SCHOOLS)
    for entry in range(len(schools)):
        if (count >= _LEAST_SCHOOLS).all():
            runs.append([])
            count = np.zeros(len(SECTORS))
        runs[-1].append(entry)
        count = count + schools[entry]
    if len(runs) > 1 and (count < _LEAST_SCHOOLS).any():
        runs[-2].extend(runs.pop())
    return runs


def count_schools(schools: Floats, zones: Sequence[Sequence[int]], scale: float) -> Ints:
    """(Z, 2) schools of each zone and sector, at `scale` agents per resident; schools (D, 2) of districts."""
    whole = np.stack([schools[list(zone)].sum(axis=0) for zone in zones])
    return np.stack([largest_remainder(column, round(float(column.sum()) * scale)) for column in whole.T], axis=1)


def join_people(parts: Sequence[People]) -> People:
    """People of several neighbouring districts as one run of rows; areas stay those within each district."""
    homes = np.cumsum([0] + [int(part.home[-1]) + 1 for part in parts])
    return People(
        age=np.concatenate([part.age for part in parts]),
        home=np.concatenate([part.home + np.int32(first) for part, first in zip(parts, homes, strict=False)]),
        area=np.concatenate([part.area for part in parts]),
    )


def quantile_scores(count: int) -> Floats:
    """(count,) standard normal quantiles at the middles of `count` equal shares."""
    normal = NormalDist()
    return np.array([normal.inv_cdf((i + 0.5) / count) for i in range(count)])


def _bisect(below: Callable[[float], bool], low: float, high: float) -> float:
    """Where `below` turns from true to false, or the end that is nearest to it."""
    for _ in range(50):
        middle = (low + high) / 2
        if below(middle):
            low = middle
        else:
            high = middle
    return low


def rolls(total: int, count: int, median: float, largest: float) -> Ints:
    """Rolls of the schools of one sector: lognormal quantiles with the table's median that sum to `total`.

    The spread is what makes the mean right, since the median is given; it is found by bisection. Where the largest
    roll forbids it, or the mean is below the median, the rolls below the median get a spread of their own. The two
    middle rolls of an even number of schools are as far below the median as above it.

    Args:
        total: Pupils.
        count: Schools, at least 1.
        median: Median roll, pupils.
        largest: Largest roll, pupils; exceeded only if the schools could not hold everybody.

    Returns:
        (count,) int64, ascending.
    """
    score = quantile_scores(count)

    def spread_out(below: float, above: float) -> Floats:
        sigma = np.where(score < 0, below, above)
        made = np.clip(median * np.exp(sigma * score), min(_SMALLEST_ROLL, median), largest)
        if count % 2 == 0:
            gap = min(median - float(made[count // 2 - 1]), float(made[count // 2]) - median)
            made[count // 2 - 1], made[count // 2] = median - gap, median + gap
        return np.asarray(made)

    sigma = _bisect(lambda both: float(spread_out(both, both).sum()) < total, *_SPREADS)
    below = _bisect(lambda lower: float(spread_out(lower, sigma).sum()) > total, 0.0, _SPREADS[1])
    return largest_remainder(spread_out(below, sigma), total)


def zone_rolls(
    country: Country, zone: Sequence[int], sector: int, total: int, count: int, share: Sequence[float]
) -> Ints:
    """Rolls of the schools of a zone: quantiles of the rolls of its regions in full, stretched to sum to `total`.

    Only rolls above the middle one, or the middle two, are stretched, away from the median or towards it: medians of
    zones and country so stay those of the table however few schools there are.

    Args:
        country: Tables.
        zone: Region of each district of the zone.
        sector: 0 primary, 1 secondary.
        total: Pupils.
        count: Schools, at least 1.
        share: Of its region that each district is.

    Returns:
        (count,) int64.
    """
    parts = [
        rolls(
            int(country.students[region, sector]),
            int(country.schools[region, sector]),
            country.median_roll[region, sector],
            country.max_roll[region, sector],
        )
        for region in zone
    ]
    weight = np.repeat(np.asarray(share), [len(part) for part in parts])
    full = np.concatenate(parts).astype(np.float64)
    order = np.argsort(full, kind="stable")
    full, weight = full[order], weight[order]
    at = np.cumsum(weight) - weight / 2
    shape = np.interp((np.arange(count) + 0.5) / count * weight.sum() - 0.5, at - 0.5, full)
    middle = float(np.median(shape))
    upper = np.arange(count) > count // 2

    def stretched(power: float) -> Floats:
        moved = np.minimum(middle * np.exp(power * np.log(shape / middle)), full[-1])
        return np.asarray(np.where(upper, moved, shape))

    power = _bisect(lambda power: float(stretched(power).sum()) < total, 0.0, 3.0)
    return largest_remainder(stretched(power), total)


def pupil_quotas(country: Country, available: Ints, students: Ints) -> Ints:
    """(4, 101) pupils of each age and sector.

    Args:
        country: Tables.
        available: (101,) people by age.
        students: (2,) students of primary and secondary schools, met as nearly as the ages allow. Early childhood
            and tertiary have shares of ages instead.
    """
    quotas: list[Ints] = []
    left = available
    taken = np.zeros(MAX_AGE + 1)
    caps = {"primary": 0.99}
    for number, sector in enumerate(EDUCATION):
        # Shares are of everybody of an age; those whom an earlier sector has enrolled are gone from `left`.
        share = np.minimum(country.enrolment[:, number] / np.maximum(1.0 - taken, 0.02), 1.0)
        total = int(students[number]) if number < len(students) else round(float((left * share).sum()))
        quotas.append(scaled_quota(left, share, total, caps.get(sector, 1.0)))
        left = left - quotas[-1]
        taken = taken + country.enrolment[:, number]
    return np.stack(quotas)


def _sizes(
    country: Country, zone: Sequence[int], share: Sequence[float], sector: int, pupils: int, num_schools: Ints
) -> Ints:
    """Rolls of one sector of a zone."""
    if sector < len(SECTORS):
        return zone_rolls(country, zone, sector, pupils, min(max(1, int(num_schools[sector])), pupils), share)
    name = EDUCATION[sector].replace(" ", "_")
    services, children = country.early_childhood
    mean = children / services if name == "early_childhood" else country.assumed["tertiary_mean_roll"]
    median, largest = country.assumed[f"{name}_median_roll"], country.assumed[f"{name}_max_roll"]
    return rolls(pupils, max(1, round(pupils / mean)), median, largest)


def make_schools(
    country: Country,
    seed: int,
    entity: int,
    zone: Sequence[int],
    share: Sequence[float],
    people: People,
    students: Ints,
    num_schools: Ints,
) -> Schools:
    """Enrol the children and students of a zone.

    Brothers and sisters share one random displacement, so that they mostly go to one school.

    Args:
        country: Tables.
        seed: Seed of the population.
        entity: Number of the zone in keyed draws.
        zone: Region of each district of the zone.
        share: Of its region that each district is.
        people: Rows of the zone.
        students: (2,) students that the table asks for, at this number of agents.
        num_schools: (2,) schools, likewise.
    """
    num_people = len(people.age)
    quotas = pupil_quotas(country, np.bincount(people.age, minlength=MAX_AGE + 1), students)
    sector_of = choose_by_age(people.age, quotas, generator(seed, "schools/choice", entity))
    drift = generator(seed, "schools/place", entity).standard_normal(int(people.home[-1]) + 1)
    school = np.full(num_people, -1, np.int32)
    group = np.full(num_people, -1, np.int32)
    sectors: list[NDArray[np.uint8]] = []
    first_school = first_class = 0
    for sector in range(len(EDUCATION)):
        rows = np.flatnonzero(sector_of == sector)
        if not len(rows):
            continue
        size = _sizes(country, zone, share, sector, len(rows), num_schools)
        size = generator(seed, f"schools/order/{sector}", entity).permutation(size[size > 0])
        tertiary = EDUCATION[sector] == "tertiary"
        spread = country.assumed["tertiary_spread" if tertiary else "school_spread"]
        rows, place = fill(rows, rows + drift[people.home[rows]] * spread, size)
        school[rows] = first_school + place
        if not tertiary:  # students of all ages share their courses
            rows = rows[np.lexsort((people.age[rows], place))]
        parts = np.ceil(size / country.class_size[sector]).astype(np.int64)
        group[rows] = first_class + subdivide(place, size, parts)
        sectors.append(np.full(len(size), sector, np.uint8))
        first_school += len(size)
        first_class += int(parts.sum())
    return Schools(
        classes=Membership.from_place(group, first_class),
        schools=Membership.from_place(school, first_school),
        sector=np.concatenate(sectors) if sectors else np.empty(0, np.uint8),
    )
