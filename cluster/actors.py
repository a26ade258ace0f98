"""The `actors` transport: one Ray actor per shard, connected by a gloo process group.

Ray places, starts and watches the actors; halos never pass through its object store. An error on one rank ends the
run with that error, a rank that dies ends it with its name: nothing waits for it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from threading import Event, Thread
from types import TracebackType
from typing import Any

# Read when Ray starts. Its workers run at niceness 15 otherwise: a shard that yields to everything else makes all wait.
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.rank import PeerLostError, Rank
from cluster.worker import Job
from gnabm.errors import CapacityError, RunError
from gnabm.population import Population

PLACEMENT_SECONDS = 60.0
"""How long to wait for the cluster to give a CPU to every shard."""
GRACE_SECONDS = 5.0
"""How long to wait, once a rank failed, for the rank that is the cause."""


class Ranks:
    """The processes of a run, without a job yet: one Ray actor per shard.

    They start in the background, so that the driver can plan meanwhile. One thread starts and ends them: what Ray
    starts on this machine dies with the thread that started it.

    Args:
        size: Number of shards.
        threads: Threads of each rank; None shares the cores of a machine among the shards on it.
    """

    def __init__(self, size: int, threads: int | None) -> None:
        self.size, self.threads = size, threads
        self._started: Future[list[Any]] = Future()
        self._ended = Event()
        self._thread = Thread(target=self._live, name="ranks", daemon=True)
        self._thread.start()

    def actors(self) -> list[Any]:
        """The actors in the order of ranks, once they are placed; they may still be importing what they need.

        Raises:
            CapacityError: The cluster has fewer CPUs than shards.
        """
        return self._started.result()

    def end(self) -> None:
        """End the actors, and Ray if it was started here."""
        self._ended.set()
        self._thread.join()

    def _live(self) -> None:
        with ExitStack() as stack:
            try:
                start_ray(self.size, stack)
                actors = self._place(stack)
            except BaseException as error:  # handed to the caller of `actors`, whatever it is
                self._started.set_exception(error)
                return
            self._started.set_result(actors)
            self._ended.wait()

    def _place(self, stack: ExitStack) -> list[Any]:
        cpus = int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
        if cpus < self.size:
            raise CapacityError(
                f"{self.size} shards need {self.size} CPUs, the Ray cluster has {cpus}; use fewer shards, "
                "transport='local', or a larger cluster (RAY_ADDRESS)"
            )
        group = placement_group([{"CPU": 1}] * self.size, strategy="PACK")
        stack.callback(remove_placement_group, group)
        try:
            ray.get(group.ready(), timeout=PLACEMENT_SECONDS)
        except GetTimeoutError as error:
            raise CapacityError(
                f"the Ray cluster gave no {self.size} CPUs within {PLACEMENT_SECONDS:.0f} s ({cpus} in all, others "
                "hold them); end other runs or use fewer shards"
            ) from error
        actor = ray.remote(num_cpus=1, max_restarts=0)(Rank)
        threads = [self.threads] * self.size if self.threads else _fair_threads(group, self.size)
        actors: list[Any] = []
        for rank in range(self.size):
            where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
            made: Any = actor.options(scheduling_strategy=where).remote(rank, self.size, threads[rank])
            stack.callback(ray.kill, made, no_restart=True)
            actors.append(made)
        return actors


def _fair_threads(group: Any, size: int) -> list[int]:  # noqa: ANN401
    """Threads of each rank: the cores of its machine, divided among the shards there."""
    at = placement_group_table(group)["bundles_to_node_id"]
    nodes = [at[rank] for rank in range(size)]
    cores = {node["NodeID"]: int(node["Resources"].get("CPU", 1)) for node in ray.nodes()}  # type: ignore[no-untyped-call]
    cores[ray.get_runtime_context().get_node_id()] = len(os.sched_getaffinity(0))  # Ray may have been told another
    return [max(1, cores[node] // nodes.count(node)) for node in nodes]


_ahead: list[Ranks] = []


@contextmanager
def started_ahead(size: int, threads: int | None) -> Iterator[None]:
    """Start the ranks of the next run while it is still being planned.

    Args:
        size: Number of shards.
        threads: Threads of each rank, or None.
    """
    ranks = Ranks(size, threads)
    _ahead.append(ranks)
    try:
        yield
    finally:
        if ranks in _ahead:  # no run took them
            _ahead.remove(ranks)
            ranks.end()


def _take(size: int, threads: int | None) -> Ranks:
    """Ranks that were started ahead if they fit, else new ones."""
    for ranks in _ahead:
        if (ranks.size, ranks.threads) == (size, threads):
            _ahead.remove(ranks)
            return ranks
    return Ranks(size, threads)


class Actors:
    """All shards as Ray actors; Ray is started when it is not running and then stopped again.

    Args:
        job: What to do.
        population: The population when the job names no store; put once into the object store.

    Raises:
        CapacityError: The cluster has fewer CPUs than shards.
        RunError: A rank died.
    """

    def __init__(self, job: Job, population: Population | None) -> None:
        self.size, self.step = len(job.bounds) - 1, -1
        with ExitStack() as stack:
            ranks = _take(self.size, job.threads)
            stack.callback(ranks.end)
            self.ranks = ranks.actors()
            host, port = ray.get(self.ranks[0].host.remote())
            self._gather([rank.connect.remote(host, port) for rank in self.ranks])
            shared = ray.put(replace(job, threads=None))  # a rank has its threads already
            whole = None if population is None else ray.put(population)
            self._gather([rank.build.remote(shared, whole) for rank in self.ranks])
            self.step = 0
            self.stack = stack.pop_all()

    def __enter__(self) -> Actors:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the actors, and Ray if it was started here."""
        self.stack.close()

    def each(self, method: str, *arguments: Any) -> list[Any]:  # noqa: ANN401
        """Call a method of every worker; returns the results in the order of ranks.

        Raises:
            RunError: A rank died, or waited too long for another.
            BaseException: What a rank's rule raised.
        """
        results = self._gather([rank.call.remote(method, *arguments) for rank in self.ranks])
        self.step += method == "advance"
        return results

    def _gather(self, references: list[Any]) -> list[Any]:
        try:
            return list(ray.get(references))
        except RayError:
            cause = self._cause(references)
        raise cause

    def _cause(self, references: list[Any]) -> BaseException:
        """The error that made the others fail: what a rule raised, else a rank that died."""
        found: dict[int, BaseException] = {}
        waiting = dict(zip(references, range(self.size), strict=True))
        until = time.monotonic() + GRACE_SECONDS
        while waiting and not any(_nearness(e) < 2 for e in found.values()):
            ready, _ = ray.wait(list(waiting), timeout=max(0.0, until - time.monotonic()))
            if not ready:
                break
            rank = waiting.pop(ready[0])
            try:
                ray.get(ready[0])
            except RayTaskError as error:
                found[rank] = error.cause if isinstance(error.cause, BaseException) else error
            except RayError as error:
                found[rank] = error
        rank, cause = min(found.items(), key=lambda item: (_nearness(item[1]), item[0]))
        if isinstance(cause, RayActorError):
            return self._died(rank, cause)
        if isinstance(cause, PeerLostError):
            return RunError(f"shard {rank} of {self.size}, step {self.step}: {cause}")
        return cause

    def _died(self, rank: int, error: RayActorError) -> RunError:
        when = f"at step {self.step}" if self.step >= 0 else "while it started"
        died = RunError(
            f"shard {rank} of {self.size} died {when}: its process was killed, crashed or ran out of memory; run "
            "again, with more shards or another machine if memory was short (gnabm plan tells what a shard needs)"
        )
        died.__cause__ = error
        return died


def _nearness(error: BaseException) -> int:
    """How near an error is to the cause: raised by a rule, a death, what they did to the others."""
    if isinstance(error, PeerLostError):
        return 2
    return 1 if isinstance(error, RayActorError) else 0


def start_ray(shards: int, stack: ExitStack) -> None:
    """Start Ray where it is not running.

    Args:
        shards: Processes that want a CPU each.
        stack: Ends it again.
    """
    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    else:
        cpus = max(shards, len(os.sched_getaffinity(0)))
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    stack.callback(ray.shutdown)
