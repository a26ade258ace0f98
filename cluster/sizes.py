"""What the layers of a population are like, counted or, where they are large, estimated from a sample."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cluster.halo import run_of_places, runs_of_places
from gnabm.contacts import Array, Edges, Places

_MOST_ENTRIES = 1 << 20
_RUNS = 4
_ROWS_PER_READ = 1 << 20


def edge_contacts(layer: Edges) -> float:
    """Contacts per day over all edges; the mean weight of at most 2^20 of them stands for all."""
    if layer.weight is None or not layer.num_edges:
        return float(layer.num_edges)
    parts = [np.asarray(layer.weight[at : at + size], np.float64) for at, size in _spread(layer.num_edges)]
    return float(np.mean(np.concatenate(parts))) * layer.num_edges


def _spread(length: int) -> list[tuple[int, int]]:
    """First entry and length of the runs of a sample, evenly spaced; all of a short array."""
    if length <= _MOST_ENTRIES:
        return [(0, length)]
    size = _MOST_ENTRIES // _RUNS
    return [(int(at), size) for at in np.linspace(0, length - size, _RUNS)]


def place_contacts(layer: Places) -> float:
    """Contacts per day over all members of all places; places with about 2^20 members stand for all."""
    if layer.member.shape[0] <= _MOST_ENTRIES:
        runs = list(runs_of_places(layer))
    else:
        most = _MOST_ENTRIES // _RUNS
        at_once = max(1, most * layer.num_places // layer.member.shape[0])
        starts = np.linspace(0, max(0, layer.num_places - at_once), _RUNS).astype(np.int64)
        runs = [run_of_places(layer, int(first), most) for first in starts]
    members = sum(member.size for _, member in runs)
    if not members:
        return 0.0
    active = [None] * len(runs) if layer.activity is None else _at(layer.activity, [member for _, member in runs])
    met = sum(_met(layer, indptr, at) for (indptr, _), at in zip(runs, active, strict=True))
    return met / members * int(layer.member.shape[0])


def _met(layer: Places, indptr: NDArray[np.int64], active: NDArray[np.float64] | None) -> float:
    """Contacts per day in a run of places."""
    size = np.diff(indptr)
    pairs = (size * np.maximum(size - 1, 0)).astype(np.float64)
    if active is not None:
        place = np.repeat(np.arange(size.size), size)
        pairs = np.bincount(place, active, size.size) ** 2 - np.bincount(place, active**2, size.size)
    return float((pairs * layer.weights(size).astype(np.float64)).sum())


def _at(column: Array, rows: list[NDArray[np.int32]]) -> list[NDArray[np.float64]]:
    """Values of a column at some rows, read in pieces of which those without a row are left out."""
    joined = np.concatenate(rows)
    order = np.argsort(joined, kind="stable")
    found, ends = np.empty(joined.size, dtype=np.float64), np.cumsum([r.size for r in rows])[:-1]
    cuts = np.searchsorted(joined[order], np.arange(0, column.shape[0] + _ROWS_PER_READ, _ROWS_PER_READ))
    for piece, (first, last) in enumerate(pairwise(cuts)):
        if first < last:
            here, low = order[first:last], piece * _ROWS_PER_READ
            found[here] = np.asarray(column[low : low + _ROWS_PER_READ])[joined[here] - low]
    return np.split(found, ends)


def is_undirected(layer: Edges) -> bool:
    """Whether each edge among the first agents has its reverse, of the same weight: a graph that is its own transpose.

    At most 2^20 edges are read. Without an edge among them nothing is known, and False.
    """
    rows = min(layer.indptr.shape[0] - 1, _MOST_ENTRIES)
    indptr = np.asarray(layer.indptr[: rows + 1])
    rows = int(np.searchsorted(indptr, _MOST_ENTRIES, side="right")) - 1 if indptr[-1] > _MOST_ENTRIES else rows
    size = int(indptr[rows])
    source, target = (
        np.asarray(layer.source[:size]).astype(np.int64),
        np.repeat(np.arange(rows), np.diff(indptr[: rows + 1])),
    )
    among = source < rows
    weight = np.ones(size) if layer.weight is None else np.asarray(layer.weight[:size])
    there, back = target[among] * rows + source[among], source[among] * rows + target[among]
    order = np.argsort(back)
    return (
        bool(among.any()) and np.array_equal(back[order], there) and np.array_equal(weight[among][order], weight[among])
    )
