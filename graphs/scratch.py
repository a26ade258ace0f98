"""Scratch: what one pass of a build leaves for the next, on disk, so that memory holds a few districts only."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gnabm.errors import StoreError


class Scratch:
    """Named runs of entries in the files of one folder.

    Args:
        folder: Made here; `clear` removes it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._bytes: dict[str, int] = {}

    def append(self, name: str, entries: NDArray[Any]) -> None:
        """Put entries (n,) behind those of the same name.

        Raises:
            OSError: they could not all be written; its `errno` says why.
        """
        content = np.ascontiguousarray(entries).view(np.uint8)
        with (self._folder / name).open("ab") as file:
            file.write(content.data)  # `tofile` drops what a full device refuses, or why it did
        self._bytes[name] = self._bytes.get(name, 0) + len(content)

    def read(self, name: str, dtype: DTypeLike, first: int = 0, number: int | None = None) -> NDArray[Any]:
        """Entries of a name; none where nothing was put.

        Args:
            name: As in `append`.
            dtype: As that of the entries.
            first: First entry.
            number: Entries to read; None for all from the first on.

        Raises:
            StoreError: fewer entries are there than were put, or asked for.
        """
        kind = np.dtype(dtype)
        wanted = self._bytes.get(name, 0) // kind.itemsize - first if number is None else number
        if wanted == 0:
            return np.empty(0, kind)
        path = self._folder / name
        found = np.fromfile(path, kind, wanted, offset=first * kind.itemsize) if path.exists() else np.empty(0, kind)
        if len(found) != wanted:
            raise StoreError(
                f"{path}: expected {wanted} entries from entry {first} on, got {len(found)}: what this build had "
                "written there is gone; leave its folder alone while it runs, check the disk, and build again"
            )
        return found

    def clear(self) -> None:
        """Remove everything."""
        shutil.rmtree(self._folder)
