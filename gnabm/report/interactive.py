"""Figures as the plain data that plotly.js draws on the page."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from datetime import date
from typing import Any

import numpy as np

from gnabm.report.figure import GRID, INK, MUTED, Axis, Band, Bars, Dots, Heat, Line, Moment, Note, Panel, Ticks

_FONT = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": INK}
_DAYS_OF_MONTHLY_TICKS = 75

Drawing = dict[str, Any]


def drawing(panel: Panel) -> Drawing:
    """Data and layout of a panel for `Plotly.newPlot`."""
    traces = [trace for mark in panel.marks if not isinstance(mark, (Note, Moment)) for trace in _traces(mark)]
    moments = [_moment(mark) for mark in panel.marks if isinstance(mark, Moment)]
    notes = [_annotation(mark) for mark in panel.marks if isinstance(mark, Note)]
    heat = next((mark for mark in panel.marks if isinstance(mark, Heat)), None)
    named = sum(bool(trace.get("showlegend")) for trace in traces)
    legend = named > 0
    bars = any(isinstance(mark, (Bars, Dots, Heat)) for mark in panel.marks)
    texts = any(isinstance(mark, Bars) and mark.across and mark.text for mark in panel.marks)
    layout: Drawing = {
        "height": panel.height + 14 * max(named - 3, 0),  # a narrow page writes a long legend in many lines
        "font": _FONT,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 44 if texts else 16, "t": 40 if heat is not None else 34 if legend else 14, "b": 48},
        "hovermode": "closest" if bars else "x unified",
        "hoverlabel": {"font": {"size": 12}},
        "xaxis": _axis(panel.x, _values(panel, "x"), vertical=False, gridded=heat is None),
        "yaxis": _axis(panel.y, (), vertical=True, gridded=heat is None),
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "font": {"size": 12},
            "traceorder": "normal",
        },
        "showlegend": legend,
        "bargap": 0.25,
        "annotations": notes,
        "shapes": moments,
    }
    if any(isinstance(mark, Bars) and mark.across for mark in panel.marks):
        layout["barmode"] = "overlay"
    return {"data": traces, "layout": layout}


def _axis(axis: Axis, values: Iterable[Any], *, vertical: bool, gridded: bool) -> Drawing:
    title = {"text": html.escape(axis.title), "standoff": 8 if vertical else 6, "font": {"size": 12, "color": MUTED}}
    drawn: Drawing = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "tickcolor": GRID, "ticks": "outside"}
    drawn |= {"title": title, "automargin": True, "showgrid": gridded and vertical}
    if axis.kind == "date":
        return drawn | _dates([value for value in values if isinstance(value, date)])
    if axis.kind == "name":
        drawn |= {"type": "category", "ticks": "", "tickfont": {"size": 11}, "showgrid": False}
        return drawn | ({"autorange": "reversed"} if axis.reverse else {})
    drawn |= {"type": "linear", "nticks": 7, "tickangle": 0, "showgrid": gridded}
    drawn["tickformat"] = ",~r"
    if axis.top is not None:
        drawn["range"] = [0, axis.top]
    if not axis.signed:
        drawn["rangemode"] = "tozero"
    return drawn


def _dates(days: list[date]) -> Drawing:
    months = bool(days) and (max(days) - min(days)).days > _DAYS_OF_MONTHLY_TICKS
    # The second line of a tick is written only where it changes.
    drawn: Drawing = {"type": "date", "tickformat": "%b\n%Y" if months else "%-d %b\n%Y", "nticks": 7, "tickangle": 0}
    return drawn | ({"dtick": "M1"} if months else {})


def _values(panel: Panel, axis: str) -> list[Any]:
    found: list[Any] = []
    for mark in panel.marks:
        if isinstance(mark, (Line, Band, Heat)):
            found.extend(getattr(mark, axis))
    return found


def _ticks(values: Ticks) -> list[Any]:
    return [_tick(value) for value in values]


def _tick(value: date | int | str) -> int | str:
    return value.isoformat() if isinstance(value, date) else html.escape(value) if isinstance(value, str) else value


def _numbers(values: np.ndarray) -> list[Any]:
    """Numbers of four digits at least, as JSON holds them: NaN is null."""
    return [None if math.isnan(value) else _short(value) for value in np.asarray(values, dtype=np.float64).tolist()]


def _short(value: float) -> float | int:
    if float(value).is_integer():
        return int(value)
    return float(f"{value:.4g}") if abs(value) < 1000 else round(value, 1)


def _traces(mark: Line | Band | Bars | Dots | Heat) -> list[Drawing]:
    if isinstance(mark, Line):
        return [_line(mark)]
    if isinstance(mark, Band):
        return [_band(mark)]
    if isinstance(mark, Bars):
        return [_bars(mark), *_beyond_errors(mark)]
    return [_dots(mark) if isinstance(mark, Dots) else _heat(mark)]


def _line(mark: Line) -> Drawing:
    style = {"color": mark.colour, "width": mark.width, "simplify": False, **({"dash": "dot"} if mark.dashed else {})}
    drawn = {
        "type": "scatter", "mode": "lines", "x": _ticks(mark.x), "y": _numbers(mark.y), "name": html.escape(mark.name),
        "line": style, "showlegend": bool(mark.name), "connectgaps": False,
        "hovertemplate": "%{y:,}" + ("" if mark.name else "<extra></extra>"),
    }  # fmt: skip
    return drawn | ({"fill": "tozeroy", "fillcolor": _faint(mark.colour)} if mark.filled else {})


def _band(mark: Band) -> Drawing:
    """One closed outline for each stretch without a gap, which a fill between two lines would draw across."""
    x, y = _ticks(mark.x), []
    around: list[Any] = []
    known = np.isfinite(mark.low) & np.isfinite(mark.high)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(np.int8)))
    for start, end in [pair for pair in edges.reshape(-1, 2).tolist() if pair[1] - pair[0] > 1]:
        around += [*x[start:end], *x[start:end][::-1], None]
        y += [*_numbers(mark.high[start:end]), *_numbers(mark.low[start:end][::-1]), None]
    return {
        "type": "scatter", "mode": "lines", "x": around, "y": y, "fill": "toself", "fillcolor": _faint(mark.colour),
        "line": {"width": 0, "color": mark.colour, "simplify": False}, "hoverinfo": "skip",
        "name": html.escape(mark.name), "showlegend": bool(mark.name),
    }  # fmt: skip


def _bars(mark: Bars) -> Drawing:
    colour = mark.colours if isinstance(mark.colours, str) else list(mark.colours)
    ends, at = _numbers(mark.length), _ticks(mark.at)
    along, over = ("x", "y") if mark.across else ("y", "x")
    drawn: Drawing = {
        "type": "bar", along: ends, over: at, "orientation": "h" if mark.across else "v", "marker": {"color": colour},
        "name": html.escape(mark.name), "showlegend": bool(mark.name), "cliponaxis": False,
        "hovertemplate": f"%{{{over}}}: %{{{along}:,}}<extra></extra>",
    }  # fmt: skip
    if mark.text and mark.error is None:
        drawn |= {"text": list(mark.text), "textposition": "outside", "textfont": {"size": 11, "color": MUTED}}
    if mark.error is not None:
        drawn[f"error_{along}"] = {"array": _numbers(mark.error), "color": MUTED, "thickness": 1, "width": 3}
    return drawn


def _beyond_errors(mark: Bars) -> list[Drawing]:
    """Labels that stand beyond the error of a bar, which a label of its own would overlap."""
    if mark.error is None or not mark.text:
        return []
    along, over = ("x", "y") if mark.across else ("y", "x")
    return [{
        "type": "scatter", "mode": "text", along: _numbers(mark.length + mark.error), over: _ticks(mark.at),
        "text": list(mark.text), "textposition": "middle right" if mark.across else "top center", "hoverinfo": "skip",
        "textfont": {"size": 11, "color": MUTED}, "cliponaxis": False, "showlegend": False,
    }]  # fmt: skip


def _dots(mark: Dots) -> Drawing:
    along, over = ("x", "y") if mark.across else ("y", "x")
    symbol = "line-ns" if mark.across else "line-ew"
    return {
        "type": "scatter", "mode": "markers", along: _numbers(mark.y), over: _ticks(mark.x),
        "name": html.escape(mark.name), "showlegend": bool(mark.name),
        "marker": {"color": mark.colour, "size": 9, "symbol": symbol, "line": {"color": mark.colour, "width": 2}},
        "hovertemplate": f"%{{{over}}}: %{{{along}:,}}<extra>{html.escape(mark.name)}</extra>",
    }  # fmt: skip


def _heat(mark: Heat) -> Drawing:
    low, top = mark.span
    return {
        "type": "heatmap", "x": _ticks(mark.x), "y": _ticks(list(mark.y)), "z": [_numbers(row) for row in mark.z],
        "colorscale": [list(stop) for stop in mark.colours], "zmin": low, "zmax": top, "hoverongaps": False,
        "hovertemplate": f"%{{y}}<br>%{{x}}<br>%{{z:,}} {html.escape(mark.unit)}<extra></extra>",
        "ygap": 1 if isinstance(mark.x[0], date) else 0,
        "colorbar": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "thickness": 8, "len": 0.5, "x": 0,
                     "xanchor": "left", "outlinewidth": 0, "ticklen": 3, "nticks": 4, "tickangle": 0,
                     "tickformat": "~s" if top >= 1000 else "~r", "tickfont": {"size": 11}},
    }  # fmt: skip


def _annotation(mark: Note) -> Drawing:
    return {
        "x": _tick(mark.x), "y": mark.y, "text": html.escape(mark.text), "showarrow": False,
        "xanchor": "right" if mark.leftwards else "left", "xshift": -10 if mark.leftwards else 10, "yshift": 2,
        "font": {"size": 12, "color": MUTED},
    }  # fmt: skip


def _moment(mark: Moment) -> Drawing:
    at = _tick(mark.x)
    style = {"color": MUTED, "width": 1, "dash": "dash"}
    return {"type": "line", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1, "line": style, "layer": "below"}


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.16)"
