"""The figures of a run: totals, attack rate, peak, and the same by region and age."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gnabm.errors import StoreError
from gnabm.trajectory import INITIAL, open_trajectory

Counts = NDArray[np.int64]
PER = 100_000
"""Rates are per so many people."""
_FAMILIES = (
    ("in intensive care", ("icu", "critical", "intensive")),
    ("in hospital", ("hospital",)),
    ("dead", ("dead", "death", "deceased")),
    ("recovered", ("recovered", "immune", "vaccinated")),
    ("susceptible", ("susceptible",)),
)
_NOT_INFECTED = ("susceptible", "recovered", "dead")
"""Families of those who stand in the initial state without an infection of this epidemic."""


def family(stage: str) -> str:
    """The family of a stage; one that is none of the others is infected."""
    return next((name for name, words in _FAMILIES if any(word in stage.lower() for word in words)), "infected")


def open_run(path: str | Path) -> xr.Dataset:
    """Open the trajectory of a run.

    Args:
        path: Run folder or trajectory.

    Raises:
        StoreError: There is none, or the run was cut off while it wrote.
    """
    try:
        return open_trajectory(path)
    except StoreError:
        raise
    except (ValueError, KeyError, OSError) as error:
        raise StoreError(
            f"{path}: the trajectory cannot be read, its run was cut off while it wrote ({error}); run it again"
        ) from error


@dataclass(frozen=True, eq=False)
class Group:
    """One label of the population, such as the region, with the epidemic within each of its values.

    Args:
        names: (num_groups,) values.
        people: (num_groups,) agents.
        incidence: (time, num_groups) new infections in each step.
        infected: (num_groups,) new infections of all steps and agents infected at the start.
    """

    names: tuple[str, ...]
    people: Counts
    incidence: Counts
    infected: Counts

    @property
    def per_100k(self) -> NDArray[np.float64]:
        """(time, num_groups) new infections per 100,000 people."""
        return self.incidence * (PER / np.maximum(self.people, 1))

    @property
    def attack_rate(self) -> NDArray[np.float64]:
        """(num_groups,) infections of this epidemic per person."""
        return self.infected / np.maximum(self.people, 1)


@dataclass(frozen=True, eq=False)
class Series:
    """One observable over time, and within each value of the labels that it is counted by.

    Args:
        name: Name in the trajectory.
        meaning: What it counts.
        unit: Its unit.
        total: (time,) over the whole population.
        by: Label to (time, num_groups).
    """

    name: str
    meaning: str
    unit: str
    total: NDArray[np.float64]
    by: dict[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Summary:
    """What a run showed.

    Args:
        time: (time,) dates, with the time of day where dt is no whole number of days, or step numbers of a run
            without a calendar.
        dt: Days per step.
        num_agents: Agents.
        stages: Names of the stages.
        stage_count: (time, num_stages) agents at the end of each step.
        incidence: (time,) new infections in each step.
        infected: New infections of all steps and agents infected at the start; immunity from before does not count.
        groups: `region` and `age_group`, as far as the population has them.
        attributes: What the store says of the run.
        series: The other observables, by name.
    """

    time: tuple[date, ...] | tuple[int, ...]
    dt: float
    num_agents: int
    stages: tuple[str, ...]
    stage_count: Counts
    incidence: Counts
    infected: int
    groups: dict[str, Group]
    attributes: dict[str, Any]
    series: dict[str, Series] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Steps done."""
        return len(self.time)

    @property
    def steps_wanted(self) -> int:
        """Steps that the config asked for."""
        return int(self.attributes.get("config", {}).get("run", {}).get("steps", self.steps))

    @property
    def attack_rate(self) -> float:
        """Infections of this epidemic per agent: the share infected by the end where nobody is infected twice."""
        return self.infected / self.num_agents

    @property
    def total_infections(self) -> int:
        """New infections of all steps."""
        return int(self.incidence.sum())

    @property
    def peak(self) -> int:
        """Step with the most new infections; the first of equals."""
        return int(self.incidence.argmax())

    @property
    def status(self) -> str:
        """`complete`, `interrupted`, `failed` or `running`."""
        return str(self.attributes.get("status", "unknown"))

    def when(self, step: int, *, year: bool = True) -> str:
        """A step for people: `20 Jan 2022`, `20 Jan 2022 12:00`, or `step 3`."""
        at = self.time[step]
        if not isinstance(at, date):
            return f"step {at}"
        shown = f"{at.day} {at:%b %Y}" if year else f"{at.day} {at:%b}"
        return f"{shown} {at:%H:%M}" if isinstance(at, datetime) else shown

    @staticmethod
    def of(dataset: xr.Dataset) -> Summary:
        """Figures of an open trajectory.

        Args:
            dataset: As `gnabm.open_trajectory` gives it.

        Raises:
            StoreError: The run ended before its first step, or holds no epidemic.
        """
        for name in ("stage_count", "incidence"):
            if name not in dataset:
                raise StoreError(f"the trajectory has no {name!r}; a summary needs a model that observes it")
        if dataset.sizes["time"] == 0:
            raise StoreError("the run ended before its first step, so it shows nothing; run it again")
        stages = _labels(dataset, "stage")
        count = dataset["stage_count"]
        people = count.isel(time=0).sum("stage")
        infected = dataset["incidence"].sum("time") + _infected_at_the_start(dataset, stages)
        groups: dict[str, Group] = {
            dim: _group(dataset, dim, people, infected)
            for dim in ("region", "age_group")
            if dim in dataset["incidence"].dims
        }
        attributes = {str(key): value for key, value in dataset.attrs.items()}
        dt = float(attributes.get("dt_days", 1.0))
        return Summary(
            time=_time(dataset, dt),
            dt=dt,
            num_agents=int(people.sum()),
            stages=stages,
            stage_count=_over(count, "stage"),
            incidence=_over(dataset["incidence"]),
            infected=int(infected.sum()),
            groups=groups,
            attributes=attributes,
            series={
                str(name): _series(dataset, str(name), tuple(groups))
                for name, values in dataset.data_vars.items()
                if name not in ("stage_count", "incidence") and "time" in values.dims and "agent" not in values.dims
            },
        )

    def headline(self) -> dict[str, Any]:
        """The key figures as plain values."""
        peak = self.peak
        at = self.time[peak]
        return {
            "num_agents": self.num_agents,
            "steps": self.steps,
            "attack_rate": self.attack_rate,
            "total_infections": self.total_infections,
            "peak_incidence": int(self.incidence[peak]),
            "peak_step": peak,
            "peak_date": at.isoformat() if isinstance(at, date) else None,
        }


def _labels(dataset: xr.Dataset, dim: str) -> tuple[str, ...]:
    """Names along a dim; they stand under another name where a field over agents has the dim's own."""
    name = f"{dim}_name" if f"{dim}_name" in dataset.variables else dim
    return tuple(str(value) for value in dataset[name].values)


def _over(values: xr.DataArray, *dims: str) -> Counts:
    """Sum over everything but time and these dims."""
    kept = ("time", *dims)
    summed = values.sum([dim for dim in values.dims if dim not in kept])
    return np.asarray(summed.transpose(*kept).values, dtype=np.int64)


def _infected_at_the_start(dataset: xr.Dataset, stages: tuple[str, ...]) -> xr.DataArray:
    """Agents in a stage of infection before the first step, by region and age.

    A run of an earlier version did not keep its initial state: then they are those who had left the susceptible stage
    by the end of the first step but were not infected in it, less the recovered of that time where the config gave
    immunity before the run.
    """
    count = dataset["stage_count"]
    known = dataset.attrs.get(INITIAL)
    families = [family(name) for name in stages]
    if "susceptible" not in families:
        families[0] = "susceptible"  # a model with other names states it first
    if known is not None:
        first = count.isel(time=0).copy(data=np.asarray(known, dtype=np.int64))
        return first.isel(stage=[n for n, name in enumerate(families) if name not in _NOT_INFECTED]).sum("stage")
    config = dataset.attrs.get("config") or {}
    immune = (config.get("parameters") or {}).get("prior_infection") is not None
    apart = ("susceptible", "recovered") if immune else ("susceptible",)
    left = count.isel(time=0, stage=[n for n, name in enumerate(families) if name not in apart]).sum("stage")
    return (left - dataset["incidence"].isel(time=0)).clip(min=0)


def _group(dataset: xr.Dataset, dim: str, people: xr.DataArray, infected: xr.DataArray) -> Group:
    others = [other for other in people.dims if other != dim]
    return Group(
        names=_labels(dataset, dim),
        people=np.asarray(people.sum(others).values, dtype=np.int64),
        incidence=_over(dataset["incidence"], dim),
        infected=np.asarray(infected.sum(others).values, dtype=np.int64),
    )


def _series(dataset: xr.Dataset, name: str, labels: tuple[str, ...]) -> Series:
    values = dataset[name]

    def over(*dims: str) -> NDArray[np.float64]:
        summed = values.sum([dim for dim in values.dims if dim not in ("time", *dims)])
        return np.asarray(summed.transpose("time", *dims).values, dtype=np.float64)

    said = values.attrs
    return Series(
        name=name,
        meaning=str(said.get("long_name") or name.replace("_", " ")),
        unit=str(said.get("units") or ""),
        total=over(),
        by={dim: over(dim) for dim in labels if dim in values.dims},
    )


def _time(dataset: xr.Dataset, dt: float) -> tuple[date, ...] | tuple[int, ...]:
    values = dataset["time"].values
    if values.dtype.kind == "M":
        seconds = (values + np.timedelta64(500, "ms")).astype("datetime64[s]")  # a third of a day has no exact float
        return tuple(seconds.astype("datetime64[D]" if dt.is_integer() else "datetime64[s]").tolist())
    return tuple(int(value) for value in values)
