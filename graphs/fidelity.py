"""What a population looks like, in the terms of the tables that it was built from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnabm.contacts import Array, Places
from gnabm.errors import UnknownFieldError
from gnabm.population import Population
from graphs.activity import LEAST, MOST
from graphs.meetings import code_pieces, codes, column, indptr_pieces, mean_by_group, meetings, pieces
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
        DataError: an age is negative or not a number.
    """
    if "age" not in population.columns:
        raise UnknownFieldError("contact matrices need a column 'age' in years; add it to the agent table")
    group = codes("age", population.columns["age"], NUM_GROUPS, activity_group)
    return {
        name: mean_by_group(meetings(layer, group, NUM_GROUPS), group)
        for name, layer in population.contacts.layers.items()
    }


def household_comembers(home: Places, age: Array) -> Floats:
    """(8, 8) mean household co-members by ten-year age 0-9, ..., 60-69, 70+, row = participant."""
    band = codes("age", age, NUM_BANDS, lambda years: np.minimum(years // 10, NUM_BANDS - 1))
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
        DataError: an age or a region is in none of the groups.
    """
    population = source if isinstance(source, Population) else open_graph(source)
    path = None if isinstance(source, Population) else Path(source)
    result: dict[str, Any] = {"num_agents": population.num_agents}
    regions = population.categories("region")
    if regions is not None:
        counts = _count("region", population.columns["region"], len(regions))
        result["agents_by_region"] = dict(zip(regions, counts.tolist(), strict=True))
    age = population.columns.get("age")
    if age is not None:
        five_years = _count("age", age, NUM_FIVE_YEAR, lambda years: np.minimum(years // 5, NUM_FIVE_YEAR - 1))
        result["age_5yr"] = five_years.tolist()
    home = population.contacts.layers.get("home")
    if isinstance(home, Places):
        result.update(_homes(home, age))
    result.update(_work(population, path))
    result.update(_employees(population, path, age))
    result.update(_schools(population, path))
    result.update(_pupils(population, path, age))
    result.update(_contacts(population))
    return result


def _count(
    name: str, values: Array, number: int, code: Callable[[NDArray[Any]], NDArray[Any]] | None = None
) -> NDArray[np.int64]:
    """(number,) entries of each group of a column, counted piece by piece; arguments as of `code_pieces`."""
    parts = (np.bincount(piece, minlength=number) for _, piece in code_pieces(name, values, number, code))
    return sum(parts, np.zeros(number, np.int64))


def _homes(home: Places, age: Array | None) -> dict[str, Any]:
    """How many people live together, and of which ages."""
    sizes = np.zeros(0, np.int64)
    for indptr in indptr_pieces(home.indptr):
        here = np.bincount(np.diff(indptr), minlength=len(sizes))
        here[: len(sizes)] += sizes
        sizes = here
    result: dict[str, Any] = {"household_size": {str(n): int(count) for n, count in enumerate(sizes) if n and count}}
    if age is not None:
        result["household_comembers_10yr"] = household_comembers(home, age).tolist()
        young = np.zeros(home.num_places, np.bool_)
        for _, (years, place) in pieces(age, home.place):
            young[place[(years < _ADULT) & (place >= 0)]] = True
        result["homes_with_under_20"] = int(young.sum()) / max(home.num_places, 1)
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


def _employees(population: Population, path: Path | None, age: Array | None) -> dict[str, Any]:
    """Those who have a site: how old they are, where they live and where they work."""
    site = population.contacts.layers.get("site")
    found = _by_code(population, path, "site", "region")
    regions = population.categories("region")
    if not isinstance(site, Places) or found is None or regions is None or age is None:
        return {}
    work, count = found[1], len(regions)
    flows, ages = np.zeros(count * count, np.int64), np.zeros(NUM_FIVE_YEAR, np.int64)
    for _, (years, home, place) in pieces(age, population.columns["region"], site.place):
        employed = place >= 0
        flow = home[employed].astype(np.int64) * count + work[place[employed]]
        flows += np.bincount(flow, minlength=len(flows))
        ages += np.bincount(np.minimum(years[employed] // 5, NUM_FIVE_YEAR - 1), minlength=len(ages))
    return {"employees_5yr": ages.tolist(), "commuters": flows.reshape(count, count).tolist()}


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


def _pupils(population: Population, path: Path | None, age: Array | None) -> dict[str, Any]:
    """Who is enrolled where they live; staff belong to a school too and are left out."""
    found, regions = _by_code(population, path, "school", "sector"), population.categories("region")
    staff = extra_array(path, "layers/school/staff") if path is not None else None
    if found is None or staff is None or regions is None or age is None:
        return {}
    layer = population.contacts.layers["school"]
    assert isinstance(layer, Places)  # `found` says so
    code, count = np.append(found[1], 255), len(regions)
    students = np.zeros((count, len(SECTORS)), np.int64)
    due, here = np.zeros((2, count), np.int64)
    for first, (years, region, place) in pieces(age, population.columns["region"], layer.place):
        school = place.copy()
        school[staff[slice(*np.searchsorted(staff, [first, first + len(school)]))] - first] = -1
        sector = code[school]  # nobody's school is the last
        pupil = sector < len(SECTORS)
        cell = region[pupil].astype(np.int64) * len(SECTORS) + sector[pupil]
        students += np.bincount(cell, minlength=students.size).reshape(students.shape)
        of_age = (years >= _SCHOOL_AGE[0]) & (years <= _SCHOOL_AGE[1])
        due += np.bincount(region[of_age], minlength=count)
        here += np.bincount(region[of_age & pupil], minlength=count)
    return {
        "students": students.tolist(),
        "enrolled_6_to_15": dict(zip(regions, (here / np.maximum(due, 1)).tolist(), strict=True)),
    }


def _contacts(population: Population) -> dict[str, Any]:
    """Mean contacts per agent and layer; with ages, also the matrices by setting."""
    layers = population.contacts.layers
    age = population.columns.get("age")
    groups = 1 if age is None else NUM_GROUPS
    group = np.zeros(population.num_agents, np.uint8) if age is None else codes("age", age, NUM_GROUPS, activity_group)
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
            layer.setting: _at_bounds(layer.activity, group)
            for layer in layers.values()
            if isinstance(layer, Places) and layer.activity is not None
        }
    return result


def _at_bounds(activity: Array, group: NDArray[np.uint8]) -> list[str]:
    """Ages whose activity is the least or the most that it may be."""
    found = np.zeros(NUM_GROUPS, np.bool_)
    for first, (active,) in pieces(activity):
        bound = (active <= np.float32(LEAST)) | (active >= np.float32(MOST))
        found[group[first : first + len(active)][bound]] = True
    return [CONTACT_AGES[number] for number in np.flatnonzero(found)]


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
