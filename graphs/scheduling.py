"""Running Dask tasks on the scheduler that a config names; the result is the same on each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from multiprocessing import get_context
from typing import Any

from dask.base import compute as dask_compute
from dask.delayed import delayed

from gnabm.errors import ConfigError, nearest

SCHEDULERS = ("synchronous", "threads", "processes", "distributed")
Function = Callable[..., Any]
Compute = Callable[[Function, list[tuple[Any, ...]]], list[Any]]


def check_workers(scheduler: str, num_workers: int | None) -> int:
    """Return the number of workers.

    Raises:
        ConfigError: unknown scheduler, or fewer than one worker.
    """
    if scheduler not in SCHEDULERS:
        raise ConfigError(f"scheduler {scheduler!r} is unknown; {nearest(str(scheduler), SCHEDULERS)}")
    if num_workers is None:
        return min(4, len(os.sched_getaffinity(0)))
    if isinstance(num_workers, bool) or not isinstance(num_workers, int) or num_workers < 1:
        raise ConfigError(f"num_workers must be a whole number of 1 or more, got {num_workers!r}")
    return num_workers


class Tasks:
    """Runs tasks a few at a time.

    Args:
        compute: Results of a function for several tuples of arguments, in their order.
        workers: Tasks at a time.
        ahead: Of one thread, on which tasks are made ahead of those who take their results.
    """

    def __init__(self, compute: Compute, workers: int, ahead: ThreadPoolExecutor) -> None:
        self._compute = compute
        self._workers = workers
        self._ahead = ahead

    def run(self, function: Function, arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Results of a function in the order of its arguments.

        As many tasks as there are workers are made while the caller deals with the results of those before: in memory
        are at most that many tasks, with their arguments, and that many results that the caller has not taken.

        Args:
            function: What a task does.
            arguments: Of each task; taken just before the results of as many tasks before it.
        """
        left = iter(arguments)
        waiting = self._start(function, left)
        while waiting is not None:
            done, waiting = waiting, self._start(function, left)
            results = done.result()
            del done
            results.reverse()
            while results:
                yield results.pop()

    def _start(self, function: Function, left: Iterator[tuple[Any, ...]]) -> Future[list[Any]] | None:
        """The next few tasks, made behind those that are under way; None if none is left."""
        batch = list(islice(left, self._workers))
        return self._ahead.submit(self._compute, function, batch) if batch else None


@contextmanager
def scheduled(scheduler: str, num_workers: int | None) -> Iterator[Tasks]:
    """Tasks on a scheduler that lives as long as the context.

    Left by an error or Ctrl-C, it waits for tasks that have begun and drops the others. With `distributed` they run on
    the client that is active, else on a cluster of local processes.

    Args:
        scheduler: One of SCHEDULERS.
        num_workers: Tasks at a time; None takes up to four cores.
    """
    workers = check_workers(scheduler, num_workers)
    with ExitStack() as stack:
        compute: Compute
        if scheduler == "distributed":
            compute = partial(_on_client, stack.enter_context(_client(workers)))
        elif scheduler == "processes":
            pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
            stack.callback(pool.shutdown, cancel_futures=True)
            compute = partial(_on_dask, {"scheduler": "processes", "pool": pool})
        else:
            compute = partial(_on_dask, {"scheduler": scheduler, "num_workers": workers})
        ahead = ThreadPoolExecutor(1)
        stack.callback(ahead.shutdown, cancel_futures=True)
        yield Tasks(compute, workers, ahead)


def _on_dask(where: dict[str, Any], function: Function, batch: list[tuple[Any, ...]]) -> list[Any]:
    """Results of tasks on a scheduler of Dask in this process; arguments are passed on without a look inside."""
    run: Any = dask_compute
    calls = [
        delayed(function, pure=False)(*(delayed(value, traverse=False, pure=False) for value in arguments))
        for arguments in batch
    ]
    return list(run(*calls, **where))


def _on_client(client: Any, function: Function, batch: list[tuple[Any, ...]]) -> list[Any]:  # noqa: ANN401
    """Results of tasks on a cluster; their arguments go to the workers beforehand, for the scheduler keeps tasks."""
    futures = [client.submit(function, *client.scatter(list(arguments), hash=False), pure=False) for arguments in batch]
    return list(client.gather(futures))


@contextmanager
def _client(workers: int) -> Iterator[Any]:
    import distributed

    untyped: Any = distributed  # its functions carry no annotations
    try:
        client = untyped.get_client()
    except ValueError:
        client = None
    if client is not None:
        yield client
        return
    local = untyped.LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None)
    with local as cluster, untyped.Client(cluster) as client:
        yield client
