"""The page of a report: sections of HTML around the figures, with plotly.js inside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from string import Template
from typing import Any
from urllib.parse import quote

from plotly.offline import get_plotlyjs

from gnabm.report.changes import changes_block
from gnabm.report.curves import step_name
from gnabm.report.figure import Figure, Section
from gnabm.report.files import BY_SEED
from gnabm.report.headline import headline_cells
from gnabm.report.interactive import Drawing, drawing
from gnabm.report.replicates import Replicates
from gnabm.report.style import STYLE

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns=%27http://www.w3.org/2000/svg%27 viewBox=%270 0 16 16%27%3E"
    "%3Cpath d=%27M2 14C6 14 6 3 8 3s2 11 6 11%27 fill=%27none%27 stroke=%27%23b1432a%27 stroke-width=%272%27/%3E"
    "%3C/svg%3E"
)
_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<link rel="icon" href="$icon">
<style>$style</style>
</head>
<body>
<main>
$body
</main>
<script>$plotly</script>
<script>
const charts = $charts;
for (const [id, figure] of Object.entries(charts))
  Plotly.newPlot(id, figure.data, figure.layout, {displayModeBar: false, responsive: true});
</script>
</body>
</html>
""")


def render(replicates: Replicates, sections: Sequence[Section], *, name: str, folder: str, closing: str) -> str:
    """The page as text.

    Args:
        replicates: The runs.
        sections: Chapters in order.
        name: Title.
        folder: Name of the folder beside the page that holds the files of the figures.
        closing: The last section, as HTML.
    """
    return compose(f"{name}: epidemic report", _header(replicates, name), sections, folder=folder, closing=closing)


def compose(title: str, header: str, sections: Sequence[Section], *, folder: str, closing: str) -> str:
    """A page of sections as text.

    Args:
        title: Title of the window.
        header: What stands first, as HTML.
        sections: Chapters in order.
        folder: Name of the folder beside the page that holds the files of the figures.
        closing: The last section, as HTML.
    """
    charts: dict[str, Drawing] = {}
    body = [header]
    body += [_section(section, charts, folder) for section in sections]
    body.append(closing)
    data = json.dumps(charts, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    return _PAGE.substitute(
        title=escape(title),
        icon=_ICON,
        style=STYLE,
        body="\n".join(body),
        plotly=get_plotlyjs(),
        charts=data,
    )


def _header(replicates: Replicates, name: str) -> str:
    first = replicates.first
    config: dict[str, Any] = first.attributes.get("config", {})
    who = config.get("population", {}).get("country")
    model = str(config.get("model", "a model")).rpartition(".")[2]
    agents = f"{first.num_agents:,} agents" + (f" of {escape(str(who))}" if who else "")
    span = f"{first.when(0)} to {first.when(-1)}" if first.steps > 1 else first.when(0)
    several = f" {len(replicates.runs)} runs that differ in the seed." if replicates.several else ""
    lead = f"{escape(model.upper())} on {agents}, {span} ({first.steps:,} {step_name(first)}s).{several}"
    page = f'<h1>{escape(name)}</h1><p class="lead">{lead}</p>{_banner(replicates)}{headline_cells(replicates)}'
    return page + changes_block(first)


def _banner(replicates: Replicates) -> str:
    """Every run that is not finished, by its seed where there are several."""
    said = [
        f"{f'The run of seed {seed}' if replicates.several else 'This run'} is <b>{escape(run.status)}</b>: "
        f"{run.steps:,} of {run.steps_wanted:,} steps are done."
        for run, seed in zip(replicates.runs, replicates.seeds, strict=True)
        if run.status != "complete"
    ]
    return f'<p class="banner" role="note">{" ".join(said)} What follows describes those.</p>' if said else ""


def _section(section: Section, charts: dict[str, Drawing], folder: str) -> str:
    parts = [f"<section><h2>{escape(section.title)}</h2>"]
    if section.note:
        parts.append(f'<p class="note">{escape(section.note)}</p>')
    for block in section.blocks:
        if isinstance(block, str):
            parts.append(block)
        elif isinstance(block, Figure):
            parts.append(_figure(block, charts, folder))
        else:
            inside = "".join(_figure(figure, charts, folder) for figure in block)
            parts.append(f'<div class="two">{inside}</div>')
    return "".join([*parts, "</section>"])


def _figure(figure: Figure, charts: dict[str, Drawing], folder: str) -> str:
    """A figure with its title, what to know of it, its sources and its files."""
    if figure.html:
        drawn = figure.html
    else:
        drawn = "".join(
            _panel(f"{figure.name}-{number}" if number else figure.name, panel.title, drawing(panel), charts)
            for number, panel in enumerate(figure.panels)
        )
        if len(figure.panels) > 1:
            drawn = f'<div class="panels">{drawn}</div>'
    note = f'<p class="note">{escape(figure.note)}</p>' if figure.note else ""
    cited = "".join(f"<span class='cited'>Source: {escape(str(c))}.</span> " for c in dict.fromkeys(figure.citations))
    return (
        f'<div class="block"><h3>{escape(figure.title)}</h3>{note}{drawn}'
        f'<p class="files">{cited}{_links(figure, folder)}</p></div>'
    )


def _panel(key: str, title: str, figure: Drawing, charts: dict[str, Drawing]) -> str:
    charts[key] = figure
    named = f"<h4>{escape(title)}</h4>" if title else ""
    return f'<div>{named}<div class="chart" id="{key}" style="min-height:{figure["layout"]["height"]}px"></div></div>'


def _links(figure: Figure, folder: str) -> str:
    files = [(f"{figure.name}.png", "PNG"), (f"{figure.name}.csv", "CSV")]
    if figure.by_seed is not None:
        files.append((f"{figure.name}{BY_SEED}.csv", "CSV by seed"))
    return " ".join(f'<a href="{quote(f"{folder}/{file}")}" download>{text}</a>' for file, text in files)
