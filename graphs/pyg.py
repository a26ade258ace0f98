"""Populations from graphs of torch_geometric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from gnabm.agents import Field
from gnabm.contacts import Contacts
from gnabm.errors import DataError, GnabmError, KindError, ShapeError
from gnabm.population import Population
from graphs.age_groups import FIELD, age_group

_MAX_AGE = 255

if TYPE_CHECKING:
    from torch_geometric.data import Data


def from_pyg(data: Data) -> Population:
    """Build a population from a homogeneous graph of torch_geometric.

    Edges run from `edge_index[0]` to `edge_index[1]`; `edge_weight`, or `edge_attr` of one feature, is the
    weight in contacts per day. Every tensor with a row per node becomes a column; one of F features, columns
    NAME_0, NAME_1... A column `age` is in years, and gives `age_group` where there is none.

    Args:
        data: `edge_index` (2, num_edges) int64 and `num_nodes` or a node tensor.

    Raises:
        KindError: data is no `torch_geometric.data.Data`, or does not say how many nodes it has.
        ShapeError: edge_index or the edge features have another shape.
        DataError: an id out of range, a self-loop, a duplicate, a bad weight, or ages that are no years.
    """
    from torch_geometric.data import Data

    if not isinstance(data, Data):
        raise KindError(f"expected torch_geometric.data.Data, got {type(data).__name__}; pass one homogeneous graph")
    edge_index = data.edge_index
    if not isinstance(edge_index, torch.Tensor) or edge_index.dim() != 2 or edge_index.shape[0] != 2:
        came = tuple(edge_index.shape) if isinstance(edge_index, torch.Tensor) else type(edge_index).__name__
        raise ShapeError(f"data.edge_index must be (2, num_edges) int64, got {came}")
    node_tensors = {
        name: value for name, value in data.to_dict().items() if torch.is_tensor(value) and _has_node_rows(data, name)
    }
    if "num_nodes" not in data and not node_tensors:
        raise KindError("data does not say how many nodes it has; set data.num_nodes (isolated nodes have no edge)")
    num_agents = int(data.num_nodes or 0)
    try:
        contacts = Contacts.from_edges(edge_index[0], edge_index[1], _weight(data), num_agents=num_agents)
    except GnabmError as error:
        raise type(error)(f"data.edge_index: {error}") from error
    columns: dict[str, NDArray[Any]] = {}
    for name, value in node_tensors.items():
        flat = value.detach().cpu().reshape(num_agents, -1)
        single = value.dim() == 1 or flat.shape[1] == 1
        for number in range(flat.shape[1]):
            columns[name if single else f"{name}_{number}"] = flat[:, number].contiguous().numpy()
    fields = {name: Field(name, f"{name} of the node") for name in columns}
    if "age" in columns:
        columns["age"], fields["age"] = _years(columns["age"]), Field("age", "age", "years")
        if "age_group" not in columns:
            columns["age_group"], fields["age_group"] = age_group(columns["age"]), FIELD
    return Population(num_agents, columns, contacts, fields)


def _years(age: NDArray[Any]) -> NDArray[np.uint8]:
    """(n,) uint8 whole years."""
    bad = np.flatnonzero(~((age >= 0) & (age <= _MAX_AGE)))
    if bad.size:
        raise DataError(
            f"data.age[{bad[0]}] is {age[bad[0]]} ({bad.size} such nodes); age must be 0 to {_MAX_AGE} years, give the "
            "tensor another name if it holds something else"
        )
    return age.astype(np.uint8)


def _has_node_rows(data: Data, name: str) -> bool:
    return name not in ("edge_index", "edge_attr", "edge_weight", "num_nodes") and bool(data.is_node_attr(name))


def _weight(data: Data) -> torch.Tensor | None:
    """(num_edges,) weight, or None where the graph has none."""
    for name in ("edge_weight", "edge_attr"):
        value = data.get(name)
        if value is None:
            continue
        if value.dim() == 2 and value.shape[1] == 1:
            value = value[:, 0]
        if value.dim() != 1:
            raise ShapeError(
                f"data.{name} must be (num_edges,) contacts per day, got {tuple(value.shape)}; "
                "put the one feature that is the weight into data.edge_weight"
            )
        return torch.as_tensor(value)
    return None
