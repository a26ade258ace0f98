"""The line list: one record for each infection, in memory and on disk.

A record is who (`agent`, a key), when (`step`; -1 for those infected at the start), by whom (`infector`, a key, or -1
when it came from outside or is unknown), through which layer, and the agent's region and age where it has them. The
list is sorted by step, then agent. On disk it is the group `infections` of a trajectory: codes with their `names` in
the attributes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from gnabm.errors import StoreError

GROUP = "infections"
PARQUET = "infections.parquet"
"""File of a run folder that holds the same list."""
ROWS_PER_CHUNK = 1 << 20
ROW_BYTES = 64
"""Bytes of a record on disk, at most: in the group and in the file, uncompressed."""
_NANOSECONDS = 86400 * 10**9
_MEANING = {
    "agent": "key of the infected agent",
    "step": "step of the infection; -1: infected at the start",
    "date": "date of the step",
    "infector": "key of the agent that infected it; -1: none",
    "layer": "layer of the contact, or the rule that brought the infection from outside",
    "region": "region of the infected agent",
    "age": "age of the infected agent",
}

Batch = Mapping[str, NDArray[Any]]
"""Records by column: agent, step, infector, layer (code) and, as the population has them, region (code) and age."""


@dataclass(frozen=True)
class Legend:
    """What the codes and steps of a line list mean.

    Args:
        layers: Names of the codes of `layer`: the layers, then the rules that infect.
        regions: Names of the codes of `region`, or None when agents have no region.
        dt: Length of a step in days.
        start: Date of step 0, or None.
    """

    layers: tuple[str, ...]
    regions: tuple[str, ...] | None
    dt: float
    start: date | None


def in_order(batches: Sequence[Batch]) -> Batch:
    """Batches of several shards as one, sorted by step, then agent."""
    joined = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
    order = np.lexsort((joined["agent"], joined["step"]))
    return {name: column[order] for name, column in joined.items()}


def as_frame(batch: Batch, legend: Legend) -> pd.DataFrame:
    """A line list for people.

    Args:
        batch: Records.
        legend: What their codes mean.

    Returns:
        Columns agent, step, date (NaT in a run without a calendar), infector, layer and, as the population has them,
        region and age; layer and region are categories.
    """
    step = batch["step"]
    if legend.start is None:
        dates = np.full(step.shape, np.datetime64("NaT", "ns"))
    else:
        offset = np.rint(np.arange(-1, int(step.max(initial=-1)) + 1) * legend.dt * _NANOSECONDS)
        dates = np.datetime64(legend.start, "ns") + offset.astype("timedelta64[ns]")[step + 1]
    columns: dict[str, Any] = {"agent": batch["agent"], "step": step, "date": dates, "infector": batch["infector"]}
    columns["layer"] = pd.Categorical.from_codes(batch["layer"], categories=pd.Index(list(legend.layers)))
    if legend.regions is not None:
        columns["region"] = pd.Categorical.from_codes(batch["region"], categories=pd.Index(list(legend.regions)))
    if "age" in batch:
        columns["age"] = batch["age"]
    return pd.DataFrame(columns)


class LineListStore:
    """A line list on disk, inside a trajectory; one process creates it and appends.

    Args:
        path: Folder of the trajectory.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.group = zarr.open_group(str(path), path=GROUP, mode="r+", use_consolidated=False)

    @staticmethod
    def create(path: Path, batch: Batch, legend: Legend) -> LineListStore:
        """Make the group with a first batch, which may be empty.

        Args:
            path: Folder of a trajectory that has none.
            batch: Records; their types are those of the list.
            legend: What their codes mean.
        """
        group = zarr.open_group(str(path), mode="r+", use_consolidated=False).create_group(GROUP)
        group.attrs.update({"dt_days": legend.dt, "start": None if legend.start is None else legend.start.isoformat()})
        types = {name: column.dtype for name, column in batch.items()}
        if legend.start is not None:
            types["date"] = np.dtype(np.int32 if float(legend.dt).is_integer() else np.float64)
        for name, dtype in types.items():
            group.create_array(
                name, shape=(0,), chunks=(ROWS_PER_CHUNK,), dtype=dtype, dimension_names=("infection",),
                attributes=_attributes(name, legend),
            )  # fmt: skip
        store = LineListStore(path)
        store.append(batch, legend)
        store.publish()
        return store

    @staticmethod
    def of(path: Path, frame: pd.DataFrame, dt: float, start: date | None) -> LineListStore:
        """Make the group with a whole line list, as `as_frame` gives it.

        Args:
            path: Folder of a trajectory that has none.
            frame: The line list.
            dt: Length of a step in days.
            start: Date of step 0, or None.
        """
        batch = {name: frame[name].to_numpy() for name in ("agent", "step", "infector", "age") if name in frame}
        coded = {name: frame[name].cat for name in ("layer", "region") if name in frame}
        batch |= {name: column.codes.to_numpy().astype(np.int16) for name, column in coded.items()}
        names = {name: tuple(map(str, column.categories)) for name, column in coded.items()}
        return LineListStore.create(path, batch, Legend(names["layer"], names.get("region"), dt, start))

    def append(self, batch: Batch, legend: Legend) -> None:
        """Append records that come after those that are there; `publish` shows them.

        Args:
            batch: Records, in order.
            legend: What their codes mean; it may have grown.
        """
        columns = dict(batch)
        if legend.start is not None:
            columns["date"] = batch["step"] * legend.dt
        for name, values in columns.items():
            array = self._array(name)
            end = array.shape[0]
            array.resize((end + values.shape[0],))
            array[end:] = values
        if self._array("layer").attrs["names"] != list(legend.layers):
            self._array("layer").attrs["names"] = list(legend.layers)

    def publish(self) -> None:
        """Show readers of the consolidated metadata what is there; until then they see the state before."""
        with warnings.catch_warnings():
            # As for the trajectory: every Zarr reader that does not know this part of the metadata may ignore it.
            warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
            zarr.consolidate_metadata(str(self.path), path=GROUP)

    def take_over(self, earlier: Path, steps: int) -> None:
        """Copy the records of the first steps of another run of the same model and population into this empty list.

        Args:
            earlier: Folder of its trajectory.
            steps: Number of steps; those infected at the start come with them.

        Raises:
            StoreError: It recorded no infections.
        """
        if not (earlier / GROUP).is_dir():
            raise StoreError(
                f"{earlier} has no line list to go on from; run it again with record.infections: true, or leave "
                "record.infections out"
            )
        for batch, legend in _batches(earlier, steps):
            self.append(batch, legend)
        self.publish()

    def _array(self, name: str) -> zarr.Array[Any]:
        array = self.group[name]
        assert isinstance(array, zarr.Array)
        return array


def _attributes(name: str, legend: Legend) -> dict[str, Any]:
    found: dict[str, Any] = {"long_name": _MEANING[name]}
    names = {"layer": legend.layers, "region": legend.regions}.get(name)
    if names is not None:
        found["names"] = list(names)
    if name == "age":
        found["units"] = "years"
    if name == "date" and legend.start is not None:
        found |= {"units": f"days since {legend.start.isoformat()}", "calendar": "proleptic_gregorian"}
    return found


def read_pieces(path: Path, steps: int) -> Iterator[pd.DataFrame]:
    """A stored line list in pieces, in order; at least one, which may be empty.

    Args:
        path: Folder of the trajectory.
        steps: Steps of the trajectory that are done; records of later ones are left out.
    """
    return (as_frame(batch, legend) for batch, legend in _batches(path, steps))


def _batches(path: Path, steps: int) -> Iterator[tuple[Batch, Legend]]:
    group = zarr.open_group(str(path), path=GROUP, mode="r", use_consolidated=False)
    arrays = {name: array for name, array in group.arrays() if name != "date"}
    names = {name: list(array.attrs.get("names", [])) for name, array in arrays.items()}  # type: ignore[arg-type]
    start = group.attrs["start"]
    legend = Legend(
        tuple(map(str, names["layer"])), tuple(map(str, names["region"])) if "region" in names else None,
        float(str(group.attrs["dt_days"])), None if start is None else date.fromisoformat(str(start)),
    )  # fmt: skip
    # The shortest column counts: a writer that was killed may have lengthened some of them only.
    length = min(array.shape[0] for array in arrays.values())
    for at in range(0, max(length, 1), ROWS_PER_CHUNK):
        batch = {name: np.asarray(array[at : min(at + ROWS_PER_CHUNK, length)]) for name, array in arrays.items()}
        done = int(np.searchsorted(batch["step"], steps))
        yield {name: column[:done] for name, column in batch.items()}, legend


def write_parquet(path: Path, steps: int, out: Path) -> None:
    """Write a stored line list as one Parquet file, piece by piece; layer and region are dictionaries.

    Args:
        path: Folder of the trajectory.
        steps: Steps of the trajectory that are done.
        out: The file; it appears when it is whole.
    """
    partial = out.with_name(f".{out.name}.partial")
    writer = None
    try:
        for frame in read_pieces(path, steps):
            table = pa.Table.from_pandas(frame, preserve_index=False)
            if writer is None:
                writer = pq.ParquetWriter(partial, table.schema, compression="zstd")
            writer.write_table(table)
        if writer is not None:
            writer.close()
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
