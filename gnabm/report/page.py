"""The page of a report: sections of HTML around the charts, with plotly.js inside."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs

from gnabm.report import charts
from gnabm.report.multiples import small_multiples
from gnabm.report.provenance import provenance
from gnabm.report.style import STYLE
from gnabm.report.summary import Group, Summary, open_run

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


def write_report(run: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of a run.

    Args:
        run: Run folder.
        out: File to write, or None for report.html in the run folder.

    Returns:
        The file.

    Raises:
        StoreError: There is no trajectory, or it holds no step.
    """
    folder = Path(run)
    target = Path(out) if out is not None else folder / "report.html"
    summary = Summary.of(open_run(folder))
    partial = target.with_name(f".{target.name}.partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        partial.write_text(render(summary, name=_name(summary, folder)), "utf-8")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def render(summary: Summary, *, name: str) -> str:
    """The page as text.

    Args:
        summary: Figures of the run.
        name: Title.
    """
    figures: dict[str, charts.Figure] = {}
    body = [_header(summary, name), _epidemic(summary, figures)]
    if "region" in summary.groups:
        body.append(_regions(summary, summary.groups["region"], figures))
    if "age_group" in summary.groups:
        body.append(_ages(summary, summary.groups["age_group"], figures))
    body.append(provenance(summary))
    data = json.dumps(figures, separators=(",", ":")).replace("</", "<\\/")
    return _PAGE.substitute(
        title=escape(f"{name}: epidemic report"),
        icon=_ICON,
        style=STYLE,
        body="\n".join(body),
        plotly=get_plotlyjs(),
        charts=data,
    )


def _name(summary: Summary, folder: Path) -> str:
    name = summary.attributes.get("name") or folder.resolve().name
    return str(name).replace("_", " ").title() if str(name).islower() else str(name)


def _chart(figures: dict[str, charts.Figure], key: str, figure: charts.Figure, title: str) -> str:
    figures[key] = figure
    height = figure["layout"]["height"]
    return (
        f'<div class="block"><h3>{escape(title)}</h3>'
        f'<div class="chart" id="{key}" style="min-height:{height}px"></div></div>'
    )


def _header(summary: Summary, name: str) -> str:
    config: dict[str, Any] = summary.attributes.get("config", {})
    who = config.get("population", {}).get("country")
    model = str(config.get("model", "a model")).rpartition(".")[2]
    agents = f"{summary.num_agents:,} agents" + (f" of {escape(str(who))}" if who else "")
    span = f"{summary.when(0)} to {summary.when(-1)}" if summary.steps > 1 else summary.when(0)
    name_of_step = charts.step_name(summary)
    lead = f"{escape(model.upper())} on {agents}, {span} ({summary.steps:,} {name_of_step}s)."
    banner = ""
    if summary.status != "complete":
        banner = (
            f'<p class="banner" role="note">This run is <b>{escape(summary.status)}</b>: '
            f"{summary.steps:,} of {summary.steps_wanted:,} steps are done. What follows describes those.</p>"
        )
    stated = summary.attributes.get("reproduction_number")
    peak = summary.peak
    figures = [
        (
            "lead-figure",
            f"{100 * summary.attack_rate:.1f} %",
            "attack rate: infected by the end, initial ones included",
        ),
        ("", f"{summary.incidence[peak]:,}", f"new infections at the peak, {summary.when(peak)}"),
        ("", f"{summary.total_infections:,}", "new infections in all"),
        ("", "-" if stated is None else f"{float(stated):g}", "R0 stated" if stated is not None else "no R0 stated"),
        ("", f"{summary.num_agents:,}", "agents"),
        ("", f"{summary.steps * summary.dt:,g}", "days simulated"),
    ]
    cells = "".join(f'<div class="{kind}"><b>{value}</b><span>{text}</span></div>' for kind, value, text in figures)
    return f'<h1>{escape(name)}</h1><p class="lead">{lead}</p>{banner}<div class="key">{cells}</div>'


def _epidemic(summary: Summary, figures: dict[str, charts.Figure]) -> str:
    each = charts.step_name(summary)
    return (
        "<section><h2>The epidemic</h2><div class='two'>"
        + _chart(figures, "incidence", charts.new_infections(summary), f"New infections per {each}")
        + _chart(figures, "stages", charts.stages(summary), f"Agents by stage at the end of each {each}")
        + "</div></section>"
    )


def _regions(summary: Summary, group: Group, figures: dict[str, charts.Figure]) -> str:
    each = charts.step_name(summary)
    return (
        "<section><h2>By region</h2>"
        + _chart(figures, "heat", charts.heat_map(summary, group), f"New infections per 100,000 and {each}")
        + '<div class="block"><h3>Each region on one scale</h3><p class="note">New infections per 100,000 and '
        f"{each}, with height and date of the peak; the grey line is the whole population.</p>"
        + small_multiples(summary, group)
        + "</div>"
        + _region_table(summary, group)
        + "</section>"
    )


def _region_table(summary: Summary, group: Group) -> str:
    rows = []
    rates = group.per_100k
    for number, name in enumerate(group.names):
        peak = int(rates[:, number].argmax())
        rows.append(
            f"<tr><td>{escape(name)}</td><td class='num'>{group.people[number]:,}</td>"
            f"<td class='num'>{group.incidence[:, number].sum():,}</td>"
            f"<td class='num'>{100 * group.attack_rate[number]:.1f} %</td>"
            f"<td class='num'>{rates[peak, number]:,.0f}</td><td class='num'>{escape(summary.when(peak))}</td></tr>"
        )
    return (
        '<div class="block"><h3>Figures by region</h3><div class="scroll"><table><thead><tr><th>Region</th>'
        "<th class='num'>Agents</th><th class='num'>New infections</th><th class='num'>Attack rate</th>"
        "<th class='num'>Peak per 100,000</th><th class='num'>Peak on</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div></div>"
    )


def _ages(summary: Summary, group: Group, figures: dict[str, charts.Figure]) -> str:
    each = charts.step_name(summary)
    return (
        "<section><h2>By age</h2><div class='two'>"
        + _chart(figures, "age-curves", charts.curves(summary, group), f"New infections per 100,000 and {each}")
        + _chart(figures, "age-bars", charts.attack_bars(summary, group), "Attack rate by age")
        + "</div></section>"
    )
