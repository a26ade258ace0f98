"""Running Dask tasks on the scheduler that a config names; the result is the same on each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from typing import Any

from dask.base import compute as dask_compute
from dask.delayed import delayed

from gnabm.errors import ConfigError, nearest

SCHEDULERS = ("synchronous", "threads", "processes", "distributed")
Compute = Callable[[list[Any]], list[Any]]


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
        compute: Computes a list of delayed values.
        workers: Tasks at a time.
    """

    def __init__(self, compute: Compute, workers: int) -> None:
        self._compute = compute
        self._workers = workers

    def run(self, function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Results of a function in the order of its arguments.

        As many tasks as there are workers are made while the caller deals with the results of those before, so no
        more than twice that many are in memory.

        Args:
            function: What a task does.
            arguments: Of each task; taken when it is its turn.
        """
        calls = (delayed(function, pure=False)(*each) for each in _untraversed(arguments))
        with ThreadPoolExecutor(1) as ahead:
            waiting: Future[list[Any]] | None = None
            while batch := list(islice(calls, self._workers)):
                done, waiting = waiting, ahead.submit(self._compute, batch)
                if done is not None:
                    yield from done.result()
            if waiting is not None:
                yield from waiting.result()


def _untraversed(arguments: Iterable[tuple[Any, ...]]) -> Iterator[list[Any]]:
    """Arguments as Dask shall pass them on: as they are, without a look inside."""
    for each in arguments:
        yield [delayed(value, traverse=False, pure=False) for value in each]


@contextmanager
def scheduled(scheduler: str, num_workers: int | None) -> Iterator[Tasks]:
    """Tasks on a scheduler that lives as long as the context.

    With `distributed` they run on the client that is active, else on a cluster of local processes.

    Args:
        scheduler: One of SCHEDULERS.
        num_workers: Tasks at a time; None takes up to four cores.
    """
    workers = check_workers(scheduler, num_workers)
    run: Any = dask_compute
    if scheduler == "distributed":
        with _client(workers) as client:
            yield Tasks(lambda batch: list(client.gather(client.compute(batch))), workers)
    elif scheduler == "processes":
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            yield Tasks(lambda batch: list(run(*batch, scheduler="processes", pool=pool)), workers)
    else:
        yield Tasks(lambda batch: list(run(*batch, scheduler=scheduler, num_workers=workers)), workers)


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
