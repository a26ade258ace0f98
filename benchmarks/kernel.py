"""The kernels that one would write by hand for this one model: push along the contacts of the infectious.

Two forms. With *summed hazards* each infectious agent adds to the hazard of those it meets, and one scan over
all agents draws, updates and lists the infectious of the next day: this is the work that gnabm does. With *a
draw per contact* no hazard is kept at all, which only a model without weights, places or gradients can do.
"""

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from benchmarks.epidemic import INFECTIOUS, RECOVERED, SUSCEPTIBLE, Graph, Setting

Array = NDArray[Any]
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
    pieces = np.empty(count.sum(), np.int32)
    at = 0
    for part in range(parts):
        pieces[at : at + count[part]] = found[part * size : part * size + count[part]]
        at += count[part]
    return pieces


def prepare(graph: Graph, setting: Setting, draw_per_contact: bool) -> Callable[[int], float]:
    """Compile for the types of the graph and return the run, seed to attack rate."""
    num_agents, parts = graph.num_agents, numba.get_num_threads()
    hazard = np.zeros(num_agents, np.uint8 if draw_per_contact else np.float32)  # or marks
    found = np.empty(num_agents, np.int32)
    rate = setting.transmission_rate
    per_contact = -math.expm1(-setting.transmission_rate)

    def run(seed: int, steps: int = setting.steps) -> float:
        rng = np.random.default_rng(seed)
        stage = (rng.random(num_agents) < setting.initial_infected).astype(np.uint8)
        infectious = np.flatnonzero(stage).astype(np.int32)
        for push_key, scan_key in rng.integers(2**62, size=(steps, 2)):
            if draw_per_contact:
                push_draws(graph.indptr, graph.source, infectious, stage, hazard, per_contact, push_key)
            else:
                push_hazard(graph.indptr, graph.source, infectious, hazard, rate, parts)
            infectious = scan(stage, hazard, draw_per_contact, setting.recovery_probability, scan_key, found, parts)
        return float(np.mean(stage != SUSCEPTIBLE))

    run(0, steps=1)
    return run
