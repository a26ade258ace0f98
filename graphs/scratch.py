"""Scratch: what one pass of a build leaves for the next, on disk, so that memory holds a few districts only."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Scratch:
    """Named runs of entries in the files of one folder.

    Args:
        folder: Made here; `clear` removes it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder

    def append(self, name: str, entries: NDArray[Any]) -> None:
        """Put entries behind those of the same name."""
        with (self._folder / name).open("ab") as file:
            entries.tofile(file)

    def read(self, name: str, dtype: DTypeLike, first: int = 0, number: int = -1) -> NDArray[Any]:
        """Entries of a name, all from `first` on or `number` of them; none where nothing was put."""
        path = self._folder / name
        if not path.exists() or number == 0:
            return np.empty(0, dtype)
        kind = np.dtype(dtype)
        return np.fromfile(path, kind, number, offset=first * kind.itemsize)

    def clear(self) -> None:
        """Remove everything."""
        shutil.rmtree(self._folder)
