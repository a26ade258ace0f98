"""Shards in one process for a test: one thread each, exactly one of them running at a time.

The turn goes round in the order of ranks and changes hands only at a collective, so a run is deterministic and a
kernel of one shard never meets a kernel of another. Runs that matter use the transports of the package `cluster`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor

from gnabm.errors import RunError
from gnabm.exchange import ShardGroup, Solo

T = TypeVar("T")


class _Stopped(Exception):
    """Another shard has failed."""


class _Table:
    """Where the shards meet.

    Args:
        size: Number of shards.
    """

    def __init__(self, size: int) -> None:
        self.size, self.turn = size, 0
        self.changed = threading.Condition()
        # Two rounds are enough: nobody can be two collectives ahead of a shard that has had its turn.
        self.brought: list[list[Any]] = [[None] * size, [None] * size]
        self.rounds = [0] * size
        self.done = [False] * size
        self.error: BaseException | None = None

    def wait(self, rank: int) -> None:
        """Wait for the turn."""
        while self.turn != rank and self.error is None:
            self.changed.wait()
        if self.error is not None:
            raise _Stopped

    def hand_over(self, rank: int) -> None:
        """Give the turn to the next shard that is still running."""
        later = [(rank + k) % self.size for k in range(1, self.size + 1)]
        self.turn = next((r for r in later if not self.done[r]), rank)
        self.changed.notify_all()

    def meet(self, rank: int, value: object) -> list[Any]:
        """Bring a value and take what all brought to this collective."""
        with self.changed:
            brought = self.brought[self.rounds[rank] % 2]
            brought[rank] = value
            self.rounds[rank] += 1
            self.hand_over(rank)
            self.wait(rank)
            if len(set(self.rounds)) > 1 and min(self.rounds) < self.rounds[rank]:
                raise RunError(
                    f"shard {self.rounds.index(min(self.rounds))} left out a collective that shard {rank} is in; "
                    "send, total and draw the same on every shard, whatever its agents are"
                )
        return list(brought)


class InProcessGroup:
    """One shard's view of the shards of this process; made by `on_shards`.

    Args:
        rank: Rank of this shard.
        table: Where they meet.
    """

    def __init__(self, rank: int, table: _Table) -> None:
        self.rank, self.size = rank, table.size
        self._table = table

    def all_to_all(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Send `parts[r]` to rank r; returns what each rank sent here, in the order of ranks."""
        # Copies without history, as a network would deliver: the adjoint of the exchange carries the gradient.
        brought = self._table.meet(self.rank, [part.detach().clone() for part in parts])
        return [sent[self.rank] for sent in brought]

    def all_reduce(self, value: Tensor) -> Tensor:
        """Sum of an int64 tensor over the shards."""
        brought = self._table.meet(self.rank, value)
        result: Tensor = brought[0]
        for other in brought[1:]:
            result = result + other
        return result


def on_shards(size: int, work: Callable[[ShardGroup], T]) -> list[T]:
    """Do the same work on each of some shards.

    Args:
        size: Number of shards.
        work: Called once per shard with its group.

    Returns:
        What each returned, by rank. The first exception of a shard ends all of them and is raised here.
    """
    if size == 1:
        return [work(Solo())]
    table = _Table(size)
    results: list[Any] = [None] * size

    def run(rank: int) -> None:
        try:
            with table.changed:
                table.wait(rank)
            results[rank] = work(InProcessGroup(rank, table))
        except _Stopped:
            pass
        except BaseException as error:
            with table.changed:
                table.error = table.error or error
                table.changed.notify_all()
        finally:
            with table.changed:
                table.done[rank] = True
                table.hand_over(rank)

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if table.error is not None:
        raise table.error
    return results
