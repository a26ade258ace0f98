"""Ordered sums at random targets by all threads: messages are dealt into bins of targets, then each bin is added up.

Adding at random misses the cache at every message, and two threads may not add to one target at once. So each thread
takes a run of messages and deals them, in order, into bins of targets small enough for a core's cache; then each bin is
added up by one thread, run by run. The messages of a target are so added in their order on any number of threads.

Reference:
    Beamer, Asanovic and Patterson (2017), Reducing Pagerank Communication via Propagation Blocking, IPDPS, 820-831.
"""

from __future__ import annotations

import numba
import numpy as np
from torch import Tensor

from gnabm.prefetch import prefetch
from gnabm.random import use_torch_threads

_BLOCK = 512  # messages of a block; what a thread deals into a bin is a chain of blocks, so nothing is counted before
_AHEAD = 16  # rows between the one that is dealt and the one that is fetched
_PIECES = 64  # of the rows, from which runs of equal work are made
_BIN_BITS, _MAX_BINS = 17, 1024  # the sums of a bin fill a quarter of a usual cache of 2 MiB
# Messages of a batch, or twice the targets if these are more: each batch reads and writes all the sums once, so small
# batches are slow, and the messages that wait to be added up take 16 bytes per target at most.
_MIN_BATCH = 1 << 22
_NO_ROWS = np.empty(0, dtype=np.int64)
_NO_CODES = np.empty(0, dtype=np.uint8)


@numba.njit(inline="always")
def _put(target, value, shift, to, amount, link, cursor):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    b = np.uint64(target) >> shift
    at = cursor[b]
    to[np.uint64(at)] = target
    amount[np.uint64(at)] = value
    at += 1
    if at & (_BLOCK - 1) == 0:
        free = cursor[-1]
        link[at // _BLOCK - 1] = free
        at = free * _BLOCK
        cursor[-1] = free + 1
    cursor[b] = at


@numba.njit(cache=True, nogil=True)
def _deal_edges(  # type: ignore[no-untyped-def]  # noqa: ANN202
    low, high, begin, length, value, target, weight, shift, to, amount, link, cursor,  # noqa: ANN001
):  # fmt: skip
    for k in range(low, high):
        if k + _AHEAD < high:
            far = begin[k + _AHEAD]
            prefetch(target, far)
            prefetch(target, far + length[k + _AHEAD])
        first, sent = np.uint64(begin[k]), value[k]
        if weight.size:
            for edge in range(first, first + np.uint64(length[k])):
                _put(target[edge], sent * weight[edge], shift, to, amount, link, cursor)
        else:
            for edge in range(first, first + np.uint64(length[k])):
                _put(target[edge], sent, shift, to, amount, link, cursor)


@numba.njit(cache=True, nogil=True)
def _deal_listed(  # type: ignore[no-untyped-def]  # noqa: ANN202
    low, high, rows, value, target, code, table, shift, to, amount, link, cursor,  # noqa: ANN001
):  # fmt: skip
    for k in range(low, high):
        if rows.size and k + _AHEAD < high:
            prefetch(target, rows[k + _AHEAD])
            if code.size:
                prefetch(code, rows[k + _AHEAD])
        row = rows[k] if rows.size else np.int64(k)
        if target[row] >= 0:
            sent = value[k] * table[code[row]] if code.size else value[k]
            _put(target[row], sent, shift, to, amount, link, cursor)


@numba.njit(cache=True, nogil=True)
def _add_chain(block, end, to, amount, link, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    while block != end // _BLOCK:
        for at in range(np.uint64(block * _BLOCK), np.uint64((block + 1) * _BLOCK)):
            out[np.uint64(to[at])] += amount[at]
        block = link[block]
    for at in range(np.uint64(block * _BLOCK), np.uint64(end)):
        out[np.uint64(to[at])] += amount[at]


@numba.njit(parallel=True, cache=True, nogil=True)
def _add_bins(head, cursor, to, amount, link, shift, fresh, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    parts, bins = head.shape
    for part in numba.prange(parts):
        for b in range(part, bins, parts):
            if fresh:
                out[b << shift : min((b + 1) << shift, out.size)] = 0
            for run in range(parts):
                _add_chain(head[run, b], cursor[run, b], to, amount, link, out)


@numba.njit(cache=True, nogil=True)
def _chains(number, shift, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """An empty chain of blocks per run and bin, with room for runs of `number` messages.

    Returns:
        head (num_runs, num_bins) first block of each chain; cursor (num_runs, > num_bins) where each goes on, and last
        the block that is free; to and amount of the messages; link (num_blocks,) the block after each full one.
    """
    parts, bins = number.size, ((out.size - 1) >> shift) + 1
    head, cursor = np.empty((parts, bins), np.int64), np.empty((parts, bins + 8), np.int64)
    block = 0
    for run in range(parts):
        for b in range(bins):
            head[run, b] = block + b
            cursor[run, b] = (block + b) * _BLOCK
        cursor[run, -1] = block + bins
        block += bins + number[run] // _BLOCK
    to, amount = np.empty(block * _BLOCK, np.uint32), np.empty(block * _BLOCK, out.dtype)
    return head, cursor, to, amount, np.empty(block, np.int64)


@numba.njit(cache=True, nogil=True)
def _runs(piece, num_rows, parts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """First row of each run, so that runs of whole pieces have about equal numbers of edges, and these numbers."""
    total, first, number = piece.sum(), np.zeros(parts + 1, np.int64), np.zeros(parts, np.int64)
    run, before = 0, 0
    for p in range(_PIECES):
        while before * parts >= total * (run + 1) and run + 1 < parts:
            run += 1
            first[run] = num_rows * p // _PIECES
        number[run] += piece[p]
        before += piece[p]
    first[run + 1 :] = num_rows
    return first, number


@numba.njit(parallel=True, cache=True, nogil=True)
def _add_edges(active, value, indptr, target, weight, shift, fresh, out, parts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    # What is small is done by functions that are not parallel: a team of threads costs more than the work.
    begin, length = np.empty(active.size, indptr.dtype), np.empty(active.size, indptr.dtype)
    piece = np.empty(_PIECES, np.int64)
    for p in numba.prange(_PIECES):
        number = 0
        for k in range(active.size * p // _PIECES, active.size * (p + 1) // _PIECES):
            begin[k] = indptr[active[k]]
            length[k] = indptr[active[k] + np.uint64(1)] - begin[k]
            number += length[k]
        piece[p] = number
    first, numbers = _runs(piece, active.size, parts)
    head, cursor, to, amount, link = _chains(numbers, shift, out)
    for run in numba.prange(parts):
        low, high = first[run], first[run + 1]
        _deal_edges(low, high, begin, length, value, target, weight, np.uint64(shift), to, amount, link, cursor[run])
    _add_bins(head, cursor, to, amount, link, shift, fresh, out)


@numba.njit(parallel=True, cache=True, nogil=True)
def _add_listed(rows, value, target, code, table, first, shift, fresh, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    head, cursor, to, amount, link = _chains(np.diff(first), shift, out)
    for run in numba.prange(first.size - 1):
        low, high = first[run], first[run + 1]
        _deal_listed(low, high, rows, value, target, code, table, np.uint64(shift), to, amount, link, cursor[run])
    _add_bins(head, cursor, to, amount, link, shift, fresh, out)


def _bin_bits(num_targets: int, parts: int) -> int:
    """Binary logarithm of the targets of a bin: several bins per thread, none too large for its cache."""
    most = max(_BIN_BITS, (num_targets // _MAX_BINS).bit_length())
    return min(most, max(4, (num_targets // (4 * parts)).bit_length()))


def add_edges(
    active: Tensor, value: Tensor, indptr: Tensor, target: Tensor, weight: Tensor, out: Tensor, fresh: bool
) -> None:
    """Add what the active sources send along their out-edges.

    Args:
        active: (num_active,) int64 sources, ascending.
        value: (num_active,) float32 or float64.
        indptr: (num_sources + 1,) int32 or int64 first out-edge of each source.
        target: (num_edges,) int32, ascending within a source.
        weight: (num_edges,) in the dtype of value, or empty for 1.
        out: (num_targets,) sums, in the dtype of value.
        fresh: Whether `out` holds nothing yet.
    """
    parts = use_torch_threads()
    rows, sent, sums = active.numpy().view(np.uint64), value.numpy(), out.numpy()
    per_row = max(1, target.shape[0] // max(1, indptr.shape[0] - 1))
    step = max(_MIN_BATCH, 2 * sums.size) // per_row + 1
    for k in range(0, max(1, rows.size), step):
        _add_edges(
            rows[k : k + step], sent[k : k + step], indptr.numpy(), target.numpy().view(np.uint32), weight.numpy(),
            _bin_bits(sums.size, parts), fresh and k == 0, sums, parts,
        )  # fmt: skip


def add_listed(
    target: Tensor, value: Tensor, out: Tensor, fresh: bool, rows: Tensor | None = None,
    code: Tensor | None = None, table: Tensor | None = None,
) -> None:  # fmt: skip
    """Add values to their targets, one by one in their order.

    Args:
        target: (num_values,) int32 targets, negative for none; with `rows`, those of all rows.
        value: (num_values,) float32 or float64.
        out: (num_targets,) sums, in the dtype of value.
        fresh: Whether `out` holds nothing yet.
        rows: (num_values,) int64 row of each value, or None where they are in the order of the targets.
        code: Code of the factor of each row, or None for 1.
        table: (num_codes,) factors.
    """
    parts = use_torch_threads()
    sent, sums, targets = value.numpy(), out.numpy(), target.numpy()
    codes = _NO_CODES if code is None else code.numpy()
    factors = np.empty(0, sums.dtype) if table is None else table.to(value.dtype).numpy()
    at = _NO_ROWS if rows is None else rows.numpy()
    step = max(_MIN_BATCH, 2 * sums.size)
    for k in range(0, max(1, sent.size), step):
        some, values = targets if rows is not None else targets[k : k + step], sent[k : k + step]
        first = values.size * np.arange(parts + 1) // parts
        _add_listed(
            at[k : k + step], values, some, codes, factors, first, _bin_bits(sums.size, parts), fresh and k == 0, sums
        )
