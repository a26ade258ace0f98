"""The keys of a config, their types and ranges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
)

from gnabm.units import quantity


class Section(BaseModel):
    """A mapping of a config: no unknown key, no silent conversion, not changed after it was checked."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _calendar_day(value: object) -> object:
    """A date as YAML reads it, or as text."""
    if isinstance(value, datetime):
        raise ValueError("expected a date such as 2022-01-20, without a time of day")
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError as error:
            raise ValueError(f"expected a date such as 2022-01-20, got {value!r}") from error
    return value


def _days(value: object) -> object:
    """A duration in days."""
    if not isinstance(value, (str, int, float)) or isinstance(value, bool) or "per" in str(value).split():
        raise ValueError(f"expected a duration such as '1 day', got {value!r}")
    days = quantity(value, "dt")
    if not (math.isfinite(days) and days > 0):
        raise ValueError(f"expected a positive duration such as '1 day', got {value!r}")
    return days


def _as_duration(days: float) -> str:
    return "1 day" if days == 1 else f"{days!r} days"


Duration = Annotated[float, BeforeValidator(_days), PlainSerializer(_as_duration)]
Day = Annotated[date, BeforeValidator(_calendar_day)]


class Country(Section):
    """A population generated from published tables.

    Args:
        country: Name of a country that has tables.
        num_agents: Number of agents; all residents unless stated.
        seed: Seed of the population, apart from the seed of the run.
        scheduler: Dask scheduler that builds it; the result is the same on each.
        num_workers: Tasks in flight.
    """

    country: str
    num_agents: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0, lt=2**63)
    scheduler: Literal["synchronous", "threads", "processes", "distributed"] = "threads"
    num_workers: int | None = Field(None, ge=1)


class OwnTables(Section):
    """A population from one's own edge table, and agent table if there is one.

    Args:
        edges: CSV or Parquet with source, target[, weight][, layer].
        agents: CSV or Parquet with key[, age][, region]...
    """

    edges: str
    agents: str | None = None


class StoredGraph(Section):
    """A population that `gnabm build` made.

    Args:
        graph: Folder of the store.
    """

    graph: str


KINDS: dict[str, type[Section]] = {"country": Country, "edges": OwnTables, "graph": StoredGraph}
"""Kinds of population, by the key that tells them apart."""


def population_kind(value: object) -> str:
    """The kind that a population of a config is."""
    if isinstance(value, Mapping):
        return next((kind for kind in KINDS if kind in value), "country")
    return next((kind for kind, section in KINDS.items() if isinstance(value, section)), "country")


Population = Annotated[
    Annotated[Country, Tag("country")] | Annotated[OwnTables, Tag("edges")] | Annotated[StoredGraph, Tag("graph")],
    Discriminator(population_kind),
]


class Run(Section):
    """How long, from when, with which draws, on what.

    Args:
        start: Date of the first step; None for a run without a calendar.
        steps: Number of steps.
        dt: Length of a step.
        seed: Seed of all draws.
        shards: Number of shards; the result does not depend on it.
        threads: Threads per shard; None divides the cores.
        messages: Form of the message kernels; the bits are the same.
        transport: How shards talk; `auto` is in-process for one shard, actors for more.
        mixing: `drawn` contacts or their `expected` number.
    """

    start: Day | None = None
    steps: int = Field(ge=1)
    dt: Duration = 1.0
    seed: int = Field(0, ge=0, lt=2**63)
    shards: int = Field(1, ge=1)
    threads: int | None = Field(None, ge=1)
    messages: Literal["auto", "push", "pull"] = "auto"
    transport: Literal["auto", "local", "actors"] = "auto"
    mixing: Literal["drawn", "expected"] = "drawn"


class Record(Section):
    """What a run keeps besides its observables.

    Args:
        fields: State fields to keep for each agent and step.
        infections: Keep who infected whom.
    """

    fields: list[str] = Field(default_factory=list)
    infections: bool = False


class Gradient(Section):
    """How a differentiable run of this config is made.

    Args:
        estimator: Gradient of the draws.
        checkpoint: Keep the state every so many steps and make the steps between again; None keeps all.
        horizon: Steps that a gradient goes back in time; None for all.
    """

    estimator: Literal["local-score", "straight-through", "gumbel", "smoothed", "score"] = "local-score"
    checkpoint: Annotated[int, Field(ge=1)] | None = 10
    horizon: Annotated[int, Field(ge=1)] | None = None


class Change(Section):
    """Values that hold from a day on.

    Args:
        day: Days since the start, or None when a date is given.
        date: Date, or None when a day is given.
        set: Dotted keys and their values: `parameters.NAME`, `reproduction_number`, `run.seed`.
    """

    day: float | None = Field(None, ge=0, allow_inf_nan=False)
    date: Day | None = None
    set: dict[str, Any]

    @model_serializer(mode="wrap")
    def _said(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Only the one of day and date that was given."""
        return {key: value for key, value in serialise(self).items() if value is not None or key == "set"}


class Config(Section):
    """A run.

    Args:
        model: A function of `gnabm.models`, such as `epidemic.seir`.
        parameters: Keywords of that function, quantities in days and per day.
        reproduction_number: Basic reproduction number; the transmission rate is then derived from it.
        population: Who, and who meets whom.
        run: How long and on what.
        record: What is kept.
        interventions: Closures, isolation, tests and vaccination, each a mapping (`gnabm.models.policies`).
        gradient: How a differentiable run is made.
        changes: What changes while the run goes on.
        name: Name of the run's folder, from the name of the file.
    """

    model: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    reproduction_number: float | None = Field(None, gt=0, allow_inf_nan=False)
    population: Population
    run: Run
    record: Record = Field(default_factory=Record)
    interventions: list[dict[str, Any]] = Field(default_factory=list)
    gradient: Gradient = Field(default_factory=Gradient)
    changes: list[Change] = Field(default_factory=list)
    name: str = Field("run", exclude=True)

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, in plain types; as YAML it loads to the same run."""
        return self.model_dump(mode="json")
