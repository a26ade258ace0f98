"""The one loop: `simulate(model, population, steps=..., seed=...) -> Trajectory`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import date, datetime

import numpy as np
import torch
from torch import Tensor

from gnabm.agents import Agents, Column, Stage
from gnabm.contacts import Contacts
from gnabm.errors import DataError, KindError, UnknownFieldError, nearest
from gnabm.memory import keep_heap
from gnabm.merge import Change, collect, merge
from gnabm.messages import nonzero_rows
from gnabm.mixing import MixingTables
from gnabm.model import Model
from gnabm.neighbours import Form, Neighbours
from gnabm.observe import Observer
from gnabm.population import Population
from gnabm.rule import Rule, Step
from gnabm.sampling import estimator
from gnabm.shard import MixingShard, Shard, cut
from gnabm.trajectory import Schema, Trajectory

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
    ) -> None:
        if messages not in ("auto", "push", "pull"):
            raise DataError(f"messages must be 'auto', 'push' or 'pull', got {messages!r}")
        if messages == "push" and gradient is not None:
            raise DataError("messages='push' has no gradient; use 'auto' or 'pull' in a differentiable run")
        if not dt > 0:
            raise DataError(f"dt must be a positive number of days, got {dt}")
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
        self.agents = Agents({**shard.columns, **state}, {**shard.fields, **model.fields()})
        self.observer = Observer(model.observe, shard)
        with self._mode():
            for rule in model.initial:
                self._phase([rule])
            self.observed = self.observer(self.agents, self.agents)
        self.index = 0

    def _mode(self) -> AbstractContextManager[object]:
        return nullcontext() if self.differentiable else torch.no_grad()

    def advance(self) -> Mapping[str, Tensor]:
        """Make one step; returns its observables, the same on every shard."""
        with self._mode():
            before = self.agents
            for phase in self.model.phases:
                self._phase(phase)
            self.observed = self.observer(before, self.agents)
        self.index += 1
        return self.observed

    def _phase(self, rules: Sequence[Rule]) -> None:
        neighbours = Neighbours(self.shard, self.seed, self.index, self.dt, self.messages, self.tables)
        changes: dict[str, list[Change]] = {}
        for rule in rules:
            for name, change in self._apply(rule, neighbours).items():
                changes.setdefault(name, []).append(change)
        keys: Tensor = self.agents.key
        merged = {n: merge(n, self.agents.columns[n], c, keys) for n, c in changes.items()}
        self.agents = self.agents.replace(merged)

    def _apply(self, rule: Rule, neighbours: Neighbours) -> dict[str, Change]:
        flags = rule.where(self.agents)
        rows = mask = None
        if flags is not None:
            possible = flags.detach() != 0 if flags.is_floating_point() else flags  # who can change is not learned
            mask = possible if self.differentiable else None
            rows = None if self.differentiable else nonzero_rows(possible)
        shown = self.agents if rows is None else self.agents.only(rows)
        step = Step(
            self.index, self.dt, self.seed, {} if self.index < 0 else self.observed, self.start, rule.name,
            shown, self.estimator, self.shard.group,
        )  # fmt: skip
        changes = collect(rule, rule(shown, neighbours.only(rows), step), shown, mask)
        if self.tap is not None:
            keys: Tensor = self.agents.key
            for name, change in changes.items():
                self.tap(self.index, rule.name, name, merge(name, self.agents.columns[name], [change], keys))
        return changes


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

    Returns:
        Observables of each step, the recorded fields and the final agents. In a differentiable run the observables
        carry the gradient.

    Raises:
        GnabmError: An argument, a rule or the population is refused, with the cure.
    """
    check_steps(steps)
    shard = cut(Population.of(population))
    run = Simulation(model, shard, seed=seed, dt=dt, start=start, messages=messages, gradient=gradient)
    check_record(model, record)
    observed: dict[str, list[Tensor]] = {o.name: [] for o in model.observe}
    fields: dict[str, list[np.ndarray]] = {name: [] for name in record}
    for _ in range(steps):
        for name, value in run.advance().items():
            observed[name].append(value)
        for name in record:
            fields[name].append(as_numpy(run.agents.columns[name]))
    schema = Schema.of(model, shard, dt=dt, start=start, record=record)
    return Trajectory(
        schema,
        {name: _stack(values, schema.shape(name)) for name, values in observed.items()},
        {name: np.stack(v) if v else np.empty((0, shard.num_owned), np.uint8) for name, v in fields.items()},
        run.agents,
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
