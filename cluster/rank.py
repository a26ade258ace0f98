"""What runs inside an actor: the gloo group, and the worker behind it."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numba
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from cluster.worker import Job, Worker
from gnabm.errors import RunError
from gnabm.exchange import Pending, ShardGroup, Traffic, as_bits
from gnabm.population import Population
from gnabm.random import use_torch_threads

DEADLINE = timedelta(seconds=120)
"""How long a rank waits for the others in one exchange."""


class PeerLostError(RunError):
    """An exchange failed because another rank is gone or late."""


_HEADER = 16
_DISAGREE = (
    "shards make different exchanges: a rule may not choose by its own rows whether it sends or totals; run it with "
    "transport='local', which names the rule"
)


class GlooGroup(ShardGroup):
    """The process group as one rank sees it.

    A message travels in a frame of fixed size together with its length, so that a short one costs a single round; what
    does not fit follows from rank to rank. An exchange that is started goes on in a thread while the rank works; all
    others are made where they are called, after it, so that every rank makes them in one order.

    Args:
        rank: This rank.
        size: Number of ranks.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size, self.traffic = rank, size, Traffic()
        self.calls = 0
        frame = max(1 << 10, (1 << 17) // size // 64 * 64)  # whole words of any type
        self.leaving, self.arriving = (torch.zeros(size, frame, dtype=torch.uint8) for _ in range(2))
        self.room = frame - _HEADER
        self.thread = ThreadPoolExecutor(1, "exchange")
        self.under_way: Future[list[Tensor]] | None = None

    def start(self, parts: Sequence[Tensor]) -> Pending:
        """Begin to send parts[r] to rank r."""
        self._settle()
        self.under_way = self.thread.submit(self._exchange, parts, self._agreed(parts))
        return _UnderWay(self, self.under_way)

    def all_to_all(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Send parts[r] to rank r; returns what each rank sent here."""
        with self.waiting():
            self._settle()
            return self._exchange(parts, self._agreed(parts))

    def all_reduce(self, value: Tensor) -> Tensor:
        """Sum of an int64 tensor over the shards."""
        self.traffic.exchanges += 1
        summed = value.clone()
        with self.waiting():
            self._settle()
            try:
                dist.all_reduce(summed)
            except RuntimeError as error:
                raise _lost(error, "all_reduce") from error
        return summed

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time as spent for others."""
        began = time.perf_counter()
        yield
        self.traffic.seconds += time.perf_counter() - began

    def _settle(self) -> None:
        if self.under_way is not None:
            self.under_way.result()

    def _agreed(self, parts: Sequence[Tensor]) -> int:
        """What all ranks must say alike at this exchange; counts it."""
        self.calls += 1
        self.traffic.exchanges += 1
        self.traffic.bytes += sum(p.numel() * p.element_size() for r, p in enumerate(parts) if r != self.rank)
        return zlib.crc32(f"{self.calls} {parts[0].dtype} {tuple(parts[0].shape[1:])}".encode())

    def _exchange(self, parts: Sequence[Tensor], call: int) -> list[Tensor]:
        # The exchange's adjoint stands for the gradient of what goes over the wire.
        sent = [as_bits(p, torch.uint8) for p in parts]
        self.leaving.numpy()[:, :_HEADER].view(np.int64)[:] = [(part.numel(), call) for part in sent]
        for frame, part in zip(self.leaving.numpy(), sent, strict=True):
            frame[_HEADER : _HEADER + part.numel()] = part[: self.room].numpy()
        try:
            dist.all_to_all_single(self.arriving, self.leaving)
            sizes, calls = self.arriving.numpy()[:, :_HEADER].view(np.int64).T
            if (calls != call).any():
                raise RunError(_DISAGREE)
            received = self._rest(sizes.tolist(), sent)
        except RuntimeError as error:
            raise error if isinstance(error, RunError) else _lost(error, "all_to_all") from error
        received[self.rank] = sent[self.rank]
        return [r.view(parts[0].dtype).reshape(-1, *parts[0].shape[1:]) for r in received]

    def _rest(self, sizes: list[int], sent: list[Tensor]) -> list[Tensor]:
        """Whole messages: what came in the frames, and the rest of those that are longer."""
        received, pending = [], []
        for rank, (frame, size) in enumerate(zip(self.arriving.numpy(), sizes, strict=True)):
            whole = torch.empty(size if rank != self.rank else 0, dtype=torch.uint8)
            received.append(whole)
            if rank == self.rank:
                continue
            whole.numpy()[: self.room] = frame[_HEADER : _HEADER + min(size, self.room)]
            if sent[rank].numel() > self.room:
                pending.append(dist.isend(sent[rank][self.room :], rank))
            if size > self.room:
                pending.append(dist.irecv(whole[self.room :], rank))
        for work in pending:
            if work is not None:
                work.wait()
        return received


@dataclass(frozen=True, eq=False)
class _UnderWay:
    """An exchange in the thread of a group.

    Args:
        group: The group.
        result: What comes of it.
    """

    group: GlooGroup
    result: Future[list[Tensor]]

    def wait(self) -> list[Tensor]:
        """What each rank sent here."""
        with self.group.waiting():
            return self.result.result()


def _lost(error: RuntimeError, name: str) -> PeerLostError:
    return PeerLostError(
        f"another rank left {name} or did not come to it within {DEADLINE.seconds} s; if no rank died, shards make "
        f"different exchanges: transport='local' names them ({str(error).splitlines()[0][:200]})"
    )


class Rank:
    """An actor's body.

    Args:
        rank: This rank.
        size: Number of ranks.
        threads: Threads of torch and of the compiled kernels.
    """

    def __init__(self, rank: int, size: int, threads: int) -> None:
        # Read when the first kernel is launched: without it numba's pool has a thread for every core of the machine.
        # OpenMP begins with one: Ray sees to that.
        os.environ["NUMBA_NUM_THREADS"] = str(threads)
        numba.config.reload_config()  # type: ignore[no-untyped-call]
        torch.set_num_threads(threads)
        use_torch_threads()
        self.rank, self.size = rank, size
        self.store: TCPStore | None = None
        self.worker: Worker | None = None

    def host(self) -> tuple[str, int]:
        """Open the meeting point; returns its address and port."""
        import ray

        address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        self.store = TCPStore(address, 0, self.size, is_master=True, wait_for_workers=False, timeout=DEADLINE)
        return address, self.store.port

    def connect(self, address: str, port: int) -> None:
        """Join the group."""
        if self.store is None:
            self.store = TCPStore(address, port, self.size, is_master=False, timeout=DEADLINE)
        dist.init_process_group("gloo", store=self.store, rank=self.rank, world_size=self.size, timeout=DEADLINE)

    def build(self, job: Job, population: Population | None) -> None:
        """Read the shard and make the initial state."""
        self.worker = Worker(job, population, GlooGroup(self.rank, self.size))

    def call(self, method: str, *arguments: Any) -> Any:  # noqa: ANN401
        """Call a method of the worker."""
        return getattr(self.worker, method)(*arguments)
