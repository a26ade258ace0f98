"""The files beside the page: one CSV and one PNG per figure, in a folder that is replaced as a whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from gnabm.errors import OutputExistsError
from gnabm.report.figure import Figure
from gnabm.report.images import draw

KINDS = (".csv", ".png")
BY_SEED = "_by_seed"


def folder_of(page: Path) -> Path:
    """The folder of a page: `report` beside report.html, `name_report` beside name.html."""
    stem = page.stem
    return page.with_name(stem if stem.endswith("report") else f"{stem}_report")


def check_folder(folder: Path) -> None:
    """Refuse a place that holds anything but the files of a report.

    Raises:
        OutputExistsError: There is something else.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not folder.is_dir():
        raise OutputExistsError(f"{folder} is no folder; the files of the report go there, choose another --out")
    foreign = [entry.name for entry in folder.iterdir() if not entry.is_file() or entry.suffix not in KINDS]
    if foreign:
        raise OutputExistsError(
            f"{folder} holds {sorted(foreign)[0]!r}, which is no file of a report; choose another --out or move it away"
        )


def write_files(folder: Path, figures: Iterable[Figure], tables: Mapping[str, pd.DataFrame]) -> list[Path]:
    """Write the figures and tables of a report.

    Args:
        folder: Folder of them, which replaces an earlier one.
        figures: Figures, each with its table.
        tables: More tables, by stem.

    Returns:
        The files.

    Raises:
        OutputExistsError: The folder holds something that no report wrote.
    """
    check_folder(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for figure in figures:
            draw(figure, partial / f"{figure.name}.png")
            figure.table.to_csv(partial / f"{figure.name}.csv", index=False)
            if figure.by_seed is not None:
                figure.by_seed.to_csv(partial / f"{figure.name}{BY_SEED}.csv", index=False)
        for stem, table in tables.items():
            table.to_csv(partial / f"{stem}.csv", index=False)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sorted(folder.iterdir())
