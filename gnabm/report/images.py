"""Figures as PNG files, drawn by matplotlib without a screen."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, MaxNLocator

from gnabm.report.figure import GRID, INK, MUTED, Axis, Band, Bars, Dots, Figure, Heat, Line, Moment, Note, Panel

_DPI = 150
_WIDTH = 9.0
"""Inches: 1350 pixels."""
_PIXELS_PER_INCH = 90.0
"""Pixels of the page that become one inch."""


def draw(figure: Figure, path: Path) -> None:
    """Draw a figure.

    Args:
        figure: The figure.
        path: PNG file to write.
    """
    columns = min(figure.columns, len(figure.panels))
    rows = math.ceil(len(figure.panels) / columns)
    height = sum(panel.height for panel in figure.panels[::columns]) / _PIXELS_PER_INCH + 0.75
    canvas = Canvas(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(canvas)
    canvas.suptitle(figure.title, x=0.01, ha="left", fontsize=12, color=INK, fontweight="bold")
    axes = np.atleast_1d(canvas.subplots(rows, columns, squeeze=False)).ravel()
    for ax, panel in zip(axes, figure.panels, strict=False):
        _panel(ax, panel, small=columns > 2)
    for ax in axes[len(figure.panels) :]:
        ax.set_axis_off()
    if figure.citations:
        cited = "\n".join(f"Source: {citation}" for citation in dict.fromkeys(map(str, figure.citations)))
        canvas.supxlabel(cited, x=0.01, ha="left", fontsize=7, color=MUTED, wrap=True)
    canvas.savefig(path, metadata={"Title": figure.title})


def _panel(ax: Axes, panel: Panel, *, small: bool) -> None:
    text = 7 if small else 9
    for mark in panel.marks:
        if isinstance(mark, Line):
            style: dict[str, Any] = {"lw": 0.8 * mark.width, "ls": ":" if mark.dashed else "-"}
            ax.plot(mark.x, mark.y, color=mark.colour, label=mark.name or "_", **style)  # type: ignore[arg-type]
            if mark.filled:
                ax.fill_between(mark.x, mark.y, color=mark.colour, alpha=0.14, lw=0)  # type: ignore[arg-type]
        elif isinstance(mark, Band):
            ax.fill_between(mark.x, mark.low, mark.high, color=mark.colour, alpha=0.2, lw=0, label=mark.name or "_")  # type: ignore[arg-type]
        elif isinstance(mark, Bars):
            _bars(ax, mark, text)
        elif isinstance(mark, Dots):
            _dots(ax, mark)
        elif isinstance(mark, Moment):
            ax.axvline(mark.x, color=MUTED, lw=0.8, ls="--", zorder=1)  # type: ignore[arg-type]
        elif isinstance(mark, Note):
            shift, side = (-6, "right") if mark.leftwards else (6, "left")
            ax.annotate(mark.text, (mark.x, mark.y), (shift, 0), textcoords="offset points", ha=side, va="center",
                        fontsize=text, color=MUTED)  # fmt: skip
        else:
            _heat(ax, mark, text)
    _axis(ax, panel.x, text, vertical=False)
    _axis(ax, panel.y, text, vertical=True)
    _frame(ax, panel, text)


def _frame(ax: Axes, panel: Panel, text: int) -> None:
    heat = any(isinstance(mark, Heat) for mark in panel.marks)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(GRID)
    ax.tick_params(colors=INK, labelsize=text, color=GRID)
    if not heat:
        across = any(isinstance(mark, Bars) and mark.across for mark in panel.marks)
        ax.grid(axis="x" if across else "y", color=GRID, lw=0.6)
        ax.set_axisbelow(True)
    if panel.title:
        ax.set_title(panel.title, loc="left", fontsize=text + 1, color=INK)
    handles, names = ax.get_legend_handles_labels()
    if names:
        ax.legend(handles, names, frameon=False, fontsize=text - 1, labelcolor=INK, ncols=3 if len(names) > 4 else 1)


def _axis(ax: Axes, axis: Axis, text: int, *, vertical: bool) -> None:
    side: Any = ax.yaxis if vertical else ax.xaxis
    side.set_label_text(axis.title, fontsize=text, color=MUTED)
    if axis.kind == "date":
        locator = AutoDateLocator(minticks=3, maxticks=8 if text > 8 else 4)  # type: ignore[no-untyped-call]
        side.set_major_locator(locator)
        side.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    elif axis.kind == "number":
        side.set_major_locator(MaxNLocator(6 if text > 8 else 4, steps=[1, 2, 2.5, 5, 10]))
        side.set_major_formatter(FuncFormatter(_number))
        limits = ax.set_ylim if vertical else ax.set_xlim
        if axis.top is not None:
            limits(0, axis.top)
        elif not axis.signed and vertical:
            limits(bottom=0)  # type: ignore[call-arg]
    if axis.reverse and axis.kind == "name" and not side.get_inverted():
        side.set_inverted(True)


def _number(value: float, _: int | None) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def _bars(ax: Axes, mark: Bars, text: int) -> None:
    colour = mark.colours if isinstance(mark.colours, str) else list(mark.colours)
    at = list(mark.at)
    label = mark.name or "_"
    style: dict[str, Any] = {"color": colour, "label": label, "error_kw": {"ecolor": MUTED, "elinewidth": 1}}
    if mark.across:
        drawn = ax.barh(at, mark.length, height=0.75, xerr=mark.error, **style)  # type: ignore[arg-type]
    else:
        drawn = ax.bar(at, mark.length, width=0.75, yerr=mark.error, **style)  # type: ignore[arg-type]
    if mark.text:
        ax.bar_label(drawn, list(mark.text), fontsize=text - 1, color=MUTED, padding=2)
    if at and isinstance(at[0], str) and not mark.across and sum(map(len, map(str, at))) > 110:
        ax.tick_params(axis="x", rotation=60)


def _dots(ax: Axes, mark: Dots) -> None:
    at, marker = list(mark.x), "|" if mark.across else "_"
    x, y = (mark.y, at) if mark.across else (at, mark.y)
    ax.scatter(x, y, marker=marker, s=90, color=mark.colour, linewidths=2, label=mark.name or "_", zorder=3)  # type: ignore[arg-type]


def _heat(ax: Axes, mark: Heat, text: int) -> None:
    low, top = mark.span
    named = isinstance(mark.x[0], str)
    columns: Any = np.arange(len(mark.x)) if named else list(mark.x)
    cmap = LinearSegmentedColormap.from_list("report", list(mark.colours))
    image = ax.pcolormesh(columns, np.arange(len(mark.y)), mark.z, cmap=cmap, vmin=low, vmax=top, shading="nearest")
    ax.set_yticks(np.arange(len(mark.y)), list(mark.y))
    ax.invert_yaxis()
    if named:
        ax.set_xticks(columns, [str(name) for name in mark.x], rotation=90)
    bar = ax.figure.colorbar(image, ax=ax, pad=0.01, aspect=30)
    bar.set_label(mark.unit, fontsize=text, color=MUTED)
    bar.ax.tick_params(labelsize=text - 1, colors=INK)
    bar.outline.set_visible(False)
