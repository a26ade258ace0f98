"""`write_report`: the page of a run, or of its replicates, with the files of its figures beside it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import pandas as pd

from gnabm.infections import open_infections
from gnabm.report import charts
from gnabm.report.changes import changes_frame, changes_of
from gnabm.report.charts import OUTCOMES
from gnabm.report.figure import Figure, Section
from gnabm.report.files import check_folder, folder_of, replace_report
from gnabm.report.groups import figures_by, region_table
from gnabm.report.headline import headline_frame
from gnabm.report.multiples import small_multiples
from gnabm.report.page import render
from gnabm.report.people import Records, fidelity_frame, population_section
from gnabm.report.provenance import citations, provenance
from gnabm.report.replicates import Replicates
from gnabm.report.spread import Spread, spread_section
from gnabm.report.summary import Summary, open_run

PAGE = "report.html"


def write_report(
    run: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    population: Records | None = None,
    population_note: str = "",
) -> Path:
    """Write the page of a run or of replicates, and one CSV and PNG per figure in a folder beside it.

    Args:
        run: Run folder, or several that differ in nothing but the seed.
        out: File to write, or None for report.html in the run folder; beside the run folders for several.
        population: Records of `graphs.fidelity.compare`, for the chapter about the population.
        population_note: Why there are none, for the page.

    Returns:
        The page.

    Raises:
        StoreError: There is no trajectory, or it holds no step.
        ConfigError: The runs are no replicates of each other.
        OutputExistsError: The folder for the files holds something that no report wrote.
    """
    folders = [Path(run)] if isinstance(run, (str, Path)) else [Path(one) for one in run]
    target = Path(out) if out is not None else default_page(folders)
    folder = folder_of(target)
    check_folder(folder)
    summaries = [Summary.of(open_run(path)) for path in folders]
    replicates = Replicates.of(summaries, [str(path) for path in folders])
    sections = sections_of(replicates, _spreads(folders, summaries))
    if population:
        sections.append(population_section(population))
    elif population_note:
        said = f'<p class="note">{escape(population_note)}</p>'
        sections.append(Section("The population beside its sources", (said,)))
    tables = {"headline": headline_frame(replicates), **dict(charts.cube(replicates))}
    if population:
        tables["population_fidelity"] = fidelity_frame(population)
    tables |= {f"figures_by_{dim}": figures_by(replicates, dim) for dim in replicates.first.groups}
    if changes_of(replicates.first):
        tables["changes"] = changes_frame(replicates.first)
    cited = citations(replicates.first)
    if cited:
        tables["sources"] = pd.DataFrame([vars(one) for one in cited]).astype({"year": "Int64"})
    page = render(
        replicates, sections, name=_name(replicates.first, folders[0]), folder=folder.name,
        closing=provenance(replicates, sorted(tables), folder.name),
    )  # fmt: skip
    replace_report(target, page, [figure for section in sections for figure in section.figures], tables)
    return target


def default_page(folders: Sequence[Path]) -> Path:
    """Where a page goes by default: in the run folder, or beside the first of several."""
    return folders[0] / PAGE if len(folders) == 1 else folders[0].resolve().parent / PAGE


def _name(summary: Summary, folder: Path) -> str:
    name = summary.attributes.get("name") or folder.resolve().name
    return str(name).replace("_", " ").title() if str(name).islower() else str(name)


def _spreads(folders: Sequence[Path], summaries: Sequence[Summary]) -> list[Spread]:
    """Figures of the line lists in order of the seed; none unless each run has one. Held one at a time."""
    found = []
    for path, summary in sorted(zip(folders, summaries, strict=True), key=lambda pair: Replicates(pair[1:]).seeds):
        line_list = open_infections(path)
        if line_list is None:
            return []
        found.append(Spread.of(line_list, summary))
    return found


def sections_of(replicates: Replicates, spreads: Sequence[Spread] = ()) -> list[Section]:
    """The chapters about the epidemic.

    Args:
        replicates: The runs.
        spreads: Figures of the line list of each run, if all have one.
    """
    first = replicates.first
    epidemic: list[Figure | tuple[Figure, ...] | str] = [(charts.new_infections(replicates), charts.stages(replicates))]
    by_stage = charts.courses(replicates)
    if by_stage is not None:
        epidemic.append(by_stage)
    sections = [Section("The epidemic", tuple(epidemic))]
    outcomes = [name for name in OUTCOMES if name in first.series]
    outcomes += [name for name in first.series if name not in outcomes]
    if outcomes:
        figures = [charts.outcome(replicates, name) for name in outcomes]
        if "deaths" in outcomes:
            figures.insert(outcomes.index("deaths") + 1, charts.cumulative(replicates, "deaths"))
        pairs = tuple(tuple(figures[at : at + 2]) for at in range(0, len(figures), 2))
        title = "Severe outcomes" if set(outcomes) <= set(OUTCOMES) else "What else was counted"
        sections.append(Section(title, pairs))
    spread = spread_section(replicates, spreads)
    if spread is not None:
        sections.append(spread)
    if "region" in first.groups:
        sections.append(_regions(replicates, outcomes))
    if "age_group" in first.groups:
        sections.append(_ages(replicates, outcomes))
    return sections


def _regions(replicates: Replicates, outcomes: Sequence[str]) -> Section:
    first = replicates.first
    known = [name for name in outcomes if "region" in first.series[name].by and first.series[name].total.any()]
    heats = [charts.heat_map(replicates, name, "region") for name in ("incidence", *known)]
    blocks: list[Figure | tuple[Figure, ...] | str] = [heats[0], small_multiples(replicates, "region")]
    blocks += [tuple(heats[at : at + 2]) for at in range(1, len(heats), 2)]
    blocks += [charts.attack_bars(replicates, "region"), region_table(replicates)]
    return Section("By region", tuple(blocks))


def _ages(replicates: Replicates, outcomes: Sequence[str]) -> Section:
    first = replicates.first
    known = [name for name in outcomes if "age_group" in first.series[name].by and first.series[name].total.any()]
    figures = [charts.by_group(replicates, "incidence", "age_group"), charts.attack_bars(replicates, "age_group")]
    figures += [charts.by_group(replicates, name, "age_group") for name in known]
    return Section("By age", tuple(tuple(figures[at : at + 2]) for at in range(0, len(figures), 2)))
