"""The files beside the page: one CSV and one PNG per figure, replaced as a whole together with the page."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from gnabm.errors import OutputExistsError
from gnabm.report.figure import Figure
from gnabm.report.images import draw

BY_SEED = "_by_seed"
MANIFEST = "manifest.json"
"""Names the files that a report wrote into its folder: what stands there beside them is somebody else's."""


def folder_of(page: Path) -> Path:
    """The folder of a page: `report` beside report.html, `name_report` beside name.html."""
    stem = page.stem
    return page.with_name(stem if stem.endswith("report") else f"{stem}_report")


def check_folder(folder: Path) -> None:
    """Refuse a place that holds anything but the files that a report says are its own.

    Raises:
        OutputExistsError: There is something else.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not folder.is_dir():
        raise OutputExistsError(f"{folder} is no folder; the files of the report go there, choose another --out")
    found = sorted(entry.name for entry in folder.iterdir())
    if found and MANIFEST not in found:
        raise OutputExistsError(
            f"{folder} has no {MANIFEST}, so no report wrote it; move it away or choose another --out"
        )
    try:
        own = {MANIFEST, *json.loads((folder / MANIFEST).read_text("utf-8"))["files"]} if found else set()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise OutputExistsError(
            f"{folder / MANIFEST} cannot be read ({error}); move {folder} away or choose another --out"
        ) from error
    foreign = [name for name in found if name not in own or not (folder / name).is_file()]
    if foreign:
        raise OutputExistsError(
            f"{folder} holds {foreign[0]!r}, which no report wrote; move it away or choose another --out"
        )


def replace_report(page: Path, text: str, figures: Iterable[Figure], tables: Mapping[str, pd.DataFrame]) -> None:
    """Write a page and the files beside it; an earlier report stays as it is until all of the new one is there.

    Args:
        page: The page.
        text: What it says.
        figures: Figures, each with its table.
        tables: More tables, by stem.

    Raises:
        OutputExistsError: The folder holds something that no report wrote.
    """
    folder = folder_of(page)
    page.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=page.parent) as place:
        new_page, new, old = (Path(place) / name for name in ("page", "new", "old"))
        new_page.write_text(text, "utf-8")
        _write_files(new, figures, tables)
        check_folder(folder)  # drawing took a while
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
            new_page.replace(page)
        except BaseException:
            if not new.exists():
                shutil.rmtree(folder, ignore_errors=True)  # it is the new one
            if old.exists():
                old.rename(folder)
            raise


def _write_files(folder: Path, figures: Iterable[Figure], tables: Mapping[str, pd.DataFrame]) -> None:
    """Write all files into a new folder, and last their names."""
    folder.mkdir()
    for figure in figures:
        draw(figure, folder / f"{figure.name}.png")
        figure.table.to_csv(folder / f"{figure.name}.csv", index=False)
        if figure.by_seed is not None:
            figure.by_seed.to_csv(folder / f"{figure.name}{BY_SEED}.csv", index=False)
    for stem, table in tables.items():
        table.to_csv(folder / f"{stem}.csv", index=False)
    names = sorted(entry.name for entry in folder.iterdir())
    (folder / MANIFEST).write_text(json.dumps({"gnabm_kind": "report", "files": names}, indent=1), "utf-8")
