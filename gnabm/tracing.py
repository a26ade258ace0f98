r"""Who infected whom: the recorder in the loop, for runs that ask for it.

A rule with `infects` makes infections: the agents whose `stage` it changes. Its hazard is its one sum over
neighbours, :math:`h_i = \sum_l v_l \sum_{j \to i} w^l_{ji} x_j`. Given that i was infected, it was through layer l with
probability :math:`v_l h_{il} / h_i`, and then by j with probability :math:`w^l_{ji} x_j / h_{il}`: whatever the rule
makes of the hazard, the contacts had these shares in it. The layer is drawn by a uniform keyed by the agent, the
infector by a race keyed by the pair (`gnabm.race`), both of streams of the rule, so the list has the same bits on any
shards and threads and a run that records it is the run that does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import torch
from torch import Tensor

from gnabm.agents import Stage
from gnabm.errors import ConfigError, ConflictError, DataError, ShapeError
from gnabm.linelist import Batch, Legend
from gnabm.merge import Change
from gnabm.messages import nonzero_rows
from gnabm.model import Model
from gnabm.neighbours import Asked, NeighbourLayer, Neighbours, Sent
from gnabm.race import NOBODY, Senders, entries_of
from gnabm.random import salt, uniform
from gnabm.rule import Rule, Step
from gnabm.shard import EdgeShard, MixingShard, PlaceShard, Shard

_STREAMS = ("layer", "infector")


@dataclass(frozen=True, eq=False)
class _Noted:
    """Infections that one rule made in one step: owned rows, keys of the infectors, codes of the layers."""

    step: int
    rows: Tensor
    infector: Tensor
    code: Tensor


class Tracer:
    """Notes the infections of a shard as they happen.

    Args:
        shard: The shard; its keys are exchanged once, so all shards make their tracers together.
        dt: Length of a step in days.
        start: Date of step 0, or None.

    Raises:
        ConfigError: A layer has no single contacts.
    """

    def __init__(self, shard: Shard, dt: float, start: date | None) -> None:
        for name, layer in shard.layers.items():
            if isinstance(layer, MixingShard) and layer.layer.expected:
                raise ConfigError(
                    f"layer {name!r} is the expected form of its contacts, in which nobody meets anybody, so nobody "
                    "can be named as the infector; draw the contacts (run.mixing: drawn), or do not record infections"
                )
        self.shard, self.dt, self.start = shard, dt, start
        self.key = shard.columns["key"]
        self.source_key = shard.halo.dense(shard.group, self.key)
        self.first_owned = shard.halo.first[shard.group.rank]
        self.names = list(shard.layers)
        self.noted: list[_Noted] = []

    def expect(self, model: Model) -> None:
        """Take note of a model whose infections will be told.

        Raises:
            ConfigError: No rule of it infects, or one that does leaves the stage alone.
        """
        rules = [rule for rule in (*model.initial, *model.rules()) if rule.infects]
        if not rules:
            raise ConfigError(
                f"{model.name} has no rule that infects, so there are no infections to record; set `infects = True` on "
                "the rules that make them, or leave record.infections out"
            )
        for rule in rules:
            if "stage" not in rule.writes:
                raise ConfigError(
                    f"rule {rule.name!r} says that it infects but does not write `stage`, by which the infected are "
                    "known; add it to its writes, or leave `infects` out"
                )
            if rule.name not in self.names:
                self.names.append(rule.name)

    @property
    def legend(self) -> Legend:
        """What the codes of the records mean."""
        field = self.shard.fields.get("region")
        regions = field.categories if field is not None and "region" in self.shard.columns else None
        return Legend(tuple(self.names), regions, self.dt, self.start)

    def note(self, rule: Rule, step: Step, change: Change | None, contacts: Neighbours) -> None:
        """Note the infections that a rule made.

        Args:
            rule: The rule.
            step: The step as the rule saw it.
            change: What it made of the stage, or None.
            contacts: The graph that it was shown, with the sums that it asked for.

        Raises:
            ConflictError: Which sum is the hazard is not clear, or the rule draws from a stream of this recorder.
            ShapeError: What was sent is no single value per agent.
        """
        hazard = _hazard(rule, contacts.asked or [])
        taken = sorted(step.used & set(_STREAMS))
        if taken:
            raise ConflictError(
                f"rule {rule.name!r} draws from its stream {taken[0]!r}, by which its infections are told apart when "
                "they are recorded; give that draw another name="
            )
        rows = _changed_rows(change)
        infector = torch.full(rows.shape, NOBODY, dtype=torch.int64)
        code = torch.full(rows.shape, self.names.index(rule.name), dtype=torch.int16)
        if hazard is not None and rows.numel():
            self._trace(rule, contacts, hazard, rows, infector, code)
        if rows.numel():
            self.noted.append(_Noted(step.index, rows, infector, code))

    def _trace(
        self, rule: Rule, contacts: Neighbours, hazard: Asked, rows: Tensor, infector: Tensor, code: Tensor
    ) -> None:
        """Fill in layer and infector of the rows, which were infected by their contacts."""
        keys = self.key.index_select(0, rows)
        sent = contacts.send(hazard.x)
        seen = rows if contacts.rows is None else torch.searchsorted(contacts.rows, rows)
        parts, senders = [], []
        for name in self.shard.layers:
            layer_sum, found = self._layer(contacts[name], sent, rows)
            factor = hazard.weights.get(name, 1.0)
            if isinstance(factor, Tensor) and factor.dim() > 0:  # one per row that the rule saw
                factor = factor.index_select(0, seen)
            parts.append((layer_sum * factor).to(torch.float64))
            senders.append(found)
        chosen = _choose(parts, uniform(salt(contacts.seed, contacts.step, f"{rule.name}/layer"), keys))
        state = salt(contacts.seed, contacts.step, f"{rule.name}/infector")
        for number, found in enumerate(senders):
            at = nonzero_rows(chosen == number)
            if at.numel():
                infector[at] = found.take(at).winners(state, keys.index_select(0, at))
                code[at] = number

    def _layer(self, contacts: NeighbourLayer, sent: Sent, rows: Tensor) -> tuple[Tensor, Senders]:
        """What some rows received through a layer, and from whom."""
        layer = self.shard.layers[contacts.name]
        match layer:
            case EdgeShard():
                found = Senders(
                    layer.indptr.index_select(0, rows), layer.indptr.index_select(0, rows + 1), layer.source,
                    self._values(sent), self.source_key, entry_weight=layer.weight,
                )  # fmt: skip
                return found.sums(), found
            case PlaceShard():
                place = layer.place.index_select(0, rows).to(torch.int64)
                at = place.clamp(min=0)  # agents without a place receive nothing here and so are never asked
                found = Senders(
                    layer.indptr.index_select(0, at), layer.indptr.index_select(0, at + 1), layer.member,
                    self._values(sent), self.source_key, sender_weight=layer.activity,
                    itself=rows + self.first_owned,
                )  # fmt: skip
                return contacts.graph.only(rows)[contacts.name].received(sent), found
            case MixingShard():
                drawn = contacts.drawn(layer, sent)
                first, at = entries_of(rows, drawn.target, drawn.value, self.shard.num_owned)
                assert drawn.sender is not None
                found = Senders(
                    first[:-1], first[1:], torch.arange(at.shape[0], dtype=torch.int32),
                    drawn.value.index_select(0, at), drawn.sender.index_select(0, at),
                )  # fmt: skip
                return found.sums() if self.dt == 1.0 else found.sums() / self.dt, found

    def _values(self, sent: Sent) -> Tensor:
        """(num_sources,) what every source sent; from what the sums have exchanged already."""
        if not sent.push or self.shard.group.size == 1:
            return sent.dense
        if sent.scattered is None:
            active, value = sent.active
            sent.scattered = torch.zeros(self.source_key.shape[0], dtype=value.dtype)
            sent.scattered[active] = value
        return sent.scattered

    def take(self, until: int) -> Batch:
        """Hand over the records of the steps before `until`, in the order in which they were noted.

        Args:
            until: The first step whose records are kept back.
        """
        told = [noted for noted in self.noted if noted.step < until]
        self.noted = [noted for noted in self.noted if noted.step >= until]
        none = torch.empty(0, dtype=torch.int64)
        rows = torch.cat([none, *(noted.rows for noted in told)])
        infector = torch.cat([none, *(noted.infector for noted in told)])
        code = torch.cat([none.to(torch.int16), *(noted.code for noted in told)])
        number = [noted.rows.shape[0] for noted in told]
        steps = np.repeat(np.array([noted.step for noted in told], dtype=np.int32), number)
        batch = {
            "agent": self.key.index_select(0, rows).numpy(),
            "step": steps,
            "infector": infector.numpy(),
            "layer": code.numpy(),
        }
        if self.legend.regions is not None:
            batch["region"] = self.shard.columns["region"].index_select(0, rows).to(torch.int16).numpy()
        if "age" in self.shard.columns:
            batch["age"] = self.shard.columns["age"].index_select(0, rows).numpy()
        return batch


def _changed_rows(change: Change | None) -> Tensor:
    """(n,) int64 owned rows whose stage a rule changed."""
    if change is None:
        return torch.empty(0, dtype=torch.int64)
    assert isinstance(change.value, Stage)
    assert isinstance(change.before, Stage)
    at = nonzero_rows(change.value.codes != change.before.codes)
    return at if change.rows is None else change.rows.index_select(0, at)


def _hazard(rule: Rule, asked: Sequence[Asked]) -> Asked | None:
    """The sum that is the hazard of a rule, or None when it infects without contacts."""
    if not asked:
        return None
    if len(asked) > 1 or asked[0].layer is not None:
        how = f"{len(asked)} sums over neighbours" if len(asked) > 1 else f"the layer {asked[0].layer!r} alone"
        raise ConflictError(
            f"rule {rule.name!r} infects by {how}, so which contacts made its hazard is not known; ask once for "
            "contacts.sum_neighbours(x, {layer: weight}), with weight 0 for layers that do not count, and split a rule "
            "that has several hazards"
        )
    if asked[0].x.dim() != 1:
        raise ShapeError(
            f"rule {rule.name!r} sends {tuple(asked[0].x.shape)} values; infections are traced through one value per "
            "agent, so send what transmits as (num_agents,)"
        )
    return asked[0]


def _choose(parts: Sequence[Tensor], u: Tensor) -> Tensor:
    """Draw one part for each row, with probability proportional to its value.

    Args:
        parts: Values (n,) float64, >= 0.
        u: (n,) uniform numbers.

    Returns:
        (n,) int64 part; -1 where all are 0, which means that the infection did not come from contacts.
    """
    total = torch.zeros_like(u)
    upto = []
    for part in parts:
        if bool((part < 0).any()):
            raise DataError("a hazard below 0 has no shares; send and weigh by numbers >= 0 to record infections")
        total = total + part
        upto.append(total)
    chosen = torch.full(u.shape, -1, dtype=torch.int64)
    # Backwards, so that the first part whose cumulative share exceeds u stands; u < 1 may round to the total, which
    # the last part that has a share then takes.
    for number in reversed(range(len(parts))):
        has = parts[number] > 0
        chosen = torch.where(has & ((upto[number] > u * total) | (chosen < 0)), number, chosen)
    return chosen
