"""Observables of a step, summed within groups over all shards in one exact reduction.

What counts agents by stage follows from those who moved (`OfMoves`): a forward run keeps a table of counts for each
stage field and grouping, and only compares the stages before and after a step. Anything else is asked of all agents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeGuard

import torch
from torch import Tensor

from gnabm.agents import Agents, Stage
from gnabm.errors import KindError, ShapeError
from gnabm.exchange import from_fixed, to_fixed, total
from gnabm.grouping import Grouping
from gnabm.messages import nonzero_rows
from gnabm.model import Observable, OfMoves
from gnabm.sampling import weighed
from gnabm.shard import Shard


class Tally:
    """The agents of a shard by stage and group, kept up to date by their moves.

    Args:
        field: The stage field.
        grouping: The groups.
    """

    def __init__(self, field: str, grouping: Grouping) -> None:
        self.field, self.grouping = field, grouping
        self.counts: Tensor | None = None

    def __call__(self, before: Agents, after: Agents) -> tuple[Tensor, Tensor]:
        """Take note of a step that follows on the last one.

        Returns:
            (num_stages, num_groups) agents at its end and (num_stages, num_stages, num_groups) moves in it, int64.
        """
        old, new = getattr(before, self.field), getattr(after, self.field)
        moves = self.grouping.moves(old.codes, new.codes, len(new.family))
        if self.counts is None:
            self.counts = self.grouping.count(new.codes, len(new.family))
        else:
            self.counts = self.counts + moves.sum(0) - moves.sum(1)
        return self.counts, moves


class Observer:
    """Computes all observables of a step.

    Args:
        observables: What to observe.
        shard: The shard.
        plain: Ask every observable of all agents, as a differentiable run must; the numbers are the same.
    """

    def __init__(self, observables: Sequence[Observable], shard: Shard, *, plain: bool = False) -> None:
        self.observables, self.group = tuple(observables), shard.group
        self.groupings = {by: Grouping.of(shard, by) for by in {o.by for o in observables}}
        self.of_moves = {} if plain else {o.name: o.value for o in observables if _follows_from_moves(o.value)}
        self.needs_before = len(self.of_moves) < len(self.observables)
        """Whether an observable may read any column as it was at the start of the step, not only the stages."""
        self.tallies: dict[tuple[str, tuple[str, ...]], Tally] = {}

    def __call__(self, before: Agents, after: Agents, weights: Tensor | None = None) -> Mapping[str, Tensor]:
        """Values by name, each (stages?, groups...): int64 for counts, float64 for floats.

        Args:
            before: The agents at the start of the step: those that were `after` in the last call, if there was one.
            after: The agents at its end.
            weights: (num_agents,) weight of each agent, 1 in value, or None; with weights everything is float64.
        """
        if weights is not None or torch.is_grad_enabled():
            return {o.name: self._differentiable(o, before, after, weights) for o in self.observables}
        found = self._of_moves(before, after)
        likes: list[Tensor | None] = []
        for observable in self.observables:
            like = None  # of whole numbers
            if observable.name not in found:
                value = _value(observable, before, after)
                found[observable.name] = _table(value, self.groupings[observable.by])
                like = value if isinstance(value, Tensor) and value.dtype != torch.bool else None
            likes.append(like)
        if not found:
            return {}
        tables = [found[o.name] for o in self.observables]
        reduced = self.group.all_reduce(torch.cat([t.reshape(-1) for t in tables]))
        parts = torch.split(reduced, [t.numel() for t in tables])
        result = {}
        for observable, part, like in zip(self.observables, parts, likes, strict=True):
            shape = self.groupings[observable.by].shape
            value = part if like is None else from_fixed(part, like)
            result[observable.name] = value.reshape(shape if observable.counts is None else (-1, *shape))
        return result

    def forget(self) -> None:
        """Begin anew: the agents that come next do not follow from those that were seen last."""
        self.tallies = {}

    def _of_moves(self, before: Agents, after: Agents) -> dict[str, Tensor]:
        if self.of_moves and not self.tallies:
            self._begin(after)
        moved = {key: tally(before, after) for key, tally in self.tallies.items()}
        found = {}
        for observable in self.observables:
            if observable.name in self.of_moves:
                value = self.of_moves[observable.name]
                counts, moves = moved[value.field, observable.by]
                found[observable.name] = table = value.of_moves(counts, moves)
                expected = counts.shape if observable.counts is not None else counts.shape[1:]
                if table.shape != expected or table.dtype != torch.int64:
                    raise ShapeError(
                        f"of_moves of observable {observable.name!r} must return {tuple(expected)} int64, got "
                        f"{tuple(table.shape)} {table.dtype}"
                    )
        return found

    def _begin(self, agents: Agents) -> None:
        """Begin the tallies, of observables whose plain form counts agents too: it is asked of nobody."""
        nobody = agents.only(torch.empty(0, dtype=torch.int64))
        for observable in self.observables:
            if observable.name in self.of_moves:
                value = _value(observable, nobody, nobody)
                if isinstance(value, Tensor) and value.dtype != torch.bool:
                    raise KindError(
                        f"observable {observable.name!r} has of_moves, which counts agents, but its value is "
                        f"{value.dtype}; return flags or a Stage, or leave of_moves out"
                    )
                field = self.of_moves[observable.name].field
                self.tallies[field, observable.by] = Tally(field, self.groupings[observable.by])

    def _differentiable(self, observable: Observable, before: Agents, after: Agents, weights: Tensor | None) -> Tensor:
        value = _value(observable, before, after)
        grouping = self.groupings[observable.by]
        if isinstance(value, Stage):
            shape = (len(value.family), *grouping.shape)
            if weights is None:
                counts = [total(self.group, value.is_(s), grouping.index, grouping.size) for s in value.family]
                return torch.stack(counts).reshape(shape)
            index = value.codes.to(torch.int32) * grouping.size + grouping.index
            return total(self.group, weights, index, len(value.family) * grouping.size).reshape(shape)
        if weights is None:
            return total(self.group, value, grouping.index, grouping.size).reshape(grouping.shape)
        if value.dtype == torch.bool:  # few agents have what is counted here
            rows = nonzero_rows(value)
            shown, index = weights.index_select(0, rows), grouping.at(rows)
        else:
            shown, index = weighed(value, weights), grouping.index
        return total(self.group, shown, index, grouping.size).reshape(grouping.shape)


def _follows_from_moves(value: object) -> TypeGuard[OfMoves]:
    """Whether a value is `OfMoves`; a subclass that is called otherwise must say again what that counts."""
    for kind in type(value).__mro__ if isinstance(value, OfMoves) else ():
        if "of_moves" in vars(kind):
            return True
        if "__call__" in vars(kind):
            return False
    return False


def _table(value: Tensor | Stage, grouping: Grouping) -> Tensor:
    if isinstance(value, Stage):
        return grouping.count(value.codes, len(value.family))
    if value.dtype == torch.bool:
        return torch.bincount(grouping.at(nonzero_rows(value)), minlength=grouping.size)
    return to_fixed(value, grouping.index, grouping.size)


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
