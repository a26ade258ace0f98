"""Work: who is employed where, in enterprises, their sites and teams within sites.

The business table says how many employees and sites of each enterprise class a region has; the commute table
says where those who work there live. Employment by age is scaled, region by region, until both are met: the table
counts employees, so those who work for themselves have no site. Sites of one class are joined to enterprises, for
no table here says how many of them there are. Neighbours at work are somewhat alike in age, as those who report
contacts at work say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphs.keyed import generator
from graphs.people import People
from graphs.placement import choose_by_age, scaled_quota, subdivide
from graphs.rounding import largest_remainder
from graphs.schools import quantile_scores
from graphs.sources import CLASSES, MAX_AGE, Country

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


LEAST_EMPLOYEES = (1, 20, 50)
"""Employees of the smallest enterprise of each class of `CLASSES`."""


@dataclass(frozen=True)
class Workers:
    """Those of one home district who work in one district (w of them).

    Attributes:
        rows: (w,) int64 rows of the country, ascending.
        age: (w,) uint8 years.
    """

    rows: Ints
    age: NDArray[np.uint8]

    def __len__(self) -> int:
        """Number of workers."""
        return len(self.rows)


@dataclass(frozen=True)
class Sites:
    """Sites and teams in one district of work (w workers).

    Attributes:
        rows: (w,) int64 rows of the country, sorted by site, ascending within.
        site_size: (S,) int64 workers of each site.
        enterprise: (S,) int64 enterprise of each site, numbered from 0 within the district.
        enterprise_class: (S,) uint8 0 = 1-19, 1 = 20-49, 2 = 50 and more employees.
        team_rows: (t,) int64 rows of the country of those in teams, sorted by team, ascending within. Only sites
            that have several teams have any.
        team_size: (T,) int64 workers of each team.
    """

    rows: Ints
    site_size: Ints
    enterprise: Ints
    enterprise_class: NDArray[np.uint8]
    team_rows: Ints
    team_size: Ints


def plan_flows(country: Country, employees: Ints) -> Ints:
    """(R, R) workers by home and work region; each column sums to the employees of that work region.

    Solves workers @ commute = employees for the workers who live in each region.

    Args:
        country: Tables.
        employees: (R, 3) employees by work region and enterprise class, at this number of agents.
    """
    wanted = employees.sum(axis=1)
    living = np.linalg.solve(country.commute.T, wanted.astype(np.float64))
    exact = np.maximum(living, 0.0)[:, None] * country.commute
    return np.stack([largest_remainder(exact[:, r], int(wanted[r])) for r in range(len(wanted))], axis=1)


def choose_workers(country: Country, seed: int, entity: int, people: People, flow: Ints, start: int) -> list[Workers]:
    """Who lives here and works in each district.

    Args:
        country: Tables.
        seed: Seed of the population.
        entity: Number of the home district in keyed draws.
        people: Rows of the district.
        flow: (D,) workers by district of work; cut down if too few people are of working age.
        start: First row of the district in the country.
    """
    available = np.bincount(people.age, minlength=MAX_AGE + 1)
    quota = scaled_quota(available, country.employment, int(flow.sum()), country.assumed["max_employment"])
    chosen = choose_by_age(people.age, quota[None], generator(seed, "work/choice", entity))
    rows = generator(seed, "work/flow", entity).permutation(np.flatnonzero(chosen == 0))
    cuts = np.cumsum(largest_remainder(flow, len(rows)) if len(rows) else np.zeros_like(flow))[:-1]
    parts = [np.sort(part) for part in np.split(rows, cuts)]
    return [Workers(start + part, people.age[part]) for part in parts]


def site_sizes(total: int, mean: float, sigma: float, largest: float) -> Ints:
    """Workers of each site of one class: lognormal quantiles from 1 to `largest` that sum to `total`.

    Args:
        total: Workers.
        mean: Mean workers per site; gives the number of sites.
        sigma: Spread of log size.
        largest: Largest site.
    """
    if total == 0:
        return np.empty(0, np.int64)
    count = min(total, max(1, round(total / mean), int(np.ceil(total / largest))))
    score = quantile_scores(count) * sigma
    low, high = -5.0, 12.0

    def sizes(location: float) -> Floats:
        return np.asarray(np.clip(np.exp(location + score), 1.0, largest))

    for _ in range(60):
        middle = (low + high) / 2
        if float(sizes(middle).sum()) < total:
            low = middle
        else:
            high = middle
    # One worker each first: the shares of the rest then never leave a site empty.
    return 1 + largest_remainder(np.maximum(sizes(high) - 1.0, 1e-9), total - count)


def join_sites(size: Ints, enterprise_class: NDArray[np.uint8]) -> Ints:
    """Enterprise of each site, so that every enterprise has the employees of its class.

    A site that is large enough is an enterprise of its own; smaller ones of the class are joined, in their order,
    until their employees suffice, and what is left over goes to the smallest of the large ones. Without one (in
    very small populations) it stays an enterprise that is too small for its class.

    Args:
        size: (S,) workers of each site.
        enterprise_class: (S,) class of each site.

    Returns:
        (S,) int64, numbered from 0 in the order of classes.
    """
    enterprise = np.empty(len(size), np.int64)
    count = 0
    for code, least in enumerate(LEAST_EMPLOYEES):
        sites = np.flatnonzero(enterprise_class == code)
        sites = sites[np.argsort(np.where(size[sites] < least, 0, size[sites]), kind="stable")]
        employees = 0
        for site, workers in zip(sites.tolist(), size[sites].tolist(), strict=True):
            enterprise[site] = count
            employees += workers
            if employees >= least:
                count, employees = count + 1, 0
        count += employees > 0
    return enterprise


def seat_by_age(position: Floats, age: Floats, stretch: int) -> Ints:
    """Order of workers along a line in which neighbours are alike in age.

    The line is cut into stretches; within one, people stand by age. More noise in the ages makes places filled along
    the order less alike.

    Args:
        position: (w,) where each stands along the line.
        age: (w,) years, noise included.
        stretch: Workers of a stretch.

    Returns:
        (w,) int64 index of who comes first, second, ...
    """
    order = np.argsort(position, kind="stable")
    return order[np.lexsort((age[order], np.arange(len(order)) // stretch))]


def plan_sites(country: Country, region: int, by_class: Ints) -> tuple[Ints, NDArray[np.uint8]]:
    """(S,) workers and (S,) class of the sites of a district, class by class.

    Args:
        country: Tables.
        region: Index of its region.
        by_class: (3,) workers by enterprise class.
    """
    assumed = country.assumed
    mean = country.employees[region] / country.units[region]
    shape = (
        (assumed["site_sigma_1_19"], 19.0),
        (assumed["site_sigma_20_49"], 49.0),
        (assumed["site_sigma_50plus"], assumed["site_cap_50plus"]),
    )
    sizes = [site_sizes(int(by_class[c]), float(mean[c]), *shape[c]) for c in range(len(CLASSES))]
    kind = np.repeat(np.arange(len(CLASSES), dtype=np.uint8), [len(part) for part in sizes])
    return np.concatenate(sizes), kind


def make_sites(
    country: Country,
    seed: int,
    entity: int,
    region: int,
    arrivals: Sequence[Workers],
    start: int,
    num_people: int,
    employees: Ints,
) -> Sites:
    """Seat everybody who works in a district.

    Args:
        country: Tables.
        seed: Seed of the population.
        entity: Number of the district in keyed draws.
        region: Index of its region.
        arrivals: Those who work here, by district of home.
        start: First row of this district.
        num_people: People who live in this district.
        employees: (3,) employees by enterprise class.
    """
    assumed = country.assumed
    rows = np.concatenate([part.rows for part in arrivals])
    age = np.concatenate([part.age for part in arrivals])
    by_class = largest_remainder(employees, len(rows)) if len(rows) else np.zeros(len(CLASSES), np.int64)
    size, kind = plan_sites(country, region, by_class)
    rng = generator(seed, "work/sites", entity)
    order = rng.permutation(len(kind))
    size, kind = size[order], kind[order]
    # Those who live here work near home; those who come from elsewhere, anywhere in it.
    resident = (rows >= start) & (rows < start + num_people)
    near = rows - start + rng.standard_normal(len(rows)) * assumed["work_spread"]
    position = np.where(resident, near, rng.random(len(rows)) * num_people)
    blurred = age + rng.standard_normal(len(rows)) * assumed["work_age_spread"]
    seated = rows[seat_by_age(position, blurred, int(assumed["work_stretch"]))]
    site = np.repeat(np.arange(len(size), dtype=np.int64), size)
    parts = np.maximum(1, np.rint(size / assumed["team_size"])).astype(np.int64)
    team = subdivide(site, size, parts)
    # A site of one team is no team besides: its workers would meet twice.
    several = np.repeat(parts > 1, parts)
    inside = several[team]
    return Sites(
        rows=seated[np.lexsort((seated, site))],
        site_size=size,
        enterprise=join_sites(size, kind),
        enterprise_class=kind,
        team_rows=seated[inside][np.lexsort((seated[inside], team[inside]))],
        team_size=np.bincount(team, minlength=len(several))[several].astype(np.int64),
    )
