"""The run that `--overwrite` replaces: kept until the new one has done its first step."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

ASIDE, DISCARDED = ".earlier", ".discarded"


class EarlierRun:
    """What an earlier run left in a folder; other files there are never touched.

    Args:
        folder: Run folder, which need not exist.
        names: The files and folders in it that belong to a run.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names, self.made = folder, names, not folder.exists()
        self.is_aside = False

    def set_aside(self) -> None:
        """Move an earlier run out of the way, within its folder, so that nothing is copied."""
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = self.folder / ASIDE
        if aside.exists():  # the run that set it aside was killed before its first step
            self._move_back(aside)
        _remove(self.folder / DISCARDED)
        there = [name for name in self.names if (self.folder / name).exists()]
        if there:
            aside.mkdir()
        for name in there:
            (self.folder / name).rename(aside / name)
        self.is_aside = True

    def restore(self) -> None:
        """Take away what the new run wrote and put the earlier one back."""
        from gnabm.writers import settle

        settle()
        if self.made:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        aside = self.folder / ASIDE
        for name in self.names if self.is_aside else ():
            _remove(self.folder / name)
        if aside.exists():
            self._move_back(aside)

    def discard(self) -> None:
        """Delete the earlier run. Renamed first: a folder of that name that is left over is never restored."""
        aside, gone = self.folder / ASIDE, self.folder / DISCARDED
        if aside.exists():
            aside.rename(gone)
            _remove(gone)

    def _move_back(self, aside: Path) -> None:
        for kept in aside.iterdir():
            _remove(self.folder / kept.name)
            kept.rename(self.folder / kept.name)
        aside.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
