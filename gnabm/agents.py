"""Agents: a frozen record of tensors, one row per agent, and the stage that most rules move.

A column is a tensor (num_agents,) or a `Stage`. A `Field` says what it means. `agents.key` (int64) is who an agent
is, whatever row it has: every draw hangs on it.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from gnabm.columns import Columns, Keys
from gnabm.errors import DataError, KindError, ShapeError, UnknownFieldError, nearest
from gnabm.messages import rows_where


@dataclass(frozen=True)
class Field:
    """What a column is.

    Args:
        name: Name of the column.
        meaning: One line for people.
        unit: Unit of its values, empty for labels.
        categories: Names of the codes 0, 1, ... of a label.
    """

    name: str
    meaning: str = ""
    unit: str = ""
    categories: tuple[str, ...] | None = None


class StageName(int):
    """One stage of a family: an int with a name."""

    name: str
    family: Stages

    def __new__(cls, code: int, name: str, family: Stages) -> StageName:
        """Make the code that also knows its name and family."""
        made = super().__new__(cls, code)
        made.name, made.family = name, family
        return made

    def __repr__(self) -> str:
        """Return the name."""
        return self.name

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild through the family, so that a pickled rule finds its own stages again."""
        return (_stage_name, (self.family.names, int(self)))


class Stages:
    """A family of stages, such as `S, I, R = Stages("S", "I", "R")`.

    Args:
        names: At most 255 different names, in the order of their codes.
    """

    def __init__(self, *names: str) -> None:
        if not 1 <= len(names) <= 255 or len(set(names)) != len(names):
            raise DataError(f"stages need between 1 and 255 different names, got {names}")
        self.names = tuple(names)
        self._members = tuple(StageName(code, name, self) for code, name in enumerate(names))

    def __iter__(self) -> Iterator[StageName]:
        """Iterate over the stages in the order of their codes."""
        return iter(self._members)

    def __len__(self) -> int:
        """Return the number of stages."""
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        """Families with the same names are the same."""
        return isinstance(other, Stages) and other.names == self.names

    def __hash__(self) -> int:
        """Hash of the names."""
        return hash(self.names)

    def __repr__(self) -> str:
        """Return the names."""
        return f"Stages{self.names}"


def _stage_name(names: tuple[str, ...], code: int) -> StageName:
    return tuple(Stages(*names))[code]


class Stage:
    """The stage of each agent: one byte in a forward run, float flags besides in a run whose estimator works on flags.

    Args:
        family: The stages there are.
        codes: (n,) uint8; what a forward run keeps.
        flags: (n, num_stages) float, one-hot in value and carrying the gradient of the moves; None in a forward run.
    """

    def __init__(self, family: Stages, codes: Tensor, flags: Tensor | None = None) -> None:
        self.family, self.codes, self.flags = family, codes, flags
        self._is: dict[int, Tensor] = {}
        self._rows: dict[int, Tensor] = {}

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.codes.shape[0]

    def _check(self, stage: int) -> None:
        if not isinstance(stage, StageName) or stage.family != self.family:
            raise UnknownFieldError(f"{stage!r} is no stage of {self.family}; use one of its members")

    def is_(self, stage: StageName) -> Tensor:
        """Whether each agent is in a stage.

        Returns:
            (n,) bool in a forward run, float flags that carry gradient under an estimator by flags.
        """
        self._check(stage)
        if int(stage) not in self._is:
            # Kept, because messages of one field share one exchange: they recognise the field by its tensor.
            self._is[int(stage)] = self.codes == int(stage) if self.flags is None else self.flags.select(1, int(stage))
        return self._is[int(stage)]

    def rows(self, stage: StageName) -> Tensor:
        """(n,) int64 rows in a stage, ascending."""
        self._check(stage)
        if int(stage) not in self._rows:
            self._rows[int(stage)] = rows_where(self.codes, int(stage))
        return self._rows[int(stage)]

    def all_in(self, stage: StageName, rows: Tensor) -> Stage:
        """The stage of some rows (n,) that have all entered one."""
        self._check(stage)
        return Stage(self.family, torch.full(rows.shape, int(stage), dtype=torch.uint8))

    def move(self, source: StageName, target: StageName, moving: Tensor) -> Stage:
        """Move the agents of one stage for which `moving` holds to another; the others stay.

        Args:
            source: Stage to leave.
            target: Stage to enter.
            moving: (n,) bool or float flags (differentiable); a draw of `step.bernoulli` goes in as it is, so that
                the gradient of a draw with `where=` finds its way.

        Returns:
            The new stage; the old one is unchanged.
        """
        self._check(source)
        self._check(target)
        if moving.shape != self.codes.shape:
            raise ShapeError(f"move needs one flag per row ({len(self)},), got {tuple(moving.shape)}")
        chosen = (moving.detach() != 0) & (self.codes == int(source))  # the gradient travels in the flags below
        codes = torch.where(chosen, torch.tensor(int(target), dtype=torch.uint8), self.codes)
        if self.flags is None:
            return Stage(self.family, codes)
        eye = torch.eye(len(self.family), dtype=self.flags.dtype)
        # An agent that is not in the source stage moves nowhere, but would if it were there: its draw, taken before
        # `where=` set it to 0, carries that.
        unmasked, allowed = getattr(moving, "draw", (moving, self.codes == int(source)))
        drawn = torch.where(allowed | (self.codes != int(source)), unmasked, moving)
        moved = self.flags.select(1, int(source)) * drawn
        step = moved.to(self.flags.dtype).unsqueeze(1) * (eye[int(target)] - eye[int(source)])
        return Stage(self.family, codes, self.flags + step)

    def take(self, rows: Tensor) -> Stage:
        """The stage of some rows."""
        flags = None if self.flags is None else self.flags.index_select(0, rows)
        return Stage(self.family, self.codes.index_select(0, rows), flags)

    def copy(self) -> Stage:
        """The same stages in memory of their own, without gradient."""
        flags = None if self.flags is None else self.flags.detach().clone()  # a copy is data
        return Stage(self.family, self.codes.clone(), flags)

    def with_flags(self, dtype: torch.dtype) -> Stage:
        """The same stages as one-hot float flags."""
        flags = torch.nn.functional.one_hot(self.codes.long(), len(self.family)).to(dtype)
        return Stage(self.family, self.codes, flags)


Column = Tensor | Stage


class Agents:
    """A frozen record of columns; `agents.age` is a column.

    Rules with `where` see only the rows that can change: `agents.stage` then has those rows, and
    `agents.everyone` is the record of all rows, which is what messages are sent from.

    Args:
        columns: State columns with equal numbers of rows; without attributes, `key` among them.
        fields: What the columns mean.
        rows: (num_rows,) int64 rows of `everyone` that this record shows, or None for all.
        attributes: Columns of the population, `key` among them, read when they are first asked for.
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        fields: Mapping[str, Field] | None = None,
        rows: Tensor | None = None,
        attributes: Columns | None = None,
    ) -> None:
        if "key" not in columns and attributes is None:
            raise UnknownFieldError("agents need a column `key`; use torch.arange(num_agents) when rows are identity")
        lengths = {name: len(column) for name, column in columns.items()}
        if len({*lengths.values(), *([] if attributes is None else [attributes.keys_of_rows.number])}) > 1:
            raise ShapeError(f"columns must have one row per agent, got {lengths}")
        self._state, self._fields, self._rows, self._attributes = dict(columns), dict(fields or {}), rows, attributes
        known = self._state if attributes is None else ChainMap(self._state, cast("dict[str, Column]", attributes))
        self._columns: Mapping[str, Column] = known
        self._taken: dict[str, Column] = {}

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """Return a column by name: a tensor, or a Stage."""
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._columns:
            raise UnknownFieldError(f"agents have no field {name!r}; {nearest(name, self._columns)}")
        if self._rows is None:
            return self._columns[name]
        if name not in self._taken:
            self._taken[name] = self._at(name, self._rows)
        return self._taken[name]

    def _at(self, name: str, rows: Tensor) -> Column:
        if name == "key":
            return self.keys_at(rows)
        column = self._columns[name]
        return column.take(rows) if isinstance(column, Stage) else column.index_select(0, rows)

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: state is changed by what a rule returns."""
        if not name.startswith("_"):
            raise KindError(f"agents are frozen; return {{{name!r}: ...}} from the rule instead of assigning it")
        super().__setattr__(name, value)

    def __contains__(self, name: object) -> bool:
        """Whether there is such a column."""
        return name in self._columns

    def __len__(self) -> int:
        """Return the number of rows shown."""
        return self.num_agents

    @property
    def num_agents(self) -> int:
        """Number of rows shown."""
        return self.keys.number if self._rows is None else self._rows.shape[0]

    @property
    def keys(self) -> Keys:
        """Keys of all rows; unlike `agents.key` it takes no memory where the keys are the rows' numbers."""
        if self._attributes is not None:
            return self._attributes.keys_of_rows
        key = self._state["key"]
        assert isinstance(key, Tensor)
        return Keys(0, key.shape[0], key)

    def keys_at(self, rows: Tensor) -> Tensor:
        """(n,) int64 keys of some rows (n,) of `everyone`."""
        return self.keys.take(rows)

    @property
    def rows(self) -> Tensor | None:
        """(num_rows,) rows of `everyone` that are shown, or None for all."""
        return self._rows

    @property
    def everyone(self) -> Agents:
        """The record of all rows."""
        return self if self._rows is None else self._with(self._state)

    @property
    def columns(self) -> Mapping[str, Column]:
        """Columns of all rows, by name."""
        return self._columns

    @property
    def state(self) -> Mapping[str, Column]:
        """State columns of all rows, by name."""
        return self._state

    @property
    def fields(self) -> Mapping[str, Field]:
        """What the columns mean."""
        return self._fields

    def versions(self) -> dict[int, tuple[str, Tensor, int]]:
        """How often each tensor of this record was written in place: by identity, its column, itself, the count."""
        found = {}
        read = {} if self._attributes is None else self._attributes.in_memory
        for name, column in [*read.items(), *self._state.items(), *self._taken.items()]:
            flags = () if not isinstance(column, Stage) or column.flags is None else (column.flags,)
            parts = (column.codes, *flags, *column._is.values()) if isinstance(column, Stage) else (column,)
            for part in parts:
                found[id(part)] = (name, part, part._version)
        return found

    def with_open_stages(self) -> Agents:
        """The same agents with every stage flag set, as a rule's `where` would see an agent that is in its stage."""
        opened = {
            name: Stage(c.family, c.codes, torch.ones(len(c), len(c.family)))
            for name, c in self._state.items()
            if isinstance(c, Stage)
        }
        return self.replace(opened)

    def only(self, rows: Tensor) -> Agents:
        """The same agents, showing only some rows.

        Args:
            rows: (num_rows,) int64, ascending.
        """
        return self._with(self._state, rows)

    def replace(self, changes: Mapping[str, Column]) -> Agents:
        """A record of all rows with some columns replaced."""
        return self._with({**self._state, **changes})

    def _with(self, state: Mapping[str, Column], rows: Tensor | None = None) -> Agents:
        return Agents(state, self._fields, rows, self._attributes)
