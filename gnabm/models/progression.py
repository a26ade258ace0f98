"""The course of an infection through stages: where it leads, and when.

On entry to a stage an agent draws which stage follows and how many steps it waits: both are state (`next_stage`,
`due`), so a quiet agent costs nothing but a comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from gnabm.agents import Agents, Column, Stage, StageName, Stages
from gnabm.errors import DataError
from gnabm.messages import nonzero_rows
from gnabm.model import State
from gnabm.models.durations import Duration
from gnabm.models.immunity import NUM_AGE_GROUPS, ages
from gnabm.neighbours import Neighbours
from gnabm.random import uniform
from gnabm.rule import Merge, Rule, Step
from gnabm.scan import due_rows

NEVER = 2**31 - 1
"""`due` of those whose stage does not end."""
_STREAMS = ("outcome", "way", "wait")

STATE = {
    "due": State(NEVER, torch.int32, "step at which the stage ends", "step"),
    "next_stage": State(0, torch.uint8, "code of the stage that follows"),
}
"""State fields of a progression."""


@dataclass(frozen=True)
class Transition:
    """One way out of a stage.

    Args:
        source: Stage that is left.
        target: Stage that follows.
        duration: How long the source lasts for those who take this way.
        probability: Of this way by ten-year age (9,), or None for what the other ways leave.
    """

    source: StageName
    target: StageName
    duration: Duration
    probability: Sequence[float] | None = None


class Progress(Rule):
    """Give the newly infected their course, and move those whose stage ends.

    An agent that enters a stage in step t and waits w steps is in it at the starts of steps t + 1, ..., t + w. Which
    stage follows, and when, has no gradient; an agent's stage keeps the gradient of its infection.

    Args:
        entry: Stage that an infection moves agents to, and the first stage of the first outcome.
        outcomes: First stages of an infection with their probability by ten-year age (9,). Exactly one has None: what
            the others leave.
        transitions: Ways out of each stage; of the ways out of one stage, one at most has no probability.
        risk: Name of a state field by which the probability of the last outcome is multiplied, or None for 1.
        name: Name of the rule, to use it among the initial rules too.

    Raises:
        DataError: Probabilities of one age add up to more than 1.
    """

    writes: ClassVar[Mapping[str, Merge]] = {"stage": "exclusive", "due": "sole", "next_stage": "sole"}
    reproducibility = "bit"

    def __init__(
        self,
        entry: StageName,
        outcomes: Sequence[tuple[StageName, Sequence[float] | None]],
        transitions: Sequence[Transition],
        risk: str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.entry, self.outcomes, self.risk = entry, tuple(outcomes), risk
        self.family: Stages = entry.family
        self.transitions = tuple(transitions)
        shares = _complete([p for _, p in outcomes], "an infection")
        self.first = torch.tensor([int(stage) for stage, _ in outcomes])
        self.first_upto = torch.from_numpy(np.cumsum(shares, axis=0)[:-2].T.copy())
        self.last_share = torch.from_numpy(shares[-1])
        self.upto, self.targets, self.laws = self._branches()
        self._waits: dict[float, tuple[Tensor, Tensor]] = {}

    def _branches(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of the ways out of each stage: probabilities cumulated by age, targets, and laws of waiting (-1 for none)."""
        size = len(self.family)
        most = max(sum(t.source == s for t in self.transitions) for s in self.family)
        upto = np.ones((size, NUM_AGE_GROUPS, most - 1))
        targets = np.repeat(np.arange(size)[:, None], most, axis=1)
        laws = np.full((size, most), -1)
        for stage in self.family:
            ways = [(law, way) for law, way in enumerate(self.transitions) if way.source == stage]
            if not ways:
                continue
            shares = _complete([way.probability for _, way in ways], f"stage {stage!r}")
            upto[int(stage), :, : len(ways) - 1] = np.cumsum(shares, axis=0)[:-1].T
            for at, (law, way) in enumerate(ways):
                targets[int(stage), at], laws[int(stage), at] = int(way.target), law
        return (
            torch.from_numpy(upto.reshape(-1, most - 1)),
            torch.from_numpy(targets.reshape(-1)),
            torch.from_numpy(laws.reshape(-1)),
        )

    def where(self, agents: Agents) -> Tensor:
        """Those whose stage will end, and the newly infected."""
        found: Tensor = (agents.due != NEVER) | (agents.stage.codes == int(self.entry))
        return found

    def forward(self, agents: Agents, contacts: Neighbours, step: Step) -> Mapping[str, Column]:
        """Move them, and draw what follows."""
        stage, due = agents.stage, agents.due
        at = nonzero_rows(((stage.codes == int(self.entry)) & (due == NEVER)) | (due == step.index))
        numbers = {name: step.uniform(name).index_select(0, at) for name in _STREAMS}
        shown = agents.everyone.only(at if agents.rows is None else agents.rows.index_select(0, at))
        entered, following, until = self._course(shown, numbers, step)
        return {
            "stage": _entered(stage, at, entered),
            "due": due.index_copy(0, at, until),
            "next_stage": agents.next_stage.index_copy(0, at, following),
        }

    def fused(self, agents: Agents, contacts: Neighbours, step: Step) -> tuple[Tensor, Mapping[str, Column]]:
        """Move them, and draw what follows, having walked the agents once."""
        stage: Stage = agents.stage
        rows = due_rows(stage.codes, self.entry, agents.due, NEVER, step.index)
        shown = agents.only(rows)
        numbers = {name: uniform(step.stream(name), shown.key) for name in _STREAMS}
        entered, following, until = self._course(shown, numbers, step)
        return rows, {"stage": Stage(self.family, entered.to(torch.uint8)), "due": until, "next_stage": following}

    def _course(self, agents: Agents, u: Mapping[str, Tensor], step: Step) -> tuple[Tensor, Tensor, Tensor]:
        """Stage that each agent enters (n,) int64, the one that follows (n,) uint8, and its step (n,) int32."""
        age = ages(agents)
        risk = None if self.risk is None else getattr(agents, self.risk).detach()  # an outcome has no gradient
        first = self._outcome(u["outcome"], age, risk)
        entered = torch.where(agents.due == NEVER, first, agents.next_stage.long())
        upto = self.upto.index_select(0, entered * NUM_AGE_GROUPS + age)
        way = (u["way"].unsqueeze(1) >= upto).sum(1)
        way = entered * (upto.shape[1] + 1) + way  # its place in the flat tables
        following, law = self.targets.index_select(0, way), self.laws.index_select(0, way)
        until = step.index + self._wait(law.clamp(min=0), u["wait"], step.dt)
        until = torch.where(law < 0, NEVER, until)  # a law below 0: the stage does not end
        return entered, following.to(torch.uint8), until.to(torch.int32)

    def _outcome(self, u: Tensor, age: Tensor, risk: Tensor | None) -> Tensor:
        """First stage (n,) of an infection; the last outcome's share is at the upper end of the unit interval."""
        last = self.last_share.index_select(0, age)
        if risk is not None:
            last = last * risk
        index = (u.unsqueeze(1) >= self.first_upto.index_select(0, age)).sum(1)
        return self.first.index_select(0, torch.where(u >= 1 - last, self.first.shape[0] - 1, index))

    def _wait(self, law: Tensor, u: Tensor, dt: float) -> Tensor:
        """Steps (n,) to wait, by inverting the distribution function of each law (n,)."""
        if dt not in self._waits:
            cdfs = [np.minimum(np.cumsum(t.duration.pmf(dt)), 1.0) for t in self.transitions]
            # One ascending table: the function of law number l stands on (l, l + 1].
            joined = np.concatenate([cdf + number for number, cdf in enumerate(cdfs)])
            ends = np.cumsum([0, *(cdf.size for cdf in cdfs)])
            self._waits[dt] = torch.from_numpy(joined), torch.from_numpy(ends)
        table, starts = self._waits[dt]
        start, end = starts.index_select(0, law), starts.index_select(0, law + 1)
        at = torch.searchsorted(table, u + law, right=True)
        return torch.minimum(torch.maximum(at, start), end - 1) - start + 1


def _complete(shares: Sequence[Sequence[float] | None], where: str) -> np.ndarray:
    """(num_ways, num_age_groups) probabilities, the one that is None filled up to 1."""
    given = [None if s is None else np.asarray(s, dtype=np.float64) for s in shares]
    known = np.zeros(NUM_AGE_GROUPS)
    for values in given:
        if values is not None:
            if values.shape != (NUM_AGE_GROUPS,) or not ((values >= 0) & (values <= 1)).all():
                raise DataError(f"probabilities of {where} must be {NUM_AGE_GROUPS} numbers in [0, 1], got {values}")
            known = known + values
    if (known > 1 + 1e-9).any():
        raise DataError(f"probabilities of {where} add up to more than 1 for some age: {known.tolist()}")
    rest = np.maximum(1 - known, 0.0)
    return np.stack([rest if values is None else values for values in given])


def _entered(stage: Stage, at: Tensor, target: Tensor) -> Stage:
    """The stage with some rows (m,) moved to others (m,); a flag moves with its gradient."""
    codes = stage.codes.index_copy(0, at, target.to(torch.uint8))
    if stage.flags is None:
        return Stage(stage.family, codes)
    eye = torch.eye(len(stage.family), dtype=stage.flags.dtype)
    old = stage.codes.index_select(0, at).long()
    held = stage.flags.index_select(0, at).gather(1, old.unsqueeze(1))
    moved = held * (eye.index_select(0, target) - eye.index_select(0, old))
    return Stage(stage.family, codes, stage.flags.index_add(0, at, moved))
