"""Groups of agents by label, and kernels that count agents by stage and group: all of them, or those who moved.

The group of an agent follows from its labels where it is asked for, so no column of groups is kept. Counts are whole
numbers, so their bits depend neither on threads nor on whether agents were counted anew or followed by their moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnabm.errors import DataError, KindError, UnknownFieldError, nearest
from gnabm.model import GROUPS
from gnabm.random import use_torch_threads
from gnabm.shard import Shard

_NO_LABEL = np.empty(0, dtype=np.uint8)
_MOST_ENTRIES = 1 << 22
"""Entries in the tables of all threads together: fewer threads fill larger tables."""


@dataclass(frozen=True, eq=False)
class Grouping:
    """Rows by group.

    Args:
        dims: Labels that the population has.
        shape: Number of codes of each.
        num_owned: Number of rows.
        columns: At most two label columns (num_owned,) of uint8 codes as the population has them, or one of int32 codes
            of all labels joined.
        sizes: Number of codes of each column.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    num_owned: int
    columns: tuple[Tensor, ...]
    sizes: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of groups."""
        return prod(self.shape)

    @staticmethod
    def of(shard: Shard, by: Sequence[str]) -> Grouping:
        """The grouping by labels; of the default `GROUPS`, by those that the population has.

        Raises:
            UnknownFieldError: The population has no such label.
        """
        if isinstance(by, str):
            raise KindError(f"by must be a tuple of labels, got the string {by!r}; write ({by!r},)")
        labelled = [n for n, f in shard.fields.items() if f.categories is not None and n in shard.columns]
        dims, shape, columns = [], [], []
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
            dims.append(name)
            shape.append(len(categories))
            columns.append(codes)
        if len(columns) > 2 or any(c.dtype != torch.uint8 for c in columns):
            joined = _joined(columns, shape, shard.num_owned)
            return Grouping(tuple(dims), tuple(shape), shard.num_owned, (joined,), (prod(shape),))
        return Grouping(tuple(dims), tuple(shape), shard.num_owned, tuple(columns), tuple(shape))

    def at(self, rows: Tensor) -> Tensor:
        """(num_rows,) int32 groups of some rows (num_rows,) int64."""
        return _joined([c.index_select(0, rows) for c in self.columns], self.sizes, rows.shape[0])

    @cached_property
    def index(self) -> Tensor:
        """(num_owned,) int32 groups of all rows; only sums of what is no flag need them."""
        return _joined(self.columns, self.sizes, self.num_owned)

    def count(self, codes: Tensor, num_codes: int) -> Tensor:
        """Count all rows by code and group.

        Args:
            codes: (num_owned,) uint8, below num_codes.
            num_codes: Number of codes.

        Returns:
            (num_codes, num_groups) int64.

        Raises:
            DataError: A code is not below num_codes.
        """
        out, bad = self._tables(num_codes)
        _count(codes.numpy(), *self._labels(), out.numpy(), bad.numpy())
        _refuse_codes(bad, num_codes)
        return out[0] if len(out) == 1 else out.sum(0)

    def moves(self, before: Tensor, after: Tensor, num_codes: int) -> Tensor:
        """Count the rows whose code changed, by old code, new code and group.

        Args:
            before: (num_owned,) uint8, below num_codes.
            after: (num_owned,) uint8, below num_codes.
            num_codes: Number of codes.

        Returns:
            (num_codes, num_codes, num_groups) int64; the diagonal of rows that stayed is left at 0.

        Raises:
            DataError: A code of a row that moved is not below num_codes.
        """
        out, bad = self._tables(num_codes, num_codes)
        old, new = before.numpy(), after.numpy()
        _count_moves(old, new, _words(old), _words(new), *self._labels(), out.numpy(), bad.numpy())
        _refuse_codes(bad, num_codes)
        return out[0] if len(out) == 1 else out.sum(0)

    def _labels(self) -> tuple[NDArray[Any], NDArray[np.uint8], int]:
        """First and second column, empty where there is none, and number of codes of the second."""
        first, second = [*(c.numpy() for c in self.columns), _NO_LABEL, _NO_LABEL][:2]
        return first, second, self.sizes[1] if len(self.sizes) > 1 else 1

    def _tables(self, *codes: int) -> tuple[Tensor, Tensor]:
        """A table of counts for each thread, and (num_threads,) codes that have no place there."""
        parts = min(use_torch_threads(), max(1, _MOST_ENTRIES // (prod(codes) * self.size)))
        return torch.zeros(parts, *codes, self.size, dtype=torch.int64), torch.zeros(parts, dtype=torch.int64)


def _refuse_codes(bad: Tensor, num_codes: int) -> None:
    wrong = int(bad.sum())
    if wrong:
        raise DataError(
            f"a stage must have a code from 0 to {num_codes - 1}, got {wrong} agents with another; make stages with "
            "agents.stage.move(...)"
        )


def _joined(columns: Sequence[Tensor], shape: Sequence[int], length: int) -> Tensor:
    """(length,) int32 groups of label columns with numbers of codes."""
    group = torch.zeros(length, dtype=torch.int32)
    for column, size in zip(columns, shape, strict=True):
        group.mul_(size).add_(column)
    return group


def _words(codes: NDArray[Any]) -> NDArray[np.uint64]:
    """Whole 8-byte words of the codes; of codes that begin between two words, a copy's."""
    whole = codes[: codes.size // 8 * 8]
    return (whole if whole.ctypes.data % 8 == 0 else whole.copy()).view(np.uint64)


@numba.njit(cache=True, nogil=True)
def _group(row, first, second, num_second):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    code = np.int64(first[row]) if first.size else np.int64(0)
    return code * num_second + np.int64(second[row]) if second.size else code


@numba.njit(parallel=True, cache=True, nogil=True)
def _count(codes, first, second, num_second, out, bad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    parts = out.shape[0]
    for part in numba.prange(parts):
        for row in range(codes.size * part // parts, codes.size * (part + 1) // parts):
            if codes[row] < out.shape[1]:
                out[part, codes[row], _group(row, first, second, num_second)] += 1
            else:
                bad[part] += 1


@numba.njit(inline="always")
def _count_move(part, row, before, after, first, second, num_second, out, bad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    if before[row] < out.shape[1] and after[row] < out.shape[2]:
        out[part, before[row], after[row], _group(row, first, second, num_second)] += 1
    else:
        bad[part] += 1


@numba.njit(parallel=True, cache=True, nogil=True)
def _count_moves(before, after, old, new, first, second, num_second, out, bad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    # Few agents move in a step, so eight of them are compared at once, and only those who moved look up their group.
    parts = out.shape[0]
    for part in numba.prange(parts):
        for word in range(old.size * part // parts, old.size * (part + 1) // parts):
            if old[word] != new[word]:
                for row in range(word * 8, word * 8 + 8):
                    if before[row] != after[row]:
                        _count_move(part, row, before, after, first, second, num_second, out, bad)
    for row in range(old.size * 8, before.size):
        if before[row] != after[row]:
            _count_move(0, row, before, after, first, second, num_second, out, bad)
