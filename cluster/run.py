"""`run`: simulate a model on shards and leave its trajectory on disk."""

from __future__ import annotations

import platform
import shutil
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
from cluster.space import telling_of_space
from cluster.worker import Job, RankReport
from gnabm.errors import ConfigError, OutputExistsError
from gnabm.model import Model
from gnabm.neighbours import Form
from gnabm.population import Population
from gnabm.simulate import check_record, check_steps
from gnabm.trajectory import TIME_CHUNK, TrajectoryStore
from gnabm.writers import settle
from graphs.store import open_graph

Transport = Literal["auto", "local", "actors"]
Status = Literal["complete", "interrupted"]
OnStep = Callable[[int, Mapping[str, Tensor]], None]
"""Called with the index of a step that is done and its observables."""
STORE = "trajectory.zarr"


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

    Raises:
        OutputExistsError: There is a trajectory already.
        ConfigError: The transport is unknown, or there are fewer blocks than shards.
        CapacityError: The cluster has too few CPUs.
        RunError: A rank died, or no space is left on the device.
        GnabmError: What the model or a rule refused.
    """
    began = time.perf_counter()
    path = None if out is None else Path(out) / STORE
    check_shards(shards)
    check_steps(steps)
    check_record(model, record)
    if transport not in ("auto", "local", "actors"):
        raise ConfigError(f"transport must be 'auto', 'local' or 'actors', got {transport!r}")
    if path is not None and not model.observe:
        raise ConfigError("a stored run needs an observable for its time axis; give the model observe=[count_by_stage]")
    if path is not None and path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists; choose another folder with --out or replace it with --overwrite")
    stored = None if isinstance(population, Population) else Path(population)
    whole = population if isinstance(population, Population) else open_graph(population)
    block = grain(whole, shards) if record else whole.block
    bounds = split(whole, shards, block)
    job = Job(
        model, stored, bounds, seed, dt, start, messages, tuple(record), steps, block,
        None if path is None else path.absolute(), threads,
    )  # fmt: skip
    said = {"start": None if start is None else start.isoformat(), "shards": shards, "seed": seed, "dt_days": dt}
    told = {"messages": messages, "reproducibility": model.reproducibility, "versions": versions()}
    described = {**said, **told, **(attributes or {})}
    with _threads_kept(), _crew(transport, job, None if stored else whole) as crew:
        recorder = _Recorder.open(crew, job, whole, described, overwrite)
        startup = time.perf_counter() - began
        try:
            status = _advance(crew, recorder, steps, on_step)
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


def _advance(crew: Crew, recorder: _Recorder, steps: int, on_step: OnStep | None) -> Status:
    """Make the steps until the end or an interrupt; what is done is written in either case."""
    status: Status = "complete"
    try:
        with _asked_to_stop() as asked:
            for step in range(steps):
                observed = crew.each("advance")[0]
                recorder.add(observed)
                if on_step is not None:
                    on_step(step, observed)
                if asked.is_set() and step + 1 < steps:
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


class _Recorder:
    """Gathers the observables in the driver and has them and the ranks' fields written in whole chunks of time.

    Args:
        crew: The ranks.
        store: The trajectory, or None to store nothing.
        needed: Bytes that it may take.
        names: Names of the observables.
    """

    def __init__(self, crew: Crew, store: TrajectoryStore | None, needed: int) -> None:
        self.crew, self.store, self.needed = crew, store, needed
        self.done, self.written = 0, 0
        self.waiting: list[Mapping[str, Tensor]] = []

    @staticmethod
    def open(crew: Crew, job: Job, population: Population, attributes: Mapping[str, Any], overwrite: bool) -> _Recorder:
        if job.path is None:
            return _Recorder(crew, None, 0)
        schema = crew.each("schema")[0]
        item = sum(np.dtype(dtype).itemsize for dtype in schema.record.values())
        cells = sum(8 * int(np.prod(schema.shape(name)[1:])) for name in schema.dims)
        needed = job.steps * (item * schema.num_agents + cells)
        keys = np.asarray(population.columns["key"][:]) if record_keys(population, job.record) else None
        with telling_of_space(job.path, needed):
            job.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                store = TrajectoryStore.create(job.path, schema, keys=keys, attributes=attributes, overwrite=overwrite)
            except OSError:
                settle()
                shutil.rmtree(job.path, ignore_errors=True)  # nothing was simulated, so nothing stays
                raise
        return _Recorder(crew, store, needed)

    def add(self, observed: Mapping[str, Tensor]) -> None:
        self.waiting.append(observed)
        self.done += 1
        if self.done % TIME_CHUNK == 0:
            self.flush()

    def flush(self) -> None:
        """Owners write their rows, then the driver appends the observables and last the time."""
        count = len(self.waiting)
        if self.store is not None and count:
            with telling_of_space(self.store.path, self.needed):
                self.store.grow(self.done)
                self.crew.each("write", self.written, count)
                self.store.append({n: torch.stack([o[n] for o in self.waiting]) for n in self.waiting[0]})
        self.waiting, self.written = [], self.done

    def fail(self) -> None:
        """Keep what is written, marked; the error that came first is the one to tell."""
        if self.store is not None:
            with suppress(Exception):
                self.store.finish("failed")

    def finish(self, status: str, seconds: float, startup: float, ranks: Sequence[RankReport]) -> None:
        if self.store is None:
            return
        with telling_of_space(self.store.path, self.needed):
            self.store.root.attrs.update(
                {
                    "seconds": seconds,
                    "startup_seconds": startup,
                    "peak_rss": [r.peak_rss for r in ranks],
                    "phase_seconds": [dict(r.seconds) for r in ranks],
                }
            )
            self.store.finish(status)


def record_keys(population: Population, record: Sequence[str]) -> bool:
    """Whether a store needs the agents' keys: fields are recorded and rows are not the identity."""
    return bool(record) and "key" in population.columns


def versions() -> dict[str, str]:
    """Versions of what decides the bits."""
    found = {"python": platform.python_version()}
    for name in ("torch", "numpy", "numba", "zarr", "gnabm"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
