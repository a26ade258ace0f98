r"""Kernels that walk the agents once: who has an event, who sends what, whose stage ends, who may be infected.

Each walks blocks of rows and lists those that it finds, so rows come out ascending and what does not happen costs no
memory. Probabilities that need an exponential are left to torch, whose `expm1` is the one of the plain rules: a kernel
only lists candidates, by the bound :math:`1 - e^{-a} \le a`.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnabm.columns import Keys
from gnabm.errors import DataError
from gnabm.exchange import FIXED_POINT
from gnabm.random import bernoulli, key_at, key_bits, salts, unit_interval, use_torch_threads

_ROUND = 1.5 * 2.0**52
BLOCK = 2048
"""Rows that a kernel holds at once."""
MOST_RISK = 2.0**20
"""Largest risk of an agent relative to another: a sum of risks stays a whole number of steps of 1 / FIXED_POINT."""
_NO_ROWS = np.empty(0, dtype=np.int64)
_NO_CODES = np.empty(0, dtype=np.uint8)
_NONE = np.empty(0, dtype=np.float32)
_PARTS_PER_THREAD = 8
_COARSE_BITS = 20


class Named(NamedTuple):
    """A column of the agents, and its name for errors."""

    name: str
    values: Tensor


def refuse_labels(label: Named, num_codes: int) -> None:
    """Refuse codes of a label that nothing is known of.

    Args:
        label: (n,) integers.
        num_codes: Codes 0, ..., num_codes - 1 are known.

    Raises:
        DataError: A code lies outside.
    """
    codes = label.values
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < num_codes:
        wide = codes.to(torch.int64)
        wrong = wide[(wide < 0) | (wide >= num_codes)]
        raise DataError(
            f"column {label.name!r} must hold codes from 0 to {num_codes - 1}, got {int(wrong[0])} ({wrong.numel()} "
            "such rows); make its codes those of its categories"
        )


def refuse_risks(risk: Named, counted: Tensor) -> None:
    """Refuse risks that cannot be added up.

    Args:
        risk: (n,) floats, without gradient.
        counted: (n,) bool of the rows that matter.

    Raises:
        DataError: A risk is NaN, negative or above `MOST_RISK`.
    """
    wrong = risk.values[counted & ~((risk.values >= 0) & (risk.values <= MOST_RISK))]
    if wrong.numel():
        raise DataError(
            f"{risk.name!r} must be a relative risk >= 0, got {wrong[0].item():g} ({wrong.numel()} such rows); check "
            "the rules that write it"
        )


def parts_of(num_rows: int) -> NDArray[np.int64]:
    """First row of each part that a thread walks."""
    parts = max(1, min(use_torch_threads() * _PARTS_PER_THREAD, num_rows // 4096))
    return np.arange(parts + 1, dtype=np.int64) * num_rows // parts


def found(out: Tensor, bounds: NDArray[np.int64], count: NDArray[np.int64]) -> Tensor:
    """What the parts found, side by side."""
    return torch.cat([out.narrow(0, int(low), int(n)) for low, n in zip(bounds, count, strict=False)])


@numba.njit(parallel=True, cache=True, nogil=True)
def _event_rows(state, second, first, keys, codes, code, rows, some, p, bounds, out, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for part in numba.prange(count.size):
        at = bounds[part]
        for k in range(bounds[part], bounds[part + 1]):
            i = rows[k] if some else np.int64(k)
            if codes[i] == code and unit_interval(key_bits(state, second, key_at(first, keys, i))) < p:
                out[at] = i
                at += 1
        count[part] = at - bounds[part]


def event_rows(state: int, keys: Keys, codes: Tensor, code: int, p: Tensor, rows: Tensor | None = None) -> Tensor:
    """Rows in a stage that have an event of one probability.

    Args:
        state: Salt of the draw.
        keys: Keys of all rows.
        codes: (n,) uint8 stages.
        code: The stage.
        p: () probability in the type of the plain rule.
        rows: (m,) int64 rows to look at, ascending, or None for all.

    Returns:
        (num_rows,) int64, ascending.

    Raises:
        DataError: The probability is NaN or outside [0, 1].
    """
    num_rows = codes.shape[0] if rows is None else rows.shape[0]
    if not 0 <= float(p) <= 1:
        bernoulli(state, keys, p.expand(num_rows), rows)  # which refuses it, unless there is nobody to draw for
    bounds = parts_of(num_rows)
    out, count = torch.empty(int(bounds[-1]), dtype=torch.int64), np.zeros(bounds.size - 1, dtype=np.int64)
    at = _NO_ROWS if rows is None else rows.numpy()
    _event_rows(
        *salts(state), *keys.words, codes.numpy(), code, at, rows is not None, float(p), bounds, out.numpy(), count
    )
    return found(out, bounds, count)


@numba.njit(inline="always")
def list_marked(mark, begin, out, at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """List the marked rows of a block, eight unmarked ones at a time passed over; returns where the list ends."""
    eight = mark.view(np.uint64)
    for word in range(mark.size // 8):
        if eight[word]:
            for k in range(8 * word, 8 * word + 8):
                if mark[k]:
                    out[at] = begin + k
                    at += 1
    return at


@numba.njit(inline="always")
def mark_events(mark, chance, begin, size, codes, source, state, second, first_key, keys, factor):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Mark the rows of a block in a stage whose uniform number lies below a chance times a factor."""
    mark[size:] = 0
    # Without branches, so that the compiler draws for many rows at once: quicker than drawing for those who need it.
    first = np.uint64(begin)
    if keys.size:
        for k in range(np.uint64(size)):
            u = unit_interval(key_bits(state, second, keys[first + k]))
            mark[k] = (codes[first + k] == source) & (u < chance[k] * factor)
    else:
        for k in range(np.uint64(size)):
            u = unit_interval(key_bits(state, second, np.uint64(first_key) + first + k))
            mark[k] = (codes[first + k] == source) & (u < chance[k] * factor)


@numba.njit(inline="always")
def count_outside(begin, size, group, num_groups):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """How many rows of a block are in no group; a negative code is a large one without its sign."""
    first, outside = np.uint64(begin), 0
    for k in range(np.uint64(size)):
        outside += int(np.uint64(group[first + k]) >= np.uint64(num_groups))
    return outside


@numba.njit(parallel=True, cache=True, nogil=True)
def _chosen_rows(state, second, first_key, keys, codes, code, group, by_group, risk, bounds, out, count, outside):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for part in numba.prange(count.size):
        at = bounds[part]
        chance, mark = np.empty(BLOCK, np.float32), np.zeros(BLOCK, np.uint8)
        for begin in range(bounds[part], bounds[part + 1], BLOCK):
            size = min(BLOCK, bounds[part + 1] - begin)
            first = np.uint64(begin)
            if group.size:
                wrong = count_outside(begin, size, group, by_group.size)
                if wrong:
                    outside[part] += wrong
                    continue
                for k in range(np.uint64(size)):
                    chance[k] = by_group[np.uint64(group[first + k])]
            else:
                chance[:size] = by_group[0]
            if risk.size:
                for k in range(np.uint64(size)):
                    chance[k] *= risk[first + k]
            mark_events(mark, chance, begin, size, codes, code, state, second, first_key, keys, 1.0)
            at = list_marked(mark, begin, out, at)
        count[part] = at - bounds[part]


def chosen_rows(
    state: int, keys: Keys, codes: Tensor, code: int, group: Named | None, by_group: Tensor, risk: Tensor | None
) -> Tensor:
    """Rows in a stage that have an event whose probability follows from their group and their risk.

    Args:
        state: Salt of the draw.
        keys: Keys of all rows.
        codes: (n,) uint8 stages.
        code: The stage.
        group: (n,) integer group of each row, or None for one group.
        by_group: (num_groups,) float32 probability in each group.
        risk: (n,) float32 factor of each row, or None for 1. No event follows from one that is NaN or negative, so let
            `weigh_groups` look at them first; a product above 1 counts as 1.

    Returns:
        (num_rows,) int64, ascending.

    Raises:
        DataError: A row is in no group.
    """
    bounds = parts_of(codes.shape[0])
    out, count = torch.empty(codes.shape[0], dtype=torch.int64), np.zeros(bounds.size - 1, dtype=np.int64)
    outside = np.zeros(bounds.size - 1, dtype=np.int64)
    some, factor = (_NO_CODES if group is None else group.values.numpy()), (_NONE if risk is None else risk.numpy())
    _chosen_rows(
        *salts(state), *keys.words, codes.numpy(), code, some, by_group.numpy(), factor, bounds, out.numpy(), count,
        outside,
    )  # fmt: skip
    if group is not None and outside.any():
        refuse_labels(group, by_group.shape[0])
    return found(out, bounds, count)


@numba.njit(parallel=True, cache=True, nogil=True)
def _weigh_groups(codes, code, group, risk, bounds, out, bad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for part in numba.prange(bounds.size - 1):
        begin = bounds[part]
        while begin < bounds[part + 1]:
            # Rows of a group mostly stand side by side, so the sums of a run stay in registers.
            g, end = np.int64(group[begin]) if group.size else np.int64(0), bounds[part + 1]
            if group.size:
                end = begin + 1
                while end < bounds[part + 1] and group[end] == g:
                    end += 1
            if np.uint64(g) >= np.uint64(out.shape[2]):
                bad[part, 0] += end - begin
                begin = end
                continue
            weight, coarse = np.int64(0), np.int64(0)
            if risk.size:
                suspect = 0
                for i in range(np.uint64(begin), np.uint64(end)):
                    suspect += not ((risk[i] >= 0) & (risk[i] <= MOST_RISK))
                bad[part, 1] += suspect
                for i in range(np.uint64(begin), np.uint64(end)):
                    # Adding and taking away 1.5 * 2^52 rounds to whole numbers, halves to even.
                    steps = np.int64(risk[i] * FIXED_POINT + _ROUND - _ROUND) * (codes[i] == code)
                    weight += steps
                    coarse += steps >> _COARSE_BITS
            else:
                for i in range(np.uint64(begin), np.uint64(end)):
                    weight += codes[i] == code
            out[part, 0, g] += end - begin
            out[part, 1, g] += weight
            out[part, 2, g] += coarse
            begin = end


def weigh_groups(codes: Tensor, code: int, group: Named | None, num_groups: int, risk: Named | None) -> Tensor:
    """Agents of each group, and those of them that are in a stage, each counted by its risk.

    Args:
        codes: (n,) uint8 stages.
        code: The stage.
        group: (n,) integer group of each row, or None for one group.
        num_groups: Number of groups.
        risk: (n,) float32 risk of each row, or None: they are counted.

    Returns:
        (3, num_groups) int64; risks in steps of 1 / FIXED_POINT, as in every total, and last what these weigh in units
        of 2^20 steps (0 without risks), which tells whether the sums left their range.

    Raises:
        DataError: A row is in no group, or one in the stage has a risk that is NaN, negative or above `MOST_RISK`.
    """
    bounds = parts_of(codes.shape[0])
    out = np.zeros((bounds.size - 1, 3, num_groups), dtype=np.int64)
    bad = np.zeros((bounds.size - 1, 2), dtype=np.int64)
    some = _NO_CODES if group is None else group.values.numpy()
    _weigh_groups(codes.numpy(), code, some, _NONE if risk is None else risk.values.numpy(), bounds, out, bad)
    if group is not None and bad[:, 0].any():
        refuse_labels(group, num_groups)
    if risk is not None and bad[:, 1].any():
        refuse_risks(risk, codes == code)  # whose risk is wrong may be in another stage
    return torch.from_numpy(out.sum(0))


@numba.njit(parallel=True, cache=True, nogil=True)
def _senders(codes, since, index, table, loud, bounds, out, value, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    last = table.shape[1] - 1
    for part in numba.prange(count.size):
        at, mark = bounds[part], np.zeros(BLOCK, np.uint8)
        for begin in range(bounds[part], bounds[part + 1], BLOCK):
            size = np.uint64(min(BLOCK, bounds[part + 1] - begin))
            mark[size:] = 0
            for k in range(size):
                mark[k] = loud[codes[np.uint64(begin) + k]]
            low, high = at, list_marked(mark, begin, out, at)
            for k in range(low, high):
                i = out[k]
                x = table[codes[i], min(max(index - since[i], 0), last)]
                if x != 0:
                    out[at], value[at] = i, x
                    at += 1
        count[part] = at - bounds[part]


def senders(codes: Tensor, since: Tensor, index: int, table: Tensor) -> tuple[Tensor, Tensor]:
    """Who sends something that follows from the stage and the steps since an event.

    Args:
        codes: (n,) uint8 stages.
        since: (n,) int32 step of the event.
        index: Step now.
        table: (num_stages, K) float32 what is sent in each stage, by steps since the event; the last value holds on.

    Returns:
        (num_rows,) int64 rows, ascending, and their (num_rows,) float32 values, not 0.
    """
    bounds = parts_of(codes.shape[0])
    out = torch.empty(codes.shape[0], dtype=torch.int64)
    value, count = torch.empty(codes.shape[0], dtype=torch.float32), np.zeros(bounds.size - 1, dtype=np.int64)
    loud = np.zeros(256, dtype=np.uint8)
    loud[: table.shape[0]] = (table != 0).any(1).numpy()
    _senders(codes.numpy(), since.numpy(), index, table.numpy(), loud, bounds, out.numpy(), value.numpy(), count)
    return found(out, bounds, count), found(value, bounds, count)


@numba.njit(parallel=True, cache=True, nogil=True)
def _due_rows(codes, code, due, never, index, bounds, out, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for part in numba.prange(count.size):
        at, mark = bounds[part], np.zeros(BLOCK, np.uint8)
        for begin in range(bounds[part], bounds[part + 1], BLOCK):
            size, first = np.uint64(min(BLOCK, bounds[part + 1] - begin)), np.uint64(begin)
            mark[size:] = 0
            for k in range(size):
                mark[k] = (due[first + k] == index) | ((codes[first + k] == code) & (due[first + k] == never))
            at = list_marked(mark, begin, out, at)
        count[part] = at - bounds[part]


def due_rows(codes: Tensor, code: int, due: Tensor, never: int, index: int) -> Tensor:
    """Rows whose time has come, and those in a stage that have none yet.

    Args:
        codes: (n,) uint8 stages.
        code: The stage.
        due: (n,) int32 steps.
        never: The step of those that have none.
        index: Step now.

    Returns:
        (num_rows,) int64, ascending.
    """
    bounds = parts_of(codes.shape[0])
    out, count = torch.empty(codes.shape[0], dtype=torch.int64), np.zeros(bounds.size - 1, dtype=np.int64)
    _due_rows(codes.numpy(), code, due.numpy(), never, index, bounds, out.numpy(), count)
    return found(out, bounds, count)
