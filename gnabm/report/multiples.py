"""Small multiples: one little curve per region on a common scale, as inline SVG."""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

from gnabm.report.changes import changed_steps
from gnabm.report.charts import per_100k, rate_unit, small_panels
from gnabm.report.curves import step_name
from gnabm.report.figure import Figure
from gnabm.report.groups import rates_table
from gnabm.report.replicates import Replicates, middle
from gnabm.report.summary import PER

_WIDTH, _HEIGHT = 200.0, 64.0


def small_multiples(replicates: Replicates, dim: str) -> Figure:
    """A grid of curves, one per group: its curve, its peak, and the whole population in grey behind it."""
    first = replicates.first
    each = replicates.stack(lambda run: per_100k(run, "incidence", dim))
    rates = middle(each)
    whole = middle(replicates.stack(lambda run: run.incidence * (PER / run.num_agents)))
    top = float(max(rates.max(initial=0.0), whole.max(initial=0.0), 1e-9))
    behind = f'<path class="whole" d="{_line(whole, top)}"/>'
    names, cells = first.groups[dim].names, []
    behind += "".join(f'<path class="moment" d="{_upright(at, first.steps)}"/>' for at in changed_steps(first))
    for number, name in enumerate(names):
        values = rates[:, number]
        peak = int(values.argmax())
        line = _line(values, top)
        label = f"{name}: peak {values[peak]:,.0f} per 100,000 on {first.when(peak)}"
        cells.append(
            f'<figure class="cell"><figcaption><b>{escape(name)}</b><span>{values[peak]:,.0f} '
            f"· {escape(first.when(peak, year=False))}</span></figcaption>"
            f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" preserveAspectRatio="none" role="img" '
            f'aria-label="{escape(label)}">{behind}'
            f'<path class="area" d="{line} L{_WIDTH:.0f},{_HEIGHT:.0f} L0,{_HEIGHT:.0f} Z"/>'
            f'<path class="line" d="{line}"/></svg></figure>'
        )
    rate = f"New infections per 100,000 and {step_name(first)}"
    note = "Height and date of the peak; the grey line is the whole population."
    note += f" Medians of {len(replicates.runs)} runs." if replicates.several else ""
    table = rates_table(replicates, "incidence", dim, each, rate_unit(first, "incidence"))
    return Figure(
        f"incidence_by_{dim}", f"{rate}, each {dim.replace('_', ' ')} on one scale", small_panels(replicates, dim),
        table, note, columns=4, html=f'<div class="cells">{"".join(cells)}</div>',
    )  # fmt: skip


def _upright(step: int, steps: int) -> str:
    """Path of the mark of a change."""
    x = _WIDTH * step / max(steps - 1, 1)
    return f"M{x:.1f},0 L{x:.1f},{_HEIGHT:.0f}"


def _line(values: NDArray[np.floating], top: float) -> str:
    """Path of a curve (time,) in the box of a cell."""
    x = np.linspace(0, _WIDTH, max(len(values), 2))
    heights = values if len(values) > 1 else np.repeat(values, 2)
    y = (_HEIGHT - 1) - (_HEIGHT - 4) * heights / top
    return "M" + " L".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
