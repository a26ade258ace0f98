"""What `explain` sees of a rule at work: one agent's draws and sums over contacts, and who its contacts were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnabm.explanation import Draw, Race
from gnabm.mixing import drawn_contacts
from gnabm.neighbours import Asked, Neighbours
from gnabm.random import key_bits, mix, salt, salts, uniform, unit_interval
from gnabm.rule import Step
from gnabm.shard import EdgeShard, MixingShard, PlaceShard

_SENDERS_AT_ONCE = 1 << 18
_LEAST = 2.0**-53
"""The least uniform number."""


@dataclass(eq=False)
class WatchedStep(Step):
    """A step that notes the draws of one row.

    Args:
        at: The row among those that the rule sees.
        draws: What was drawn.
        instead: Outcomes that the row gets instead of its own, by stream: to see whether they matter.
    """

    at: int = 0
    draws: list[Draw] = field(default_factory=list)
    instead: Mapping[str, float] = field(default_factory=dict)

    def _number(self, name: str) -> float:
        keys = self.agents.key.narrow(0, self.at, 1)
        return float(uniform(salt(self.seed, self.index, f"{self.rule}/{name}"), keys))

    def bernoulli(self, p: Tensor, where: Tensor | None = None, name: str = "bernoulli") -> Tensor:
        """Draw as ever and note it."""
        flags = super().bernoulli(p, where, name)
        chance = float(p if p.dim() == 0 else p[self.at])
        if where is not None and not bool(where[self.at]):
            chance = 0.0
        self.draws.append(Draw(f"{self.rule}/{name}", self._number(name), chance, bool(flags[self.at])))
        return self._replaced(name, flags)

    def uniform(self, name: str = "uniform") -> Tensor:
        """Draw as ever and note it."""
        numbers = super().uniform(name)
        self.draws.append(Draw(f"{self.rule}/{name}", float(numbers[self.at])))
        return self._replaced(name, numbers)

    def _replaced(self, name: str, drawn: Tensor) -> Tensor:
        outcome = self.instead.get(f"{self.rule}/{name}")
        if outcome is not None:
            drawn[self.at] = outcome
        return drawn


def others(draw: Draw) -> tuple[float, ...]:
    """Outcomes that a draw could have had instead: not of the event, or the least and the largest number."""
    if draw.probability is None:
        return _LEAST, 1 - _LEAST
    return () if draw.probability in (0, 1) else (float(not draw.happened),)


@dataclass(frozen=True, eq=False)
class Heard:
    """A sum over contacts as one agent got it.

    Args:
        x: (num_agents,) what everyone sent through each layer.
        total: The sum, per day.
        parts: What came through each layer, before its factor.
        factors: Factor of each layer.
    """

    x: Mapping[str, Tensor]
    total: float
    parts: Mapping[str, float]
    factors: Mapping[str, float]


def heard(asked: Asked, graph: Neighbours, at: int) -> list[Heard]:
    """What one agent got of a sum that a rule asked for, one for each feature that was sent.

    Args:
        asked: The sum.
        graph: The contact graph of the rule.
        at: The agent's row among those that the rule can change.
    """
    layers, fields = list(asked.sent), {name: sent.x for name, sent in asked.sent.items()}
    received = {name: graph[name].received(sent) for name, sent in asked.sent.items()}
    parts = {name: values[at].reshape(-1).tolist() for name, values in received.items()}
    whole = graph.sum_neighbours(fields, asked.weights) if asked.layer is None else received[asked.layer]
    factors = {}
    for name in layers:
        factor = torch.as_tensor(asked.weights.get(name, 1.0))
        factors[name] = float(factor[at] if factor.dim() else factor)
    return [
        Heard(
            {name: x if x.dim() == 1 else x.select(1, k) for name, x in fields.items()},
            total, {name: values[k] for name, values in parts.items()}, factors,
        )
        for k, total in enumerate(whole[at].reshape(-1).tolist())
    ]  # fmt: skip


# Who was in contact


def contacts_of(row: int, name: str, graph: Neighbours) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """Rows that an agent was in contact with in this step and contacts per day with each; None for a mean field.

    Args:
        row: Row of the agent; the graph is that of one shard, so rows are sources.
        name: The layer.
        graph: The contact graph of the step.
    """
    layer = graph.shard.layers[name]
    match layer:
        case EdgeShard():
            first, last = (int(n) for n in layer.indptr[row : row + 2])
            rows = layer.source[first:last].to(torch.int64).numpy()
            weight = np.ones(rows.size) if layer.weight is None else layer.weight[first:last].to(torch.float64).numpy()
        case PlaceShard():
            place = int(layer.place[row])
            start, member = layer.members
            first, last = (int(n) for n in start[place : place + 2]) if place >= 0 else (0, 0)
            rows = member[first:last].to(torch.int64).numpy()
            rows = rows[rows != row]
            weight = np.full(rows.size, 1.0 if layer.weight is None or place < 0 else float(layer.weight[place]))
            if layer.activity is not None:
                activity = layer.activity.to(torch.float64).numpy()
                weight = weight * activity[rows] * activity[row]
        case MixingShard():
            if layer.layer.expected:
                return None
            rows, times = np.unique(_drew(row, name, layer, graph), return_counts=True)
            weight = times / graph.dt
    return rows, weight


def race_of(row: int, layer: str, rule: str, x: Tensor, graph: Neighbours) -> Race | None:
    """The race that decided who infected an agent through a layer, as `gnabm.race` ran it; None without runners.

    Args:
        row: Row of the agent; the graph is that of one shard, so rows are sources.
        layer: The layer.
        rule: Name of the rule.
        x: (num_agents,) what everyone sent through each layer.
        graph: The contact graph of the step.
    """
    found = contacts_of(row, layer, graph)
    if found is None:
        return None
    rows, weight = found
    sent = weight * x.detach()[torch.from_numpy(rows)].to(torch.float64).numpy()  # an account is data
    runners, at = np.unique(rows[sent > 0], return_inverse=True)
    if runners.size == 0:
        return None
    speed = np.bincount(at, sent[sent > 0])
    keys = graph.shard.columns["key"].numpy()
    state, second = salts(salt(graph.seed, graph.step, f"{rule}/infector"))
    own = np.uint64(key_bits(state, second, keys[row]))
    then = np.uint64(mix(own))
    number = np.array([unit_interval(np.uint64(key_bits(own, then, key))) for key in keys[runners]])
    time = -np.log(number) / speed
    order = np.argsort(time, kind="stable")
    first, second_best = order[0], order[1] if order.size > 1 else None
    chosen = salt(graph.seed, graph.step, f"{rule}/layer")
    return Race(
        Draw(f"{rule}/layer", float(uniform(chosen, graph.shard.columns["key"].narrow(0, row, 1)))),
        Draw(f"{rule}/infector", float(number[first])), float(speed[first]), float(time[first]), int(runners.size),
        None if second_best is None else int(keys[runners[second_best]]),
        None if second_best is None else float(time[second_best]),
    )  # fmt: skip


def _drew(row: int, name: str, layer: MixingShard, graph: Neighbours) -> NDArray[np.int64]:
    """Rows of those who drew an agent in this step, once for each time."""
    shard, state = graph.shard, salt(graph.seed, graph.step, f"contacts/{layer.keyed_name}")
    found = []
    for some in torch.arange(shard.num_owned).split(_SENDERS_AT_ONCE):  # type: ignore[no-untyped-call]
        # Everyone sends the own row, so what the agent receives is who drew it.
        drawn = drawn_contacts(layer, graph.tables[name], shard.group, shard.keys, some, some, state)
        found.append(drawn.value[drawn.target == row])
    return torch.cat(found).numpy()
