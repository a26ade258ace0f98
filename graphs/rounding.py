"""Turning shares into whole people: quotas that keep their totals exactly.

A generator that draws independently misses its tables by sampling noise; one that rounds by quota misses them
by less than one unit per cell. Everything here is deterministic and needs no seed.
"""

from __future__ import annotations

from math import gcd

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gnabm.errors import DataError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def largest_remainder(weights: ArrayLike, total: int) -> Ints:
    """Whole numbers in proportion to weights that sum to `total` (Hamilton's method).

    Each result differs from its exact share by less than 1. Equal remainders go to the earlier entry, so the
    result depends on nothing but its arguments.

    Args:
        weights: (...,) non-negative; sum above zero unless total is 0.
        total: What the result sums to.

    Returns:
        (...,) int64 in the shape of weights.

    Raises:
        DataError: a weight is negative or not finite, or the total is negative or cannot be shared out.
    """
    share = np.asarray(weights, dtype=np.float64)
    if not np.isfinite(share).all() or (share < 0).any():
        raise DataError("weights must be finite and not negative; check the table that they come from")
    if total < 0:
        raise DataError(f"total must be 0 or more, got {total}")
    if total == 0:
        return np.zeros(share.shape, np.int64)
    mass = float(share.sum())
    if mass <= 0.0:
        raise DataError(f"{total} cannot be shared out over weights that sum to 0")
    exact = (share / mass * total).ravel()
    result = np.floor(exact).astype(np.int64)
    missing = total - int(result.sum())
    order = np.argsort(result - exact, kind="stable")
    if missing < 0:  # rounding error of `exact` alone can lift a floor by one
        order, step = order[::-1][result[order[::-1]] > 0], -1
    else:
        step = 1
    result[order[: abs(missing)]] += step
    return result.reshape(share.shape)


def systematic(weights: ArrayLike, total: int) -> Ints:
    """Whole numbers in proportion to weights whose every running sum is within one half of its exact value.

    Args:
        weights: (n,) non-negative, in the order along which the running sums shall be right.
        total: What the result sums to.

    Returns:
        (n,) int64.
    """
    running = np.cumsum(np.asarray(weights, dtype=np.float64))
    if total and running[-1] <= 0.0:
        raise DataError(f"{total} cannot be shared out over weights that sum to 0")
    edges = np.floor(running / (running[-1] or 1.0) * total + 0.5).astype(np.int64)
    edges[-1] = total
    return np.diff(edges, prepend=0)


def spread(total: int) -> tuple[int, int]:
    """Return (step, total) such that j -> j * step mod total visits 0..total-1 once, evenly on any run of j.

    The step is the integer nearest to total over the golden ratio that has no common factor with it (a
    Kronecker sequence on whole numbers): each stretch of consecutive j gets its share of every stretch of
    results.
    """
    step = max(1, round(total * 0.6180339887498949))
    offset = 0
    while gcd(step + offset, total) != 1:
        offset = -offset if offset > 0 else 1 - offset
    return step + offset, total


def deal(counts: Ints, start: int, stop: int) -> Ints:
    """Categories of the positions start..stop-1 of an even deal of sum(counts) cards.

    Over all positions category i comes exactly counts[i] times; over any run, close to in proportion.

    Args:
        counts: (n,) cards per category.
        start: First position.
        stop: One past the last position, at most sum(counts).

    Returns:
        (stop - start,) int64 category of each position.
    """
    total = int(counts.sum())
    if stop <= start:
        return np.empty(0, np.int64)
    step, modulus = spread(total)
    place = np.arange(start, stop, dtype=np.int64) * step % modulus
    return np.searchsorted(np.cumsum(counts), place, side="right").astype(np.int64)


def split_evenly(total: int, parts: int) -> Ints:
    """(parts,) sizes that sum to total and differ by at most one."""
    edges = np.arange(parts + 1, dtype=np.int64) * total // parts
    return np.diff(edges)


def group_by(place: NDArray[np.int32], num_places: int) -> tuple[Ints, NDArray[np.int32]]:
    """Members of each place in ascending row, from the place of each row (-1 = none).

    Returns:
        indptr (num_places + 1,) int64 and member (M,) int32.
    """
    rows = np.flatnonzero(place >= 0).astype(np.int32)
    member = rows[np.argsort(place[rows], kind="stable")]
    indptr = np.zeros(num_places + 1, np.int64)
    np.cumsum(np.bincount(place[rows], minlength=num_places), out=indptr[1:])
    return indptr, member
