"""Who meets whom by group: expected contacts per day of each layer, computed block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from gnabm.contacts import Array, Edges, Layer, Mixing, Places

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
    indptr: Ints, source: NDArray[Any], weight: Floats, first: int, group: Codes, number: Floats, total: Floats
) -> None:  # pragma: no cover - compiled
    """Pairs of a run of edges that begins with edge `first`; the participant is the source, who sends."""
    target = np.searchsorted(indptr, first, side="right") - 1
    for edge in range(source.size):
        while indptr[target + 1] <= first + edge:
            target += 1
        w = weight[edge] if weight.size else 1.0
        if w > 0.0:
            at = _bin(w)
            number[group[source[edge]], group[target], at] += 1.0
            total[group[source[edge]], group[target], at] += w


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
        indptr = np.asarray(layer.indptr[:], np.int64)
        for first, (source, *weight) in pieces(layer.source, *([] if layer.weight is None else [layer.weight])):
            given = weight[0].astype(np.float64) if weight else np.empty(0)
            _edge_pairs(indptr, source, given, first, group, number, total)
        return number, total
    activity = None if layer.activity is None else column(layer.activity)
    for part in indptr_pieces(layer):
        members = np.asarray(layer.member[int(part[0]) : int(part[-1])])
        weights = layer.weights(np.diff(part))
        active = np.empty(0) if activity is None else activity[members].astype(np.float64)
        _place_pairs(part - part[0], group[members], active, weights, number, total)
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


def indptr_pieces(layer: Places) -> Iterator[Ints]:
    """First members of runs of places, the end of the last included: few places with few members, at least one."""
    for first in range(0, layer.num_places, _BLOCK):
        indptr = np.asarray(layer.indptr[first : first + _BLOCK + 1], np.int64)
        start = 0
        while start < len(indptr) - 1:
            last = int(np.searchsorted(indptr, indptr[start] + _BLOCK, side="right")) - 1
            last = max(last, start + 1)
            yield indptr[start : last + 1]
            start = last


def codes(values: Array, code: Callable[[NDArray[Any]], Codes]) -> Codes:
    """(num_agents,) uint8 code of each entry, made piece by piece."""
    made = np.empty(values.shape[0], np.uint8)
    for first, (piece,) in pieces(values):
        made[first : first + len(piece)] = code(piece)
    return made


def column(values: Array) -> NDArray[Any]:
    """A column in memory, whether it was there or on disk."""
    return np.asarray(values[:])
