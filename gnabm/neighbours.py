"""What a rule sees of the contact graph: sums over neighbours, whatever the shard and the form of the kernels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from gnabm.errors import ShapeError, UnknownFieldError, nearest
from gnabm.exposure import Part
from gnabm.messages import (
    gather_sum,
    nonzero_rows,
    pull_edges,
    push_edges,
    push_places,
    read_places,
    segment_sum,
    weigh,
)
from gnabm.mixing import Drawn, MixingTables, drawn_contacts, expected_sum
from gnabm.random import salt
from gnabm.shard import EdgeShard, MixingShard, PlaceShard, Shard

Form = Literal["auto", "push", "pull"]
"""How a forward run computes; the bits are the same.

`auto`: messages go out from those who send (push), and rules that have a kernel of their own use it. `push`: the same
messages, and all rules as plain torch. `pull`: every agent sums what its sources send, by torch-scatter, as a
differentiable run always does.
"""


_MOST = 0.45
"""Share of the agents that send from which on walking the targets is quicker; measured."""


class Sent:
    """One field sent by everyone, exchanged once for all layers and rules of a phase.

    Args:
        shard: The shard.
        x: (num_owned,) or (num_owned, F) float; or None, where rows and values say who sends what.
        push: From the senders, by kernels without gradient; otherwise to every target.
        rows: (num_senders,) int64 owned rows that send something, ascending.
        values: (num_senders,) what they send.
    """

    def __init__(
        self, shard: Shard, x: Tensor | None, push: bool, rows: Tensor | None = None, values: Tensor | None = None
    ) -> None:
        self.shard, self.push, self._x = shard, push, x
        self.place_sums: dict[str, Tensor] = {}
        self.row_sums: dict[str, Tensor] = {}  # of layers without places, kept while sums are noted
        self.drawn: dict[str, Drawn] = {}
        # Kept by hand: a cached_property holds one lock per class before Python 3.12, and a shard that waits in an
        # exchange inside one would lock out the other shards of its process.
        self._dense: Tensor | None = None
        self._active: tuple[Tensor, Tensor] | None = None
        self._own = None if rows is None or values is None else (rows, values)
        # What crosses the border is under way while what stays within is summed.
        self._pending = shard.halo.start(shard.group, *self.own) if push and shard.group.size > 1 else None

    @property
    def x(self) -> Tensor:
        """(num_owned,) or (num_owned, F) what each owned agent sends."""
        if self._x is None:
            rows, values = self.own
            self._x = torch.zeros(self.shard.num_owned, dtype=values.dtype).index_copy_(0, rows, values)
        return self._x

    @property
    def dim(self) -> int:
        """1, or 2 where several features are sent."""
        return 1 if self._x is None else self._x.dim()

    @property
    def own(self) -> tuple[Tensor, Tensor]:
        """Owned rows that send something, ascending, and their values; all rows in the pull form."""
        if self._own is None:
            x = self.x
            rows = nonzero_rows(x) if self.push else torch.arange(x.shape[0])
            self._own = rows, x.index_select(0, rows) if self.push else x
        return self._own

    @property
    def dense(self) -> Tensor:
        """(num_sources, ...) values of all sources."""
        if self._dense is None:
            if self._pending is None:
                self._dense = self.shard.halo.dense(self.shard.group, self.x)
            else:
                sources, values = self.active
                self._dense = torch.zeros(self.shard.num_sources, dtype=values.dtype)
                self._dense.index_copy_(0, sources, values)
        return self._dense

    @property
    def active(self) -> tuple[Tensor, Tensor]:
        """Sources that send something, ascending, and their values."""
        if self._active is None:
            self._active = self.own if self._pending is None else self._pending.wait()
        return self._active


@dataclass(frozen=True, eq=False)
class Asked:
    """A sum over neighbours that a rule asked for.

    Args:
        sent: What everyone sends.
        weights: Factor of each layer by name, 1 where absent.
        layer: The layer, or None for all of them.
    """

    sent: Sent
    weights: Mapping[str, float | Tensor]
    layer: str | None


@dataclass(eq=False)
class Neighbours:
    """The contact graph as the rules of one step see it.

    Args:
        shard: The shard.
        seed: Seed of the run.
        step: Index of the step.
        dt: Length of the step in days.
        form: Which kernels to use; the bits are the same.
        tables: Lookup tables of the mixing layers.
        rows: (num_rows,) owned rows that the current rule can change, or None for all.
        asked: The sums that the current rule asked for, or None: they are not noted. Where they are, drawn contacts are
            kept for the phase, with who made them.
    """

    shard: Shard
    seed: int
    step: int
    dt: float
    form: Form
    tables: Mapping[str, MixingTables]
    rows: Tensor | None = None
    sent: dict[int, tuple[Tensor, Sent]] = field(default_factory=dict)
    asked: list[Asked] | None = None

    def only(self, rows: Tensor | None, asked: list[Asked] | None = None) -> Neighbours:
        """The same graph for a rule that can change only some rows; exchanges are shared."""
        return Neighbours(self.shard, self.seed, self.step, self.dt, self.form, self.tables, rows, self.sent, asked)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the layers."""
        return iter(self.shard.layers)

    def __getitem__(self, name: str) -> NeighbourLayer:
        """Return a layer by name."""
        if name not in self.shard.layers:
            raise UnknownFieldError(f"there is no layer {name!r}; {nearest(name, self.shard.layers)}")
        return NeighbourLayer(self, name)

    def sum_neighbours(self, x: Tensor, weights: Mapping[str, float | Tensor] | None = None) -> Tensor:
        r"""Sum over all layers, :math:`h_i = \sum_l v_l \sum_{j \to i} w^l_{ji} x_j`.

        Args:
            x: (num_agents,) what everyone sends, such as flags of the infectious.
            weights: Factor v of each layer by name, 1 where absent.

        Returns:
            (num_rows,) contacts per day, weighted; differentiable in x and v. Edge weights are data.
        """
        weights = self._known(weights or {})
        if self.asked is not None:
            self.asked.append(Asked(self.send(x), weights, None))
        result: Tensor | None = None
        for name in self:
            part = self[name].received(self.send(x))
            # A forward run adds up in place: the same bits, fewer buffers.
            in_place = not torch.is_grad_enabled()
            if name in weights:
                part = part.mul_(weights[name]) if in_place else part * weights[name]
            if result is None:
                result = part
                continue
            result = result.add_(part) if in_place else result + part
        assert result is not None
        return result

    def _known(self, weights: Mapping[str, float | Tensor]) -> Mapping[str, float | Tensor]:
        if not self.shard.layers:
            raise UnknownFieldError("the contact graph has no layer; add one, e.g. with Contacts.from_edges")
        unknown = sorted(set(weights) - set(self.shard.layers))
        if unknown:
            raise UnknownFieldError(f"there is no layer {unknown[0]!r}; {nearest(unknown[0], self.shard.layers)}")
        return weights

    def exposure(self, rows: Tensor, values: Tensor, weights: Mapping[str, float | Tensor]) -> list[Part]:
        """What `sum_neighbours` would add up, left in parts that a kernel reads row by row.

        Nobody who sends may be among those that read: what comes from oneself is not taken out.

        Args:
            rows: (num_senders,) int64 owned rows that send something, ascending.
            values: (num_senders,) float32 what they send.
            weights: Factor of each layer by name, 1 where absent.
        """
        weights = self._known(weights)
        sent = Sent(self.shard, None, True, rows, values)
        if self.asked is not None:
            self.asked.append(Asked(sent, weights, None))
        factors = {name: float(weights.get(name, 1.0)) for name in self}
        return [self[name].part(sent, factors[name]) for name in self if factors[name] != 0]

    def send(self, x: Tensor) -> Sent:
        """Exchange a field once per phase.

        Args:
            x: (num_owned,) or (num_owned, F).
        """
        if x.shape[:1] != (self.shard.num_owned,):
            raise ShapeError(
                f"messages are sent by everyone: expected ({self.shard.num_owned},) values, got {tuple(x.shape)}; in a "
                "rule with `where` send agents.everyone.FIELD"
            )
        if id(x) not in self.sent:
            value = x if x.is_floating_point() else x.to(torch.float32)
            # Push is the faster form at any share of active sources, but it has no gradient and takes one feature.
            push = not torch.is_grad_enabled() and x.dim() == 1 and self.form != "pull"
            # The tensor is kept beside what was sent, so that its id stays its own for the phase.
            self.sent[id(x)] = (x, Sent(self.shard, value.contiguous(), push))
        return self.sent[id(x)][1]


@dataclass(frozen=True, eq=False)
class NeighbourLayer:
    """One layer as a rule sees it.

    Args:
        graph: The graph.
        name: Name of the layer.
    """

    graph: Neighbours
    name: str

    def sum_neighbours(self, x: Tensor) -> Tensor:
        r"""Weighted sum over the contacts of each agent, :math:`h_i = \sum_{j \to i} w_{ji} x_j`.

        Args:
            x: (num_agents,) or (num_agents, F) what everyone sends; bool counts as 0 and 1.

        Returns:
            (num_rows,) or (num_rows, F), per day; differentiable in x; edge weights are data. The bits do not depend
            on shards, threads or the form of the kernels.

        Raises:
            ShapeError: x has not one row per agent.
        """
        if self.graph.asked is not None:
            self.graph.asked.append(Asked(self.graph.send(x), {}, self.name))
        return self.received(self.graph.send(x))

    def received(self, sent: Sent) -> Tensor:
        """The same sum of a field that was sent already: (num_rows,) or (num_rows, F)."""
        layer = self.graph.shard.layers[self.name]
        rows = self.graph.rows
        match layer:
            case EdgeShard() | MixingShard():
                sums = self._row_sums(layer, sent)
                if rows is None:  # what is kept is not changed in place
                    return sums.clone() if self.name in sent.row_sums else sums
                return sums.index_select(0, rows)
            case PlaceShard():
                if self.name not in sent.place_sums:
                    sent.place_sums[self.name] = _place_sums(layer, sent)
                sums = sent.place_sums[self.name]
                return read_places(sums, sent.x, layer.place, layer.weight, rows, layer.own_activity)

    def part(self, sent: Sent, factor: float) -> Part:
        """The same, left to be read row by row."""
        layer = self.graph.shard.layers[self.name]
        match layer:
            case EdgeShard() | MixingShard():
                return Part(self._row_sums(layer, sent), None, None, None, factor)
            case PlaceShard():
                # An entry of 0 before the first place stands for none, so that the kernel has nothing to ask.
                table = torch.zeros(layer.num_places + 1)
                sums = table.narrow(0, 1, layer.num_places)
                sent.place_sums[self.name] = _place_sums(layer, sent, sums)
                if layer.weight is not None:
                    table = torch.zeros_like(table)
                    torch.mul(sums, layer.weight, out=table.narrow(0, 1, layer.num_places))
                activity = None if layer.activity_code is None else layer.activity_table
                return Part(table, layer.place, layer.own_activity_code, activity, factor)

    def _row_sums(self, layer: EdgeShard | MixingShard, sent: Sent) -> Tensor:
        if self.name in sent.row_sums:
            return sent.row_sums[self.name]
        sums = _edges(layer, sent) if isinstance(layer, EdgeShard) else self._mix(layer, sent)
        if self.graph.asked is not None:
            sent.row_sums[self.name] = sums
        return sums

    def _mix(self, layer: MixingShard, sent: Sent) -> Tensor:
        graph = self.graph
        if layer.layer.expected:
            return expected_sum(layer, graph.tables[self.name], graph.shard.group, sent.x)
        drawn = self.drawn(layer, sent)
        total = drawn.summed(graph.shard.num_owned)
        return total if graph.dt == 1.0 else total / graph.dt

    def drawn(self, layer: MixingShard, sent: Sent) -> Drawn:
        """The contacts drawn in this step for a field that was sent; their senders are named while sums are noted."""
        graph, noted = self.graph, self.graph.asked is not None
        if noted and self.name in sent.drawn:
            return sent.drawn[self.name]
        state = salt(graph.seed, graph.step, f"contacts/{layer.keyed_name}")
        drawn = drawn_contacts(
            layer, graph.tables[self.name], graph.shard.group, graph.shard.keys, *sent.own, state, name_senders=noted
        )
        if noted:
            sent.drawn[self.name] = drawn
        return drawn


def _edges(layer: EdgeShard, sent: Sent) -> Tensor:
    if not sent.push:
        return pull_edges(sent.dense, layer.indptr, layer.source, layer.weight)
    number, (rows, values) = layer.indptr.shape[0] - 1, sent.own
    if rows.shape[0] > _MOST * number:
        return gather_sum(sent.dense, layer.indptr, layer.source, layer.weight)
    if sent.shard.group.size == 1:
        indptr, target, weight = layer.out
        return push_edges(rows, values, indptr, target, weight, number)
    indptr, target, weight = layer.interior  # while the others' values are on their way
    out = push_edges(rows, values, indptr, target, weight, number)
    if layer.boundary is not None:
        indptr, target, weight = layer.boundary
        sources, all_values = sent.active
        out = push_edges(sources, all_values, indptr, target, weight, number, out)
    return out


def _place_sums(layer: PlaceShard, sent: Sent, out: Tensor | None = None) -> Tensor:
    if sent.push:
        activity = layer.activity_code, layer.activity_table
        return push_places(*sent.active, layer.of_source, layer.num_places, *activity, out)
    first, member = layer.members
    return segment_sum(weigh(sent.dense, layer.activity).index_select(0, member), first)
