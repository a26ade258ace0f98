"""The epidemic in figures: infections, stages, severe outcomes, regions and ages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from gnabm.report.changes import moments
from gnabm.report.curves import curves_figure, step_name, tables, time_axis, time_column, whole
from gnabm.report.figure import ACCENT, Axis, Bars, Figure, Floats, Heat, Line, Mark, Note, Panel, graded
from gnabm.report.groups import rates_table
from gnabm.report.replicates import Estimate, Replicates, middle
from gnabm.report.summary import PER, Group, Summary, family

STAGE_COLOURS = {
    "susceptible": "#8195a9", "exposed": "#d79a2b", "infectious": ACCENT, "infected": ACCENT, "recovered": "#3d7d6c",
    "in hospital": "#7a4a9c", "in intensive care": "#2b2160", "dead": "#1d2733",
    "asymptomatic": "#d9b44a", "presymptomatic mild": "#e0913a", "presymptomatic severe": "#c9653a",
    "mild": ACCENT, "severe": "#5c150f",
}  # fmt: skip
_OTHER_COLOURS = ("#6b5b95", "#2f6690", "#a0673d", "#7a8b3c", "#96703a", "#4a7c8c", "#8c4a6b", "#555f6b")
_COUNTED_APART = {"in hospital": "hospital_occupancy", "in intensive care": "icu_occupancy", "dead": "deaths"}
"""Families that lie flat beside the others, and the observable that has a figure of its own for them."""
_MOST_STAGES = 6
"""So many curves can be told apart; more stages are shown by family."""
OUTCOMES = {
    "deaths": ("Deaths", "#1d2733"),
    "hospital_occupancy": ("In hospital", "#7a4a9c"),
    "icu_occupancy": ("In intensive care", "#2b2160"),
    "hospital_admissions": ("Hospital admissions", "#a07cc0"),
}
"""Title and colour of the severe outcomes, in the order of the page."""


def new_infections(replicates: Replicates) -> Figure:
    """New infections of each step, with the peak marked."""
    first = replicates.first
    values = replicates.stack(lambda run: run.incidence)
    height = middle(values)
    peak = int(height.argmax())
    # The note stands where there is room.
    note = Note(
        first.time[peak], float(height[peak]), f"{height[peak]:,.0f} on {first.when(peak)}", peak > first.steps * 0.6
    )
    return curves_figure(
        replicates, "incidence", f"New infections per {step_name(first)}", {"": values},
        unit=f"new infections per {step_name(first)}", value="infections", colours={"": ACCENT}, more=(note,),
    )  # fmt: skip


def _colours(names: Sequence[str]) -> dict[str, str]:
    spare = iter(_OTHER_COLOURS * len(names))
    return {name: STAGE_COLOURS.get(name) or next(spare) for name in names}


def stages(replicates: Replicates) -> Figure:
    """Agents in each stage, or in each family of stages where there are many."""
    first = replicates.first
    counts = replicates.stack(lambda run: run.stage_count)
    each = {name.replace("_", " "): counts[:, :, number] for number, name in enumerate(first.stages)}
    shown, note = each, ""
    if len(each) > _MOST_STAGES:
        shown = {}
        for name, values in each.items():
            shown[family(name)] = shown.get(family(name), 0) + values
        order = [name for name in STAGE_COLOURS if name in shown and _COUNTED_APART.get(name) not in first.series]
        apart = [name for name in shown if name not in order]
        shown = {name: shown[name] for name in order}
        members = [name for name in each if family(name) == "infected"]
        elsewhere = f" {', '.join(apart).capitalize()}: see the severe outcomes." if apart else ""
        note = f"Infected: {', '.join(members)}.{elsewhere} The file has every stage."
    figure = curves_figure(
        replicates, "stages", f"Agents by stage at the end of each {step_name(first)}", shown,
        unit="agents", value="agents", colours=_colours(tuple(shown)), label="stage", note=note,
    )  # fmt: skip
    table, by_seed = tables(replicates, each, "agents", "stage")
    return Figure(figure.name, figure.title, figure.panels, table, figure.note, by_seed=by_seed)


def courses(replicates: Replicates) -> Figure | None:
    """The infected by stage, where a model tells more than two stages of them apart."""
    first = replicates.first
    names = [name for name in first.stages if family(name) == "infected"]
    if len(first.stages) <= _MOST_STAGES or len(names) < 3:
        return None
    counts = replicates.stack(lambda run: run.stage_count)
    shown = {name.replace("_", " "): counts[:, :, first.stages.index(name)] for name in names}
    return curves_figure(
        replicates, "infected_by_stage", "The infected by stage, outside hospital", shown,
        unit="agents", value="agents", colours=_colours(tuple(shown)), label="stage",
    )  # fmt: skip


def outcome(replicates: Replicates, name: str) -> Figure:
    """An observable over time."""
    first = replicates.first
    series = first.series[name]
    title, colour = OUTCOMES.get(name, (name.replace("_", " ").capitalize(), _OTHER_COLOURS[0]))
    each = step_name(first)
    at_end = name.endswith("occupancy")
    unit = f"agents, end of the {each}" if at_end else f"{series.unit or 'agents'} per {each}"
    values = replicates.stack(lambda run: run.series[name].total)
    return curves_figure(
        replicates, name, title, {"": values}, unit=unit, value=name, colours={"": colour},
        note=f"{series.meaning[:1].upper()}{series.meaning[1:]}.",
    )  # fmt: skip


def cumulative(replicates: Replicates, name: str) -> Figure:
    """What an observable has come to by the end of each step."""
    title, colour = OUTCOMES[name]
    values = np.cumsum(replicates.stack(lambda run: run.series[name].total), axis=1)
    return curves_figure(
        replicates, f"cumulative_{name}", f"Cumulative {title.lower()}", {"": values}, unit="agents since the start",
        value=name, colours={"": colour},
    )  # fmt: skip


def per_100k(run: Summary, name: str, dim: str) -> Floats:
    """(time, num_groups) an observable per 100,000 people of each group.

    Outcomes that are counted as they happen are rare in a group: they are summed over the last seven days.
    """
    group = run.groups[dim]
    if name == "incidence":
        return group.per_100k
    values = run.series[name].by[dim]
    if not name.endswith("occupancy"):
        before = np.pad(np.cumsum(values, axis=0), ((_week(run), 0), (0, 0)))
        values = before[_week(run) :] - before[: -_week(run)]
    return values * (PER / np.maximum(group.people, 1))


def _week(run: Summary) -> int:
    """Steps of seven days; at least one."""
    return max(round(7 / run.dt), 1)


def _title(name: str) -> str:
    return "New infections" if name == "incidence" else OUTCOMES.get(name, (name.replace("_", " "), ""))[0]


def rate_unit(run: Summary, name: str) -> str:
    """Unit of `per_100k`."""
    if name == "incidence":
        return f"per 100,000 and {step_name(run)}"
    return "per 100,000" if name.endswith("occupancy") else "per 100,000 in the last 7 days"


def by_group(replicates: Replicates, name: str, dim: str) -> Figure:
    """An observable per 100,000 over time, a line per group in order of the palette."""
    first = replicates.first
    rates = replicates.stack(lambda run: per_100k(run, name, dim))
    names = first.groups[dim].names
    shown = {label: rates[:, :, number] for number, label in enumerate(names)}
    unit = rate_unit(first, name)
    colours = {label: graded(number, len(names)) for number, label in enumerate(names)}
    what = dim.replace("_group", "")
    figure = curves_figure(
        replicates, f"{name}_by_{what}", f"{_title(name)} by {what}", shown, unit=unit, value="per_100k",
        colours=colours, label=dim, spread=False,
    )  # fmt: skip
    return replace(figure, table=rates_table(replicates, name, dim, rates, unit), by_seed=None)


def heat_map(replicates: Replicates, name: str, dim: str) -> Figure:
    """An observable per 100,000 by group and time; the mean over replicates."""
    first = replicates.first
    rates = replicates.stack(lambda run: per_100k(run, name, dim))
    names, unit = first.groups[dim].names, rate_unit(first, name)
    table = rates_table(replicates, name, dim, rates, unit)
    panel = Panel(
        (Heat(first.time, names, rates.mean(axis=0).T, unit),), time_axis(first), Axis(kind="name", reverse=True),
        height=120 + 22 * len(names),
    )  # fmt: skip
    note = f"Mean of {len(replicates.runs)} runs." if replicates.several else ""
    return Figure(f"{name}_by_{dim}_heat", f"{_title(name)} {unit}", (panel,), table, note)


def attack_bars(replicates: Replicates, dim: str) -> Figure:
    """Share infected by the end, by group."""
    group = replicates.first.groups[dim]
    found = [Estimate.of(values) for values in replicates.stack(lambda run: run.groups[dim].attack_rate).T]
    percent = np.array([100 * one.mean for one in found])
    error = np.array([100 * (one.error or 0.0) for one in found])
    what = dim.replace("_group", "")
    table = pd.DataFrame({
        dim: group.names, "agents": group.people,
        "infected": whole(replicates.stack(lambda run: run.groups[dim].infected).mean(axis=0)),
        "attack_rate": [one.mean for one in found], "standard_error": [one.error for one in found],
        "runs": len(replicates.runs),
    })  # fmt: skip
    colours = tuple(graded(number, len(percent)) for number in range(len(percent)))
    across = dim == "region"
    bars = Bars(
        "", group.names, percent, "#8195a9" if across else colours, error if replicates.several else None,
        tuple(f"{value:.0f} %" for value in percent), across,
    )  # fmt: skip
    length, names = Axis("infected by the end, % of the group"), Axis(kind="name", reverse=across)
    panel = Panel((bars,), length if across else names, names if across else length, height=430 if across else 340)
    note = "Mean of the runs with its standard error." if replicates.several else ""
    return Figure(f"attack_rate_by_{what}", f"Attack rate by {what}", (panel,), table, note)


def small_panels(replicates: Replicates, dim: str) -> tuple[Panel, ...]:
    """One little curve of new infections per 100,000 for each group, on one scale, before the whole in grey."""
    first = replicates.first
    rates = middle(replicates.stack(lambda run: per_100k(run, "incidence", dim)))
    whole = middle(replicates.stack(lambda run: run.incidence * (PER / run.num_agents)))
    top = float(max(rates.max(initial=0.0), whole.max(initial=0.0), 1e-9)) * 1.05

    def marks(number: int) -> tuple[Mark, ...]:
        return (
            Line("", first.time, whole, "#b9c1ca", 1.2),
            Line("", first.time, rates[:, number], ACCENT, 1.6, filled=True),
            *moments(first),
        )

    y = Axis(top=top)
    return tuple(
        Panel(marks(number), time_axis(first), y, name, 150) for number, name in enumerate(first.groups[dim].names)
    )


def cube(replicates: Replicates) -> Iterator[tuple[str, pd.DataFrame]]:
    """Every observable of every run as counts: by time, and by each label, one table each."""
    when, time = time_column(replicates.first)
    dims: list[str] = ["", *replicates.first.groups]
    for dim in dims:
        frames = []
        for run, seed in zip(replicates.runs, replicates.seeds, strict=True):
            group: Group | None = run.groups.get(dim)
            names: tuple[str, ...] = ("",) if group is None else group.names
            for number, name in enumerate(names):
                columns: dict[str, object] = {when: time, **({dim: name} if dim else {})}
                columns["infections"] = run.incidence if group is None else group.incidence[:, number]
                for key, series in run.series.items():
                    if not dim or dim in series.by:
                        columns[key] = whole(series.by[dim][:, number] if dim else series.total)
                frames.append(pd.DataFrame(columns).assign(seed=seed))
        yield f"observables_by_{dim}" if dim else "observables", pd.concat(frames)
