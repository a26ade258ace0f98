"""Running a Dask graph on the scheduler that a config names; the result is the same on each."""

from __future__ import annotations

import os
from typing import Any

from dask.base import compute as dask_compute

from gnabm.errors import ConfigError, nearest

SCHEDULERS = ("synchronous", "threads", "processes", "distributed")


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


def compute(tasks: list[Any], scheduler: str, num_workers: int | None) -> list[Any]:
    """Compute delayed values.

    With `distributed` the tasks run on the client that is active, else on a cluster of local processes that
    lives as long as this call.

    Args:
        tasks: Delayed values.
        scheduler: One of SCHEDULERS.
        num_workers: Tasks in flight; None takes up to four cores. Ignored by an active distributed client.
    """
    workers = check_workers(scheduler, num_workers)
    if scheduler == "distributed":
        return _compute_distributed(tasks, workers)
    run: Any = dask_compute
    return list(run(*tasks, scheduler=scheduler, num_workers=workers))


def _compute_distributed(tasks: list[Any], workers: int) -> list[Any]:
    import distributed

    untyped: Any = distributed  # its functions carry no annotations
    try:
        client = untyped.get_client()
    except ValueError:
        client = None
    if client is not None:
        return list(client.gather(client.compute(tasks)))
    local = untyped.LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None)
    with local as cluster, untyped.Client(cluster) as client:
        return list(client.gather(client.compute(tasks)))
