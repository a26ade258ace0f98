"""Attribute columns of a run of rows, read when they are first asked for, and the keys of these rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ROWS_PER_READ = 1 << 20
_NO_KEYS = np.empty(0, dtype=np.int64)


def read_rows(array: Any, low: int, high: int, dtype: Any = None) -> NDArray[Any]:  # noqa: ANN401
    """The rows [low, high) of a NumPy or Zarr array in memory of their own, never there twice.

    Args:
        array: Has shape and dtype; a slice of it is a NumPy array.
        low: First row.
        high: Row after the last.
        dtype: Type of the result; that of the array by default.
    """
    out = np.empty((high - low, *array.shape[1:]), dtype=array.dtype if dtype is None else dtype)
    for at in range(low, high, _ROWS_PER_READ):
        end = min(at + _ROWS_PER_READ, high)
        out[at - low : end - low] = array[at:end]
    return out


@numba.njit(cache=True, nogil=True)
def _encode(values, table, used, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    last = 0
    for i in range(values.size):
        if not (last < used and table[last] == values[i]):  # neighbours are often alike
            last = 0
            while last < used and table[last] != values[i]:
                last += 1
            if last == table.size:
                return -1
            if last == used:
                table[used] = values[i]
                used += 1
        out[i] = last
    return used


def coded(array: Any, low: int, high: int) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """The rows [low, high) of an array of few different values, as codes and a table.

    Args:
        array: (num_rows,) float32 NumPy or Zarr array.
        low: First row.
        high: Row after the last.

    Returns:
        (n,) codes, uint8 where there are at most 256 values and int32 otherwise, and (num_codes,) float32 values.
    """
    table, used, code = np.empty(256, dtype=np.float32), 0, np.empty(high - low, dtype=np.uint8)
    for at in range(low, high, _ROWS_PER_READ):
        end = min(at + _ROWS_PER_READ, high)
        used = _encode(np.asarray(array[at:end], dtype=np.float32), table, used, code[at - low : end - low])
        if used < 0:
            values, many = np.unique(read_rows(array, low, high, np.float32), return_inverse=True)
            return torch.from_numpy(many.astype(np.int32)), torch.from_numpy(values)
    return torch.from_numpy(code), torch.from_numpy(table[:used].copy())


@dataclass(frozen=True, eq=False)
class Keys:
    """Who the agents of some rows are: given keys, or the rows' own numbers.

    Args:
        first: Row of the first agent, its key where none are given.
        number: Number of rows.
        given: (number,) int64 keys, or None.
    """

    first: int
    number: int
    given: Tensor | None = None

    @property
    def words(self) -> tuple[int, NDArray[np.int64]]:
        """What a kernel needs: the first key, and the keys; none where they count on from the first."""
        return self.first, _NO_KEYS if self.given is None else self.given.numpy()

    def take(self, rows: Tensor) -> Tensor:
        """(n,) int64 keys of some rows (n,)."""
        return rows.to(torch.int64) + self.first if self.given is None else self.given.index_select(0, rows)

    def all(self) -> Tensor:
        """(number,) int64."""
        return torch.arange(self.first, self.first + self.number) if self.given is None else self.given


class Columns(Mapping[str, Tensor]):
    """Columns by name, each read when it is first asked for; `key` is always among them.

    Args:
        arrays: NumPy or Zarr arrays over the whole population.
        low: First row.
        high: Row after the last.
    """

    def __init__(self, arrays: Mapping[str, Any], low: int, high: int) -> None:
        self._arrays, self._low, self._high = arrays, low, high
        given = torch.from_numpy(read_rows(arrays["key"], low, high, np.int64)) if "key" in arrays else None
        self.keys_of_rows = Keys(low, high - low, given)
        self._read: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        """Return a column (num_rows,)."""
        if name not in self._read:
            if name == "key":
                self._read[name] = self.keys_of_rows.all()
            else:
                self._read[name] = torch.from_numpy(read_rows(self._arrays[name], self._low, self._high))
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is such a column; it is not read."""
        return name == "key" or name in self._arrays

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(dict.fromkeys(("key", *self._arrays)))

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self._arrays) + ("key" not in self._arrays)

    @property
    def in_memory(self) -> Mapping[str, Tensor]:
        """The columns that were read."""
        return self._read
