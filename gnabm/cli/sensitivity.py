"""`gnabm sensitivity`: outcomes x parameters from one run and one backward pass, and the same by brute force."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from gnabm.cli.failures import results
from gnabm.cli.populations import Ready, prepare
from gnabm.config import load
from gnabm.errors import OutputExistsError
from gnabm.model import GROUPS
from gnabm.sensitivity.brute import Agreement, agreement, apart, differences
from gnabm.sensitivity.elements import Elements
from gnabm.sensitivity.oneshot import Sensitivity, sensitivity
from gnabm.sensitivity.outcomes import WEEK
from gnabm.sensitivity.question import Campaign, Question, in_process
from gnabm.sensitivity.ranges import METHODS, Global, over_ranges, varied

_WIDE = 8
"""Most columns of a table on the screen, and names of a list."""


@dataclass(frozen=True)
class Asked:
    """What the command line asks for.

    Args:
        parameters: Patterns of names.
        outcome: Observable that is summed.
        by: Groupings of the sums; none for the ages and regions that the population has, else weeks.
        window: First day and the day after the last, or None.
        seeds: Number of seeds, from the config's on.
        check: Compare with differences of as many seeds as this; 0 for none.
        factor: Of the differences.
        samples: Base samples of Sobol and Morris; 0 for none.
    """

    parameters: tuple[str, ...]
    outcome: str
    by: tuple[str, ...]
    window: tuple[float, float] | None
    seeds: int
    check: int
    factor: float
    samples: int


def show_sensitivity(
    source: str, overrides: Sequence[str], asked: Asked, out: Path | None, *, as_json: bool, overwrite: bool
) -> None:
    """Print a sensitivity of a config, and write its page.

    Args:
        source: Config.
        overrides: As `key=value`.
        asked: What is asked for.
        out: HTML file, or None for no page.
        as_json: Print JSON and nothing else.
        overwrite: Replace a page that is there.

    Raises:
        OutputExistsError: There is a page.
    """
    if out is not None and out.exists() and not overwrite:
        raise OutputExistsError(f"{out} exists; choose another file with --out or replace it with --overwrite")
    if out is not None:
        from gnabm.report.files import check_folder, folder_of

        check_folder(folder_of(out))
    ready = prepare(load(source, overrides), strict=False)
    run, how = ready.config.run, ready.config.gradient
    by = asked.by or tuple(name for name in GROUPS if name in ready.population.fields) or (WEEK,)
    question = Question(ready.model, run.steps, asked.outcome, by, asked.window, run.dt, run.start, ready.changes)
    _check(question, ready, asked)
    found = sensitivity(
        question, ready.population, seeds=range(run.seed, run.seed + asked.seeds), parameters=asked.parameters,
        gradient=how.estimator, checkpoint=how.checkpoint, horizon=how.horizon,
    )  # fmt: skip
    said: dict[str, Any] = found.to_dict() | {"outcome_name": asked.outcome, "window": asked.window}
    if not as_json:
        _show(found, asked.outcome)
    brute = _brute(question, ready, asked, found, said, as_json=as_json)
    if out is not None:
        from gnabm.report.sensitivities import write_sensitivity

        write_sensitivity(found, out, name=f"{ready.config.name}: {asked.outcome}", brute=brute)
    if as_json:
        print(json.dumps(said))
    elif out is not None:
        results().print(f"page {out}")


def _check(question: Question, ready: Ready, asked: Asked) -> None:
    """Refuse what cannot be asked before the first run, which may take long."""
    question.names(ready.population)
    elements = Elements.of(question.model, asked.parameters)
    if asked.check:
        apart(elements, asked.factor)
    if asked.samples:
        for method in METHODS:
            varied(elements, asked.samples, method)


def _brute(
    question: Question, ready: Ready, asked: Asked, found: Sensitivity, said: dict[str, Any], *, as_json: bool
) -> Sensitivity | None:
    """Runs beside the one: differences, and the analysis over ranges. Adds to what is said."""
    if not (asked.check or asked.samples):
        return None
    first, brute = ready.config.run.seed, None
    with _campaign(question, ready) as campaign:
        if asked.check:
            brute = differences(
                question, ready.population, seeds=range(first, first + asked.check), parameters=asked.parameters,
                factor=asked.factor, campaign=campaign,
            )  # fmt: skip
            agreed = agreement(found, brute)
            said["check"] = agreed.to_dict() | {"differences": brute.to_dict()}
            if not as_json:
                _show_agreement(agreed, brute)
        if asked.samples:
            elements = Elements.of(question.model, asked.parameters)
            said["global"] = {}
            for method in METHODS:
                whole = over_ranges(elements, campaign, found.groups, samples=asked.samples, seed=first, method=method)
                said["global"][method] = whole.to_dict()
                if not as_json:
                    _show_global(whole, found)
    return brute


@contextmanager
def _campaign(question: Question, ready: Ready) -> Iterator[Campaign]:
    """Runs one after the other here where the config wants no other process, else tasks of Ray."""
    if ready.config.run.transport == "local":
        yield in_process(question, ready.population)
        return
    from cluster.campaign import campaign

    drawn = ready.store is not None and ready.config.run.mixing == "drawn"
    with campaign(question, ready.store if drawn and ready.store is not None else ready.population) as run:
        yield run


def _pages(found: Sensitivity) -> Iterator[range]:
    """Columns that fit the screen side by side."""
    for low in range(0, len(found.parameters), _WIDE):
        yield range(low, min(low + _WIDE, len(found.parameters)))


def _show(found: Sensitivity, outcome: str) -> None:
    screen = results()
    values, errors, sizes = found.elasticity.tolist(), found.se.tolist(), found.outcomes.mean(0).tolist()
    for columns in _pages(found):
        table = Table(box=box.SIMPLE, title=f"Elasticity of {outcome} ({found.method})", title_justify="left")
        table.add_column("group")
        table.add_column("outcome", justify="right")
        for n in columns:
            name = found.parameters[n].replace(".", ".\n")  # a long name is read in lines
            table.add_column(f"{name}\n{found.values[n].item():.4g}", justify="right")
        for group, size, row, error in zip(found.groups, sizes, values, errors, strict=True):
            cells = [_cell(row[n], error[n]) for n in columns]
            table.add_row(group, f"{size:,.1f}", *cells)
        screen.print(table)
    screen.print(f"{found.outcomes.shape[0]} seeds, {found.seconds:.1f} s")
    if found.unreached:
        more = f" and {len(found.unreached) - _WIDE} more" if len(found.unreached) > _WIDE else ""
        names = ", ".join(found.unreached[:_WIDE]) + more
        screen.print(f"no gradient reached {names}: [bold]gnabm gradients --audit[/] says why", soft_wrap=True)


def _cell(value: float, error: float) -> str:
    """A value with its standard error, both where they are known."""
    if value != value:
        return "-"
    return f"{value:+.3f}" if error != error else f"{value:+.3f} ±{error:.3f}"


def _show_agreement(agreed: Agreement, brute: Sensitivity) -> None:
    screen = results()
    table = Table(box=box.SIMPLE, title="Beside central differences", title_justify="left")
    for name in ("parameter", "sure cells", "rank correlation", "of halves", "same sign", "one-shot / difference"):
        table.add_column(name, justify="left" if name == "parameter" else "right")
    rows = zip(
        agreed.parameters, agreed.cells, agreed.rank, agreed.halves, agreed.signs, agreed.ratio, strict=True
    )  # fmt: skip
    for name, cells, rank, halves, signs, ratio in rows:
        shown = _known(rank, ".2f"), _known(halves, ".2f"), _known(signs, ".0%"), _known(ratio, ".2f")
        table.add_row(name, str(cells), *shown)
    screen.print(table)
    screen.print(
        f"same sign in {_known(agreed.all_signs, '.1%')} of all sure cells; {brute.outcomes.shape[0]} seeds, "
        f"{brute.seconds:.1f} s: {agreed.cost:.1f} times the one-shot sensitivity, {agreed.per_seed:.1f} times per "
        f"seed, {_known(agreed.per_error, '.0f')} times for the same error"
    )


def _known(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _show_global(whole: Global, found: Sensitivity) -> None:
    name, spread = ("ST", "ST_conf") if whole.method == "sobol" else ("mu_star", "mu_star_conf")
    title = f"{whole.method}: {name} of the outcome, mean over groups, beside the local elasticity"
    table = Table(box=box.SIMPLE, title=title, title_justify="left")
    for column in ("parameter", "range", name, "interval", "local"):
        table.add_column(column, justify="left" if column == "parameter" else "right")
    local = dict(zip(found.parameters, found.elasticity.nanmean(0).tolist(), strict=True))
    for n, parameter in enumerate(whole.parameters):
        value, error = (_mean(whole.indices[key][:, n]) for key in (name, spread))
        low, high = whole.ranges[n].tolist()
        beside = _cell(local.get(parameter, math.nan), math.nan)
        table.add_row(parameter, f"{low:.4g} to {high:.4g}", _known(value, ".3g"), f"±{_known(error, '.2g')}", beside)
    results().print(table)
    left_out = f"; left out, for 0 or their bounds leave them no range: {', '.join(whole.left_out)}"
    results().print(f"{whole.runs} runs{left_out if whole.left_out else ''}", soft_wrap=True)


def _mean(values: NDArray[np.float64]) -> float | None:
    """Mean over the groups whose outcome changes; None where none does."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None
