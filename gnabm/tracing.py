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

import numba
import numpy as np
import torch
from torch import Tensor

from gnabm.agents import Stage
from gnabm.errors import ConfigError, ConflictError, DataError, ShapeError
from gnabm.infectors import Infectors, SourceKeys
from gnabm.linelist import Batch, Legend
from gnabm.merge import Change
from gnabm.messages import nonzero_rows
from gnabm.model import Model
from gnabm.neighbours import Asked, Neighbours
from gnabm.order import group_rows
from gnabm.race import NOBODY
from gnabm.random import salt, uniform
from gnabm.rule import Rule, Step
from gnabm.shard import MixingShard, Shard

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
        self.source_keys = SourceKeys(shard)
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
        keys = self.shard.keys.take(rows)
        # Most layers send the same, of which the senders are looked up once.
        once = {id(sent): Infectors(self.source_keys, contacts, sent, rows) for sent in hazard.sent.values()}
        infectors = {name: once[id(sent)] for name, sent in hazard.sent.items()}
        parts = torch.zeros(len(self.shard.layers), rows.shape[0], dtype=torch.float64)
        for part, name in zip(parts, self.shard.layers, strict=True):
            factor = hazard.weights.get(name, 1.0)
            if isinstance(factor, Tensor) and factor.dim() > 0:  # one per row that the rule saw
                factor = factor.index_select(0, _seen(contacts.rows, rows))
            elif factor == 0:
                continue
            part.copy_(infectors[name].received(name) * factor)
        chosen = _choose(parts, uniform(salt(contacts.seed, contacts.step, f"{rule.name}/layer"), keys))
        state = salt(contacts.seed, contacts.step, f"{rule.name}/infector")
        first, order = group_rows(chosen, len(self.shard.layers))
        chosen_rows = order.split(first.diff().tolist())  # type: ignore[no-untyped-call]
        for number, (name, at) in enumerate(zip(self.shard.layers, chosen_rows, strict=True)):
            if at.numel():
                infector[at] = infectors[name].winners(name, at, state, keys.index_select(0, at))
                code[at] = number

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
            "agent": self.shard.keys.take(rows).numpy(),
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


def _seen(shown: Tensor | None, rows: Tensor) -> Tensor:
    """(n,) places of rows among those that a rule was shown."""
    return rows if shown is None else torch.searchsorted(shown, rows)


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
    wide = [sent for sent in asked[0].sent.values() if sent.dim != 1]
    if wide:
        raise ShapeError(
            f"rule {rule.name!r} sends {tuple(wide[0].x.shape)} values; infections are traced through one value "
            "per agent, so send what transmits as (num_agents,)"
        )
    return asked[0]


def _choose(parts: Tensor, u: Tensor) -> Tensor:
    """Draw one part for each row, with probability proportional to its value.

    Args:
        parts: (num_parts, n) float64 values, >= 0.
        u: (n,) uniform numbers.

    Returns:
        (n,) int64 part; -1 where all are 0, which means that the infection did not come from contacts.
    """
    chosen = torch.empty(u.shape, dtype=torch.int64)
    if not _choose_parts(parts.numpy(), u.numpy(), chosen.numpy()):
        raise DataError("a hazard below 0 has no shares; send and weigh by numbers >= 0 to record infections")
    return chosen


@numba.njit(cache=True, nogil=True)
def _choose_parts(parts, u, chosen):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for k in range(u.size):
        total, last = 0.0, -1
        for number in range(parts.shape[0]):
            if parts[number, k] < 0:
                return False
            if parts[number, k] > 0:
                last = number
            total += parts[number, k]
        chosen[k], upto = last, 0.0
        # The first part whose cumulative share exceeds u; u < 1 may round to the total, which the last one then takes.
        for number in range(last):
            upto += parts[number, k]
            if parts[number, k] > 0 and upto > u[k] * total:
                chosen[k] = number
                break
    return True
