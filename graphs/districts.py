"""Districts: the pieces of at most two million people in which a country of any size is built.

A region of up to `MOST_PEOPLE` is one district. A larger one is cut into districts alike, runs of rows with areas of
their own, and people live, learn and work in one as they do in a region. So neither time nor memory of a build grows
with the largest region.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graphs.rounding import largest_remainder

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
MOST_PEOPLE = 2_000_000


def count_districts(region_people: Ints) -> Ints:
    """(R,) number of districts of each region, at least one."""
    return np.maximum(1, -(-region_people // MOST_PEOPLE)).astype(np.int64)


def entities(districts: Ints) -> Ints:
    """Number of each district in keyed draws: that of its region for the first one, one of its own for the others.

    Args:
        districts: (R,) districts of each region.

    Returns:
        (D,) int64, all different.
    """
    region = np.repeat(np.arange(len(districts)), districts)
    rank = np.arange(len(region)) - (np.cumsum(districts) - districts)[region]
    return np.asarray(rank * len(districts) + region)


def shared_out(table: Floats, districts: Ints) -> Floats:
    """(D, ...) even part that each district has of the entries (R, ...) of its region."""
    region = np.repeat(np.arange(len(districts)), districts)
    return np.asarray((table.T / districts).T[region])


def district_flows(flows: Ints, districts: Ints) -> Ints:
    """Workers by district of home and of work.

    Who works in the region where they live works in the own district: it is far larger than the distance to work.
    Commuters between two regions go to the district that lies as far along its region as theirs does, so a district
    sends to few others and flows stay sparse.

    Args:
        flows: (R, R) workers by region of home and of work.
        districts: (R,) districts of each region.

    Returns:
        (D, D) int64; those of each pair of regions sum to its flow.
    """
    last = np.cumsum(districts)
    made = np.zeros((int(last[-1]), int(last[-1])), np.int64)
    for home, work in np.argwhere(flows > 0):
        if home == work:
            common = np.eye(int(districts[home]))
        else:
            left = np.arange(districts[home])[:, None] / districts[home], np.arange(districts[work]) / districts[work]
            right = left[0] + 1 / districts[home], left[1] + 1 / districts[work]
            common = np.maximum(np.minimum(*right) - np.maximum(*left), 0.0)
            common[common < 1e-9] = 0.0  # neighbours that only touch
        rows = slice(int(last[home] - districts[home]), int(last[home]))
        columns = slice(int(last[work] - districts[work]), int(last[work]))
        made[rows, columns] = largest_remainder(common, int(flows[home, work]))
    return made
