"""What crosses the borders of shards, counted from the graph in bounded pieces, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnabm.contacts import Edges, Layer, Mixing, Places
from gnabm.population import Population

_ENTRIES_PER_READ = 1 << 21
_SHARDS_PER_PASS = 64


@dataclass(frozen=True)
class Traffic:
    """What shards hold and need of one layer.

    Args:
        held: (shards,) messages that a step of each shard may read: in-edges, or members of the places of its agents.
        remote: (shards,) of these, messages whose source another shard owns.
        places: (shards,) places that an agent of the shard visits; 0 for edges.
    """

    held: NDArray[np.int64]
    remote: NDArray[np.int64]
    places: NDArray[np.int64]


class Needed:
    """Which shards need each row: one bit per shard and row, at most 8 bytes per row.

    Args:
        bounds: (shards + 1,) first row of each shard.
        low: First shard of this pass.
        high: Shard after the last.
    """

    def __init__(self, bounds: NDArray[np.int64], low: int, high: int) -> None:
        self.bounds, self.low, self.high = bounds, low, high
        width = next(w for w in (8, 16, 32, 64) if high - low <= w)
        self.kind = np.dtype(f"u{width // 8}")
        self.bits = np.zeros(int(bounds[-1]), dtype=self.kind)

    def bit(self, shard: int) -> np.unsignedinteger[Any]:
        """The bit of a shard of this pass."""
        bit: np.unsignedinteger[Any] = self.kind.type(1 << (shard - self.low))
        return bit

    def count(self) -> NDArray[np.int64]:
        """(high - low,) rows that each shard of this pass needs of others."""
        counts = []
        for shard in range(self.low, self.high):
            first, last = int(self.bounds[shard]), int(self.bounds[shard + 1])
            bit = self.bit(shard)
            outside = (self.bits[:first], self.bits[last:])
            counts.append(sum(int(np.count_nonzero(part & bit)) for part in outside))
        return np.array(counts, dtype=np.int64)


def measure(population: Population, bounds: tuple[int, ...]) -> tuple[NDArray[np.int64], dict[str, Traffic]]:
    """Halo rows of each shard and the traffic of each layer.

    Reads edges and memberships once per 64 shards, a piece at a time, and keeps up to 8 bytes per agent.

    Args:
        population: In memory or on disk.
        bounds: (shards + 1,) first row of each shard.

    Returns:
        (shards,) rows that a shard reads from others, and the traffic by name of layer (mixing layers have none: their
        contacts are drawn).
    """
    edges = np.asarray(bounds, dtype=np.int64)
    shards = len(bounds) - 1
    halos = []
    traffic = {
        name: Traffic(*(np.zeros(shards, dtype=np.int64) for _ in range(3)))
        for name, layer in population.contacts.layers.items()
        if not isinstance(layer, Mixing)
    }
    for low in range(0, shards, _SHARDS_PER_PASS):
        needed = Needed(edges, low, min(low + _SHARDS_PER_PASS, shards))
        for name, layer in population.contacts.layers.items():
            _count(layer, needed, traffic.get(name))
        halos.append(needed.count())
    return np.concatenate(halos), traffic


def _count(layer: Layer, needed: Needed, traffic: Traffic | None) -> None:
    match layer:
        case Edges() if traffic is not None:
            _count_edges(layer, needed, traffic)
        case Places() if traffic is not None:
            _count_places(layer, needed, traffic)
        case _:
            return


def _count_edges(layer: Edges, needed: Needed, traffic: Traffic) -> None:
    for shard in range(needed.low, needed.high):
        first, last = int(needed.bounds[shard]), int(needed.bounds[shard + 1])
        begin, end = int(layer.indptr[first]), int(layer.indptr[last])
        traffic.held[shard] = end - begin
        for at in range(begin, end, _ENTRIES_PER_READ):
            source = np.asarray(layer.source[at : min(at + _ENTRIES_PER_READ, end)])
            needed.bits[source] |= needed.bit(shard)
            traffic.remote[shard] += int(np.count_nonzero((source < first) | (source >= last)))


def _count_places(layer: Places, needed: Needed, traffic: Traffic) -> None:
    for first, last, indptr in _runs_of_places(layer):
        member = np.asarray(layer.member[int(indptr[0]) : int(indptr[-1])])
        if not member.size:
            continue
        size = np.diff(indptr)
        filled = np.flatnonzero(size)
        place = np.repeat(np.arange(last - first), size)
        owner = np.searchsorted(needed.bounds, member, side="right") - 1
        for shard in range(needed.low, needed.high):
            own = np.zeros(last - first, dtype=np.int64)
            own[filled] = np.add.reduceat(owner == shard, (indptr[:-1] - indptr[0])[filled])
            visited = own > 0
            traffic.held[shard] += int(size[visited].sum())
            traffic.remote[shard] += int((size - own)[visited].sum())
            traffic.places[shard] += int(np.count_nonzero(visited))
            needed.bits[member[visited[place]]] |= needed.bit(shard)


def _runs_of_places(layer: Places) -> list[tuple[int, int, NDArray[np.int64]]]:
    """Runs of whole places with about `_ENTRIES_PER_READ` members, and their indptr."""
    runs = []
    for low in range(0, layer.num_places, _ENTRIES_PER_READ):
        high = min(low + _ENTRIES_PER_READ, layer.num_places)
        indptr = np.asarray(layer.indptr[low : high + 1]).astype(np.int64)
        first = 0
        while first < high - low:
            last = int(np.searchsorted(indptr, indptr[first] + _ENTRIES_PER_READ, side="right")) - 1
            last = max(last, first + 1)
            runs.append((low + first, low + last, indptr[first : last + 1]))
            first = last
    return runs


def drawn_across(layer: Mixing, bounds: tuple[int, ...]) -> tuple[float, float]:
    r"""Expected contacts per day of a mixing layer, and the share of them that cross a border.

    With :math:`w_{ps}` the share of pool p that stands on shard s, a contact drawn within p from one of its own members
    crosses with probability :math:`1 - \sum_s w_{ps}^2`, weighed by the contacts that the pool's members make.

    Args:
        layer: The layer.
        bounds: (shards + 1,) first row of each shard.
    """
    start, edges = np.asarray(layer.area_start, dtype=np.int64), np.asarray(bounds, dtype=np.int64)
    rows = np.diff(start)
    inside = np.minimum(start[1:, None], edges[None, 1:]) - np.maximum(start[:-1, None], edges[None, :-1])
    on_shard = np.maximum(inside, 0).astype(np.float64)  # (num_areas, shards) agents
    made = np.asarray(layer.counts, dtype=np.float64) @ np.asarray(layer.matrix, dtype=np.float64).sum(1)
    _, region = np.unique(np.asarray(layer.area_region), return_inverse=True)
    crossing = 0.0
    pools = (np.arange(rows.size), region, np.zeros(rows.size, dtype=np.int64))
    for share, pool in zip(layer.shares, pools, strict=True):
        size = np.zeros((int(pool.max()) + 1, on_shard.shape[1]))
        np.add.at(size, pool, on_shard)
        part = size / np.maximum(size.sum(1, keepdims=True), 1)
        contacts = np.bincount(pool, weights=made)
        crossing += share * float((contacts * (1 - (part**2).sum(1))).sum())
    total = float(made.sum())
    return total, crossing / total if total else 0.0
