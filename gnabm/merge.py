"""Merging what the rules of a phase return into the next state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gnabm.agents import Agents, Column, Stage
from gnabm.columns import Keys
from gnabm.errors import ConflictError, DataError, KindError, ShapeError
from gnabm.linear import carries_gradient
from gnabm.messages import nonzero_rows
from gnabm.rule import Merge, Rule


@dataclass(frozen=True, eq=False)
class Mask:
    """Whom a rule with `where` can change, under an estimator by flags; other runs ask it for its rows alone.

    Args:
        now: (num_agents,) bool.
        structural: (num_agents,) bool of those that it could change if they were in its stage: their values stay, but
            the gradient of what would happen to them passes.
    """

    now: Tensor
    structural: Tensor

    def apply(self, difference: Tensor) -> Tensor:
        """Set a change (num_agents, ...) to 0 where it does not happen, and its gradient where it cannot."""
        shape = (-1, *(1,) * (difference.dim() - 1))
        value_only = difference - difference.detach()  # 0 in value: the change does not happen, its gradient stays
        kept = torch.where(self.now.view(shape), difference, value_only)
        return torch.where(self.structural.view(shape), kept, torch.zeros_like(difference))


@dataclass(frozen=True, eq=False)
class Change:
    """One field that one rule returned.

    Args:
        rule: Name of the rule.
        merge: How it writes.
        rows: (num_rows,) rows of the values, or None for all.
        mask: The agents that can change, under an estimator by flags; None otherwise.
        before: The field in those rows at the start of the phase.
        value: New values or increments.
    """

    rule: str
    merge: Merge
    rows: Tensor | None
    mask: Mask | None
    before: Column
    value: Column


def collect(rule: Rule, returned: Mapping[str, Column], shown: Agents, mask: Mask | None) -> dict[str, Change]:
    """Check what a rule returned against what it declares.

    Args:
        rule: The rule.
        returned: What it returned.
        shown: The agents that it saw.
        mask: The agents that can change, under an estimator by flags; None otherwise.

    Raises:
        DataError: An undeclared field was returned, or a stage that is not in its family.
        KindError: A value has another type than its field.
        ShapeError: A value has not one entry per row.
    """
    if not isinstance(returned, Mapping):
        raise KindError(f"rule {rule.name!r} must return a dict of fields, got {type(returned).__name__}")
    result = {}
    for name, value in returned.items():
        if name not in rule.writes:
            raise DataError(
                f"rule {rule.name!r} returned {name!r} but declares writes = {dict(rule.writes)}; add {name!r} there"
            )
        old = shown.columns[name]
        _refuse_other_kind(rule, name, old, value)
        shape = (shown.num_agents,) if isinstance(old, Stage) else (shown.num_agents, *old.shape[1:])
        got = tuple(_codes(value).shape)
        if got != shape:
            raise ShapeError(f"rule {rule.name!r} returned {name!r} with shape {got}, expected {shape}")
        if isinstance(value, Stage):
            _refuse_other_codes(rule, name, value)
        own = _own(value, shown.state.values())
        result[name] = Change(rule.name, rule.writes[name], shown.rows, mask, getattr(shown, name), own)
    return result


def _own(value: Column, state: Iterable[Column]) -> Column:
    """A value that shares no memory with the state, into which a forward run later writes in place."""
    if torch.is_grad_enabled() or not any(_within(_codes(value), _codes(column)) for column in state):
        return value
    return Stage(value.family, value.codes.clone()) if isinstance(value, Stage) else value.clone()


def _within(value: Tensor, column: Tensor) -> bool:
    memory = column.untyped_storage()
    return memory.data_ptr() <= value.data_ptr() < memory.data_ptr() + memory.nbytes()


def _refuse_other_codes(rule: Rule, name: str, value: Stage) -> None:
    if value.codes.dtype != torch.uint8:
        raise KindError(
            f"rule {rule.name!r} returned {name!r} with codes of {value.codes.dtype}, expected torch.uint8; make it "
            f"with agents.{name}.move(...), or convert the codes with .to(torch.uint8)"
        )
    highest = int(value.codes.max()) if len(value) else 0
    if highest >= len(value.family):
        raise DataError(
            f"rule {rule.name!r} returned {name!r} with code {highest}, but {value.family} has the codes 0 to "
            f"{len(value.family) - 1}; make it with agents.{name}.move(...), or from int(stage) of its members"
        )


def _refuse_other_kind(rule: Rule, name: str, old: Column, value: object) -> None:
    got = str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
    if not isinstance(old, Stage):
        if not isinstance(value, Tensor) or value.dtype != old.dtype:
            raise KindError(f"rule {rule.name!r} returned {name!r} as {got}, expected {old.dtype}")
        return
    if not isinstance(value, Stage):
        raise KindError(f"rule {rule.name!r} returned {name!r} as {got}, expected a Stage (agents.stage.move(...))")
    if value.family != old.family:
        raise KindError(f"rule {rule.name!r} returned {name!r} of {value.family}, expected {old.family}")
    if (value.flags is None) != (old.flags is None):
        raise KindError(
            f"rule {rule.name!r} returned {name!r} without the flags of a differentiable run; make it with "
            f"agents.{name}.move(...), which keeps them"
        )


def merge(name: str, old: Column, changes: Sequence[Change], keys: Tensor) -> Column:
    """The next value of one field.

    Args:
        name: Name of the field.
        old: Its value at the start of the phase.
        changes: What the rules returned, in their order.
        keys: (num_agents,) keys, to name an agent in an error.

    Raises:
        ConflictError: Two exclusive rules changed one agent.
    """
    if isinstance(old, Stage):
        return _merge_stage(name, old, changes, keys)
    new = old
    for change in changes:
        value = change.value
        assert isinstance(value, Tensor)
        if change.merge == "adds":
            if change.mask is not None:
                value = change.mask.apply(value)
            new = new + value if change.rows is None else new.index_add(0, change.rows, value)
        elif change.rows is not None:
            at, rows = changed_rows(change)
            _refuse_overlap(name, old, new, rows, change, changes, keys)
            if carries_gradient(value):
                at, rows = _own_rows(change, changes, at, rows)
            new = new.index_copy(0, rows, value.index_select(0, at))
        elif len(changes) == 1:
            new = value if change.mask is None else torch.where(change.mask.now, value, new)
        else:
            touched = _hard_difference(old, change)
            _refuse_overlap(name, old, new, nonzero_rows(touched), change, changes, keys)
            new = torch.where(touched, value, new)
    return new


def _own_rows(change: Change, changes: Sequence[Change], at: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows that a change writes and no other can: there a value may stay the same and yet have another gradient."""
    others = [other.rows for other in changes if other is not change]
    if change.rows is None or any(other is None for other in others):
        return at, rows
    free = torch.ones(len(change.rows), dtype=torch.bool)
    for other in others:
        assert other is not None
        free &= ~torch.isin(change.rows, other)
    free[at] = True
    at = nonzero_rows(free)
    return at, change.rows.index_select(0, at)


def write_rows(name: str, column: Tensor, changes: Sequence[Change], keys: Keys) -> None:
    """The same as `merge` for changes of rows, into the column itself.

    Args:
        name: Name of the field.
        column: (num_agents, ...) its value; codes for stages. Overwritten.
        changes: What the rules returned, each for some rows, in their order.
        keys: Keys of all agents, to name one in an error.

    Raises:
        ConflictError: Two exclusive rules changed one agent.
    """
    for number, change in enumerate(changes):
        assert change.rows is not None
        new, before = _codes(change.value), _codes(change.before)
        if change.merge == "adds":
            column.index_add_(0, change.rows, new)
            continue
        at = nonzero_rows(_differ(new, before))
        rows, picked = change.rows.index_select(0, at), new.index_select(0, at)
        if number:
            twice = rows[_differ(column.index_select(0, rows), before.index_select(0, at))]
            if twice.numel():
                others = changes[:number]
                raise _conflict(name, others, change, int(keys.take(twice[:1])), twice)
        column.index_copy_(0, rows, picked)


def _merge_stage(name: str, old: Stage, changes: Sequence[Change], keys: Tensor) -> Stage:
    codes, flags = old.codes, old.flags
    for change in changes:
        value = change.value
        assert isinstance(value, Stage)
        if change.rows is not None:
            at, picked = _changed(change)
            _refuse_overlap(name, old.codes, codes, at, change, changes, keys)
            codes = codes.index_copy(0, at, picked)
            continue
        touched = _hard_difference(old.codes, change)
        _refuse_overlap(name, old.codes, codes, nonzero_rows(touched), change, changes, keys)
        codes = torch.where(touched, value.codes, codes)
        if flags is not None and old.flags is not None and value.flags is not None:
            difference = value.flags - old.flags
            if change.mask is not None:
                difference = change.mask.apply(difference)
            flags = flags + difference
    return Stage(old.family, codes, flags)


def _codes(column: Column) -> Tensor:
    return column.codes if isinstance(column, Stage) else column.detach()  # compared, never differentiated


def _hard_difference(old: Tensor, change: Change) -> Tensor:
    different = _codes(change.value) != old.detach()  # which agents moved is no differentiable question
    return different if change.mask is None else different & change.mask.now


def changed_rows(change: Change) -> tuple[Tensor, Tensor]:
    """Those whom a change really changes: their places among the rows that the rule saw, and their rows."""
    different = _differ(_codes(change.value), _codes(change.before)).detach()  # who changed is not learned
    at = nonzero_rows(different if change.mask is None else different & change.mask.now)
    return at, at if change.rows is None else change.rows.index_select(0, at)


def _changed(change: Change) -> tuple[Tensor, Tensor]:
    """Rows that a rule with `where` really changed, and their new values."""
    assert change.rows is not None
    new = _codes(change.value)
    at = nonzero_rows(_differ(new, _codes(change.before)))  # which rows moved is not learned
    return change.rows.index_select(0, at), new.index_select(0, at)


def _refuse_overlap(
    name: str, old: Tensor, new: Tensor, rows: Tensor, change: Change, changes: Sequence[Change], keys: Tensor
) -> None:
    """Refuse rows that an earlier rule of the phase has changed already."""
    if new is old:
        return
    twice = rows[_differ(new.index_select(0, rows), old.index_select(0, rows)).detach()]  # a check, not a value
    if twice.numel():
        raise _conflict(name, changes, change, int(keys[twice[0]]), twice)


def _differ(new: Tensor, old: Tensor) -> Tensor:
    """(n,) bool rows (n, ...) that are not the same."""
    different = new != old
    return different if different.dim() == 1 else different.flatten(1).any(1)


def _conflict(name: str, changes: Sequence[Change], change: Change, key: int, twice: Tensor) -> ConflictError:
    return ConflictError(
        f"rules {_first_writer(changes, twice[0])!r} and {change.rule!r} both change {name!r} of agent {key} in one "
        f"step ({twice.numel()} such agents); make their conditions exclusive or put them in two phases"
    )


def _first_writer(changes: Sequence[Change], row: Tensor) -> str:
    for change in changes:
        if change.rows is None:
            touched = nonzero_rows(_differ(_hard_difference(_codes(change.before), change), torch.tensor(False)))
        else:
            touched = _changed(change)[0]
        if bool((touched == row).any()):
            return change.rule
    raise AssertionError("a row that was changed has a rule that changed it")
