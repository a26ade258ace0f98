"""What a rule sees of the contact graph: sums over neighbours, whatever the shard and the form of the kernels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from gnabm.errors import ShapeError, UnknownFieldError, nearest
from gnabm.messages import pull_edges, push_edges, push_places, read_places, segment_sum, weigh
from gnabm.mixing import Drawn, MixingTables, drawn_contacts, expected_sum
from gnabm.random import salt
from gnabm.shard import EdgeShard, MixingShard, PlaceShard, Shard

Form = Literal["auto", "push", "pull"]
"""Form of the message kernels; `auto` is push in a forward run and pull in a differentiable one."""


class Sent:
    """One field sent by everyone, exchanged once for all layers and rules of a phase.

    Args:
        shard: The shard.
        x: (num_owned,) or (num_owned, F) float.
        form: Which kernels to use.
    """

    def __init__(self, shard: Shard, x: Tensor, form: Form) -> None:
        self.shard, self.x = shard, x
        # Push is the faster form at any share of active sources, but it has no gradient and takes one feature.
        self.push = not torch.is_grad_enabled() and x.dim() == 1 and form != "pull"
        self.place_sums: dict[str, Tensor] = {}
        self.drawn: dict[str, Drawn] = {}
        # Kept by hand: a cached_property holds one lock per class before Python 3.12, and a shard that waits in an
        # exchange inside one would lock out the other shards of its process.
        self._dense: Tensor | None = None
        self._active: tuple[Tensor, Tensor] | None = None
        self.scattered: Tensor | None = None

    @property
    def dense(self) -> Tensor:
        """(num_sources, ...) values of all sources."""
        if self._dense is None:
            self._dense = self.shard.halo.dense(self.shard.group, self.x)
        return self._dense

    @property
    def active(self) -> tuple[Tensor, Tensor]:
        """Sources that send something, ascending, and their values."""
        if self._active is None:
            self._active = self.shard.halo.active(self.shard.group, self.x)
        return self._active


@dataclass(frozen=True, eq=False)
class Asked:
    """A sum over neighbours that a rule asked for.

    Args:
        x: What everyone sends.
        weights: Factor of each layer by name, 1 where absent.
        layer: The layer, or None for all of them.
    """

    x: Tensor
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
        weights = weights or {}
        unknown = sorted(set(weights) - set(self.shard.layers))
        if unknown:
            raise UnknownFieldError(f"there is no layer {unknown[0]!r}; {nearest(unknown[0], self.shard.layers)}")
        if self.asked is not None:
            self.asked.append(Asked(x, weights, None))
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
        if result is None:
            raise UnknownFieldError("the contact graph has no layer; add one, e.g. with Contacts.from_edges")
        return result

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
            # The tensor is kept beside what was sent, so that its id stays its own for the phase.
            self.sent[id(x)] = (x, Sent(self.shard, value.contiguous(), self.form))
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
            self.graph.asked.append(Asked(x, {}, self.name))
        return self.received(self.graph.send(x))

    def received(self, sent: Sent) -> Tensor:
        """The same sum of a field that was sent already: (num_rows,) or (num_rows, F)."""
        layer = self.graph.shard.layers[self.name]
        rows = self.graph.rows
        match layer:
            case EdgeShard():
                return _take(_edges(layer, sent), rows)
            case PlaceShard():
                if self.name not in sent.place_sums:
                    sent.place_sums[self.name] = _place_sums(layer, sent)
                sums = sent.place_sums[self.name]
                return read_places(sums, sent.x, layer.place, layer.weight, rows, layer.own_activity)
            case MixingShard():
                return _take(self._mix(layer, sent), rows)

    def _mix(self, layer: MixingShard, sent: Sent) -> Tensor:
        graph = self.graph
        if layer.layer.expected:
            return expected_sum(layer, graph.tables[self.name], graph.shard.group, sent.x)
        drawn = self.drawn(layer, sent)
        total = drawn.summed(sent.x.shape[0])
        return total if graph.dt == 1.0 else total / graph.dt

    def drawn(self, layer: MixingShard, sent: Sent) -> Drawn:
        """The contacts drawn in this step for a field that was sent; their senders are named while sums are noted."""
        graph, noted = self.graph, self.graph.asked is not None
        if noted and self.name in sent.drawn:
            return sent.drawn[self.name]
        state = salt(graph.seed, graph.step, f"contacts/{layer.keyed_name}")
        drawn = drawn_contacts(
            layer, graph.tables[self.name], graph.shard.group, graph.shard.columns["key"], sent.x, state,
            everyone=not sent.push, name_senders=noted,
        )  # fmt: skip
        if noted:
            sent.drawn[self.name] = drawn
        return drawn


def _take(values: Tensor, rows: Tensor | None) -> Tensor:
    return values if rows is None else values.index_select(0, rows)


def _edges(layer: EdgeShard, sent: Sent) -> Tensor:
    if sent.push:
        indptr, target, weight = layer.out
        return push_edges(*sent.active, indptr, target, weight, layer.indptr.shape[0] - 1)
    return pull_edges(sent.dense, layer.indptr, layer.source, layer.weight)


def _place_sums(layer: PlaceShard, sent: Sent) -> Tensor:
    if sent.push:
        active, value = sent.active
        activity = None if layer.activity is None else layer.activity.index_select(0, active)
        return push_places(active, weigh(value, activity), layer.of_source, layer.num_places)
    return segment_sum(weigh(sent.dense, layer.activity).index_select(0, layer.member), layer.indptr)
