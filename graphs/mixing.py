"""Community contacts: a reciprocal age matrix, and contact numbers that meet the published totals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
NUM_GROUPS = 16


def activity_group(age: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N,) five-year age group 0-4, ..., 70-74, 75+."""
    return np.minimum(age // 5, NUM_GROUPS - 1).astype(np.uint8)


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


def visit_contacts(wanted: float, sizes: Ints) -> float:
    """Contacts per visit c with which the mean of min(c, n - 1) over members equals `wanted`.

    Args:
        wanted: Mean contacts per day of a member.
        sizes: (P,) people of each place.

    Returns:
        Contacts per day; the size of the largest place where `wanted` is out of reach.
    """
    sizes = sizes[sizes > 0]
    if not len(sizes):
        return float(wanted)
    low, high = 0.0, float(sizes.max())
    members = float(sizes.sum())

    def mean(contacts: float) -> float:
        return float((np.minimum(contacts, sizes - 1) * sizes).sum()) / members

    for _ in range(60):
        middle = (low + high) / 2
        if mean(middle) < wanted:
            low = middle
        else:
            high = middle
    return round(high, 6)


def setting_mean(matrix: Floats, people: Ints, members: Ints | None = None) -> float:
    """Mean contacts per day in a setting.

    Args:
        matrix: (A, A) contacts per day, row = participant.
        people: (A,) people over whom the mean is taken.
        members: (A,) people who carry all contacts of the setting; the mean is per member when given.
    """
    total = float((matrix.sum(axis=1) * people).sum())
    return total / float((people if members is None else members).sum() or 1)
