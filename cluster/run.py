"""`run`: simulate a model on shards and leave its trajectory on disk."""

from __future__ import annotations

import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cluster.bounds import check_shards, grain, split
from cluster.crew import AllInProcess, Crew, OneInProcess
from cluster.recorder import Recorder
from cluster.space import telling_of_space
from cluster.state import step_of, write_state
from cluster.worker import Job, RankReport
from gnabm.errors import ConfigError, OutputExistsError
from gnabm.model import Model
from gnabm.neighbours import Form
from gnabm.periods import Period, check_periods
from gnabm.population import Population
from gnabm.simulate import check_record, check_steps
from graphs.store import open_graph

Transport = Literal["auto", "local", "actors"]
Status = Literal["complete", "interrupted"]
OnStep = Callable[[int, Mapping[str, Tensor]], None]
"""Called with the index of a step that is done and its observables."""
STORE = "trajectory.zarr"


@dataclass(frozen=True)
class Beginning:
    """Where a run goes on from instead of its initial state.

    Args:
        state: State on disk, found whole by `check_state`.
        earlier: Trajectory with the steps before, which become the first ones of the new; needed when one is stored.
    """

    state: Path
    earlier: Path | None = None

    @property
    def step(self) -> int:
        """The first step to make."""
        return step_of(self.state)


@dataclass(frozen=True, eq=False)
class Keeping:
    """Where the state at the end of a run is kept.

    Args:
        path: Folder to make.
        basis: What decides the state, in plain types; it must be found the same when the state is used.
    """

    path: Path
    basis: Mapping[str, Any]


@dataclass(frozen=True)
class RunResult:
    """What a run leaves.

    Args:
        steps_done: Steps that are in the store.
        status: `complete` or `interrupted`.
        path: The trajectory, or None when it was not stored.
        seconds: Wall-clock seconds from the call to the end.
        startup_seconds: Of these, until the first step began.
        ranks: Rows, halo, peak memory and seconds by phase of each rank.
    """

    steps_done: int
    status: Status
    path: Path | None
    seconds: float
    startup_seconds: float
    ranks: tuple[RankReport, ...] = field(default_factory=tuple)

    @property
    def peak_rss(self) -> tuple[int, ...]:
        """Peak resident memory of each rank's process in bytes."""
        return tuple(r.peak_rss for r in self.ranks)


def run(
    model: Model,
    population: Path | str | Population,
    *,
    shards: int = 1,
    transport: Transport = "auto",
    steps: int,
    seed: int,
    dt: float = 1.0,
    start: date | None = None,
    record: Sequence[str] = (),
    messages: Form = "auto",
    out: Path | str | None = None,
    overwrite: bool = False,
    attributes: Mapping[str, Any] | None = None,
    threads: int | None = None,
    on_step: OnStep | None = None,
    changes: Sequence[Period] = (),
    begin: Beginning | None = None,
    keep: Keeping | None = None,
    infections: bool = False,
) -> RunResult:
    """Simulate on shards; the bits do not depend on their number, transport or threads.

    Ctrl-C finishes the step, writes what is there and returns with the status `interrupted`; a second one stops at
    once. On several machines the graph store and `out` must lie on a file system that all of them see.

    Args:
        model: The model.
        population: A graph store, or a population in memory.
        shards: Number of shards.
        transport: `local` takes turns in this process, `actors` are processes of Ray; `auto` is this process alone for
            one shard and actors for more.
        steps: Number of steps.
        seed: Seed of all draws.
        dt: Length of a step in days.
        start: Date of step 0, or None for a run without a calendar.
        record: State fields to store for each agent and step.
        messages: Form of the kernels.
        out: Folder in which `trajectory.zarr` is made, or None to store nothing.
        overwrite: Replace a trajectory that is there.
        attributes: More attributes of the trajectory.
        threads: Threads of each rank; by default those of this process, and the cores divided by shards for actors.
        on_step: Called after each step.
        changes: From which steps on another model and seed hold.
        begin: State to go on from; the trajectory and `steps` are those of the whole run, earlier steps included.
        keep: Where to keep the state after the last step; an interrupted run keeps none.
        infections: Record who infected whom: the group `infections` of the trajectory, and `infections.parquet` beside
            it.

    Raises:
        OutputExistsError: There is a trajectory already.
        ConfigError: The transport is unknown, there are fewer blocks than shards, or infections have no place to go.
        CapacityError: The cluster has too few CPUs.
        RunError: A rank died, or no space is left on the device.
        GnabmError: What the model or a rule refused.
    """
    began = time.perf_counter()
    path = None if out is None else Path(out) / STORE
    check_shards(shards)
    check_steps(steps)
    check_record(model, record)
    first = 0 if begin is None else begin.step
    if first > steps:
        raise ConfigError(f"the run has {steps} steps, so it cannot go on from step {first}; raise steps")
    if transport not in ("auto", "local", "actors"):
        raise ConfigError(f"transport must be 'auto', 'local' or 'actors', got {transport!r}")
    if path is not None and not model.observe:
        raise ConfigError("a stored run needs an observable for its time axis; give the model observe=[count_by_stage]")
    if path is None and infections:
        raise ConfigError("infections are written beside the trajectory; give out=, or use gnabm.simulate")
    if path is not None and path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists; choose another folder with --out or replace it with --overwrite")
    stored = None if isinstance(population, Population) else Path(population)
    whole = population if isinstance(population, Population) else open_graph(population)
    block = grain(whole, shards) if record else whole.block
    bounds = split(whole, shards, block)
    job = Job(
        model, stored, bounds, seed, dt, start, messages, tuple(record), steps, block,
        None if path is None else path.absolute(), threads, check_periods(model, changes),
        None if begin is None else begin.state.absolute(), infections,
    )  # fmt: skip
    said = {"start": None if start is None else start.isoformat(), "shards": shards, "seed": seed, "dt_days": dt}
    told = {"messages": messages, "reproducibility": model.reproducibility, "versions": versions()}
    described = {**said, **told, **(attributes or {})}
    with _threads_kept(), _crew(transport, job, None if stored else whole) as crew:
        recorder = Recorder.open(crew, job, whole, described, overwrite)
        if begin is not None:
            recorder.begin(first, begin.earlier)
        startup = time.perf_counter() - began
        try:
            status = _advance(crew, recorder, range(first, steps), on_step)
            if keep is not None and status == "complete":
                _keep(keep, crew, model, steps)
            ranks = tuple(crew.each("report"))
            seconds = time.perf_counter() - began
            recorder.finish(status, seconds, startup, ranks)
        except BaseException:
            recorder.fail()
            raise
    return RunResult(recorder.done, status, path, seconds, startup, ranks)


def _crew(transport: Transport, job: Job, population: Population | None) -> Crew:
    shards = len(job.bounds) - 1
    if transport == "actors" or (transport == "auto" and shards > 1):
        from cluster.actors import Actors  # one shard runs without Ray

        return Actors(job, population)
    return AllInProcess(job, population) if shards > 1 else OneInProcess(job, population)


def _keep(keep: Keeping, crew: Crew, model: Model, step: int) -> None:
    columns = ((name, np.concatenate(crew.each("column", name))) for name in model.state)
    with telling_of_space(keep.path):
        write_state(keep.path, columns, crew.each("observed")[0], step, keep.basis)


def _advance(crew: Crew, recorder: Recorder, steps: range, on_step: OnStep | None) -> Status:
    """Make the steps until the end or an interrupt; what is done is written in either case."""
    status: Status = "complete"
    try:
        with _asked_to_stop() as asked:
            for step in steps:
                observed = crew.each("advance")[0]
                recorder.add(observed)
                if on_step is not None:
                    on_step(step, observed)
                if asked.is_set() and step + 1 < steps.stop:
                    status = "interrupted"
                    break
    except KeyboardInterrupt:
        status = "interrupted"
    recorder.flush()
    return status


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second one interrupts. Only the main thread hears signals."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _threads_kept() -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def versions() -> dict[str, str]:
    """Versions of what decides the bits."""
    found = {"python": platform.python_version()}
    for name in ("torch", "torch-scatter", "numpy", "scipy", "numba", "zarr", "gnabm"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
