"""Infections from outside: on one day (seeding), or day by day (importation), by region.

Each entry says how many infections are expected; every susceptible resident of the region has the same probability,
that number divided by how many they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import NotRequired, TypedDict

import torch

from gnabm.agents import Agents, Column, Field, StageName
from gnabm.errors import ConfigError, nearest
from gnabm.models.immunity import region_names
from gnabm.neighbours import Neighbours
from gnabm.rule import Rule, Step

When = int | str
"""A date such as 2022-01-20, or days since the start of the run."""


class Seeding(TypedDict):
    """Infections on one day.

    Attributes:
        number: Expected number of infections.
        day: Date, or days since the start; 0 when left out.
        region: Name of the region, all when left out.
    """

    number: float
    day: NotRequired[int | str]
    region: NotRequired[str]


# `from` is a word of the language, so this type cannot be written as a class.
Importation = TypedDict(
    "Importation",
    {"per_day": float, "from": NotRequired[int | str], "to": NotRequired[int | str], "region": NotRequired[str]},
)
"""Infections day by day: `per_day` expected, `from` and `to` a date or days since the start (both included; from the
start and to the end when left out), `region` a name, all when left out."""


@dataclass(frozen=True)
class Arrivals:
    """Infections that are expected within a range of days.

    Args:
        key: Where the config says so.
        per_day: Expected infections per day.
        first: Date, or days since the start.
        last: The same, or None for no end.
        region: Name, or None for all.
    """

    key: str
    per_day: float
    first: date | int
    last: date | int | None
    region: str | None

    def __post_init__(self) -> None:
        """Check the number."""
        if not (math.isfinite(self.per_day) and self.per_day >= 0):
            raise ConfigError(f"{self.key}: the number of infections must be finite and >= 0, got {self.per_day}")

    def expected(self, step: Step) -> float:
        """Infections expected in a step."""
        begin, end = round(step.index * step.dt, 9), round((step.index + 1) * step.dt, 9)
        start = None if step.start is None else step.start.date()
        first = self._day(self.first, start)
        last = math.inf if self.last is None else self._day(self.last, start)
        if last < first:
            raise ConfigError(f"{self.key}: ends ({self.last}) before it begins ({self.first}); exchange the two")
        return self.per_day * max(min(end, last + 1) - max(begin, first), 0.0)

    def refuse_outside(self, start: date | None, days: float) -> None:
        """Refuse a first day that lies outside of a run.

        Args:
            start: Date of the first step.
            days: Length of the run.

        Raises:
            ConfigError: It does.
        """
        day = self._day(self.first, start)
        if day >= days:
            raise ConfigError(
                f"{self.key}: {self.first} is day {day}, but the run ends after {days:g} days; "
                "change the day, or raise run.steps"
            )

    def _day(self, when: date | int, start: date | None) -> int:
        """Days since the start of the run."""
        if isinstance(when, int):
            return when
        if start is None:
            raise ConfigError(
                f"{self.key}: {when} is a date, but this run has none; give run.start, or the number of days since the "
                "start"
            )
        day = (when - start).days
        if day < 0:
            raise ConfigError(f"{self.key}: {when} lies before the run, which starts on {start}")
        return day


class Arrive(Rule):
    """Infect susceptible residents from outside.

    Args:
        name: Name of the rule.
        arrivals: How many, where and when.
        source: Stage of the susceptible.
        target: Stage of the newly infected.
    """

    writes = {"stage": "exclusive", "infected_on": "sole"}  # noqa: RUF012
    reproducibility = "bit"
    infects = True

    def __init__(self, name: str, arrivals: Sequence[Arrivals], source: StageName, target: StageName) -> None:
        super().__init__(name)
        self.arrivals, self.source, self.target = tuple(arrivals), source, target

    def forward(self, agents: Agents, contacts: Neighbours, step: Step) -> Mapping[str, Column]:
        """Move the newly infected and note the step; on a day without arrivals nothing is looked at."""
        regions = self.regions(agents.fields)
        expected = [a.expected(step) for a in self.arrivals]
        if not any(expected):
            return {}
        # How many are left has no gradient: arrivals are given, whoever else is infected.
        susceptible = agents.stage.codes == int(self.source)
        everywhere, local = 0.0, torch.zeros(256)
        for arrivals, region, number in zip(self.arrivals, regions, expected, strict=True):
            if not number:
                continue
            among = susceptible if region is None else susceptible & (agents.region == region)
            # Counted here and then added up over the shards: a total of many rows costs more.
            left = int(step.total(torch.count_nonzero(among).reshape(1)))
            if region is None:
                everywhere += self._probability(arrivals, number, left)
            else:
                local[region] += self._probability(arrivals, number, left)
        p = torch.tensor(everywhere)
        if bool(local.any()):
            p = p + local.index_select(0, agents.region.to(torch.int32))
        newly = step.bernoulli(p.clamp(max=1.0), where=susceptible)  # several entries may want the same few people
        infected_on = torch.where(newly != 0, step.index, agents.infected_on)
        return {
            "stage": agents.stage.move(self.source, self.target, newly),
            "infected_on": infected_on.to(torch.int32),
        }

    def regions(self, fields: Mapping[str, Field]) -> list[int | None]:
        """Code of the region of each entry, None for all.

        Args:
            fields: Columns of the population.

        Raises:
            ConfigError: There is no such region.
        """
        codes: list[int | None] = []
        for arrivals in self.arrivals:
            names = () if arrivals.region is None else region_names(fields, arrivals.key)
            if arrivals.region is not None and arrivals.region not in names:
                raise ConfigError(
                    f"{arrivals.key}: there is no region {arrivals.region!r}; {nearest(arrivals.region, names)}"
                )
            codes.append(None if arrivals.region is None else names.index(arrivals.region))
        return codes

    def _probability(self, arrivals: Arrivals, number: float, people: int) -> float:
        if number > people and self.name == SEED:
            where = "the population" if arrivals.region is None else arrivals.region
            raise ConfigError(
                f"{arrivals.key}: {number:g} infections are asked for, but {where} has {people} susceptible people; "
                "lower the number"
            )
        return min(number / people, 1.0) if people else 0.0


SEED = "Seed"


def seed(entries: Sequence[Seeding], source: StageName, target: StageName) -> Arrive:
    """The rule that infects on given days."""
    arrivals = []
    for i, entry in enumerate(entries):
        key = f"seeding[{i}]"
        day = _when(entry.get("day", 0), f"{key}.day")
        arrivals.append(Arrivals(key, entry["number"], day, day, entry.get("region")))
    return Arrive(SEED, arrivals, source, target)


def bring(entries: Sequence[Importation], source: StageName, target: StageName) -> Arrive:
    """The rule that infects day by day."""
    arrivals = []
    for i, entry in enumerate(entries):
        key = f"importation[{i}]"
        last = entry.get("to")
        arrivals.append(
            Arrivals(
                key,
                entry["per_day"],
                _when(entry.get("from", 0), f"{key}.from"),
                None if last is None else _when(last, f"{key}.to"),
                entry.get("region"),
            )
        )
    return Arrive("Import", arrivals, source, target)


def _when(value: When | date, key: str) -> date | int:
    """A date, or days since the start."""
    if isinstance(value, date):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ConfigError(f"{key}: {value} lies before the run; give days >= 0 since the start, or a date")
        return value
    try:
        return date.fromisoformat(str(value))
    except ValueError as error:
        raise ConfigError(f"{key}: expected a date such as 2022-01-20 or a number of days, got {value!r}") from error
