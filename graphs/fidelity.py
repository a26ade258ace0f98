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
from graphs.meetings import column, mean_by_group, meetings
from graphs.mixing import NUM_GROUPS, activity_group, reciprocal
from graphs.rounding import largest_remainder
from graphs.sources import CLASSES, NUM_BANDS, NUM_FIVE_YEAR, SECTORS, Country, load_country
from graphs.store import extra_array, open_graph

Floats = NDArray[np.float64]
SETTINGS = ("home", "school", "work", "other")
BAND_NAMES = (*(f"{10 * band}-{10 * band + 9}" for band in range(NUM_BANDS - 1)), f"{10 * NUM_BANDS - 10}+")
_PARENT_CHILD = ((0, 3), (3, 0), (1, 4), (4, 1))
_ADULT = 20  # years
_LEAST_ROW = 0.5  # contacts per day; the share of a smaller row says little


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
        employees_5yr, commuters (row = region of home, column = of work), school_rolls, contacts_per_agent,
        contact_matrix.

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
    return {"school_rolls": {name: float(np.median(roll)) for name, roll in rolls.items() if len(roll)}}


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
    return result


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
        figures of places for one in memory, which does not know their classes.

    Raises:
        StoreError: the store is not a complete graph store of this schema.
    """
    population = source if isinstance(source, Population) else open_graph(source)
    name = population.attributes.get("config", {}).get("country")
    if name is None:
        return {}
    country = load_country(name)
    made = summarise(source) if figures is None else figures
    places = _against_places(made, country) if {"mean_site_size", "school_rolls"} <= made.keys() else {}
    return {**_against_people(made, country), **places, **_against_contacts(made, country)}


def _record(
    country: Country,
    table: str,
    name: str,
    achieved: object,
    published: object,
    error: float,
    measure: str,
    tolerance: float | None,
    labels: object = None,
    unit: str = "",
) -> dict[str, Any]:
    """One figure beside its source."""
    return {
        "name": name,
        "unit": unit,
        "labels": labels,
        "achieved": np.asarray(achieved).tolist(),
        "source": np.asarray(published).tolist(),
        "error": float(error),
        "measure": measure,
        "tolerance": tolerance,
        # Errors are differences of rounded decimals: one that equals its bound must pass.
        "within": None if tolerance is None else bool(error <= tolerance + 1e-9),
        "citation": next(dict(entry) for entry in country.tables if entry["name"] == table),
    }


def _distance(achieved: Floats, published: Floats) -> float:
    """Total variation distance between two tables of counts."""
    return float(np.abs(achieved / achieved.sum() - published / published.sum()).sum() / 2)


def _largest_share(achieved: Floats, published: Floats) -> float:
    return float(np.abs(achieved / published - 1).max())


def _against_people(made: Mapping[str, Any], country: Country) -> dict[str, dict[str, Any]]:
    """Regions, ages and households."""
    total = int(made["num_agents"])
    regions = np.array(list(made["agents_by_region"].values()), np.float64)
    quota = largest_remainder(country.residents, total)
    age = np.array(made["age_5yr"], np.float64)
    ages = country.age_5yr * (total / country.age_5yr.sum())
    number = max(len(country.household_size), *map(int, made["household_size"]))
    size = np.array([made["household_size"].get(str(n), 0) for n in range(1, number + 1)], np.float64)
    sizes = np.pad(country.household_size, (0, number - len(country.household_size)))
    together = np.array(made["household_comembers_10yr"])
    pairs = np.array([together[pair] for pair in _PARENT_CHILD])
    known = np.array([country.comembers[pair] for pair in _PARENT_CHILD])
    young, census = made["homes_with_under_20"], country.household_checks["homes_with_under_20"]
    variation = "total variation distance"
    return {
        "regions": _record(
            country, "regions", "people by region", regions, quota, float(np.abs(regions - quota).max()),
            "largest difference, people", 0.0, list(country.regions), "people",
        ),
        "ages": _record(
            country, "population_5yr", "people by five-year age", age, ages, _distance(age, ages), variation, 0.005,
            [*(f"{5 * n}-{5 * n + 4}" for n in range(NUM_FIVE_YEAR - 1)), f"{5 * NUM_FIVE_YEAR - 5}+"], "people",
        ),
        "household_sizes": _record(
            country, "household_size", "households by size", size, sizes * (size.sum() / sizes.sum()),
            _distance(size, sizes), variation, 0.01, [str(n) for n in range(1, number + 1)], "households",
        ),
        "household_comembers": _record(
            country, "household_comembers", "household co-members by ten-year age", together, country.comembers,
            float(np.abs(together - country.comembers).max()), "largest difference, people", 0.08, list(BAND_NAMES),
            "people",
        ),
        "parents_and_children": _record(
            country, "household_comembers", "co-members: parents and children", pairs, known,
            _largest_share(pairs, known), "largest relative difference", 0.1,
            [f"{BAND_NAMES[a]} with {BAND_NAMES[b]}" for a, b in _PARENT_CHILD], "people",
        ),
        "homes_with_under_20": _record(
            country, "household_checks", "homes with someone under 20", young, census, abs(young - census),
            "difference of shares", 0.015, unit="share of households",
        ),
    }  # fmt: skip


def _against_places(made: Mapping[str, Any], country: Country) -> dict[str, dict[str, Any]]:
    """Enterprises, their sites, and schools."""
    staff = np.array([made["employees_by_enterprise_size"][name] for name in CLASSES], np.float64)
    wanted = country.employees.sum(axis=0)
    share, known = staff / staff.sum(), wanted / wanted.sum()
    site = np.array([made["mean_site_size"][name] for name in CLASSES])
    sites = wanted / country.units.sum(axis=0)
    roll = np.array([made["school_rolls"][name] for name in SECTORS])
    commuters = np.array(made["commuters"], np.float64)
    living = commuters / np.maximum(commuters.sum(axis=1, keepdims=True), 1.0)
    rolls = (country.median_roll * country.schools).sum(axis=0) / country.schools.sum(axis=0)
    relative = "largest relative difference"
    return {
        "employees": _record(
            country, "business", "employees by size of enterprise", share, known, float(np.abs(share - known).max()),
            "largest difference of shares", 0.02, list(CLASSES), "share of employees",
        ),
        "site_sizes": _record(
            country, "business", "mean site by size of enterprise", site, sites, _largest_share(site, sites), relative,
            0.1, list(CLASSES), "employees",
        ),
        "commuting": _record(
            country, "commute", "workers by region of home and work", living, country.commute,
            float(np.abs(living - country.commute).max()), "largest difference of shares", 0.01,
            list(country.regions), "share of those who live in a region",
        ),
        "school_rolls": _record(
            country, "schools", "median school roll", roll, rolls, _largest_share(roll, rolls),
            relative, 0.1, list(SECTORS), "pupils",
        ),
    }  # fmt: skip


def _against_contacts(made: Mapping[str, Any], country: Country) -> dict[str, dict[str, Any]]:
    """Contacts by setting; those at home follow from the households and are never bent.

    Totals by age are compared where the source has `_LEAST_ROW` contacts or more.
    """
    people = _people_by_group(made)
    labels = [*(f"{5 * n}-{5 * n + 4}" for n in range(NUM_GROUPS - 1)), f"{5 * NUM_GROUPS - 5}+"]
    records: dict[str, dict[str, Any]] = {}
    for setting in SETTINGS:
        matrix = np.array(made["contact_matrix"][setting])
        mutual = reciprocal(country.contacts[setting], people)
        rows, wanted = matrix.sum(axis=1), mutual.sum(axis=1)
        counted = wanted >= _LEAST_ROW
        asked = setting != "home"
        records[f"contacts_{setting}"] = _record(
            country, "contact_matrices", f"contacts, {setting}: pattern", matrix, mutual,
            1.0 - float(np.corrcoef(matrix.ravel(), mutual.ravel())[0, 1]) if matrix.any() else 1.0,
            "1 - correlation of the matrices", 0.1 if asked else None, labels, "contacts per day",
        )  # fmt: skip
        records[f"contacts_{setting}_rows"] = _record(
            country, "contact_matrices", f"contacts, {setting}: by age", rows, wanted,
            _largest_share(rows[counted], wanted[counted]) if counted.any() else 0.0,
            "largest relative difference", 0.15 if asked else None, labels,
            "contacts per day",
        )  # fmt: skip
    return records


def _people_by_group(made: Mapping[str, Any]) -> NDArray[np.int64]:
    """(16,) people by the age groups of the contact matrices, 75 and older together."""
    age = np.array(made["age_5yr"], np.int64)
    return np.append(age[: NUM_GROUPS - 1], age[NUM_GROUPS - 1 :].sum())
