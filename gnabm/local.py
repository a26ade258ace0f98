"""The `local` transport: all shards in one process, one thread each, exactly one running at a time.

A shard runs until it meets a collective, leaves its part there and hands over to the next rank. So a run is
deterministic, nothing else needs a lock, and a shard that goes another way than the others is seen at once and
named: this is the transport for tests and for debugging. It is no faster than one shard.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor

from gnabm.errors import RunError
from gnabm.exchange import Arrived, Pending, ShardGroup, Solo, Traffic

T = TypeVar("T")
_PASSED_OVER = tuple(str(Path(__file__).with_name(name)) for name in ("local.py", "exchange.py"))


class _Stopped(BaseException):
    """Ends a shard's thread because another shard failed; never seen outside."""


@dataclass(frozen=True)
class _Call:
    """What a rank asks of the others: all must ask the same."""

    kind: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    site: str

    def __str__(self) -> str:
        name = str(self.dtype).removeprefix("torch.")
        return f"{self.kind} of {name} {self.shape} at {self.site}"


class LocalGroup(ShardGroup):
    """One shard's end of the group; an exchange is over when it has been started, since shards take turns.

    Args:
        threads: The shards' threads.
        rank: Rank of this shard.
    """

    def __init__(self, threads: LocalThreads, rank: int) -> None:
        self.threads, self.rank, self.size, self.traffic = threads, rank, threads.size, Traffic()

    def start(self, parts: Sequence[Tensor]) -> Pending:
        """Send parts[r] to rank r; what each rank sent here has come."""
        if len(parts) != self.size:
            raise RunError(f"all_to_all needs a part for each of {self.size} ranks, got {len(parts)}")
        call = _Call("all_to_all", parts[0].dtype, tuple(parts[0].shape[1:]), _site())
        # Detached: the tensors enter other ranks' autograd graphs, where the exchange's adjoint stands for them.
        # Copied: a rank goes on, and may change what it sent in place, before the next one has read it.
        sent = self.threads.meet(self.rank, call, [p.detach().clone() for p in parts])
        self.traffic.exchanges += 1
        self.traffic.bytes += sum(p.numel() * p.element_size() for r, p in enumerate(parts) if r != self.rank)
        return Arrived([parts_of[self.rank] for parts_of in sent])

    def all_reduce(self, value: Tensor) -> Tensor:
        """Sum of an int64 tensor over the shards."""
        self.traffic.exchanges += 1
        call = _Call("all_reduce", value.dtype, tuple(value.shape), _site())
        return torch.stack(self.threads.meet(self.rank, call, value.clone())).sum(0)


def _site() -> str:
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PASSED_OVER):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} ({frame.f_code.co_name})"


class LocalThreads:
    """Threads of k shards; a context manager.

    Args:
        size: Number of shards.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._changed = threading.Condition()
        self._task: Callable[[LocalGroup], Any] | None = None
        self._round, self._turn, self._closed = 0, 0, False
        self._live: set[int] = set()
        self._results: list[Any] = []
        self._failure: BaseException | None = None
        self._calls: dict[int, dict[int, tuple[_Call, Any]]] = {}
        self._made = [0] * size
        self._threads = [
            threading.Thread(target=self._work, args=(rank,), name=f"shard-{rank}", daemon=True) for rank in range(size)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> LocalThreads:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the threads."""
        with self._changed:
            self._closed = True
            self._failure = self._failure or _Stopped()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def each(self, task: Callable[[LocalGroup], T]) -> list[T]:
        """Run a task on every shard and return their results in the order of ranks.

        Args:
            task: Gets the shard's end of the group; may call its collectives.

        Raises:
            RunError: The ranks called different collectives; both are named.
            BaseException: What the first failing shard raised.
        """
        with self._changed:
            self._task, self._failure, self._turn = task, None, 0
            self._results, self._live = [None] * self.size, set(range(self.size))
            self._calls, self._made = {}, [0] * self.size
            self._round += 1
            self._changed.notify_all()
            try:
                self._changed.wait_for(lambda: not self._live)
            except BaseException as error:  # an interrupt: the shards stop at their next collective
                self._failure = error
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._live)
            self._task = None
            failure, results, self._calls = self._failure, self._results, {}
        if failure is not None:
            raise failure
        return results

    def meet(self, rank: int, call: _Call, value: Any) -> list[Any]:  # noqa: ANN401
        """Leave a value at the next collective; returns what every rank left there.

        Args:
            rank: The caller.
            call: What it asks.
            value: What it leaves.
        """
        with self._changed:
            if self._failure is not None:
                raise _Stopped
            number = self._made[rank]
            self._made[rank] += 1
            left = self._calls.setdefault(number, {})
            self._refuse_other_call(rank, number, call, left)
            left[rank] = (call, value)
            self._hand_over(rank)
            self._changed.wait_for(lambda: self._failure is not None or (self._turn == rank and len(left) == self.size))
            if self._failure is not None:
                raise _Stopped
            if min(self._made) > number:
                self._calls.pop(number, None)
            return [left[r][1] for r in range(self.size)]

    def _refuse_other_call(self, rank: int, number: int, call: _Call, left: dict[int, tuple[_Call, Any]]) -> None:
        ended = sorted(set(range(self.size)) - self._live)
        if ended:
            raise RunError(f"rank {rank} calls {call} as collective {number}, but rank {ended[0]} {_ENDED}; {_CURE}")
        for other, (theirs, _) in sorted(left.items()):
            if theirs != call:
                raise RunError(
                    f"ranks disagree on collective {number}: rank {other} calls {theirs}, rank {rank} calls {call}; "
                    f"{_CURE}"
                )

    def _hand_over(self, rank: int) -> None:
        """Give the turn to the next rank that lives."""
        later = [r % self.size for r in range(rank + 1, rank + self.size + 1)]
        self._turn = next((r for r in later if r in self._live), -1)
        self._changed.notify_all()

    def _work(self, rank: int) -> None:
        group, done = LocalGroup(self, rank), 0
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed or (self._round > done and (self._turn == rank or self._failure is not None))  # noqa: B023
                )
                if self._closed:
                    self._live.discard(rank)
                    self._changed.notify_all()
                    return
                done, task = self._round, self._task
            try:
                if self._failure is None and task is not None:
                    self._results[rank] = task(group)
            except _Stopped:
                pass
            except BaseException as error:  # handed to the caller of `each`, whatever it is
                self._failure = self._failure or error
            finally:
                self._end(rank)

    def _end(self, rank: int) -> None:
        with self._changed:
            self._live.discard(rank)
            waiting = {r: c for left in self._calls.values() if len(left) < self.size for r, (c, _) in left.items()}
            if waiting and self._failure is None:
                other, call = min(waiting.items())
                self._failure = RunError(f"rank {other} waits in {call}, but rank {rank} {_ENDED}; {_CURE}")
            self._hand_over(rank)


_ENDED = "has ended"
_CURE = (
    "every shard must make the same exchanges in the same order: a rule may not choose by its own rows whether it "
    "sends or totals"
)


def on_shards(size: int, work: Callable[[ShardGroup], T]) -> list[T]:
    """Do the same work on each of some shards of this process.

    Args:
        size: Number of shards.
        work: Called once per shard with its end of the group.

    Returns:
        What each returned, by rank.
    """
    if size == 1:
        return [work(Solo())]
    with LocalThreads(size) as threads:
        return threads.each(work)
