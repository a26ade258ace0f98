"""`gnabm report`: the page of a run or of replicates, with its population beside the published tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gnabm.cli.inspecting import kind_of, population_of
from gnabm.errors import OutputExistsError, StoreError
from gnabm.report import default_page, open_run
from gnabm.report import write_report as write_page


def write_report(paths: Sequence[Path], out: Path | None, *, overwrite: bool) -> None:
    """Write the page of a run, or of runs that differ in the seed, and print where it is.

    Args:
        paths: Run folders.
        out: File, or None for report.html in the run folder, which is replaced, or beside the run folders for several.
        overwrite: Replace a page that is there.

    Raises:
        OutputExistsError: There is a page, and it is not that of the one run given.
    """
    for path in paths:
        if kind_of(path) == "graph":
            raise StoreError(
                f"{path} is a graph store, a report needs a run; give a run folder, or try `gnabm inspect {path}`"
            )
    page = default_page(paths) if out is None else out
    own = out is None and len(paths) == 1  # the page of a run is remade at will
    if page.exists() and not (page.is_file() and (own or overwrite)):
        raise OutputExistsError(f"{page} exists; choose another file with --out or replace it with --overwrite")
    records, note = population_of(open_run(paths[0]).attrs)
    print(write_page(paths, out, population=records, population_note=note))
