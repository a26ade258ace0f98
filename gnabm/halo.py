"""The rows at the borders of shards: who needs which, what they send across, and the edges that wait for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnabm.exchange import Pending, ShardGroup, exchange
from gnabm.rowset import RowSet, is_in, place_of

_ROWS_PER_PIECE = 1 << 20


@dataclass(frozen=True, eq=False)
class Halo:
    """Which owned rows each rank needs, and how many rows come from each.

    Args:
        send: For each rank the (n,) int32 owned rows that it needs, ascending.
        receive: For each rank the number of rows that come from it.
        first: For each rank the place of its rows in the numbering of sources.
        crosses: Whether any rank needs a row of another one; the same on every rank. Where none does, nothing is
            exchanged.
    """

    send: list[Tensor]
    receive: list[int]
    first: list[int]
    crosses: bool

    def dense(self, group: ShardGroup, x: Tensor) -> Tensor:
        """All sources' values: the static exchange, differentiable in x.

        Args:
            group: The shards.
            x: (num_owned, ...).

        Returns:
            (num_sources, ...).
        """
        if not self.crosses:
            return x
        received = exchange(group, [x.index_select(0, rows) for rows in self.send])
        return torch.cat([*received[: group.rank], x, *received[group.rank + 1 :]])

    @cached_property
    def needed(self) -> list[RowSet]:
        """For each rank the rows of `send` as bits."""
        return [RowSet.of(rows) for rows in self.send]

    def start(self, group: ShardGroup, rows: Tensor, values: Tensor) -> Crossing:
        """Begin to bring what some rows send to the shards that need it.

        Args:
            group: The shards.
            rows: (num_rows,) int64 owned rows whose values are not zero, ascending.
            values: (num_rows,) float32 or float64 values.

        Returns:
            The exchange under way; without gradient.
        """
        if not self.crosses:
            return Crossing(self, group.rank, rows, values, None)
        parts = [torch.from_numpy(pack(needed, rows.numpy(), _words(values.contiguous()))) for needed in self.needed]
        return Crossing(self, group.rank, rows, values, group.start(parts))


@dataclass(frozen=True, eq=False)
class Crossing:
    """What some rows send, on its way across the borders.

    Args:
        halo: The static exchange.
        rank: Rank of this shard.
        rows: (num_rows,) int64 owned rows that send.
        values: (num_rows,) what they send.
        pending: The exchange, or None where nothing crosses a border.
    """

    halo: Halo
    rank: int
    rows: Tensor
    values: Tensor
    pending: Pending | None

    def wait(self) -> tuple[Tensor, Tensor]:
        """(num_active,) int64 sources that send, ascending, and their (num_active,) values; called once."""
        if self.pending is None:
            return self.rows, self.values
        messages = self.pending.wait()
        sizes = [len(self.rows) if r == self.rank else len(message) for r, message in enumerate(messages)]
        ends = np.cumsum([0, *sizes])
        sources = torch.empty(int(ends[-1]), dtype=torch.int64)
        values = torch.empty(int(ends[-1]), dtype=self.values.dtype)
        words = _words(values)
        for r, message in enumerate(messages):
            low, high, first = ends[r], ends[r + 1], self.halo.first[r]
            if r == self.rank:
                torch.add(self.rows, first, out=sources[low:high])
                values[low:high] = self.values
            else:
                _unpack(message.numpy(), first, sources.numpy()[low:high], words[low:high])
        return sources, values


def _words(values: Tensor) -> NDArray[np.int32]:
    """Memory of (n,) contiguous values as (n, w) words of 32 bits."""
    return values.numpy().view(np.int32).reshape(len(values), values.element_size() // 4)


def pack(needed: RowSet, rows: NDArray[np.int64], words: NDArray[np.int32]) -> NDArray[np.int32]:
    """The message about those of some rows that are needed.

    Args:
        needed: The rows that the receiver needs.
        rows: (n,) rows, ascending.
        words: (n, w) what each sends, as words of 32 bits.

    Returns:
        (m, 1 + w): place among the needed rows, words.
    """
    low, high = np.searchsorted(rows, [needed.first, needed.first + 64 * needed.bits.size])
    message = np.empty((min(high - low, needed.size), 1 + words.shape[1]), dtype=np.int32)
    return message[: _pack(rows[low:high], words[low:high], needed.first, needed.bits, needed.before, message)]


@numba.njit(cache=True, nogil=True)
def _pack(rows, words, first, bits, before, message):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    count = 0
    for k in range(rows.size):
        if is_in(rows[k], first, bits):
            message[count, 0] = place_of(rows[k], first, bits, before)
            for c in range(words.shape[1]):
                message[count, 1 + c] = words[k, c]
            count += 1
    return count


@numba.njit(cache=True, nogil=True)
def _unpack(message, first, sources, words):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for k in range(message.shape[0]):
        sources[k] = first + message[k, 0]
        for c in range(words.shape[1]):
            words[k, c] = message[k, 1 + c]


def connect(raw: dict[str, Any], bounds: tuple[int, ...], group: ShardGroup) -> tuple[NDArray[np.int64] | None, Halo]:
    """Number the sources of all layers and tell each owner which of its rows are needed."""
    if group.size == 1:
        return None, Halo([torch.empty(0, dtype=torch.int32)], [0], [0], False)
    low, high = bounds[group.rank], bounds[group.rank + 1]
    needed = [np.empty(0, dtype=np.int64)]
    for layer in raw.values():
        rows = layer["rows"]
        for first in range(0, len(rows), _ROWS_PER_PIECE):
            piece = rows[first : first + _ROWS_PER_PIECE]
            needed.append(np.unique(piece[(piece < low) | (piece >= high)]).astype(np.int64))
    halo = np.unique(np.concatenate(needed))
    ends = np.searchsorted(halo, bounds)
    wanted = [torch.from_numpy(halo[ends[r] : ends[r + 1]].copy()) for r in range(group.size)]
    send = [(rows - low).to(torch.int32) for rows in group.all_to_all(wanted)]
    receive = [len(rows) for rows in wanted]
    receive[group.rank] = high - low
    first = np.concatenate([[0], np.cumsum(receive)[:-1]]).astype(int).tolist()
    receive[group.rank] = 0
    below = int(ends[group.rank])
    sources = np.concatenate([halo[:below], np.arange(low, high, dtype=np.int64), halo[below:]])
    crosses = bool(group.all_reduce(torch.tensor(len(halo))))
    return sources, Halo(send, receive, first, crosses)


def number(rows: NDArray[Any], sources: NDArray[np.int64], low: int, high: int) -> NDArray[np.int32]:
    """Places of global rows among the sources of the shard; only those of others are searched for."""
    places = np.empty(len(rows), dtype=np.int32)
    shift = int(np.searchsorted(sources, low)) - low
    for first in range(0, len(rows), _ROWS_PER_PIECE):
        piece = rows[first : first + _ROWS_PER_PIECE].astype(np.int64)
        outside = np.flatnonzero((piece < low) | (piece >= high))
        searched = np.searchsorted(sources, piece[outside])
        piece += shift
        piece[outside] = searched
        places[first : first + _ROWS_PER_PIECE] = piece
    return places


Out = tuple[Tensor, Tensor, Tensor | None]
"""Edges by source: indptr, target, weight."""


def split_out(
    indptr: Tensor, source: Tensor, weight: Tensor | None, first_owned: int, num_sources: int
) -> tuple[Out, Out]:
    """Out-edges of a shard in two: those whose targets need nobody else's sources, and the others.

    The first can be pushed while what others send is on its way; a target is in one of them with all its edges, so its
    sum has the order of the whole.

    Args:
        indptr: (num_owned + 1,) first in-edge of each owned agent.
        source: (num_edges,) int32 sources, ascending within a target.
        weight: (num_edges,) or None.
        first_owned: Place of the first owned agent among the sources.
        num_sources: Number of sources.

    Returns:
        The interior by owned row: indptr (num_owned + 1,), target (num_interior,) int32 ascending within a row, weight
        or None; and the boundary by source: indptr (num_sources + 1,), target, weight.
    """
    num_owned = len(indptr) - 1
    waits = torch.zeros(num_owned, dtype=torch.bool)
    num_boundary = _find_waiting(indptr.numpy(), source.numpy(), first_owned, waits.numpy())
    weights = np.empty(0, dtype=np.float32) if weight is None else weight.numpy()
    made = []
    for which, shift, num_rows, num_edges in (
        (False, first_owned, num_owned, len(source) - num_boundary),
        (True, 0, num_sources, num_boundary),
    ):
        starts = torch.zeros(num_rows + 1, dtype=torch.int32 if num_edges < 2**31 else torch.int64)
        target = torch.empty(num_edges, dtype=torch.int32)
        of_edge = None if weight is None else torch.empty(num_edges, dtype=weight.dtype)
        _fill_out(
            indptr.numpy(), source.numpy(), weights, waits.numpy(), which, shift, starts.numpy(), target.numpy(),
            weights[:0] if of_edge is None else of_edge.numpy(),
        )  # fmt: skip
        made.append((starts, target, of_edge))
    return made[0], made[1]


@numba.njit(cache=True, nogil=True)
def _find_waiting(indptr, source, first_owned, waits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Mark the targets that a source of another shard reaches; returns the number of their edges."""
    num_edges = 0
    for target in range(waits.size):
        first, last = indptr[target], indptr[target + 1]
        # Sources ascend, so one of another shard is the first or the last.
        if last > first and (source[first] < first_owned or source[last - 1] >= first_owned + waits.size):
            waits[target] = True
            num_edges += last - first
    return num_edges


@numba.njit(cache=True, nogil=True)
def _fill_out(  # type: ignore[no-untyped-def]  # noqa: ANN202
    indptr, source, weight, waits, which, shift, out_indptr, out_target, out_weight,  # noqa: ANN001
):  # fmt: skip
    for target in range(waits.size):
        if waits[target] == which:
            for edge in range(indptr[target], indptr[target + 1]):
                out_indptr[source[edge] - shift + 1] += 1
    for row in range(out_indptr.size - 1):
        out_indptr[row + 1] += out_indptr[row]
    fill = out_indptr[:-1].copy()
    for target in range(waits.size):
        if waits[target] == which:
            for edge in range(indptr[target], indptr[target + 1]):
                row = source[edge] - shift
                at = fill[row]
                fill[row] += 1
                out_target[at] = target
                if out_weight.size:
                    out_weight[at] = weight[edge]
