"""Who infected whom in figures: reproduction numbers, generation interval, secondary cases, layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gnabm.infections import (
    cohort_reproduction,
    generation_intervals,
    horizon,
    renewal_reproduction,
    secondary_cases,
    share_by_layer,
)
from gnabm.report.changes import moments
from gnabm.report.curves import curve, curves_figure, step_name, tables, time_axis
from gnabm.report.figure import SOURCE_INK, Axis, Bars, Figure, Floats, Line, Mark, Panel, Section
from gnabm.report.replicates import Estimate, Replicates
from gnabm.report.summary import Summary

_BAR = "#b7c0ca"
_LAYER_COLOURS = ("#b1432a", "#d79a2b", "#8a6d2f", "#2f6690", "#7fa7c4", "#3d7d6c", "#6b5b95", "#a07cc0")
_RULE_COLOURS = ("#1d2733", "#8d97a3", "#5d6875", "#c2c8cf")
"""Of the rules that bring infections from outside."""
_MOST_CASES = 15
"""Numbers of secondary cases from here on share one bar."""


@dataclass(frozen=True, eq=False)
class Spread:
    """What the line list of a run says, in figures that are small enough to keep.

    Args:
        recorded: Infections in the list, those of the initial state left out.
        horizon: Steps after an infection in which 99 % of its secondary cases happen.
        cohort: (steps,) mean number of secondary cases by step of infection; NaN where nobody was infected, or where
            the run ended before all of them can have happened.
        generations: (n,) pairs by steps from infection to infection, from 0.
        secondary: (n,) infectors by number of secondary cases, from 0; those of the last steps left out.
        layers: Share of the infections by layer, or by the rule that brought them from outside.
        by_layer: (steps,) infections of each of these.
        local: (steps,) infections with an infector.
    """

    recorded: int
    horizon: int
    cohort: Floats
    generations: Floats
    secondary: Floats
    layers: dict[str, float]
    by_layer: dict[str, Floats]
    local: Floats

    @staticmethod
    def of(line_list: pd.DataFrame, summary: Summary) -> Spread:
        """Figures of a line list.

        Args:
            line_list: As `gnabm.infections.open_infections` gives it.
            summary: The run.
        """
        generations = np.asarray(generation_intervals(line_list), np.float64)
        expected = intrinsic(summary)
        if expected is None:
            expected = generations[1:] / max(generations[1:].sum(), 1.0)
        reach = horizon(expected) if expected.any() else 0
        later = line_list[line_list["step"] >= 0]
        made = later[later["infector"] >= 0]
        shares = share_by_layer(line_list)
        return Spread(
            recorded=len(later),
            horizon=reach,
            cohort=cohort_reproduction(line_list, summary.steps, reach),
            generations=generations,
            secondary=np.asarray(secondary_cases(line_list, summary.steps - reach - 1), np.float64),
            layers=shares,
            by_layer={name: _by_step(later[later["layer"] == name], summary.steps) for name in shares},
            local=_by_step(made, summary.steps),
        )


def _by_step(records: pd.DataFrame, steps: int) -> Floats:
    """(steps,) records of each step."""
    return np.bincount(records["step"].to_numpy(), minlength=steps).astype(np.float64)


def intrinsic(summary: Summary) -> Floats | None:
    """(K,) share of infections made k = 1..K steps after infection, as the model states it; None where it does not."""
    stated = summary.attributes.get("generation_interval")
    return None if not stated else np.asarray(stated, np.float64)


def spread_section(replicates: Replicates, spreads: Sequence[Spread]) -> Section | None:
    """Who infected whom.

    Args:
        replicates: The runs.
        spreads: Figures of the line list of each run; none where any run kept no line list.

    Returns:
        None where neither line list nor generation interval is known.
    """
    blocks: list[Figure | tuple[Figure, ...] | str] = []
    number = reproduction(replicates, spreads)
    if number is not None:
        blocks.append(number)
    if any(one.recorded for one in spreads):
        blocks.append((generation_figure(replicates, spreads), secondary_figure(spreads)))
        blocks.append((layers_figure(replicates, spreads), layer_curves(replicates, spreads)))
    if not blocks:
        return None
    note = (
        "From the line list: who was infected, when, by whom and in which layer."
        if spreads
        else "Without a line list (record.infections) the reproduction number follows from the curve alone."
    )
    return Section("Who infected whom", tuple(blocks), note)


def reproduction(replicates: Replicates, spreads: Sequence[Spread]) -> Figure | None:
    """Cohort and renewal reproduction number over time, days that tell too little left out."""
    first = replicates.first
    expected = intrinsic(first)
    curves: dict[str, Floats] = {}
    marks: list[Mark] = [Line("", first.time, np.ones(first.steps), "#8d97a3", 1.0, dashed=True)]
    notes = []
    if spreads:
        curves["cohort"] = np.stack([one.cohort for one in spreads])
        marks += curve(replicates, curves["cohort"], "by day of infection (cohort)")
        notes.append(
            f"Cohort: mean number of secondary cases of those infected on a {step_name(first)}; the last "
            f"{max(one.horizon for one in spreads)} {step_name(first)}s are left out, their cases are not all in yet."
        )
    if expected is not None:
        skipped = horizon(expected)
        curves["renewal"] = replicates.stack(lambda run: _renewal(run, expected, skipped))
        if spreads:  # of the infections made here: those brought from outside are known by their missing infector
            incidence = replicates.stack(lambda run: run.incidence)
            curves["renewal"] *= np.stack([one.local for one in spreads]) / np.maximum(incidence, 1)
        marks += curve(replicates, curves["renewal"], "from the curve (renewal)", SOURCE_INK)
        notes.append(
            f"Renewal: new infections{' with an infector' if spreads else ''} over those expected from earlier ones by "
            f"the generation interval; the first {skipped} {step_name(first)}s are left out, for initial infections "
            "are not in the curve." + ("" if spreads else " Infections brought from outside count as if made here.")
        )
    if not any(np.isfinite(values).any() for values in curves.values()):
        return None
    marks += moments(first)
    panel = Panel(tuple(marks), time_axis(first), Axis("secondary cases per case"))
    table, by_seed = tables(replicates, curves, "reproduction_number", "estimate")
    title = "Reproduction number over time"
    return Figure("reproduction_number", title, (panel,), table, " ".join(notes), by_seed=by_seed)


def _renewal(run: Summary, expected: Floats, skipped: int) -> Floats:
    """(time,) renewal estimate; NaN while initial infections, which the curve lacks, may still infect."""
    found = np.array(renewal_reproduction(run.incidence, expected), np.float64)
    found[:skipped] = np.nan
    return found


def generation_figure(replicates: Replicates, spreads: Sequence[Spread]) -> Figure:
    """Steps from infection to infection: those of the run beside those of the model."""
    length = max(len(one.generations) for one in spreads)
    counts = np.sum([np.pad(one.generations, (0, length - len(one.generations))) for one in spreads], axis=0)
    expected = intrinsic(replicates.first)
    length = max(length, 0 if expected is None else len(expected) + 1)
    counts = np.pad(counts, (0, length - len(counts)))
    share = counts / max(counts.sum(), 1.0)
    dt = replicates.first.dt
    at = np.arange(length) * dt
    kept = _reach(np.maximum(share, 0 if expected is None else np.pad(expected, (1, length - 1 - len(expected)))))
    ticks = [f"{value:g}" for value in at[:kept]]
    table = pd.DataFrame({"days": at, "pairs": counts.astype(np.int64), "share": share})
    marks: list[Mark] = [Bars("in the run", ticks, 100 * share[:kept], _BAR)]
    note = f"Mean of the run {float((share * at).sum()):.2f} days"
    if expected is not None:
        law = np.pad(expected, (1, length - 1 - len(expected)))
        table["intrinsic"] = law
        marks.append(Line("of the model, had everyone stayed susceptible", ticks, 100 * law[:kept], SOURCE_INK))
        note += f", of the model {float((law * at).sum()):.2f} days"
    note += ". In a growing epidemic short intervals are seen more often, in a waning one long ones."
    panel = Panel(tuple(marks), Axis("days from infection to infection", "name"), Axis("% of pairs"), height=300)
    return Figure("generation_interval", "Generation interval", (panel,), table, note)


def _reach(share: Floats) -> int:
    """Entries up to the last that holds a thousandth."""
    there = np.flatnonzero(share >= 1e-3)
    return int(there[-1]) + 1 if len(there) else min(len(share), 2)


def secondary_figure(spreads: Sequence[Spread]) -> Figure:
    """Infected agents by the number of those whom they infected."""
    length = max(len(one.secondary) for one in spreads)
    counts = np.sum([np.pad(one.secondary, (0, length - len(one.secondary))) for one in spreads], axis=0)
    number = np.arange(length)
    total = max(counts.sum(), 1.0)
    mean = float((counts * number).sum() / total)
    most = min(length, _MOST_CASES)
    shown = np.append(counts[: most - 1], counts[most - 1 :].sum()) / total
    ticks = [str(n) for n in range(most - 1)] + [f"{most - 1}{'+' if length > most else ''}"]
    # The fewest infectors who made 80 % of the cases.
    order = counts[::-1] * number[::-1]
    made = np.cumsum(order) / max(order.sum(), 1.0)
    few = float(np.interp(0.8, np.append(0.0, made), np.append(0.0, np.cumsum(counts[::-1]) / total)))
    note = (
        f"Mean {mean:.2f}; {100 * few:.0f} % of the infected made 80 % of the cases. Those infected too late for all "
        "their cases to have happened are left out."
    )
    panel = Panel(
        (Bars("", ticks, 100 * shown, _BAR),), Axis("secondary cases", "name"), Axis("% of the infected"), height=300
    )
    table = pd.DataFrame({"secondary_cases": number, "infected": counts.astype(np.int64), "share": counts / total})
    return Figure("secondary_cases", "Secondary cases per case", (panel,), table, note)


def _label(name: str, replicates: Replicates) -> str:
    """A layer, or a rule that brings infections from outside."""
    layers = replicates.first.attributes.get("population", {}).get("layers")
    return name if not layers or name in layers else f"{name}, from outside"


def layers_figure(replicates: Replicates, spreads: Sequence[Spread]) -> Figure:
    """Share of the infections by layer."""
    names = _layers(spreads)
    found = [Estimate.of([one.layers.get(name, 0.0) for one in spreads]) for name in names]
    percent = np.array([100 * one.mean for one in found])
    error = np.array([100 * (one.error or 0.0) for one in found]) if len(spreads) > 1 else None
    table = pd.DataFrame({"layer": names, "share": percent / 100})
    if error is not None:
        table["standard_error"] = error / 100
    text = tuple(f"{value:.1f} %" for value in percent)
    labels, colours = [_label(name, replicates) for name in names], tuple(_colours(names, replicates).values())
    bars = Bars("", labels, percent, colours, error, text, across=True)
    height = max(90 + 30 * len(names), 320)
    panel = Panel((bars,), Axis("% of infections"), Axis(kind="name", reverse=True), height=height)
    total = sum(one.recorded for one in spreads)
    note = f"{total:,} recorded infections, those of the initial state left out."
    return Figure("share_by_layer", "Where infections happened", (panel,), table, note)


def layer_curves(replicates: Replicates, spreads: Sequence[Spread]) -> Figure:
    """Infections by layer over time."""
    zero = np.zeros(replicates.first.steps)
    names = _layers(spreads)
    shown = {name: np.stack([one.by_layer.get(name, zero) for one in spreads]) for name in names}
    each = step_name(replicates.first)
    return curves_figure(
        replicates, "infections_by_layer", f"New infections per {each} by layer", shown, unit=f"per {each}",
        value="infections", colours=_colours(names, replicates), label="layer", spread=False,
    )  # fmt: skip


def _layers(spreads: Sequence[Spread]) -> list[str]:
    return list(dict.fromkeys(name for one in spreads for name in one.layers))


def _colours(names: Sequence[str], replicates: Replicates) -> dict[str, str]:
    """A colour of each layer, and a grey of each rule that brings infections, the same in every figure."""
    layers = replicates.first.attributes.get("population", {}).get("layers") or names
    inside = [name for name in layers if name in names]
    found = {name: _LAYER_COLOURS[number % len(_LAYER_COLOURS)] for number, name in enumerate(inside)}
    outside = [name for name in names if name not in found]
    found |= {name: _RULE_COLOURS[number % len(_RULE_COLOURS)] for number, name in enumerate(outside)}
    return {name: found[name] for name in names}
