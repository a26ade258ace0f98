"""What crosses the borders of shards, counted from the graph in bounded pieces, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnabm.contacts import Edges, Mixing, Places
from gnabm.population import Population

_ENTRIES_PER_READ = 1 << 20
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

    Reads edges and memberships once per 64 shards, a piece at a time, and keeps up to 8 bytes per agent; for one shard
    nothing but the ends of the layers.

    Args:
        population: In memory or on disk.
        bounds: (shards + 1,) first row of each shard.

    Returns:
        (shards,) rows that a shard reads from others, and the traffic by name of layer (mixing layers have none: their
        contacts are drawn).
    """
    edges = np.asarray(bounds, dtype=np.int64)
    shards = len(bounds) - 1
    layers = {n: v for n, v in population.contacts.layers.items() if not isinstance(v, Mixing)}
    if shards == 1:
        return np.zeros(1, dtype=np.int64), {name: _all_of(layer) for name, layer in layers.items()}
    halos = []
    traffic = {name: Traffic(*np.zeros((3, shards), dtype=np.int64)) for name in layers}
    for low in range(0, shards, _SHARDS_PER_PASS):
        needed = Needed(edges, low, min(low + _SHARDS_PER_PASS, shards))
        for name, layer in layers.items():
            count = _count_edges if isinstance(layer, Edges) else _count_places
            count(layer, needed, traffic[name])  # type: ignore[arg-type]
        halos.append(needed.count())
    return np.concatenate(halos), traffic


def _all_of(layer: Edges | Places) -> Traffic:
    """What one shard alone holds of a layer."""
    held = layer.num_edges if isinstance(layer, Edges) else int(layer.member.shape[0])
    places = 0 if isinstance(layer, Edges) else layer.num_places
    return Traffic(*(np.array([n], dtype=np.int64) for n in (held, 0, places)))


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
    mine = slice(needed.low, needed.high)
    for indptr, member in runs_of_places(layer):
        size = np.diff(indptr)
        filled = size > 0
        # Members are ascending, so their owners are: the first and the last tell whether a place crosses a border.
        first, last = (_owner(needed, member[at[filled]]) for at in (indptr[:-1], indptr[1:] - 1))
        size, alone = size[filled], first == last
        shards = traffic.held.size
        traffic.held[mine] += np.bincount(first[alone], size[alone], shards).astype(np.int64)[mine]
        traffic.places[mine] += np.bincount(first[alone], minlength=shards)[mine]
        if not alone.all():
            _count_crossing(member[np.repeat(~alone, size)], size[~alone], needed, traffic)


def _count_crossing(member: NDArray[Any], size: NDArray[np.int64], needed: Needed, traffic: Traffic) -> None:
    """Places with members on several shards."""
    owner, start = _owner(needed, member), np.cumsum(size) - size
    place = np.repeat(np.arange(size.size), size)
    for shard in range(needed.low, needed.high):
        own = np.add.reduceat(owner == shard, start, dtype=np.int64)
        visited = own > 0
        traffic.held[shard] += int(size[visited].sum())
        traffic.remote[shard] += int((size - own)[visited].sum())
        traffic.places[shard] += int(np.count_nonzero(visited))
        needed.bits[member[visited[place]]] |= needed.bit(shard)


def _owner(needed: Needed, rows: NDArray[Any]) -> NDArray[np.intp]:
    return np.searchsorted(needed.bounds, rows, side="right") - 1


def runs_of_places(layer: Places) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
    """All places in runs of about 2^20 members: as `run_of_places`."""
    first = 0
    while first < layer.num_places:
        indptr, member = run_of_places(layer, first, _ENTRIES_PER_READ)
        yield indptr, member
        first += indptr.size - 1


def run_of_places(layer: Places, first: int, entries: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """At least one whole place, and more while their members are few enough.

    Args:
        layer: In memory or on disk; only these places are read.
        first: First place.
        entries: Members to read.

    Returns:
        (num_places + 1,) indptr that begins at 0, and the members.
    """
    mean = max(1.0, layer.member.shape[0] / layer.num_places)
    indptr = np.asarray(layer.indptr[first : min(first + 1 + int(entries / mean), layer.num_places) + 1])
    fit = max(1, int(np.searchsorted(indptr, indptr[0] + entries, side="right")) - 1)
    begin, end = int(indptr[0]), int(indptr[fit])
    return indptr[: fit + 1].astype(np.int64) - begin, np.asarray(layer.member[begin:end])


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
