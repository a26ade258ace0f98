"""The two passes over the zones of a country: who lives and learns there, then who works there.

Between them everybody's place of work is known but not the site, since the workers of a site come from many zones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphs.country import Plan, people_task, schools_task, sites_task, workers_task
from graphs.counts import PlaceCounts
from graphs.mixing import NUM_GROUPS, activity_group
from graphs.people import People
from graphs.schools import Membership
from graphs.staff import ADULT, WorkersSeated, appoint
from graphs.work import Sites, Workers

Ints = NDArray[np.int64]
WORKER = np.dtype([("row", "<i4"), ("age", "u1"), ("free", "?")])
"""A worker on the way from home to work: row of the country, age, whether enrolled nowhere."""


@dataclass(frozen=True)
class Residents:
    """What the first pass makes of a zone (n rows of its districts).

    Attributes:
        people: People of each district.
        classes: (n,) int32 class of each pupil, numbered within the zone, -1 = none.
        schools: (n,) int32 school of each pupil, likewise.
        num_classes: Number of classes.
        sector: (P,) uint8 sector of each school.
        workers: Per district, its workers by district of work, ascending within.
        flows: (districts of the zone, D) workers by district of work.
    """

    people: tuple[People, ...]
    classes: NDArray[np.int32]
    schools: NDArray[np.int32]
    num_classes: int
    sector: NDArray[np.uint8]
    workers: tuple[NDArray[np.void], ...]
    flows: Ints


@dataclass(frozen=True)
class Members:
    """Members of the places of a zone in one layer, place by place.

    Attributes:
        rows: (m,) int32 rows of the country, ascending within a place.
        size: (P,) members of each place.
        counts: Pairs of members by size of place and age group.
    """

    rows: NDArray[np.int32]
    size: Ints
    counts: PlaceCounts

    @staticmethod
    def of(rows: Ints, size: Ints, age: NDArray[np.uint8]) -> Members:
        """Members with the age of each."""
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(size)])
        return Members(rows.astype(np.int32), size, PlaceCounts.of(indptr, activity_group(age), NUM_GROUPS))


@dataclass(frozen=True)
class Workplaces:
    """What the second pass makes of a zone.

    Attributes:
        members: By layer: class and school with their staff, team, site.
        staff: (m, 3) row, class and school of the staff of the zone's schools; places numbered within the zone.
        roll: (P,) pupils of each school.
        school_region: (P,) uint8 region of each school: where the pupil in the middle lives.
        sites_of: Sites in each district.
        enterprise: (S,) enterprise of each site, numbered within the zone.
        enterprise_class: (S,) uint8 class of each site.
    """

    members: dict[str, Members]
    staff: Ints
    roll: Ints
    school_region: NDArray[np.uint8]
    sites_of: tuple[int, ...]
    enterprise: Ints
    enterprise_class: NDArray[np.uint8]


def first_pass(plan: Plan, zone: int) -> Residents:
    """Task: people, schools and classes of a zone, and who of its people works where."""
    districts = plan.zones[zone]
    people = tuple(people_task(plan, district) for district in districts)
    made = schools_task(plan, zone, people)
    free = made.schools.place < 0
    start = plan.rows(zone)[0]
    workers: list[NDArray[np.void]] = []
    flows: list[list[int]] = []
    for district, part in zip(districts, people, strict=True):
        going = workers_task(plan, district, part)
        flows.append([len(each) for each in going])
        leaving = np.empty(sum(flows[-1]), WORKER)
        leaving["row"] = np.concatenate([each.rows for each in going])
        leaving["age"] = np.concatenate([each.age for each in going])
        leaving["free"] = free[leaving["row"] - start]
        workers.append(leaving)
    return Residents(
        people=people,
        classes=made.classes.place,
        schools=made.schools.place,
        num_classes=len(made.classes.indptr) - 1,
        sector=made.sector,
        workers=tuple(workers),
        flows=np.array(flows, np.int64),
    )


def second_pass(
    plan: Plan,
    zone: int,
    age: NDArray[np.uint8],
    place: tuple[NDArray[np.int32], NDArray[np.int32]],
    sector: NDArray[np.uint8],
    num_classes: int,
    arrivals: Sequence[Sequence[NDArray[np.void]]],
) -> Workplaces:
    """Task: sites and teams of a zone, and the staff of its schools.

    Args:
        plan: Plan of the country.
        zone: Index of the zone.
        age: (n,) years of its people.
        place: (n,) class and school of each pupil, as the first pass made them.
        sector: (P,) sector of each school.
        num_classes: Number of classes.
        arrivals: Per district of the zone, those who work there, by district of home.
    """
    districts = plan.zones[zone]
    sites = [
        sites_task(plan, district, [Workers(part["row"].astype(np.int64), part["age"]) for part in parts])
        for district, parts in zip(districts, arrivals, strict=True)
    ]
    by_home = [np.concatenate(list(parts)) for parts in arrivals]
    seated = np.concatenate([_of_rows(known, site.rows) for known, site in zip(by_home, sites, strict=True)])
    teamed = np.concatenate([_of_rows(known, site.team_rows) for known, site in zip(by_home, sites, strict=True)])
    size = np.concatenate([site.site_size for site in sites])
    team_size = np.concatenate([site.team_size for site in sites])
    classes, schools = Membership.from_place(place[0], num_classes), Membership.from_place(place[1], len(sector))
    start = plan.rows(zone)[0]
    roll = np.diff(schools.indptr)
    fit = seated["free"] & (seated["age"] >= ADULT)
    workers = WorkersSeated(seated["row"].astype(np.int64), size, fit)
    staff = appoint(schools, classes, roll / plan.country.pupils_per_staff[sector], start, workers)
    staff_age = _ages_of(seated, staff.rows)
    middle = schools.member[schools.indptr[:-1] + roll // 2].astype(np.int64) + start  # in the middle of the catchment
    return Workplaces(
        members={
            "class": _with_staff(classes, age, start, staff.rows, staff.group, staff_age),
            "school": _with_staff(schools, age, start, staff.rows, staff.school, staff_age),
            "team": Members.of(teamed["row"], team_size, teamed["age"]),
            "site": Members.of(seated["row"], size, seated["age"]),
        },
        staff=np.stack([staff.rows, staff.group, staff.school], axis=1),
        roll=roll,
        school_region=plan.region[np.searchsorted(plan.row_start, middle, side="right") - 1].astype(np.uint8),
        sites_of=tuple(len(site.site_size) for site in sites),
        enterprise=_numbered_on(sites),
        enterprise_class=np.concatenate([site.enterprise_class for site in sites]),
    )


def _of_rows(known: NDArray[np.void], rows: Ints) -> NDArray[np.void]:
    """Workers of the given rows; those known stand in ascending order."""
    return np.asarray(known[np.searchsorted(known["row"], rows.astype(np.int32))])


def _ages_of(workers: NDArray[np.void], rows: Ints) -> NDArray[np.uint8]:
    """Ages of the given rows among workers in any order."""
    order = np.argsort(workers["row"], kind="stable")
    return np.asarray(_of_rows(workers[order], rows)["age"])


def _with_staff(
    pupils: Membership, age: NDArray[np.uint8], start: int, staff: Ints, place: Ints, staff_age: NDArray[np.uint8]
) -> Members:
    """Members of classes or schools: pupils, and staff from anywhere in the country."""
    number = len(pupils.indptr) - 1
    rows = np.concatenate([pupils.member.astype(np.int64) + start, staff])
    where = np.concatenate([np.repeat(np.arange(number), np.diff(pupils.indptr)), place])
    order = np.lexsort((rows, where))
    ages = np.concatenate([age[pupils.member], staff_age])[order]
    return Members.of(rows[order], np.bincount(where, minlength=number), ages)


def _numbered_on(sites: Sequence[Sites]) -> Ints:
    """Enterprises numbered from 0 in each district, counted on over the districts of a zone."""
    first, made = 0, []
    for site in sites:
        made.append(site.enterprise + first)
        first += int(site.enterprise.max(initial=-1)) + 1
    return np.concatenate(made)
