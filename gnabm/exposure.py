"""What the agents receive through all layers, read row by row when it is needed: their sum is not stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnabm.columns import Keys
from gnabm.errors import DataError
from gnabm.random import salts
from gnabm.scan import BLOCK, Named, count_outside, found, list_marked, mark_events, parts_of, refuse_labels

_LAYERS_AT_ONCE = 8
_MARGIN = 1.0 + 1e-5
"""Over the bound a of 1 - exp(-a): more than either of them can be rounded."""
_NO_PLACE = np.empty(0, dtype=np.int32)
_NO_CODE = np.empty(0, dtype=np.uint8)
_NONE = np.empty(0, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Part:
    """What one layer brings to a row.

    Args:
        table: (num_owned,) float32 sums by row; or (num_places + 1,) sums of each place, times its weight, after a 0
            for those who have no place.
        place: (num_owned,) int32 place of each row, -1 for none; None where the table is by row.
        activity_code: (num_owned,) uint8 or int32 code of the activity of each row, or None for 1.
        activity: (num_codes,) float32 activities.
        factor: Factor of the layer.
    """

    table: Tensor
    place: Tensor | None
    activity_code: Tensor | None
    activity: Tensor | None
    factor: float


@numba.njit(inline="always")
def _add_layer(buffer, begin, size, table, place, code, activity, factor):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    # In the order and the type of the plain sum, so that the bits are the same. Indices are unsigned: the compiler then
    # drops the test for negative ones.
    first = np.uint64(begin)
    if not place.size:
        for k in range(np.uint64(size)):
            buffer[k] += table[first + k] * factor
    elif not code.size:
        for k in range(np.uint64(size)):
            buffer[k] += table[np.uint64(place[first + k] + 1)] * factor
    else:
        for k in range(np.uint64(size)):
            buffer[k] += table[np.uint64(place[first + k] + 1)] * activity[np.uint64(code[first + k])] * factor


@numba.njit(inline="always")
def _weigh(buffer, begin, size, rate, group, by_group, risk):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Turn sums into hazards; returns how many are no number >= 0."""
    first, bad = np.uint64(begin), 0
    for k in range(np.uint64(size)):
        buffer[k] *= rate
    if by_group.size:
        for k in range(np.uint64(size)):
            buffer[k] *= by_group[np.uint64(group[first + k])]
    if risk.size:
        for k in range(np.uint64(size)):
            buffer[k] *= risk[first + k]
    for k in range(np.uint64(size)):
        bad += not buffer[k] >= 0
    return bad


@numba.njit(parallel=True, cache=True, nogil=True)
def _candidates(  # type: ignore[no-untyped-def]  # noqa: ANN202
    state, second, first_key, keys, codes, source, tables, places, activity_codes, activities, factors, rate,  # noqa: ANN001
    group, by_group, risk, dt, bounds, out, hazard, count, bad, wrong,  # noqa: ANN001
):  # fmt: skip
    bound = dt * _MARGIN  # in float64, which holds a float32 hazard exactly
    for part in numba.prange(count.size):
        at = bounds[part]
        buffer, mark = np.empty(BLOCK, np.float32), np.zeros(BLOCK, np.uint8)
        for begin in range(bounds[part], bounds[part + 1], BLOCK):
            size = min(BLOCK, bounds[part + 1] - begin)
            buffer[:size] = 0
            for layer in range(factors.size):
                _add_layer(
                    buffer, begin, size, tables[layer], places[layer], activity_codes[layer], activities[layer],
                    factors[layer],
                )  # fmt: skip
            outside = count_outside(begin, size, group, by_group.size) if by_group.size else 0
            if outside:
                bad[part, 0] += outside
                continue
            if _weigh(buffer, begin, size, rate, group, by_group, risk):
                # Seldom: what others than those in the stage would receive may be anything.
                for k in range(size):
                    if codes[begin + k] == source and not buffer[k] >= 0:
                        bad[part, 1] += 1
                        wrong[part] = buffer[k]
            mark_events(mark, buffer, begin, size, codes, source, state, second, first_key, keys, bound)
            low, at = at, list_marked(mark, begin, out, at)
            for k in range(low, at):
                hazard[k] = buffer[out[k] - begin]
        count[part] = at - bounds[part]


def candidates(
    parts: Sequence[Part],
    codes: Tensor,
    source: int,
    *,
    state: int,
    keys: Keys,
    rate: Tensor,
    dt: float,
    group: Named | None = None,
    by_group: Tensor | None = None,
    risk: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Rows that an event of hazard :math:`r f_i \sum_l h_{il}` may happen to in a step, by an upper bound.

    Args:
        parts: What each layer brings, in the order of the layers.
        codes: (n,) uint8 stages.
        source: Stage of those who can have the event.
        state: Salt of the draw that decides.
        keys: Keys of all rows.
        rate: () float32 r.
        dt: Length of the step in days.
        group: (n,) integer group of each row, with `by_group`.
        by_group: (num_groups,) float32 factor by group, or None for 1.
        risk: (n,) float32 factor of each row, or None for 1.

    Returns:
        (num_rows,) int64 rows, ascending, and their (num_rows,) float32 hazards per day: all whose uniform number lies
        below hazard times dt, and hardly any other.

    Raises:
        DataError: A row is in no group, or the hazard of one in the stage is no number >= 0.
    """
    bounds = parts_of(codes.shape[0])
    out, hazard = torch.empty(codes.shape[0], dtype=torch.int64), torch.empty(codes.shape[0], dtype=torch.float32)
    count, bad = np.zeros(bounds.size - 1, dtype=np.int64), np.zeros((bounds.size - 1, 2), dtype=np.int64)
    wrong = np.zeros(bounds.size - 1, dtype=np.float32)
    _candidates(  # type: ignore[call-arg]
        *salts(state), *keys.words, codes.numpy(), source, *_arrays(parts),
        np.array([p.factor for p in parts], dtype=np.float32), np.float32(rate.item()),
        _NO_CODE if group is None or by_group is None else group.values.numpy(),
        _NONE if by_group is None else by_group.detach().numpy(),  # a forward run has no gradient
        _NONE if risk is None else risk.detach().numpy(),
        dt, bounds, out.numpy(), hazard.numpy(), count, bad, wrong,
    )  # fmt: skip
    if group is not None and by_group is not None and bad[:, 0].any():
        refuse_labels(group, by_group.shape[0])
    if bad[:, 1].any():
        value = wrong[bad[:, 1].argmax()]
        raise DataError(
            f"a hazard must be a number >= 0, got {value:g} ({bad[:, 1].sum()} such rows); check the rule's rates and "
            "the agents' risks"
        )
    return found(out, bounds, count), found(hazard, bounds, count)


def _arrays(parts: Sequence[Part]) -> tuple[tuple[NDArray[Any], ...], ...]:
    """Tables, places, codes and activities of the layers; empty ones fill up, so that few kernels are compiled."""
    wide = any(p.activity_code is not None and p.activity_code.dtype != torch.uint8 for p in parts)
    code, none = (torch.int32, _NO_PLACE) if wide else (torch.uint8, _NO_CODE)  # a kernel takes layers of one type
    more = -len(parts) % _LAYERS_AT_ONCE if parts else _LAYERS_AT_ONCE
    return (
        (*(p.table.numpy() for p in parts), *(_NONE,) * more),
        (*(_NO_PLACE if p.place is None else p.place.numpy() for p in parts), *(_NO_PLACE,) * more),
        (*(none if p.activity_code is None else p.activity_code.to(code).numpy() for p in parts), *(none,) * more),
        (*(_NONE if p.activity is None else p.activity.numpy() for p in parts), *(_NONE,) * more),
    )  # fmt: skip
