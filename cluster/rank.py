"""What runs inside an actor: the gloo group, and the worker behind it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from cluster.worker import Job, Worker
from gnabm.errors import RunError
from gnabm.exchange import as_bits
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


class GlooGroup:
    """The process group as one rank sees it.

    A message travels in a frame of fixed size together with its length, so that a short one costs a single round; what
    does not fit follows from rank to rank.

    Args:
        rank: This rank.
        size: Number of ranks.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size, self.calls = rank, size, 0
        self.frame = max(1 << 10, (1 << 17) // size // 64 * 64)  # whole words of any type

    def all_to_all(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Send parts[r] to rank r; returns what each rank sent here."""
        # The exchange's adjoint stands for the gradient of what goes over the wire.
        sent = [as_bits(p, torch.uint8) for p in parts]
        frames = torch.zeros(self.size, self.frame, dtype=torch.uint8)
        self.calls += 1
        call = zlib.crc32(f"{self.calls} {parts[0].dtype} {tuple(parts[0].shape[1:])}".encode())
        for frame, part in zip(frames, sent, strict=True):
            frame[:_HEADER].view(torch.int64)[:] = torch.tensor([part.numel(), call])
            fits = part[: self.frame - _HEADER]
            frame[_HEADER : _HEADER + fits.numel()] = fits
        arrived = torch.empty_like(frames)
        try:
            dist.all_to_all_single(arrived, frames)
            headers = arrived[:, :_HEADER].contiguous().view(torch.int64)
            if bool((headers[:, 1] != call).any()):
                raise RunError(_DISAGREE)
            received = self._rest(arrived, headers[:, 0].tolist(), sent)
        except RuntimeError as error:
            raise error if isinstance(error, RunError) else _lost(error, "all_to_all") from error
        received[self.rank] = sent[self.rank]
        return [r.view(parts[0].dtype).reshape(-1, *parts[0].shape[1:]) for r in received]

    def _rest(self, arrived: Tensor, sizes: list[int], sent: list[Tensor]) -> list[Tensor]:
        """Whole messages: what came in the frames, and the rest of those that are longer."""
        room = self.frame - _HEADER
        received, pending = [], []
        for rank, (frame, size) in enumerate(zip(arrived, sizes, strict=True)):
            whole = torch.empty(size if rank != self.rank else 0, dtype=torch.uint8)
            received.append(whole)
            if rank == self.rank:
                continue
            whole[:room] = frame[_HEADER : _HEADER + min(size, room)]
            if sent[rank].numel() > room:
                pending.append(dist.isend(sent[rank][room:], rank))
            if size > room:
                pending.append(dist.irecv(whole[room:], rank))
        for work in pending:
            if work is not None:
                work.wait()
        return received

    def all_reduce(self, value: Tensor) -> Tensor:
        """Sum of an int64 tensor over the shards."""
        summed = value.clone()
        try:
            dist.all_reduce(summed)
        except RuntimeError as error:
            raise _lost(error, "all_reduce") from error
        return summed


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
