"""Two numbers of shards side by side: the first rule, field and agent that differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import torch
from torch import Tensor

from cluster.bounds import split
from cluster.join import join_columns
from gnabm.agents import Column, Stage
from gnabm.contacts import Contacts
from gnabm.local import LocalGroup, LocalThreads
from gnabm.model import Model
from gnabm.neighbours import Form
from gnabm.population import Population
from gnabm.shard import cut
from gnabm.simulate import check_steps
from gnabm.simulation import Simulation

OBSERVABLES = "observables"
"""Stands for the rule when the first difference is in an observable."""


@dataclass(frozen=True)
class Difference:
    """Where two runs first differ.

    Args:
        step: Step, -1 for the initial state.
        rule: Name of the rule, or `observables`.
        field: Field that the rule returned, or name of the observable.
        key: Key of the first agent that differs; None for an observable.
        shards: The two numbers of shards.
        values: The value in each run.
        num_agents: How many agents differ.
    """

    step: int
    rule: str
    field: str
    key: int | None
    shards: tuple[int, int]
    values: tuple[str, str]
    num_agents: int

    def __str__(self) -> str:
        who = "" if self.key is None else f" of agent {self.key} ({self.num_agents} agents differ)"
        return (
            f"step {self.step}, rule {self.rule!r}: {self.field!r}{who} is {self.values[0]} on {self.shards[0]} shards "
            f"and {self.values[1]} on {self.shards[1]}"
        )


class _Side:
    """One of the two runs: its shards, and what their rules returned in the current step."""

    def __init__(
        self, model: Model, population: Population, threads: LocalThreads, settings: Mapping[str, object]
    ) -> None:
        self.threads = threads
        self.taps: list[list[tuple[int, str, str, Column]]] = [[] for _ in range(threads.size)]
        bounds = split(population, threads.size)

        def build(group: LocalGroup) -> Simulation:
            taps = self.taps[group.rank]

            def tap(step: int, rule: str, field: str, value: Column) -> None:
                taps.append((step, rule, field, value))

            return Simulation(model, cut(population, group, bounds), tap=tap, **settings)  # type: ignore[arg-type]

        self.runs = threads.each(build)

    def advance(self) -> None:
        for taps in self.taps:
            taps.clear()
        self.threads.each(lambda group: self.runs[group.rank].advance())

    def changes(self) -> list[tuple[int, str, str, Column]]:
        """What each rule returned since the last step, joined over the shards."""
        return [(*ranks[0][:3], join_columns([value for *_, value in ranks])) for ranks in zip(*self.taps, strict=True)]

    def keys(self) -> Tensor:
        keys = join_columns([run.agents.columns["key"] for run in self.runs])
        assert isinstance(keys, Tensor)
        return keys


def lockstep(
    model: Model,
    population: Population | Contacts,
    *,
    steps: int,
    seed: int,
    shards: tuple[int, int] = (1, 3),
    dt: float = 1.0,
    start: date | None = None,
    messages: Form = "auto",
    gradient: str | None = None,
) -> Difference | None:
    """Run a model on two numbers of shards side by side until they differ.

    Args:
        model: The model.
        population: Agents and contacts, or contacts alone.
        steps: Number of steps to compare.
        seed: Seed of all draws.
        shards: The two numbers of shards.
        dt: Length of a step in days.
        start: Date of step 0, or None.
        messages: Form of the kernels.
        gradient: Estimator of a differentiable run, or None.

    Returns:
        The first difference in bits, by step, rule and agent; None when there is none.
    """
    check_steps(steps)
    whole = Population.of(population)
    settings = {"seed": seed, "dt": dt, "start": start, "messages": messages, "gradient": gradient}
    with LocalThreads(shards[0]) as first, LocalThreads(shards[1]) as second:
        sides = (_Side(model, whole, first, settings), _Side(model, whole, second, settings))
        for step in range(-1, steps):
            if step >= 0:
                for side in sides:
                    side.advance()
            difference = _compare(sides, step, shards)
            if difference is not None:
                return difference
    return None


def _compare(sides: tuple[_Side, _Side], step: int, shards: tuple[int, int]) -> Difference | None:
    for (at, rule, field, one), (_, other_rule, other_field, two) in zip(
        sides[0].changes(), sides[1].changes(), strict=True
    ):
        assert (rule, field) == (other_rule, other_field)
        rows = _differing(one, two)
        if rows.numel():
            row = int(rows[0])
            key = int(sides[0].keys()[row])
            return Difference(at, rule, field, key, shards, (_show(one, row), _show(two, row)), rows.numel())
    for name, value in sides[0].runs[0].observed.items():
        other = sides[1].runs[0].observed[name]
        cells = _differing(value.reshape(-1), other.reshape(-1))
        if cells.numel():
            cell = int(cells[0])
            values = (_show(value.reshape(-1), cell), _show(other.reshape(-1), cell))
            return Difference(step, OBSERVABLES, name, None, shards, values, 0)
    return None


def _differing(one: Column, two: Column) -> Tensor:
    """Rows whose bits differ: NaN equals NaN, and -0.0 is not 0.0."""
    if isinstance(one, Stage) and isinstance(two, Stage):
        return (one.codes != two.codes).nonzero().squeeze(1)
    assert isinstance(one, Tensor) and isinstance(two, Tensor)
    left, right = (t.detach().contiguous().reshape(t.shape[0], -1) for t in (one, two))  # bits have no gradient
    if not left.numel():
        return torch.empty(0, dtype=torch.int64)
    return (left.view(torch.uint8) != right.view(torch.uint8)).any(1).nonzero().squeeze(1)


def _show(column: Column, row: int) -> str:
    if isinstance(column, Stage):
        return column.family.names[int(column.codes[row])]
    return str(column[row].tolist())
