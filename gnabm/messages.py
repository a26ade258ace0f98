"""Message kernels: sums over the sources of each target, in one stored order.

Pull (`segment_sum`, `pull_edges`) walks the targets and is differentiable; push (`push_edges`, `push_places`) walks
the active sources and is what a forward run uses when few agents send. Both add a target's contributions in
ascending source order, starting from +0.0, so on CPU they return the same bits for any number of threads: adding a
skipped zero would not change a float sum that is never -0.0.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from gnabm.errors import MissingDependencyError
from gnabm.random import use_torch_threads

try:
    from torch_scatter import segment_csr
except ImportError as error:
    raise MissingDependencyError(
        "torch-scatter is missing or was built for another torch; run `make setup`, or "
        f"`pip install --no-build-isolation torch-scatter` beside torch {torch.__version__} ({error})"
    ) from error

_NO_WEIGHT = torch.empty(0, dtype=torch.float32)


def nonzero_rows(x: Tensor) -> Tensor:
    """Rows where a mask holds or a value is not zero, ascending.

    Args:
        x: (n,) bool or number.

    Returns:
        (num_rows,) int64; the same as `x.nonzero()`, several times faster on one thread.
    """
    return torch.from_numpy(np.flatnonzero((x if x.dtype == torch.bool else x != 0).numpy()))


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
        indptr: (num_targets + 1,) int64.
        source: (num_edges,) int32 or int64, ascending within a target.
        weight: (num_edges,) or None for 1.

    Returns:
        (num_targets,) or (num_targets, F); differentiable in x and weight. `index_select` has a backward whose bits
        do not depend on threads; indexing with `x[source]` has not.
    """
    sent = x.index_select(0, source)
    if weight is not None:
        sent = sent * (weight if x.dim() == 1 else weight.unsqueeze(1))
    return segment_sum(sent, indptr)


@numba.njit(parallel=True, cache=True, nogil=True)
def _push_edges(active, x, indptr, target, weight, out, parts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    # Rows are unsigned here: the compiler then drops the test for negative indices, a third of the time.
    num_targets = out.size
    for part in numba.prange(parts):
        # Each part owns a range of targets and walks every active source in order: no races, one order of sums.
        low = np.uint64(num_targets * part // parts)
        width = np.uint64(num_targets * (part + 1) // parts) - low
        if weight.size:
            for k in range(active.size):
                for edge in range(indptr[active[k]], indptr[active[k] + np.uint64(1)]):
                    t = np.uint64(target[edge])
                    if t - low < width:
                        out[t] += x[k] * weight[edge]
        else:
            for k in range(active.size):
                for edge in range(indptr[active[k]], indptr[active[k] + np.uint64(1)]):
                    t = np.uint64(target[edge])
                    if t - low < width:
                        out[t] += x[k]


def push_edges(
    active: Tensor, value: Tensor, indptr: Tensor, target: Tensor, weight: Tensor | None, num_targets: int
) -> Tensor:
    """The same sums as `pull_edges`, from the sources that send.

    Args:
        active: (num_active,) int64 sources with a value, ascending.
        value: (num_active,) float32 or float64.
        indptr: (num_sources + 1,) int64 first out-edge of each source.
        target: (num_edges,) int32, ascending within a source.
        weight: (num_edges,) in the dtype of value, or None for 1.
        num_targets: Number of targets.

    Returns:
        (num_targets,); without gradient.
    """
    out = torch.zeros(num_targets, dtype=value.dtype)
    w = _NO_WEIGHT.to(value.dtype) if weight is None else weight
    parts = use_torch_threads()
    _push_edges(
        active.numpy().view(np.uint64),
        value.numpy(),
        indptr.numpy().view(np.uint64),
        target.numpy().view(np.uint32),
        w.detach().numpy(),  # the push form has no gradient
        out.numpy(),
        parts,
    )
    return out


@numba.njit(cache=True, nogil=True)
def _push_places(active, value, place, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for k in range(active.size):
        p = place[active[k]]
        if p >= 0:
            out[p] += value[k]


def push_places(active: Tensor, value: Tensor, place: Tensor, num_places: int) -> Tensor:
    """Sum of the active sources of each place, in ascending source order.

    Args:
        active: (num_active,) int64 sources with a value, ascending.
        value: (num_active,) float.
        place: (num_sources,) int32 place of each source, -1 for none.
        num_places: Number of places.

    Returns:
        (num_places,); without gradient.
    """
    out = torch.zeros(num_places, dtype=value.dtype)
    _push_places(active.numpy(), value.numpy(), place.numpy(), out.numpy())
    return out


@numba.njit(parallel=True, cache=True, nogil=True)
def _read_places(sums, own, place, weight, activity, rows, some, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    zero = out.dtype.type(0)  # not own * 0, which is -0.0 or NaN for some values
    for k in numba.prange(out.size):
        # Signed on purpose: mixed with the loop's unsigned counter a row would become a float.
        i = rows[k] if some else np.int64(k)
        p = place[i]
        if p < 0:
            out[k] = zero
        elif activity.size:
            out[k] = ((sums[p] - own[i] * activity[i]) * weight[p]) * activity[i]
        else:
            out[k] = (sums[p] - own[i]) * weight[p]


_NO_ROWS = torch.empty(0, dtype=torch.int64)


def read_places(
    sums: Tensor,
    own: Tensor,
    place: Tensor,
    weight: Tensor,
    rows: Tensor | None = None,
    activity: Tensor | None = None,
) -> Tensor:
    r"""What each agent receives from its place, itself excluded: :math:`a_i w_p (\sum_{j \in p} a_j x_j - a_i x_i)`.

    Args:
        sums: (num_places,) or (num_places, F) of what the members send, times their activity.
        own: (num_agents,) or (num_agents, F) what each agent sends itself.
        place: (num_agents,) int32, -1 for none.
        weight: (num_places,) contacts per day with each co-member.
        rows: (num_rows,) int64 agents to read for, or None for all.
        activity: (num_agents,) a, or None for 1.

    Returns:
        (num_rows,) or (num_rows, F); 0 for agents without a place. Differentiable in sums and own.
    """
    if not torch.is_grad_enabled() and own.dim() == 1:
        use_torch_threads()
        out = torch.empty(own.shape[0] if rows is None else rows.shape[0], dtype=own.dtype)
        at = _NO_ROWS if rows is None else rows
        _read_places(
            sums.numpy(),
            own.numpy(),
            place.numpy(),
            weight.numpy(),
            (_NO_WEIGHT if activity is None else activity).to(own.dtype).numpy(),
            at.numpy(),
            rows is not None,
            out.numpy(),
        )
        return out
    if rows is not None:
        own, place = own.index_select(0, rows), place.index_select(0, rows)
        activity = None if activity is None else activity.index_select(0, rows)
    somewhere = place >= 0
    at = place.clamp(min=0)  # -1 would be no index; those rows are set to 0 below
    factor = weight.index_select(0, at)
    if own.dim() > 1:
        somewhere, factor = somewhere.unsqueeze(1), factor.unsqueeze(1)
    received = (sums.index_select(0, at) - weigh(own, activity)) * factor
    return torch.where(somewhere, weigh(received, activity), torch.zeros_like(own))


def weigh(x: Tensor, activity: Tensor | None) -> Tensor:
    """Values (n,) or (n, F) times the activity (n,) of their rows; None for 1."""
    if activity is None:
        return x
    return x * (activity if x.dim() == 1 else activity.unsqueeze(1)).to(x.dtype)


@numba.njit(cache=True, nogil=True)
def _transpose(indptr, source, out_indptr, out_target, out_edge):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
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
            if out_edge.size:
                out_edge[at] = edge


def transpose(
    indptr: Tensor, source: Tensor, num_sources: int, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Out-edges by source from in-edges by target.

    Args:
        indptr: (num_targets + 1,) int64.
        source: (num_edges,) int32.
        num_sources: Number of sources.
        weight: (num_edges,) or None.

    Returns:
        indptr (num_sources + 1,), target (num_edges,) int32 ascending within a source, weight or None.
    """
    out_indptr = torch.zeros(num_sources + 1, dtype=torch.int64)
    target = torch.empty(source.shape[0], dtype=torch.int32)
    edge = torch.empty(0 if weight is None else source.shape[0], dtype=torch.int64)
    _transpose(indptr.numpy(), source.numpy(), out_indptr.numpy(), target.numpy(), edge.numpy())
    return out_indptr, target, None if weight is None else weight.index_select(0, edge)


@numba.njit(parallel=True, cache=True, nogil=True)
def _count_pairs(codes, group, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    parts = out.shape[0]
    for part in numba.prange(parts):
        for i in range(codes.size * part // parts, codes.size * (part + 1) // parts):
            out[part, codes[i], group[i]] += 1


def count_pairs(codes: Tensor, group: Tensor, num_codes: int, num_groups: int) -> Tensor:
    """Count rows by code and group.

    Args:
        codes: (n,) uint8.
        group: (n,) int32.
        num_codes: Number of codes.
        num_groups: Number of groups.

    Returns:
        (num_codes, num_groups) int64.
    """
    out = torch.zeros(use_torch_threads(), num_codes, num_groups, dtype=torch.int64)
    _count_pairs(codes.numpy(), group.numpy(), out.numpy())
    return out.sum(0)
