"""The population beside the tables that it was built from, out of the records of `graphs.fidelity.compare`."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from gnabm.report.figure import Axis, Bars, Citation, Dots, Figure, Floats, Heat, Panel, Section

Records = Mapping[str, Mapping[str, Any]]
"""Records by key: name, unit, labels, achieved, source, error, measure, tolerance, within, citation[, fitted]."""
_BAR = "#b7c0ca"
_PYRAMID = "ages"
_ACROSS = 9
"""More bars than this, or longer names, are drawn across."""


def population_section(records: Records) -> Section:
    """What the population achieves beside what was published.

    Args:
        records: As `compare` gives them.
    """
    shown = {key: figure_of(key, record) for key, record in records.items() if np.ndim(record["achieved"]) > 0}
    matrices = [figure for figure in shown.values() if len(figure.panels) > 1]
    rows = [figure for key, figure in shown.items() if len(figure.panels) == 1 and key != _PYRAMID]
    wide = [figure for figure in rows if figure.panels[0].height > 400]
    rows = [figure for figure in rows if figure not in wide]
    first = ([shown[_PYRAMID]] if _PYRAMID in shown else []) + wide
    order = [*first, *rows, *matrices]
    broad = [figure for figure in order if len(figure.panels) > 1 and not _of_ages(figure)]  # names need the width
    order = [figure for figure in order if figure not in broad]
    pairs = [tuple(order[at : at + 2]) for at in range(0, len(order), 2)]
    return Section(
        "The population beside its sources",
        (fidelity_table(records), *pairs, *broad),
        "Grey: this population. Blue: what was published, with its source below each figure.",
    )


def figure_of(key: str, record: Mapping[str, Any]) -> Figure:
    """One record as bars beside published marks, or as two heat maps."""
    made, known = np.asarray(record["achieved"], np.float64), np.asarray(record["source"], np.float64)
    labels = [str(label) for label in record.get("labels") or range(len(made))]
    name, unit = str(record["name"]), str(record.get("unit") or "")
    title = f"{name[:1].upper()}{name[1:]}" if key != _PYRAMID else "People by age"
    note = f"{_judged(record)}."
    cited = (Citation.of(record["citation"]),)
    stem = f"population_{key}"
    if made.ndim == 2:
        pictures = made.copy(), known.copy()
        if labels[0][:1].isdigit():
            note += " Rows: people of an age; columns: the ages of the others."
        else:  # between regions: those who stay within one would leave the others pale
            for picture in pictures:
                np.fill_diagonal(picture, np.nan)
            note += " Rows: home; columns: work." if key == "commuting" else ""
            note += " The diagonal is left out of the picture; the file has it."
        top = float(np.nanmax(pictures, initial=0.0))
        both = ((pictures[0], "achieved"), (pictures[1], "source"))
        short = f", {unit}" if len(unit) < 20 else ""
        panels = tuple(_matrix(values, labels, unit, top, f"{said}{short}") for values, said in both)
        one, other = ("participant", "contact") if labels[0][:1].isdigit() else ("row", "column")
        rows = [
            {one: a, other: b, "achieved": made[i, j], "source": known[i, j]}
            for i, a in enumerate(labels)
            for j, b in enumerate(labels)
        ]
        return Figure(stem, title, panels, pd.DataFrame(rows), note, cited, columns=2)
    across = key == _PYRAMID or (len(made) > _ACROSS and max(map(len, labels)) > 6)
    length, names = Axis(unit), Axis(kind="name", reverse=across and key != _PYRAMID)
    marks = (Bars("achieved", labels, made, _BAR, across=across), Dots("source", labels, known, across=across))
    height = max(460, 90 + 18 * len(made)) if across else 300
    panel = Panel(marks, length if across else names, names if across else length, height=height)
    table = pd.DataFrame({"group": labels, "achieved": made, "source": known})
    return Figure(stem, title, (panel,), table, note, cited)


def _of_ages(figure: Figure) -> bool:
    """Whether the rows of its matrices are ages."""
    mark = figure.panels[0].marks[0]
    return isinstance(mark, Heat) and mark.y[0][:1].isdigit()


def _matrix(values: Floats, labels: list[str], unit: str, top: float, title: str) -> Panel:
    x, y = Axis(kind="name"), Axis(kind="name", reverse=True)
    return Panel((Heat(labels, labels, values, unit, top),), x, y, title, 330 if labels[0][:1].isdigit() else 460)


def _judged(record: Mapping[str, Any]) -> str:
    """The error of a figure, with its bound."""
    bound = record.get("tolerance")
    asked = "" if bound is None else f", at most {bound:g} asked: {'met' if record['within'] else 'missed'}"
    measure = str(record["measure"])
    fit = _fit(record)
    return f"{measure[:1].upper()}{measure[1:]}: {_error(record)}{asked}{f'; {fit}' if fit else ''}"


def _fit(record: Mapping[str, Any]) -> str:
    """Whether the population was made to meet the figure; empty where the record does not say."""
    fitted = record.get("fitted")
    return "" if fitted is None else "fitted" if fitted else "not fitted"


def _error(record: Mapping[str, Any]) -> str:
    """An error of two digits."""
    error = float(record["error"])
    return "under 0.001" if 0 < error < 0.001 else f"{error:.2g}" if error < 1 else f"{error:,.4g}"


def fidelity_frame(records: Records) -> pd.DataFrame:
    """The table of errors, one row per figure."""
    rows = []
    for record in records.values():
        cited = Citation.of(record["citation"])
        single = np.ndim(record["achieved"]) == 0
        rows.append({
            "figure": record["name"], "achieved": record["achieved"] if single else None,
            "source": record["source"] if single else None, "error": record["error"], "measure": record["measure"],
            "tolerance": record["tolerance"], "within": record["within"], "fitted": record.get("fitted"),
            "table": cited.name,
            "published_by": cited.source, "year": cited.year, "licence": cited.licence, "assumed": cited.assumed,
        })  # fmt: skip
    return pd.DataFrame(rows).astype({"year": "Int64"})


def fidelity_table(records: Records) -> str:
    """The same for the page."""
    rows = []
    told = any("fitted" in record for record in records.values())
    for record in records.values():
        cited = Citation.of(record["citation"])
        bound = record.get("tolerance")
        verdict = {True: "met", False: "missed", None: ""}[record["within"]]
        flag = f'<span class="flag {verdict}">{verdict}</span>' if verdict else ""
        single = np.ndim(record["achieved"]) == 0
        values = f" ({record['achieved']:.3g}, published {record['source']:.3g})" if single else ""
        year = "year not stated" if cited.year is None else str(cited.year)
        rows.append(
            f"<tr><td>{escape(str(record['name']))}{escape(values)}</td><td>{escape(str(record['measure']))}</td>"
            f"<td class='num'>{_error(record)}</td><td class='num'>{'-' if bound is None else f'{bound:g}'}</td>"
            f"<td>{flag}</td>{f'<td>{_fit(record)}</td>' if told else ''}<td>{escape(cited.name)}, {year}</td></tr>"
        )
    return (
        '<div class="block"><h3>How far it is from them</h3><div class="scroll"><table><thead><tr><th>Figure</th>'
        "<th>Error counts</th><th class='num'>Error</th><th class='num'>At most</th><th></th>"
        f"{'<th>The population was</th>' if told else ''}<th>Table</th></tr>"
        f"</thead><tbody>{''.join(rows)}</tbody></table></div></div>"
    )
