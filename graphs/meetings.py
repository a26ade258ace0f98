"""Who meets whom by group: expected contacts per day of each layer, computed block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from gnabm.columns import coded
from gnabm.contacts import Array, Edges, Layer, Mixing, Places
from gnabm.errors import DataError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Codes = NDArray[np.uint8]
_BLOCK = 1 << 20
NUM_BINS = 192
"""Bins of how often a pair meets."""


@numba.njit(cache=True)
def _bin(weight: float) -> int:  # pragma: no cover - compiled
    """Bin of a weight > 0: six per factor of two, from 2^-24 to 2^8."""
    return min(max(int((np.log2(weight) + 24.0) * 6.0), 0), 191)


@numba.njit(cache=True)
def _place_pairs(
    indptr: Ints, group: Codes, activity: Floats, weight: NDArray[np.float32], number: Floats, total: Floats
) -> None:  # pragma: no cover - compiled
    groups = total.shape[0]
    count = np.zeros(groups, np.int64)
    sums, squares = np.zeros(groups), np.zeros(groups)
    present = np.zeros(groups, np.int64)
    for place in range(indptr.shape[0] - 1):
        found = 0
        for i in range(indptr[place], indptr[place + 1]):
            g = group[i]
            if count[g] == 0:
                present[found] = g
                found += 1
            count[g] += 1
            a = activity[i] if activity.size else 1.0
            sums[g] += a
            squares[g] += a * a
        w = weight[place]
        for x in range(found):
            a = present[x]
            for y in range(found):
                b = present[y]
                pairs = count[a] * (count[b] - (1 if a == b else 0))
                meetings = w * (sums[a] * sums[b] - (squares[a] if a == b else 0.0))
                if pairs > 0 and meetings > 0.0:
                    at = _bin(meetings / pairs)
                    number[a, b, at] += pairs
                    total[a, b, at] += meetings
        for x in range(found):
            count[present[x]] = 0
            sums[present[x]] = squares[present[x]] = 0.0


@numba.njit(cache=True)
def _edge_pairs(
    indptr: Ints, source: NDArray[Any], weight: Floats, group: Codes, target: Codes, number: Floats, total: Floats
) -> None:  # pragma: no cover - compiled
    """Pairs of a run of targets, of groups `target`; the participant is the source, who sends."""
    for row in range(indptr.size - 1):
        for edge in range(indptr[row], indptr[row + 1]):
            w = weight[edge] if weight.size else 1.0
            if w > 0.0:
                at = _bin(w)
                number[group[source[edge]], target[row], at] += 1.0
                total[group[source[edge]], target[row], at] += w


def pairs(layer: Places | Edges, group: Codes, num_groups: int) -> tuple[Floats, Floats]:
    """Pairs that meet day after day, by group and by how often they meet; memory stays bounded.

    Within one place the pairs of two groups are taken to meet equally often: by the product of their mean activities.

    Args:
        layer: Places or edges.
        group: (num_agents,) uint8 group of each agent.
        num_groups: A.

    Returns:
        number (A, A, W) of pairs and total (A, A, W) of their contacts per day, by group of who sends, group of who
        receives, and bin of the weight.
    """
    number, total = np.zeros((2, num_groups, num_groups, NUM_BINS))
    if isinstance(layer, Edges):
        row = 0
        for part in indptr_pieces(layer.indptr):
            edges, target = slice(int(part[0]), int(part[-1])), group[row : row + len(part) - 1]
            given = np.empty(0) if layer.weight is None else np.asarray(layer.weight[edges], np.float64)
            _edge_pairs(part - part[0], np.asarray(layer.source[edges]), given, group, target, number, total)
            row += len(target)
        return number, total
    # Few different values: a byte per agent instead of the column.
    active = None if layer.activity is None else coded(layer.activity, 0, int(layer.activity.shape[0]))
    code, value = (np.empty(0, np.uint8), np.empty(0)) if active is None else (each.numpy() for each in active)
    for part in indptr_pieces(layer.indptr):
        members = np.asarray(layer.member[int(part[0]) : int(part[-1])])
        weights = layer.weights(np.diff(part))
        activity = np.empty(0) if active is None else value[code[members]].astype(np.float64)
        _place_pairs(part - part[0], group[members], activity, weights, number, total)
    return number, total


def _mixing(layer: Mixing, group: Codes, num_groups: int) -> Floats:
    """(A, A) contacts per day summed over participants.

    A contact of activity group h is anybody of h with equal chance; groups of ages within h share
    accordingly.
    """
    pools = layer.matrix.shape[0]
    joint = np.zeros((num_groups, pools), np.int64)
    for first, (own,) in pieces(layer.group):
        cell = group[first : first + len(own)].astype(np.int64) * pools + own
        joint += np.bincount(cell, minlength=joint.size).reshape(joint.shape)
    share = joint / np.maximum(joint.sum(axis=0), 1)
    return np.asarray(joint @ layer.matrix @ share.T)


def meetings(layer: Layer, group: Codes, num_groups: int) -> Floats:
    """Contacts per day between groups, summed over participants.

    Args:
        layer: A layer.
        group: (num_agents,) uint8 group of each agent.
        num_groups: A.

    Returns:
        (A, A), row = group of the participant, column = group of the contact.
    """
    match layer:
        case Places():
            return np.asarray(pairs(layer, group, num_groups)[1].sum(2))
        case Edges():
            return np.asarray(pairs(layer, group, num_groups)[1].sum(2).T)
        case Mixing():
            return _mixing(layer, group, num_groups)


def mean_by_group(total: Floats, group: Codes) -> Floats:
    """Contacts per day of one participant of each group (0 for a group without people)."""
    people = np.bincount(group, minlength=total.shape[0])[:, None]
    return np.asarray(total / np.maximum(people, 1))


def pieces(*arrays: Array) -> Iterator[tuple[int, tuple[NDArray[Any], ...]]]:
    """Arrays of one length, in memory or on disk, piece by piece.

    Yields:
        First entry of the piece, and the piece of each array.
    """
    length = int(arrays[0].shape[0])
    for first in range(0, length, _BLOCK):
        yield first, tuple(np.asarray(array[first : first + _BLOCK]) for array in arrays)


def indptr_pieces(indptr: Array) -> Iterator[Ints]:
    """Runs of an (n + 1,) indptr, the end of the last place included: few places with few members, at least one."""
    for low in range(0, int(indptr.shape[0]) - 1, _BLOCK):
        piece = np.asarray(indptr[low : low + _BLOCK + 1], np.int64)
        start = 0
        while start < len(piece) - 1:
            last = int(np.searchsorted(piece, piece[start] + _BLOCK, side="right")) - 1
            last = max(last, start + 1)
            yield piece[start : last + 1]
            start = last


def code_pieces(
    name: str, values: Array, num_groups: int, code: Callable[[NDArray[Any]], NDArray[Any]] | None = None
) -> Iterator[tuple[int, Ints]]:
    """Groups of the entries of a column, piece by piece.

    Args:
        name: Of the column.
        values: (num_agents,) entries.
        num_groups: A.
        code: Group of each entry; None where they are groups.

    Yields:
        First row of the piece, and the group of each of its rows, 0 to A - 1.

    Raises:
        DataError: an entry is in none of the groups.
    """
    for first, (piece,) in pieces(values):
        found = piece if code is None else code(piece)
        good = (found >= 0) & (found < num_groups)
        if not good.all():
            row = int(np.argmin(good))
            raise DataError(
                f"column {name!r}: row {first + row} has {piece[row]}, which is in none of {num_groups} groups; "
                "give every agent a value that is in one (an age of 0 years or more)"
            )
        yield first, found.astype(np.int64)


def codes(name: str, values: Array, num_groups: int, code: Callable[[NDArray[Any]], NDArray[Any]]) -> Codes:
    """(num_agents,) uint8 group of each entry of a column, made piece by piece; arguments as of `code_pieces`."""
    made = np.empty(values.shape[0], np.uint8)
    for first, piece in code_pieces(name, values, num_groups, code):
        made[first : first + len(piece)] = piece
    return made


def column(values: Array) -> NDArray[Any]:
    """A column in memory, whether it was there or on disk."""
    return np.asarray(values[:])
