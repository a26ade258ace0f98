"""A state on disk: all that a run needs to go on from the start of a step, as one Zarr group.

Layout (schema 1): `columns/NAME` one entry per agent in blocks, `observed/NAME` the observables of the step before. The
attribute `gnabm` says which step it is, of what run (`basis`), and the checksum of every block. A state is written
beside its path and renamed, so one that is there is whole; every block is checked against its checksum before use.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor

from gnabm.errors import StoreError
from gnabm.periods import Snapshot

SCHEMA = 1
BLOCK = 1 << 16
"""Agents per block: what a checksum vouches for."""
Array = NDArray[Any]


def write_state(
    path: Path,
    columns: Iterable[tuple[str, Array]],
    observed: Mapping[str, Tensor],
    step: int,
    basis: Mapping[str, Any],
) -> None:
    """Write a state.

    Args:
        path: Folder of the state; it must not hold a Zarr group.
        columns: State columns of all agents by name, one at a time; codes for stages.
        observed: Observables of the last step.
        step: Steps that were made.
        basis: What decides the state, in plain types: the config, the population, the versions.
    """
    root = zarr.create_group(str(path), zarr_format=3)
    checksums: dict[str, list[int]] = {}
    for name, values in columns:
        checksums[f"columns/{name}"] = _write(root, f"columns/{name}", values)
    for name, total in observed.items():
        checksums[f"observed/{name}"] = _write(root, f"observed/{name}", total.numpy())
    said = {"kind": "state", "schema": SCHEMA, "step": step, "basis": plain(basis), "checksums": checksums}
    root.attrs["gnabm"] = said


def _write(root: zarr.Group, name: str, values: Array) -> list[int]:
    chunks = tuple(max(1, min(BLOCK, n) if axis == 0 else n) for axis, n in enumerate(values.shape))
    array = root.create_array(name=name, shape=values.shape, dtype=values.dtype, chunks=chunks)
    array[...] = values
    return _checksums(values)


def _checksums(values: Array) -> list[int]:
    """One for each block of rows."""
    rows = np.ascontiguousarray(np.atleast_1d(values))
    return [zlib.crc32(rows[low : low + BLOCK].tobytes()) for low in range(0, max(len(rows), 1), BLOCK)]


def plain(values: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Values as JSON gives them back, so that what was written compares equal to what is read."""
    return json.loads(json.dumps(values, sort_keys=True, default=str))


def check_state(path: Path, basis: Mapping[str, Any], step: int) -> None:
    """Read all of a state, and refuse one that cannot be gone on from.

    Args:
        path: Folder of the state.
        basis: What decides the state that is wanted.
        step: The step that is wanted.

    Raises:
        StoreError: It is not there, of another run, step or schema, or damaged; says what.
    """
    if not (path / "zarr.json").is_file():
        raise StoreError(f"there is no state {path}")
    try:
        root = zarr.open_group(str(path), mode="r")
        said = root.attrs.get("gnabm")
        if not isinstance(said, dict) or said.get("kind") != "state" or said.get("schema") != SCHEMA:
            raise StoreError(f"{path} is no state of schema {SCHEMA}")
        other = _difference(said["basis"], plain(basis))
        if other is not None:
            raise StoreError(f"{path} is the state of another run: {other}")
        if said["step"] != step:
            raise StoreError(f"{path} is the state at step {said['step']}, not {step}")
        for name, wanted in said["checksums"].items():
            values = np.asarray(root[name][...])  # type: ignore[index]
            if _checksums(values) != wanted:
                raise StoreError(f"{path} is damaged: a block of {name} has another checksum than was written")
    except StoreError:
        raise
    except Exception as error:  # a decoder fails in ways of its own
        raise StoreError(f"{path} is damaged: {type(error).__name__} {error}") from error


def _difference(found: Any, wanted: Any, where: str = "") -> str | None:  # noqa: ANN401
    """The first key at which two nested values differ, or None."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted({**found, **wanted}):
            inner = _difference(found.get(key), wanted.get(key), f"{where}.{key}" if where else str(key))
            if inner is not None:
                return inner
        return None
    return None if found == wanted else f"its {where} is {found!r}, not {wanted!r}"


def read_state(path: Path, first_row: int, num_owned: int) -> Snapshot:
    """The state of a shard.

    Args:
        path: Folder of the state, which `check_state` found to be whole.
        first_row: First row of the shard.
        num_owned: Its rows.
    """
    root = zarr.open_group(str(path), mode="r")
    said: Any = root.attrs["gnabm"]
    columns: dict[str, Tensor] = {}
    observed: dict[str, Tensor] = {}
    for entry in said["checksums"]:
        kind, _, name = entry.partition("/")
        rows = slice(first_row, first_row + num_owned) if kind == "columns" else ...
        values = torch.from_numpy(np.array(root[entry][rows]))  # type: ignore[index]
        (columns if kind == "columns" else observed)[name] = values
    return Snapshot(int(said["step"]), columns, observed)


def step_of(path: Path) -> int:
    """The step of a state, which `check_state` found to be whole."""
    said: Any = zarr.open_group(str(path), mode="r").attrs["gnabm"]
    return int(said["step"])
