"""Community contacts: a reciprocal age matrix, and contact numbers that meet the published totals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
NUM_GROUPS = 16


def activity_group(age: NDArray[Any]) -> NDArray[Any]:
    """(N,) five-year age group 0-4, ..., 70-74, 75+, of the type of age; negative for what is no age."""
    return np.asarray(np.minimum(age // 5, NUM_GROUPS - 1))


def reciprocal(matrix: Floats, people: Ints) -> Floats:
    """Contacts per day that are mutual: C_ab N_a = C_ba N_b.

    The contacts of a with b are the mean of what both sides report. A group without people has no contacts.

    Args:
        matrix: (A, A) contacts per day, row = participant.
        people: (A,) people of each group.
    """
    total = matrix * people[:, None]
    total = (total + total.T) / 2
    total = np.where((people[:, None] > 0) & (people[None, :] > 0), total, 0.0)
    return np.asarray(total / np.maximum(people, 1)[:, None])


def visit_contacts(total: float, shares: Sequence[float], places: Sequence[Ints]) -> list[float]:
    """Contacts per visit of the layers of one setting, with which all their contacts sum to `total`.

    A member of a place of n has min(c, n - 1) contacts there; c is in proportion to the share of the layer.

    Args:
        total: Contacts per day of all members in all layers.
        shares: Share of each layer, above 0.
        places: Per layer, (S,) places of 0, 1, 2, ... S - 1 people.

    Returns:
        Contacts per day of each layer; so many that everybody meets everybody where `total` is out of reach.
    """
    low, high = 0.0, max(max(len(number) - 1, 1) / share for share, number in zip(shares, places, strict=True))

    def contacts(each: float) -> float:
        return sum(_contacts_of_places(each * share, number) for share, number in zip(shares, places, strict=True))

    for _ in range(60):
        middle = (low + high) / 2
        if contacts(middle) < total:
            low = middle
        else:
            high = middle
    return [round(high * share, 6) for share in shares]


def _contacts_of_places(each: float, number: Ints) -> float:
    size = np.arange(len(number))
    return float((number * (np.minimum(each, size - 1) * size)).sum())
