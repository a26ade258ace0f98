"""Runs that differ in nothing but the seed: medians, intervals, and the Monte Carlo error of their means."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gnabm.errors import ConfigError
from gnabm.report.summary import Summary

Floats = NDArray[np.float64]
INTERVAL = (0.05, 0.95)
"""Quantiles over replicates between which the bands lie."""
_NO_EFFECT = (
    "run.seed", "run.shards", "run.threads", "run.messages", "run.transport",
    "population.scheduler", "population.num_workers",
)  # fmt: skip
"""Keys that replicates may differ in: the seed, and what changes no bit; so may all below `record`."""


@dataclass(frozen=True)
class Estimate:
    """A mean over replicates.

    Args:
        mean: Mean, or the one value there is.
        error: Monte Carlo standard error of the mean, sd / sqrt(n); None for one run.
        runs: n.
    """

    mean: float
    error: float | None
    runs: int

    @staticmethod
    def of(values: ArrayLike) -> Estimate:
        """Mean and standard error of values, one per replicate."""
        numbers = np.asarray(values, dtype=np.float64)
        count = len(numbers)
        if count < 2:
            return Estimate(float(numbers[0]), None, count)
        return Estimate(float(numbers.mean()), float(numbers.std(ddof=1)) / math.sqrt(count), count)


@dataclass(frozen=True, eq=False)
class Replicates:
    """One run, or several that differ in nothing but the seed.

    Args:
        runs: Their summaries, in order of the seed.
    """

    runs: tuple[Summary, ...]

    @staticmethod
    def of(runs: Sequence[Summary], names: Sequence[str]) -> Replicates:
        """Check that runs are replicates and put them in order of the seed.

        Args:
            runs: Their summaries.
            names: What to call them in errors.

        Raises:
            ConfigError: Two differ in more than the seed, or share it, or are of different length.
        """
        first = runs[0]
        for run, name in zip(runs[1:], names[1:], strict=True):
            key = _difference(first.attributes.get("config", {}), run.attributes.get("config", {}))
            if key is not None:
                raise ConfigError(
                    f"{name} differs from {names[0]} in {key}, replicates of one report differ in run.seed only; "
                    "report them one by one"
                )
            if (run.steps, run.num_agents) != (first.steps, first.num_agents):
                raise ConfigError(
                    f"{name} has {run.steps:,} steps of {run.num_agents:,} agents, {names[0]} has {first.steps:,} of "
                    f"{first.num_agents:,}; finish it (gnabm run) or leave it out"
                )
        for seed, place in _repeated([seed_of(run) for run in runs]):
            raise ConfigError(
                f"{names[place]} has the seed {seed} of another run given, so it is no replicate; "
                "give each run its own with --set run.seed=..."
            )
        return Replicates(tuple(sorted(runs, key=seed_of)))

    @property
    def first(self) -> Summary:
        """The first run: names, dates and config are those of all."""
        return self.runs[0]

    @property
    def several(self) -> bool:
        """Whether there is anything to take a median of."""
        return len(self.runs) > 1

    @property
    def seeds(self) -> tuple[int, ...]:
        """(num_runs,) seeds."""
        return tuple(seed_of(run) for run in self.runs)

    def stack(self, figure: Callable[[Summary], ArrayLike]) -> Floats:
        """(num_runs, ...) a figure of each run."""
        return np.stack([np.asarray(figure(run), dtype=np.float64) for run in self.runs])

    def estimate(self, figure: Callable[[Summary], float]) -> Estimate:
        """Mean of a figure over the runs with its Monte Carlo error."""
        return Estimate.of([figure(run) for run in self.runs])


def seed_of(run: Summary) -> int:
    """Seed of a run; 0 where nothing says it."""
    return int(run.attributes.get("seed", 0) or 0)


def middle(values: Floats) -> Floats:
    """(...) median over the first axis of (num_runs, ...); NaN where one run has none."""
    return np.asarray(np.median(values, axis=0))


def interval(values: Floats) -> tuple[Floats, Floats]:
    """(...) ends of the interval over the first axis of (num_runs, ...)."""
    low, high = np.quantile(values, INTERVAL, axis=0)
    return low, high


def _repeated(seeds: Sequence[int]) -> Iterator[tuple[int, int]]:
    for place, seed in enumerate(seeds):
        if seed in seeds[:place]:
            yield seed, place


def _difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    """The first dotted key in which two configs differ, apart from those that change no bit."""
    one, other = dict(_flat(a)), dict(_flat(b))
    keys = [key for key in {**one, **other} if key not in _NO_EFFECT and not key.startswith("record.")]
    return next((key for key in keys if one.get(key) != other.get(key)), None)


def _flat(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
