"""The charts of a report, as the plain data that plotly.js draws."""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnabm.report.summary import Group, Summary

INK, MUTED, GRID, ACCENT = "#1d2733", "#5d6875", "#e3e6ea", "#b1432a"
STAGE_COLOURS = {
    "susceptible": "#8195a9",
    "exposed": "#d79a2b",
    "infectious": ACCENT,
    "recovered": "#3d7d6c",
}
_OTHER_COLOURS = ("#6b5b95", "#2f6690", "#a0673d", "#7a8b3c")
_AGE_COLOURS = (
    "#e0a93b", "#d98a3a", "#cc6a3a", "#b84b3c", "#9c3548", "#7c2a56", "#5b2760", "#3d2762", "#22275c",
)  # fmt: skip
_HEAT = [[0, "#f8f5ef"], [0.15, "#f1d9bd"], [0.4, "#dd9465"], [0.7, "#b1432a"], [1, "#5c150f"]]
_FONT = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": INK}

Figure = dict[str, Any]


def dates(summary: Summary) -> list[str | int]:
    """Values of the time axis."""
    return [at.isoformat() if isinstance(at, date) else at for at in summary.time]


def _time_axis(summary: Summary) -> dict[str, Any]:
    first, last = summary.time[0], summary.time[-1]
    if not (isinstance(first, date) and isinstance(last, date)):
        return {"type": "linear", "title": {"text": "step", "standoff": 4}}
    months = (last - first).days > 75
    # The second line of a tick is written only where it changes.
    return {"type": "date", "tickformat": "%b\n%Y" if months else "%-d %b\n%Y", **({"dtick": "M1"} if months else {})}


def _layout(summary: Summary, height: int, y_title: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "ticks": "outside", "tickcolor": GRID}
    x = {**axis, "showgrid": False, "nticks": 7, "tickangle": 0, **_time_axis(summary)}
    base: dict[str, Any] = {
        "height": height,
        "font": _FONT,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 16, "t": 34, "b": 40},
        "hovermode": "x unified",
        "hoverlabel": {"font": {"size": 12}},
        "xaxis": x,
        "yaxis": {
            **axis,
            "automargin": True,
            "rangemode": "tozero",
            "tickformat": ",~r",
            "title": {"text": y_title, "standoff": 8, "font": {"size": 12, "color": MUTED}},
        },
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}},
        "showlegend": True,
    }
    return {**base, **more}


def step_name(summary: Summary) -> str:
    """`day`, or `step` when a step is no day."""
    return "day" if summary.dt == 1 else "step"


def new_infections(summary: Summary) -> Figure:
    """New infections of each step, with the peak marked."""
    peak, x = summary.peak, dates(summary)
    line = {
        "type": "scatter", "mode": "lines", "x": x, "y": summary.incidence.tolist(), "name": "new infections",
        "line": {"color": ACCENT, "width": 2, "simplify": False}, "fill": "tozeroy",
        "fillcolor": "rgba(177,67,42,0.12)", "hovertemplate": "%{y:,}",
    }  # fmt: skip
    right = peak > summary.steps * 0.6  # the note stands where there is room
    note = {
        "x": x[peak], "y": int(summary.incidence[peak]), "text": f"{summary.incidence[peak]:,} on {summary.when(peak)}",
        "showarrow": False, "xanchor": "right" if right else "left", "xshift": -10 if right else 10, "yshift": 2,
        "font": {"size": 12, "color": MUTED},
    }  # fmt: skip
    layout = _layout(summary, 320, f"per {step_name(summary)}", showlegend=False, annotations=[note])
    return {"data": [line], "layout": {**layout, "margin": {**layout["margin"], "t": 14}}}


def stages(summary: Summary) -> Figure:
    """Agents in each stage."""
    data = []
    spare = iter(_OTHER_COLOURS * len(summary.stages))
    for number, name in enumerate(summary.stages):
        colour = STAGE_COLOURS.get(name) or next(spare)
        data.append({
            "type": "scatter", "mode": "lines", "x": dates(summary), "y": summary.stage_count[:, number].tolist(),
            "name": html.escape(name), "line": {"color": colour, "width": 2, "simplify": False},
            "hovertemplate": "%{y:,}",
        })  # fmt: skip
    layout = _layout(summary, 320, "agents")
    return {"data": data, "layout": {**layout, "yaxis": {**layout["yaxis"], "tickformat": "~s"}}}


def _rounded(values: NDArray[np.float64]) -> list[Any]:
    rounded: list[Any] = np.round(values, 1).tolist()
    return rounded


def heat_map(summary: Summary, group: Group) -> Figure:
    """New infections per 100,000 by group and time."""
    names = [html.escape(name) for name in group.names]
    data = {
        "type": "heatmap", "x": dates(summary), "y": names, "z": _rounded(group.per_100k.T), "colorscale": _HEAT,
        "hovertemplate": "%{y}<br>%{x}<br>%{z:,.1f} per 100,000<extra></extra>", "ygap": 1,
        "colorbar": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "thickness": 8, "len": 0.5, "x": 0,
                     "xanchor": "left", "outlinewidth": 0, "ticklen": 3, "nticks": 5, "tickformat": ",",
                     "tickfont": {"size": 11}},
    }  # fmt: skip
    layout = _layout(summary, 110 + 22 * len(names), "", hovermode="closest", showlegend=False)
    y = {"automargin": True, "autorange": "reversed", "showgrid": False, "ticks": "", "tickfont": {"size": 12}}
    return {"data": [data], "layout": {**layout, "yaxis": y, "margin": {**layout["margin"], "t": 48}}}


def curves(summary: Summary, group: Group) -> Figure:
    """New infections per 100,000 over time, a line per group in order of the palette."""
    rates = group.per_100k
    data = [
        {"type": "scatter", "mode": "lines", "x": dates(summary), "y": _rounded(rates[:, number]),
         "name": html.escape(name), "hovertemplate": "%{y:,.1f}",
         "line": {"color": _graded(number, len(group.names)), "width": 1.8, "simplify": False}}
        for number, name in enumerate(group.names)
    ]  # fmt: skip
    return {"data": data, "layout": _layout(summary, 340, f"per 100,000 and {step_name(summary)}")}


def attack_bars(summary: Summary, group: Group) -> Figure:
    """Share infected by the end, by group."""
    names = [html.escape(name) for name in group.names]
    colours = [_graded(number, len(names)) for number in range(len(names))]
    percent = 100 * group.attack_rate
    data = {
        "type": "bar", "x": names, "y": _rounded(percent), "marker": {"color": colours}, "textposition": "outside",
        "text": [f"{value:.0f} %" for value in percent], "cliponaxis": False, "textfont": {"size": 11, "color": MUTED},
        "hovertemplate": "%{x}: %{y:.1f} %<extra></extra>",
    }  # fmt: skip
    layout = _layout(summary, 340, "% infected by the end", showlegend=False, bargap=0.25, hovermode="closest")
    x = {"type": "category", "tickangle": 0, "ticks": "", "tickfont": {"size": 11}}
    return {"data": [data], "layout": {**layout, "xaxis": x, "margin": {**layout["margin"], "t": 34}}}


def _graded(number: int, count: int) -> str:
    """A colour of the ordered palette."""
    palette: Sequence[str] = _AGE_COLOURS
    return palette[round(number * (len(palette) - 1) / max(count - 1, 1))]
