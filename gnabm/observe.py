"""Observables of a step, summed within groups over all shards in one exact reduction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gnabm.agents import Agents, Stage
from gnabm.errors import DataError, KindError, ShapeError, UnknownFieldError, nearest
from gnabm.exchange import from_fixed, to_fixed, total
from gnabm.messages import count_pairs, nonzero_rows
from gnabm.model import GROUPS, Observable
from gnabm.shard import Shard


@dataclass(frozen=True, eq=False)
class Grouping:
    """Rows by group.

    Args:
        dims: Labels that the population has.
        shape: Number of codes of each.
        index: (num_owned,) int32 group of each row.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    index: Tensor

    @property
    def size(self) -> int:
        """Number of groups."""
        return int(torch.tensor(self.shape).prod()) if self.shape else 1

    @staticmethod
    def of(shard: Shard, by: Sequence[str]) -> Grouping:
        """The grouping by labels; of the default `GROUPS`, by those that the population has.

        Raises:
            UnknownFieldError: The population has no such label.
        """
        if isinstance(by, str):
            raise KindError(f"by must be a tuple of labels, got the string {by!r}; write ({by!r},)")
        labelled = [n for n, f in shard.fields.items() if f.categories is not None and n in shard.columns]
        dims, shape = [], []
        index = torch.zeros(shard.num_owned, dtype=torch.int32)
        for name in by:
            categories = shard.fields[name].categories if name in shard.fields else None
            if categories is None or name not in shard.columns:
                if tuple(by) == GROUPS:
                    continue
                raise UnknownFieldError(
                    f"cannot group observables by {name!r}: no column of the population with categories; "
                    f"{nearest(name, labelled)}"
                )
            codes = shard.columns[name]
            if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < len(categories):
                raise DataError(f"column {name!r} has codes outside its {len(categories)} categories")
            index = index * len(categories) + codes.to(torch.int32)
            dims.append(name)
            shape.append(len(categories))
        return Grouping(tuple(dims), tuple(shape), index)


class Observer:
    """Computes all observables of a step.

    Args:
        observables: What to observe.
        shard: The shard.
    """

    def __init__(self, observables: Sequence[Observable], shard: Shard) -> None:
        self.observables, self.group = observables, shard.group
        self.groupings = {by: Grouping.of(shard, by) for by in {o.by for o in observables}}

    def __call__(self, before: Agents, after: Agents) -> Mapping[str, Tensor]:
        """Values by name, each (stages?, groups...): int64 for counts, float64 for floats."""
        if torch.is_grad_enabled():
            return {o.name: self._differentiable(o, before, after) for o in self.observables}
        tables, likes = [], []
        for observable in self.observables:
            value = _value(observable, before, after)
            tables.append(self._table(value, self.groupings[observable.by]))
            likes.append(value)
        if not tables:
            return {}
        reduced = self.group.all_reduce(torch.cat([t.reshape(-1) for t in tables]))
        result = {}
        parts = torch.split(reduced, [t.numel() for t in tables])
        for observable, part, like in zip(self.observables, parts, likes, strict=True):
            grouping = self.groupings[observable.by]
            shape = (len(like.family), *grouping.shape) if isinstance(like, Stage) else grouping.shape
            if not isinstance(like, Stage) and like.dtype != torch.bool:  # these are counted, not summed
                part = from_fixed(part, like)
            result[observable.name] = part.reshape(shape)
        return result

    def _table(self, value: Tensor | Stage, grouping: Grouping) -> Tensor:
        if isinstance(value, Stage):
            return count_pairs(value.codes, grouping.index, len(value.family), grouping.size)
        if value.dtype == torch.bool:
            rows = nonzero_rows(value)
            return torch.bincount(grouping.index.index_select(0, rows), minlength=grouping.size)
        return to_fixed(value, grouping.index, grouping.size)

    def _differentiable(self, observable: Observable, before: Agents, after: Agents) -> Tensor:
        value = _value(observable, before, after)
        grouping = self.groupings[observable.by]
        index = grouping.index.to(torch.int64)
        if isinstance(value, Stage):
            counts = [total(self.group, value.is_(s), index, grouping.size) for s in value.family]
            return torch.stack(counts).reshape(len(counts), *grouping.shape)
        return total(self.group, value, index, grouping.size).reshape(grouping.shape)


def _value(observable: Observable, before: Agents, after: Agents) -> Tensor | Stage:
    value = observable.value(before, after)
    if isinstance(value, Stage) != (observable.counts is not None):
        raise KindError(
            f"observable {observable.name!r} returned {'a Stage' if isinstance(value, Stage) else 'no Stage'} with "
            f"counts={observable.counts!r}; name the stage's field there, and only there"
        )
    if len(value) != after.num_agents:
        raise ShapeError(f"observable {observable.name!r} returned {len(value)} values for {after.num_agents} agents")
    return value
