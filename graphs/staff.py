"""Who works at a school: a work site of the right size nearby becomes the school's, and its workers its staff.

Staff so stay among the employees of their region and enterprise class: they meet each other at the site, and the
pupils in the class and the school.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphs.placement import ranks_within
from graphs.schools import Membership

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
ADULT = 18
_LEAST_FIT = 0.75
"""Share of the workers of a site who must be fit for staff, so that no team of pupils and students is a school's."""
_SLACK = (0.1, 0.25, 0.5)
"""How far the size of a site may be from the staff wanted: the narrowest that leaves a choice is taken."""


@dataclass(frozen=True)
class Staff:
    """Staff of the schools of one zone (m of them).

    Attributes:
        rows: (m,) rows of the country, each once.
        school: (m,) school of each, numbered within the zone.
        group: (m,) class of each, likewise.
    """

    rows: Ints
    school: Ints
    group: Ints


@dataclass(frozen=True)
class WorkersSeated:
    """Those who work in one zone (w of them), site by site.

    Attributes:
        rows: (w,) rows of the country.
        size: (S,) workers of each site.
        fit: (w,) whether they could be staff: adults who are enrolled nowhere.
    """

    rows: Ints
    size: Ints
    fit: NDArray[np.bool_]


def place_of_members(rows: NDArray[Any], size: Ints) -> Floats:
    """(P,) mean row of the members of each place, given member by member and place by place; none is empty."""
    first = np.cumsum(size) - size
    return np.asarray(np.add.reduceat(rows.astype(np.float64), first) / size)


def match_sites(wanted: Floats, where: Floats, size: Ints, site: Floats) -> Ints:
    """Find each school a site of its own: about as many workers as it wants, and of those the nearest.

    Schools that want many choose first. A school finds none when no site is left.

    Args:
        wanted: (P,) staff that each school wants.
        where: (P,) where it stands along the line of rows.
        size: (S,) workers of each site who could be staff.
        site: (S,) where the site stands.

    Returns:
        (P,) int64 site of each school, -1 = none.
    """
    order = np.argsort(size, kind="stable")
    order = order[size[order] > 0]
    ordered, position = size[order], site[order]
    free = np.ones(len(order), np.bool_)
    chosen = np.full(len(wanted), -1, np.int64)
    for school in np.argsort(-wanted, kind="stable"):
        staff = max(float(wanted[school]), 1.0)
        for slack in _SLACK:
            first, last = np.searchsorted(ordered, [staff * (1 - slack), staff * (1 + slack)], side="right")
            open_here = np.flatnonzero(free[first:last]) + first
            if len(open_here):
                found = int(open_here[np.argmin(np.abs(position[open_here] - where[school]))])
                break
        else:
            open_here = np.flatnonzero(free)
            if not len(open_here):
                break
            found = int(open_here[np.argmin(np.abs(ordered[open_here] - staff))])
        free[found] = False
        chosen[school] = order[found]
    return chosen


def appoint(school: Membership, group: Membership, wanted: Floats, start: int, workers: WorkersSeated) -> Staff:
    """Appoint the staff of the schools of one zone and deal it out over their classes.

    Who is enrolled, or younger than 18, is not appointed. The classes of a school get numbers of staff that differ
    by at most one.

    Args:
        school: Schools of the zone, pupils only.
        group: Classes of the zone, likewise; the classes of a school are numbered on end.
        wanted: (P,) staff that each school wants.
        start: First row of the zone in the country.
        workers: Those who work in the zone.
    """
    size = workers.size
    site_of_worker = np.repeat(np.arange(len(size)), size)
    fitting = np.bincount(site_of_worker[workers.fit], minlength=len(size))
    open_to = np.where(fitting >= _LEAST_FIT * size, fitting, 0)
    pupils, first = school.member, school.indptr[:-1]
    where = place_of_members(pupils.astype(np.int64) + start, np.diff(school.indptr))
    found = match_sites(wanted, where, open_to, place_of_members(workers.rows, size))
    school_of_site = np.full(len(size), -1, np.int64)
    school_of_site[found[found >= 0]] = np.flatnonzero(found >= 0)
    local = school_of_site[site_of_worker]
    chosen = workers.fit & (local >= 0)
    staff, local = workers.rows[chosen], local[chosen]
    order = np.lexsort((staff, local))
    staff, local = staff[order], local[order]
    number = np.bincount(local, minlength=len(wanted))
    rank = ranks_within(local, len(wanted))
    lowest = np.minimum.reduceat(group.place[pupils], first).astype(np.int64)
    classes = np.maximum.reduceat(group.place[pupils], first) - lowest + 1
    return Staff(staff, local, lowest[local] + rank * classes[local] // number[local])
