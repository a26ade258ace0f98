"""Arrays of a Zarr group that grow at their end, chunk by chunk, by one writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

Array = NDArray[Any]
_PIECE = 1 << 20
"""Entries that are gathered before they are written."""


class Appender:
    """Writes arrays of which the length is not known beforehand; whole chunks are written once, in order.

    Args:
        folder: Of the group; made here.
        block: Entries per chunk of a long array; a shorter one is a single chunk.
    """

    def __init__(self, folder: Path, block: int) -> None:
        self._root = zarr.create_group(store=str(folder), zarr_format=3)
        self._block = block
        self._waiting: dict[str, list[Array]] = {}
        self._made: dict[str, zarr.Array[Any]] = {}
        self._last: dict[str, int] = {}

    def append(self, name: str, values: Array) -> None:
        """Put values behind those of an array; they must not change until `close`.

        Args:
            name: Path in the group.
            values: (n, ...) entries; all calls for one name agree in dtype and in all axes but the first.
        """
        waiting = self._waiting.setdefault(name, [])
        waiting.append(values)
        if sum(map(len, waiting)) >= max(_PIECE, self._block):
            self._write(name, last=False)

    def append_sizes(self, name: str, sizes: Array) -> None:
        """Put the ends of further places behind those of an array of first members, which begins with 0.

        Args:
            name: Path in the group.
            sizes: (n,) members of each of them.
        """
        if name not in self._last:
            self._last[name] = 0
            self.append(name, np.zeros(1, np.int64))
        ends = self._last[name] + np.cumsum(sizes, dtype=np.int64)
        self.append(name, ends)
        self._last[name] = int(ends[-1]) if len(ends) else self._last[name]

    def close(self, attributes: dict[str, Any]) -> None:
        """Write what waits, then the root attributes."""
        for name in list(self._waiting):
            self._write(name, last=True)
        self._root.attrs.update(attributes)

    def _write(self, name: str, *, last: bool) -> None:
        parts = self._waiting[name]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts)
        number = len(values) if last else len(values) // self._block * self._block
        self._waiting[name] = [] if last else [values[number:].copy()]
        if name not in self._made:
            chunks = (max(1, min(self._block, number)), *values.shape[1:])
            shape = (number, *values.shape[1:])
            self._made[name] = self._root.create_array(name=name, shape=shape, dtype=values.dtype, chunks=chunks)
            first = 0
        elif number:
            first = self._made[name].shape[0]
            self._made[name].resize((first + number, *values.shape[1:]))
        if number:
            self._made[name][first : first + number] = values[:number]
