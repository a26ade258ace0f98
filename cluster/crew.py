"""The ranks of a run as their driver sees them: every call goes to all of them."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Any, Protocol

from cluster.worker import Job, Worker
from gnabm.exchange import Solo
from gnabm.local import LocalGroup, LocalThreads
from gnabm.population import Population


class Crew(Protocol):
    """The ranks of a run; a context manager that ends them."""

    def __enter__(self) -> Crew:
        """Return itself."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all ranks."""
        ...

    def each(self, method: str, *arguments: Any) -> list[Any]:  # noqa: ANN401
        """Call a method of every `Worker`; returns their results in the order of ranks."""
        ...


class OneInProcess:
    """One shard in this process.

    Args:
        job: What to do.
        population: The population when the job names no store.
    """

    def __init__(self, job: Job, population: Population | None) -> None:
        self.worker = Worker(job, population, Solo())

    def __enter__(self) -> OneInProcess:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to end."""

    def each(self, method: str, *arguments: Any) -> list[Any]:  # noqa: ANN401
        """Call a method of the worker."""
        return [getattr(self.worker, method)(*arguments)]


class AllInProcess:
    """All shards in this process, taking turns.

    Args:
        job: What to do.
        population: The population when the job names no store.
    """

    def __init__(self, job: Job, population: Population | None) -> None:
        with ExitStack() as stack:
            self.threads = stack.enter_context(LocalThreads(len(job.bounds) - 1))
            self.workers = self.threads.each(lambda group: Worker(job, population, group))
            self.stack = stack.pop_all()

    def __enter__(self) -> AllInProcess:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the threads."""
        self.stack.close()

    def each(self, method: str, *arguments: Any) -> list[Any]:  # noqa: ANN401
        """Call a method of every worker, in the order of ranks."""

        def call(group: LocalGroup) -> Any:  # noqa: ANN401
            return getattr(self.workers[group.rank], method)(*arguments)

        return self.threads.each(call)
