"""The one loop: `simulate(model, population, steps=..., seed=...) -> Trajectory`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime

import numpy as np
import torch
from torch import Tensor

from gnabm.agents import Agents, Column, Stage
from gnabm.contacts import Contacts
from gnabm.errors import ConfigError, DataError, KindError, ShapeError, UnknownFieldError, nearest
from gnabm.linelist import as_frame, in_order
from gnabm.memory import keep_heap
from gnabm.merge import Change, Mask, collect, merge, write_rows
from gnabm.messages import nonzero_rows
from gnabm.mixing import MixingTables
from gnabm.model import Model
from gnabm.neighbours import Asked, Form, Neighbours
from gnabm.observe import Observer
from gnabm.periods import Period, Snapshot, check_periods
from gnabm.population import Population
from gnabm.rule import Rule, Step
from gnabm.sampling import estimator
from gnabm.shard import MixingShard, Shard, cut
from gnabm.tracing import Tracer
from gnabm.trajectory import Schema, Trajectory, initial_counts

Tap = Callable[[int, str, str, Column], None]
"""Called with (step, rule, field, new value) after every rule's changes were computed alone; for debugging."""


class Simulation:
    """A model on one shard, advanced a step at a time.

    Args:
        model: The model.
        shard: Rows that this member of the group owns.
        seed: Seed of all draws.
        dt: Length of a step in days.
        start: Date of step 0, or None.
        messages: Form of the message kernels; the bits are the same.
        gradient: None for a forward run, or the name of an estimator: the run is then differentiable.
        tap: Debugging hook.
        changes: From which steps on another model and seed hold.
        snapshot: State to begin from instead of the model's initial one.
        infections: Note who infected whom, in `tracer`.
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
        gradient: str | None = None,
        tap: Tap | None = None,
        changes: Sequence[Period] = (),
        snapshot: Snapshot | None = None,
        infections: bool = False,
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
            state = {n: c.with_flags(torch.float32) if isinstance(c, Stage) else c for n, c in state.items()}
        self.agents = Agents(state, {**shard.fields, **model.fields()}, attributes=shard.columns)
        self.writable: set[str] = set()
        self.observer = self._observer(model)
        self.ahead = list(check_periods(model, changes))
        self.tracer = self._tracer(start) if infections else None
        if snapshot is not None:
            if self.differentiable:
                raise DataError("a run that begins from a state has no gradient of what came before; begin at step 0")
            self.agents = self.agents.replace(snapshot.restored(model, shard.num_owned))
            self.observed, self.index = snapshot.observed, snapshot.step
        else:
            with self._mode():
                for rule in model.initial:
                    self._phase([rule])
                self.observed = self.observer(self.agents, self.agents)
            self.index = 0

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
        return torch.enable_grad() if self.differentiable else torch.no_grad()

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
            self.observed = self.observer(before, self.agents)
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
        neighbours = Neighbours(self.shard, self.seed, self.index, self.dt, self.messages, self.tables)
        changes: dict[str, list[Change]] = {}
        for rule in rules:
            for name, change in self._apply(rule, neighbours).items():
                changes.setdefault(name, []).append(change)
        self.agents = self.agents.replace({name: self._merged(name, c) for name, c in changes.items()})

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
        contacts, step = neighbours.only(None, asked), self._step(rule, self.agents)
        made = rule.fused(self.agents, contacts, step)
        if made is None:
            return None
        rows, returned = made
        changes = collect(rule, returned, self.agents.only(rows), None)
        if self.tracer is not None and rule.infects:
            self.tracer.note(rule, step, changes.get("stage"), contacts)
        return changes

    def _step(self, rule: Rule, shown: Agents) -> Step:
        observed = {} if self.index < 0 else self.observed
        return Step(
            self.index, self.dt, self.seed, observed, self.start, rule.name, shown, self.estimator, self.shard.group
        )

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
        if possible is not None and self.differentiable:
            structural = self._possible(rule, self.agents.with_open_stages())
            assert structural is not None
            mask = Mask(possible, structural | possible)
        elif possible is not None:
            rows = nonzero_rows(possible)
        before = self.agents.versions()
        shown = self.agents if rows is None else self.agents.only(rows)
        step = self._step(rule, shown)
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
        if self.tracer is not None and rule.infects:
            self.tracer.note(rule, step, changes.get("stage"), contacts)
        return changes


def _stages(agents: Agents) -> list[str]:
    return [name for name, column in agents.state.items() if isinstance(column, Stage)]


def simulate(
    model: Model,
    population: Population | Contacts,
    *,
    steps: int,
    seed: int,
    dt: float = 1.0,
    start: date | None = None,
    record: Sequence[str] = (),
    messages: Form = "auto",
    gradient: str | None = None,
    changes: Sequence[Period] = (),
    infections: bool = False,
) -> Trajectory:
    """Run a model on a population, on one shard in this process.

    Args:
        model: The model.
        population: Agents and contacts, or bare contacts.
        steps: Number of steps, >= 0.
        seed: Seed; one seed, one history.
        dt: Length of a step in days.
        start: Date of the first step; None for a run without a calendar.
        record: State fields to keep for each agent and step.
        messages: `push`, `pull` or `auto`; the bits are the same.
        gradient: Estimator of a differentiable run (`straight-through`), or None.
        changes: From which steps on another model and seed hold.
        infections: Record who infected whom: the trajectory's `infections`.

    Returns:
        Observables of each step, the recorded fields and the final agents. In a differentiable run the observables
        carry the gradient.

    Raises:
        GnabmError: An argument, a rule or the population is refused, with the cure.
    """
    check_steps(steps)
    shard = cut(Population.of(population))
    run = Simulation(
        model, shard, seed=seed, dt=dt, start=start, messages=messages, gradient=gradient, changes=changes,
        infections=infections,
    )  # fmt: skip
    check_record(model, record)
    observed: dict[str, list[Tensor]] = {o.name: [] for o in model.observe}
    fields: dict[str, list[np.ndarray]] = {name: [] for name in record}
    initial = initial_counts(run.observed)
    for _ in range(steps):
        for name, value in run.advance().items():
            observed[name].append(value)
        for name in record:
            fields[name].append(as_numpy(run.agents.columns[name]).copy())
    schema = Schema.of(model, shard, observed=run.observed, dt=dt, start=start, record=record)
    return Trajectory(
        schema,
        {name: _stack(values, schema.shape(name)) for name, values in observed.items()},
        {name: np.stack(v) if v else np.empty((0, shard.num_owned), np.uint8) for name, v in fields.items()},
        run.agents,
        initial,
        num_steps=steps,
        infections=None if run.tracer is None else as_frame(in_order([run.tracer.take(steps)]), run.tracer.legend),
    )


def _stack(values: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    return torch.stack(values) if values else torch.zeros(shape, dtype=torch.int64)


def as_numpy(column: Column) -> np.ndarray:
    """A column as it is recorded: codes for stages."""
    tensor = column.codes if isinstance(column, Stage) else column
    return tensor.detach().numpy()  # a record is data


def check_steps(steps: int) -> None:
    """Refuse a number of steps that is none."""
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)):
        raise KindError(f"steps must be an integer, got {steps!r}")
    if steps < 0:
        raise DataError(f"steps must be >= 0, got {steps}")


def check_record(model: Model, record: Sequence[str]) -> None:
    """Refuse fields to record that the model has not."""
    if isinstance(record, str):
        raise KindError(f"record must be a list of field names, got the string {record!r}; write [{record!r}]")
    for name in record:
        if name not in model.state:
            raise UnknownFieldError(
                f"cannot record {name!r}: no state field of {model.name}; {nearest(name, model.state)}"
            )
