"""What a rule sees of the contact graph: sums over neighbours, whatever the shard and the form of the kernels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from gnabm.errors import UnknownFieldError, nearest
from gnabm.exposure import Part
from gnabm.linear import MOST_SENDERS, EdgeSums, PlaceSums, apply
from gnabm.messages import (
    gather_sum,
    pull_edges,
    push_edges,
    push_places,
    read_places,
    segment_sum,
    weigh,
)
from gnabm.mixing import Drawn, MixingTables, drawn_contacts, expected_sum
from gnabm.random import salt
from gnabm.sent import Sent
from gnabm.shard import EdgeShard, LayerShard, MixingShard, PlaceShard, Shard

Form = Literal["auto", "push", "pull"]
"""How a forward run computes; the bits are the same.

`auto`: messages go out from those who send (push), and rules that have a kernel of their own use it. `push`: the same
messages, and all rules as plain torch. `pull`: every agent sums what its sources send, by torch-scatter. A
differentiable run has kernels of its own (`gnabm.linear`).
"""


@dataclass(frozen=True, eq=False)
class Asked:
    """A sum over neighbours that a rule asked for.

    Args:
        sent: What everyone sends through each layer that counts.
        weights: Factor of each layer by name, 1 where absent.
        layer: The layer, or None for all of them.
    """

    sent: Mapping[str, Sent]
    weights: Mapping[str, float | Tensor]
    layer: str | None


@dataclass(frozen=True, eq=False)
class Summed:
    """A sum over all layers that a rule made.

    Args:
        sent: What was sent, by layer.
        weights: Factor of each layer by name, 1 where absent.
        sums: (num_rows,) the sums, or None where they were left to be read row by row.
    """

    sent: Mapping[str, Sent]
    weights: Mapping[str, float | Tensor]
    sums: Tensor | None


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
        weights: (num_owned,) weight of everyone, by which what is sent is multiplied, or None for 1.
        summed: What the current rule summed over all layers last, if it did.
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
    weights: Tensor | None = None
    summed: Summed | None = None

    def only(self, rows: Tensor | None, asked: list[Asked] | None = None) -> Neighbours:
        """The same graph for a rule that can change only some rows; exchanges are shared."""
        return replace(self, rows=rows, asked=asked, summed=None)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the layers."""
        return iter(self.shard.layers)

    def __getitem__(self, name: str) -> NeighbourLayer:
        """Return a layer by name."""
        if name not in self.shard.layers:
            raise UnknownFieldError(f"there is no layer {name!r}; {nearest(name, self.shard.layers)}")
        return NeighbourLayer(self, name)

    def sum_neighbours(
        self,
        x: Tensor | Mapping[str, Tensor],
        weights: Mapping[str, float | Tensor] | None = None,
        *,
        senders: Tensor | None = None,
    ) -> Tensor:
        r"""Sum over all layers, :math:`h_i = \sum_l v_l \sum_{j \to i} w^l_{ji} x_j`.

        Args:
            x: (num_agents,) what everyone sends, such as flags of the infectious; or that by layer, of each layer.
            weights: Factor v of each layer by name, () or (num_rows,), 1 where absent.
            senders: (num_agents,) flags of those who can send something. Where x has a gradient of its own, such as in
                a learned infectiousness, its gradient is then taken for them alone, which is much quicker.

        Returns:
            (num_rows,) contacts per day, weighted; differentiable in x and v. Edge weights are data.
        """
        weights = self._known(weights or {})
        by_layer = dict.fromkeys(self, x) if isinstance(x, Tensor) else x
        missing = [name for name in self if name not in by_layer]
        if missing:
            raise UnknownFieldError(f"nothing is sent through {missing[0]!r}; send something through each layer")
        sent = {name: self.send(by_layer[name], senders) for name in self}
        if self.asked is not None:
            self.asked.append(Asked(sent, weights, None))
        result: Tensor | None = None
        for name in self:
            part = self[name].received(sent[name])
            # A forward run adds up in place: the same bits, fewer buffers.
            in_place = not torch.is_grad_enabled()
            if name in weights:
                part = part.mul_(weights[name]) if in_place else part * weights[name]
            if result is None:
                result = part
                continue
            result = result.add_(part) if in_place else result + part
        assert result is not None
        self.summed = Summed(sent, weights, result)
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
            self.asked.append(Asked(dict.fromkeys(self, sent), weights, None))
        self.summed = Summed(dict.fromkeys(self, sent), weights, None)
        factors = {name: float(weights.get(name, 1.0)) for name in self}
        return [self[name].part(sent, factors[name]) for name in self if factors[name] != 0]

    def send(self, x: Tensor, senders: Tensor | None = None) -> Sent:
        """Exchange a field once per phase.

        Args:
            x: (num_owned,) or (num_owned, F).
            senders: (num_owned,) flags of those who can send something, or None.
        """
        if id(x) not in self.sent:
            # Push is the faster form at any share of active sources, but it has no gradient and takes one feature.
            push = not torch.is_grad_enabled() and x.dim() == 1 and self.form != "pull"
            # The tensor is kept beside what was sent, so that its id stays its own for the phase.
            self.sent[id(x)] = (x, Sent.of(self.shard, x, push, self.weights, senders))
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
            self.graph.asked.append(Asked({self.name: self.graph.send(x)}, {}, self.name))
        return self.received(self.graph.send(x))

    def received(self, sent: Sent) -> Tensor:
        """The same sum of a field that was sent already: (num_rows,) or (num_rows, F)."""
        layer = self.graph.shard.layers[self.name]
        rows = self.graph.rows
        if torch.is_grad_enabled():
            return self._differentiable(layer, sent)
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
                return _read_places(layer, sums, sent.x, rows)

    def squared(self, sent: Sent) -> Tensor | None:
        """The sum with the weight of each pair squared, (num_rows,); None where pairs do not meet again."""
        layer = self.graph.shard.layers[self.name]
        return None if isinstance(layer, MixingShard) else self._differentiable(layer.squared, sent)

    def _differentiable(self, layer: LayerShard, sent: Sent) -> Tensor:
        """The same by linear maps: between those who can have a gradient and those who are asked for."""
        rows = self.graph.rows
        match layer:
            case EdgeShard():
                sources, values = sent.differentiable
                into = layer.indptr, layer.source, layer.weight
                return apply(EdgeSums(into, layer.out, sources, rows), values)
            case PlaceShard():
                sources, values = sent.differentiable
                if layer.num_owned < layer.of_source.shape[0]:
                    rows = (torch.arange(layer.num_owned) if rows is None else rows) + layer.first_owned
                places = PlaceSums(layer.of_source, layer.num_places, layer.weight, layer.activity, sources, rows)
                return apply(places, values)
            case MixingShard():
                sums = self._mix(layer, sent)
                return sums if rows is None else sums.index_select(0, rows)

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


def _read_places(layer: PlaceShard, sums: Tensor, own: Tensor, rows: Tensor | None) -> Tensor:
    if own.dim() == 1:
        return read_places(sums, own, layer.place, layer.weight, rows, layer.own_activity)
    features = zip(sums.unbind(1), own.unbind(1), strict=True)
    return torch.stack([_read_places(layer, s.contiguous(), x.contiguous(), rows) for s, x in features], 1)


def _edges(layer: EdgeShard, sent: Sent) -> Tensor:
    if not sent.push:
        return pull_edges(sent.dense, layer.indptr, layer.source, layer.weight)
    number, (rows, values) = layer.indptr.shape[0] - 1, sent.own
    if rows.shape[0] > MOST_SENDERS * number:
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
