"""A shard: the contiguous rows that one member of a group owns, with what it needs from the others.

Sources are renumbered monotonically in their global row: halo rows of lower ranks, owned rows, halo rows of higher
ranks. So the order of every sum on a shard is the order of the whole, and the bits are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnabm.agents import Field
from gnabm.contacts import Array, Edges, Mixing, Places
from gnabm.errors import DataError
from gnabm.exchange import ShardGroup, Solo
from gnabm.halo import Halo, connect, number
from gnabm.messages import transpose
from gnabm.population import Population

_PLACES_PER_READ = 1 << 16


@dataclass(frozen=True, eq=False)
class EdgeShard:
    """In-edges of the owned agents; sources in the numbering of the shard.

    Args:
        indptr: (num_owned + 1,) int64.
        source: (num_edges,) int32.
        weight: (num_edges,) float32 or None.
        num_sources: Number of sources.
    """

    indptr: Tensor
    source: Tensor
    weight: Tensor | None
    num_sources: int

    @cached_property
    def out(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """The same edges by source: indptr, target, weight."""
        return transpose(self.indptr, self.source, self.num_sources, self.weight)


@dataclass(frozen=True, eq=False)
class PlaceShard:
    """The places of the owned agents, with all their members as sources.

    Args:
        place: (num_owned,) int32 place, -1 for none; places are renumbered within the shard.
        of_source: (num_sources,) int32 place of each source, -1 for none.
        indptr: (num_places + 1,) int64.
        member: (num_members,) int32 sources, ascending within a place.
        weight: (num_places,) float32 contacts per day with each co-member.
        activity: (num_sources,) float32 activity of each source, or None for 1.
        first_owned: Place of the first owned agent among the sources.
    """

    place: Tensor
    of_source: Tensor
    indptr: Tensor
    member: Tensor
    weight: Tensor
    activity: Tensor | None
    first_owned: int

    @property
    def own_activity(self) -> Tensor | None:
        """(num_owned,) activity of the owned agents, or None for 1."""
        return None if self.activity is None else self.activity.narrow(0, self.first_owned, self.place.shape[0])

    @property
    def num_places(self) -> int:
        """Number of places that an owned agent visits."""
        return self.weight.shape[0]


@dataclass(frozen=True, eq=False)
class MixingShard:
    """The owned part of a mixing layer.

    Args:
        layer: The layer (its tables are small).
        group: (num_owned,) uint8.
        area: (num_owned,) int64.
        members: (num_owned,) int64 owned rows ordered by group, then row.
        members_start: (num_groups + 1,) int64 first member of each group.
        first: (num_shards + 1, num_groups) int64 agents of a group before each shard.
        keyed_name: Name of the layer, its stream of draws.
    """

    layer: Mixing
    group: Tensor
    area: Tensor
    members: Tensor
    members_start: Tensor
    first: Tensor
    keyed_name: str


LayerShard = EdgeShard | PlaceShard | MixingShard


@dataclass(frozen=True, eq=False)
class Shard:
    """The rows [bounds[rank], bounds[rank + 1]) of a population.

    Args:
        group: The shards of the run.
        bounds: (num_shards + 1,) first row of each shard.
        columns: Attribute columns of the owned rows, `key` among them.
        fields: What the columns mean.
        layers: Layers of the owned rows by name.
        halo: The static exchange of all layers.
    """

    group: ShardGroup
    bounds: tuple[int, ...]
    columns: dict[str, Tensor]
    fields: dict[str, Field]
    layers: dict[str, LayerShard]
    halo: Halo

    @property
    def num_owned(self) -> int:
        """Number of owned agents."""
        return self.bounds[self.group.rank + 1] - self.bounds[self.group.rank]

    @property
    def first_row(self) -> int:
        """Row of the first owned agent in the population."""
        return self.bounds[self.group.rank]


def cut(population: Population, group: ShardGroup | None = None, bounds: Sequence[int] | None = None) -> Shard:
    """Read one shard of a population; every member of the group calls it.

    Args:
        population: In memory or on disk; of a store only the blocks of this shard are read.
        group: The shards, or None for one.
        bounds: (num_shards + 1,) first row of each shard, or None for one shard.
    """
    group = group or Solo()
    edges = tuple(int(b) for b in (bounds if bounds is not None else (0, population.num_agents)))
    if len(edges) != group.size + 1 or edges[0] != 0 or edges[-1] != population.num_agents or min(np.diff(edges)) < 1:
        raise DataError(f"bounds {edges} do not cut {population.num_agents} agents into {group.size} shards of >= 1")
    low, high = edges[group.rank], edges[group.rank + 1]
    columns = {name: torch.from_numpy(np.array(column[low:high])) for name, column in population.columns.items()}
    columns.setdefault("key", torch.arange(low, high, dtype=torch.int64))
    columns["key"] = columns["key"].to(torch.int64)
    raw: dict[str, Any] = {name: _read(layer, low, high) for name, layer in population.contacts.layers.items()}
    sources, halo = connect(raw, edges, group)
    layers = {
        name: _localise(name, layer, raw[name], sources, edges, group, halo)
        for name, layer in population.contacts.layers.items()
    }
    return Shard(group, edges, columns, dict(population.fields), layers, halo)


def _read(layer: Edges | Places | Mixing, low: int, high: int) -> dict[str, NDArray[Any] | None]:
    """Read what the rows [low, high) need of a layer, sources as global rows."""
    match layer:
        case Edges():
            indptr = np.asarray(layer.indptr[low : high + 1])
            first, last = int(indptr[0]), int(indptr[-1])
            weight = None if layer.weight is None else np.asarray(layer.weight[first:last])
            return {"indptr": indptr - first, "rows": np.asarray(layer.source[first:last]), "weight": weight}
        case Places():
            place = np.asarray(layer.place[low:high])
            activity = None if layer.activity is None else np.asarray(layer.activity[low:high], dtype=np.float32)
            touched = _distinct(place[place >= 0], layer.num_places)
            found = {"place": place, "activity": activity, "touched": touched}
            if touched.size == layer.num_places:
                return {**found, "indptr": layer.indptr[:], "rows": layer.member[:]}
            indptr, member = _read_places(layer.indptr, layer.member, touched)
            return {**found, "indptr": indptr, "rows": member}
        case Mixing():
            return {"group": np.asarray(layer.group[low:high]), "rows": np.empty(0, dtype=np.int64)}


def _distinct(codes: NDArray[Any], num_codes: int) -> NDArray[np.int64]:
    """The codes that occur, ascending; by marking, since sorting millions of them took longer than reading them."""
    occurs = np.zeros(num_codes, dtype=bool)
    occurs[codes] = True
    return np.flatnonzero(occurs)


def _read_places(indptr: Array, member: Array, touched: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    sizes, members = [np.zeros(1, dtype=np.int64)], []
    for block in np.unique(touched // _PLACES_PER_READ):
        start = int(block) * _PLACES_PER_READ
        wanted = touched[(touched >= start) & (touched < start + _PLACES_PER_READ)] - start
        ends = np.asarray(indptr[start : start + _PLACES_PER_READ + 1])
        chunk = np.asarray(member[int(ends[0]) : int(ends[-1])])
        size = np.diff(ends)
        keep = np.zeros(size.size, dtype=bool)
        keep[wanted] = True
        sizes.append(size[keep])
        members.append(chunk[np.repeat(keep, size)])
    return np.cumsum(np.concatenate(sizes)), np.concatenate(members) if members else np.empty(0, dtype=np.int64)


def _localise(
    name: str, layer: Edges | Places | Mixing, raw: dict[str, Any], sources: NDArray[np.int64] | None,
    bounds: tuple[int, ...], group: ShardGroup, halo: Halo,
) -> LayerShard:  # fmt: skip
    num_sources = bounds[-1] if sources is None else sources.size
    rows = raw["rows"] if sources is None else number(raw["rows"], sources, *bounds[group.rank : group.rank + 2])
    if num_sources >= 2**31:
        raise DataError(f"a shard of {num_sources} sources is too large for 32-bit rows; use more shards")
    match layer:
        case Edges():
            weight = None if raw["weight"] is None else torch.from_numpy(raw["weight"].astype(np.float32))
            indptr = torch.from_numpy(raw["indptr"].astype(np.int64))
            return EdgeShard(indptr, torch.from_numpy(rows.astype(np.int32)), weight, num_sources)
        case Places():
            indptr, place = raw["indptr"].astype(np.int64), raw["place"]
            size = np.diff(indptr)
            local = place.astype(np.int32)
            if raw["touched"].size != layer.num_places:
                numbered = np.full(layer.num_places, -1, dtype=np.int32)
                numbered[raw["touched"]] = np.arange(raw["touched"].size, dtype=np.int32)
                local = np.where(place >= 0, numbered[place], np.int32(-1))
            of_source = np.full(num_sources, -1, dtype=np.int32)
            of_source[rows] = np.repeat(np.arange(size.size, dtype=np.int32), size)
            own = None if raw["activity"] is None else torch.from_numpy(raw["activity"])
            with torch.no_grad():  # activities are data
                activity = None if own is None else halo.dense(group, own)
            return PlaceShard(
                torch.from_numpy(local), torch.from_numpy(of_source), torch.from_numpy(indptr),
                torch.from_numpy(rows.astype(np.int32)), torch.from_numpy(layer.weights(size)), activity,
                halo.first[group.rank],
            )  # fmt: skip
        case Mixing():
            return _localise_mixing(name, layer, raw["group"], bounds, group)


def _localise_mixing(
    name: str, layer: Mixing, codes: NDArray[np.uint8], bounds: tuple[int, ...], group: ShardGroup
) -> MixingShard:
    low, high = bounds[group.rank], bounds[group.rank + 1]
    num_groups = layer.matrix.shape[0]
    if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < num_groups:
        raise DataError(
            f"layer {name!r}: rows {low}..{high - 1} hold groups {codes.min()}..{codes.max()}, outside "
            f"0..{num_groups - 1}; rebuild the layer with the groups of its matrix"
        )
    here = torch.from_numpy(np.bincount(codes, minlength=num_groups).astype(np.int64))
    counts = torch.stack(group.all_to_all([here] * group.size))
    first = torch.zeros(group.size + 1, num_groups, dtype=torch.int64)
    first[1:] = torch.cumsum(counts, 0)
    if not np.array_equal(first[-1].numpy(), np.asarray(layer.counts).sum(0)):
        raise DataError(f"layer {name!r}: counts by area and group do not match the agents' groups; rebuild the layer")
    start = torch.zeros(num_groups + 1, dtype=torch.int64)
    start[1:] = torch.cumsum(here, 0)
    area = np.searchsorted(np.asarray(layer.area_start), np.arange(low, high), side="right") - 1
    members = np.argsort(codes, kind="stable")
    return MixingShard(
        layer, torch.from_numpy(codes.astype(np.uint8)), torch.from_numpy(area), torch.from_numpy(members), start,
        first, name,
    )  # fmt: skip
