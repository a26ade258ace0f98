"""What a population looks like, in the terms of the tables that it was built from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnabm.contacts import Places
from gnabm.errors import UnknownFieldError
from gnabm.population import Population
from graphs.activity import LEAST, MOST
from graphs.meetings import column, mean_by_group, meetings
from graphs.mixing import NUM_GROUPS, activity_group
from graphs.published import CONTACT_AGES, SETTINGS, beside_tables
from graphs.sources import CLASSES, NUM_BANDS, NUM_FIVE_YEAR, SECTORS, load_country
from graphs.store import extra_array, open_graph

Floats = NDArray[np.float64]
_ADULT = 20  # years
_SCHOOL_AGE = (6, 15)  # years, in which school is compulsory


def contact_matrices(population: Population) -> dict[str, Floats]:
    r"""Expected contacts per day by age, for each layer.

    .. math:: M_{ab} = \frac{1}{N_a} \sum_{i \in a} \sum_{j \in b} w_{ij}

    Args:
        population: A population with a column `age` in years.

    Returns:
        Layer to (16, 16) total weight from a participant of age a (row) to contacts of age b, five-year
        groups 0-4, ..., 70-74, 75+. For edges the participant is the target.

    Raises:
        UnknownFieldError: the population has no ages.
    """
    if "age" not in population.columns:
        raise UnknownFieldError("contact matrices need a column 'age' in years; add it to the agent table")
    group = activity_group(column(population.columns["age"]))
    return {
        name: mean_by_group(meetings(layer, group, NUM_GROUPS), group)
        for name, layer in population.contacts.layers.items()
    }


def household_comembers(home: Places, age: NDArray[np.uint8]) -> Floats:
    """(8, 8) mean household co-members by ten-year age 0-9, ..., 60-69, 70+, row = participant."""
    band = np.minimum(age // 10, NUM_BANDS - 1).astype(np.uint8)
    return mean_by_group(meetings(Places(home.place, home.indptr, home.member), band, NUM_BANDS), band)


def summarise(source: Path | str | Population) -> dict[str, Any]:
    """Figures of a population that can be set beside the published tables.

    Args:
        source: Graph store, or a population in memory; keys that need a column or layer it lacks are left
        out.

    Returns:
        Plain numbers, lists and dicts under the keys num_agents, agents_by_region, age_5yr, household_size,
        household_comembers_10yr, homes_with_under_20, employees_by_enterprise_size, mean_site_size,
        employees_5yr, commuters (row = region of home, column = of work), school_rolls (medians), regional_rolls
        (medians and schools; row = region, column = sector), students (row = region of home, column = sector),
        enrolled_6_to_15 (share of these ages, by region), contacts_per_agent, contact_matrix, activity_at_bounds
        (setting to ages whose activity stopped at a bound).

    Raises:
        StoreError: the store is not a complete graph store of this schema.
    """
    population = source if isinstance(source, Population) else open_graph(source)
    path = None if isinstance(source, Population) else Path(source)
    result: dict[str, Any] = {"num_agents": population.num_agents}
    regions = population.categories("region")
    if regions is not None:
        counts = np.bincount(column(population.columns["region"]), minlength=len(regions))
        result["agents_by_region"] = dict(zip(regions, counts.tolist(), strict=True))
    age = column(population.columns["age"]) if "age" in population.columns else None
    if age is not None:
        groups = np.minimum(age // 5, NUM_FIVE_YEAR - 1)
        result["age_5yr"] = np.bincount(groups, minlength=NUM_FIVE_YEAR).tolist()
    home = population.contacts.layers.get("home")
    if isinstance(home, Places):
        sizes = np.bincount(np.diff(column(home.indptr)))
        result["household_size"] = {str(n): int(count) for n, count in enumerate(sizes) if n and count}
        if age is not None:
            result["household_comembers_10yr"] = household_comembers(home, age).tolist()
            young = column(home.place)[age < _ADULT]
            result["homes_with_under_20"] = len(np.unique(young[young >= 0])) / max(home.num_places, 1)
    result.update(_work(population, path))
    result.update(_employees(population, path, age))
    result.update(_schools(population, path))
    result.update(_pupils(population, path, age))
    result.update(_contacts(population))
    return result


def _by_code(population: Population, path: Path | None, layer: str, extra: str) -> tuple[Any, Any] | None:
    """Sizes and codes of the places of a layer, where the store holds both."""
    places = population.contacts.layers.get(layer)
    codes = extra_array(path, f"layers/{layer}/{extra}") if path is not None else None
    if not isinstance(places, Places) or codes is None:
        return None
    return np.diff(column(places.indptr)), codes


def _work(population: Population, path: Path | None) -> dict[str, Any]:
    found = _by_code(population, path, "site", "enterprise_class")
    if found is None:
        return {}
    size, code = found
    employees = np.bincount(code, size, minlength=len(CLASSES))
    sites = np.bincount(code, minlength=len(CLASSES))
    mean = employees / np.maximum(sites, 1)
    return {
        "employees_by_enterprise_size": {name: int(n) for name, n in zip(CLASSES, employees, strict=True)},
        "mean_site_size": {name: float(n) for name, n in zip(CLASSES, mean, strict=True)},
    }


def _employees(population: Population, path: Path | None, age: NDArray[np.uint8] | None) -> dict[str, Any]:
    """Those who have a site: how old they are, where they live and where they work."""
    site = population.contacts.layers.get("site")
    found = _by_code(population, path, "site", "region")
    regions = population.categories("region")
    if not isinstance(site, Places) or found is None or regions is None or age is None:
        return {}
    size, region = found
    member, count = column(site.member), len(regions)
    flow = column(population.columns["region"])[member].astype(np.int64) * count + np.repeat(region, size)
    groups = np.minimum(age[member] // 5, NUM_FIVE_YEAR - 1)
    return {
        "employees_5yr": np.bincount(groups, minlength=NUM_FIVE_YEAR).tolist(),
        "commuters": np.bincount(flow, minlength=count * count).reshape(count, count).tolist(),
    }


def _schools(population: Population, path: Path | None) -> dict[str, Any]:
    found = _by_code(population, path, "school", "sector")
    if found is None:
        return {}
    size, code = found
    pupils = extra_array(path, "layers/school/roll") if path is not None else None
    size = size if pupils is None else pupils  # the members of a school are its pupils and its staff
    rolls = {name: size[code == number] for number, name in enumerate(SECTORS)}
    result: dict[str, Any] = {
        "school_rolls": {name: float(np.median(roll)) for name, roll in rolls.items() if len(roll)}
    }
    where, regions = _by_code(population, path, "school", "region"), population.categories("region")
    if where is not None and regions is not None:
        cells = [[size[(where[1] == r) & (code == s)] for s in range(len(SECTORS))] for r in range(len(regions))]
        result["regional_rolls"] = {
            "median": [[float(np.median(cell)) if len(cell) else 0.0 for cell in row] for row in cells],
            "schools": [[len(cell) for cell in row] for row in cells],
        }
    return result


def _pupils(population: Population, path: Path | None, age: NDArray[np.uint8] | None) -> dict[str, Any]:
    """Who is enrolled where they live; staff belong to a school too and are left out."""
    found, regions = _by_code(population, path, "school", "sector"), population.categories("region")
    staff = extra_array(path, "layers/school/staff") if path is not None else None
    if found is None or staff is None or regions is None or age is None:
        return {}
    layer = population.contacts.layers["school"]
    assert isinstance(layer, Places)  # `found` says so
    school = column(layer.place).copy()
    school[staff] = -1
    code, region = np.append(found[1], 255), column(population.columns["region"])
    sector = code[school]  # nobody's school is the last
    pupil = sector < len(SECTORS)
    cell = region[pupil].astype(np.int64) * len(SECTORS) + sector[pupil]
    students = np.bincount(cell, minlength=len(regions) * len(SECTORS)).reshape(len(regions), len(SECTORS))
    due = (age >= _SCHOOL_AGE[0]) & (age <= _SCHOOL_AGE[1])
    here = np.bincount(region[due & pupil], minlength=len(regions))
    enrolled = here / np.maximum(np.bincount(region[due], minlength=len(regions)), 1)
    return {
        "students": students.tolist(),
        "enrolled_6_to_15": dict(zip(regions, enrolled.tolist(), strict=True)),
    }


def _contacts(population: Population) -> dict[str, Any]:
    """Mean contacts per agent and layer; with ages, also the matrices by setting."""
    layers = population.contacts.layers
    age = column(population.columns["age"]) if "age" in population.columns else None
    groups = 1 if age is None else NUM_GROUPS
    group = np.zeros(population.num_agents, np.uint8) if age is None else activity_group(age)
    total = {name: meetings(layer, group, groups) for name, layer in layers.items()}
    result: dict[str, Any] = {
        "contacts_per_agent": {name: float(value.sum()) / population.num_agents for name, value in total.items()}
    }
    if age is not None:
        people = np.maximum(np.bincount(group, minlength=NUM_GROUPS), 1)[:, None]
        matrices = {setting: np.zeros((NUM_GROUPS, NUM_GROUPS)) for setting in SETTINGS}
        for name, layer in layers.items():
            matrices.setdefault(layer.setting, np.zeros((NUM_GROUPS, NUM_GROUPS)))
            matrices[layer.setting] += total[name] / people
        result["contact_matrix"] = {setting: matrix.tolist() for setting, matrix in matrices.items()}
        result["activity_at_bounds"] = {
            layer.setting: _at_bounds(column(layer.activity), group)
            for layer in layers.values()
            if isinstance(layer, Places) and layer.activity is not None
        }
    return result


def _at_bounds(activity: NDArray[np.float32], group: NDArray[np.uint8]) -> list[str]:
    """Ages whose activity is the least or the most that it may be."""
    found = np.unique(group[(activity <= np.float32(LEAST)) | (activity >= np.float32(MOST))])
    return [CONTACT_AGES[number] for number in found]


def compare(source: Path | str | Population, figures: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """Set what a country's population achieves beside the figures that were published.

    Args:
        source: Graph store of a country, or its population in memory.
        figures: `summarise(source)`, where it is known already.

    Returns:
        One record per figure, plain numbers and lists, under a key of its own: `name`; `unit`; `labels` of the
        entries, if there are several; `achieved` and `source`, numbers or (nested) lists of one shape; `error`
        and `measure`, how far they are apart and what that counts; `tolerance`, the largest error that passes, or
        None where nothing is asked; `within`, whether it passes (None likewise); `citation`, the record of the
        table (name, source, year, licence, assumed, note). Empty for a population of no country; without the
        figures of what it lacks, such as the classes of places in memory, or what a store of an earlier generator
        did not hold.

    Raises:
        StoreError: the store is not a complete graph store of this schema.
    """
    population = source if isinstance(source, Population) else open_graph(source)
    name = population.attributes.get("config", {}).get("country")
    if name is None:
        return {}
    return beside_tables(summarise(source) if figures is None else figures, load_country(name))
