"""What the newly infected received through each layer, and from whom: only they and those who sent are walked."""

from __future__ import annotations

import torch
from torch import Tensor

from gnabm.messages import nonzero_rows, read_places, weigh
from gnabm.neighbours import Neighbours
from gnabm.race import Senders
from gnabm.rowset import RowSet
from gnabm.sent import Sent
from gnabm.shard import EdgeShard, MixingShard, PlaceShard, Shard


class SourceKeys:
    """Keys of all sources of a shard; those of other shards are exchanged once.

    Args:
        shard: The shard.
    """

    def __init__(self, shard: Shard) -> None:
        self.shard, self.first_owned = shard, shard.halo.first[shard.group.rank]
        self.halo = torch.empty(0, dtype=torch.int64)
        if shard.group.size > 1:
            self.halo = torch.cat(shard.group.all_to_all([shard.keys.take(rows) for rows in shard.halo.send]))

    def take(self, sources: Tensor) -> Tensor:
        """(n,) int64 keys of some sources (n,)."""
        if not self.halo.numel():
            return self.shard.keys.take(sources)
        row = sources - self.first_owned
        own = row.clamp(0, self.shard.num_owned - 1)
        keys = self.shard.keys.take(own)
        other = nonzero_rows(row != own)
        if other.numel():
            source = sources.index_select(0, other)
            at = torch.where(source < self.first_owned, source, source - self.shard.num_owned)
            keys[other] = self.halo.index_select(0, at)
        return keys


class Infectors:
    """Who sent what to some rows of a shard.

    Args:
        keys: Keys of the sources.
        contacts: The graph in the step, with its sums of what was sent.
        sent: What was sent.
        rows: (n,) int64 owned rows, ascending.
    """

    def __init__(self, keys: SourceKeys, contacts: Neighbours, sent: Sent, rows: Tensor) -> None:
        self.keys, self.contacts, self.sent, self.rows = keys, contacts, sent, rows
        self.layers = contacts.shard.layers
        self._heard: tuple[Tensor, Tensor] | None = None
        self._own: Tensor | None = None

    @property
    def heard(self) -> tuple[Tensor, Tensor]:
        """Sources that sent something, ascending, and their values; what the sums have exchanged already."""
        if self._heard is None and self.sent.push:
            self._heard = self.sent.active
        elif self._heard is None:
            source = nonzero_rows(self.sent.dense)
            self._heard = source, self.sent.dense.index_select(0, source)
        return self._heard

    @property
    def own(self) -> Tensor:
        """(n,) what the rows sent themselves."""
        if self._own is None:
            rows, values = self.sent.own
            at, place = RowSet.of(self.rows).among(rows)
            self._own = torch.zeros(self.rows.shape[0], dtype=values.dtype)
            self._own.index_copy_(0, place.to(torch.int64), values.index_select(0, at))
        return self._own

    def received(self, name: str) -> Tensor:
        """(n,) what each row received through a layer, per day: the bits that the hazard was made of."""
        layer = self.layers[name]
        match layer:
            case PlaceShard():
                code = layer.own_activity_code
                if code is not None:
                    code = code.index_select(0, self.rows).to(torch.int32)
                return read_places(
                    self.sent.place_sums[name], self.own, layer.place.index_select(0, self.rows), layer.weight,
                    activity=None if code is None else layer.activity_table.index_select(0, code),
                )  # fmt: skip
            case EdgeShard() | MixingShard():
                return self.sent.row_sums[name].index_select(0, self.rows)

    def winners(self, name: str, at: Tensor, state: int, targets: Tensor) -> Tensor:
        """Draw the infector of some of the rows, who received something through a layer.

        Args:
            name: The layer.
            at: (m,) int64 which of the rows.
            state: Salt of the draw.
            targets: (m,) int64 their keys.

        Returns:
            (m,) int64 keys.
        """
        layer, rows = self.layers[name], self.rows.index_select(0, at)
        match layer:
            case EdgeShard():
                return self._by_edges(layer, rows).winners(state, targets)
            case PlaceShard():
                return self._in_places(layer, rows).winners(state, targets, but_itself=True)
            case MixingShard():
                return self._by_draws(name, layer, rows).winners(state, targets)

    def _by_edges(self, layer: EdgeShard, rows: Tensor) -> Senders:
        first, last = (layer.indptr.index_select(0, rows + k).to(torch.int64) for k in (0, 1))
        degree = last - first
        target = torch.arange(rows.shape[0], dtype=torch.int32).repeat_interleave(degree)
        edge = (first - degree.cumsum(0) + degree).repeat_interleave(degree) + torch.arange(target.shape[0])
        source, value = self.heard
        at, place = RowSet.of(source).among(layer.source.index_select(0, edge))
        weight = value.index_select(0, place)
        if layer.weight is not None:
            weight = weight * layer.weight.index_select(0, edge.index_select(0, at)).to(weight.dtype)
        keys = self.keys.take(source.index_select(0, place))
        return Senders.of(target.index_select(0, at), rows.shape[0], keys, weight)

    def _by_draws(self, name: str, layer: MixingShard, rows: Tensor) -> Senders:
        drawn = self.contacts[name].drawn(layer, self.sent)
        at, target = RowSet.of(rows).among(drawn.target)
        by = at if drawn.by is None else drawn.by.index_select(0, at)
        assert drawn.keys is not None
        return Senders.of(target, rows.shape[0], drawn.keys.index_select(0, by), drawn.values.index_select(0, by))

    def _in_places(self, layer: PlaceShard, rows: Tensor) -> Senders:
        """Senders in the places of some rows: rows of one place share them."""
        place = layer.place.index_select(0, rows)
        places = RowSet.of(place)
        source, value = self.heard
        at, where = places.among(layer.of_source.index_select(0, source))
        sender = source.index_select(0, at)
        activity = None
        if layer.activity_code is not None:
            activity = layer.activity_table.index_select(0, layer.activity_code.index_select(0, sender).to(torch.int32))
        weight = weigh(value.index_select(0, at), activity)
        return Senders.of(where, places.size, self.keys.take(sender), weight).take(places.places(place))
