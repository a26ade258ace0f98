"""Curves over time of one run, or of replicates: the median line, its interval, and the tables of both."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import numpy as np
import pandas as pd

from gnabm.report.changes import moments
from gnabm.report.figure import ACCENT, Axis, Band, Figure, Floats, Line, Mark, Panel
from gnabm.report.replicates import Replicates, interval, middle
from gnabm.report.summary import Summary

SPREAD = "Line: median of {runs} runs. Band: 5 to 95 % of them."


def step_name(summary: Summary) -> str:
    """`day`, or `step` when a step is no day."""
    return "day" if summary.dt == 1 else "step"


def time_axis(summary: Summary) -> Axis:
    """Dates, or the number of the step in a run without a calendar."""
    return Axis("", "date") if isinstance(summary.time[0], date) else Axis("step")


def time_column(summary: Summary) -> tuple[str, list[date | int]]:
    """Name and values of the column of time in a table."""
    return ("date" if isinstance(summary.time[0], date) else "step"), list(summary.time)


def curve(replicates: Replicates, values: Floats, name: str = "", colour: str = ACCENT, **style: bool) -> list[Mark]:
    """Marks of one curve.

    Args:
        replicates: The runs.
        values: (num_runs, time).
        name: In the legend.
        colour: Colour.
        style: `filled` and `dashed` of the line.
    """
    x = replicates.first.time
    line = Line(name, x, middle(values), colour, **style)
    return [Band("", x, *interval(values), colour), line] if replicates.several else [line]


def tables(
    replicates: Replicates, curves: Mapping[str, Floats], value: str, label: str = "", *, mean: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """The numbers of curves, one row per time (and curve).

    Args:
        replicates: The runs.
        curves: Name to (num_runs, time).
        value: Name of the column of values.
        label: Name of the column of names; empty where there is one curve.
        mean: Give the mean of several runs rather than their median.

    Returns:
        For one run the values and None; for several their centre and the ends of the interval, and the values by seed.
    """
    when, time = time_column(replicates.first)

    def keys(name: str) -> dict[str, object]:
        return {when: time, **({label: name} if label else {})}

    def of(run: int) -> pd.DataFrame:
        return pd.concat([pd.DataFrame(keys(n) | {value: whole(v[run])}) for n, v in curves.items()])

    if not replicates.several:
        return of(0), None
    rows, kind = [], "mean" if mean else "median"
    for name, values in curves.items():
        low, high = interval(values)
        centre = values.mean(axis=0) if mean else middle(values)
        rows.append(pd.DataFrame(keys(name) | {f"{value}_{kind}": centre, "low_5": low, "high_95": high}))
    seeds = [of(run).assign(seed=seed) for run, seed in enumerate(replicates.seeds)]
    return pd.concat(rows), pd.concat(seeds)


def whole(values: Floats) -> Floats | np.ndarray:
    """Counts as whole numbers, anything else as it is."""
    return values.astype(np.int64) if np.isfinite(values).all() and (values == np.round(values)).all() else values


def curves_figure(
    replicates: Replicates,
    name: str,
    title: str,
    curves: Mapping[str, Floats],
    *,
    unit: str,
    value: str,
    colours: Mapping[str, str],
    label: str = "",
    note: str = "",
    spread: bool = True,
    more: tuple[Mark, ...] = (),
) -> Figure:
    """A figure of curves over time.

    Args:
        replicates: The runs.
        name: Stem of its files.
        title: Title.
        curves: Name to (num_runs, time).
        unit: Title of the vertical axis.
        value: Name of the column of values in its table.
        colours: Colour of each curve.
        label: What the curves are told apart by; without one there is one curve, shaded below.
        note: What a reader has to know.
        spread: Show the interval over replicates; many curves in one panel show their means only, which small counts
            need and which add up.
        more: Marks on top.
    """
    marks: list[Mark] = []
    for key, values in curves.items():
        if spread:
            marks += curve(replicates, values, key if label else "", colours[key], filled=not label)
        else:
            marks.append(Line(key, replicates.first.time, values.mean(axis=0), colours[key]))
    table, by_seed = tables(replicates, curves, value, label, mean=not spread)
    said = SPREAD.format(runs=len(replicates.runs)) if spread else f"Means of {len(replicates.runs)} runs."
    said = f"{note} {said}".strip() if replicates.several else note
    marks += [*moments(replicates.first), *more]
    panel = Panel(tuple(marks), time_axis(replicates.first), Axis(unit))
    return Figure(name, title, (panel,), table, said, by_seed=by_seed)
