"""Your own graph: edge and agent tables as CSV or Parquet, and graphs of torch_geometric.

An edge table has the columns `source`, `target`, and optionally `weight` (contacts per day) and `layer`. An
agent table has `key`, and optionally `age` (years), `region` and whatever else; text columns become labels.
Ids are the integer keys of agents; rows are numbered in the order of the agent table, or by ascending id
without one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from gnabm.agents import Field
from gnabm.contacts import Contacts
from gnabm.errors import DataError, GnabmError, KindError, UnknownFieldError, nearest
from gnabm.population import Population
from graphs.age_groups import FIELD, age_group, ordered

_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": lambda path: pd.read_csv(path),
    ".parquet": lambda path: pd.read_parquet(path),
}
_MAX_AGE = 255
_CODES = 255


def read_edges(path: Path | str) -> pd.DataFrame:
    """Read and check an edge table.

    Args:
        path: `.csv` or `.parquet` file with `source`, `target`[, `weight`][, `layer`].

    Returns:
        The table: source and target int64, weight float32, layer str, where present.

    Raises:
        DataError: no such file, another format, or a bad value; names file, row, column and cure.
        UnknownFieldError: a column is missing or unknown.
    """
    table = _read(Path(path))
    return _check_edges(table)


def read_agents(path: Path | str) -> pd.DataFrame:
    """Read and check an agent table.

    Args:
        path: `.csv` or `.parquet` file with `key`[, `age`][, `region`] and more.

    Returns:
        The table: key int64, age uint8 where present, other columns as they are.

    Raises:
        DataError: no such file, another format, or a bad value; names file, row, column and cure.
        UnknownFieldError: there is no column `key`.
    """
    return _check_agents(_read(Path(path)))


def from_tables(edges: pd.DataFrame, agents: pd.DataFrame | None = None) -> Population:
    """Build a population from an edge table and an agent table.

    Args:
        edges: `source`, `target`[, `weight`][, `layer`]; one layer `contacts` without a column `layer`.
        agents: `key` and attributes; None takes every id of the edges, ascending.

    Raises:
        DataError: a bad value: missing, negative, unknown id, self-loop, duplicate.

    Example:
        >>> population = from_tables(pd.DataFrame({"source": [7, 9], "target": [9, 12]}))
        >>> population.num_agents
        3
    """
    edges = _check_edges(edges)
    if agents is None:
        keys = np.unique(edges[["source", "target"]].to_numpy(np.int64))
        columns: dict[str, NDArray[Any]] = {"key": keys}
        fields = {"key": Field("key", "identity of the agent")}
    else:
        columns, fields = _columns(_check_agents(agents))
        keys = columns["key"]
    if not len(keys):
        raise DataError(f"{_file(edges)}: there is neither an edge nor an agent; a population needs at least one agent")
    rows = {name: _rows(edges, name, keys) for name in ("source", "target")}
    num_agents = len(keys)
    contacts: Contacts | None = None
    for name, at in _layers(edges):
        weight = edges["weight"].to_numpy()[at] if "weight" in edges else None
        try:
            layer = Contacts.from_edges(
                rows["source"][at], rows["target"][at], weight, num_agents=num_agents, name=name
            )
        except GnabmError as error:
            raise type(error)(f"{_file(edges)}, layer {name!r}: {error}") from error
        contacts = layer if contacts is None else contacts | layer
    assert contacts is not None
    return Population(num_agents, columns, contacts, fields)


def _layers(edges: pd.DataFrame) -> list[tuple[str, NDArray[np.int64]]]:
    """Names of the layers and the rows of each, in order of first appearance."""
    if "layer" not in edges or edges.empty:
        return [("contacts", np.arange(len(edges)))]
    codes, names = pd.factorize(edges["layer"])
    return [(str(name), np.flatnonzero(codes == code)) for code, name in enumerate(names)]


def _read(path: Path) -> pd.DataFrame:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: a table must end in .csv or .parquet, got {path.suffix or 'no ending'!r}")
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; check the path")
    try:
        table = reader(path)
    except Exception as error:
        raise DataError(f"{path}: cannot be read as {path.suffix[1:]} ({error})") from error
    table.attrs["path"] = str(path)
    return table


def _file(table: pd.DataFrame) -> str:
    return str(table.attrs.get("path", "table"))


def _at(table: pd.DataFrame, row: int, column: str) -> str:
    """Where a value stands; the first line of a CSV holds the names."""
    file = _file(table)
    line = f" (line {row + 2})" if file.endswith(".csv") else ""
    return f"{file}, row {row}{line}, column {column!r}"


def _refuse(table: pd.DataFrame, column: str, bad: ArrayLike, cure: str) -> None:
    found = np.flatnonzero(np.asarray(bad))
    if found.size:
        value = table[column].iloc[int(found[0])]
        value = value.item() if isinstance(value, np.generic) else value
        raise DataError(f"{_at(table, int(found[0]), column)}: got {value!r} ({found.size} such rows); {cure}")


def _integers(table: pd.DataFrame, column: str) -> NDArray[np.int64]:
    number = pd.to_numeric(table[column], errors="coerce")
    whole = number.notna() & (number == np.floor(number)) & (number.abs() < 2**63)
    _refuse(table, column, ~whole, f"{column} must be a whole number; number the agents or fill the gap")
    return np.asarray(number.to_numpy(dtype=np.int64 if number.dtype.kind in "iu" else np.float64), np.int64)


def _need(table: pd.DataFrame, columns: tuple[str, ...], known: tuple[str, ...]) -> None:
    for column in columns:
        if column not in table:
            raise UnknownFieldError(f"{_file(table)}: column {column!r} is missing; {nearest(column, table.columns)}")
    for column in table.columns if known else ():
        if column not in known:
            raise UnknownFieldError(f"{_file(table)}: column {column!r} is unknown; {nearest(str(column), known)}")


def _check_edges(table: pd.DataFrame) -> pd.DataFrame:
    if not isinstance(table, pd.DataFrame):
        raise KindError(f"edges must be a pandas DataFrame, got {type(table).__name__}; read files with read_edges")
    _need(table, ("source", "target"), ("source", "target", "weight", "layer"))
    result = pd.DataFrame({name: _integers(table, name) for name in ("source", "target")})
    if "weight" in table:
        weight = pd.to_numeric(table["weight"], errors="coerce").to_numpy(np.float64)
        _refuse(table, "weight", ~(np.isfinite(weight) & (weight >= 0)), "weights are contacts per day, 0 or more")
        result["weight"] = weight.astype(np.float32)
    if "layer" in table:
        name = table["layer"].astype("string").str.strip()
        _refuse(table, "layer", (name.isna() | (name == "")).to_numpy(bool), "name the layer of every edge")
        result["layer"] = name.astype(str)
    loops = result["source"] == result["target"]
    _refuse(table, "target", loops, "an agent is no contact of itself; drop self-loops")
    repeats = result.duplicated(subset=[c for c in ("source", "target", "layer") if c in result])
    _refuse(table, "target", repeats, "this edge stands above already; add the weights up into one row")
    result.attrs["path"] = _file(table)
    return result


def _check_agents(table: pd.DataFrame) -> pd.DataFrame:
    if not isinstance(table, pd.DataFrame):
        raise KindError(f"agents must be a pandas DataFrame, got {type(table).__name__}; read files with read_agents")
    _need(table, ("key",), ())
    result = table.reset_index(drop=True).copy()
    result.attrs["path"] = _file(table)
    result["key"] = _integers(table, "key")
    _refuse(table, "key", result["key"].duplicated(), "each agent needs a key of its own")
    if "age" in table:
        age = pd.to_numeric(table["age"], errors="coerce")
        good = age.notna() & (age >= 0) & (age <= _MAX_AGE)
        _refuse(table, "age", ~good, f"age must be 0 to {_MAX_AGE} years")
        result["age"] = np.floor(age.to_numpy(np.float64)).astype(np.uint8)
    for column in table.columns:
        _refuse(table, column, table[column].isna(), "fill the gap or drop the column")
    return result


def _columns(table: pd.DataFrame) -> tuple[dict[str, NDArray[Any]], dict[str, Field]]:
    """Columns and fields: numbers as they are, text as labels."""
    columns: dict[str, NDArray[Any]] = {}
    fields: dict[str, Field] = {}
    for label in table.columns:
        name = str(label)
        values = table[label]
        if pd.api.types.is_bool_dtype(values):
            columns[name], fields[name] = values.to_numpy(np.uint8), Field(name, name)
        elif name != "region" and pd.api.types.is_numeric_dtype(values):
            columns[name] = values.to_numpy()
            fields[name] = Field(name, "identity of the agent" if name == "key" else name)
        else:
            text = values.astype(str)
            names = ordered(list(text.unique())) if name == "age_group" else sorted(text.unique())
            codes = pd.Categorical(text, names).codes
            width = np.uint8 if len(names) <= _CODES else np.int32
            columns[name] = codes.astype(width)
            fields[name] = Field(name, name, categories=tuple(names))
    if "age" in columns:
        fields["age"] = Field("age", "age", "years")
        if "age_group" not in columns:
            columns["age_group"], fields["age_group"] = age_group(columns["age"]), FIELD
    return columns, fields


def _rows(edges: pd.DataFrame, column: str, keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row of each id of an edge column."""
    order = np.argsort(keys, kind="stable")
    ids = edges[column].to_numpy(np.int64)
    at = np.minimum(np.searchsorted(keys[order], ids), len(keys) - 1)
    _refuse(
        edges,
        column,
        keys[order][at] != ids,
        "no agent has this key; add it to the agent table or drop the edge",
    )
    return np.asarray(order[at])
