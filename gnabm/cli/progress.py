"""The progress of a run: a line that moves in a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from datetime import time as clock_time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from torch import Tensor

from gnabm.config import Config

_SECONDS_BETWEEN_LINES = 10.0


class Watch:
    """Shows day, date, rate, remaining time and current incidence of a run.

    Args:
        config: The run.
        num_agents: Number of agents.
        screen: Where to show it.
        on_first: Called once when the first step is done.
        begun: Steps that were made before.
    """

    def __init__(
        self,
        config: Config,
        num_agents: int,
        screen: Console,
        on_first: Callable[[], None] = lambda: None,
        begun: int = 0,
    ) -> None:
        self.run, self.num_agents, self.screen, self.on_first = config.run, num_agents, screen, on_first
        self.done, self.begun = 0, begun
        self.began = self.last = time.perf_counter()
        self.progress: Progress | None = None
        self.task = TaskID(0)

    def __enter__(self) -> Watch:
        """Start to show."""
        shards = "in this process" if self.run.shards == 1 else f"on {self.run.shards} shards"
        text = f"starting {self.run.steps - self.begun:,} steps of {self.num_agents:,} agents {shards}"
        if self.screen.is_terminal:
            self.progress = Progress(
                TextColumn("{task.description}"), BarColumn(bar_width=12), console=self.screen, transient=True
            )
            self.progress.start()
            self.task = self.progress.add_task(text, total=self.run.steps)
        else:
            self.screen.print(text, soft_wrap=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing."""
        if self.progress is not None:
            self.progress.stop()

    def on_step(self, index: int, observed: Mapping[str, Tensor]) -> None:
        """Show a step that is done.

        Args:
            index: Its number.
            observed: Its observables.
        """
        del index
        now = time.perf_counter()
        self.done += 1
        if self.done == 1:
            self.on_first()
            self.began, self.last = now, now  # the first step compiles kernels and would spoil the rate
        if self.progress is not None:
            self.progress.update(self.task, completed=self.at, description=self.line(now, observed))
            return
        tenth = max(1, self.run.steps // 10)
        if (
            self.done == 1
            or self.at == self.run.steps
            or self.at % tenth == 0
            or now - self.last > _SECONDS_BETWEEN_LINES
        ):
            self.last = now
            self.screen.print(self.line(now, observed), soft_wrap=True)

    @property
    def at(self) -> int:
        """Steps of the whole run that are done."""
        return self.begun + self.done

    def line(self, now: float, observed: Mapping[str, Tensor]) -> str:
        """One line about the step that was done last."""
        width = len(f"{self.run.steps:,}")
        parts = [f"{'day' if self.run.dt == 1 else 'step'} {self.at:>{width},}/{self.run.steps:,}"]
        if self.run.start is not None:
            at = datetime.combine(self.run.start, clock_time()) + timedelta(days=self.run.dt * (self.at - 1))
            parts.append(f"{at:%Y-%m-%d}" if float(self.run.dt).is_integer() else f"{at:%Y-%m-%d %H:%M}")
        timed = self.done - 1
        if timed and now > self.began:
            each = (now - self.began) / timed
            parts.append(f"{_short(self.num_agents / each)} agent-steps/s")
            parts.append(f"{_clock(each * (self.run.steps - self.at))} left")
        if "incidence" in observed:
            parts.append(f"{int(observed['incidence'].sum()):,} new")
        return "  ".join(parts)


def _short(number: float) -> str:
    """A large number for people: 31.2M."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.1f}{unit}"
    return f"{number:.0f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
