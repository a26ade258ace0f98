"""Areas of about 20,000 people within regions, and the order in which they stand.

No table here says which areas a country has, so they are synthetic (flagged assumed): a region's areas stand
on a square grid and touch their four neighbours. They are ordered by recursive bisection of that graph, so
that any run of consecutive areas is compact and few contacts cross its ends. Along that order, "distance" is
counted in people.
"""

from __future__ import annotations

from math import ceil, sqrt

import numpy as np
import pymetis
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def count_areas(region_people: Ints, area_people: float) -> Ints:
    """(R,) number of areas of each region, at least one."""
    return np.maximum(1, np.rint(region_people / area_people)).astype(np.int64)


def grid_graph(num_areas: int) -> list[list[int]]:
    """Neighbours of each area on a grid as square as it can be."""
    width = max(1, ceil(sqrt(num_areas)))
    graph: list[list[int]] = []
    for area in range(num_areas):
        column = area % width
        near = [area - width, area + width]
        near += [area - 1] if column > 0 else []
        near += [area + 1] if column < width - 1 else []
        graph.append(sorted(other for other in near if 0 <= other < num_areas))
    return graph


def area_positions(num_areas: int) -> NDArray[np.int32]:
    """(num_areas, 2) row and column on the grid of the areas of one region, in their order."""
    cell = bisection_order(grid_graph(num_areas))
    width = max(1, ceil(sqrt(num_areas)))
    return np.stack([cell // width, cell % width], axis=1).astype(np.int32)


def bisection_order(graph: list[list[int]]) -> Ints:
    """Order of the nodes of a graph by recursive bisection with few edges cut.

    Args:
        graph: Neighbours of each node, both directions listed.

    Returns:
        (n,) int64 nodes in order.

    Reference:
        Karypis and Kumar (1998), SIAM J. Sci. Comput. 20, 359-392 (METIS).
    """
    return np.array(_bisect(graph, list(range(len(graph)))), dtype=np.int64)


def _bisect(graph: list[list[int]], nodes: list[int]) -> list[int]:
    if len(nodes) <= 2:
        return nodes
    local = {node: number for number, node in enumerate(nodes)}
    part = pymetis.part_graph(2, [[local[o] for o in graph[node] if o in local] for node in nodes]).vertex_part
    halves = [[node for node, side in zip(nodes, part, strict=True) if side == s] for s in (0, 1)]
    if not halves[0] or not halves[1]:
        halves = [nodes[: len(nodes) // 2], nodes[len(nodes) // 2 :]]
    # The half that holds the first node goes first: the order does not turn on which half METIS calls 0.
    halves.sort(key=lambda half: min(half))
    return _bisect(graph, halves[0]) + _bisect(graph, halves[1])
