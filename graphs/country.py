"""A country from its tables: what is planned for the whole, and the tasks of each region.

The plan holds whole numbers only (people, households, students, schools, employees by region). Every random
choice is made inside a task of one region by generators keyed with (seed, stream, region); tasks share
nothing else, so the result does not depend on how many of them run at once, where, or in which order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gnabm.errors import ConfigError
from graphs.ages import age_counts, closeness
from graphs.areas import count_areas
from graphs.households import make_households, region_bands
from graphs.people import People, make_people
from graphs.rounding import largest_remainder
from graphs.schools import Schools, count_schools, join_people, make_schools, school_zones
from graphs.sources import Country, load_country
from graphs.work import Sites, Workers, choose_workers, make_sites, plan_flows

Ints = NDArray[np.int64]
MIN_AGENTS = 1000
"""Below this, regions and sites of a country are no longer recognisable."""
MAX_AGENTS = 2**31 - 1


@dataclass(frozen=True)
class Plan:
    """Whole numbers of a country (R regions).

    Attributes:
        country: Tables.
        seed: Seed of the population.
        compositions: (C, 8) people of each band in each household composition.
        homes: Per region, (H_r,) int16 composition of each household.
        region_people: (R,) people.
        row_start: (R,) first row of each region.
        ages: (101,) people of the country by age.
        bands_before: (R, 8) people of each band in the regions before.
        num_areas: (R,) areas.
        students: (R, 2) students by sector.
        zones: Regions that share their schools, for each zone (Z of them).
        schools: (Z, 2) schools of each zone by sector.
        employees: (R, 3) employees by enterprise class.
        flows: (R, R) workers by home and work region.
    """

    country: Country
    seed: int
    compositions: Ints
    homes: tuple[NDArray[np.int16], ...]
    region_people: Ints
    row_start: Ints
    ages: Ints
    bands_before: Ints
    num_areas: Ints
    students: Ints
    zones: tuple[tuple[int, ...], ...]
    schools: Ints
    employees: Ints
    flows: Ints


def make_plan(name: str, num_agents: int, seed: int) -> Plan:
    """Plan a country.

    Args:
        name: Country.
        num_agents: People.
        seed: Seed of the population.

    Raises:
        ConfigError: unknown country, or too few agents for one.
    """
    country = load_country(name)
    if not MIN_AGENTS <= num_agents <= MAX_AGENTS:
        raise ConfigError(
            f"population.num_agents must be {MIN_AGENTS} to {MAX_AGENTS} for a country, got {num_agents}; "
            f"{country.name} has {int(country.residents.sum())} people"
        )
    scale = num_agents / float(country.residents.sum())
    households = make_households(country, num_agents)
    bands = region_bands(households)
    people = households.region_people
    zones = school_zones(country, scale)
    employees = largest_remainder(country.employees, round(float(country.employees.sum()) * scale))
    return Plan(
        country=country,
        seed=seed,
        compositions=households.people,
        homes=tuple(homes.astype(np.int16) for homes in households.by_region),
        region_people=people,
        row_start=np.cumsum(people) - people,
        ages=age_counts(country, households.band_people),
        bands_before=np.cumsum(bands, axis=0) - bands,
        num_areas=count_areas(people, country.assumed["area_people"]),
        students=largest_remainder(country.students, round(float(country.students.sum()) * scale)),
        zones=zones,
        schools=count_schools(country, zones, scale),
        employees=employees,
        flows=plan_flows(country, employees),
    )


def people_task(plan: Plan, region: int) -> People:
    """Task: households, areas and ages of a region."""
    return make_people(
        plan.seed,
        region,
        plan.homes[region],
        plan.compositions,
        plan.ages,
        plan.bands_before[region],
        int(plan.num_areas[region]),
        closeness(plan.country),
    )


def schools_task(plan: Plan, zone: int, people: list[People]) -> Schools:
    """Task: schools and classes of a zone, from the people of its regions."""
    regions = plan.zones[zone]
    students = plan.students[list(regions)].sum(axis=0)
    return make_schools(plan.country, plan.seed, regions, join_people(people), students, plan.schools[zone])


def workers_task(plan: Plan, region: int, people: People) -> list[Workers]:
    """Task: those who live in a region and are employed, by the region where they work."""
    return choose_workers(plan.country, plan.seed, region, people, plan.flows[region], int(plan.row_start[region]))


def arrivals_of(workers: list[Workers], region: int) -> Workers:
    """Task: those of one home region who work in `region`, so that no task is sent all workers."""
    return workers[region]


def sites_task(plan: Plan, region: int, arrivals: list[Workers]) -> Sites:
    """Task: sites and teams of a work region."""
    return make_sites(
        plan.country,
        plan.seed,
        region,
        arrivals,
        int(plan.row_start[region]),
        int(plan.region_people[region]),
        plan.employees[region],
    )
