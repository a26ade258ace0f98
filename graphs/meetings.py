"""Who meets whom by group: expected contacts per day of each layer, computed block by block."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from gnabm.contacts import Array, Edges, Layer, Mixing, Places

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Codes = NDArray[np.uint8]
_BLOCK = 1 << 20


@numba.njit(cache=True)
def _place_meetings(
    indptr: Ints, group: Codes, activity: Floats, weight: NDArray[np.float32], total: Floats
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
                total[a, b] += w * (sums[a] * sums[b] - (squares[a] if a == b else 0.0))
        for x in range(found):
            count[present[x]] = 0
            sums[present[x]] = squares[present[x]] = 0.0


def _places(layer: Places, group: Codes, num_groups: int) -> Floats:
    """(A, A) contacts per day summed over participants; places whole in each block, memory bounded."""
    total = np.zeros((num_groups, num_groups))
    indptr = np.asarray(layer.indptr[:], np.int64)
    activity = None if layer.activity is None else column(layer.activity)
    first = 0
    while first < layer.num_places:
        last = int(np.searchsorted(indptr, indptr[first] + _BLOCK, side="right")) - 1
        last = min(max(last, first + 1), layer.num_places)
        members = np.asarray(layer.member[int(indptr[first]) : int(indptr[last])])
        part = indptr[first : last + 1]
        weight = layer.weights(np.diff(part))
        active = np.empty(0) if activity is None else activity[members].astype(np.float64)
        _place_meetings(part - part[0], group[members], active, weight, total)
        first = last
    return total


def _edges(layer: Edges, group: Codes, num_groups: int) -> Floats:
    """(A, A) weights summed over edges, row = target (who has the contact), column = source."""
    total = np.zeros(num_groups * num_groups)
    indptr = np.asarray(layer.indptr[:], np.int64)
    for first in range(0, layer.num_edges, _BLOCK):
        last = min(first + _BLOCK, layer.num_edges)
        source = np.asarray(layer.source[first:last])
        target = np.searchsorted(indptr, np.arange(first, last), side="right") - 1
        weight = None if layer.weight is None else np.asarray(layer.weight[first:last], np.float64)
        code = group[target].astype(np.int64) * num_groups + group[source]
        total += np.bincount(code, weight, minlength=num_groups * num_groups)
    return total.reshape(num_groups, num_groups)


def _mixing(layer: Mixing, group: Codes, num_groups: int) -> Floats:
    """(A, A) contacts per day summed over participants.

    A contact of activity group h is anybody of h with equal chance; groups of ages within h share
    accordingly.
    """
    own = np.asarray(layer.group[:])
    pools = layer.matrix.shape[0]
    joint = np.bincount(group.astype(np.int64) * pools + own, minlength=num_groups * pools).reshape(num_groups, pools)
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
            return _places(layer, group, num_groups)
        case Edges():
            return _edges(layer, group, num_groups)
        case Mixing():
            return _mixing(layer, group, num_groups)


def mean_by_group(total: Floats, group: Codes) -> Floats:
    """Contacts per day of one participant of each group (0 for a group without people)."""
    people = np.bincount(group, minlength=total.shape[0])[:, None]
    return np.asarray(total / np.maximum(people, 1))


def column(values: Array) -> NDArray[Any]:
    """A column in memory, whether it was there or on disk."""
    return np.asarray(values[:])
