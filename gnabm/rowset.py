"""A set of rows as bits: whether a row is in it, and which of its rows it is, are found without a search."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnabm.random import use_torch_threads

_U = np.uint64
_M1, _M2, _M4, _H = _U(0x5555555555555555), _U(0x3333333333333333), _U(0x0F0F0F0F0F0F0F0F), _U(0x0101010101010101)
_S1, _S2, _S4, _S6, _S56, _LOW = _U(1), _U(2), _U(4), _U(6), _U(56), _U(63)


@dataclass(frozen=True, eq=False)
class RowSet:
    """Rows, each once; a row's place is the number of smaller ones.

    Args:
        first: Row of the first bit, a multiple of 64.
        bits: (num_words,) uint64 whether each row is in the set.
        before: (num_words,) int32 rows of the set before each word.
        size: Number of rows.
    """

    first: int
    bits: NDArray[np.uint64]
    before: NDArray[np.int32]
    size: int

    @staticmethod
    def of(rows: Tensor) -> RowSet:
        """From (n,) int32 or int64 rows >= 0 in any order; repeats count once."""
        first = int(rows.min()) // 64 * 64 if rows.numel() else 0
        num_words = (int(rows.max()) - first) // 64 + 1 if rows.numel() else 0
        bits, before = np.zeros(num_words, dtype=np.uint64), np.empty(num_words, dtype=np.int32)
        return RowSet(first, bits, before, _fill(rows.numpy(), first, bits, before))

    def places(self, rows: Tensor) -> Tensor:
        """(n,) int32 place of each row (n,) in the set, -1 for those that are not in it."""
        out = torch.empty(rows.shape[0], dtype=torch.int32)
        _places(rows.numpy(), self.first, self.bits, self.before, out.numpy())
        return out

    def among(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Which entries of a long list of rows are in the set.

        Args:
            rows: (n,) int32 or int64 rows in any order, with repeats; negative ones stand for none.

        Returns:
            (num_found,) int64 positions in the list, ascending, and their (num_found,) int32 places in the set.
        """
        number, parts = rows.shape[0], use_torch_threads()
        at, place = torch.empty(number, dtype=torch.int64), torch.empty(number, dtype=torch.int32)
        count = np.zeros(parts, dtype=np.int64)
        _among(rows.numpy(), self.first, self.bits, self.before, at.numpy(), place.numpy(), count)
        low = [number * part // parts for part in range(parts)]
        return _side_by_side(at, low, count), _side_by_side(place, low, count)


def _side_by_side(out: Tensor, low: list[int], count: NDArray[np.int64]) -> Tensor:
    return torch.cat([out.narrow(0, start, int(n)) for start, n in zip(low, count, strict=True)])


@numba.njit(inline="always")
def _count_bits(x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Bits that are set in a word of 64 (Warren 2012, Hacker's Delight, 5-1)."""
    x = x - ((x >> _S1) & _M1)
    x = (x & _M2) + ((x >> _S2) & _M2)
    return (((x + (x >> _S4)) & _M4) * _H) >> _S56


@numba.njit(inline="always")
def is_in(row, first, bits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """1 for a row of the set, else 0; without a branch, which a list in no order would often mispredict."""
    at = _U(row - first)  # of rows below the first: beyond all words
    word = at >> _S6
    inside = word < _U(bits.size)
    return np.int64(inside) & np.int64((bits[word if inside else _U(0)] >> (at & _LOW)) & _S1)


@numba.njit(inline="always")
def place_of(row, first, bits, before):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Place of a row of the set."""
    at = _U(row - first)
    below = (_S1 << (at & _LOW)) - _S1
    return np.int32(before[at >> _S6] + np.int32(_count_bits(bits[at >> _S6] & below)))


@numba.njit(cache=True, nogil=True)
def _fill(rows, first, bits, before):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for k in range(rows.size):
        at = _U(rows[k] - first)
        bits[at >> _S6] |= _S1 << (at & _LOW)
    size = np.int64(0)
    for word in range(bits.size):
        before[word] = size
        size += np.int64(_count_bits(bits[word]))
    return size


@numba.njit(cache=True, nogil=True)
def _places(rows, first, bits, before, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for k in range(rows.size):
        out[k] = place_of(rows[k], first, bits, before) if bits.size and is_in(rows[k], first, bits) else np.int32(-1)


@numba.njit(parallel=True, cache=True, nogil=True)
def _among(rows, first, bits, before, out_at, out_place, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for part in numba.prange(count.size):
        low = rows.size * part // count.size
        at = low
        for k in range(low, rows.size * (part + 1) // count.size if bits.size else low):
            out_at[at] = k  # stays where the row is in the set, else the next one takes its place
            at += is_in(rows[k], first, bits)
        for k in range(low, at):
            out_place[k] = place_of(rows[out_at[k]], first, bits, before)
        count[part] = at - low
