"""Trajectory: what a run leaves behind, in memory or as one Zarr group that xarray opens."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
import zarr
from torch import Tensor

from gnabm.agents import Agents, Stages
from gnabm.contacts import Array
from gnabm.errors import OutputExistsError, StoreError
from gnabm.grouping import Grouping
from gnabm.linelist import LineListStore
from gnabm.model import Model
from gnabm.shard import Shard

SCHEMA = 1
INITIAL = "initial_stage_count"
TIME_CHUNK = 32
"""Steps per chunk of a field over agents; these fields are written when so many steps are done."""
_ROWS_PER_PIECE = 1 << 20


@dataclass(frozen=True)
class Schema:
    """Names, dims and labels of a trajectory.

    Args:
        dims: Dims of each observable after time.
        dtypes: Type of each observable.
        labels: Names along each dim.
        record: Recorded state fields with their dtype.
        attributes: Unit and meaning of each variable.
        num_agents: Number of agents.
        block: Rows per chunk of a field over agents.
        dt: Days per step.
        start: Date of step 0, or None.
    """

    dims: Mapping[str, tuple[str, ...]]
    dtypes: Mapping[str, str]
    labels: Mapping[str, tuple[str, ...]]
    record: Mapping[str, str]
    attributes: Mapping[str, Mapping[str, Any]]
    num_agents: int
    block: int
    dt: float
    start: date | None

    @staticmethod
    def of(
        model: Model,
        shard: Shard,
        *,
        observed: Mapping[str, Tensor],
        dt: float,
        start: date | None,
        record: Sequence[str],
        block: int = 0,
    ) -> Schema:
        """Schema of a model's run on the population of a shard.

        Args:
            model: The model.
            shard: A shard of the population.
            observed: Observables of the initial state, or of any step, for their types.
            dt: Days per step.
            start: Date of step 0, or None.
            record: Recorded state fields.
            block: Rows per chunk of a field over agents; 0 for one chunk.
        """
        dims: dict[str, tuple[str, ...]] = {}
        labels: dict[str, tuple[str, ...]] = {}
        attributes: dict[str, Mapping[str, Any]] = {}
        for observable in model.observe:
            grouping = Grouping.of(shard, observable.by)
            dims[observable.name] = grouping.dims
            attributes[observable.name] = {"units": observable.unit, "long_name": observable.meaning}
            labels |= {d: shard.fields[d].categories or () for d in grouping.dims}
            if observable.counts is not None:
                dims[observable.name] = (observable.counts, *grouping.dims)
                labels[observable.counts] = model.fields()[observable.counts].categories or ()
        dtypes = {n: "float64" if v.is_floating_point() else "int64" for n, v in observed.items()}
        recorded = {}
        for name in record:
            kind = model.state[name]
            recorded[name] = "uint8" if isinstance(kind, Stages) else str(kind.dtype).removeprefix("torch.")
            attributes[name] = {"long_name": model.fields()[name].meaning, "units": model.fields()[name].unit}
            if isinstance(kind, Stages):
                attributes[name] = {
                    **attributes[name],
                    "flag_values": list(range(len(kind))),
                    "flag_meanings": " ".join(kind.names),
                }
        total = shard.bounds[-1]
        return Schema(dims, dtypes, labels, recorded, attributes, total, block or total, dt, start)

    def label_name(self, dim: str) -> str:
        """Name of the variable that holds the labels of a dim.

        The dim's own, except for `stage` when the field over agents of that name is recorded.
        """
        return f"{dim}_name" if dim in self.record else dim

    def shape(self, name: str, steps: int = 0) -> tuple[int, ...]:
        """Shape of an observable."""
        return (steps, *(len(self.labels[d]) for d in self.dims[name]))

    def time(self, steps: int) -> tuple[np.ndarray, dict[str, str]]:
        """Time coordinate: days since the start (CF), or the step's index without a calendar."""
        index = np.arange(steps)
        days = index * self.dt
        values = days.astype(np.int64) if float(self.dt).is_integer() else days
        if self.start is None:
            return index.astype(np.int64), {"long_name": "step"}
        return values, {"units": f"days since {self.start.isoformat()}", "calendar": "proleptic_gregorian"}


def initial_counts(observed: Mapping[str, Tensor]) -> dict[str, Any]:
    """The attribute `INITIAL`: agents in each stage before the first step, in the dims of `stage_count` without time.

    Args:
        observed: Observables of the initial state.
    """
    counts = observed.get("stage_count")
    return {} if counts is None else {INITIAL: counts.detach().tolist()}  # an attribute is data


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Observables of each step, recorded fields, and the agents at the end.

    Args:
        schema: Names, dims and labels.
        observed: (time, ...) by name; in a differentiable run these carry the gradient.
        fields: (time, agent) recorded state fields by name, at the end of each step.
        agents: The agents at the end.
        attributes: Attributes of the dataset.
        num_steps: Number of steps, or None when an observable or a field tells it.
        infections: The line list (`gnabm.linelist`), or None when it was not recorded.
    """

    schema: Schema
    observed: Mapping[str, Tensor]
    fields: Mapping[str, np.ndarray]
    agents: Agents
    attributes: Mapping[str, Any] = field(default_factory=dict)
    num_steps: int | None = None
    infections: pd.DataFrame | None = None

    @property
    def steps(self) -> int:
        """Number of steps."""
        if self.num_steps is not None:
            return self.num_steps
        known = [*(v.shape[0] for v in self.observed.values()), *(v.shape[0] for v in self.fields.values())]
        return known[0] if known else 0

    def to_xarray(self) -> xr.Dataset:
        """The trajectory as a dataset with only the dims that exist.

        Returns:
            `stage_count` (time, stage, region, age_group) and `incidence` (time, region, age_group) as far as the
            population has regions and ages: agents at the end of each step, new infections within it.
        """
        time, attributes = self.schema.time(self.steps)
        data: dict[str, Any] = {
            name: (("time", *self.schema.dims[name]), value.detach().numpy(), self.schema.attributes[name])
            for name, value in self.observed.items()  # a dataset is data: the gradient stays in `observed`
        }
        keys: Tensor = self.agents.key
        for name, values in self.fields.items():
            data[name] = (("time", "agent"), values, self.schema.attributes[name])
        coords: dict[str, Any] = {"time": ("time", time, attributes)}
        coords |= {self.schema.label_name(d): (d, list(names)) for d, names in self.schema.labels.items()}
        if self.fields:
            coords["agent"] = keys.numpy()
        return xr.decode_cf(xr.Dataset(data, coords=coords, attrs=dict(self.attributes)))

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the trajectory as a Zarr group.

        Args:
            path: Folder to make.
            overwrite: Replace what is there.

        Raises:
            OutputExistsError: The folder exists.
        """
        keys: Tensor = self.agents.key
        store = TrajectoryStore.create(
            Path(path), self.schema, keys=keys.numpy(), attributes=self.attributes, overwrite=overwrite
        )
        store.grow(self.steps)
        for name, values in self.fields.items():
            store.write_field(name, 0, 0, values)
        if self.infections is not None:
            LineListStore.of(Path(path), self.infections, self.schema.dt, self.schema.start)
        store.append({n: v.detach() for n, v in self.observed.items()}, self.steps)  # what is stored is data
        store.finish("complete")
        return Path(path)


class TrajectoryStore:
    """A trajectory on disk. One process creates, grows and finishes it; owners write their blocks of fields.

    The time axis grows only over steps that are done, and `status` is `complete` only at the end: a killed run leaves
    a shorter store that says so.

    Args:
        path: Folder of the Zarr group.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.root = zarr.open_group(str(path), mode="r+", use_consolidated=False)
        self.steps = self.grown = self._array("time").shape[0]

    def _array(self, name: str) -> zarr.Array[Any]:
        array = self.root[name]
        assert isinstance(array, zarr.Array)
        return array

    @staticmethod
    def create(
        path: Path,
        schema: Schema,
        *,
        keys: Array | None,
        attributes: Mapping[str, Any],
        overwrite: bool = False,
    ) -> TrajectoryStore:
        """Make an empty store.

        Args:
            path: Folder to make.
            schema: What it will hold.
            keys: (num_agents,) keys of the agents, read in pieces, or None when they are 0, 1, ...
            attributes: Resolved config, seed, versions.
            overwrite: Replace an existing folder.
        """
        if path.exists():
            if not overwrite:
                raise OutputExistsError(
                    f"{path} exists; choose another folder with --out or replace it with --overwrite"
                )
            shutil.rmtree(path)
        root = zarr.create_group(str(path), zarr_format=3)
        said: dict[str, Any] = {"gnabm_schema": SCHEMA, "gnabm_kind": "trajectory", "status": "running"}
        said["dt_days"] = schema.dt
        named = [schema.label_name(d) for d in schema.labels if schema.label_name(d) != d]
        # Labels that are named otherwise than their dim are coordinates too (CF, attribute of the whole store).
        root.attrs.update(said | ({"coordinates": " ".join(named)} if named else {}) | dict(attributes))
        time, time_attributes = schema.time(0)
        _array(root, "time", (0,), (4096,), str(time.dtype), ("time",), time_attributes)
        for dim, labels in schema.labels.items():
            name = schema.label_name(dim)
            array = _array(root, name, (len(labels),), (max(len(labels), 1),), "str", (dim,), {})
            array[:] = np.array(labels, dtype=object)
        for name in schema.dims:
            shape = schema.shape(name)
            _array(
                root,
                name,
                shape,
                (256, *shape[1:]),
                schema.dtypes[name],
                ("time", *schema.dims[name]),
                schema.attributes[name],
            )
        if schema.record:
            array = _array(
                root,
                "agent",
                (schema.num_agents,),
                (min(schema.num_agents, _ROWS_PER_PIECE),),
                "int64",
                ("agent",),
                {"long_name": "key of the agent"},
            )
            for low in range(0, schema.num_agents, _ROWS_PER_PIECE):  # never a second column of all keys
                high = min(low + _ROWS_PER_PIECE, schema.num_agents)
                array[low:high] = np.arange(low, high) if keys is None else keys[low:high]
        for name, dtype in schema.record.items():
            _array(
                root,
                name,
                (0, schema.num_agents),
                (TIME_CHUNK, schema.block),
                dtype,
                ("time", "agent"),
                schema.attributes[name],
            )
        store = TrajectoryStore(path)
        store._commit()
        return store

    def grow(self, steps: int) -> None:
        """Make room in the fields over agents for steps that their owners will write now."""
        self.grown = steps
        for _, array in self.root.arrays():
            if _dims(array) == ("time", "agent"):
                array.resize((steps, array.shape[1]))

    def write_field(self, name: str, step: int, row: int, values: np.ndarray) -> None:
        """Write whole blocks of a field.

        Args:
            name: The field.
            step: First step, a multiple of TIME_CHUNK.
            row: First row, a multiple of the block.
            values: (num_steps, num_rows).
        """
        # Days that follow each other are nearly equal: they compress by twenty and more at gigabytes a second, and to
        # look first whether a block is all zeros would cost more than that.
        with zarr.config.set({"array.write_empty_chunks": True}):
            array = zarr.open_array(str(self.path / name), mode="r+")
            array[step : step + values.shape[0], row : row + values.shape[1]] = values

    def append(self, observed: Mapping[str, Tensor], steps: int | None = None) -> None:
        """Append steps to the observables, then to the time axis.

        Args:
            observed: (num_steps, ...) by name.
            steps: Number of steps, or None: those of the observables, and without any as far as `grow` made room.
        """
        if steps is None:
            steps = next((v.shape[0] for v in observed.values()), max(self.grown - self.steps, 0))
        end = self.steps + steps
        for name, value in observed.items():
            array = self._array(name)
            array.resize((end, *array.shape[1:]))
            array[self.steps : end] = value.numpy()
        time = self._array("time")
        time.resize((end,))
        dt = float(str(self.root.attrs.get("dt_days", 1.0))) if "units" in time.attrs else 1.0
        time[self.steps : end] = np.arange(self.steps, end) * dt
        self.steps = end
        self._commit()

    def finish(self, status: str) -> None:
        """Mark the store as complete, interrupted or failed, at the steps that are done."""
        self.grow(self.steps)
        self.root.attrs["status"] = status
        self._commit()

    def _commit(self) -> None:
        """Publish the shapes of now: readers of the consolidated metadata see whole steps only, or the state before."""
        with warnings.catch_warnings():
            # Every Zarr reader that does not know this part of the metadata may ignore it.
            warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
            zarr.consolidate_metadata(str(self.path))


def _array(
    root: zarr.Group, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str,
    dims: tuple[str, ...], attributes: Mapping[str, Any],
) -> zarr.Array[Any]:  # fmt: skip
    return root.create_array(
        name, shape=shape, chunks=chunks, dtype=dtype, dimension_names=dims, attributes=dict(attributes)
    )


def _dims(array: zarr.Array[Any]) -> tuple[str | None, ...]:
    return tuple(getattr(array.metadata, "dimension_names", None) or ())


def open_trajectory(path: str | Path) -> xr.Dataset:
    """Open a stored trajectory.

    Args:
        path: A run folder or its `trajectory.zarr`.

    Raises:
        StoreError: There is no trajectory of this schema.
    """
    folder = Path(path)
    folder = folder / "trajectory.zarr" if (folder / "trajectory.zarr").is_dir() else folder
    if not (folder / "zarr.json").is_file():
        raise StoreError(f"{path} holds no trajectory; give a run folder, or make one with `gnabm run CONFIG`")
    attributes = zarr.open_group(str(folder), mode="r").attrs
    if attributes.get("gnabm_kind") != "trajectory" or attributes.get("gnabm_schema") != SCHEMA:
        raise StoreError(
            f"{path} is a {attributes.get('gnabm_kind', 'foreign')} store of schema "
            f"{attributes.get('gnabm_schema')}, expected a trajectory of schema {SCHEMA}; run it again"
        )
    dataset: xr.Dataset = xr.open_zarr(str(folder), consolidated=True)
    return dataset
