"""`gnabm report`: the page of a run or of replicates, with its population beside the published tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gnabm.cli.inspecting import kind_of
from gnabm.errors import GnabmError, OutputExistsError, StoreError
from gnabm.report import open_run
from gnabm.report import write_report as write_page


def write_report(paths: Sequence[Path], out: Path | None, *, overwrite: bool) -> None:
    """Write the page of a run, or of runs that differ in the seed, and print where it is.

    Args:
        paths: Run folders.
        out: File, or None for report.html in the run folder (beside them for several), which is replaced.
        overwrite: Replace a file named by out.
    """
    for path in paths:
        if kind_of(path) == "graph":
            raise StoreError(
                f"{path} is a graph store, a report needs a run; give a run folder, or try `gnabm inspect {path}`"
            )
    if out is not None and out.exists() and not (overwrite and out.is_file()):
        raise OutputExistsError(f"{out} exists; choose another file with --out or replace it with --overwrite")
    records, note = _population(open_run(paths[0]).attrs)
    print(write_page(paths, out, population=records, population_note=note))


def _population(attributes: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], str]:
    """The population of a run beside its sources, and why there is nothing to show if there is not."""
    store = attributes.get("population", {}).get("store")
    if store is None:
        return {}, ""
    from graphs.fidelity import compare

    again = "`gnabm build` makes it again"
    if not Path(store).is_dir():
        return {}, f"The graph store {store} is gone, so the population cannot be shown; {again}."
    try:
        return compare(store), ""
    except (GnabmError, OSError, KeyError) as error:  # a store of an earlier version lacks arrays
        return {}, f"The graph store {store} cannot be read ({error}), so the population cannot be shown; {again}."
