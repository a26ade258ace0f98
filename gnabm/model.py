"""Model: rules in phases, the state they move, how it starts, what is observed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor, nn

from gnabm.agents import Agents, Column, Field, Stage, StageName, Stages
from gnabm.errors import ConflictError, DataError, KindError
from gnabm.rule import Merge, Reproducibility, Rule
from gnabm.transmission import Transmission

GROUPS = ("region", "age_group")
"""Labels by which observables are grouped unless they say otherwise; those that a population lacks are left out."""


@dataclass(frozen=True)
class State:
    """A state field that is no stage.

    Args:
        initial: Value before the initial rules run.
        dtype: Type of the column.
        meaning: One line for people.
        unit: Unit of its values.
    """

    initial: float
    dtype: torch.dtype = torch.float32
    meaning: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Observable:
    """What a run reports each step: a per-agent value, summed within groups.

    Args:
        name: Name in the trajectory.
        value: `(before, after) -> (num_agents,)` bool, integer or float; or a `Stage`, with `counts`. Before and after
            are the agents at the start and at the end of the step. An `OfMoves` costs a forward run least.
        by: Labels of the groups.
        unit: Unit.
        meaning: One line for people.
        counts: State field whose stages are counted, each apart; it names the first dim of the observable.
    """

    name: str
    value: Callable[[Agents, Agents], Tensor | Stage]
    by: tuple[str, ...] = GROUPS
    unit: str = "agents"
    meaning: str = ""
    counts: str | None = None


@runtime_checkable
class OfMoves(Protocol):
    """Value of an observable that counts agents, and so follows from those who moved between stages in the step.

    A forward run then looks at nobody else. The value is also callable as any other: that is the reference, and what
    a differentiable run uses.
    """

    field: str
    """The state field whose stages it looks at."""

    def of_moves(self, counts: Tensor, moves: Tensor) -> Tensor:
        """What the call would count, by group.

        Args:
            counts: (num_stages, num_groups) int64 agents in each stage at the end of the step.
            moves: (num_stages, num_stages, num_groups) int64 agents by the stage at the start, that at the end, and
                group; 0 where both are the same.

        Returns:
            (num_groups,) int64, or (num_stages, num_groups) with `counts` of the observable; linear in both, since
            what the shards find is added up.
        """
        ...


class StageCount:
    """Value of an observable: agents in each stage at the end of the step.

    Args:
        field: The state field; to be named in `counts` of the observable.
    """

    def __init__(self, field: str) -> None:
        self.field = field

    def __call__(self, before: Agents, after: Agents) -> Stage:
        """The stage of each agent."""
        stage: Stage = getattr(after, self.field)
        return stage

    def of_moves(self, counts: Tensor, moves: Tensor) -> Tensor:
        """(num_stages, num_groups) agents."""
        return counts


count_by_stage = Observable(
    "stage_count", StageCount("stage"), meaning="agents in each stage at the end of the step", counts="stage"
)
"""Agents by stage at the end of each step."""


class Leavers:
    """Value of an observable: agents that left a stage in the step.

    Args:
        source: The stage.
    """

    field = "stage"

    def __init__(self, source: StageName) -> None:
        self.source = source

    def __call__(self, before: Agents, after: Agents) -> Tensor:
        """(num_agents,) flags."""
        was: Tensor = before.stage.is_(self.source)
        now: Tensor = after.stage.is_(self.source)
        # Not was * (1 - now): the gradient of flags that stay would count again in every step.
        return (was - now).clamp(min=0) if was.is_floating_point() else was & ~now

    def of_moves(self, counts: Tensor, moves: Tensor) -> Tensor:
        """(num_groups,) agents."""
        return moves[self.source].sum(0)


class Model(nn.Module):
    """Rules in phases over a declared state.

    Args:
        rules: Rules of one phase, or a list of phases. Rules of a phase read the same state; phases run in order.
        state: `stage` as Stages (everyone starts in the first) and other fields as State.
        initial: Rules that make the initial state, run once before step 0.
        observe: Observables.
        name: Name for people.
        transmission: Courses of an infection, which a reproduction number follows from; None where there is none.
        sources: The published tables behind its figures: name, source, year, licence, assumed, note.

    Raises:
        ConflictError: Two rules of a phase write one field without saying how, or share a name.
        DataError: A rule writes a field that is not declared.
    """

    def __init__(
        self,
        rules: Sequence[Rule] | Sequence[Sequence[Rule]],
        *,
        state: Mapping[str, Stages | State],
        initial: Rule | Sequence[Rule] = (),
        observe: Sequence[Observable] = (count_by_stage,),
        name: str = "model",
        transmission: Transmission | None = None,
        sources: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__()
        for part in rules:
            if not isinstance(part, (Rule, Iterable)):
                raise KindError(f"a model is made of Rule objects, got {type(part).__name__}")
        phases = [list(p) for p in rules if not isinstance(p, Rule)]
        if len(phases) < len(rules):
            phases = [[rule for rule in rules if isinstance(rule, Rule)]]
        if sum(map(len, phases)) < len(rules):
            raise KindError("rules must be Rule objects (one phase) or lists of them (several phases), not both")
        start = [initial] if isinstance(initial, Rule) else list(initial)
        for rule in [*start, *(r for phase in phases for r in phase)]:
            if not isinstance(rule, Rule):
                raise KindError(f"a model is made of Rule objects, got {type(rule).__name__}")
        self.phases, self.initial = phases, start
        self._modules_of_rules = nn.ModuleList([*start, *(rule for phase in phases for rule in phase)])
        self.state, self.observe, self.name = dict(state), tuple(observe), name
        self.transmission, self.sources = transmission, tuple(dict(entry) for entry in sources)
        self._check([start, *phases])

    def _check(self, phases: Sequence[Sequence[Rule]]) -> None:
        names = [rule.name for phase in phases for rule in phase]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ConflictError(f"two rules are named {twice[0]!r}, so they would share draws; give one another name=")
        for name in names:
            if "/" in name or name == "contacts":
                raise ConflictError(
                    f"a rule cannot be named {name!r}: the name keys its draws, '/' separates it from the call and "
                    "'contacts' belongs to the mixing layers; give it another name="
                )
        labels = [o.name for o in self.observe]
        if len(set(labels)) < len(labels):
            raise ConflictError(f"observables need different names, got {labels}")
        for observable in self.observe:
            if observable.counts is not None and not isinstance(self.state.get(observable.counts), Stages):
                raise DataError(
                    f"observable {observable.name!r} counts the stages of {observable.counts!r}, which is no stage of "
                    "the model; add it to state= or leave counts= out"
                )
            if isinstance(observable.value, OfMoves):
                field = observable.value.field
                if not isinstance(self.state.get(field), Stages) or observable.counts not in (None, field):
                    raise DataError(
                        f"observable {observable.name!r} looks at the stages of {field!r} with "
                        f"counts={observable.counts!r}; name one field in both, one that state= declares as Stages"
                    )
        for phase in phases:
            writers: dict[str, list[tuple[str, str]]] = {}
            for rule in phase:
                for name, how in rule.writes.items():
                    if how not in get_args(Merge) or (how == "adds" and isinstance(self.state.get(name), Stages)):
                        raise DataError(
                            f"rule {rule.name!r} writes {name!r} as {how!r}; expected one of {get_args(Merge)}, and "
                            "a stage cannot be added to"
                        )
                    if name not in self.state:
                        raise DataError(
                            f"rule {rule.name!r} writes {name!r}, which the model does not declare; add it to state="
                        )
                    writers.setdefault(name, []).append((rule.name, how))
            for name, rules in writers.items():
                kinds = {how for _, how in rules}
                if len(rules) > 1 and (len(kinds) > 1 or kinds == {"sole"}):
                    raise ConflictError(
                        f"rules {', '.join(r for r, _ in rules)} all write {name!r}; declare writes = "
                        f"{{{name!r}: 'adds'}} or 'exclusive' in each, or put them in different phases"
                    )

    def rules(self) -> list[Rule]:
        """All rules of all phases, in order."""
        return [rule for phase in self.phases for rule in phase]

    @property
    def reproducibility(self) -> Reproducibility:
        """`bit` when every rule was found to be so, `statistical` when one was found not to be, else `unchecked`."""
        # A subclass has other arithmetic, so what was found of its parent says nothing of it.
        rules = (*self.initial, *self.rules())
        found = {vars(type(rule)).get("reproducibility", "unchecked") for rule in rules} or {"bit"}
        if "statistical" in found:
            return "statistical"
        return "unchecked" if "unchecked" in found else "bit"

    def fields(self) -> dict[str, Field]:
        """What the state columns mean."""
        result = {}
        for name, kind in self.state.items():
            if isinstance(kind, Stages):
                result[name] = Field(name, "stage of the agent", categories=kind.names)
            else:
                result[name] = Field(name, kind.meaning, kind.unit)
        return result

    def columns(self, num_agents: int) -> dict[str, Column]:
        """The state before the initial rules.

        Args:
            num_agents: Number of rows.
        """
        result: dict[str, Column] = {}
        for name, kind in self.state.items():
            if isinstance(kind, Stages):
                result[name] = Stage(kind, torch.zeros(num_agents, dtype=torch.uint8))
            else:
                result[name] = torch.full((num_agents,), kind.initial, dtype=kind.dtype)
        return result

    def __repr__(self) -> str:
        """Phases, rules with what they write, observables."""
        state = ", ".join(f"{n} {k}" if isinstance(k, Stages) else n for n, k in self.state.items())
        lines = [f"{self.name}: state {state}"]
        groups = [("initial", self.initial), *((f"phase {i}", p) for i, p in enumerate(self.phases))]
        for label, phase in groups:
            for rule in phase:
                how = ", ".join(f"{name} ({merge})" for name, merge in rule.writes.items())
                lines.append(f"  {label}: {rule.name} writes {how}")
        lines.append(f"  observes {', '.join(o.name for o in self.observe)}")
        return "\n".join(lines)
