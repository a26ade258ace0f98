"""Pairs of co-members counted by the size of their place: whole numbers, so parts of a country add in any order."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from gnabm.contacts import Places

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PlaceCounts:
    """Places of a layer by size (S sizes that occur, A groups).

    Attributes:
        size: (S,) people of a place, ascending.
        places: (S,) places of each size.
        pairs: (S, A, A) ordered pairs of co-members by group, in the places of each size.
    """

    size: Ints
    places: Ints
    pairs: Ints

    @staticmethod
    def of(indptr: Ints, group: NDArray[np.uint8], num_groups: int) -> PlaceCounts:
        """Count places.

        Args:
            indptr: (P + 1,) first member of each place.
            group: (M,) group of each member, place by place.
            num_groups: A.
        """
        size, at = np.unique(np.diff(indptr), return_inverse=True)
        pairs = np.zeros((len(size), num_groups, num_groups), np.int64)
        _count_pairs(indptr, group, at, pairs)
        return PlaceCounts(size, np.bincount(at, minlength=len(size)), pairs)

    def __add__(self, other: PlaceCounts) -> PlaceCounts:
        """Counts of two parts of a layer as of one."""
        size, at = np.unique(np.concatenate([self.size, other.size]), return_inverse=True)
        places = np.zeros(len(size), np.int64)
        pairs = np.zeros((len(size), *self.pairs.shape[1:]), np.int64)
        for part, mine in ((self, at[: len(self.size)]), (other, at[len(self.size) :])):
            places[mine] += part.places  # a part has every size once
            pairs[mine] += part.pairs
        return PlaceCounts(size, places, pairs)

    @property
    def by_size(self) -> Ints:
        """Places of 0, 1, 2, ... people."""
        return np.bincount(self.size, self.places).astype(np.int64)

    def meetings(self, contacts: float) -> Floats:
        """(A, A) contacts per day between groups, summed over participants, at `contacts` per visit."""
        none = np.empty(0, np.int32)
        weight = Places(none, none, none, contacts).weights(self.size)
        return np.asarray(np.einsum("s,sab->ab", weight.astype(np.float64), self.pairs))


@numba.njit(cache=True, nogil=True)
def _count_pairs(indptr: Ints, group: NDArray[np.uint8], at: Ints, pairs: Ints) -> None:  # pragma: no cover - compiled
    groups = pairs.shape[1]
    count = np.zeros(groups, np.int64)
    present = np.zeros(groups, np.int64)
    for place in range(indptr.shape[0] - 1):
        found = 0
        for i in range(indptr[place], indptr[place + 1]):
            g = group[i]
            if count[g] == 0:
                present[found] = g
                found += 1
            count[g] += 1
        for x in range(found):
            a = present[x]
            for y in range(found):
                b = present[y]
                pairs[at[place], a, b] += count[a] * (count[b] - (1 if a == b else 0))
        for x in range(found):
            count[present[x]] = 0
