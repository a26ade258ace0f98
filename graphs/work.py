"""Work: who is employed where, in sites of enterprises and teams within sites.

The business table says how many employees of each enterprise class work in a region; the commute table says
where they live. Employment by age is assumed and scaled, region by region, until both are met.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphs.keyed import generator
from graphs.people import People
from graphs.placement import choose_by_age, fill, scaled_quota, subdivide
from graphs.rounding import largest_remainder
from graphs.schools import quantile_scores
from graphs.sources import CLASSES, MAX_AGE, Country

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sites:
    """Sites and teams in one work region (w workers).

    Attributes:
        rows: (w,) int64 rows of the country, sorted by site, ascending within.
        site_size: (S,) int64 workers of each site.
        enterprise_class: (S,) uint8 0 = 1-19, 1 = 20-49, 2 = 50 and more employees.
        team_rows: (w,) int64 rows of the country, sorted by team, ascending within.
        team_size: (T,) int64 workers of each team.
    """

    rows: Ints
    site_size: Ints
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


def choose_workers(country: Country, seed: int, region: int, people: People, flow: Ints) -> list[Ints]:
    """Rows (within the region) of those who live here and work in each region.

    Args:
        country: Tables.
        seed: Seed of the population.
        region: Index of the home region.
        people: Rows of the region.
        flow: (R,) workers by work region; cut down if too few people are of working age.
    """
    available = np.bincount(people.age, minlength=MAX_AGE + 1)
    quota = scaled_quota(available, country.employment, int(flow.sum()), country.assumed["max_employment"])
    chosen = choose_by_age(people.age, quota[None], generator(seed, "work/choice", region))
    rows = generator(seed, "work/flow", region).permutation(np.flatnonzero(chosen == 0))
    cuts = np.cumsum(largest_remainder(flow, len(rows)) if len(rows) else np.zeros_like(flow))[:-1]
    return [np.sort(part) for part in np.split(rows, cuts)]


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


def make_sites(
    country: Country,
    seed: int,
    region: int,
    arrivals: list[Ints],
    start: int,
    num_people: int,
    employees: Ints,
) -> Sites:
    """Seat everybody who works in a region.

    Args:
        country: Tables.
        seed: Seed of the population.
        region: Index of the work region.
        arrivals: Per home region, rows of the country of those who work here.
        start: First row of this region.
        num_people: People who live in this region.
        employees: (3,) employees by enterprise class.
    """
    assumed = country.assumed
    rows = np.concatenate(arrivals)
    mean = country.employees[region] / country.units[region]
    by_class = largest_remainder(employees, len(rows)) if len(rows) else np.zeros(len(CLASSES), np.int64)
    shape = (
        (assumed["site_sigma_1_19"], 19.0),
        (assumed["site_sigma_20_49"], 49.0),
        (assumed["site_sigma_50plus"], assumed["site_cap_50plus"]),
    )
    sizes = [site_sizes(int(by_class[c]), float(mean[c]), *shape[c]) for c in range(len(CLASSES))]
    kind = np.repeat(np.arange(len(CLASSES), dtype=np.uint8), [len(part) for part in sizes])
    rng = generator(seed, "work/sites", region)
    order = rng.permutation(len(kind))
    size, kind = np.concatenate(sizes)[order], kind[order]
    # Those who live here work near home; those who come from elsewhere, anywhere in the region.
    inside = (rows >= start) & (rows < start + num_people)
    near = rows - start + rng.standard_normal(len(rows)) * assumed["work_spread"]
    position = np.where(inside, near, rng.random(len(rows)) * num_people)
    seated, site = fill(rows, position, size)
    parts = np.maximum(1, np.rint(size / assumed["team_size"])).astype(np.int64)
    team = subdivide(site, size, parts)
    return Sites(
        rows=seated[np.lexsort((seated, site))],
        site_size=size,
        enterprise_class=kind,
        team_rows=seated[np.lexsort((seated, team))],
        team_size=np.bincount(team, minlength=int(parts.sum())).astype(np.int64),
    )
