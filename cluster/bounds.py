"""Where shards begin and end: runs of whole blocks with about equal work."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnabm.contacts import Edges, Mixing, Places
from gnabm.errors import ConfigError, KindError
from gnabm.population import Population

_ROWS_PER_READ = 1 << 20
_CHUNKS_PER_SHARD = 8


def row_work(population: Population, low: int, high: int) -> NDArray[np.int64]:
    """Work of each row of [low, high): itself, its in-edges and its places.

    Args:
        population: In memory or on disk; only these rows are read.
        low: First row.
        high: Row after the last.

    Returns:
        (high - low,) messages that a step reads for the row, plus 1.
    """
    work = np.ones(high - low, dtype=np.int64)
    for layer in population.contacts.layers.values():
        match layer:
            case Edges():
                work += np.diff(np.asarray(layer.indptr[low : high + 1]))
            case Places():
                work += np.asarray(layer.place[low:high]) >= 0
            case Mixing():
                work += 1
    return work


def grain(population: Population, shards: int) -> int:
    """Rows of the unit that shards are made of, and of the chunks of a recorded field.

    A store has its block. A population in memory has none, so a power of two is taken that leaves each shard several
    units: files of single rows would be many.

    Args:
        population: The population.
        shards: Number of shards.
    """
    if population.block > 1:
        return population.block
    return 1 << max(0, int(np.log2(max(1, population.num_agents // (_CHUNKS_PER_SHARD * shards)))))


def split(population: Population, shards: int, unit: int | None = None) -> tuple[int, ...]:
    """Cut the rows into contiguous shards of whole blocks so that the largest has the least work.

    Args:
        population: In memory or on disk; read in bounded pieces.
        shards: Number of shards.
        unit: Rows per block; the population's own when None.

    Returns:
        (shards + 1,) first row of each shard, and the number of agents.

    Raises:
        ConfigError: There are fewer blocks than shards; says how many shards are possible.
        KindError: The number of shards is no integer.

    Example:
        >>> from gnabm import Contacts, Population
        >>> split(Population.of(Contacts.from_edges([0], [1], num_agents=8)), 3)
        (0, 2, 5, 8)
    """
    check_shards(shards)
    unit = unit or population.block
    num_blocks = -(-population.num_agents // unit)
    if shards > num_blocks:
        one = num_blocks == 1
        made = "1 block, so at most 1 shard is" if one else f"{num_blocks} blocks, so at most {num_blocks} shards are"
        use = "1 shard" if one else f"{num_blocks} or fewer shards"
        raise ConfigError(
            f"{population.num_agents} agents in blocks of {unit} make {made} possible, got {shards}; "
            f"use {use} or a larger population"
        )
    if shards == 1:
        return (0, population.num_agents)
    starts = _partition(_block_work(population, unit), shards) * unit
    return tuple(int(row) for row in np.minimum(starts, population.num_agents))


def check_shards(shards: Any) -> None:  # noqa: ANN401
    """Refuse a number of shards that is none.

    Raises:
        ConfigError: It is below 1.
        KindError: It is no integer.
    """
    if isinstance(shards, bool) or not isinstance(shards, (int, np.integer)):
        raise KindError(f"shards must be an integer, got {shards!r}")
    if shards < 1:
        raise ConfigError(f"shards must be at least 1, got {shards}")


def _block_work(population: Population, unit: int) -> NDArray[np.int64]:
    piece = max(unit, _ROWS_PER_READ // unit * unit)
    parts = []
    for low in range(0, population.num_agents, piece):
        work = row_work(population, low, min(low + piece, population.num_agents))
        parts.append(np.add.reduceat(work, np.arange(0, work.size, unit)))
    return np.concatenate(parts)


def _partition(work: NDArray[np.int64], parts: int) -> NDArray[np.int64]:
    """First block of each part, and the number of blocks: the least possible largest part, by bisection."""
    before = np.concatenate([[0], np.cumsum(work)])
    low, high = max(int(work.max()), -(-int(before[-1]) // parts)), int(before[-1])
    while low < high:
        middle = (low + high) // 2
        if _fill(before, parts, middle)[-1] == work.size:
            high = middle
        else:
            low = middle + 1
    return _fill(before, parts, low)


def _fill(before: NDArray[np.int64], parts: int, capacity: int) -> NDArray[np.int64]:
    starts = np.zeros(parts + 1, dtype=np.int64)
    for part in range(parts):
        end = int(np.searchsorted(before, before[starts[part]] + capacity, side="right")) - 1
        starts[part + 1] = min(end, before.size - 1 - (parts - part - 1))  # a block is left for every later part
    return starts
