r"""Which of several senders it was: an exponential race, keyed by the pair.

Sender j of target i gets the time :math:`E_{ji} / w_{ji}`, with E exponential and drawn from the keys of the two; the
first wins, with probability :math:`w_{ji} / \sum_k w_{ki}`. A pair has its own draw, so the winner does not depend on
the order in which senders are walked, on shards or threads.

Reference: Gumbel (1954), the race being the form of the Gumbel-max trick without its two logarithms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
import torch
from torch import Tensor

from gnabm.random import key_bits, mix, salts, unit_interval, use_torch_threads

NOBODY = -1
"""Key of a winner where nobody sent anything."""
_MARGIN = 1.0 - 1e-9
"""More than a logarithm or a quotient is rounded."""


@dataclass(frozen=True, eq=False)
class Senders:
    """Who sent what to each of n targets, each sender once.

    Args:
        first: (n,) int64 first entry of each target; targets may share entries.
        last: (n,) int64 entry after its last one.
        key: (num_entries,) int64 keys of the senders.
        weight: (num_entries,) float64 what they sent.
    """

    first: Tensor
    last: Tensor
    key: Tensor
    weight: Tensor

    @staticmethod
    def of(target: Tensor, num_targets: int, key: Tensor, weight: Tensor) -> Senders:
        """From messages in ascending order of their senders; what one sends to another in several is added up.

        Args:
            target: (num_messages,) int32 target of each message.
            num_targets: Number of targets.
            key: (num_messages,) int64 keys of the senders.
            weight: (num_messages,) what was sent.
        """
        first = torch.zeros(num_targets + 1, dtype=torch.int64)
        keys, weights = torch.empty_like(key), torch.empty(key.shape[0], dtype=torch.float64)
        last = _group(target.numpy(), key.numpy(), weight.numpy(), first.numpy(), keys.numpy(), weights.numpy())
        return Senders(first[:-1], torch.from_numpy(last), keys, weights)

    def take(self, rows: Tensor) -> Senders:
        """The same for some of the targets."""
        return Senders(self.first.index_select(0, rows), self.last.index_select(0, rows), self.key, self.weight)

    def winners(self, state: int, targets: Tensor, *, but_itself: bool = False) -> Tensor:
        """Draw one sender for each target, with probability proportional to what it sent.

        Args:
            state: Salt of the draw.
            targets: (n,) int64 keys of the targets.
            but_itself: Leave out what a target sent to itself.

        Returns:
            (n,) int64 keys, NOBODY where no sender has a positive weight.
        """
        use_torch_threads()
        out = torch.empty(self.first.shape[0], dtype=torch.int64)
        _race(
            *salts(state), self.first.numpy(), self.last.numpy(), self.key.numpy(), self.weight.numpy(),
            targets.numpy(), but_itself, out.numpy(),
        )  # fmt: skip
        return out


@numba.njit(cache=True, nogil=True)
def _group(target, key, weight, first, out_key, out_weight):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """A counting sort by target that keeps the order in each; returns where each ends."""
    for k in range(target.size):
        first[target[k] + 1] += 1
    for k in range(first.size - 1):
        first[k + 1] += first[k]
    last = first[:-1].copy()
    for k in range(target.size):
        at = last[target[k]]
        # Several messages of a pair share its draw, so they must run as one; in order they stand side by side.
        if at > first[target[k]] and out_key[at - 1] == key[k]:
            out_weight[at - 1] += weight[k]
        else:
            out_key[at], out_weight[at] = key[k], weight[k]
            last[target[k]] += 1
    return last


@numba.njit(parallel=True, cache=True, nogil=True)
def _race(state, second, first, last, key, weight, target, but_itself, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for k in numba.prange(first.size):
        # A stream of the target's own, keyed by the sender: the pair is ordered.
        own = key_bits(state, second, target[k])
        then = mix(own)
        best, winner = np.inf, NOBODY
        for entry in range(np.uint64(first[k]), np.uint64(last[k])):  # unsigned: no test for negative indices
            u = unit_interval(key_bits(own, then, key[entry]))
            # -log(u) >= 1 - u, so most who lose do so without a logarithm, and all who sent nothing.
            if (1.0 - u) * _MARGIN <= best * weight[entry] and not (but_itself and key[entry] == target[k]):
                time = -math.log(u) / weight[entry]
                if time < best:
                    best, winner = time, key[entry]
        out[k] = winner
