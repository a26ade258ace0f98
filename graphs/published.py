"""Figures of a population beside the published tables of its country, each with its citation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphs.activity import LEAST_ROW
from graphs.mixing import NUM_GROUPS, reciprocal
from graphs.rounding import largest_remainder
from graphs.sources import CLASSES, NUM_BANDS, NUM_FIVE_YEAR, SECTORS, Country

Floats = NDArray[np.float64]
Records = dict[str, dict[str, Any]]
SETTINGS = ("home", "school", "work", "other")
BAND_NAMES = (*(f"{10 * band}-{10 * band + 9}" for band in range(NUM_BANDS - 1)), f"{10 * NUM_BANDS - 10}+")
CONTACT_AGES = (*(f"{5 * n}-{5 * n + 4}" for n in range(NUM_GROUPS - 1)), f"{5 * NUM_GROUPS - 5}+")
_PARENT_CHILD = ((0, 3), (3, 0), (1, 4), (4, 1))
_VARIATION = "total variation distance"
_RELATIVE = "largest relative difference"
_LEAST_SCHOOLS = 10
"""Schools of a sector that a region must have before its median roll is compared."""


def beside_tables(made: Mapping[str, Any], country: Country) -> Records:
    """Records of `graphs.fidelity.compare`, without those whose figures are missing.

    Args:
        made: As `graphs.fidelity.summarise` gives it.
        country: Tables.
    """
    records: Records = {}
    for needs, part in _PARTS:
        if needs <= made.keys():
            records |= part(made, country)
    return records


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


def _people(made: Mapping[str, Any], country: Country) -> Records:
    """Regions and ages."""
    total = int(made["num_agents"])
    regions = np.array(list(made["agents_by_region"].values()), np.float64)
    quota = largest_remainder(country.residents, total)
    age = np.array(made["age_5yr"], np.float64)
    ages = country.age_5yr * (total / country.age_5yr.sum())
    return {
        "regions": _record(
            country, "regions", "people by region", regions, quota, float(np.abs(regions - quota).max()),
            "largest difference, people", 0.0, list(country.regions), "people",
        ),
        "ages": _record(
            country, "population_5yr", "people by five-year age", age, ages, _distance(age, ages), _VARIATION, 0.005,
            [*(f"{5 * n}-{5 * n + 4}" for n in range(NUM_FIVE_YEAR - 1)), f"{5 * NUM_FIVE_YEAR - 5}+"], "people",
        ),
    }  # fmt: skip


def _households(made: Mapping[str, Any], country: Country) -> Records:
    """Who lives together."""
    number = max(len(country.household_size), *map(int, made["household_size"]))
    size = np.array([made["household_size"].get(str(n), 0) for n in range(1, number + 1)], np.float64)
    sizes = np.pad(country.household_size, (0, number - len(country.household_size)))
    together = np.array(made["household_comembers_10yr"])
    pairs = np.array([together[pair] for pair in _PARENT_CHILD])
    known = np.array([country.comembers[pair] for pair in _PARENT_CHILD])
    young, census = made["homes_with_under_20"], country.household_checks["homes_with_under_20"]
    return {
        "household_sizes": _record(
            country, "household_size", "households by size", size, sizes * (size.sum() / sizes.sum()),
            _distance(size, sizes), _VARIATION, 0.01, [str(n) for n in range(1, number + 1)], "households",
        ),
        "household_comembers": _record(
            country, "household_comembers", "household co-members by ten-year age", together, country.comembers,
            float(np.abs(together - country.comembers).max()), "largest difference, people", 0.08, list(BAND_NAMES),
            "people",
        ),
        "parents_and_children": _record(
            country, "household_comembers", "co-members: parents and children", pairs, known,
            _largest_share(pairs, known), _RELATIVE, 0.1,
            [f"{BAND_NAMES[a]} with {BAND_NAMES[b]}" for a, b in _PARENT_CHILD], "people",
        ),
        "homes_with_under_20": _record(
            country, "household_checks", "homes with someone under 20", young, census, abs(young - census),
            "difference of shares", 0.015, unit="share of households",
        ),
    }  # fmt: skip


def _enterprises(made: Mapping[str, Any], country: Country) -> Records:
    """Enterprises and their sites."""
    staff = np.array([made["employees_by_enterprise_size"][name] for name in CLASSES], np.float64)
    wanted = country.employees.sum(axis=0)
    share, known = staff / staff.sum(), wanted / wanted.sum()
    site = np.array([made["mean_site_size"][name] for name in CLASSES])
    sites = wanted / country.units.sum(axis=0)
    return {
        "employees": _record(
            country, "business", "employees by size of enterprise", share, known, float(np.abs(share - known).max()),
            "largest difference of shares", 0.02, list(CLASSES), "share of employees",
        ),
        "site_sizes": _record(
            country, "business", "mean site by size of enterprise", site, sites, _largest_share(site, sites),
            _RELATIVE, 0.1, list(CLASSES), "employees",
        ),
    }  # fmt: skip


def _commuters(made: Mapping[str, Any], country: Country) -> Records:
    """Where those work who live in a region."""
    commuters = np.array(made["commuters"], np.float64)
    living = commuters / np.maximum(commuters.sum(axis=1, keepdims=True), 1.0)
    return {
        "commuting": _record(
            country, "commute", "workers by region of home and work", living, country.commute,
            float(np.abs(living - country.commute).max()), "largest difference of shares", 0.01,
            list(country.regions), "share of those who live in a region",
        ),
    }  # fmt: skip


def _rolls(made: Mapping[str, Any], country: Country) -> Records:
    """Median rolls of the country: the table has those of regions, whose mean over the schools stands for it."""
    names = [name for name in SECTORS if name in made["school_rolls"]]
    roll = np.array([made["school_rolls"][name] for name in names])
    mean = (country.median_roll * country.schools).sum(axis=0) / country.schools.sum(axis=0)
    known = mean[[SECTORS.index(name) for name in names]]
    return {
        "school_rolls": _record(
            country, "schools", "median school roll", roll, known, _largest_share(roll, known), _RELATIVE, 0.1,
            names, "pupils",
        ),
    }  # fmt: skip


def _regional_rolls(made: Mapping[str, Any], country: Country) -> Records:
    """Median rolls of the regions that have schools enough; a small population has no such region."""
    cells = np.array(made["regional_rolls"]["schools"]) >= _LEAST_SCHOOLS
    if not cells.any():
        return {}
    roll, known = np.array(made["regional_rolls"]["median"])[cells], country.median_roll[cells]
    return {
        "regional_school_rolls": _record(
            country, "schools", f"median school roll, regions of {_LEAST_SCHOOLS} or more schools of a sector",
            roll, known, _largest_share(roll, known), _RELATIVE, 0.1, _by_sector(country, cells), "pupils",
        ),
    }  # fmt: skip


def _students(made: Mapping[str, Any], country: Country) -> Records:
    """Pupils where they live; the table counts them where their schools are, mostly in the same region."""
    students = np.array(made["students"], np.float64)
    known = country.students * (float(made["num_agents"]) / country.residents.sum())
    return {
        "students": _record(
            country, "schools", "students by region and sector", students.ravel(), known.ravel(),
            float(np.abs(students - known).sum() / known.sum()), "sum of differences, share of all students", 0.05,
            _by_sector(country, np.ones(students.shape, np.bool_)), "students",
        ),
    }  # fmt: skip


def _by_sector(country: Country, cells: NDArray[np.bool_]) -> list[str]:
    """Labels of the chosen cells of a table by region and sector."""
    return [f"{country.regions[region]}, {SECTORS[sector]}" for region, sector in np.argwhere(cells)]


def _contacts(made: Mapping[str, Any], country: Country) -> Records:
    """Contacts by setting; those at home follow from the households and are never bent.

    Totals by age are compared where the source has `LEAST_ROW` contacts or more.
    """
    people = _people_by_group(made)
    labels = list(CONTACT_AGES)
    records: Records = {}
    for setting in SETTINGS:
        matrix = np.array(made["contact_matrix"][setting])
        mutual = reciprocal(country.contacts[setting], people)
        rows, wanted = matrix.sum(axis=1), mutual.sum(axis=1)
        counted = wanted >= LEAST_ROW
        asked = setting != "home"
        bound = ", ".join(made.get("activity_at_bounds", {}).get(setting, ()))
        records[f"contacts_{setting}"] = _record(
            country, "contact_matrices", f"contacts, {setting}: pattern", matrix, mutual,
            1.0 - float(np.corrcoef(matrix.ravel(), mutual.ravel())[0, 1]) if matrix.any() else 1.0,
            "1 - correlation of the matrices", 0.1 if asked else None, labels, "contacts per day",
        )  # fmt: skip
        records[f"contacts_{setting}_rows"] = _record(
            country, "contact_matrices", f"contacts, {setting}: by age", rows, wanted,
            _largest_share(rows[counted], wanted[counted]) if counted.any() else 0.0,
            _RELATIVE + (f"; activity at its bound: {bound}" if bound else ""), 0.15 if asked else None, labels,
            "contacts per day",
        )  # fmt: skip
    return records


def _people_by_group(made: Mapping[str, Any]) -> NDArray[np.int64]:
    """(16,) people by the age groups of the contact matrices, 75 and older together."""
    age = np.array(made["age_5yr"], np.int64)
    return np.append(age[: NUM_GROUPS - 1], age[NUM_GROUPS - 1 :].sum())


_PARTS: tuple[tuple[frozenset[str], Callable[[Mapping[str, Any], Country], Records]], ...] = (
    (frozenset({"agents_by_region", "age_5yr"}), _people),
    (frozenset({"household_size", "household_comembers_10yr", "homes_with_under_20"}), _households),
    (frozenset({"employees_by_enterprise_size", "mean_site_size"}), _enterprises),
    (frozenset({"commuters"}), _commuters),
    (frozenset({"school_rolls"}), _rolls),
    (frozenset({"regional_rolls"}), _regional_rolls),
    (frozenset({"students"}), _students),
    (frozenset({"age_5yr", "contact_matrix"}), _contacts),
)
"""Figures that each part needs: a store that lacks some is compared by the others."""
