"""The tables of regions and ages: every one of them has the same columns for one run and for several."""

from __future__ import annotations

from datetime import date
from html import escape

import numpy as np
import pandas as pd

from gnabm.report.curves import time_column, whole
from gnabm.report.figure import Floats
from gnabm.report.replicates import Estimate, Replicates, interval, middle
from gnabm.report.summary import Summary


def counts_of(run: Summary, name: str, dim: str) -> Floats:
    """(time, num_groups) an observable by group, as it was counted."""
    values = run.groups[dim].incidence if name == "incidence" else run.series[name].by[dim]
    return np.asarray(values, np.float64)


def rates_table(replicates: Replicates, name: str, dim: str, rates: Floats, unit: str) -> pd.DataFrame:
    """An observable by group over time, as counts and as the rates of the picture.

    Args:
        replicates: The runs.
        name: The observable.
        dim: `region` or `age_group`.
        rates: (num_runs, time, num_groups).
        unit: Of the rates.
    """
    when, time = time_column(replicates.first)
    counts = replicates.stack(lambda run: counts_of(run, name, dim)).mean(axis=0)
    low, high = interval(rates)
    mean, median = rates.mean(axis=0), middle(rates)
    frames = [
        pd.DataFrame({
            when: time, dim: label, "count": whole(counts[:, n]), "per_100k": mean[:, n],
            "per_100k_median": median[:, n], "low_5": low[:, n], "high_95": high[:, n], "unit": unit,
            "runs": len(replicates.runs),
        })
        for n, label in enumerate(replicates.first.groups[dim].names)
    ]  # fmt: skip
    return pd.concat(frames)


def figures_by(replicates: Replicates, dim: str) -> pd.DataFrame:
    """The key figures of each group: means over the runs with their standard errors, which one run has not."""
    first, group = replicates.first, replicates.first.groups[dim]
    rates = replicates.stack(lambda run: run.groups[dim].per_100k)
    found: dict[str, Floats] = {
        "infections": replicates.stack(lambda run: run.groups[dim].incidence.sum(axis=0)),
        "infected_with_initial": replicates.stack(lambda run: run.groups[dim].infected),
        "attack_rate": replicates.stack(lambda run: run.groups[dim].attack_rate),
        "peak_per_100k": rates.max(axis=1),
        "peak_day": rates.argmax(axis=1) * first.dt,
    }
    for name in [name for name, series in first.series.items() if dim in series.by]:
        values = np.stack([run.series[name].by[dim] for run in replicates.runs])
        if name.endswith("occupancy"):
            found[f"peak_{name}"] = values.max(axis=1)
        else:
            found[name] = values.sum(axis=1)
    rows = []
    for number, label in enumerate(group.names):
        row: dict[str, object] = {dim: label, "agents": int(group.people[number]), "runs": len(replicates.runs)}
        for name, values in found.items():
            one = Estimate.of(values[:, number])
            if name == "peak_day":
                at = first.time[round(one.mean / first.dt)]
                row["peak_when"] = at.isoformat() if isinstance(at, date) else at
            row |= {name: one.mean, f"{name}_error": one.error}
        rows.append(row)
    return pd.DataFrame(rows)


def region_table(replicates: Replicates) -> str:
    """The key figures by region on the page."""
    first, table = replicates.first, figures_by(replicates, "region")
    deaths = "deaths" in table
    rows = []
    for row in table.to_dict("records"):
        peak = first.when(round(row["peak_day"] / first.dt))
        if replicates.several:
            peak += f" ± {row['peak_day_error']:.1f} days"
        rows.append(
            f"<tr><td>{escape(row['region'])}</td><td class='num'>{row['agents']:,}</td>"
            f"<td class='num'>{row['infections']:,.0f}</td><td class='num'>{100 * row['attack_rate']:.1f} %</td>"
            f"<td class='num'>{row['peak_per_100k']:,.0f}</td><td class='num'>{escape(peak)}</td>"
            + (f"<td class='num'>{row['deaths']:,.0f}</td>" if deaths else "")
            + "</tr>"
        )
    means = ", means of the runs" if replicates.several else ""
    return (
        f'<div class="block"><h3>Figures by region{means}</h3><div class="scroll"><table><thead><tr><th>Region</th>'
        "<th class='num'>Agents</th><th class='num'>New infections</th><th class='num'>Attack rate</th>"
        "<th class='num'>Peak per 100,000</th><th class='num'>Peak on</th>"
        + ("<th class='num'>Deaths</th>" if deaths else "")
        + f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div></div>"
    )
