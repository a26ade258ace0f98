"""`gnabm gradients`: how good the gradients of a config's model are, or which parameter moves which outcome."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from gnabm.audit import Connection, audit
from gnabm.cli.failures import console, results
from gnabm.cli.machine import in_bytes
from gnabm.cli.populations import Ready, prepare
from gnabm.config import load
from gnabm.config.schema import Country
from gnabm.errors import ConfigError
from gnabm.gradients import Row, compare, label
from gnabm.sampling import estimator

SMALL = 10_000
"""Most agents of a country that is built for the comparison, unless the command line says how many."""
SHORT = 60
"""Most steps of it."""
SEEDS, WIDTH, BUDGET = 10, 0.1, 300.0
"""Of a comparison, unless others are asked for."""
_MANY = 6
"""Outcomes beyond which a table of them has no room for stages."""


@dataclass(frozen=True)
class Asked:
    """What is compared or audited.

    Args:
        agents: Agents of a country, or None for those of `--set`, else at most `SMALL`; another population is taken as
            it is.
        steps: Steps, or None for at most `SHORT`.
        seeds: Number of seeds of a comparison, or None for `SEEDS`.
        estimators: Names; empty for the one of the config.
        parameters: Patterns of names.
        observables: Names of observables or outcomes; None for all.
        width: Half the width of a difference, as a share of the value, or None for `WIDTH`.
        budget: Seconds after which no other seed is begun, or None for `BUDGET`.
    """

    agents: int | None
    steps: int | None
    seeds: int | None
    estimators: Sequence[str]
    parameters: Sequence[str]
    observables: Sequence[str] | None
    width: float | None
    budget: float | None


def compare_config(source: str, overrides: Sequence[str], asked: Asked, *, as_json: bool) -> None:
    """Print each estimator beside finite differences.

    Args:
        source: Config.
        overrides: As `key=value`.
        asked: What is compared.
        as_json: Print JSON and nothing else.

    Raises:
        ConfigError: A name is unknown, or agents are asked for that nobody builds.
    """
    ready, kinds, steps = _prepare(source, overrides, asked)
    run, how = ready.config.run, ready.config.gradient
    with console().status("runs above and below each parameter, then one backward pass for each estimator"):
        rows = compare(
            ready.model, ready.population, steps=steps,
            seeds=range(run.seed, run.seed + (SEEDS if asked.seeds is None else asked.seeds)),
            parameters=asked.parameters, estimators=kinds, observables=asked.observables,
            width=WIDTH if asked.width is None else asked.width,
            budget=BUDGET if asked.budget is None else asked.budget, dt=run.dt, start=run.start,
            changes=ready.changes, checkpoint=how.checkpoint, gradient_horizon=how.horizon,
        )  # fmt: skip
    told = _told(ready, steps, kinds)
    if as_json:
        print(json.dumps([row.to_dict() | _of_run(told) for row in rows]))
        return
    _show_told(told, f", {rows[0].seeds} seeds from {run.seed} on")
    _show_rows(rows)


def audit_config(source: str, overrides: Sequence[str], asked: Asked, *, as_json: bool) -> None:
    """Print which parameter moves which outcome, and where chains break; arguments as of `compare_config`.

    Raises:
        ConfigError: As of `compare_config`, or an option is given that an audit, of one run, has no use for.
    """
    unused = [name for name in ("seeds", "width", "budget") if getattr(asked, name) is not None]
    if unused or len(asked.estimators) > 1:
        what = " and ".join(f"--{name}" for name in unused) or "a second of --estimators"
        raise ConfigError(f"--audit follows one run with one estimator and has no use for {what}; leave it out")
    ready, kinds, steps = _prepare(source, overrides, asked)
    run = ready.config.run
    connections = audit(
        ready.model, ready.population, steps=steps, seed=run.seed, parameters=asked.parameters,
        observables=asked.observables, gradient=kinds[0], dt=run.dt, start=run.start, changes=ready.changes,
    )  # fmt: skip
    told = _told(ready, steps, kinds)
    if as_json:
        print(json.dumps([connection.to_dict() | _of_run(told) for connection in connections]))
        return
    _show_told(told, f", seed {run.seed}")
    _show_audit(connections)


def _prepare(source: str, overrides: Sequence[str], asked: Asked) -> tuple[Ready, tuple[str, ...], int]:
    """The population and model, the estimators, and the number of steps."""
    config = load(source, overrides)
    kinds = tuple(asked.estimators) or (config.gradient.estimator,)
    for name in kinds:
        estimator(name)  # a name that is unknown is refused before anything is built
    if isinstance(config.population, Country):
        agents, own = asked.agents, config.population.num_agents
        if agents is None and not (own and _is_set(overrides)):
            agents = min(own or SMALL, SMALL)
        if agents is not None:
            config = load(source, [*overrides, f"population.num_agents={agents}"])
    elif asked.agents is not None:
        raise ConfigError("--agents is for a country, which is built; this population is taken as it is: leave it out")
    return prepare(config, strict=False), kinds, asked.steps or min(config.run.steps, SHORT)


def _is_set(overrides: Sequence[str]) -> bool:
    """Whether the command line says how many agents there are."""
    keys = (override.partition("=")[0].strip() for override in overrides)
    return any(key in ("population", "population.num_agents") for key in keys)


def _told(ready: Ready, steps: int, kinds: Sequence[str]) -> dict[str, Any]:
    """What was run."""
    return {
        "config": ready.config.name, "agents": ready.population.num_agents, "steps": steps,
        "seed": ready.config.run.seed, "estimators": [label(kind) for kind in kinds],
    }  # fmt: skip


def _of_run(told: Mapping[str, Any]) -> dict[str, Any]:
    """What a row of JSON says of its run."""
    return {name: told[name] for name in ("agents", "steps", "seed")}


def _show_told(told: Mapping[str, Any], seeds: str) -> None:
    kinds = ", ".join(told["estimators"])
    results().print(f"{told['config']}: {told['agents']:,} agents, {told['steps']} steps{seeds}, {kinds}")


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
            mean, variance = "-", ""
            if row.mean is not None:
                mean, variance = f"{row.mean:.4g} ± {row.se:.2g}", f"{row.variance:.3g}"
            table.add_row(outcome, row.estimator, mean, difference, bias, variance, f"{row.seconds:.2f}", memory)
        screen.print(table)
    reached = {(row.parameter, row.estimator) for row in rows if row.mean is not None}
    for kind in dict.fromkeys(row.estimator for row in rows):
        lost = [n for n in dict.fromkeys(row.parameter for row in rows) if (n, kind) not in reached]
        if lost:
            screen.print(
                f"no gradient of {kind} reached {', '.join(lost)}: [bold]gnabm gradients --audit[/] says why",
                soft_wrap=True,
            )


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
    table.add_column("served by")
    at = {(c.parameter, c.observable): c for c in connections}
    for parameter in dict.fromkeys(c.parameter for c in connections):
        shares = [at[parameter, name].through_time for name in names]
        told = ("-" if share is None else f"{share:.2f}" for share in shares)
        served = dict.fromkeys(at[parameter, name].served_by for name in names)
        table.add_row(parameter, *told, ", ".join(served))
    screen.print(table)
    reasons: dict[str, list[str]] = {}
    for c in connections:
        if c.broken_at is not None and c.observable in names:
            reasons.setdefault(c.broken_at, []).append(f"{c.parameter} -> {c.observable}")
    for reason, pairs in reasons.items():
        more = f" and {len(pairs) - 1} more" if len(pairs) > 1 else ""
        screen.print(f"{reason}\n  {pairs[0]}{more}", soft_wrap=True)
