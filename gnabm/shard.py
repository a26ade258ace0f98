"""A shard: the contiguous rows that one member of a group owns, with what it needs from the others.

Sources are renumbered monotonically in their global row: halo rows of lower ranks, owned rows, halo rows of higher
ranks. So the order of every sum on a shard is the order of the whole, and the bits are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnabm.agents import Field
from gnabm.columns import Columns, Keys, coded, read_rows
from gnabm.contacts import Array, Edges, Mixing, Places
from gnabm.errors import DataError
from gnabm.exchange import ShardGroup, Solo
from gnabm.halo import Halo, Out, connect, number, split_out
from gnabm.messages import transpose
from gnabm.order import group_rows
from gnabm.population import Population

_PLACES_PER_READ = 1 << 16
_ROWS_PER_COUNT = 1 << 24
_NO_WEIGHT = torch.empty(0, dtype=torch.float32)


@dataclass(frozen=True, eq=False)
class EdgeShard:
    """In-edges of the owned agents; sources in the numbering of the shard.

    Args:
        indptr: (num_owned + 1,) int64.
        source: (num_edges,) int32.
        weight: (num_edges,) float32 or None.
        num_sources: Number of sources.
        first_owned: Place of the first owned agent among the sources.
    """

    indptr: Tensor
    source: Tensor
    weight: Tensor | None
    num_sources: int
    first_owned: int

    @cached_property
    def out(self) -> Out:
        """The same edges by source: indptr (num_sources + 1,), target, weight."""
        return transpose(self.indptr, self.source, self.num_sources, self.weight)

    @cached_property
    def squared(self) -> EdgeShard:
        """The same edges with their weights squared."""
        return self if self.weight is None else replace(self, weight=self.weight.square())

    @property
    def interior(self) -> Out:
        """Edges to the targets that need no source of another shard: pushed while an exchange is under way.

        By *owned row*, the numbering of those who send: indptr (num_owned + 1,), target, weight.
        """
        return self._split[0]

    @property
    def boundary(self) -> Out | None:
        """The edges to all other targets, by source as in `out`; None where there are none."""
        return self._split[1]

    @cached_property
    def _split(self) -> tuple[Out, Out | None]:
        if self.num_sources == self.indptr.shape[0] - 1:
            return self.out, None
        return split_out(self.indptr, self.source, self.weight, self.first_owned, self.num_sources)


@dataclass(frozen=True, eq=False)
class PlaceShard:
    """The places of the owned agents, with all their members as sources.

    Args:
        of_source: (num_sources,) int32 place of each source, -1 for none; places are renumbered within the shard.
        num_owned: Number of owned agents.
        num_places: Number of places.
        weight: (num_places,) float32 contacts per day with each co-member, or None for 1.
        activity_code: (num_sources,) code of the activity of each source (uint8 where 256 suffice), or None for 1.
        activity_table: (num_codes,) float32 activities.
        first_owned: Place of the first owned agent among the sources.
    """

    of_source: Tensor
    num_owned: int
    num_places: int
    weight: Tensor | None
    activity_code: Tensor | None
    activity_table: Tensor
    first_owned: int

    @property
    def place(self) -> Tensor:
        """(num_owned,) int32 place of each owned agent, -1 for none."""
        return self.of_source.narrow(0, self.first_owned, self.num_owned)

    @property
    def own_activity_code(self) -> Tensor | None:
        """(num_owned,) code of the activity of each owned agent, or None for 1."""
        return None if self.activity_code is None else self.activity_code.narrow(0, self.first_owned, self.num_owned)

    @cached_property
    def squared(self) -> PlaceShard:
        """The same places with the weight of each pair squared."""
        weight = None if self.weight is None else self.weight.square()
        return replace(self, weight=weight, activity_table=self.activity_table.square())

    @cached_property
    def activity(self) -> Tensor | None:
        """(num_sources,) float32 activity of each source, or None for 1; only the plain kernels ask for it."""
        code = self.activity_code
        return None if code is None else self.activity_table.index_select(0, code.to(torch.int32))

    @property
    def own_activity(self) -> Tensor | None:
        """(num_owned,) activity of the owned agents, or None for 1."""
        return None if self.activity is None else self.activity.narrow(0, self.first_owned, self.num_owned)

    @cached_property
    def members(self) -> tuple[Tensor, Tensor]:
        """First member of each place (num_places + 1,) int64, and members (num_members,) int32, ascending in a place.

        Only pull, tracing and explanations ask who the members are.
        """
        return group_rows(self.of_source, self.num_places)


@dataclass(frozen=True, eq=False)
class MixingShard:
    """The owned part of a mixing layer.

    Args:
        layer: The layer (its tables are small).
        group: (num_owned,) uint8.
        area_start: (num_areas + 1,) int64 first owned row of each area.
        members: (num_owned,) int32 owned rows ordered by group, then row.
        first: (num_shards + 1, num_groups) int64 agents of a group before each shard.
        keyed_name: Name of the layer, its stream of draws.
    """

    layer: Mixing
    group: Tensor
    area_start: NDArray[np.int64]
    members: Tensor
    first: Tensor
    keyed_name: str

    @property
    def cells(self) -> Tensor:
        """(num_owned,) int32 area and group of each owned agent, as area * num_groups + group."""
        num_areas, num_groups = self.layer.counts.shape
        cells = np.repeat(np.arange(num_areas, dtype=np.int32) * np.int32(num_groups), np.diff(self.area_start))
        return torch.from_numpy(cells).add_(self.group)


LayerShard = EdgeShard | PlaceShard | MixingShard


@dataclass(frozen=True, eq=False)
class Shard:
    """The rows [bounds[rank], bounds[rank + 1]) of a population.

    Args:
        group: The shards of the run.
        bounds: (num_shards + 1,) first row of each shard.
        columns: Attribute columns of the owned rows, `key` among them, read when they are first asked for.
        fields: What the columns mean.
        layers: Layers of the owned rows by name.
        halo: The static exchange of all layers.
    """

    group: ShardGroup
    bounds: tuple[int, ...]
    columns: Columns
    fields: dict[str, Field]
    layers: dict[str, LayerShard]
    halo: Halo

    @property
    def num_owned(self) -> int:
        """Number of owned agents."""
        return self.bounds[self.group.rank + 1] - self.bounds[self.group.rank]

    @property
    def num_sources(self) -> int:
        """Number of agents that an owned agent may hear, itself included: owned ones and halo."""
        return self.num_owned + sum(self.halo.receive)

    @property
    def keys(self) -> Keys:
        """Keys of the owned agents."""
        return self.columns.keys_of_rows

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
    columns = Columns(population.columns, low, high)
    alone = group.size == 1
    raw: dict[str, Any] = {name: _read(layer, low, high, alone) for name, layer in population.contacts.layers.items()}
    sources, halo = connect(raw, edges, group)
    layers = {
        name: _localise(name, layer, raw[name], sources, edges, group, halo)
        for name, layer in population.contacts.layers.items()
    }
    return Shard(group, edges, columns, dict(population.fields), layers, halo)


def _read(layer: Edges | Places | Mixing, low: int, high: int, alone: bool) -> dict[str, Any]:
    """Read what the rows [low, high) need of a layer, sources as global rows."""
    match layer:
        case Edges():
            indptr = read_rows(layer.indptr, low, high + 1, np.int64)
            first, last = int(indptr[0]), int(indptr[-1])
            weight = None if layer.weight is None else read_rows(layer.weight, first, last, np.float32)
            return {"indptr": indptr - first, "rows": read_rows(layer.source, first, last), "weight": weight}
        case Places():
            place = read_rows(layer.place, low, high, np.int32)
            if alone:
                return {"place": place}
            touched = _distinct(place, layer.num_places)
            if touched.size == layer.num_places:
                size, member = np.diff(read_rows(layer.indptr, 0, layer.num_places + 1)), layer.member[:]
            else:
                size, member = _read_places(layer.indptr, layer.member, touched)
            return {"place": place, "touched": touched, "size": size, "rows": member}
        case Mixing():
            return {"group": read_rows(layer.group, low, high), "rows": np.empty(0, dtype=np.int64)}


def _distinct(codes: NDArray[Any], num_codes: int) -> NDArray[np.int64]:
    """The codes >= 0 that occur, ascending; by marking, since sorting millions took longer than reading them."""
    occurs = np.zeros(num_codes + 1, dtype=bool)
    occurs[codes] = True  # -1 marks the one after the last
    return np.flatnonzero(occurs[:-1])


def _read_places(indptr: Array, member: Array, touched: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    sizes, members = [np.empty(0, dtype=np.int64)], []
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
    return np.concatenate(sizes), np.concatenate(members) if members else np.empty(0, dtype=np.int64)


def _localise(
    name: str, layer: Edges | Places | Mixing, raw: dict[str, Any], sources: NDArray[np.int64] | None,
    bounds: tuple[int, ...], group: ShardGroup, halo: Halo,
) -> LayerShard:  # fmt: skip
    num_sources = bounds[-1] if sources is None else sources.size
    if num_sources >= 2**31:
        raise DataError(f"a shard of {num_sources} sources is too large for 32-bit rows; use more shards")
    match layer:
        case Edges():
            rows = raw["rows"] if sources is None else number(raw["rows"], sources, *bounds[group.rank :][:2])
            weight = None if raw["weight"] is None else torch.from_numpy(raw["weight"])
            source = torch.from_numpy(rows.astype(np.int32, copy=False))
            return EdgeShard(torch.from_numpy(raw["indptr"]), source, weight, num_sources, halo.first[group.rank])
        case Places():
            return _localise_places(layer, raw, sources, bounds, group, halo)
        case Mixing():
            return _localise_mixing(name, layer, raw["group"], bounds, group)


def _localise_places(
    layer: Places, raw: dict[str, Any], sources: NDArray[np.int64] | None, bounds: tuple[int, ...], group: ShardGroup,
    halo: Halo,
) -> PlaceShard:  # fmt: skip
    low, high = bounds[group.rank], bounds[group.rank + 1]
    code, table = (None, _NO_WEIGHT) if layer.activity is None else coded(layer.activity, low, high)
    if sources is None:
        size = None if layer.contacts is None else _sizes(raw["place"], layer.num_places)
        of_source, num_places = torch.from_numpy(raw["place"]), layer.num_places
    else:
        size, num_places = raw["size"], raw["touched"].size
        rows = number(raw["rows"], sources, low, high)
        of_source = torch.full((sources.size,), -1, dtype=torch.int32)
        of_source.numpy()[rows] = np.repeat(np.arange(num_places, dtype=np.int32), size)
        if code is not None:
            with torch.no_grad():  # activities are data
                dense = halo.dense(group, table.index_select(0, code.to(torch.int32)))
            code, table = coded(dense.numpy(), 0, sources.size)
    weight = None if size is None or layer.contacts is None else torch.from_numpy(layer.weights(size))
    return PlaceShard(of_source, high - low, num_places, weight, code, table, halo.first[group.rank])


def _sizes(place: NDArray[np.int32], num_places: int) -> NDArray[np.int64]:
    """(num_places,) members of each place."""
    size = np.zeros(num_places + 1, dtype=np.int64)
    for at in range(0, place.size, _ROWS_PER_COUNT):
        size += np.bincount(place[at : at + _ROWS_PER_COUNT] + 1, minlength=num_places + 1)
    return size[1:]


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
    own = torch.from_numpy(codes.astype(np.uint8, copy=False))
    start, members = group_rows(own, num_groups)
    counts = torch.stack(group.all_to_all([start.diff()] * group.size))
    first = torch.zeros(group.size + 1, num_groups, dtype=torch.int64)
    first[1:] = torch.cumsum(counts, 0)
    if not np.array_equal(first[-1].numpy(), np.asarray(layer.counts).sum(0)):
        raise DataError(f"layer {name!r}: counts by area and group do not match the agents' groups; rebuild the layer")
    if int(first.max()) >= 2**31:
        raise DataError(f"layer {name!r}: a group of {int(first.max())} agents is too large for 32-bit rows; split it")
    area_start = np.clip(np.asarray(layer.area_start, dtype=np.int64) - low, 0, high - low)
    return MixingShard(layer, own, area_start, members, first, name)
