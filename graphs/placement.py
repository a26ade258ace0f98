"""Filling places with people nearby, to the last seat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graphs.rounding import Ints

Floats = NDArray[np.float64]


def fill(rows: Ints, position: Floats, sizes: Ints) -> tuple[Ints, Ints]:
    """Give places, in their order, the people who come next along a line.

    Args:
        rows: (m,) who is placed.
        position: (m,) where each stands along the line, noise included: more noise, wider catchments.
        sizes: (P,) people of each place; they sum to m.

    Returns:
        rows in the order of places, and (m,) the place of each.
    """
    order = np.argsort(position, kind="stable")
    return rows[order], np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)


def ranks_within(place: Ints, num_places: int) -> Ints:
    """Rank of each entry within its place, for entries sorted by place."""
    start = np.zeros(num_places + 1, np.int64)
    np.cumsum(np.bincount(place, minlength=num_places), out=start[1:])
    return np.arange(len(place), dtype=np.int64) - start[place]


def subdivide(place: Ints, sizes: Ints, parts: Ints) -> Ints:
    """Cut each place into parts of near-equal size.

    Args:
        place: (m,) place of each entry, sorted; entries of one part are consecutive.
        sizes: (P,) entries of each place.
        parts: (P,) parts of each place, at least 1 where it has entries.

    Returns:
        (m,) part of each entry, numbered over all places.
    """
    first = np.cumsum(parts) - parts
    return np.asarray(first[place] + ranks_within(place, len(sizes)) * parts[place] // sizes[place])


def scaled_quota(available: Ints, rate: Floats, total: int, cap: NDArray[np.float64] | float) -> Ints:
    """How many people of each age take part, when `total` shall in all.

    The rates are scaled by one factor and cut off at `cap`; less than `total` come out if the caps bind.

    Args:
        available: (A,) people of each age.
        rate: (A,) relative rate of each age.
        total: People that shall take part.
        cap: (A,) or one number, largest share of an age.

    Returns:
        (A,) int64, at most `available`.
    """
    limit = np.where(rate > 0, np.broadcast_to(cap, rate.shape), 0.0)

    def people(factor: float) -> Floats:
        return np.asarray(available * np.minimum(rate * factor, limit))

    low, high = 0.0, 1e6
    if float(people(high).sum()) <= total:
        return np.floor(people(high)).astype(np.int64)
    for _ in range(100):
        middle = (low + high) / 2
        if float(people(middle).sum()) < total:
            low = middle
        else:
            high = middle
    exact = people(high)
    quota = np.floor(exact + 1e-9).astype(np.int64)
    room = np.argsort(np.where(quota < available, quota - exact, np.inf), kind="stable")
    quota[room[: total - int(quota.sum())]] += 1
    return np.minimum(quota, available)


def choose_by_age(age: NDArray[np.uint8], quotas: Ints, rng: np.random.Generator) -> NDArray[np.int8]:
    """Choose people at random within each age.

    Args:
        age: (n,) years.
        quotas: (K, A) people of each age in each of K groups; their sum is at most the people of that age.
        rng: Keyed generator.

    Returns:
        (n,) int8 group of each person, -1 = none.
    """
    mixed = rng.permutation(len(age))
    order = mixed[np.argsort(age[mixed], kind="stable")]
    sorted_age = age[order].astype(np.int64)
    rank = ranks_within(sorted_age, quotas.shape[1])
    group = np.full(len(age), -1, np.int8)
    upper = np.cumsum(quotas, axis=0)
    for number in range(len(quotas) - 1, -1, -1):
        group[order[rank < upper[number][sorted_age]]] = number
    return group
