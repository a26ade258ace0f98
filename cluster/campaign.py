"""Many plain runs that differ in seed and parameters, as tasks of Ray: the campaigns of `gnabm.sensitivity`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayActorError, RayTaskError
from ray.util import ActorPool
from torch import Tensor

from cluster.actors import start_ray
from gnabm.contacts import Contacts
from gnabm.errors import RunError
from gnabm.population import Population
from gnabm.sensitivity import Campaign, Question, Variant
from graphs.store import open_graph

Who = Population | Contacts | Path
"""A population in memory, put once into the object store, or the folder of a graph store, which every task reads."""


class Runner:
    """A process that makes runs of one question on one population.

    Args:
        question: The run.
        who: The population, or its graph store.
    """

    def __init__(self, question: Question, who: Who) -> None:
        torch.set_num_threads(1)  # runs are side by side; the bits do not depend on threads
        self.question, self.who = question, who
        self.population: Population | Contacts

    def ready(self) -> bool:
        """Open the population; what goes wrong here reaches the caller, unlike in the making of an actor."""
        self.population = open_graph(self.who) if isinstance(self.who, Path) else self.who
        return True

    def run(self, variant: Variant) -> Tensor:
        """(num_groups,) outcomes of one run.

        Args:
            variant: Seed and parameters.
        """
        return self.question(self.population, variant)


@contextmanager
def campaign(question: Question, who: Who, *, at_once: int | None = None) -> Iterator[Campaign]:
    """A campaign on the Ray cluster; one is started, and ended, where none is running.

    Args:
        question: The run.
        who: The population, or its graph store, which every machine must see.
        at_once: Runs side by side; None for the CPUs of the cluster.

    Raises:
        RunError: A process died.
        GnabmError: What a run refused, or why the population cannot be opened.
    """
    with ExitStack() as stack:
        start_ray(at_once or 1, stack)
        cpus = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
        kind = ray.remote(num_cpus=1, max_restarts=0)(Runner)
        told, shared = ray.put(question), ray.put(who.absolute() if isinstance(who, Path) else who)
        runners: list[Any] = [kind.remote(told, shared) for _ in range(min(at_once or cpus, cpus))]
        for runner in runners:
            stack.callback(ray.kill, runner, no_restart=True)
        with _plain_errors():
            ray.get([runner.ready.remote() for runner in runners])  # the seconds of a campaign are those of its runs

        def run(variants: Sequence[Variant]) -> list[Tensor]:
            pool = ActorPool(runners)
            with _plain_errors():
                return list(pool.map(lambda runner, variant: runner.run.remote(variant), list(variants)))

        yield run


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Raise what a process raised, rather than how Ray wraps it."""
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, BaseException):
            raise error.cause from error
        raise
    except RayActorError as error:
        raise RunError(
            "a process of the campaign was killed, crashed or ran out of memory; make fewer runs at once"
        ) from error
