"""Kernels of drawn contacts: who meets whom in a step, and the sums of what they bring in the order of the senders."""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from gnabm.random import key_bits, mix, salts, unit_interval, use_torch_threads


@numba.njit(cache=True, nogil=True)
def _count_contacts(state, second, keys, group, cdf, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for i in range(keys.size):
        u = unit_interval(key_bits(state, second, keys[i]))
        out[i] = np.searchsorted(cdf[group[i]], u, side="right")


@numba.njit(cache=True, nogil=True)
def _draw_contacts(  # type: ignore[no-untyped-def]  # noqa: ANN202
    state,  # noqa: ANN001
    second,  # noqa: ANN001
    keys,  # noqa: ANN001
    group,  # noqa: ANN001
    area,  # noqa: ANN001
    first,  # noqa: ANN001
    group_cdf,  # noqa: ANN001
    level_cdf,  # noqa: ANN001
    range_first,  # noqa: ANN001
    range_count,  # noqa: ANN001
    out_group,  # noqa: ANN001
    out_index,  # noqa: ANN001
):
    for i in range(keys.size):
        own = key_bits(state, second, keys[i])
        for k in range(first[i], first[i + 1]):
            # One word per contact and decision: the agent's word, advanced by the contact's number.
            word = mix(own + np.uint64(3 * (k - first[i]) + 1))
            b = np.searchsorted(group_cdf[group[i]], unit_interval(word), side="right")
            word = mix(own + np.uint64(3 * (k - first[i]) + 2))
            level = np.searchsorted(level_cdf, unit_interval(word), side="right")
            word = mix(own + np.uint64(3 * (k - first[i]) + 3))
            count = range_count[level, area[i], b]
            out_group[k] = b
            out_index[k] = range_first[level, area[i], b] + min(np.int64(unit_interval(word) * count), count - 1)


def draw_contacts(
    state: int,
    keys: Tensor,
    group: Tensor,
    area: Tensor,
    number_cdf: Tensor,
    group_cdf: Tensor,
    level_cdf: Tensor,
    range_first: Tensor,
    range_count: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw each sender's contacts of one step: how many, of which group, at which level, which agent.

    Args:
        state: Salt of the layer at this step.
        keys: (num_senders,) int64.
        group: (num_senders,) uint8 activity group.
        area: (num_senders,) int64.
        number_cdf: (num_groups, max_contacts) cumulative distribution of the number of contacts.
        group_cdf: (num_groups, num_groups) cumulative distribution of the contact's group.
        level_cdf: (num_levels,) cumulative shares of the levels (own area, own region, country).
        range_first: (num_levels, num_areas, num_groups) int64 position of a pool's first member within its group.
        range_count: (num_levels, num_areas, num_groups) int64 members of a pool.

    Returns:
        first (num_senders + 1,) int64: first contact of each sender; group (num_contacts,) int64 and index
        (num_contacts,) int64: the contact is the index-th agent of that group in the whole population.
    """
    number = torch.empty(keys.shape[0], dtype=torch.int64)
    _count_contacts(*salts(state), keys.numpy(), group.numpy(), number_cdf.numpy(), number.numpy())
    first = torch.zeros(keys.shape[0] + 1, dtype=torch.int64)
    torch.cumsum(number, 0, out=first[1:])
    out_group = torch.empty(int(first[-1]), dtype=torch.int64)
    out_index = torch.empty_like(out_group)
    # Another salt than the count's, so that the number of contacts tells nothing about who they are.
    who = salts((state ^ 0x5851F42D4C957F2D) & ((1 << 64) - 1))
    _draw_contacts(
        *who, keys.numpy(), group.numpy(), area.numpy(), first.numpy(), group_cdf.numpy(), level_cdf.numpy(),
        range_first.numpy(), range_count.numpy(), out_group.numpy(), out_index.numpy(),
    )  # fmt: skip
    return first, out_group, out_index


@numba.njit(parallel=True, cache=True, nogil=True)
def _add_in_order(target, value, out, parts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for part in numba.prange(parts):
        low = out.size * part // parts
        high = out.size * (part + 1) // parts
        for k in range(target.size):
            t = target[k]
            if low <= t < high:
                out[t] += value[k]


def add_in_order(target: Tensor, value: Tensor, num_targets: int) -> Tensor:
    """Add values to their targets in the order given.

    Args:
        target: (num_messages,) int64.
        value: (num_messages,) or (num_messages, F).
        num_targets: Number of targets.

    Returns:
        (num_targets,) or (num_targets, F); differentiable in value (`index_add` adds in the same order).
    """
    if torch.is_grad_enabled() or value.dim() > 1:
        return torch.zeros(num_targets, *value.shape[1:], dtype=value.dtype).index_add(0, target, value)
    out = torch.zeros(num_targets, dtype=value.dtype)
    _add_in_order(target.numpy(), value.contiguous().numpy(), out.numpy(), use_torch_threads())
    return out
