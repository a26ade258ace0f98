"""What a run writes: the driver's observables and the ranks' fields, in whole chunks of time."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from torch import Tensor

from cluster.crew import Crew
from cluster.space import telling_of_space
from cluster.worker import Job, RankReport
from gnabm.errors import StoreError
from gnabm.linelist import PARQUET, ROW_BYTES, Batch, Legend, LineListStore, in_order, write_parquet
from gnabm.population import Population
from gnabm.trajectory import INITIAL, TIME_CHUNK, TrajectoryStore, initial_counts
from gnabm.writers import settle

_ROWS_PER_COPY = 1 << 20


class Recorder:
    """Gathers the observables in the driver and has them and the ranks' fields written in whole chunks of time.

    Args:
        crew: The ranks.
        store: The trajectory, or None to store nothing.
        needed: Bytes that it may take.
        line_list: Who infected whom, or None when it is not recorded.
    """

    def __init__(
        self, crew: Crew, store: TrajectoryStore | None, needed: int, line_list: LineListStore | None = None
    ) -> None:
        self.crew, self.store, self.needed, self.line_list = crew, store, needed, line_list
        self.done, self.written = 0, 0
        self.waiting: list[Mapping[str, Tensor]] = []

    @staticmethod
    def open(crew: Crew, job: Job, population: Population, attributes: Mapping[str, Any], overwrite: bool) -> Recorder:
        """Make the store of a run, if it has one.

        Args:
            crew: The ranks.
            job: What they do.
            population: The agents, for their keys.
            attributes: What the store says of the run.
            overwrite: Replace a store that is there.
        """
        if job.path is None:
            return Recorder(crew, None, 0)
        schema = crew.each("schema")[0]
        item = sum(np.dtype(dtype).itemsize for dtype in schema.record.values())
        cells = sum(8 * int(np.prod(schema.shape(name)[1:])) for name in schema.dims)
        needed = job.steps * (item * schema.num_agents + cells) + ROW_BYTES * schema.num_agents * job.infections
        keys = population.columns["key"] if record_keys(population, job.record) else None
        if job.state is None:  # a run that goes on takes this over with its first steps
            attributes = {**initial_counts(crew.each("observed")[0]), **attributes}
        with telling_of_space(job.path, needed):
            job.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                store = TrajectoryStore.create(job.path, schema, keys=keys, attributes=attributes, overwrite=overwrite)
                if overwrite:
                    job.path.with_name(PARQUET).unlink(missing_ok=True)
                legend, batch = infections(crew, 0) if job.infections else (None, {})
                line_list = None if legend is None else LineListStore.create(job.path, batch, legend)
            except OSError:
                settle()
                shutil.rmtree(job.path, ignore_errors=True)  # nothing was simulated, so nothing stays
                raise
        return Recorder(crew, store, needed, line_list)

    def begin(self, steps: int, earlier: Path | None) -> None:
        """Go on after steps that were made before, and take them over when there is a store.

        Args:
            steps: Number of them.
            earlier: Trajectory that has them; None only when there is no store or no step.

        Raises:
            StoreError: It has not all of them, or of another run, or cannot be read.
        """
        if self.store is not None and steps:
            assert earlier is not None
            with telling_of_space(self.store.path, self.needed):
                try:
                    take_over(self.store, earlier, steps)
                    if self.line_list is not None:
                        self.line_list.take_over(earlier, steps)
                except BaseException:
                    settle()
                    shutil.rmtree(self.store.path, ignore_errors=True)  # no step was made
                    raise
        self.done = self.written = steps

    def add(self, observed: Mapping[str, Tensor]) -> None:
        """Take the observables of a step that is done."""
        self.waiting.append(observed)
        self.done += 1
        if self.done % TIME_CHUNK == 0:
            self.flush()

    def flush(self) -> None:
        """Owners write their rows, then the driver appends infections, observables and last the time."""
        count = len(self.waiting)
        if self.store is not None and count:
            with telling_of_space(self.store.path, self.needed):
                self.store.grow(self.done)
                self.crew.each("write", self.written, count)
                if self.line_list is not None:
                    legend, batch = infections(self.crew, self.done)
                    self.line_list.append(batch, legend)
                self.store.append({n: torch.stack([o[n] for o in self.waiting]) for n in self.waiting[0]})
                if self.line_list is not None:
                    self.line_list.publish()  # after the time axis, so that readers see no step that is not done
        self.waiting, self.written = [], self.done

    def fail(self) -> None:
        """Keep what is written, marked; the error that came first is the one to tell."""
        if self.store is not None:
            with suppress(Exception):
                self.store.finish("failed")
            with suppress(Exception):
                self._write_parquet()

    def finish(self, status: str, seconds: float, startup: float, ranks: Sequence[RankReport]) -> None:
        """Say how the run ended, how long it took and what it needed."""
        if self.store is None:
            return
        with telling_of_space(self.store.path, self.needed):
            self._write_parquet()
            self.store.root.attrs.update(
                {
                    "seconds": seconds,
                    "startup_seconds": startup,
                    "peak_rss": [r.peak_rss for r in ranks],
                    "phase_seconds": [dict(r.seconds) for r in ranks],
                }
            )
            self.store.finish(status)

    def _write_parquet(self) -> None:
        if self.store is not None and self.line_list is not None:
            write_parquet(self.store.path, self.store.steps, self.store.path.with_name(PARQUET))


def infections(crew: Crew, until: int) -> tuple[Legend, Batch]:
    """What the ranks noted before a step and have not told yet, in order, and what its codes mean.

    Args:
        crew: The ranks.
        until: The first step whose infections are kept back.
    """
    told = crew.each("infections", until)
    return told[0][0], in_order([batch for _, batch in told])


def take_over(store: TrajectoryStore, earlier: Path, steps: int) -> None:
    """Copy the first steps of a trajectory into an empty one of the same model and population.

    Args:
        store: The empty one.
        earlier: The other.
        steps: Number of steps.

    Raises:
        StoreError: The other has not all of them, has other variables or labels, or cannot be read.
    """
    try:
        other = zarr.open_group(str(earlier), mode="r", use_consolidated=False)
        for name, target in store.root.arrays():
            source = other.get(name)
            if not isinstance(source, zarr.Array) or source.dtype != target.dtype:
                raise StoreError(f"{earlier} has no {name} of type {target.dtype}; run it again with `gnabm run`")
            over_time = _over_time(target)
            if source.shape[over_time:] != target.shape[over_time:] or (over_time and source.shape[0] < steps):
                raise StoreError(
                    f"{earlier}: {name} has the shape {source.shape}, which has not the steps to go on from"
                )
            if not over_time:
                if not np.array_equal(source[...], target[...]):
                    raise StoreError(f"{earlier}: {name} is not that of this run; run it again with `gnabm run`")
            elif name != "time":
                _copy(source, target, steps)
    except (StoreError, OSError):
        raise
    except Exception as error:  # a decoder fails in ways of its own
        raise StoreError(
            f"{earlier} cannot be read ({type(error).__name__} {error}); run it again with `gnabm run`"
        ) from error
    store.root.attrs.update({INITIAL: other.attrs[INITIAL]} if INITIAL in other.attrs else {})
    store.append({}, steps)


def _over_time(array: zarr.Array[Any]) -> bool:
    return (getattr(array.metadata, "dimension_names", None) or ("",))[0] == "time"


def _copy(source: zarr.Array[Any], target: zarr.Array[Any], steps: int) -> None:
    """Copy steps in pieces of whole chunks."""
    target.resize((steps, *target.shape[1:]))
    wide = target.chunks[1] if target.ndim > 1 else 1
    width = wide * max(1, _ROWS_PER_COPY // wide)
    for low in range(0, steps, target.chunks[0]):
        high = min(low + target.chunks[0], steps)
        if target.ndim == 1:
            target[low:high] = source[low:high]
        for row in range(0, target.shape[1] if target.ndim > 1 else 0, width):
            target[low:high, row : row + width] = source[low:high, row : row + width]


def record_keys(population: Population, record: Sequence[str]) -> bool:
    """Whether a store needs the agents' keys: fields are recorded and rows are not the identity."""
    return bool(record) and "key" in population.columns
