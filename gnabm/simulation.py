"""A run, a step at a time: the state of one shard, and the rules that move it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
import torch
from torch import Tensor

from gnabm.agents import Agents, Column, Stage
from gnabm.errors import ConfigError, DataError, KindError, ShapeError
from gnabm.lineage import Lineage
from gnabm.memory import keep_heap
from gnabm.merge import Change, Mask, collect, merge, write_rows
from gnabm.messages import nonzero_rows
from gnabm.mixing import MixingTables
from gnabm.model import Model
from gnabm.neighbours import Asked, Form, Neighbours
from gnabm.observe import Observer
from gnabm.periods import Period, Snapshot, check_periods
from gnabm.rule import Rule, Step
from gnabm.sampling import Estimator, estimator
from gnabm.shard import MixingShard, Shard
from gnabm.tracing import Tracer

Tap = Callable[[int, str, str, Column], None]
"""Called with (step, rule, field, new value) after every rule's changes were computed alone; for debugging."""


@dataclass(frozen=True, eq=False)
class Frame:
    """All that a run knows at the start of a step; unlike a `Snapshot` it never leaves the process.

    Args:
        index: The step.
        columns: Own copies of the state.
        observed: Observables of the step before.
        model: The model that holds.
        run_seed: The seed that holds.
        ahead: Periods to come.
        sent: What every agent has sent so far by each rule that infects, in a run that keeps it.
    """

    index: int
    columns: Mapping[str, Column]
    observed: Mapping[str, Tensor]
    model: Model
    run_seed: int
    ahead: tuple[Period, ...]
    sent: Mapping[str, Tensor]


class Simulation:
    """A model on one shard, advanced a step at a time.

    Args:
        model: The model.
        shard: Rows that this member of the group owns.
        seed: Seed of all draws.
        dt: Length of a step in days.
        start: Date of step 0, or None.
        messages: Form of the message kernels; the bits are the same.
        gradient: None for a forward run, or an estimator or its name: the run is then differentiable.
        tap: Debugging hook.
        changes: From which steps on another model and seed hold.
        snapshot: State to begin from instead of the model's initial one.
        infections: Note who infected whom, in `tracer`.
        begin: Make the initial state; otherwise `restore` says where to begin.
        graph: Build a graph in a differentiable run; without, it makes the same values alone.
        lineage: Keep what a reverse pass under the local score needs of the steps before, in a forward run too.
    """

    def __init__(
        self,
        model: Model,
        shard: Shard,
        *,
        seed: int,
        dt: float = 1.0,
        start: date | None = None,
        messages: Form = "auto",
        gradient: str | Estimator | None = None,
        tap: Tap | None = None,
        changes: Sequence[Period] = (),
        snapshot: Snapshot | None = None,
        infections: bool = False,
        begin: bool = True,
        graph: bool = True,
        lineage: bool = False,
    ) -> None:
        if messages not in ("auto", "push", "pull"):
            raise DataError(f"messages must be 'auto', 'push' or 'pull', got {messages!r}")
        if messages == "push" and gradient is not None:
            raise DataError("messages='push' has no gradient; use 'auto' or 'pull' in a differentiable run")
        if not 0 < dt < float("inf"):
            raise DataError(f"dt must be a positive number of days, got {dt}")
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
            raise KindError(f"seed must be an integer, got {seed!r}")
        if start is not None and (not isinstance(start, date) or isinstance(start, datetime)):
            raise KindError(f"start must be a datetime.date, got {start!r}; a step's time of day follows from dt")
        self.model, self.shard, self.seed, self.dt, self.messages = (
            model,
            shard,
            int(seed),
            float(dt),
            messages,
        )
        self.start = datetime(start.year, start.month, start.day) if start is not None else None
        self.estimator, self.differentiable, self.tap = estimator(gradient), gradient is not None, tap
        self.flags, self.graph = self.estimator.flags, self.differentiable and graph
        if not self.differentiable:
            keep_heap()
        self.index = -1
        layers = shard.layers.items()
        self.tables = {n: MixingTables.of(v.layer, self.dt) for n, v in layers if isinstance(v, MixingShard)}
        taken = sorted(set(model.state) & set(shard.columns))
        if taken:
            raise DataError(f"the model's state {taken[0]!r} is also a column of the population; rename one")
        state = model.columns(shard.num_owned)
        if self.differentiable:
            state = {n: self._precise(column) for n, column in state.items()}
        self.agents = Agents(state, {**shard.fields, **model.fields()}, attributes=shard.columns)
        # What the draws of each agent have noted so far: 0 in value, it carries the gradient alone.
        weighted = self.differentiable and not self.flags
        self.log_weight = torch.zeros(shard.num_owned, dtype=precision(model)) if weighted else None
        local = weighted and self.estimator.local
        self.lineages: dict[str, Lineage] | None = {} if lineage or local else None
        self.writable: set[str] = set()
        self.observer = self._observer(model)
        self.ahead = list(check_periods(model, changes))
        self.tracer = self._tracer(start) if infections else None
        if snapshot is not None:
            if self.differentiable:
                raise DataError("a run that begins from a state has no gradient of what came before; begin at step 0")
            self.agents = self.agents.replace(snapshot.restored(model, shard.num_owned))
            self.observed, self.index = snapshot.observed, snapshot.step
        elif begin:
            self._start()

    def _start(self) -> None:
        """Make the initial state."""
        with self._mode():
            for rule in self.model.initial:
                self._phase([rule])
            self.observed = self.observer(self.agents, self.agents, self.weights)
        self.index = 0

    def _precise(self, column: Column) -> Column:
        """A column as a differentiable run has it: in the precision of its gradient, stages with flags if asked."""
        dtype = precision(self.model)
        if isinstance(column, Stage):
            return column.with_flags(dtype) if self.flags and column.flags is None else column
        return column.to(dtype) if column.is_floating_point() and dtype == torch.float64 else column

    @property
    def weights(self) -> Tensor | None:
        """(num_owned,) weight of each agent, 1 in value, in a run whose draws note their likelihood; else None."""
        if self.log_weight is None:
            return None
        return 1 + self.log_weight if self.estimator.local else torch.ones_like(self.log_weight)

    # What a reverse pass needs: see adjoint.py

    def frame(self) -> Frame:
        """The state at the start of the step that comes, in columns of its own."""
        kept = {n: c.copy() if isinstance(c, Stage) else c.detach().clone() for n, c in self.agents.state.items()}
        observed = {n: v.detach() for n, v in self.observed.items()}
        sent = {name: lineage.sent.clone() for name, lineage in (self.lineages or {}).items()}
        return Frame(self.index, kept, observed, self.model, self.seed, tuple(self.ahead), sent)

    def restore(self, frame: Frame) -> None:
        """Go to the start of a step."""
        if frame.model is not self.model:
            self.observer = self._observer(frame.model)
        self.observer.forget()
        self.index, self.model, self.seed, self.ahead = frame.index, frame.model, frame.run_seed, list(frame.ahead)
        columns = dict(frame.columns)
        if self.differentiable:
            columns = {name: self._precise(column) for name, column in columns.items()}
        self.agents = self.agents.replace(columns)
        self.observed = dict(frame.observed)
        if self.differentiable:
            self.observed = {n: v.to(torch.float64) for n, v in self.observed.items()}
        self.writable = set()
        if self.log_weight is not None:
            self.log_weight = torch.zeros_like(self.log_weight)
        if self.lineages is not None:
            self.lineages = {name: Lineage(sent.clone()) for name, sent in frame.sent.items()}

    def carried(self) -> dict[str, Tensor]:
        """What carries gradient to the next step, by name: log-weights or flags, float columns, observables."""
        found = {f"observed:{n}": v for n, v in self.observed.items()}
        if self.log_weight is not None:
            found["log-weight"] = self.log_weight
        for name, column in self.agents.state.items():
            if isinstance(column, Stage):
                if column.flags is not None:
                    found[f"flags:{name}"] = column.flags
            elif column.is_floating_point():
                found[f"state:{name}"] = column
        return found

    def take_over(self) -> dict[str, Tensor]:
        """Begin a new graph: `carried` again, as leaves that stand for what came before; returns them."""
        leaves = {n: v.detach().requires_grad_() for n, v in self.carried().items()}  # the tape joins what is cut here
        self.carry(leaves)
        return leaves

    def carry(self, values: Mapping[str, Tensor]) -> None:
        """Let other tensors of the same values stand for what is carried."""
        self.observed = {n: values[f"observed:{n}"] for n in self.observed}
        self.log_weight = values.get("log-weight")
        columns: dict[str, Column] = {}
        for name, column in self.agents.state.items():
            if isinstance(column, Stage):
                if column.flags is not None:
                    columns[name] = Stage(column.family, column.codes, values[f"flags:{name}"])
            elif column.is_floating_point():
                columns[name] = values[f"state:{name}"]
        self.agents = self.agents.replace(columns)

    def _tracer(self, start: date | None) -> Tracer:
        if self.differentiable:
            raise ConfigError(
                "a differentiable run records no infections: an infection that happened has no gradient in who made "
                "it; leave gradient out, or infections"
            )
        tracer = Tracer(self.shard, self.dt, start)
        for model in (self.model, *(period.model for period in self.ahead)):
            tracer.expect(model)
        return tracer

    def _observer(self, model: Model) -> Observer:
        return Observer(model.observe, self.shard, plain=self.differentiable or self.messages == "pull")

    def _mode(self) -> AbstractContextManager[object]:
        return torch.enable_grad() if self.graph else torch.no_grad()

    def advance(self) -> Mapping[str, Tensor]:
        """Make one step; returns its observables, the same on every shard."""
        self._begin_period()
        with self._mode():
            before = self.agents
            # What stays as it was for the observables is copied on its first change in the step.
            kept = self.agents.state if self.observer.needs_before else _stages(self.agents)
            self.writable -= set(kept)
            for phase in self.model.phases:
                self._phase(phase)
            self.observed = self.observer(before, self.agents, self.weights)
        self.index += 1
        return self.observed

    def _begin_period(self) -> None:
        """Take the model and seed that hold from this step on."""
        while self.ahead and self.ahead[0].step <= self.index:
            period = self.ahead.pop(0)
            self.model, self.seed = period.model, period.seed
            self.observer = self._observer(period.model)

    def _possible(self, rule: Rule, agents: Agents) -> Tensor | None:
        """(num_owned,) bool of the agents that a rule can change, or None for all."""
        flags = rule.where(agents)
        if flags is None or (flags.shape == (self.shard.num_owned,) and flags.dtype == torch.bool):
            return flags
        if flags.shape != (self.shard.num_owned,) or not flags.is_floating_point():
            raise ShapeError(
                f"where of rule {rule.name!r} must be flags ({self.shard.num_owned},) of bool or float, got "
                f"{tuple(flags.shape)} {flags.dtype}; return a mask over all agents, not rows"
            )
        return flags.detach() != 0  # who can change is no differentiable question

    def _ask(self, rule: Rule, shown: Agents, neighbours: Neighbours, step: Step) -> Mapping[str, Column]:
        """Call a rule; `explain` looks on from here."""
        returned: Mapping[str, Column] = rule(shown, neighbours, step)
        return returned

    def _phase(self, rules: Sequence[Rule]) -> None:
        weights = self.weights
        neighbours = Neighbours(self.shard, self.seed, self.index, self.dt, self.messages, self.tables, weights=weights)
        self.noted: list[tuple[Tensor | None, Tensor]] = []
        changes: dict[str, list[Change]] = {}
        for rule in rules:
            for name, change in self._apply(rule, neighbours).items():
                changes.setdefault(name, []).append(change)
        self.agents = self.agents.replace({name: self._merged(name, c) for name, c in changes.items()})
        for rows, score in self.noted:
            assert self.log_weight is not None
            score = score.to(self.log_weight.dtype)
            self.log_weight = self.log_weight + score if rows is None else self.log_weight.index_add(0, rows, score)

    def _merged(self, name: str, changes: Sequence[Change]) -> Column:
        """The next value of a field; in a forward run changes of rows go into the column itself, once it is our own."""
        old = self.agents.columns[name]
        if self.differentiable or any(change.rows is None for change in changes):
            self.writable.discard(name)
            return merge(name, old, changes, self.agents.key)
        column = old.codes if isinstance(old, Stage) else old
        if name not in self.writable:
            column = column.clone()
            self.writable.add(name)
        write_rows(name, column, changes, self.agents.keys)
        return Stage(old.family, column) if isinstance(old, Stage) else column

    def _fused(self, rule: Rule, neighbours: Neighbours) -> dict[str, Change] | None:
        """What a rule changes by its own kernel; None where it has none, or the run wants plain rules."""
        if self.differentiable or self.messages != "auto" or not rule.has_kernel:
            return None
        asked: list[Asked] | None = [] if self.tracer is not None and rule.infects else None
        contacts, step = neighbours.only(None, asked), self._step(rule, self.agents, neighbours.weights)
        made = rule.fused(self.agents, contacts, step)
        if made is None:
            return None
        rows, returned = made
        changes = collect(rule, returned, self.agents.only(rows), None)
        self._trace_back(rule, step, changes.get("stage"), contacts)
        if self.tracer is not None and rule.infects:
            self.tracer.note(rule, step, changes.get("stage"), contacts)
        return changes

    def _trace_back(self, rule: Rule, step: Step, change: Change | None, contacts: Neighbours) -> None:
        """Give the infections of a rule what their infectors sent before, and note what was sent now."""
        if self.lineages is None or not rule.infects or contacts.summed is None:
            return
        lineage = self.lineages.setdefault(rule.name, Lineage(torch.zeros(self.shard.num_owned)))
        if step.weighted and change is not None:
            lineage.score(contacts, step, change)
        lineage.note(contacts)

    def _step(self, rule: Rule, shown: Agents, weights: Tensor | None) -> Step:
        observed = {} if self.index < 0 else self.observed
        return Step(
            self.index, self.dt, self.seed, observed, self.start, rule.name, shown, self.estimator, self.shard.group,
            weights, noted=self.noted,
        )  # fmt: skip

    def _apply(self, rule: Rule, neighbours: Neighbours) -> dict[str, Change]:
        changes = self._fused(rule, neighbours)
        if changes is None:
            changes = self._plain(rule, neighbours)
        if self.tap is not None:
            keys: Tensor = self.agents.key
            for name, change in changes.items():
                self.tap(self.index, rule.name, name, merge(name, self.agents.columns[name], [change], keys))
        return changes

    def _plain(self, rule: Rule, neighbours: Neighbours) -> dict[str, Change]:
        rows = mask = None
        possible = self._possible(rule, self.agents)
        if possible is not None and self.flags:
            structural = self._possible(rule, self.agents.with_open_stages())
            assert structural is not None
            mask = Mask(possible, structural | possible)
        elif possible is not None:
            rows = nonzero_rows(possible)
        before = self.agents.versions()
        shown = self.agents if rows is None else self.agents.only(rows)
        step = self._step(rule, shown, neighbours.weights)
        asked: list[Asked] | None = [] if self.tracer is not None and rule.infects else None
        contacts = neighbours.only(rows, asked)
        returned = self._ask(rule, shown, contacts, step)
        for part, (name, tensor, version) in {**self.agents.versions(), **shown.versions()}.items():
            if version != (before[part][2] if part in before and before[part][1] is tensor else 0):
                raise KindError(
                    f"rule {rule.name!r} wrote in place into {name!r} or a mask of it, which other rules read too; "
                    "make a new tensor (x = x + 1, mask = mask & other) and return what changed"
                )
        changes = collect(rule, returned, shown, mask)
        self._trace_back(rule, step, changes.get("stage"), contacts)
        if self.tracer is not None and rule.infects:
            self.tracer.note(rule, step, changes.get("stage"), contacts)
        return changes


def precision(model: Model) -> torch.dtype:
    """Type of the gradient's arithmetic: float64 where all parameters are (`model.double()`), else float32."""
    kinds = {p.dtype for p in model.parameters()}
    return torch.float64 if kinds == {torch.float64} else torch.float32


def _stages(agents: Agents) -> list[str]:
    return [name for name, column in agents.state.items() if isinstance(column, Stage)]
