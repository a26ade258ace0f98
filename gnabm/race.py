r"""Which of several senders it was: an exponential race, keyed by the pair.

Sender j of target i gets the time :math:`E_{ji} / w_{ji}`, with E exponential and drawn from the keys of the two; the
first wins, with probability :math:`w_{ji} / \sum_k w_{ki}`. A pair has its own draw, so the winner does not depend on
the order in which senders are walked, on shards or threads.

Reference: Gumbel (1954), the race being the form of the Gumbel-max trick without its two logarithms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnabm.random import key_bits, mix, salts, unit_interval

_NONE = torch.empty(0, dtype=torch.float32)
NOBODY = -1
"""Key of a winner where nobody sent anything."""


@dataclass(frozen=True, eq=False)
class Senders:
    """Who sent what to each of n targets; repeats of a sender stand side by side.

    Args:
        first: (n,) int64 first entry of each target.
        last: (n,) int64 entry after its last one.
        sender: (num_entries,) int32 index of each entry's sender.
        value: (num_senders,) what each sends, by that index.
        key: (num_senders,) int64 keys.
        entry_weight: (num_entries,) weight of each entry, or None for 1.
        sender_weight: (num_senders,) weight of each sender, or None for 1.
        itself: (n,) int64 index of the target among the senders, which is left out; None where it does not occur.
    """

    first: Tensor
    last: Tensor
    sender: Tensor
    value: Tensor
    key: Tensor
    entry_weight: Tensor | None = None
    sender_weight: Tensor | None = None
    itself: Tensor | None = None

    def take(self, rows: Tensor) -> Senders:
        """The same for some of the targets."""
        return Senders(
            self.first.index_select(0, rows), self.last.index_select(0, rows), self.sender, self.value, self.key,
            self.entry_weight, self.sender_weight, None if self.itself is None else self.itself.index_select(0, rows),
        )  # fmt: skip

    def sums(self) -> Tensor:
        """(n,) sums of weight times value, in the order of the entries: the bits of the message kernels."""
        out = torch.empty(self.first.shape[0], dtype=self.value.dtype)
        entry_weight, sender_weight = self._weights()
        _sum(
            self.first.numpy(), self.last.numpy(), self.sender.numpy(), self.value.numpy(), entry_weight, sender_weight,
            out.numpy(),
        )  # fmt: skip
        return out

    def winners(self, state: int, targets: Tensor) -> Tensor:
        """Draw one sender for each target, with probability proportional to weight times value.

        Args:
            state: Salt of the draw.
            targets: (n,) int64 keys of the targets.

        Returns:
            (n,) int64 keys, NOBODY where no sender has a positive weight.
        """
        out = torch.empty(self.first.shape[0], dtype=torch.int64)
        itself = torch.full_like(out, -1) if self.itself is None else self.itself
        entry_weight, sender_weight = self._weights()
        _race(
            *salts(state), self.first.numpy(), self.last.numpy(), self.sender.numpy(), self.value.numpy(), entry_weight,
            sender_weight, self.key.numpy(), itself.numpy(), targets.numpy(), out.numpy(),
        )  # fmt: skip
        return out

    def _weights(self) -> tuple[NDArray[Any], NDArray[Any]]:
        entry, sender = (
            (_NONE if weight is None else weight).to(self.value.dtype).numpy()
            for weight in (self.entry_weight, self.sender_weight)
        )
        return entry, sender


@numba.njit(inline="always")
def _product(entry, s, value, entry_weight, sender_weight):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    # In the type of the value, so that what vanishes in the hazard vanishes here.
    x = value[s]
    if sender_weight.size:
        x = x * sender_weight[s]
    if entry_weight.size:
        x = x * entry_weight[entry]
    return x


@numba.njit(cache=True, nogil=True)
def _sum(first, last, sender, value, entry_weight, sender_weight, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for k in range(first.size):
        result = out.dtype.type(0)
        for entry in range(first[k], last[k]):
            result += _product(entry, sender[entry], value, entry_weight, sender_weight)
        out[k] = result


# On one thread: few senders have sent something, and only those cost a logarithm.
@numba.njit(cache=True, nogil=True)
def _race(  # type: ignore[no-untyped-def]  # noqa: ANN202
    state,  # noqa: ANN001
    second,  # noqa: ANN001
    first,  # noqa: ANN001
    last,  # noqa: ANN001
    sender,  # noqa: ANN001
    value,  # noqa: ANN001
    entry_weight,  # noqa: ANN001
    sender_weight,  # noqa: ANN001
    key,  # noqa: ANN001
    itself,  # noqa: ANN001
    target,  # noqa: ANN001
    out,  # noqa: ANN001
):
    for k in range(first.size):
        # A stream of the target's own, keyed by the sender: the pair is ordered.
        own = key_bits(state, second, target[k])
        then = mix(own)
        best, winner = np.inf, NOBODY
        entry = first[k]
        while entry < last[k]:
            s = sender[entry]
            weight = 0.0
            # Repeats of a pair share its draw, so they must run as one.
            while entry < last[k] and key[sender[entry]] == key[s]:
                weight += _product(entry, sender[entry], value, entry_weight, sender_weight)
                entry += 1
            if weight > 0.0 and s != itself[k]:
                time = -math.log(unit_interval(key_bits(own, then, key[s]))) / weight
                if time < best:
                    best, winner = time, key[s]
        out[k] = winner


@numba.njit(cache=True, nogil=True)
def _count_entries(slot, target, value, first):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for entry in range(target.size):
        at = slot[target[entry]]
        if at >= 0 and value[entry] > 0:
            first[at + 1] += 1


@numba.njit(cache=True, nogil=True)
def _fill_entries(slot, target, value, fill, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for entry in range(target.size):
        at = slot[target[entry]]
        if at >= 0 and value[entry] > 0:
            out[fill[at]] = entry
            fill[at] += 1


def entries_of(rows: Tensor, target: Tensor, value: Tensor, num_targets: int) -> tuple[Tensor, Tensor]:
    """The entries of some targets, in their order, of a list in any order of targets.

    Args:
        rows: (n,) int64 targets wanted.
        target: (num_entries,) int64 target of each entry.
        value: (num_entries,) what was sent; entries that sent nothing are left out.
        num_targets: Number of targets.

    Returns:
        (n + 1,) int64 first entry of each target in the second: (num_found,) int64 positions in the list.
    """
    slot = torch.full((num_targets,), -1, dtype=torch.int32)
    slot[rows] = torch.arange(rows.shape[0], dtype=torch.int32)
    first = torch.zeros(rows.shape[0] + 1, dtype=torch.int64)
    _count_entries(slot.numpy(), target.numpy(), value.numpy(), first.numpy())
    torch.cumsum(first, 0, out=first)
    found = torch.empty(int(first[-1]), dtype=torch.int64)
    _fill_entries(slot.numpy(), target.numpy(), value.numpy(), first[:-1].clone().numpy(), found.numpy())
    return first, found
