"""A figure as plain data: marks on panels, the table behind it, and where its figures were published.

One figure has three forms, which show the same numbers: the page (`interactive`), a PNG (`images`) and a CSV (`files`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

INK, MUTED, GRID, ACCENT = "#1d2733", "#5d6875", "#e3e6ea", "#b1432a"
SOURCE_INK = "#2f6690"
"""What a published table says, wherever it stands beside what the population or the run shows."""
HEAT = ((0.0, "#f8f5ef"), (0.15, "#f1d9bd"), (0.4, "#dd9465"), (0.7, "#b1432a"), (1.0, "#5c150f"))
DIVERGING = ((0.0, "#1f4e79"), (0.3, "#7fa8c9"), (0.5, "#f8f5ef"), (0.7, "#dd9465"), (1.0, "#8c2a14"))
GRADED = (
    "#e0a93b", "#d98a3a", "#cc6a3a", "#b84b3c", "#9c3548", "#7c2a56", "#5b2760", "#3d2762", "#22275c",
)  # fmt: skip

Floats = NDArray[np.float64]
Ticks = Sequence[date] | Sequence[int] | Sequence[str]
"""Values along an axis: dates, step numbers, or names."""


def graded(number: int, count: int) -> str:
    """A colour of the ordered palette, for ages and other ordered groups."""
    return GRADED[round(number * (len(GRADED) - 1) / max(count - 1, 1))]


@dataclass(frozen=True)
class Citation:
    """Where a published figure comes from.

    Args:
        name: Table or figure.
        source: Who published it, and where.
        year: Year that it describes or appeared in; None where nobody states it.
        licence: Licence of the table.
        assumed: No table measures it.
    """

    name: str
    source: str
    year: int | None
    licence: str
    assumed: bool = False

    @staticmethod
    def of(record: Mapping[str, Any]) -> Citation:
        """Citation of a record of `sources.json`."""
        year = record.get("year")
        return Citation(
            str(record.get("name", "")),
            str(record.get("source") or ""),
            None if year is None else int(year),
            str(record.get("licence") or ""),
            bool(record.get("assumed")),
        )

    @property
    def complete(self) -> bool:
        """Whether source, year and licence are all stated."""
        return bool(self.source and self.licence and self.year is not None)

    def __str__(self) -> str:
        """For a caption; what is not stated says so."""
        year = "year not stated" if self.year is None else str(self.year)
        flag = "assumed: " if self.assumed else ""
        return f"{flag}{self.source or 'source not stated'}, {year}, {self.licence or 'licence not stated'}"


@dataclass(frozen=True)
class Axis:
    """An axis.

    Args:
        title: What it measures, with the unit.
        kind: Numbers, dates, or names in the order of the marks.
        reverse: From top to bottom, or from right to left.
        top: Upper end, or None for what the marks need.
        signed: Numbers on both sides of 0; otherwise the axis starts at 0.
    """

    title: str = ""
    kind: Literal["number", "date", "name"] = "number"
    reverse: bool = False
    top: float | None = None
    signed: bool = False


@dataclass(frozen=True, eq=False)
class Line:
    """A curve; NaN interrupts it.

    Args:
        name: In the legend; empty for none.
        x: (n,) positions.
        y: (n,) heights.
        colour: Colour.
        width: Width in points.
        dashed: Dashed, as an expectation or a source is.
        filled: Shaded down to 0.
    """

    name: str
    x: Ticks
    y: Floats
    colour: str = ACCENT
    width: float = 2.0
    dashed: bool = False
    filled: bool = False


@dataclass(frozen=True, eq=False)
class Band:
    """An interval around a curve.

    Args:
        name: In the legend; empty for none.
        x: (n,) positions.
        low: (n,) lower ends.
        high: (n,) upper ends.
        colour: Colour of the curve that it belongs to.
    """

    name: str
    x: Ticks
    low: Floats
    high: Floats
    colour: str = ACCENT


@dataclass(frozen=True, eq=False)
class Bars:
    """Bars over names or whole numbers.

    Args:
        name: In the legend; empty for none.
        at: (n,) where they stand.
        length: (n,) lengths.
        colours: One colour, or (n,) colours.
        error: (n,) standard errors, or None.
        text: (n,) labels at their ends, or none.
        across: Horizontal.
    """

    name: str
    at: Ticks
    length: Floats
    colours: str | tuple[str, ...] = ACCENT
    error: Floats | None = None
    text: tuple[str, ...] = ()
    across: bool = False


@dataclass(frozen=True, eq=False)
class Dots:
    """Marks that stand alone, such as a published value over a bar.

    Args:
        name: In the legend.
        x: (n,) positions.
        y: (n,) heights.
        colour: Colour.
        across: They stand over horizontal bars: `x` names the bar and `y` is its length.
    """

    name: str
    x: Ticks
    y: Floats
    colour: str = SOURCE_INK
    across: bool = False


@dataclass(frozen=True, eq=False)
class Heat:
    """A heat map.

    Args:
        x: (n,) columns.
        y: (m,) rows, from the top.
        z: (m, n) values; NaN stays empty.
        unit: What the values are.
        top: Value of the darkest colour, or None for the largest.
        signed: Values of both signs, from -top to top with two colours.
    """

    x: Ticks
    y: Sequence[str]
    z: Floats
    unit: str
    top: float | None = None
    signed: bool = False

    @property
    def colours(self) -> Sequence[tuple[float, str]]:
        """Colours from the low end to the high one, each with its place within 0 and 1."""
        return DIVERGING if self.signed else HEAT

    @property
    def span(self) -> tuple[float, float]:
        """Values of the two ends of the colours."""
        top = self.top if self.top is not None else float(np.nanmax(np.abs(self.z), initial=0.0)) or 1.0
        return (-top if self.signed else 0.0), top


@dataclass(frozen=True)
class Note:
    """A remark beside a point.

    Args:
        x: Position.
        y: Height.
        text: What it says.
        leftwards: Written to the left of the point.
    """

    x: date | int | str
    y: float
    text: str
    leftwards: bool = False


@dataclass(frozen=True)
class Moment:
    """A thin upright line, where something changed.

    Args:
        x: Position.
    """

    x: date | int


Mark = Line | Band | Bars | Dots | Heat | Note | Moment


@dataclass(frozen=True, eq=False)
class Panel:
    """Marks on one pair of axes.

    Args:
        marks: From back to front.
        x: Horizontal axis.
        y: Vertical axis.
        title: Title, where a figure has several panels.
        height: Height in pixels of the page.
    """

    marks: tuple[Mark, ...]
    x: Axis
    y: Axis
    title: str = ""
    height: int = 320


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure of a report.

    Args:
        name: Stem of its files and its id on the page.
        title: Title.
        panels: One panel, or several that share a meaning.
        table: The numbers that it shows, one row per observation.
        note: What a reader has to know.
        citations: Where the published figures in it come from.
        by_seed: The same of each replicate, where the figure shows their median or mean.
        columns: Panels side by side in the PNG.
        html: Its form on the page where that is not drawn from the panels, escaped already.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]
    table: pd.DataFrame
    note: str = ""
    citations: tuple[Citation, ...] = ()
    by_seed: pd.DataFrame | None = None
    columns: int = 1
    html: str = ""


@dataclass(frozen=True, eq=False)
class Section:
    """A chapter of the page.

    Args:
        title: Title.
        blocks: Rows of the page: a figure, two that stand side by side, or HTML that is already escaped.
        note: What a reader has to know.
    """

    title: str
    blocks: tuple[Figure | tuple[Figure, ...] | str, ...] = field(default_factory=tuple)
    note: str = ""

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The figures in order."""
        found: list[Figure] = []
        for block in self.blocks:
            found.extend((block,) if isinstance(block, Figure) else block if isinstance(block, tuple) else ())
        return tuple(found)
