"""`gnabm plan` and `gnabm run`."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from gnabm.cli.earlier import EarlierRun
from gnabm.cli.failures import Interrupted, Started, console, results
from gnabm.cli.machine import available_disk, available_memory, describe, in_bytes
from gnabm.cli.planning import show_plan
from gnabm.cli.populations import Ready, content_of, prepare
from gnabm.cli.progress import Watch
from gnabm.config import Config, load
from gnabm.errors import GnabmError, OutputExistsError
from gnabm.linelist import PARQUET
from gnabm.models.tables import digest
from gnabm.report import Summary, open_run

CONFIG, TRAJECTORY, REPORT, FIGURES = "config.yaml", "trajectory.zarr", "report.html", "report"
STATES = "states"


def plan_config(source: str, overrides: Sequence[str], out: Path | None, *, strict: bool, as_json: bool) -> None:
    """Print what a run needs.

    Args:
        source: Config.
        overrides: As `key=value`.
        out: Run folder, or None for runs/NAME.
        strict: Refuse assumed tables.
        as_json: Print JSON.

    Raises:
        CapacityError: It will not fit.
    """
    config = load(source, overrides)
    folder = out or Path("runs") / config.name
    ready = prepare(config, strict=strict)
    plan = _plan(ready)
    if as_json:
        print(json.dumps(plan.to_dict(), indent=1))
    else:
        show_plan(plan.to_dict(), available_memory(), available_disk(folder))
    from cluster.plan import refuse_if_too_large

    refuse_if_too_large(plan, free_memory(), available_disk(folder))


def _plan(ready: Ready) -> Any:  # noqa: ANN401
    from cluster.plan import plan

    run = ready.config.run
    return plan(
        ready.population, ready.model, shards=run.shards, steps=run.steps, record=ready.config.record.fields,
        transport=run.transport, infections=ready.config.record.infections, threads=run.threads,
    )  # fmt: skip


def free_memory() -> int | None:
    """Free memory; None with an address of a Ray cluster, where the shards live on other machines than this one."""
    return None if "RAY_ADDRESS" in os.environ else available_memory()


def check_room(ready: Ready, folder: Path, memory: int | None) -> None:
    """Refuse what memory cannot hold. Disk is bounded from above only, so a run that may not fit is but warned of.

    Args:
        ready: The run.
        folder: Where it goes.
        memory: Free memory in bytes before anything was started, or None.
    """
    from cluster.plan import refuse_if_too_large

    plan = _plan(ready)
    refuse_if_too_large(plan, memory)
    free = available_disk(folder)
    if plan.disk > free:
        console().print(
            f"the trajectory takes up to {in_bytes(plan.disk)} before compression, {in_bytes(free)} are free: "
            "it may not fit",
            soft_wrap=True,
        )


def run_config(source: str, overrides: Sequence[str], out: Path | None, *, overwrite: bool, strict: bool) -> None:
    """Simulate a config and leave a run folder.

    Args:
        source: Config.
        overrides: As `key=value`.
        out: Run folder, or None for runs/NAME.
        overwrite: Replace a run that is there.
        strict: Refuse assumed tables.
    """
    config = load(source, overrides)
    folder = out or Path("runs") / config.name
    refuse_existing(folder, overwrite=overwrite)
    memory = free_memory()
    with _ranks_ahead(config):
        ready = prepare(config, strict=strict)
        check_room(ready, folder, memory)
        leave_run(ready, folder)


def _ranks_ahead(config: Config) -> AbstractContextManager[None]:
    """The processes of several shards start while this one reads and plans."""
    run = config.run
    # More shards than cores may be a mistake that the plan refuses: nothing is started for them before.
    if (
        run.transport == "local"
        or (run.transport == "auto" and run.shards == 1)
        or run.shards > len(os.sched_getaffinity(0))
    ):
        return nullcontext()
    from cluster.actors import started_ahead

    return started_ahead(run.shards, run.threads)


def leave_run(ready: Ready, folder: Path, begin: Any = None, more: Mapping[str, Any] | None = None) -> None:  # noqa: ANN401
    """Simulate what is ready and leave a run folder.

    Args:
        ready: The config, its population and models.
        folder: Run folder; an earlier run in it is kept until the first step is done.
        begin: A `cluster.run.Beginning` to go on from, or None.
        more: More attributes of the trajectory.
    """
    earlier = EarlierRun(folder, (CONFIG, TRAJECTORY, REPORT, FIGURES, PARQUET, STATES))
    begun = 0 if begin is None else begin.step
    watch = Watch(ready.config, ready.population.num_agents, console(), on_first=earlier.discard, begun=begun)
    try:
        earlier.set_aside()
        _write_config(folder, ready.config)
        result = _simulate(ready, folder, watch, begin, {**_attributes(ready), **(more or {})})
        if result.status == "interrupted":
            raise KeyboardInterrupt
    except BaseException as error:
        if watch.done == 0:
            earlier.restore()  # nothing was simulated, so all is as it was
        if isinstance(error, KeyboardInterrupt):
            raise _interrupted(folder, watch) from error
        if watch.done and isinstance(error, GnabmError):
            raise Started(str(error)) from error
        raise
    _show_result(result, ready, folder, begun)


def _interrupted(folder: Path, watch: Watch) -> Interrupted:
    if watch.done == 0:
        return Interrupted("stopped by Ctrl-C before the first step; nothing was written")
    return Interrupted(
        f"stopped by Ctrl-C after {watch.at:,} of {watch.run.steps:,} steps; {folder / TRAJECTORY} holds what was "
        f"written of them and says so (gnabm report {folder})"
    )


def refuse_existing(folder: Path, *, overwrite: bool) -> None:
    """Refuse a run folder that is there, unless it is to be replaced.

    Raises:
        OutputExistsError: It is there, or a file is.
    """
    if folder.exists() and not (overwrite and folder.is_dir()):
        what = "exists" if folder.is_dir() else "is a file"
        cure = "choose another folder with --out" + (" or replace it with --overwrite" if folder.is_dir() else "")
        raise OutputExistsError(f"{folder} {what}; {cure}")


def _write_config(folder: Path, config: Config) -> None:
    partial = folder / f".{CONFIG}.partial"
    try:
        text = yaml.safe_dump(
            config.resolved(), sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
        )
        partial.write_text(text, "utf-8")
        partial.replace(folder / CONFIG)
    finally:
        partial.unlink(missing_ok=True)


def _simulate(ready: Ready, folder: Path, watch: Watch, begin: Any, attributes: Mapping[str, Any]) -> Any:  # noqa: ANN401
    from cluster.run import run as run_shards

    config, run = ready.config, ready.config.run
    who = ready.store if ready.store is not None and run.mixing == "drawn" else ready.population
    with watch:
        return run_shards(
            ready.model,
            who,
            shards=run.shards,
            transport=run.transport,
            steps=run.steps,
            seed=run.seed,
            dt=run.dt,
            start=run.start,
            record=config.record.fields,
            messages=run.messages,
            out=folder,
            overwrite=True,
            attributes=attributes,
            threads=run.threads,
            on_step=watch.on_step,
            changes=ready.changes,
            begin=begin,
            infections=config.record.infections,
        )


def _attributes(ready: Ready) -> dict[str, Any]:
    """What the trajectory says of the run besides what `cluster` writes."""
    config, law = ready.config, ready.model.transmission
    return {
        "name": config.name,
        "config": config.resolved(),
        "parameters": dict(ready.parameters),
        "reproduction_number": config.reproduction_number,
        "tables": list(ready.population.attributes.get("tables", [])),
        "model_tables": list(ready.model.sources),
        "model_tables_content": digest(),
        "population": {
            "num_agents": ready.population.num_agents,
            "layers": list(ready.population.contacts.layers),
            "store": None if ready.store is None else str(ready.store),
            "content": content_of(ready),
        },
        "machine": describe(),
    } | ({} if law is None else {"generation_interval": law.generation_interval(config.run.dt).tolist()})


def _show_result(result: Any, ready: Ready, folder: Path, begun: int) -> None:  # noqa: ANN401
    """Print the key figures of a run."""
    summary = Summary.of(open_run(folder))
    stepping = result.seconds - result.startup_seconds
    rate = ready.population.num_agents * (result.steps_done - begun) / max(stepping, 1e-9)
    peak = summary.peak
    rows = [
        ("agents", f"{summary.num_agents:,}"),
        ("steps", f"{summary.steps:,}, {summary.when(0)} to {summary.when(-1)}"),
        ("seconds", f"{stepping:.1f}, after {result.startup_seconds:.1f} of start-up"),
        ("agent-steps/s", f"{rate:,.0f}"),
        ("attack rate", f"{100 * summary.attack_rate:.1f} % (initial infections included)"),
        ("peak incidence", f"{summary.incidence[peak]:,} on {summary.when(peak)}"),
        ("peak memory", _peak_memory(result)),
        ("trajectory", str(folder / TRAJECTORY)),
        ("next", f"gnabm report {folder}"),
    ]
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(name, value)
    results().print(table)


def _peak_memory(result: Any) -> str:  # noqa: ANN401
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    ranks = result.peak_rss
    shards = f", shards {', '.join(in_bytes(value) for value in ranks)}" if len(ranks) > 1 else ""
    return in_bytes(own) + shards
