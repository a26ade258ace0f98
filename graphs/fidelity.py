"""What a population looks like, in the terms of the tables that it was built from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnabm.contacts import Places
from gnabm.errors import UnknownFieldError
from gnabm.population import Population
from graphs.meetings import column, mean_by_group, meetings
from graphs.mixing import NUM_GROUPS, activity_group
from graphs.sources import CLASSES, NUM_BANDS, NUM_FIVE_YEAR, SECTORS
from graphs.store import extra_array, open_graph

Floats = NDArray[np.float64]
SETTINGS = ("home", "school", "work", "other")


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
        household_comembers_10yr, employees_by_enterprise_size, mean_site_size, school_rolls,
        contacts_per_agent, contact_matrix.

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
    result.update(_work(population, path))
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


def _schools(population: Population, path: Path | None) -> dict[str, Any]:
    found = _by_code(population, path, "school", "sector")
    if found is None:
        return {}
    size, code = found
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
