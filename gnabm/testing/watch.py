"""A simulation that notes what each rule computed, and the first place where two of them differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnabm.agents import Column, Stage
from gnabm.errors import GnabmError
from gnabm.exchange import ShardGroup
from gnabm.local import on_shards
from gnabm.merge import Change
from gnabm.model import Model
from gnabm.neighbours import Form, Neighbours
from gnabm.population import Population
from gnabm.random import uniform
from gnabm.rule import Rule
from gnabm.sampling import Estimator
from gnabm.shard import EdgeShard, MixingShard, PlaceShard, Shard, cut
from gnabm.simulation import Simulation


class ConformanceError(GnabmError, AssertionError):
    """A rule or a model breaks a promise."""


@dataclass(frozen=True, eq=False)
class Note:
    """Values that one rule computed in one step, one per row.

    Args:
        step: Index of the step; -1 for the initial state.
        rule: Name of the rule, or `observables`.
        field: State field, `probability N` of the rule's N-th draw, or the name of an observable.
        key: (n,) int64 who the rows are.
        value: (n, ...) what was computed.
        uniform: (n,) the numbers that probabilities were compared with, or None.
    """

    step: int
    rule: str
    field: str
    key: Tensor
    value: Tensor
    uniform: Tensor | None = None

    def __str__(self) -> str:
        """Where in the run."""
        when = f"step {self.step}" if self.step >= 0 else "the initial state"
        return f"{when}, rule {self.rule!r}, {self.field}"

    def by_key(self) -> Note:
        """The same values in the order of keys."""
        order = torch.argsort(self.key)
        kept = None if self.uniform is None else self.uniform[order]
        return Note(self.step, self.rule, self.field, self.key[order], self.value[order], kept)


class Watched(Simulation):
    """A simulation that notes what each rule computed; see `Simulation` for the arguments.

    A forward run with `messages="auto"` notes no probabilities: a kernel of a rule cannot be looked over its shoulder,
    and computes none for those to whom nothing happens.
    """

    def __init__(self, model: Model, shard: Shard, **options: Any) -> None:  # noqa: ANN401
        self.notes: list[Note] = []
        self.integer_messages = all(_whole(layer) for layer in shard.layers.values()) and options.get("dt", 1) == 1
        options.setdefault("messages", "push" if options.get("gradient") is None else "pull")
        super().__init__(model, shard, tap=self._note_field, **options)

    def _note_field(self, step: int, rule: str, field: str, value: Column) -> None:
        key: Tensor = self.agents.key
        self.notes.append(Note(step, rule, f"field {field!r}", key, _values(value)))

    def advance(self) -> Mapping[str, Tensor]:
        """Make one step and note its observables."""
        observed = super().advance()
        for name, value in observed.items():
            flat = value.detach().reshape(-1)  # compared, never differentiated
            key = torch.arange(flat.shape[0])
            self.notes.append(Note(self.index - 1, "observables", f"observable {name!r}", key, flat))
        return observed

    def _apply(self, rule: Rule, neighbours: Neighbours) -> dict[str, Change]:
        before = {name: _snapshot(column) for name, column in self.agents.columns.items()}
        inner = self.estimator
        if self.differentiable or self.messages != "auto":
            self.estimator = _Recording(self, rule.name, inner)
        try:
            changes = super()._apply(rule, neighbours)
        finally:
            self.estimator = inner
        for name, column in self.agents.columns.items():
            _refuse_written(rule, name, column, before[name], self.agents.key, self.index)
        sent = (x for x, _ in neighbours.sent.values())
        self.integer_messages &= all(not x.is_floating_point() or bool((x == x.round()).all()) for x in sent)
        return changes


class _Recording:
    """An estimator that also notes the probabilities."""

    def __init__(self, run: Watched, rule: str, inner: Estimator) -> None:
        self.run, self.rule, self.inner, self.count = run, rule, inner, 0
        self.flags, self.local = inner.flags, inner.local

    def __call__(self, state: int, keys: Tensor, p: Tensor) -> Tensor:
        self.count += 1
        field = f"probability {self.count}"
        p_value = p.detach().clone()  # compared, never differentiated
        self.run.notes.append(Note(self.run.index, self.rule, field, keys, p_value, uniform(state, keys)))
        return self.inner(state, keys, p)


def _whole(layer: EdgeShard | PlaceShard | MixingShard) -> bool:
    """Whether sums of whole numbers over the layer are exact in float32."""
    match layer:
        case EdgeShard() | PlaceShard():
            return layer.weight is None or bool((layer.weight == layer.weight.round()).all())
        case MixingShard():
            return not layer.layer.expected


def _values(column: Column) -> Tensor:
    value = column.codes if isinstance(column, Stage) else column
    return value.detach().clone()  # compared, never differentiated


def _parts(column: Column) -> list[Tensor]:
    if isinstance(column, Tensor):
        return [column]
    return [column.codes] if column.flags is None else [column.codes, column.flags]


def _snapshot(column: Column) -> list[tuple[int, Tensor]]:
    return [(part._version, part.detach().clone()) for part in _parts(column)]  # compared, never differentiated


def _refuse_written(
    rule: Rule, name: str, column: Column, before: list[tuple[int, Tensor]], key: Tensor, step: int
) -> None:
    for part, (version, value) in zip(_parts(column), before, strict=True):
        # The version counts writes by torch, the values show those through .numpy() as well.
        different = (part.detach() != value).nonzero()
        if part._version == version and not different.numel():
            continue
        where = f" of agent {int(key[different[0, 0]])} (row {int(different[0, 0])})" if different.numel() else ""
        raise ConformanceError(
            f"step {step}, rule {rule.name!r} writes into field {name!r}{where} in place; other rules of the phase "
            f"must read the state at its start. Return {{{name!r}: new}} and leave the old tensor as it is "
            "(x = x + 1 instead of x += 1, x.clone() before x[rows] = ...)"
        )


@contextmanager
def num_threads(number: int) -> Iterator[None]:
    """Let torch and the compiled kernels use some number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def watch(
    model: Model,
    population: Population,
    *,
    steps: int,
    seed: int,
    bounds: Sequence[int] | None = None,
    messages: Form = "auto",
    gradient: str | None = None,
    dt: float = 1.0,
) -> list[Note]:
    """Run a model and note what each rule computed.

    Args:
        model: The model.
        population: Its agents and contacts.
        steps: Number of steps.
        seed: Seed.
        bounds: (num_shards + 1,) first row of each shard, or None for one.
        messages: Form of the kernels; a forward run by `auto` notes no probabilities.
        gradient: Estimator of a differentiable run.
        dt: Days per step.
    """
    edges = (0, population.num_agents) if bounds is None else tuple(bounds)

    def work(group: ShardGroup) -> list[Note]:
        run = Watched(model, cut(population, group, edges), seed=seed, messages=messages, gradient=gradient, dt=dt)
        for _ in range(steps):
            run.advance()
        return run.notes

    per_rank = on_shards(len(edges) - 1, work)
    return [_joined(notes) for notes in zip(*per_rank, strict=True)]


def _joined(notes: Sequence[Note]) -> Note:
    first = notes[0]
    if len(notes) == 1 or first.rule == "observables":
        return first
    kept = [n.uniform for n in notes if n.uniform is not None]
    key, value = torch.cat([n.key for n in notes]), torch.cat([n.value for n in notes])
    return Note(first.step, first.rule, first.field, key, value, torch.cat(kept) if kept else None)


Differ = Callable[[Note, Note], Tensor]
"""(n,) flags of the rows that differ, of two notes of the same keys."""


def bits_differ(one: Note, other: Note) -> Tensor:
    """Rows whose values are not the same bits."""
    a, b = (np.ascontiguousarray(n.value.numpy()).reshape(-1).view(np.uint8) for n in (one, other))
    per_row = a.size // max(one.value.shape[0], 1)
    return any_per_row(torch.from_numpy(a != b).reshape(one.value.shape[0], per_row))


def any_per_row(flags: Tensor) -> Tensor:
    """(n,) whether any flag of a row (n, ...) is set; there may be no row."""
    return flags if flags.dim() == 1 else flags.flatten(1).any(1)


def first_difference(
    one: Sequence[Note], other: Sequence[Note], differ: Differ = bits_differ, labels: tuple[str, str] = ("", "")
) -> tuple[Note, str] | None:
    """The first difference of two runs, and the words that tell where it is.

    Args:
        one: Notes of a run.
        other: Notes of the other run; its draws may be of more rows (a differentiable run ignores `where`).
        differ: What counts as different.
        labels: How the runs are called.

    Returns:
        The note and the words, or None for equal runs.
    """
    for mine, theirs in zip(one, other, strict=True):
        # Sorting is what takes long; two runs on one shard list the same keys already.
        aligned = mine.key.shape == theirs.key.shape and torch.equal(mine.key, theirs.key)
        a, b = (mine, theirs) if aligned else (mine.by_key(), theirs.by_key())
        if a.field.startswith("probability") and a.key.shape[0] != b.key.shape[0]:
            common = torch.isin(b.key, a.key)
            b = Note(b.step, b.rule, b.field, b.key[common], b.value[common])
        if (a.step, a.rule, a.field) != (b.step, b.rule, b.field) or not torch.equal(a.key, b.key):
            return a, f"{a}: {labels[0]} computes it for other agents, or in another order, than {labels[1]}"
        if a.value.dtype != b.value.dtype or a.value.shape != b.value.shape:
            return a, f"{a}: {a.value.dtype} {tuple(a.value.shape)} {labels[0]}, {b.value.dtype} {tuple(b.value.shape)}"
        rows = differ(a, b).nonzero().squeeze(1)
        if rows.numel():
            at = int(rows[0])
            row = int((mine.key == a.key[at]).nonzero()[0])
            who = f"entry {at}" if a.rule == "observables" else f"agent {int(a.key[at])} (row {row})"
            values = f"{_shown(a.value[at])} {labels[0]} but {_shown(b.value[at])} {labels[1]}"
            return a, f"{a} of {who} is {values}; {rows.numel()} of {a.key.shape[0]} differ"
    return None


def _shown(value: Tensor) -> str:
    return repr(value.tolist()) if value.dim() else repr(value.item())
