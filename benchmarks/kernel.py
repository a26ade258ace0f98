"""The kernels that one would write by hand for this one model: push along the contacts of the infectious.

Three forms. With *summed hazards* each infectious agent adds to the hazard of those it meets, and one scan over
all agents draws, updates and lists the infectious of the next day: this is the work that gnabm does. The
*tuned* form does the same with the tricks of someone who has days for it: each thread visits only its part of a row,
rows are fetched ahead of their use, and the exponential is taken only where the draw can be below it. With *a draw per
contact* no hazard is kept at all, which only a model without weights, places or gradients can do.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import numba
import numpy as np
from numpy.typing import NDArray

from benchmarks.epidemic import INFECTIOUS, RECOVERED, SUSCEPTIBLE, Graph, Setting
from gnabm.prefetch import prefetch

Array = NDArray[Any]
fetch: Any = prefetch  # as numba calls it, without its typing context
Form = Literal["hazards", "tuned", "draws"]
ODD = np.uint64(0x9E3779B97F4A7C15)


@numba.njit(inline="always")
def uniform(key: np.uint64, item: np.uint64) -> float:
    """A number in [0, 1) from a key and an item: the finaliser of splitmix64 (Steele et al. 2014)."""
    z = key + (item + np.uint64(1)) * ODD
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.float64((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


@numba.njit(parallel=True)
def push_hazard(indptr: Array, source: Array, infectious: Array, hazard: Array, rate: float, parts: int) -> None:
    """Add the rate of each infectious agent to those it meets; each thread owns a range of agents."""
    size = (len(hazard) + parts - 1) // parts
    sent = np.float32(rate)
    for part in numba.prange(parts):
        first, last = part * size, min((part + 1) * size, len(hazard))
        for i in infectious:
            for edge in range(indptr[i], indptr[i + 1]):
                j = source[edge]
                if first <= j < last:
                    hazard[j] += sent


@numba.njit(parallel=True)
def push_tuned(indptr: Array, source: Array, infectious: Array, hazard: Array, rate: float, parts: int) -> None:
    """The same as `push_hazard`; indices are unsigned, which saves the test for negative ones."""
    size = np.uint64((len(hazard) + parts - 1) // parts)
    sent, one, rows = np.float32(rate), np.uint64(1), np.uint64(len(infectious))
    for part in numba.prange(parts):
        first = np.uint64(part) * size
        for k in range(rows):
            if k + np.uint64(24) < rows:
                fetch(source, indptr[infectious[k + np.uint64(24)]])
            if k + np.uint64(8) < rows:
                i = np.uint64(infectious[k + np.uint64(8)])
                for edge in range(indptr[i], indptr[i + one]):
                    if np.uint64(source[edge]) - first < size:
                        fetch(hazard, source[edge])
            i = np.uint64(infectious[k])
            low, high = indptr[i], indptr[i + one]
            while low < high and np.uint64(source[low]) < first:
                low += one
            while low < high and np.uint64(source[high - one]) - first >= size:
                high -= one
            for edge in range(low, high):
                hazard[np.uint64(source[edge])] += sent


@numba.njit(parallel=True)
def push_draws(indptr: Array, source: Array, infectious: Array, stage: Array, hit: Array, p: float, key: int) -> None:
    """Draw for each contact of an infectious with a susceptible agent; threads may set the same mark."""
    for k in numba.prange(len(infectious)):
        i = infectious[k]
        for edge in range(indptr[i], indptr[i + 1]):
            j = source[edge]
            if stage[j] == SUSCEPTIBLE and uniform(np.uint64(key), np.uint64(edge)) < p:
                hit[j] = 1


@numba.njit(parallel=True)
def scan(stage: Array, hazard: Array, marks: bool, recovery: float, key: int, found: Array, parts: int) -> Array:
    """Draw, update, clear; the infectious of the next day, ascending."""
    size = (len(stage) + parts - 1) // parts
    count = np.zeros(parts, np.int64)
    for part in numba.prange(parts):
        first, last = part * size, min((part + 1) * size, len(stage))
        at = first
        for i in range(first, last):
            if stage[i] == SUSCEPTIBLE:
                h = hazard[i]
                if h > 0 and (marks or uniform(np.uint64(key), np.uint64(i)) < 1.0 - np.exp(-h)):
                    stage[i] = INFECTIOUS
            elif stage[i] == INFECTIOUS and uniform(np.uint64(key), np.uint64(i)) < recovery:
                stage[i] = RECOVERED
            hazard[i] = 0
            if stage[i] == INFECTIOUS:
                found[at] = i
                at += 1
        count[part] = at - first
    return joined(found, count, size)


@numba.njit(parallel=True)
def scan_tuned(stage: Array, hazard: Array, recovery: float, key: int, found: Array, parts: int) -> Array:
    """The same as `scan` of hazards; 1 - exp(-h) < h, so most draws need no exponential."""
    size = (len(stage) + parts - 1) // parts
    count = np.zeros(parts, np.int64)
    for part in numba.prange(parts):
        first, last = part * size, min((part + 1) * size, len(stage))
        at = first
        for i in range(first, last):
            h, now = hazard[i], stage[i]
            if h == 0 and now != INFECTIOUS:
                continue
            hazard[i] = 0
            u = uniform(np.uint64(key), np.uint64(i))
            if now == SUSCEPTIBLE and u < h and u < 1.0 - np.exp(-h):
                stage[i] = now = INFECTIOUS
            elif now == INFECTIOUS and u < recovery:
                stage[i] = now = RECOVERED
            if now == INFECTIOUS:
                found[at] = i
                at += 1
        count[part] = at - first
    return joined(found, count, size)


@numba.njit()
def joined(found: Array, count: Array, size: int) -> Array:
    """The rows that each part found, one after another."""
    pieces = np.empty(count.sum(), np.int32)
    at = 0
    for part in range(len(count)):
        pieces[at : at + count[part]] = found[part * size : part * size + count[part]]
        at += count[part]
    return pieces


def prepare(graph: Graph, setting: Setting, form: Form) -> Callable[[int], float]:
    """Compile for the types of the graph and return the run, seed to attack rate."""
    num_agents, parts = graph.num_agents, numba.get_num_threads()
    marks = form == "draws"
    hazard = np.zeros(num_agents, np.uint8 if marks else np.float32)  # or marks
    found = np.empty(num_agents, np.int32)
    rate, recovery = setting.transmission_rate, setting.recovery_probability
    per_contact = -math.expm1(-setting.transmission_rate)
    unsigned = graph.indptr.view(np.uint64), graph.source.view(np.uint32)

    def run(seed: int, steps: int = setting.steps) -> float:
        rng = np.random.default_rng(seed)
        stage = (rng.random(num_agents) < setting.initial_infected).astype(np.uint8)
        infectious = np.flatnonzero(stage).astype(np.int32)
        for push_key, scan_key in rng.integers(2**62, size=(steps, 2)):
            if form == "tuned":
                push_tuned(*unsigned, infectious.view(np.uint32), hazard, rate, parts)
                infectious = scan_tuned(stage, hazard, recovery, scan_key, found, parts)
                continue
            if form == "draws":
                push_draws(graph.indptr, graph.source, infectious, stage, hazard, per_contact, push_key)
            else:
                push_hazard(graph.indptr, graph.source, infectious, hazard, rate, parts)
            infectious = scan(stage, hazard, marks, recovery, scan_key, found, parts)
        return float(np.mean(stage != SUSCEPTIBLE))

    run(0, steps=1)
    return run
