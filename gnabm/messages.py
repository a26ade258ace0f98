"""Message kernels: sums over the sources of each target, in one stored order.

Pull (`gather_sum`) walks the targets in one pass, push (`push_edges`, `push_places`) the active sources, which is
quicker when few agents send. Neither has a gradient of its own: `gnabm.linear` makes them differentiable, forwards and
backwards, by the transposed map. `pull_edges` by `segment_sum` makes the same sums by plain torch (`messages="pull"` in
a forward run), with autograd's own gradient. All add a target's contributions in ascending source order, starting from
+0.0, so on CPU they return the same bits for any number of threads: adding a skipped zero would not change a float sum
that is never -0.0.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from numba.cpython.unsafe.numbers import trailing_zeros
from numpy.typing import NDArray
from torch import Tensor

from gnabm.bins import add_edges, add_listed
from gnabm.errors import MissingDependencyError
from gnabm.prefetch import prefetch
from gnabm.random import use_torch_threads

try:
    from torch_scatter import segment_csr
except ImportError as error:
    raise MissingDependencyError(
        "torch-scatter is missing or was built for another torch; run `make setup`, or "
        f"`pip install --no-build-isolation torch-scatter` beside torch {torch.__version__} ({error})"
    ) from error

_NO_WEIGHT = torch.empty(0, dtype=torch.float32)
_NO_ROWS = torch.empty(0, dtype=torch.int64)
_AHEAD = np.uint64(32)  # edges between the source that is read and the one that is fetched


_SEVENS, _ONES = np.uint64(0x7F7F7F7F7F7F7F7F), np.uint64(0x0101010101010101)
_WORDS = 8  # of 8 codes, in a block that is skipped where it holds none


@numba.njit(inline="always")
def _matches(word, pattern):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The highest bit of each byte of the word that equals the pattern's (Warren 2012, Hacker's Delight, 6-1)."""
    x = word ^ pattern
    return ~(((x & _SEVENS) + _SEVENS) | x | _SEVENS)


@numba.njit(parallel=True, cache=True, nogil=True)
def _count_rows(words, pattern, number, found):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    parts = found.size
    for part in numba.prange(parts):
        rows = 0
        for block in range(number.size * part // parts, number.size * (part + 1) // parts):
            total = np.uint64(0)
            for k in range(_WORDS):
                total += _matches(words[np.uint64(block * _WORDS + k)], pattern) >> np.uint64(7)
            number[block] = (total * _ONES) >> np.uint64(56)  # the sum of the eight bytes
            rows += number[block]
        found[part] = rows


@numba.njit(parallel=True, cache=True, nogil=True)
def _list_rows(words, pattern, number, first, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    parts = first.size
    for part in numba.prange(parts):
        at = np.uint64(first[part])
        for block in range(number.size * part // parts, number.size * (part + 1) // parts):
            if number[block]:
                for k in range(block * _WORDS, (block + 1) * _WORDS):
                    found = _matches(words[np.uint64(k)], pattern)
                    while found:
                        byte = np.int64(trailing_zeros(found)) >> 3  # type: ignore[call-arg]  # an intrinsic
                        out[at] = k * 8 + byte
                        at += np.uint64(1)
                        found &= found - np.uint64(1)


def rows_where(codes: Tensor, code: int) -> Tensor:
    """Rows of a code, ascending.

    Args:
        codes: (n,) uint8.
        code: The code.

    Returns:
        (num_rows,) int64.
    """
    found, array = np.empty(use_torch_threads(), dtype=np.int64), codes.numpy()
    number = np.empty(array.size // (8 * _WORDS), dtype=np.uint8)
    whole = array[: 8 * _WORDS * number.size]
    # Words of little-endian machines; codes that begin between two words are copied.
    words = (whole if whole.ctypes.data % 8 == 0 and whole.flags.c_contiguous else whole.copy()).view(np.uint64)
    pattern = np.uint64(code) * _ONES
    _count_rows(words, pattern, number, found)
    rest = np.flatnonzero(array[whole.size :] == code)
    out = torch.empty(int(found.sum()) + rest.size, dtype=torch.int64)
    _list_rows(words, pattern, number, np.cumsum(found) - found, out.numpy())
    out.numpy()[out.shape[0] - rest.size :] = rest + whole.size
    return out


def nonzero_rows(x: Tensor) -> Tensor:
    """Rows where a mask holds or a value is not zero, ascending.

    Args:
        x: (n,) bool or number.

    Returns:
        (num_rows,) int64; the same as `x.nonzero()`, by all threads.
    """
    return rows_where((x if x.dtype == torch.bool else x != 0).view(torch.uint8), 1)


def segment_sum(values: Tensor, indptr: Tensor) -> Tensor:
    """Sum consecutive segments, left to right.

    Args:
        values: (num_values, ...) in segment order.
        indptr: (num_segments + 1,) int64 first value of each segment.

    Returns:
        (num_segments, ...); differentiable in values.
    """
    result: Tensor = segment_csr(values, indptr, reduce="sum")
    return result


def pull_edges(x: Tensor, indptr: Tensor, source: Tensor, weight: Tensor | None) -> Tensor:
    r"""Weighted sum over the in-edges of each target, :math:`h_i = \sum_{j \to i} x_j w_{ji}`.

    Args:
        x: (num_sources,) or (num_sources, F).
        indptr: (num_targets + 1,) int32 or int64.
        source: (num_edges,) int32 or int64, ascending within a target.
        weight: (num_edges,) or None for 1.

    Returns:
        (num_targets,) or (num_targets, F); differentiable in x and weight. `index_select` has a backward whose bits
        do not depend on threads; indexing with `x[source]` has not.
    """
    sent = x.index_select(0, source)
    if weight is not None:
        sent = sent * (weight if x.dim() == 1 else weight.unsqueeze(1))
    return segment_sum(sent, indptr.to(torch.int64))


def _shares(indptr: NDArray[Any]) -> NDArray[np.int64]:
    """First row of each thread's share, of about equal numbers of edges: (num_threads + 1,)."""
    parts = use_torch_threads()
    first = np.searchsorted(indptr, np.array([int(indptr[-1]) * p // parts for p in range(parts + 1)], indptr.dtype))
    first[0], first[-1] = 0, indptr.size - 1
    return first


@numba.njit(parallel=True, cache=True, nogil=True)
def _gather_sum(x, indptr, source, weight, rows, out, first):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    # Rows are unsigned here: the compiler then drops the test for negative indices, a third of the time.
    for part in numba.prange(first.size - 1):
        for k in range(np.uint64(first[part]), np.uint64(first[part + 1])):
            target = rows[k] if rows.size else k
            total = out.dtype.type(0)
            for edge in range(np.uint64(indptr[target]), np.uint64(indptr[target + np.uint64(1)])):
                if edge + _AHEAD < np.uint64(source.size):
                    prefetch(x, source[edge + _AHEAD])
                sent = x[np.uint64(source[edge])]
                total += sent * weight[edge] if weight.size else sent
            out[k] = total


@numba.njit(parallel=True, cache=True, nogil=True)
def _gather_features(x, indptr, source, weight, rows, out, first):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for part in numba.prange(first.size - 1):
        for k in range(np.uint64(first[part]), np.uint64(first[part + 1])):
            target = rows[k] if rows.size else k
            out[k] = 0
            for edge in range(np.uint64(indptr[target]), np.uint64(indptr[target + np.uint64(1)])):
                row = np.uint64(source[edge])
                for f in range(x.shape[1]):
                    out[k, f] += x[row, f] * weight[edge] if weight.size else x[row, f]


def gather_sum(x: Tensor, indptr: Tensor, source: Tensor, weight: Tensor | None, rows: Tensor | None = None) -> Tensor:
    """The same sums as `pull_edges` in one pass: where most sources send.

    Args:
        x: (num_sources,) or (num_sources, F) float32 or float64, contiguous.
        indptr: (num_targets + 1,) int32 or int64.
        source: (num_edges,) int32, ascending within a target.
        weight: (num_edges,) float or None for 1.
        rows: (num_rows,) int64 targets to sum for, or None for all.

    Returns:
        (num_rows,) or (num_rows, F), each column as if alone; without gradient.
    """
    starts, sources = indptr.numpy(), source.numpy().view(np.uint32)
    asked = (_NO_ROWS if rows is None else rows).numpy().view(np.uint64)
    num_rows = starts.size - 1 if rows is None else asked.size
    out = torch.empty(num_rows, *x.shape[1:], dtype=x.dtype)
    parts = use_torch_threads()
    first = _shares(starts) if rows is None else num_rows * np.arange(parts + 1) // parts
    w = (_NO_WEIGHT if weight is None else weight.detach()).to(x.dtype)  # edge weights are data
    if num_rows:
        kernel = _gather_sum if x.dim() == 1 else _gather_features
        kernel(x.numpy(), starts, sources, w.numpy(), asked, out.numpy(), first)
    return out


def push_edges(
    active: Tensor,
    value: Tensor,
    indptr: Tensor,
    target: Tensor,
    weight: Tensor | None,
    num_targets: int,
    out: Tensor | None = None,
) -> Tensor:
    """The same sums as `pull_edges`, from the sources that send.

    Args:
        active: (num_active,) int64 sources with a value, ascending.
        value: (num_active,) float32 or float64.
        indptr: (num_sources + 1,) int32 or int64 first out-edge of each source.
        target: (num_edges,) int32, ascending within a source.
        weight: (num_edges,) in the dtype of value, or None for 1.
        num_targets: Number of targets.
        out: (num_targets,) sums to add to, in place; None starts from 0.

    Returns:
        (num_targets,); without gradient.
    """
    sums = torch.empty(num_targets, dtype=value.dtype) if out is None else out
    w = _NO_WEIGHT.to(value.dtype) if weight is None else weight.detach()  # the push form has no gradient
    add_edges(active, value.detach(), indptr, target, w, sums, fresh=out is None)
    return sums


def push_places(
    active: Tensor,
    value: Tensor,
    place: Tensor,
    num_places: int,
    activity_code: Tensor | None = None,
    activity_table: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Sum of the active sources of each place, in ascending source order.

    Args:
        active: (num_active,) int64 sources with a value, ascending.
        value: (num_active,) float32 or float64.
        place: (num_sources,) int32 place of each source, -1 for none.
        num_places: Number of places.
        activity_code: (num_sources,) code of the activity that the value is multiplied by, or None for 1.
        activity_table: (num_codes,) activities.
        out: (num_places,) where the sums go, or None for a new tensor.

    Returns:
        (num_places,); without gradient.
    """
    out = torch.empty(num_places, dtype=value.dtype) if out is None else out
    add_listed(place, value.detach(), out, True, active, activity_code, activity_table)
    return out


@numba.njit(parallel=True, cache=True, nogil=True)
def _read_places(sums, own, place, weight, activity, rows, some, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    one = weight.dtype.type(1)
    zero = out.dtype.type(0)  # not own * 0, which is -0.0 or NaN for some values
    for k in numba.prange(out.size):
        # Signed on purpose: mixed with the loop's unsigned counter a row would become a float.
        i = rows[k] if some else np.int64(k)
        p = place[i]
        if p < 0:
            out[k] = zero
        elif activity.size:
            out[k] = ((sums[p] - own[i] * activity[i]) * (weight[p] if weight.size else one)) * activity[i]
        else:
            out[k] = (sums[p] - own[i]) * (weight[p] if weight.size else one)


def read_places(
    sums: Tensor,
    own: Tensor,
    place: Tensor,
    weight: Tensor | None,
    rows: Tensor | None = None,
    activity: Tensor | None = None,
) -> Tensor:
    r"""What each agent receives from its place, itself excluded: :math:`a_i w_p (\sum_{j \in p} a_j x_j - a_i x_i)`.

    Args:
        sums: (num_places,) of what the members send, times their activity.
        own: (num_agents,) what each agent sends itself.
        place: (num_agents,) int32, -1 for none.
        weight: (num_places,) contacts per day with each co-member, or None for 1.
        rows: (num_rows,) int64 agents to read for, or None for all.
        activity: (num_agents,) a, or None for 1.

    Returns:
        (num_rows,); 0 for agents without a place. Without gradient (`gnabm.linear.PlaceSums` has one).
    """
    use_torch_threads()
    out = torch.empty(own.shape[0] if rows is None else rows.shape[0], dtype=own.dtype)
    _read_places(
        sums.numpy(),
        own.numpy(),
        place.numpy(),
        (_NO_WEIGHT if weight is None else weight).numpy(),
        (_NO_WEIGHT if activity is None else activity).to(own.dtype).numpy(),
        (_NO_ROWS if rows is None else rows).numpy(),
        rows is not None,
        out.numpy(),
    )
    return out


def weigh(x: Tensor, activity: Tensor | None) -> Tensor:
    """Values (n,) or (n, F) times the activity (n,) of their rows; None for 1."""
    if activity is None:
        return x
    return x * (activity if x.dim() == 1 else activity.unsqueeze(1)).to(x.dtype)


@numba.njit(cache=True, nogil=True)
def _is_mirrored(first, last, indptr, source, weight):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Whether each edge of some rows has its mirror image in the place where the transposed rows would have it."""
    for target in range(first, last):
        equal = 0  # edges of the row before this one with the same source
        for edge in range(indptr[target], indptr[target + 1]):
            row = source[edge]
            equal = equal + 1 if edge > indptr[target] and source[edge - 1] == row else 0
            low, end = indptr[row], indptr[row + 1]
            high = end
            while low < high:
                middle = (low + high) // 2
                if source[middle] < target:
                    low = middle + 1
                else:
                    high = middle
            low += equal
            if low >= end or source[low] != target or (weight.size and weight[low] != weight[edge]):
                return False
    return True


@numba.njit(parallel=True, cache=True, nogil=True)
def _is_symmetric(indptr, source, weight, first, found):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for part in numba.prange(found.size):
        found[part] = _is_mirrored(first[part], first[part + 1], indptr, source, weight)


@numba.njit(cache=True, nogil=True)
def _transpose(indptr, source, weight, out_indptr, out_target, out_weight):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for edge in range(source.size):
        out_indptr[source[edge] + 1] += 1
    for row in range(out_indptr.size - 1):
        out_indptr[row + 1] += out_indptr[row]
    fill = out_indptr[:-1].copy()
    for target in range(indptr.size - 1):
        for edge in range(indptr[target], indptr[target + 1]):
            at = fill[source[edge]]
            fill[source[edge]] += 1
            out_target[at] = target
            if weight.size:
                out_weight[at] = weight[edge]


def transpose(
    indptr: Tensor, source: Tensor, num_sources: int, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Out-edges by source from in-edges by target.

    Args:
        indptr: (num_targets + 1,) int32 or int64.
        source: (num_edges,) int32, ascending within a target.
        num_sources: Number of sources.
        weight: (num_edges,) or None.

    Returns:
        indptr (num_sources + 1,), int32 where there are fewer than 2^31 edges; target (num_edges,) int32 ascending
        within a source; weight or None. An undirected graph is its own transpose: its tensors are returned as they are.
    """
    w = (_NO_WEIGHT if weight is None else weight.detach()).numpy()
    if num_sources == indptr.shape[0] - 1:
        first = _shares(indptr.numpy())
        symmetric = np.empty(first.size - 1, dtype=np.bool_)
        _is_symmetric(indptr.numpy(), source.numpy(), w, first, symmetric)
        if symmetric.all():
            return indptr, source, weight
    out_indptr = torch.zeros(num_sources + 1, dtype=torch.int32 if source.shape[0] < 2**31 else torch.int64)
    target = torch.empty(source.shape[0], dtype=torch.int32)
    out_weight = torch.empty(w.size, dtype=_NO_WEIGHT.dtype if weight is None else weight.dtype)
    _transpose(indptr.numpy(), source.numpy(), w, out_indptr.numpy(), target.numpy(), out_weight.numpy())
    return out_indptr, target, None if weight is None else out_weight
