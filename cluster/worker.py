"""One rank of a run: it reads its shard, makes the steps, and writes its own rows of the recorded fields."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cluster.space import telling_of_space
from cluster.state import read_state
from gnabm.exchange import ShardGroup
from gnabm.linelist import Batch, Legend
from gnabm.model import Model
from gnabm.neighbours import Form
from gnabm.periods import Period
from gnabm.population import Population
from gnabm.random import use_torch_threads
from gnabm.shard import cut
from gnabm.simulate import as_numpy
from gnabm.simulation import Simulation
from gnabm.trajectory import TIME_CHUNK, Schema, TrajectoryStore
from graphs.store import open_graph


@dataclass(frozen=True, eq=False)
class Job:
    """What every rank of a run is told.

    Args:
        model: The model.
        population: Store to open, or None when the population is handed over beside the job.
        bounds: (shards + 1,) first row of each shard.
        seed: Seed of all draws.
        dt: Length of a step in days.
        start: Date of step 0, or None.
        messages: Form of the kernels.
        record: State fields to keep.
        steps: Number of steps wanted.
        block: Rows per chunk of a recorded field; shards begin at multiples of it.
        path: Store of the trajectory, or None.
        threads: Threads of each rank, or None to leave them as they are.
        changes: From which steps on another model and seed hold.
        state: State to begin from, or None for the model's initial one.
        infections: Record who infected whom.
    """

    model: Model
    population: Path | None
    bounds: tuple[int, ...]
    seed: int
    dt: float
    start: date | None
    messages: Form
    record: tuple[str, ...]
    steps: int
    block: int
    path: Path | None
    threads: int | None
    changes: tuple[Period, ...] = ()
    state: Path | None = None
    infections: bool = False


@dataclass(frozen=True)
class RankReport:
    """What a rank tells at the end.

    Args:
        rank: The rank.
        first_row: First row of its shard.
        num_owned: Rows that it owns.
        num_halo: Rows that it reads from others.
        peak_rss: Peak resident memory of its process in bytes; ranks of one process report the same.
        seconds: Wall-clock seconds by phase: read, initial, step, write; and exchange, the part of the steps in which
            the rank did nothing but wait for others.
        exchanges: Number of exchanges in the steps, sums of observables included.
        exchange_bytes: Bytes that the rank sent to others in the steps.
    """

    rank: int
    first_row: int
    num_owned: int
    num_halo: int
    peak_rss: int
    seconds: Mapping[str, float]
    exchanges: int
    exchange_bytes: int


class Worker:
    """A rank.

    Args:
        job: What to do.
        population: The population when the job names no store.
        group: The shards.
    """

    def __init__(self, job: Job, population: Population | None, group: ShardGroup) -> None:
        self.job, self.group = job, group
        self.seconds = dict.fromkeys(("read", "initial", "step", "write"), 0.0)
        if job.threads is not None:
            torch.set_num_threads(job.threads)
            use_torch_threads()
        with self._phase("read"):
            whole = population if job.population is None else open_graph(job.population)
            assert whole is not None
            self.shard = cut(whole, group, job.bounds)
            snapshot = None if job.state is None else read_state(job.state, self.shard.first_row, self.shard.num_owned)
        with self._phase("initial"):
            self.simulation = Simulation(
                job.model,
                self.shard,
                seed=job.seed,
                dt=job.dt,
                start=job.start,
                messages=job.messages,
                changes=job.changes,
                snapshot=snapshot,
                infections=job.infections,
            )
        kept = () if job.path is None else job.record
        columns = {name: as_numpy(self.simulation.agents.columns[name]) for name in kept}
        steps = min(TIME_CHUNK, job.steps)
        self.buffer = {name: np.empty((steps, *column.shape), column.dtype) for name, column in columns.items()}
        self.buffered = 0
        self.at_start = replace(group.traffic)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - began

    def schema(self) -> Schema | None:
        """Names, dims and labels of the trajectory; rank 0 tells."""
        if self.group.rank != 0:
            return None
        job = self.job
        return Schema.of(
            job.model,
            self.shard,
            observed=self.simulation.observed,
            dt=job.dt,
            start=job.start,
            record=job.record,
            block=job.block,
        )

    def advance(self) -> Mapping[str, Tensor] | None:
        """Make one step; rank 0 returns its observables, which all ranks have."""
        with self._phase("step"):
            observed = self.simulation.advance()
        with self._phase("write"):
            for name, steps in self.buffer.items():
                steps[self.buffered] = as_numpy(self.simulation.agents.columns[name])
            self.buffered += 1
        return observed if self.group.rank == 0 else None

    def write(self, first: int, count: int) -> None:
        """Write the first steps of the buffer to this rank's rows of the store, and begin it anew.

        Args:
            first: Step of the first buffered one.
            count: Number of steps to write; a step that the driver did not hear of is left out.

        Raises:
            RunError: There is no space left on the device.
        """
        self.buffered = 0
        if self.job.path is None or not self.buffer or not count:
            return
        with self._phase("write"), telling_of_space(self.job.path):
            store = TrajectoryStore(self.job.path)
            for name, steps in self.buffer.items():
                store.write_field(name, first, self.shard.first_row, steps[:count])

    def infections(self, until: int) -> tuple[Legend, Batch]:
        """Hand over the infections of this rank's agents in the steps before `until`, and what their codes mean."""
        tracer = self.simulation.tracer
        assert tracer is not None
        with self._phase("write"):
            return tracer.legend, tracer.take(until)

    def observed(self) -> Mapping[str, Tensor]:
        """Observables of the last step, the same on every rank."""
        return self.simulation.observed

    def column(self, name: str) -> np.ndarray:
        """(num_owned,) a state column as it is now; codes for stages."""
        return as_numpy(self.simulation.agents.columns[name])

    def report(self) -> RankReport:
        """Memory and seconds of this rank."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        halo = sum(self.shard.halo.receive)
        now, then = self.group.traffic, self.at_start
        return RankReport(
            self.group.rank, self.shard.first_row, self.shard.num_owned, halo, peak,
            {**self.seconds, "exchange": now.seconds - then.seconds}, now.exchanges - then.exchanges,
            now.bytes - then.bytes,
        )  # fmt: skip
