"""A country from its tables: what is planned for the whole, and what is made of each district.

The plan holds whole numbers only (people, households, students, schools, employees by district). Every random
choice is made for one district by generators keyed with (seed, stream, district); districts share nothing else, so
the result does not depend on how many of them are made at once, where, or in which order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gnabm.errors import ConfigError
from graphs.ages import age_counts, closeness
from graphs.areas import count_areas
from graphs.districts import count_districts, district_flows, entities, shared_out
from graphs.households import deal_districts, make_households
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
    """Whole numbers of a country (D districts, region by region).

    Attributes:
        country: Tables.
        seed: Seed of the population.
        region: (D,) region of each district.
        entity: (D,) number of each district in keyed draws.
        compositions: (C, 8) people of each band in each household composition.
        homes: (D, C) households of each composition.
        people: (D,) people.
        row_start: (D,) first row of each district.
        ages: (101,) people of the country by age.
        bands_before: (D, 8) people of each band in the districts before.
        num_areas: (D,) areas.
        students: (D, 2) students by sector.
        zones: Districts that share their schools, for each zone (Z of them).
        schools: (Z, 2) schools of each zone by sector.
        employees: (D, 3) employees by enterprise class.
        flows: (D, D) workers by district of home and of work.
    """

    country: Country
    seed: int
    region: Ints
    entity: Ints
    compositions: Ints
    homes: Ints
    people: Ints
    row_start: Ints
    ages: Ints
    bands_before: Ints
    num_areas: Ints
    students: Ints
    zones: tuple[tuple[int, ...], ...]
    schools: Ints
    employees: Ints
    flows: Ints

    def rows(self, zone: int) -> tuple[int, int]:
        """First row of a zone, and the first of the next."""
        first, last = self.zones[zone][0], self.zones[zone][-1]
        return int(self.row_start[first]), int(self.row_start[last] + self.people[last])


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
    districts = count_districts(households.region_people)
    region = np.repeat(np.arange(len(districts)), districts)
    homes = np.concatenate(
        [
            deal_districts(households.people, count, int(number))
            for count, number in zip(households.by_region, districts, strict=True)
        ]
    )
    bands = homes @ households.people
    people = bands.sum(axis=1)
    zones = school_zones(country.schools, districts, scale)
    employees = _scaled(shared_out(country.employees, districts), scale)
    by_region = np.add.reduceat(employees, np.cumsum(districts) - districts)
    return Plan(
        country=country,
        seed=seed,
        region=region,
        entity=entities(districts),
        compositions=households.people,
        homes=homes,
        people=people,
        row_start=np.cumsum(people) - people,
        ages=age_counts(country, households.band_people),
        bands_before=np.cumsum(bands, axis=0) - bands,
        num_areas=count_areas(people, country.assumed["area_people"]),
        students=_scaled(shared_out(country.students, districts), scale),
        zones=zones,
        schools=count_schools(shared_out(country.schools, districts), zones, scale),
        employees=employees,
        flows=district_flows(plan_flows(country, by_region), districts),
    )


def _scaled(table: NDArray[np.float64], scale: float) -> Ints:
    return largest_remainder(table, round(float(table.sum()) * scale))


def people_task(plan: Plan, district: int) -> People:
    """Households, areas and ages of a district."""
    return make_people(
        plan.seed,
        int(plan.entity[district]),
        plan.homes[district],
        plan.compositions,
        plan.ages,
        plan.bands_before[district],
        int(plan.num_areas[district]),
        closeness(plan.country),
    )


def schools_task(plan: Plan, zone: int, people: Sequence[People]) -> Schools:
    """Schools and classes of a zone, from the people of its districts."""
    districts = list(plan.zones[zone])
    return make_schools(
        plan.country,
        plan.seed,
        int(plan.entity[districts[0]]),
        plan.region[districts].tolist(),
        (1 / np.bincount(plan.region)[plan.region[districts]]).tolist(),
        join_people(people),
        plan.students[districts].sum(axis=0),
        plan.schools[zone],
    )


def workers_task(plan: Plan, district: int, people: People) -> list[Workers]:
    """Those who live in a district and are employed, by the district where they work."""
    return choose_workers(
        plan.country,
        plan.seed,
        int(plan.entity[district]),
        people,
        plan.flows[district],
        int(plan.row_start[district]),
    )


def sites_task(plan: Plan, district: int, arrivals: Sequence[Workers]) -> Sites:
    """Sites and teams of a district, from those who work there by district of home."""
    return make_sites(
        plan.country,
        plan.seed,
        int(plan.entity[district]),
        int(plan.region[district]),
        arrivals,
        int(plan.row_start[district]),
        int(plan.people[district]),
        plan.employees[district],
    )
