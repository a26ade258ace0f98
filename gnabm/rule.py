"""Rules: how agents change in a step.

A rule is a torch module `(agents, contacts, step) -> changes`. It reads the state at the start of its phase and
returns new values (or increments) of the fields that it declares in `writes`; `simulate` merges them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from gnabm.agents import Agents, Column, Stage, StageName
from gnabm.errors import ConfigError, ConflictError, ShapeError
from gnabm.exchange import ShardGroup, total
from gnabm.messages import nonzero_rows
from gnabm.neighbours import Neighbours
from gnabm.parameters import Input
from gnabm.random import bernoulli, salt, uniform
from gnabm.sampling import Estimator, Hard, gradient_only, log_likelihood, weighed, zero_where
from gnabm.scan import event_rows

Merge = Literal["sole", "exclusive", "adds"]
"""How a rule writes a field: alone, for agents that no other rule changes in that step, or as an increment."""

Reproducibility = Literal["bit", "statistical", "unchecked"]
"""Whether a rule's result has the same bits on any shards and threads; `gnabm.testing` tells which it is."""


class Rule(nn.Module):
    """What a modeller subclasses.

    `writes` names the fields that `forward` may return and how they merge with other rules' writes. The default
    fits rules that move agents between stages. `name` (the class name unless set) keys the rule's draws. `inputs` says
    what its learnable attributes (`nn.Parameter`) are. Set
    `reproducibility` to what `gnabm.testing.RuleConformance` found; a run's record carries it.

    A rule with `infects` makes infections: the agents whose stage it changes. Its one `contacts.sum_neighbours(x,
    weights)` is their hazard, up to a factor: a run that records infections tells from it who infected whom, so a
    hazard that does not come from contacts belongs into a rule of its own. A rule that infects without that sum brings
    infections from outside.
    """

    writes: ClassVar[Mapping[str, Merge]] = {"stage": "exclusive"}
    inputs: ClassVar[Mapping[str, Input]] = {}
    reproducibility: ClassVar[Reproducibility] = "unchecked"
    infects: ClassVar[bool] = False

    def __init__(self, name: str | None = None) -> None:
        super().__init__()
        self.name = name or type(self).__name__

    def where(self, agents: Agents) -> Tensor | None:
        """Who can change: (num_agents,) flags, or None for everyone.

        `forward` is called with only those rows (`agents.everyone` still has all, and messages are sent from there).
        Under an estimator by flags (`straight-through`, `gumbel`, `smoothed`) it is called with all rows instead, and
        what it returns is masked.
        """
        return None

    def forward(self, agents: Agents, contacts: Neighbours, step: Step) -> Mapping[str, Column]:
        """Return the changed fields, one value per row of `agents`.

        Args:
            agents: State at the start of the phase.
            contacts: The contact graph.
            step: Time, keyed draws, totals.
        """
        raise NotImplementedError(f"{type(self).__name__}.forward must return the fields that it changes")

    def fused(self, agents: Agents, contacts: Neighbours, step: Step) -> tuple[Tensor, Mapping[str, Column]] | None:
        """The same as `where` and `forward` by a kernel of its own, in a forward run with `messages="auto"`.

        Args:
            agents: Everyone, at the start of the phase.
            contacts: The contact graph.
            step: Time, keyed draws, totals.

        Returns:
            The rows that change (n,) int64, each once and ascending, and their new values (n, ...); None where there is
            no such kernel, and `forward` is called. The state is read, never written.

            Every shard makes the same collectives in the same order (`step.total`, messages), so whether None is
            returned may follow only from what all shards know alike, such as parameters and dtypes, never from a
            shard's own rows. A bad value in those is an error, which ends the run on every shard.
        """
        return None

    @property
    def has_kernel(self) -> bool:
        """Whether `fused` stands for `forward`: not where anything but constants was overridden or hooked since."""
        return type(self).fused is not Rule.fused and stands(self, "fused")


def stands(module: nn.Module, shortcut: str) -> bool:
    """Whether a method still says in another form what the whole module computes.

    Args:
        module: A rule, or a module that a rule calls.
        shortcut: Name of the method, such as `fused`.

    Returns:
        False where there is no such method; where a subclass of the class that defines it, or another base, has a
        method besides `__init__`, for then `forward` may have changed without the shortcut; where a method was set on
        the instance; and where a hook looks on.
    """
    kinds = type(module).__mro__
    author = next((kind for kind in kinds if shortcut in vars(kind)), None)
    if author is None:
        return False
    others = [kind for kind in kinds if not issubclass(author, kind)]
    overridden = any(_is_method(name, value) for kind in others for name, value in vars(kind).items())
    replaced = any(callable(getattr(type(module), name, None)) for name in vars(module))
    hooked = any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    return not (overridden or replaced or hooked)


def _is_method(name: str, value: object) -> bool:
    # Python's own entries of a plain class are descriptors too.
    return name not in ("__init__", "__dict__", "__weakref__") and (callable(value) or hasattr(value, "__get__"))


@dataclass(eq=False)
class Step:
    """One step as one rule sees it: its time, its draws, yesterday's observables.

    Args:
        index: 0, 1, ...; -1 while the initial state is made.
        dt: Length in days.
        seed: Seed of the run.
        observed: Observables at the end of the previous step, by name.
        start: Date and time of step 0, or None.
        rule: Name of the rule, the first half of its streams.
        agents: The rows that the rule sees; their keys key the draws.
        estimator: Gradient of the draws.
        group: The shards.
        weights: (num_agents,) weight of everyone, 1 in value, in a run whose draws note their likelihood; else None.
    """

    index: int
    dt: float
    seed: int
    observed: Mapping[str, Tensor]
    start: datetime | None
    rule: str
    agents: Agents
    estimator: Estimator
    group: ShardGroup
    weights: Tensor | None = None
    used: set[str] = field(default_factory=set)
    noted: list[tuple[Tensor | None, Tensor]] = field(default_factory=list)
    chance: Tensor | None = None  # (num_rows,) of the last event that was drawn in a run with weights

    @property
    def weighted(self) -> bool:
        """Whether draws note their likelihood, so that `weigh` has an effect."""
        return self.weights is not None

    def weigh(self, log_likelihood: Tensor, rows: Tensor | None = None) -> None:
        """Note the likelihood of something that was drawn by a stream of the rule's own; `bernoulli` does so itself.

        Args:
            log_likelihood: (n,) tensor whose gradient is that of log P(what was drawn); its value is ignored.
            rows: (n,) int64 positions among the rows that the rule sees, or None for all of them.

        Raises:
            ShapeError: There is not one number for each of the rows.
        """
        if self.weights is None:
            return
        expected = (self.agents.num_agents,) if rows is None else (rows.numel(),)
        if log_likelihood.shape != expected:
            raise ShapeError(
                f"{self.rule}: step.weigh expected {expected} log-likelihoods, one for each row, got "
                f"{tuple(log_likelihood.shape)}; do not sum them, and pass rows= where not all drew"
            )
        score = gradient_only(log_likelihood)
        at = self.agents.rows
        if rows is not None:
            at = rows if at is None else at.index_select(0, rows)
        self.noted.append((at, score))

    @property
    def date(self) -> datetime:
        """Date and time at the start of the step."""
        if self.start is None:
            raise ConfigError("this run has no calendar; give simulate(..., start=...) or run.start in the config")
        return self.start + timedelta(days=self.dt * self.index)

    @property
    def weekday(self) -> int:
        """Day of the week, 0 = Monday."""
        return self.date.weekday()

    def stream(self, name: str) -> int:
        """Salt of a stream of the rule in this step; each can be taken once.

        Args:
            name: Name of the stream within the rule.

        Raises:
            ConflictError: The rule took it before.
        """
        if name in self.used:
            raise ConflictError(
                f"rule {self.rule!r} draws twice from its stream {name!r} in one step; give one of them another name="
            )
        self.used.add(name)
        return salt(self.seed, self.index, f"{self.rule}/{name}")

    def bernoulli(self, p: Tensor, where: Tensor | None = None, name: str = "bernoulli") -> Tensor:
        """Draw for each row whether an event of probability p happens, keyed by agent.

        Args:
            p: (num_rows,) or () probability of the event in this step.
            where: (num_rows,) flags of the agents that can have the event, or None for all.
            name: Stream of the draw within the rule.

        Returns:
            (num_rows,) bool; under an estimator by flags (`straight-through`, `gumbel`, `smoothed`) float flags that
            carry its gradient.

        Raises:
            ConflictError: The rule used this name before in this step.
            DataError: A probability is NaN or outside [0, 1].
        """
        num_rows = self.agents.num_agents
        if p.dim() == 0:
            p = p.expand(num_rows)
        if p.shape != (num_rows,):
            raise ShapeError(f"{self.rule}: expected ({num_rows},) probabilities, got {tuple(p.shape)}")
        state = self.stream(name)
        if self.estimator.flags:
            drawn = self.estimator(state, self.agents.key, p)
            if where is None:
                return drawn
            masked = drawn * where
            # For Stage.move, which knows whose stage `where` stands for; whether it holds has no gradient.
            masked.draw = (drawn, where.detach() != 0)  # type: ignore[attr-defined]
            return masked
        if where is not None:
            p = zero_where(where, p)
        happened = self._happened(state, p)
        if self.weighted:
            self.noted.append((self.agents.rows, log_likelihood(p, happened)))
            self.chance = p.detach()  # a number: what it owes to parameters was noted
        return happened

    def _happened(self, state: int, p: Tensor) -> Tensor:
        """(num_rows,) bool, drawn for those with a probability (num_rows,) only."""
        if isinstance(self.estimator, Hard):
            return bernoulli(state, self.agents.keys, p, self.agents.rows)
        p = p.detach()  # what was drawn is no differentiable question
        at = nonzero_rows(p)
        happened = torch.zeros(p.shape, dtype=torch.bool)
        happened[at] = self.estimator(state, self.agents.key.index_select(0, at), p.index_select(0, at))
        return happened

    def uniform(self, name: str = "uniform") -> Tensor:
        """Draw a uniform number in (0, 1) for each row, keyed by agent.

        Args:
            name: Stream of the draw within the rule.

        Returns:
            (num_rows,) float64, without gradient.
        """
        return uniform(self.stream(name), self.agents.key)

    def total(self, x: Tensor, index: Tensor | None = None, num_bins: int = 1) -> Tensor:
        """Sum over all agents of all shards, the same bits on any number of shards.

        Args:
            x: (num_agents,) values of everyone.
            index: (num_agents,) int32 or int64 bin of each agent, or None for one sum.
            num_bins: Number of bins.

        Returns:
            () or (num_bins,); int64 for bool and integers in a forward run, else float64. So convert it with
            `.to(torch.float64)` before further arithmetic. Differentiable in x and in who is there to be counted.
        """
        return total(self.group, x if self.weights is None else weighed(x, self.weights), index, num_bins)


class SeedAtRandom(Rule):
    """Initial state: move each agent from one stage to another with a given probability.

    Args:
        source: Stage to leave, such as S.
        target: Stage to enter, such as I.
        share: Probability, within [0, 1].
        name: Name of the rule, to seed more than once.
    """

    inputs = {"share": Input("probability that an agent starts infected", high=1.0)}  # noqa: RUF012
    reproducibility = "bit"
    infects = True

    def __init__(self, source: StageName, target: StageName, share: float, name: str | None = None) -> None:
        super().__init__(name)
        if not 0 <= share <= 1:
            raise ConfigError(f"initial share must lie in [0, 1], got {share}; it is a share of agents, not a count")
        self.source, self.target = source, target
        self.share = nn.Parameter(torch.tensor(float(share)))

    def forward(self, agents: Agents, contacts: Neighbours, step: Step) -> Mapping[str, Column]:
        """Move them."""
        return {"stage": agents.stage.move(self.source, self.target, step.bernoulli(self.share))}

    def fused(self, agents: Agents, contacts: Neighbours, step: Step) -> tuple[Tensor, Mapping[str, Column]]:
        """Move them, drawing only for those in the source stage."""
        stage: Stage = agents.stage
        rows = event_rows(step.stream("bernoulli"), agents.keys, stage.codes, self.source, self.share)
        return rows, {"stage": stage.all_in(self.target, rows)}


class SeedAgents(Rule):
    """Initial state: move the agents with the given keys from one stage to another.

    Args:
        source: Stage to leave.
        target: Stage to enter.
        keys: Keys of the agents.
        name: Name of the rule, to seed more than once.
    """

    reproducibility = "bit"
    infects = True

    def __init__(self, source: StageName, target: StageName, keys: list[int], name: str | None = None) -> None:
        super().__init__(name)
        self.source, self.target = source, target
        self.seeds = torch.tensor(sorted({int(k) for k in keys}), dtype=torch.int64)

    def forward(self, agents: Agents, contacts: Neighbours, step: Step) -> Mapping[str, Column]:
        """Move them."""
        chosen = torch.isin(agents.key, self.seeds)
        if int(step.total(chosen)) != self.seeds.shape[0]:
            raise ConfigError(f"initial keys {self.seeds.tolist()[:5]}... are not all agents of this population")
        return {"stage": agents.stage.move(self.source, self.target, chosen)}
