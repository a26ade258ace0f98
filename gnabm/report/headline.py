"""The headline figures, with their Monte Carlo error where there are replicates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from html import escape

import numpy as np
import pandas as pd

from gnabm.report.changes import NUMBER, until
from gnabm.report.curves import step_name
from gnabm.report.replicates import Estimate, Replicates
from gnabm.report.summary import Summary

_OCCUPANCY = (
    ("hospital_occupancy", "in hospital at the peak"),
    ("icu_occupancy", "in intensive care at the peak"),
)


@dataclass(frozen=True)
class Headline:
    """One figure.

    Args:
        name: Name in the table.
        estimate: Mean over the runs.
        text: What it is, for the page.
        percent: A share, shown in per cent.
        step: When it happened, mean over the runs; None for what has no moment.
    """

    name: str
    estimate: Estimate
    text: str
    percent: bool = False
    step: Estimate | None = None

    @property
    def value(self) -> str:
        """For people."""
        return _shown(self.estimate.mean, percent=self.percent, error=self.estimate.error)

    @property
    def spread(self) -> str:
        """Its standard error for people; empty for one run."""
        error = self.estimate.error
        return "" if error is None else f"± {_shown(error, percent=self.percent, error=error).removesuffix(' %')}"


def headlines(replicates: Replicates) -> list[Headline]:
    """What the runs come to."""
    first, each = replicates.first, step_name(replicates.first)
    found = [
        Headline(
            "attack_rate", replicates.estimate(lambda run: run.attack_rate),
            "attack rate: infected by the end, initial ones included", percent=True,
        ),
        _peak(
            replicates, "peak_infections", lambda run: run.incidence.astype(np.float64),
            f"new infections on the peak {each}",
        ),
        Headline("infections", replicates.estimate(lambda run: run.total_infections), "new infections in all"),
    ]  # fmt: skip
    for name in ("deaths", "hospital_admissions"):
        if name in first.series:
            totals = replicates.stack(_total_of(name)).sum(axis=1)
            found.append(Headline(name, Estimate.of(totals), name.replace("_", " ")))
    for name, text in _OCCUPANCY:
        if name in first.series:
            found.append(_peak(replicates, f"peak_{name}", _total_of(name), text))
    return found


def _total_of(name: str) -> Callable[[Summary], np.ndarray]:
    return lambda run: run.series[name].total


def _peak(replicates: Replicates, name: str, curve: Callable[[Summary], np.ndarray], text: str) -> Headline:
    steps = replicates.stack(lambda run: float(curve(run).argmax()))
    when = Estimate.of(steps)
    at = replicates.first.when(round(when.mean))
    said = at if when.error is None else f"{at} ± {when.error * replicates.first.dt:.1f} days"
    height = replicates.estimate(lambda run: float(curve(run).max()))
    return Headline(name, height, f"{text}, {said}", step=when)


def headline_frame(replicates: Replicates) -> pd.DataFrame:
    """The headline figures as a table; `when` is a date, or a step without a calendar."""
    first = replicates.first
    rows = []
    for one in headlines(replicates):
        row = {"figure": one.name, "mean": one.estimate.mean, "standard_error": one.estimate.error}
        at = None if one.step is None else first.time[round(one.step.mean)]
        error = None if one.step is None or one.step.error is None else one.step.error * first.dt
        moment = at.isoformat() if isinstance(at, date) else at
        rows.append(row | {"runs": one.estimate.runs, "when": moment, "when_error_days": error})
    return pd.DataFrame(rows)


def headline_cells(replicates: Replicates) -> str:
    """The headline figures on the page, and what they were asked for."""
    first = replicates.first
    cells = [(f"{one.value}{f' <i>{one.spread}</i>' if one.spread else ''}", one.text) for one in headlines(replicates)]
    stated = first.attributes.get("reproduction_number")
    if stated is not None:
        cells.append((f"{float(stated):g}", f"R0 stated{until(first, (NUMBER, 'parameters.'))}"))
    cells += [(f"{first.num_agents:,}", "agents"), (f"{first.steps * first.dt:,g}", "days simulated")]
    shown = "".join(
        f'<div class="{"lead-figure" if number == 0 else ""}"><b>{value}</b><span>{escape(text)}</span></div>'
        for number, (value, text) in enumerate(cells)
    )
    note = ""
    if replicates.several:
        seeds = ", ".join(str(seed) for seed in replicates.seeds)
        note = (
            f'<p class="note">Means of {len(replicates.runs)} runs ± the Monte Carlo standard error of the mean '
            f"(sd / √n), seeds {seeds}. The population is the same in all of them.</p>"
        )
    return f'<div class="key">{shown}</div>{note}'


def _shown(value: float, *, percent: bool, error: float | None) -> str:
    """With the decimals that its error leaves: one digit of it, or of the whole without one."""
    if percent:
        return f"{100 * value:.2f} %" if error is not None else f"{100 * value:.1f} %"
    if error is not None and 0 < error < 10:
        return f"{value:,.1f}"
    return f"{value:,.0f}"
