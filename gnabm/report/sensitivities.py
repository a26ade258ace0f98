"""The page of a sensitivity: heat maps of elasticities, and of the same by brute force."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from gnabm.report.figure import Axis, Figure, Heat, Panel, Section
from gnabm.report.files import check_folder, folder_of, replace_report
from gnabm.report.page import compose
from gnabm.sensitivity import Sensitivity


def elasticity_map(found: Sensitivity, name: str, title: str) -> Figure:
    """Heat map of elasticities, outcome groups x parameters.

    Args:
        found: The sensitivity.
        name: Stem of its files.
        title: Title.
    """
    values = found.elasticity.numpy()
    known = np.abs(values[np.isfinite(values)])
    # A rare group may be far above all others; it would leave them without colour.
    top = float(np.quantile(known, 0.98)) if known.size and known.any() else 1.0
    heat = Heat(list(found.parameters), list(found.groups), values, "elasticity", top or None, signed=True)
    height = max(320, 110 + 20 * len(found.groups) + 7 * max(map(len, found.parameters), default=0))
    panel = Panel((heat,), Axis(kind="name"), Axis(kind="name", reverse=True), height=height)
    note = (
        "Per cent by which an outcome changes when a parameter grows by one per cent "
        f"({found.method}, {found.outcomes.shape[0]} seeds). The strongest two in a hundred share one colour."
    )
    return Figure(name, title, (panel,), elasticity_table(found), note)


def elasticity_table(found: Sensitivity) -> pd.DataFrame:
    """One row for each group and parameter."""
    groups, parameters = len(found.groups), len(found.parameters)
    return pd.DataFrame({
        "group": np.repeat(found.groups, parameters), "parameter": np.tile(found.parameters, groups),
        "value": np.tile(found.values.numpy(), groups),
        "outcome": np.repeat(found.outcomes.mean(0).numpy(), parameters),
        **{
            name: getattr(found, name).numpy().reshape(-1)
            for name in ("elasticity", "se", "absolute", "absolute_se")
        },
    })  # fmt: skip


def write_sensitivity(found: Sensitivity, out: Path, *, name: str, brute: Sensitivity | None = None) -> Path:
    """Write a page about a sensitivity, and a CSV and PNG of each figure in a folder beside it.

    Args:
        found: The sensitivity.
        out: HTML file.
        name: What it is of.
        brute: The same by differences, or None.

    Raises:
        OutputExistsError: The folder holds something that no report wrote.
    """
    folder = folder_of(out)
    check_folder(folder)
    figures = [elasticity_map(found, "elasticity", "Elasticities")]
    if brute is not None:
        figures.append(elasticity_map(brute, "elasticity_brute", "The same by central differences"))
    runs = f"{found.outcomes.shape[0]} differentiable runs, {found.seconds:.1f} s"
    header = f'<h1>{escape(name)}</h1><p class="lead">Sensitivity of outcomes to parameters: {runs}.</p>'
    sections = [Section("Sensitivity", tuple(figures))]
    text = compose(f"{name}: sensitivity", header, sections, folder=folder.name, closing="")
    replace_report(out, text, figures, {})
    return out
