"""Contacts: the contact graph as named layers of three kinds.

- `Edges`: a directed weighted graph, stored by target.
- `Places`: agents that meet because they are in one place (home, class, site).
- `Mixing`: contacts that an agent draws anew each step from its surroundings, by a contact matrix.

Layers are data: NumPy arrays, or Zarr arrays of which a shard reads only its own blocks. Every sum over contacts
runs over sources in ascending row order. `Contacts` checks layers in memory once; layers read lazily are trusted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from gnabm.checks import (
    as_array,
    as_numbers,
    as_rows,
    as_weights,
    check_areas,
    check_array,
    check_edges,
    check_groups,
    check_pairs,
    check_places,
)
from gnabm.errors import DataError, KindError, ShapeError, UnknownFieldError, nearest

Array = Any
"""A NumPy or Zarr array: has shape and dtype, and a slice of it is a NumPy array."""


@dataclass(frozen=True, eq=False)
class Edges:
    """Directed edges by target (CSR). `Contacts.from_edges` builds them from pairs in any order.

    Args:
        indptr: (num_agents + 1,) int64 first in-edge of each target.
        source: (num_edges,) source rows, ascending within a target.
        weight: (num_edges,) contacts per day, or None for 1.
        setting: Where these contacts happen, such as `home`.
    """

    indptr: Array
    source: Array
    weight: Array | None = None
    setting: str = "other"
    _checked: bool = field(default=False, init=False, repr=False)

    @property
    def num_edges(self) -> int:
        """Number of directed edges."""
        return int(self.source.shape[0])


@dataclass(frozen=True, eq=False)
class Places:
    """Agents by place; co-members meet. `Places.of` derives indptr and member from place.

    Args:
        place: (num_agents,) int32 place of each agent, -1 for none.
        indptr: (num_places + 1,) int64 first member of each place.
        member: (num_members,) rows of the members, ascending within a place.
        contacts: Mean number of co-members met per day, c; the weight between two of n members is
            min(c, n - 1) / (n - 1). None: every co-member once a day, weight 1.
        setting: Where these contacts happen.
        activity: (num_agents,) float32 a >= 0: the weight between two members is multiplied by a_i a_j. None for 1.
    """

    place: Array
    indptr: Array
    member: Array
    contacts: float | None = None
    setting: str = "other"
    activity: Array | None = None
    _checked: bool = field(default=False, init=False, repr=False)

    @staticmethod
    def of(
        place: ArrayLike | torch.Tensor,
        contacts: float | None = None,
        setting: str = "other",
        num_places: int | None = None,
        activity: ArrayLike | torch.Tensor | None = None,
    ) -> Places:
        """Places with their members, from the place of each agent.

        Args:
            place: (num_agents,) integer place of each agent, -1 for none.
            contacts: Mean number of co-members met per day, or None for every co-member once.
            setting: Where these contacts happen.
            num_places: Number of places, when the last ones may be empty; None: up to the highest that occurs.
            activity: (num_agents,) how active each agent is in its place, or None for 1.

        Raises:
            DataError: A place is below -1 or not below num_places.
            KindError: Places are not integers, or activities are not numbers.

        Example:
            >>> Places.of([1, -1, 0, 1]).member.tolist()
            [2, 0, 3]
        """
        codes = as_array(place, "place")
        if codes.size and codes.dtype.kind not in "iu":
            raise KindError(f"place must hold integers, got {codes.dtype}; map names to 0..num_places-1 first")
        codes = codes.astype(np.int64)
        number = int(codes.max(initial=-1)) + 1 if num_places is None else num_places
        bad = np.flatnonzero((codes < -1) | (codes >= number))
        if bad.size:
            raise DataError(
                f"place[{bad[0]}] is {codes[bad[0]]}, outside -1..{number - 1} ({bad.size} such places); -1 stands "
                "for none, raise num_places or renumber the places"
            )
        indptr = np.zeros(number + 1, dtype=np.int64)
        np.cumsum(np.bincount(codes[codes >= 0], minlength=number), out=indptr[1:])
        member = np.argsort(codes, kind="stable")[codes.size - int(indptr[-1]) :]
        rows = np.int32 if max(codes.size, number) < 2**31 else np.int64
        active = None if activity is None else as_numbers(activity, "activity")
        return Places(codes.astype(rows), indptr, member.astype(rows), contacts, setting, active)

    @property
    def num_places(self) -> int:
        """Number of places."""
        return int(self.indptr.shape[0]) - 1

    def weights(self, size: NDArray[np.int64]) -> NDArray[np.float32]:
        """Contacts per day with each co-member in places of these sizes.

        Args:
            size: (n,) number of members.
        """
        others = np.maximum(np.asarray(size, dtype=np.float64) - 1, 1)
        if self.contacts is None:
            return np.ones(others.shape, dtype=np.float32)
        result: NDArray[np.float32] = (np.minimum(self.contacts, others) / others).astype(np.float32)
        return result


@dataclass(frozen=True, eq=False)
class Mixing:
    """Contacts drawn anew each step: how many (negative binomial), of which group, and where.

    A contact is made in the own area, drawn over the own region, or over the country; a pool without an agent of the
    drawn group passes its share to the next level. Contacts are directed (sender to target); with a matrix that is
    reciprocal on this population they are right in expectation.

    A drawn contact is the n-th agent of its group in row order within its pool. So relabelling the rows keeps the law
    of the contacts, not the draws themselves. The one who draws is in the pool too: an agent can draw itself, which
    takes a share 1 / pool size of its contacts with its own group.

    Args:
        group: (num_agents,) uint8 activity group, such as the five-year age.
        matrix: (num_groups, num_groups) contacts per day, row = participant.
        area_start: (num_areas + 1,) first row of each area; areas are contiguous rows.
        area_region: (num_areas,) region of each area, ascending.
        counts: (num_areas, num_groups) agents of each area's rows by group.
        shares: Shares of contacts made in the own area, in the own region, in the country; they sum to 1.
        dispersion: k of the negative binomial, variance = mean + mean^2 / k; inf gives a Poisson number.
        expected: Use the mean field of the same matrix instead of draws.
        setting: Where these contacts happen.
    """

    group: Array
    matrix: NDArray[np.float64]
    area_start: NDArray[np.int64]
    area_region: NDArray[np.int64]
    counts: NDArray[np.int64]
    shares: tuple[float, float, float] = (1.0, 0.0, 0.0)
    dispersion: float = float("inf")
    expected: bool = False
    setting: str = "other"
    _checked: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check what can be checked without reading the agents."""
        matrix, counts = np.asarray(self.matrix), np.asarray(self.counts)
        groups = matrix.shape[0]
        if matrix.shape != (groups, groups) or not np.isfinite(matrix).all() or (matrix < 0).any():
            raise DataError(f"matrix must be square, finite and not negative, got shape {matrix.shape}")
        if counts.shape != (len(self.area_region), groups) or len(self.area_start) != len(self.area_region) + 1:
            raise ShapeError(
                f"counts must be (num_areas, num_groups) = ({len(self.area_region)}, {groups}), got {counts.shape}; "
                "area_start has one entry more than area_region"
            )
        check_areas(self.group.shape[0], self.area_start, self.area_region)
        if abs(sum(self.shares) - 1) > 1e-9 or min(self.shares) < 0:
            raise DataError(f"shares must be three numbers >= 0 that sum to 1, got {self.shares}")
        if not self.dispersion > 0:
            raise DataError(f"dispersion must be positive, got {self.dispersion}")
        if (matrix[:, counts.sum(0) == 0] > 0).any():
            raise DataError("matrix asks for contacts with a group that has no agent; set those columns to 0")

    @staticmethod
    def uniform(num_agents: int, contacts: float, dispersion: float = float("inf")) -> Mixing:
        """One well-mixed pool in which everyone has the same mean number of contacts per day."""
        return Mixing(
            group=np.zeros(num_agents, dtype=np.uint8),
            matrix=np.array([[float(contacts)]]),
            area_start=np.array([0, num_agents], dtype=np.int64),
            area_region=np.zeros(1, dtype=np.int64),
            counts=np.array([[num_agents]], dtype=np.int64),
            dispersion=dispersion,
        )


Layer = Edges | Places | Mixing


def _check_layer(name: str, layer: Layer, num_agents: int) -> None:
    """Check a layer against the number of agents and, once, in itself."""
    where = f"layer {name!r}"
    match layer:
        case Edges():
            arrays = {"indptr": layer.indptr, "source": layer.source}
            if layer.weight is not None:
                arrays["weight"] = layer.weight
        case Places():
            arrays = {"place": layer.place, "indptr": layer.indptr, "member": layer.member}
            if layer.activity is not None:
                arrays["activity"] = layer.activity
        case Mixing():
            arrays = {"group": layer.group}
        case _:
            raise KindError(f"{where} must be Edges, Places or Mixing, got {type(layer).__name__}")
    for array, value in arrays.items():
        check_array(f"{where}: {array}", value)
    rows = next(iter(arrays.values())).shape[0] - isinstance(layer, Edges)
    if rows != num_agents:
        raise ShapeError(f"{where} has {rows} rows, the graph {num_agents} agents")
    if layer._checked:
        return
    match layer:
        case Edges():
            check_edges(where, layer.indptr, layer.source, layer.weight)
        case Places():
            check_places(where, layer.place, layer.indptr, layer.member, layer.contacts, layer.activity)
        case Mixing():
            check_groups(where, layer.group, layer.area_start, layer.counts)
    object.__setattr__(layer, "_checked", True)


@dataclass(frozen=True, eq=False)
class Contacts:
    """The contact graph: named layers over the same agents.

    Args:
        layers: Layers in the order in which their sums are added.
        num_agents: Number of agents.
    """

    layers: Mapping[str, Layer] = field(default_factory=dict)
    num_agents: int = 0

    def __post_init__(self) -> None:
        """Check that each layer has a row per agent, and what it holds when that is in memory."""
        if isinstance(self.num_agents, bool) or not isinstance(self.num_agents, (int, np.integer)):
            raise KindError(f"num_agents must be an integer, got {self.num_agents!r}")
        if self.num_agents < 0:
            raise DataError(f"num_agents must not be negative, got {self.num_agents}")
        for name, layer in self.layers.items():
            _check_layer(name, layer, int(self.num_agents))

    def __getitem__(self, name: str) -> Layer:
        """Return a layer by name."""
        if name not in self.layers:
            raise UnknownFieldError(f"there is no layer {name!r}; {nearest(name, self.layers)}")
        return self.layers[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the layers."""
        return iter(self.layers)

    def __or__(self, other: Contacts) -> Contacts:
        """Both graphs' layers over the same agents."""
        if set(self.layers) & set(other.layers):
            raise DataError(f"both graphs have the layers {sorted(set(self.layers) & set(other.layers))}; rename one")
        return Contacts({**self.layers, **other.layers}, self.num_agents)

    def with_expected_mixing(self) -> Contacts:
        """The same graph with every mixing layer in its mean-field form."""
        layers = {n: replace(v, expected=True) if isinstance(v, Mixing) else v for n, v in self.layers.items()}
        return Contacts(layers, self.num_agents)

    @staticmethod
    def from_edges(
        source: ArrayLike | torch.Tensor,
        target: ArrayLike | torch.Tensor,
        weight: ArrayLike | torch.Tensor | None = None,
        num_agents: int | None = None,
        undirected: bool = False,
        duplicates: Literal["error", "sum"] = "error",
        name: str = "contacts",
    ) -> Contacts:
        """Build a graph of one layer of directed edges.

        Args:
            source: (num_edges,) integer ids of the senders.
            target: (num_edges,) integer ids of the receivers.
            weight: (num_edges,) contacts per day, >= 0, or None for 1.
            num_agents: Number of agents, ids are 0..num_agents-1.
            undirected: Also add the reverse of each edge.
            duplicates: `sum` adds the weights of equal edges (unweighted ones count 1 each), `error` refuses them.
            name: Name of the layer.

        Raises:
            DataError: An id is out of range, an edge is a self-loop or a duplicate, a weight is NaN, infinite or
                negative.
            ShapeError: The arrays differ in length.
            KindError: Ids are not integers, or the weight asks for a gradient.

        Example:
            >>> Contacts.from_edges([0, 1], [1, 2], num_agents=3)["contacts"].num_edges
            2
        """
        if num_agents is None:
            raise KindError("num_agents is needed: ids alone do not tell about agents without contacts")
        if isinstance(num_agents, bool) or not isinstance(num_agents, (int, np.integer)):
            raise KindError(f"num_agents must be an integer, got {num_agents!r}")
        if num_agents < 0:
            raise DataError(f"num_agents must not be negative, got {num_agents}")
        if duplicates not in ("error", "sum"):
            raise DataError(f"duplicates must be 'error' or 'sum', got {duplicates!r}")
        src, dst = as_rows(source, "source", num_agents), as_rows(target, "target", num_agents)
        w = None if weight is None else as_weights(weight)
        if src.shape != dst.shape or (w is not None and w.shape != src.shape):
            sizes = [a.shape[0] for a in (src, dst, w) if a is not None]
            raise ShapeError(f"source, target and weight must have one entry per edge, got {sizes}")
        check_pairs(src, dst, w)
        if undirected:
            src, dst = np.concatenate([src, dst]), np.concatenate([dst, src])
            w = None if w is None else np.concatenate([w, w])
        return Contacts({name: _compress(src, dst, w, num_agents, duplicates)}, num_agents)


def _compress(
    src: NDArray[np.int64],
    dst: NDArray[np.int64],
    w: NDArray[np.float32] | None,
    num_agents: int,
    duplicates: str,
) -> Edges:
    code = dst * np.int64(max(num_agents, 1)) + src
    if code.size and not (np.diff(code) > 0).all():
        order = np.argsort(code, kind="stable")
        code, w = code[order], None if w is None else w[order]
    start = np.flatnonzero(np.diff(code, prepend=-1))
    if start.size != code.size:
        if duplicates == "error":
            again = code[np.flatnonzero(np.diff(code) == 0)[0]]
            raise DataError(
                f"edge {again % num_agents} -> {again // num_agents} occurs more than once "
                f"({code.size - start.size} repeats in all); pass duplicates='sum' to add their weights"
            )
        ones = np.ones(code.size, dtype=np.float32) if w is None else w
        w = as_weights(np.add.reduceat(ones.astype(np.float64), start))
        code = code[start]
        if not np.isfinite(w).all():
            again = code[~np.isfinite(w)][0]
            raise DataError(
                f"the weights of edge {again % num_agents} -> {again // num_agents} add up to more than float32 holds; "
                "weights are contacts per day"
            )
    dst, src = np.divmod(code, np.int64(max(num_agents, 1)))
    indptr = np.zeros(num_agents + 1, dtype=np.int64)
    np.cumsum(np.bincount(dst, minlength=num_agents), out=indptr[1:])
    edges = Edges(indptr, src.astype(np.int32 if num_agents < 2**31 else np.int64), w)
    object.__setattr__(edges, "_checked", True)  # sorted and refused above: nothing is left to check
    return edges
