"""The rows at the borders of shards: who needs which, and the exchange of what they send."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnabm.exchange import ShardGroup, exchange, exchange_columns
from gnabm.messages import nonzero_rows


@dataclass(frozen=True, eq=False)
class Halo:
    """Which owned rows each rank needs, and how many rows come from each.

    Args:
        send: For each rank the (n,) int64 owned rows that it needs, ascending.
        receive: For each rank the number of rows that come from it.
        first: For each rank the place of its rows in the numbering of sources.
    """

    send: list[Tensor]
    receive: list[int]
    first: list[int]

    def dense(self, group: ShardGroup, x: Tensor) -> Tensor:
        """All sources' values: the static exchange, differentiable in x.

        Args:
            group: The shards.
            x: (num_owned, ...).

        Returns:
            (num_sources, ...).
        """
        if group.size == 1:
            return x
        received = exchange(group, [x.index_select(0, rows) for rows in self.send])
        return torch.cat([*received[: group.rank], x, *received[group.rank + 1 :]])

    def active(self, group: ShardGroup, x: Tensor) -> tuple[Tensor, Tensor]:
        """The sources that send something: only non-zero values cross the border.

        Args:
            group: The shards.
            x: (num_owned,) float.

        Returns:
            (num_active,) int64 sources, ascending, and their (num_active,) values.
        """
        own = nonzero_rows(x)
        value = x.index_select(0, own)
        if group.size == 1:
            return own, value
        parts = []
        for rows in self.send:
            boundary = x.index_select(0, rows)
            at = nonzero_rows(boundary)
            parts.append((at.to(torch.int32), boundary.index_select(0, at)))
        got = exchange_columns(group, parts)
        sources = [at.to(torch.int64) + self.first[r] for r, (at, _) in enumerate(got)]
        values = [v for _, v in got]
        sources[group.rank], values[group.rank] = own + self.first[group.rank], value
        return torch.cat(sources), torch.cat(values)


def connect(raw: dict[str, Any], bounds: tuple[int, ...], group: ShardGroup) -> tuple[NDArray[np.int64] | None, Halo]:
    """Number the sources of all layers and tell each owner which of its rows are needed."""
    if group.size == 1:
        return None, Halo([torch.empty(0, dtype=torch.int64)], [0], [0])
    low, high = bounds[group.rank], bounds[group.rank + 1]
    needed = [np.empty(0, dtype=np.int64)]
    for layer in raw.values():
        rows = layer["rows"]
        needed.append(np.unique(rows[(rows < low) | (rows >= high)]).astype(np.int64))
    halo = np.unique(np.concatenate(needed))
    ends = np.searchsorted(halo, bounds)
    wanted = [torch.from_numpy(halo[ends[r] : ends[r + 1]].copy()) for r in range(group.size)]
    send = [rows - low for rows in group.all_to_all(wanted)]
    receive = [len(rows) for rows in wanted]
    receive[group.rank] = high - low
    first = np.concatenate([[0], np.cumsum(receive)[:-1]]).astype(int).tolist()
    receive[group.rank] = 0
    below = int(ends[group.rank])
    sources = np.concatenate([halo[:below], np.arange(low, high, dtype=np.int64), halo[below:]])
    return sources, Halo(send, receive, first)


def number(rows: NDArray[Any], sources: NDArray[np.int64], low: int, high: int) -> NDArray[np.int64]:
    """Places of global rows among the sources of the shard; only those of others are searched for."""
    local = rows.astype(np.int64)
    outside = np.flatnonzero((rows < low) | (rows >= high))
    local += np.searchsorted(sources, low) - low
    local[outside] = np.searchsorted(sources, rows[outside])
    return local
