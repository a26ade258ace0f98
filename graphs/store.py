"""The graph store: a population as one Zarr v3 group, read block by block.

Layout (schema 1): `agents/COLUMN` one entry per row; `layers/NAME/ARRAY` the arrays of a layer. Long arrays
are cut into chunks of `block` entries, so that a shard reads only its own blocks. Root attribute `gnabm` says
what the store is, how big, from which tables and config; `complete` is written last. A store is written
beside its final path and renamed at the end: a half-written one never looks whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import zarr
from numpy.typing import NDArray

from gnabm.agents import Field
from gnabm.contacts import Contacts, Edges, Layer, Mixing, Places
from gnabm.errors import OutputExistsError, StoreError
from gnabm.population import Population
from gnabm.writers import settle
from graphs.appending import Appender

SCHEMA = 1
Array = NDArray[Any]


def block_size(num_agents: int) -> int:
    """Rows per block: 2^k with k = floor(log2(N / 64)) between 4 and 16."""
    return 1 << int(np.clip(np.floor(np.log2(max(num_agents, 1) / 64)), 4, 16))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary sibling folder that becomes `path` when all went well and is removed when not.

    Raises:
        OutputExistsError: path exists already.
    """
    if path.exists():
        raise OutputExistsError(f"{path} exists already; choose another path or remove it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid4().hex[:12]}.partial"
    try:
        yield temporary
        temporary.rename(path)
    except BaseException:
        settle()
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_store(
    path: Path,
    columns: Mapping[str, Array],
    layers: Mapping[str, Mapping[str, Array]],
    attributes: Mapping[str, Any],
) -> None:
    """Write a graph store.

    Args:
        path: Folder of the store; must not exist.
        columns: Attribute columns, (num_agents,) each.
        layers: Name to arrays of each layer.
        attributes: Root attribute `gnabm` without `kind`, `schema` and `complete`.
    """
    with replacing(path) as temporary:
        made = Appender(temporary, int(attributes["block"]))
        for name, array in columns.items():
            made.append(f"agents/{name}", array)
        for layer, arrays in layers.items():
            for name, array in arrays.items():
                made.append(f"layers/{layer}/{name}", array)
        made.close(root_attributes(attributes))


def root_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Root attributes of a complete store that holds `attributes`."""
    return {"gnabm": {"kind": "graph", "schema": SCHEMA, **attributes, "complete": True}}


def read_attributes(path: Path) -> dict[str, Any]:
    """Root attribute of a graph store.

    Raises:
        StoreError: no graph store, an incomplete one, or one of another schema.
    """
    path = Path(path)
    if not path.exists():
        raise StoreError(f"{path} does not exist; build it with `gnabm build` or graphs.build(...)")
    try:
        found = zarr.open_group(store=str(path), mode="r").attrs.get("gnabm")
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is no Zarr group ({error}); expected a graph store of graphs.build") from error
    if not isinstance(found, dict) or found.get("kind") != "graph":
        kind = found.get("kind") if isinstance(found, dict) else None
        raise StoreError(f"{path} is no graph store (kind {kind!r}, expected 'graph'), or its build did not finish")
    if found.get("schema") != SCHEMA:
        raise StoreError(
            f"{path} has schema {found.get('schema')!r}, this gnabm reads schema {SCHEMA}; "
            "rebuild it: remove the folder and run `gnabm build` again"
        )
    if found.get("complete") is not True:
        raise StoreError(f"{path} is incomplete, its build was interrupted; remove the folder and build it again")
    return dict(found)


def _layer(group: zarr.Group, record: Mapping[str, Any], path: Path) -> Layer:
    arrays = {str(name): array for name, array in group.arrays()}
    setting = str(record.get("setting", "other"))
    try:
        match record["kind"]:
            case "places":
                return Places(
                    arrays["place"],
                    arrays["indptr"],
                    arrays["member"],
                    record.get("contacts"),
                    setting,
                    arrays.get("activity"),
                )
            case "edges":
                return Edges(arrays["indptr"], arrays["source"], arrays.get("weight"), setting)
            case "mixing":
                dispersion = record.get("dispersion")
                return Mixing(
                    group=arrays["group"],
                    matrix=np.asarray(arrays["matrix"][...], np.float64),
                    area_start=np.asarray(arrays["area_start"][...], np.int64),
                    area_region=np.asarray(arrays["area_region"][...], np.int64),
                    counts=np.asarray(arrays["counts"][...], np.int64),
                    shares=tuple(record["shares"]),
                    dispersion=float("inf") if dispersion is None else float(dispersion),
                    setting=setting,
                )
            case kind:
                raise StoreError(f"{path}: layer {record['name']!r} has unknown kind {kind!r}; rebuild the store")
    except KeyError as error:
        raise StoreError(f"{path}: layer {record['name']!r} lacks {error}; remove the folder and rebuild it") from error


def open_graph(path: Path | str) -> Population:
    """Open a graph store; columns and layers stay on disk until they are sliced.

    Args:
        path: Folder of the store.

    Raises:
        StoreError: no graph store, an incomplete one, or one of another schema.
    """
    path = Path(path)
    attributes = read_attributes(path)
    root = zarr.open_group(store=str(path), mode="r")
    layers: dict[str, Layer] = {}
    for record in attributes["layers"]:
        group = root.get(f"layers/{record['name']}")
        if not isinstance(group, zarr.Group):
            raise StoreError(f"{path}: layer {record['name']!r} is missing; remove the folder and rebuild it")
        layers[record["name"]] = _layer(group, record, path)
    agents = root.get("agents")
    columns = {str(n): a for n, a in agents.arrays()} if isinstance(agents, zarr.Group) else {}
    fields = {
        record["name"]: Field(
            record["name"],
            record["meaning"],
            record.get("unit", ""),
            tuple(record["categories"]) if record.get("categories") else None,
        )
        for record in attributes.get("fields", [])
    }
    num_agents = int(attributes["num_agents"])
    return Population(
        num_agents=num_agents,
        columns={name: columns[name] for name in sorted(columns)},
        contacts=Contacts(layers, num_agents),
        fields=fields,
        block=int(attributes["block"]),
        attributes=attributes,
    )


def extra_array(path: Path | str, name: str) -> Array | None:
    """Array of a store that is no part of a layer, such as `layers/site/enterprise_class`, or None.

    Args:
        path: Folder of the store.
        name: Path inside it.
    """
    found = zarr.open_group(store=str(path), mode="r").get(name)
    return np.asarray(found[...]) if isinstance(found, zarr.Array) else None
