"""What runs inside an actor: the gloo group, and the worker behind it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from cluster.worker import Job, Worker
from gnabm.errors import RunError
from gnabm.population import Population

DEADLINE = timedelta(seconds=120)
"""How long a rank waits for the others in one exchange."""


class PeerLostError(RunError):
    """An exchange failed because another rank is gone or late."""


class GlooGroup:
    """The process group as one rank sees it.

    Args:
        rank: This rank.
        size: Number of ranks.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def all_to_all(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Send parts[r] to rank r; returns what each rank sent here."""
        sizes = torch.tensor([p.shape[0] for p in parts], dtype=torch.int64)
        theirs = torch.empty_like(sizes)
        rest, dtype = parts[0].shape[1:], parts[0].dtype
        sent = torch.cat([p.detach() for p in parts])  # the exchange's adjoint stands for the wire's gradient
        try:
            dist.all_to_all_single(theirs, sizes)
            counts = theirs.tolist()
            received = torch.empty(sum(counts), *rest, dtype=dtype)
            if dtype == torch.bool:  # the wire has no bool
                dist.all_to_all_single(received.view(torch.uint8), sent.view(torch.uint8), counts, sizes.tolist())
            else:
                dist.all_to_all_single(received, sent, counts, sizes.tolist())
        except RuntimeError as error:
            raise _lost(error, "all_to_all") from error
        return list(received.split(counts))  # type: ignore[no-untyped-call]

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
