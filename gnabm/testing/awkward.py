"""Populations that make trouble: heavy tails, isolated agents, empty groups, households across borders."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnabm.agents import Field
from gnabm.contacts import Contacts, Edges, Layer, Mixing, Places
from gnabm.population import Population

_AGE_GROUPS = (*(f"{a}-{a + 9}" for a in range(0, 80, 10)), "80+")
_AREA_REGION = np.array([0, 0, 1, 1, 2], dtype=np.int64)


def awkward_population(num_agents: int, *, integer_weights: bool = False, seed: int = 0) -> Population:
    """A population with a layer of each kind, ages, regions and keys that are no row numbers.

    Args:
        num_agents: Number of agents, at least 50.
        integer_weights: Weights that are whole numbers, so that sums of flags are exact in any order.
        seed: Seed of the graph.

    Returns:
        Columns key, age, age_group, region, area. Layers: `friends` (edges with heavy-tailed in-degrees; a tenth of the
        agents have none), `home` (places, everyone meets; some agents have none, some places are empty),
        `site` (places with few contacts per visit, members more or less active), `community` (drawn
        mixing, three levels, groups that an area or a region lacks) and `field` (expected mixing).
    """
    rng = np.random.default_rng(seed)
    start = np.linspace(0, num_agents, _AREA_REGION.size + 1).astype(np.int64)
    area = np.searchsorted(start, np.arange(num_agents), side="right") - 1
    age = rng.integers(0, 95, num_agents)
    age[(area == 0) | (area == 4)] %= 60  # the last groups are missing in one area and in one whole region
    age[0] = 94
    region = _AREA_REGION[area]
    columns = {
        "key": rng.permutation(num_agents).astype(np.int64) * 7 + 3,
        "age": age.astype(np.uint8),
        "age_group": np.minimum(age // 10, 8).astype(np.uint8),
        "region": region.astype(np.uint8),
        "area": area.astype(np.int32),
    }
    fields = {
        "age": Field("age", "age at the last birthday", "years"),
        "age_group": Field("age_group", "ten-year age", categories=_AGE_GROUPS),
        "region": Field("region", "where the agent lives", categories=("north", "middle", "south")),
    }
    few = None if integer_weights else 4.5
    site = rng.integers(-1, max(num_agents // 30, 1), num_agents)
    other = np.random.default_rng([seed, 1])  # apart, so that the graph is that without activities
    active = other.integers(0, 3, num_agents) if integer_weights else other.gamma(2.0, 0.5, num_agents)
    friends, home = _friends(num_agents, integer_weights, rng), _homes(num_agents, rng)
    layers: dict[str, Layer] = {
        "friends": friends,
        "home": Places.of(home, num_places=int(home.max()) + 4),
        "site": Places.of(site, few, activity=active),
        "community": _mixing(age, start, 3.0, rng),
    }
    if not integer_weights:
        layers["field"] = replace(_mixing(age, start, 1.0, rng), expected=True)
    return Population(num_agents, columns, Contacts(layers, num_agents), fields, attributes={"kind": "awkward"})


def _friends(num_agents: int, integer_weights: bool, rng: np.random.Generator) -> Edges:
    num_edges = 6 * num_agents
    order = rng.permutation(num_agents)[: num_agents - num_agents // 10]
    target = order[(order.size * rng.random(num_edges) ** 3).astype(np.int64)]
    source = order[rng.integers(0, order.size, num_edges)]
    keep = source != target
    target, source = np.divmod(np.unique(target[keep] * num_agents + source[keep]), num_agents)
    weight = rng.integers(1, 4, source.size) if integer_weights else 10 ** rng.uniform(-3, 0.3, source.size)
    layer = Contacts.from_edges(source, target, weight, num_agents)["contacts"]
    assert isinstance(layer, Edges)
    return layer


def _homes(num_agents: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Home of each agent: neighbouring rows, as stored in a country, and one agent in twenty without."""
    sizes = rng.integers(1, 7, num_agents)
    home = np.repeat(np.arange(num_agents), sizes)[:num_agents]
    home[rng.random(num_agents) < 0.05] = -1
    return home


def _mixing(age: NDArray[np.int64], start: NDArray[np.int64], contacts: float, rng: np.random.Generator) -> Mixing:
    group = np.minimum(age // 5, 15).astype(np.uint8)
    counts = np.stack([np.bincount(group[a:b], minlength=16) for a, b in itertools.pairwise(start)])
    matrix = rng.random((16, 16)) * (counts.sum(0) > 0)
    matrix *= contacts / matrix.sum(1, keepdims=True)
    return Mixing(group, matrix, start, _AREA_REGION, counts, shares=(0.5, 0.3, 0.2), dispersion=0.5)


def permuted(population: Population, seed: int = 0) -> Population:
    """The same agents and contacts in another order of rows; every agent keeps its key.

    A mixing layer numbers the agents of a group in the order of rows, and its areas are runs of rows. So with such a
    layer agents are shuffled within areas, and those of one group keep their order; a drawn layer of one group would
    leave nothing to shuffle and takes its expected form.

    Args:
        population: In memory or on disk; all of it is read.
        seed: Seed of the permutation.
    """
    rng = np.random.default_rng(seed)
    num_agents = population.num_agents
    label, starts = np.zeros(num_agents, dtype=np.int64), [np.array([0, num_agents])]
    layers = dict(single_groups_expected(population.contacts).layers)
    for layer in layers.values():
        if isinstance(layer, Mixing):
            starts.append(np.asarray(layer.area_start))
            if not layer.expected:
                label = label * layer.matrix.shape[0] + np.asarray(layer.group[:])
    order = np.empty(num_agents, dtype=np.int64)
    cuts = np.unique(np.concatenate(starts))
    drawn = any(isinstance(layer, Mixing) and not layer.expected for layer in layers.values())
    for low, high in itertools.pairwise(cuts):
        mine = label[low:high] if drawn else np.arange(high - low)
        shuffled = rng.permutation(mine)
        order[low:high][np.argsort(shuffled, kind="stable")] = low + np.argsort(mine, kind="stable")
    columns = {name: np.asarray(column[:])[order] for name, column in population.columns.items()}
    columns.setdefault("key", order.copy())
    contacts = Contacts({n: _permute(layer, order) for n, layer in layers.items()}, num_agents)
    return replace(population, columns=columns, contacts=contacts)


def single_groups_expected(contacts: Contacts) -> Contacts:
    """The graph with drawn mixing layers of a single group in their expected form."""
    layers = {
        name: replace(layer, expected=True) if isinstance(layer, Mixing) and layer.matrix.shape[0] == 1 else layer
        for name, layer in contacts.layers.items()
    }
    return Contacts(layers, contacts.num_agents)


def _permute(layer: Layer, order: NDArray[np.int64]) -> Layer:
    row = np.empty_like(order)
    row[order] = np.arange(order.size)
    match layer:
        case Edges():
            indptr = np.asarray(layer.indptr[:])
            target = row[np.repeat(np.arange(order.size), np.diff(indptr))]
            source = row[np.asarray(layer.source[:])]
            at = np.lexsort((source, target))
            ends = np.concatenate([[0], np.cumsum(np.bincount(target, minlength=order.size))])
            weight: Any = None if layer.weight is None else np.asarray(layer.weight[:])[at]
            return replace(layer, indptr=ends.astype(np.int64), source=source[at].astype(np.int32), weight=weight)
        case Places():
            place = np.asarray(layer.place[:])[order]
            activity = None if layer.activity is None else np.asarray(layer.activity[:])[order]
            return Places.of(place, layer.contacts, layer.setting, layer.num_places, activity)
        case Mixing():
            return replace(layer, group=np.asarray(layer.group[:])[order])
