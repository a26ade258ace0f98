"""Small multiples: one little curve per region on a common scale, as inline SVG."""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

from gnabm.report.summary import PER, Group, Summary

_WIDTH, _HEIGHT = 200.0, 64.0


def small_multiples(summary: Summary, group: Group) -> str:
    """Cells for a grid, one per group: its curve, its peak, and the whole population in grey behind it."""
    rates = group.per_100k
    whole = summary.incidence * (PER / summary.num_agents)
    top = float(max(rates.max(initial=0.0), whole.max(initial=0.0), 1e-9))
    behind = f'<path class="whole" d="{_line(whole, top)}"/>'
    cells = []
    for number, name in enumerate(group.names):
        curve = rates[:, number]
        peak = int(curve.argmax())
        line = _line(curve, top)
        label = f"{name}: peak {curve[peak]:,.0f} per 100,000 on {summary.when(peak)}"
        cells.append(
            f'<figure class="cell"><figcaption><b>{escape(name)}</b><span>{curve[peak]:,.0f} '
            f"· {escape(summary.when(peak, year=False))}</span></figcaption>"
            f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" preserveAspectRatio="none" role="img" '
            f'aria-label="{escape(label)}">{behind}'
            f'<path class="area" d="{line} L{_WIDTH:.0f},{_HEIGHT:.0f} L0,{_HEIGHT:.0f} Z"/>'
            f'<path class="line" d="{line}"/></svg></figure>'
        )
    return f'<div class="cells">{"".join(cells)}</div>'


def _line(values: NDArray[np.floating], top: float) -> str:
    """Path of a curve (time,) in the box of a cell."""
    x = np.linspace(0, _WIDTH, max(len(values), 2))
    heights = values if len(values) > 1 else np.repeat(values, 2)
    y = (_HEIGHT - 1) - (_HEIGHT - 4) * heights / top
    return "M" + " L".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
