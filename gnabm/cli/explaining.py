"""`gnabm explain`: why one agent of a run did what it did in one step."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console
from rich.text import Text
from torch import Tensor

from gnabm.agents import Stages
from gnabm.cli.failures import console, results
from gnabm.cli.populations import Ready, prepare
from gnabm.cli.progress import Watch
from gnabm.config import Config, load
from gnabm.config.schema import StoredGraph
from gnabm.errors import ConfigError, RunError, StoreError
from gnabm.explanation import Explanation
from gnabm.infections import open_infections
from gnabm.race import NOBODY
from gnabm.report import open_run

_CONFIG = "config.yaml"


def explain_run(folder: Path, agent: int, day: float | None, at: date | None, *, as_json: bool) -> None:
    """Make a run again up to a day, in this process, and tell what one agent did then; nothing is written.

    Args:
        folder: Run folder.
        agent: Key of the agent.
        day: Days since the start of the run; -1 for the initial state. None when a date is given.
        at: Date, or None when a day is given.
        as_json: Print JSON and nothing else; it lists every contact that sent something.

    Raises:
        ConfigError: The run has no config, or there is no such day.
        StoreError: The run left no trajectory, or its population is gone.
        RunError: What was made again is not what the run recorded.
    """
    from gnabm.explain import explain

    config, dataset = _open(folder)
    step = _step(config, dataset.sizes["time"], day, at)
    screen = console()
    _tell_of_versions(dataset.attrs, screen)
    ready = _population(config, dataset.attrs, folder)
    run, began = config.run, time.perf_counter()
    shown = config.model_copy(update={"run": run.model_copy(update={"steps": step + 1, "shards": 1})})
    checked = _Checked(folder, dataset)
    with Watch(shown, ready.population.num_agents, screen) as watch:

        def on_step(index: int, observed: Mapping[str, Tensor]) -> None:
            checked.compare(index, observed)
            watch.on_step(index, observed)

        told = explain(
            ready.model, ready.population, agent=agent, step=step, seed=run.seed, dt=run.dt, start=run.start,
            messages=run.messages, changes=ready.changes, most_sources=2**31 if as_json else 12, on_step=on_step,
        )  # fmt: skip
    checked.agree(told, ready.model.state.get("stage"))
    screen.print(f"made again in {time.perf_counter() - began:.1f} s, as the run recorded it", soft_wrap=True)
    if as_json:
        print(json.dumps(told.to_dict()))
        return
    for line in str(told).splitlines():
        text = Text(line)
        text.highlight_regex(r"^\S+", "bold")
        results().print(text, soft_wrap=True)


def _open(folder: Path) -> tuple[Config, xr.Dataset]:
    """Config and trajectory of a run folder."""
    if not folder.is_dir():
        raise StoreError(f"{folder} is no folder; give the run folder that `gnabm run` made")
    if not (folder / _CONFIG).is_file():
        raise ConfigError(
            f"{folder} has no {_CONFIG}, from which the run is made again; give the run folder that `gnabm run` made"
        )
    return load(folder / _CONFIG), open_run(folder)


def _step(config: Config, steps: int, day: float | None, at: date | None) -> int:
    """The step that a day or a date falls into; of a day with several steps the first."""
    run = config.run
    if (day is None) == (at is None):
        raise ConfigError("which day? give --day, such as --day 10, or --date, such as --date 2022-03-21, and not both")
    if at is not None:
        if run.start is None:
            raise ConfigError("--date: this run has no calendar; give --day, such as --day 10")
        day = float((at - run.start).days)
        if day < 0:
            raise ConfigError(f"--date {at}: the run starts on {run.start}; give a date from there on")
    assert day is not None
    if day == -1:
        return -1
    step = math.floor(day / run.dt + 1e-9) if math.isfinite(day) else -1
    if not 0 <= step < steps:
        given = f"--date {at}" if at is not None else f"--day {day:g}"
        raise ConfigError(
            f"{given}: the run made {steps:,} steps of {run.dt:g} days, so a day lies within 0 .. "
            f"{(steps - 1) * run.dt:g} (or is -1, the initial state)"
        )
    return step


def _tell_of_versions(attributes: Mapping[Any, Any], screen: Console) -> None:
    from cluster.run import versions

    then, now = attributes.get("versions", {}), versions()
    differing = [
        f"{name} {then.get(name, 'none')} then, {now[name]} now" for name in now if then.get(name) != now[name]
    ]
    if differing:
        screen.print(f"other versions than the run's: {'; '.join(differing)}. The bits may differ", soft_wrap=True)


def _population(config: Config, attributes: Mapping[Any, Any], folder: Path) -> Ready:
    """The population of the run, built again if it is not there, and the model."""
    who = config.population
    if isinstance(who, StoredGraph) and not Path(who.graph).is_dir():
        raise StoreError(
            f"the graph store {who.graph} of this run is gone; build it there again (gnabm build CONFIG --out "
            f"{who.graph}) or state where it is in {folder / _CONFIG}"
        )
    ready = prepare(config, strict=False)
    known = attributes.get("population", {})
    then, now = known.get("store"), ready.store
    moved = isinstance(who, StoredGraph) or then is None or now is None or Path(then).name == now.name
    if not moved or known.get("num_agents", ready.population.num_agents) != ready.population.num_agents:
        raise StoreError(
            f"the run was made on the population {then} of {known.get('num_agents')} agents, its config now gives "
            f"{now} of {ready.population.num_agents}: tables or generator have changed; run it again"
        )
    return ready


@dataclass(eq=False)
class _Checked:
    """Compares what is made again with what the run recorded.

    Args:
        folder: Run folder.
        dataset: Its trajectory.
    """

    folder: Path
    dataset: xr.Dataset

    def compare(self, index: int, observed: Mapping[str, Tensor]) -> None:
        """Compare a step.

        Raises:
            RunError: It is not what was recorded.
        """
        for name, value in observed.items():
            recorded = self.dataset[name].isel(time=index).values
            if not np.array_equal(value.numpy(), recorded):
                raise self._other(
                    f"step {index}: {name} is {value.sum().item():g} in all, the run recorded {recorded.sum():g}"
                )

    def agree(self, told: Explanation, family: object) -> None:
        """Compare what is told of an agent with what the run recorded of it.

        Args:
            told: The explanation.
            family: The stages of the model, if it has some.

        Raises:
            RunError: Infector, layer or stage are not what was recorded.
        """
        infections = open_infections(self.folder)
        if infections is not None:
            listed = infections[(infections["agent"] == told.agent) & (infections["step"] == told.step)]
            recorded = {
                (int(by), str(through)) for by, through in zip(listed["infector"], listed["layer"], strict=True)
            }
            found = {
                (NOBODY if a.infected_by is None else a.infected_by, a.infected_through)
                for a in told.rules
                if a.infected_through is not None
            }
            if found != recorded:
                raise self._other(
                    f"step {told.step}: agent {told.agent} is {_infected(found)}; by the line list it is "
                    f"{_infected(recorded)}"
                )
        stage = self.dataset.get("stage")
        if stage is None or "agent" not in stage.dims or told.step < 0 or not isinstance(family, Stages):
            return
        at = int(np.flatnonzero(stage["agent"].values == told.agent)[0])
        name = family.names[int(stage.isel(time=told.step, agent=at))]
        if name != told.after["stage"]:
            raise self._other(
                f"step {told.step}: agent {told.agent} is {told.after['stage']} after it, the run recorded {name}"
            )

    def _other(self, what: str) -> RunError:
        return RunError(
            f"{what}; the run of {self.folder} was made with other code or tables, so this would explain another "
            "history; run it again"
        )


def _infected(records: Collection[tuple[int, str | None]]) -> str:
    """Infectors and layers in words."""
    who = (f"infected by {'nobody' if by == NOBODY else f'agent {by}'} through {through}" for by, through in records)
    return " and ".join(sorted(who)) or "not infected"
