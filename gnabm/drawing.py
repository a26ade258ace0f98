"""Kernels of drawn contacts: who meets whom in a step, and the sums of what they bring in the order of the senders."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnabm.columns import Keys
from gnabm.random import key_at, key_bits, mix, salts, unit_interval, use_torch_threads

_BLOCK = 1024
"""Senders of one block: all that is kept for their contacts fits the cache of a core."""
_GUIDES = 256
_TOP_BITS = np.uint64(56)
_U = np.uint64
_NO_OWNER = np.empty(0, dtype=np.uint16)
_EACH = np.empty(0, dtype=np.int32)


@dataclass(frozen=True, eq=False)
class Inverse:
    """Discrete laws by group, inverted by an indexed search (Chen and Asau 1974, AIIE Transactions 6).

    Args:
        cdf: (num_groups, num_outcomes + 1) float64 cumulative probabilities, the last above 1; the outcome of a uniform
            number u is how many of them are not above u.
        guide: (num_groups, 256) int32 where to begin, by the first eight bits of u.
    """

    cdf: NDArray[np.float64]
    guide: NDArray[np.int32]

    @staticmethod
    def of(cdf: NDArray[np.float64]) -> Inverse:
        """The table of these laws: (num_groups, num_outcomes)."""
        least = np.arange(_GUIDES) / _GUIDES
        guide = [np.searchsorted(row, least, side="right") for row in cdf]
        return Inverse(np.pad(cdf, ((0, 0), (0, 1)), constant_values=2.0), np.array(guide, dtype=np.int32))


@dataclass(frozen=True, eq=False)
class Pools:
    """Where contacts are drawn from, and who owns the agents of a pool.

    Args:
        area_start: (num_areas + 1,) int64 first owned row of each area.
        level_cdf: (3,) float64 cumulative shares of the levels: own area, own region, country.
        first: (3, num_areas, num_groups) int64 position of a pool's first member within its group.
        count: (3, num_areas, num_groups) int64 members of a pool.
        bounds: (num_shards + 1, num_groups) int64 agents of a group before each shard.
        members: (num_owned,) int32 owned rows ordered by group, then row: the seats of a shard.
        rank: The own shard.
    """

    area_start: NDArray[np.int64]
    level_cdf: NDArray[np.float64]
    first: NDArray[np.int64]
    count: NDArray[np.int64]
    bounds: NDArray[np.int64]
    members: NDArray[np.int32]
    rank: int


@numba.njit(inline="always")
def _outcome(cdf, guide, group, bits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    u = unit_interval(bits)
    n = np.uint64(guide[group, bits >> _TOP_BITS])
    while cdf[group, n] <= u:
        n += _U(1)
    return np.int64(n)


@numba.njit(parallel=True, cache=True, nogil=True)
def _count_contacts(  # type: ignore[no-untyped-def]  # noqa: ANN202
    state,  # noqa: ANN001
    second,  # noqa: ANN001
    first,  # noqa: ANN001
    keys,  # noqa: ANN001
    senders,  # noqa: ANN001
    group,  # noqa: ANN001
    cdf,  # noqa: ANN001
    guide,  # noqa: ANN001
    number,  # noqa: ANN001
    total,  # noqa: ANN001
):
    for block in numba.prange(total.size):
        low = np.int64(block) * _BLOCK
        so_far = 0
        for i in range(low, min(low + _BLOCK, senders.size)):
            row = senders[i]
            n = _outcome(cdf, guide, group[row], key_bits(state, second, key_at(first, keys, row)))
            number[i] = n
            so_far += n
        total[block] = so_far


@numba.njit(nogil=True)
def _repeat(number, by):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    # 0 as often as number[0] says, then 1, ...: by marks and their running sum, since the end of a loop of a few rounds
    # is what the machine cannot foresee.
    by[:] = 0
    at = 0
    for s in range(number.size):
        if at < by.size:
            by[at] += 1
        at += number[s]
    s = -1
    for k in range(by.size):
        s += by[k]
        by[k] = s


@numba.njit(nogil=True)
def _words_of_senders(state, second, first_key, keys, senders, number, area_start, word, area):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    here = np.searchsorted(area_start, senders[0], side="right") - 1
    at = 0
    for s in range(senders.size):
        while area_start[here + 1] <= senders[s]:
            here += 1
        area[s] = here
        # Contact `at` of the block is the sender's first: its words follow that of the sender, three for each contact.
        word[s] = key_bits(state, second, key_at(first_key, keys, senders[s])) - _U(3 * at)
        at += number[s]


@numba.njit(nogil=True)
def _who(senders, sender, word, area, group, cdf, guide, level_cdf, first, count, partner, index):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    size, num_groups = sender.size, cdf.shape[0]
    stride = count.size // level_cdf.size
    bits, level_u, who_u = np.empty(size, np.uint64), np.empty(size, np.float64), np.empty(size, np.float64)
    # One word for each decision. Loops of one kind of work each become vector instructions.
    for k in range(size):
        bits[k] = word[np.uint32(sender[k])] + _U(3 * k)
    for k in range(size):
        level_u[k] = unit_interval(mix(bits[k] + _U(2)))
    for k in range(size):
        who_u[k] = unit_interval(mix(bits[k] + _U(3)))
    for k in range(size):
        bits[k] = mix(bits[k] + _U(1))
    for k in range(size):
        partner[k] = _outcome(cdf, guide, group[senders[np.uint32(sender[k])]], bits[k])
    for k in range(size):
        level = np.int64(level_u[k] >= level_cdf[0]) + np.int64(level_u[k] >= level_cdf[1])
        pool = np.uint64(level * stride + area[np.uint32(sender[k])] * num_groups + partner[k])
        n = count[pool]
        index[k] = first[pool] + min(np.int64(who_u[k] * n), n - 1)


@numba.njit(parallel=True, cache=True, nogil=True)
def _draw_contacts(  # type: ignore[no-untyped-def]  # noqa: ANN202
    state,  # noqa: ANN001
    second,  # noqa: ANN001
    first_key,  # noqa: ANN001
    keys,  # noqa: ANN001
    senders,  # noqa: ANN001
    group,  # noqa: ANN001
    number,  # noqa: ANN001
    begin,  # noqa: ANN001
    cdf,  # noqa: ANN001
    guide,  # noqa: ANN001
    level_cdf,  # noqa: ANN001
    area_start,  # noqa: ANN001
    first,  # noqa: ANN001
    count,  # noqa: ANN001
    bounds,  # noqa: ANN001
    seat_of,  # noqa: ANN001
    rank,  # noqa: ANN001
    members,  # noqa: ANN001
    seat,  # noqa: ANN001
    by,  # noqa: ANN001
    owner,  # noqa: ANN001
    to,  # noqa: ANN001
):
    for block in numba.prange(begin.size - 1):
        low, start = np.int64(block) * _BLOCK, begin[block]
        some, made = senders[low : low + _BLOCK], number[low : low + _BLOCK]
        sender, index = by[start : begin[block + 1]], seat[start : begin[block + 1]]
        _repeat(made, sender)
        word, area = np.empty(some.size, np.uint64), np.empty(some.size, np.int32)
        _words_of_senders(state, second, first_key, keys, some, made, area_start, word, area)
        partner = np.empty(sender.size, np.uint8)
        _who(some, sender, word, area, group, cdf, guide, level_cdf, first, count, partner, index)
        if owner.size:
            for k in range(sender.size):
                b, i, r = partner[k], index[k], rank
                if not bounds[r, b] <= i < bounds[r + 1, b]:
                    r = 0
                    while bounds[r + 1, b] <= i:
                        r += 1
                owner[start + k] = r
                to[block, r] += 1
                index[k] = seat_of[r, b] + i
        else:
            for k in range(sender.size):
                index[k] = members[np.uint32(seat_of[0, partner[k]] + index[k])]
        for k in range(sender.size):
            sender[k] += low


@numba.njit(parallel=True, cache=True, nogil=True)
def _sort_by_owner(owner, begin, into, seat, by, out_seat, out_by):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for block in numba.prange(begin.size - 1):
        for k in range(begin[block], begin[block + 1]):
            at = into[block, owner[k]]
            into[block, owner[k]] = at + 1
            out_seat[at], out_by[at] = seat[k], by[k]


def draw_contacts(
    state: int, keys: Keys, senders: Tensor, group: Tensor, number: Inverse, partner: Inverse, pools: Pools
) -> tuple[Tensor, Tensor, list[int]]:
    """Draw each sender's contacts of one step: how many, of which group, at which level, which agent.

    Args:
        state: Salt of the layer at this step.
        keys: Keys of the owned agents.
        senders: (num_senders,) int64 owned rows, ascending.
        group: (num_owned,) uint8 activity group.
        number: By group, the number of contacts.
        partner: By group, the contact's group.
        pools: Where contacts are drawn from.

    Returns:
        (num_contacts,) int32 owned row of each contact, or its seat in the shard that owns it where there are several;
        (num_contacts,) int32 its sender, by place in `senders`; and how many contacts each shard owns. Contacts are
        ordered by owner, then sender.
    """
    use_torch_threads()
    rows, codes = senders.numpy(), group.numpy()
    begin = np.zeros(-(-rows.size // _BLOCK) + 1, dtype=np.int64)
    made = np.empty(rows.size, dtype=np.int32)
    _count_contacts(*salts(state), *keys.words, rows, codes, number.cdf, number.guide, made, begin[1:])
    np.cumsum(begin, out=begin)
    num_shards, num_contacts = pools.bounds.shape[0] - 1, int(begin[-1])
    # NumPy asks for huge pages, torch does not: touching new memory is a large part of a step.
    seat, by = (np.empty(num_contacts, dtype=np.int32) for _ in range(2))
    alone = num_shards == 1
    owner = _NO_OWNER if alone else np.empty(num_contacts, dtype=np.uint16)
    to = np.zeros((begin.size - 1, num_shards), dtype=np.int64)
    each = np.diff(pools.bounds, axis=0)
    seat_of = np.cumsum(each, axis=1) - each - pools.bounds[:-1]
    # Another salt than the count's, so that the number of contacts tells nothing about who they are.
    who = salts((state ^ 0x5851F42D4C957F2D) & ((1 << 64) - 1))
    _draw_contacts(
        *who, *keys.words, rows, codes, made, begin, partner.cdf, partner.guide, pools.level_cdf, pools.area_start,
        pools.first.reshape(-1), pools.count.reshape(-1), pools.bounds, seat_of, pools.rank, pools.members, seat, by,
        owner, to,
    )  # fmt: skip
    if alone:
        return torch.from_numpy(seat), torch.from_numpy(by), [num_contacts]
    into = (np.cumsum(to.T) - to.T.reshape(-1)).reshape(num_shards, -1).T.copy()
    out_seat, out_by = np.empty_like(seat), np.empty_like(by)
    _sort_by_owner(owner, begin, into, seat, by, out_seat, out_by)
    return torch.from_numpy(out_seat), torch.from_numpy(out_by), to.sum(0).tolist()


@numba.njit(parallel=True, cache=True, nogil=True)
def _add_in_order(target, by, value, out, parts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for part in numba.prange(parts):
        # Each part owns a range of targets and walks all messages in order: no races, one order of sums.
        low = np.int64(out.size * part // parts)
        high = np.int64(out.size * (part + 1) // parts)
        out[low:high] = 0
        for k in range(target.size):
            t = np.int64(target[k])
            if low <= t < high:
                # Unsigned rows spare the test for negative ones.
                out[np.uint64(t)] += value[np.uint32(by[k])] if by.size else value[k]


def add_in_order(target: Tensor, value: Tensor, num_targets: int, by: Tensor | None = None) -> Tensor:
    """Add values to their targets in the order given.

    Args:
        target: (num_messages,) int32.
        value: (num_values,) or (num_values, F).
        num_targets: Number of targets.
        by: (num_messages,) int32 which value each message carries, or None where each has its own.

    Returns:
        (num_targets,) or (num_targets, F); without gradient (`Messages` has one).
    """
    if value.dim() > 1:
        sums = value.new_empty(num_targets, value.shape[1])
        for f in range(value.shape[1]):
            sums[:, f] = add_in_order(target, value[:, f], num_targets, by)
        return sums
    sent = value.contiguous().numpy()
    out = np.empty(num_targets, dtype=sent.dtype)
    _add_in_order(target.numpy(), _EACH if by is None else by.numpy(), sent, out, use_torch_threads())
    return torch.from_numpy(out)


@dataclass(frozen=True, eq=False)
class Messages:
    """The linear map of messages that are added to their targets in the order given.

    Args:
        target: (num_messages,) int32 target of each message.
        by: (num_messages,) int32 which value it carries.
        num_targets: Number of targets.
        num_values: Number of values.
    """

    target: Tensor
    by: Tensor
    num_targets: int
    num_values: int

    @property
    def transposed(self) -> Messages:
        """From targets back to what was sent: the same messages, the other way."""
        return Messages(self.by, self.target, self.num_values, self.num_targets)

    def __call__(self, x: Tensor) -> Tensor:
        """(num_values, ...) to (num_targets, ...)."""
        return add_in_order(self.target, x, self.num_targets, self.by)
