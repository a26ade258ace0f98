"""`gnabm gradients`: how good the gradients of a config's model are, or which parameter moves which outcome."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.table import Table

from gnabm.audit import Connection, audit
from gnabm.cli.failures import console, results
from gnabm.cli.machine import in_bytes
from gnabm.cli.populations import Ready, prepare
from gnabm.config import load
from gnabm.config.schema import Country
from gnabm.gradients import Row, compare
from gnabm.sampling import estimator

SMALL = 10_000
"""Agents of a country that is built for the comparison, unless more or fewer are asked for."""
SHORT = 60
"""Most steps of it."""
_MANY = 6
"""Outcomes beyond which a table of them has no room for stages."""


@dataclass(frozen=True)
class Asked:
    """What is compared or audited.

    Args:
        agents: Agents of a country, or None for at most `SMALL`; another population is taken as it is.
        steps: Steps, or None for at most `SHORT`.
        seeds: Number of seeds.
        estimators: Names; empty for the one of the config.
        parameters: Patterns of names.
        observables: Names of observables or outcomes; None for all.
        width: Half the width of a difference, as a share of the value.
        budget: Seconds after which no other seed is begun.
    """

    agents: int | None
    steps: int | None
    seeds: int
    estimators: Sequence[str]
    parameters: Sequence[str]
    observables: Sequence[str] | None
    width: float
    budget: float


def compare_config(source: str, overrides: Sequence[str], asked: Asked, *, as_json: bool) -> None:
    """Print each estimator beside finite differences.

    Args:
        source: Config.
        overrides: As `key=value`.
        asked: What is compared.
        as_json: Print JSON and nothing else.

    Raises:
        ConfigError: A name is unknown.
    """
    ready, asked = _prepare(source, overrides, asked)
    assert asked.steps is not None
    run, how = ready.config.run, ready.config.gradient
    with console().status("runs above and below each parameter, then one backward pass for each estimator"):
        rows = compare(
            ready.model, ready.population, steps=asked.steps, seeds=range(run.seed, run.seed + asked.seeds),
            parameters=asked.parameters, estimators=asked.estimators, observables=asked.observables,
            width=asked.width, budget=asked.budget, dt=run.dt, start=run.start, changes=ready.changes,
            checkpoint=how.checkpoint, gradient_horizon=how.horizon,
        )  # fmt: skip
    if as_json:
        print(json.dumps([row.to_dict() for row in rows]))
        return
    results().print(
        f"{ready.config.name}: {ready.population.num_agents:,} agents, {asked.steps} steps, {rows[0].seeds} seeds"
    )
    _show_rows(rows)


def audit_config(source: str, overrides: Sequence[str], asked: Asked, *, as_json: bool) -> None:
    """Print which parameter moves which outcome, and where chains break; arguments as of `compare_config`."""
    ready, asked = _prepare(source, overrides, asked)
    assert asked.steps is not None
    run = ready.config.run
    connections = audit(
        ready.model, ready.population, steps=asked.steps, seed=run.seed, parameters=asked.parameters,
        observables=asked.observables, gradient=asked.estimators[0], dt=run.dt, start=run.start,
        changes=ready.changes,
    )  # fmt: skip
    if as_json:
        print(json.dumps([connection.to_dict() for connection in connections]))
        return
    _show_audit(connections)


def _prepare(source: str, overrides: Sequence[str], asked: Asked) -> tuple[Ready, Asked]:
    """The population and model, and what is asked with every default filled in."""
    config = load(source, overrides)
    kinds = tuple(asked.estimators) or (config.gradient.estimator,)
    for name in kinds:
        estimator(name)  # a name that is unknown is refused before anything is built
    if isinstance(config.population, Country):
        agents = asked.agents or min(config.population.num_agents or SMALL, SMALL)
        config = load(source, [*overrides, f"population.num_agents={agents}"])
    steps = asked.steps or min(config.run.steps, SHORT)
    return prepare(config, strict=False), replace(asked, estimators=kinds, steps=steps)


def _show_rows(rows: Sequence[Row]) -> None:
    screen = results()
    for parameter in dict.fromkeys(row.parameter for row in rows):
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, title=parameter, title_justify="left")
        for name in ("outcome", "estimator"):
            table.add_column(name, no_wrap=True)
        for name in ("gradient", "difference", "bias, %", "variance", "seconds", "memory"):
            table.add_column(name, justify="right", no_wrap=True)
        before = ""
        for row in rows:
            if row.parameter != parameter:
                continue
            outcome, difference = row.observable, f"{row.fd:.4g} ± {row.fd_se:.2g}"
            if outcome == before:
                outcome, difference = "", ""
            before = row.observable
            bias = "" if row.bias_percent is None else f"{row.bias_percent:+.0f} ± {row.bias_se:.0f}"
            memory = "" if row.bytes is None else in_bytes(row.bytes)
            mean = f"{row.mean:.4g} ± {row.se:.2g}"
            table.add_row(
                outcome, row.estimator, mean, difference, bias, f"{row.variance:.3g}", f"{row.seconds:.2f}", memory
            )
        screen.print(table)


def _show_audit(connections: Sequence[Connection]) -> None:
    screen = results()
    names = list(dict.fromkeys(c.observable for c in connections))
    if len(names) > _MANY:
        names = [name for name in names if "." not in name]
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False,
        caption="share of the gradient that comes through earlier steps; - where none gets through",
    )  # fmt: skip
    table.add_column("parameter", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("served by", no_wrap=True)
    at = {(c.parameter, c.observable): c for c in connections}
    for parameter in dict.fromkeys(c.parameter for c in connections):
        shares = [at[parameter, name].through_time for name in names]
        told = ("-" if share is None else f"{share:.2f}" for share in shares)
        table.add_row(parameter, *told, at[parameter, names[0]].served_by)
    screen.print(table)
    reasons: dict[str, list[str]] = {}
    for c in connections:
        if c.broken_at is not None and c.observable in names:
            reasons.setdefault(c.broken_at, []).append(f"{c.parameter} -> {c.observable}")
    for reason, pairs in reasons.items():
        more = f" and {len(pairs) - 1} more" if len(pairs) > 1 else ""
        screen.print(f"{reason}\n  {pairs[0]}{more}", soft_wrap=True)
