"""The course of an infection through stages: where it leads, and when.

On entry to a stage an agent draws which stage follows and how many steps it waits: both are state (`next_stage`,
`due`), so a quiet agent costs nothing but a comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gnabm.agents import Agents, Column, Stage, StageName, Stages
from gnabm.errors import DataError, UnknownFieldError, nearest
from gnabm.messages import nonzero_rows
from gnabm.model import State
from gnabm.models.durations import Duration
from gnabm.models.immunity import NUM_AGE_GROUPS, ages
from gnabm.neighbours import Neighbours
from gnabm.parameters import Input
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
        duration: Name of how long the source lasts for those who take this way.
        probability: Name of the probability of this way, or None for what the other ways leave.
    """

    source: StageName
    target: StageName
    duration: str
    probability: str | None = None


class Figures:
    """Learnable figures of a progression; rules that are given the same object share them.

    Args:
        probabilities: By name and ten-year age (9,).
        durations: By name.
        severity: Factor on the probability of the last outcome of an infection.

    Raises:
        DataError: A probability is not in [0, 1], the severity is negative, or a name is one of torch.
    """

    def __init__(
        self, probabilities: Mapping[str, Sequence[float]], durations: Mapping[str, Duration], severity: float = 1.0
    ) -> None:
        for name in (*probabilities, *durations):
            if hasattr(nn.ParameterDict, name) or "." in name:  # names of parameters are attributes of a module
                raise DataError(f"a figure cannot be named {name!r}, which has a meaning in torch; take another word")
        for name, values in probabilities.items():
            if len(values) != NUM_AGE_GROUPS or not all(0 <= v <= 1 for v in values):
                raise DataError(f"probability {name!r} must be {NUM_AGE_GROUPS} numbers in [0, 1], got {list(values)}")
        if not 0 <= severity < float("inf"):
            raise DataError(f"severity must be a finite number >= 0, got {severity}")
        spread = {name: law.sd for name, law in durations.items() if law.sd is not None}
        # In float64, in which the tables of the draws are made.
        self.probabilities = nn.ParameterDict({name: _number(values) for name, values in probabilities.items()})
        self.mean_days = nn.ParameterDict({name: _number(law.mean) for name, law in durations.items()})
        self.sd_days = nn.ParameterDict({name: _number(sd) for name, sd in spread.items()})
        self.severity = _number(severity)


def _number(value: float | Sequence[float]) -> nn.Parameter:
    return nn.Parameter(torch.tensor(value, dtype=torch.float64))


class _Branches(NamedTuple):
    """Probabilities of outcomes and of ways out of the stages, cumulated."""

    first_upto: Tensor
    """(num_age_groups, num_outcomes - 2)."""
    last_share: Tensor
    """(num_age_groups,) of the last outcome, which stands at the upper end."""
    upto: Tensor
    """(num_stages * num_age_groups, num_ways - 1)."""


class _Waits(NamedTuple):
    """Laws of waiting, one after the other."""

    table: Tensor
    """(num_entries,) ascending: the distribution function of law number l stands on (l, l + 1]."""
    starts: Tensor
    """(num_laws + 1,) first entry of each law."""
    scores: Tensor
    """(num_entries, 2) derivatives of the log-probability of each entry in the mean and the standard deviation."""


class _Drawn(NamedTuple):
    """What was drawn for some agents (n,)."""

    outcome: Tensor
    """Number of the first stage."""
    entered: Tensor
    """Stage that they enter."""
    way: Tensor
    """Which way they will leave it."""
    law: Tensor
    """Number of the law of waiting, -1 where the stage does not end."""
    steps: Tensor
    """How long they wait."""


class Progress(Rule):
    r"""Give the newly infected their course, and move those whose stage ends.

    An agent that enters a stage in step t and waits w steps is in it at the starts of steps t + 1, ..., t + w.

    In a run with local scores the probabilities, the severity and the durations have a gradient: each agent notes
    the derivative of the logarithm of the probability of its outcome, its way and its waiting time. A waiting time
    drawn by inverting its distribution function is a step function of the mean and the standard deviation, whose slope
    is 0 almost everywhere; the likelihood of the number of steps, :math:`P(w) = F((w + 1/2) dt) - F((w - 1/2) dt)`, is
    smooth, and knows what a longer stay does across whole steps. A probability that is 0 or 1 has no gradient, since
    what it would change is never drawn. Under an estimator by flags what follows has none, but an agent's stage keeps
    the gradient of its infection.

    Args:
        entry: Stage that an infection moves agents to, and the first stage of the first outcome.
        outcomes: First stages of an infection with the name of their probability. Exactly one has None: what the others
            leave.
        transitions: Ways out of each stage; of the ways out of one stage, one at most has no probability.
        figures: Probabilities and durations by name.
        risk: Name of a state field by which the probability of the last outcome is multiplied, or None for 1.
        name: Name of the rule, to use it among the initial rules too.

    Raises:
        UnknownFieldError: A probability or duration is not among the figures.
        DataError: Probabilities of one age add up to more than 1.
    """

    writes: ClassVar[Mapping[str, Merge]] = {"stage": "exclusive", "due": "sole", "next_stage": "sole"}
    inputs: ClassVar[Mapping[str, Input]] = {
        "probabilities": Input("probability of a course", high=1.0, axis="ten-year age"),
        "mean_days": Input("mean length of a stage", "days"),
        "sd_days": Input("standard deviation of the length of a stage", "days"),
        "severity": Input("factor on the probability of severe disease"),
    }
    reproducibility = "bit"

    def __init__(
        self,
        entry: StageName,
        outcomes: Sequence[tuple[StageName, str | None]],
        transitions: Sequence[Transition],
        figures: Figures,
        risk: str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.entry, self.outcomes, self.risk = entry, tuple(outcomes), risk
        self.family: Stages = entry.family
        self.transitions = tuple(transitions)
        self.probabilities, self.severity = figures.probabilities, figures.severity
        self.mean_days, self.sd_days = figures.mean_days, figures.sd_days
        named = [p for _, p in outcomes] + [t.probability for t in transitions]
        for wanted, known in (
            ([p for p in named if p is not None], self.probabilities),
            ([t.duration for t in transitions], self.mean_days),
        ):
            missing = [name for name in wanted if name not in known]
            if missing:
                raise UnknownFieldError(f"{self.name}: no figure {missing[0]!r}; {nearest(missing[0], known)}")
        self.ways = {s: [t for t in self.transitions if t.source == s] for s in self.family}
        self.first = torch.tensor([int(stage) for stage, _ in outcomes])
        self.targets, self.laws = self._topology()
        self._kept: dict[tuple[float, bytes], tuple[_Branches, _Waits]] = {}
        self._tables(1.0)

    def _topology(self) -> tuple[Tensor, Tensor]:
        """Of the ways out of each stage, flat: targets, and laws of waiting (-1 for none)."""
        size, most = len(self.family), max(map(len, self.ways.values()))
        targets = np.repeat(np.arange(size)[:, None], most, axis=1)
        laws = np.full((size, most), -1)
        for stage, ways in self.ways.items():
            for at, way in enumerate(ways):
                targets[int(stage), at], laws[int(stage), at] = int(way.target), self.transitions.index(way)
        return torch.from_numpy(targets.reshape(-1)), torch.from_numpy(laws.reshape(-1))

    def _branches(self) -> _Branches:
        """The probabilities as they are now; differentiable."""
        given = [None if name is None else _inner(self.probabilities[name]) for _, name in self.outcomes]
        if given[-1] is not None:
            given[-1] = _inner(given[-1] * self.severity)
        shares = _complete(given, "an infection")
        most = self.targets.shape[0] // len(self.family)
        upto = []
        for stage, ways in self.ways.items():
            rows = torch.ones(NUM_AGE_GROUPS, most - 1, dtype=torch.float64)
            if len(ways) > 1:
                chances = [None if w.probability is None else _inner(self.probabilities[w.probability]) for w in ways]
                below = torch.cumsum(_complete(chances, f"stage {stage!r}"), 0)[:-1].T
                rows = torch.cat([below, rows[:, len(ways) - 1 :]], 1)
            upto.append(rows)
        return _Branches(torch.cumsum(shares, 0)[:-2].T.contiguous(), shares[-1], torch.cat(upto))

    def _waits(self, dt: float) -> _Waits:
        """The laws of waiting as they are now; numbers."""
        means, sds = ({n: float(p.detach()) for n, p in part.items()} for part in (self.mean_days, self.sd_days))
        laws = [Duration(means[way.duration], sds.get(way.duration)) for way in self.transitions]
        cdfs = [np.minimum(np.cumsum(law.pmf(dt)), 1.0) for law in laws]
        joined = np.concatenate([cdf + number for number, cdf in enumerate(cdfs)])
        ends = np.cumsum([0, *(cdf.size for cdf in cdfs)])
        scores = np.concatenate([law.score(dt) for law in laws])
        return _Waits(torch.from_numpy(joined), torch.from_numpy(ends), torch.from_numpy(scores))

    def _tables(self, dt: float) -> tuple[_Branches, _Waits]:
        """Tables of the draws, made when a figure has changed."""
        with torch.no_grad():  # draws are hard; the gradient is that of `_likelihood`
            key = dt, b"".join(p.detach().numpy().tobytes() for p in self.parameters())
            found = self._kept.get(key)
            if found is None:
                found = self._branches(), self._waits(dt)
                self._kept = {key: found}
        return found

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
        drawn = self._course(shown, numbers, step)
        if step.weighted:
            step.weigh(self._likelihood(shown, drawn, step.dt), rows=at)
        entered, following, until = self._changes(drawn, step.index)
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
        entered, following, until = self._changes(self._course(shown, numbers, step), step.index)
        return rows, {"stage": Stage(self.family, entered.to(torch.uint8)), "due": until, "next_stage": following}

    def _course(self, agents: Agents, u: Mapping[str, Tensor], step: Step) -> _Drawn:
        """What the uniform numbers (n,) of each stream say for each agent."""
        branches, waits = self._tables(step.dt)
        age = ages(agents)
        risk = None if self.risk is None else getattr(agents, self.risk).detach()  # draws are hard
        outcome = self._outcome(branches, u["outcome"], age, risk)
        entered = torch.where(agents.due == NEVER, self.first.index_select(0, outcome), agents.next_stage.long())
        upto = branches.upto.index_select(0, entered * NUM_AGE_GROUPS + age)
        way = (u["way"].unsqueeze(1) >= upto).sum(1)
        law = self.laws.index_select(0, entered * (upto.shape[1] + 1) + way)
        return _Drawn(outcome, entered, way, law, _wait(waits, law.clamp(min=0), u["wait"]))

    def _changes(self, drawn: _Drawn, now: int) -> tuple[Tensor, Tensor, Tensor]:
        """Stage that each agent enters (n,) int64, the one that follows (n,) uint8, and its step (n,) int32."""
        most = self.targets.shape[0] // len(self.family)
        following = self.targets.index_select(0, drawn.entered * most + drawn.way)
        until = torch.where(drawn.law < 0, NEVER, now + drawn.steps)  # a law below 0: the stage does not end
        return drawn.entered, following.to(torch.uint8), until.to(torch.int32)

    def _outcome(self, branches: _Branches, u: Tensor, age: Tensor, risk: Tensor | None) -> Tensor:
        """Number (n,) of the first stage of an infection; the last outcome is at the upper end of the unit interval."""
        last = branches.last_share.index_select(0, age)
        if risk is not None:
            last = last * risk
        index = (u.unsqueeze(1) >= branches.first_upto.index_select(0, age)).sum(1)
        return torch.where(u >= 1 - last, self.first.shape[0] - 1, index)

    def _likelihood(self, agents: Agents, drawn: _Drawn, dt: float) -> Tensor:
        """(n,) tensor with the gradient of log P(outcome, way, wait) of each agent; see the class."""
        branches, waits = self._branches(), self._tables(dt)[1]
        age = ages(agents)
        ends = branches.upto.index_select(0, drawn.entered * NUM_AGE_GROUPS + age)
        weight = _share(ends, drawn.way).log() + self._of_waits(waits, drawn)
        new = nonzero_rows(agents.due == NEVER)
        age = age.index_select(0, new)
        last = branches.last_share.index_select(0, age)
        if self.risk is not None:
            last = _inner(last * getattr(agents, self.risk).index_select(0, new))
        top = (1 - last).unsqueeze(1)
        ends = torch.minimum(branches.first_upto.index_select(0, age), top)
        if self.first.shape[0] > 1:
            ends = torch.cat([ends, top], 1)
        first = _share(ends, drawn.outcome.index_select(0, new)).log()
        return weight.index_add(0, new, first)

    def _of_waits(self, waits: _Waits, drawn: _Drawn) -> Tensor:
        """(n,) tensor with the gradient of the log-probability of each waiting time; its value says nothing."""
        law = drawn.law.clamp(min=0)
        score = waits.scores.index_select(0, waits.starts.index_select(0, law) + drawn.steps - 1)
        score = score * (drawn.law >= 0).unsqueeze(1)
        zero = torch.zeros((), dtype=torch.float64)
        means = torch.stack([self.mean_days[way.duration] for way in self.transitions])
        sds = torch.stack([self.sd_days.get(way.duration, zero) for way in self.transitions])
        return score[:, 0] * means.index_select(0, law) + score[:, 1] * sds.index_select(0, law)


def _wait(waits: _Waits, law: Tensor, u: Tensor) -> Tensor:
    """Steps (n,) to wait, by inverting the distribution function of each law (n,)."""
    start, end = waits.starts.index_select(0, law), waits.starts.index_select(0, law + 1)
    at = torch.searchsorted(waits.table, u + law, right=True)
    return torch.minimum(torch.maximum(at, start), end - 1) - start + 1


def _share(ends: Tensor, which: Tensor) -> Tensor:
    """Length (n,) of one part (n,) of the unit interval that is cut at some ends (n, k), ascending."""
    edge = ends.new_ones(ends.shape[0], 1)
    cuts = torch.cat([edge - 1, ends, edge], 1)
    at = which.unsqueeze(1)
    return (cuts.gather(1, at + 1) - cuts.gather(1, at)).squeeze(1)


def _inner(p: Tensor) -> Tensor:
    """Probabilities whose gradient is gone where they are 0 or 1: what it would change is never drawn."""
    return torch.where((p > 0) & (p < 1), p, p.detach())


def _complete(shares: Sequence[Tensor | None], where: str) -> Tensor:
    """(num_ways, num_age_groups) probabilities, the one that is None filled up to 1."""
    known = torch.zeros(NUM_AGE_GROUPS, dtype=torch.float64)
    for values in shares:
        if values is not None:
            known = known + values
    if bool((known > 1 + 1e-9).any()):
        raise DataError(
            f"probabilities of {where} add up to more than 1 for some age: {known.tolist()}; lower one of them, or the "
            "severity"
        )
    rest = (1 - known).clamp(min=0)
    return torch.stack([rest if values is None else values for values in shares])


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
