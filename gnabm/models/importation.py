"""Infections from outside: on one day (seeding), or day by day (importation), by region.

Each entry says how many infections are expected, as a number of agents or per 100,000 residents of the region (or of
the country); the latter means the same in a population of any size. They fall on the susceptible residents in
proportion to their risk of infection, so nobody who is fully immune is infected: the probability of each is that number
times its risk, divided by the sum of these risks. A seeding of more than that sum is refused; an importation of more
infects with the probability of the risk, so it brings fewer than stated, and nobody where all are immune.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, ClassVar, NotRequired, TypedDict

import torch
from torch import Tensor, nn

from gnabm.agents import Agents, Column, Field, Stage, StageName
from gnabm.errors import ConfigError, nearest
from gnabm.exchange import FIXED_POINT, from_fixed, total
from gnabm.models.immunity import region_names
from gnabm.neighbours import Neighbours
from gnabm.parameters import Input
from gnabm.rule import Rule, Step
from gnabm.scan import Named, chosen_rows, refuse_labels, refuse_risks, weigh_groups

When = int | str
"""A date such as 2022-01-20, or days since the start of the run."""


class Seeding(TypedDict):
    """Infections on one day.

    Attributes:
        number: Expected number of infections, in agents.
        per_100k: The same, per 100,000 residents of the region, or of the country; exactly one of the two.
        day: Date, or days since the start; 0 when left out.
        region: Name of the region, all when left out.
    """

    number: NotRequired[float]
    per_100k: NotRequired[float]
    day: NotRequired[int | str]
    region: NotRequired[str]


# `from` is a word of the language, so this type cannot be written as a class.
Importation = TypedDict(
    "Importation",
    {
        "per_day": NotRequired[float],
        "per_day_per_100k": NotRequired[float],
        "from": NotRequired[int | str],
        "to": NotRequired[int | str],
        "region": NotRequired[str],
    },
)
"""Infections day by day: `per_day` expected, in agents, or `per_day_per_100k` residents of the region (exactly one of
the two); `from` and `to` a date or days since the start (both included; from the start and to the end when left out),
`region` a name, all when left out."""
PEOPLE = 100_000
"""Residents that relative numbers refer to."""


@dataclass(frozen=True)
class Arrivals:
    """Infections that are expected within a range of days.

    Args:
        key: Where the config says so.
        per_day: Expected infections per day, unless the rule has learned another number.
        relative: Whether they are per 100,000 residents.
        first: Date, or days since the start.
        last: The same, or None for no end.
        region: Name, or None for all.
    """

    key: str
    per_day: float
    relative: bool
    first: date | int
    last: date | int | None
    region: str | None

    def __post_init__(self) -> None:
        """Check the number."""
        if not (math.isfinite(self.per_day) and self.per_day >= 0):
            raise ConfigError(f"{self.key}: the number of infections must be finite and >= 0, got {self.per_day}")

    def within(self, step: Step) -> float:
        """Days of a step on which they arrive."""
        begin, end = round(step.index * step.dt, 9), round((step.index + 1) * step.dt, 9)
        first, last = self.days(None if step.start is None else step.start.date())
        return max(min(end, last + 1) - max(begin, first), 0.0)

    def days(self, start: date | None) -> tuple[float, float]:
        """First and last day since the start of the run; those after its end just do not happen.

        Args:
            start: Date of the first step.

        Raises:
            ConfigError: A day lies before the run, the last before the first, or a run without dates has a date.
        """
        first = self._day(self.first, start)
        last = math.inf if self.last is None else self._day(self.last, start)
        if last < first:
            raise ConfigError(f"{self.key}: ends ({self.last}) before it begins ({self.first}); exchange the two")
        return first, last

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

    The `amount` of each entry is learned. In a run with local scores the number of arrivals stays what it is when more
    or fewer are susceptible, as in a forward run: what is shared out, and among whom, both have their gradient.

    Args:
        name: Name of the rule.
        arrivals: How many, where and when.
        source: Stage of the susceptible.
        target: Stage of the newly infected.
        risk: Name of the state field of the relative risk of infection, within [0, 1], or None for 1.
    """

    writes = {"stage": "exclusive", "infected_on": "sole"}  # noqa: RUF012
    inputs: ClassVar[Mapping[str, Input]] = {
        "amount": Input("infections from outside, as the entry gives them", "agents, or per 100,000", axis="entry"),
    }
    reproducibility = "bit"
    infects = True

    def __init__(
        self, name: str, arrivals: Sequence[Arrivals], source: StageName, target: StageName, risk: str | None = None
    ) -> None:
        super().__init__(name)
        self.arrivals, self.source, self.target, self.risk = tuple(arrivals), source, target, risk
        self.amount = nn.Parameter(torch.tensor([a.per_day for a in self.arrivals], dtype=torch.float64))

    def forward(self, agents: Agents, contacts: Neighbours, step: Step) -> Mapping[str, Column]:
        """Move the newly infected and note the step; on a day without arrivals nothing is looked at."""
        expected = self._expected(step)
        if not bool((expected != 0).any()):
            return {}
        susceptible = agents.stage.codes == int(self.source)
        risk = None
        if self.risk is not None:
            risk = torch.where(susceptible, getattr(agents, self.risk), 0.0)
            if not step.weighted:
                risk = risk.detach()  # flags cannot tell who is left, so the share of each would have half a gradient
            refuse_risks(Named(self.risk, risk.detach()), susceptible)
        number = self._num_regions(agents.fields)
        if number:
            refuse_labels(Named("region", agents.region), number)

        def people(region: int | None) -> tuple[int, Tensor]:
            here = torch.ones_like(susceptible) if region is None else agents.region == region
            if step.weighted:
                left = step.total((susceptible if risk is None else risk) * here).to(torch.float64)
            elif risk is None:
                left = torch.tensor(_count(susceptible & here, step), dtype=torch.float64)
            else:
                left = step.total(risk * here).detach()
            return _count(here, step), left

        p, by_region = self._chances(agents.fields, expected, people)
        if by_region is not None:
            p = by_region.index_select(0, agents.region.to(torch.int32))
        if risk is not None:
            p = p * risk
        newly = step.bernoulli(p.clamp(max=1.0), where=susceptible)  # several entries may want the same few people
        infected_on = torch.where(newly != 0, step.index, agents.infected_on)
        return {
            "stage": agents.stage.move(self.source, self.target, newly),
            "infected_on": infected_on.to(torch.int32),
        }

    def fused(self, agents: Agents, contacts: Neighbours, step: Step) -> tuple[Tensor, Mapping[str, Column]] | None:
        """The same, walking the agents twice on a day with arrivals: who is left, and whom it hits."""
        stage: Stage = agents.stage
        expected = self._expected(step)
        if not bool((expected != 0).any()):
            return torch.empty(0, dtype=torch.int64), {}
        risk = None if self.risk is None else Named(self.risk, getattr(agents, self.risk))
        if risk is not None and risk.values.dtype != torch.float32:
            return None  # the kernels compute in it
        number = self._num_regions(agents.fields)
        region = Named("region", agents.region) if number else None
        weighed = step.group.all_reduce(weigh_groups(stage.codes, self.source, region, number or 1, risk))
        if risk is not None:  # refuses what has left its range, as a total does; 2^40 steps are its unit
            from_fixed(torch.cat([weighed[1], weighed[2].sum(0, keepdim=True) >> 20]), risk.values)
        everyone, left = weighed[0], weighed[1] if risk is None else weighed[1].to(torch.float64) / FIXED_POINT

        def people(region: int | None) -> tuple[int, Tensor]:
            if region is not None:
                return int(everyone[region]), left[region].to(torch.float64)
            return int(everyone.sum()), weighed[1].sum().to(torch.float64) / (1 if risk is None else FIXED_POINT)

        p, by_region = self._chances(agents.fields, expected, people)
        if by_region is None:
            region, by_region = None, p.reshape(1)
        rows = chosen_rows(
            step.stream("bernoulli"), agents.keys, stage.codes, self.source, region, by_region,
            None if risk is None else risk.values,
        )  # fmt: skip
        infected_on = torch.full(rows.shape, step.index, dtype=torch.int32)
        return rows, {"stage": stage.all_in(self.target, rows), "infected_on": infected_on}

    def _expected(self, step: Step) -> Tensor:
        """(num_entries,) float64 infections expected in a step, per 100,000 residents where an entry says so."""
        return self.amount * torch.tensor([a.within(step) for a in self.arrivals], dtype=torch.float64)

    def _chances(
        self, fields: Mapping[str, Field], expected: Tensor, people: Callable[[int | None], tuple[int, Tensor]]
    ) -> tuple[Tensor, Tensor | None]:
        """Probability () of everyone, and (num_regions,) where regions differ.

        Args:
            fields: Columns of the population.
            expected: (num_entries,) arrivals of each entry in this step.
            people: Of a region or None for all: residents, and the susceptible, each counted by its risk.
        """
        everywhere, local = torch.zeros((), dtype=torch.float64), torch.zeros(self._num_regions(fields))
        for arrivals, region, number in zip(self.arrivals, self.regions(fields), expected, strict=True):
            if not bool(number != 0):
                continue
            residents, left = people(region)
            if arrivals.relative:
                number = number * residents / PEOPLE
            p = self._probability(arrivals, number, left)
            if region is None:
                everywhere = everywhere + p
            else:
                local = local.index_add(0, torch.tensor([region]), p.to(torch.float32).unsqueeze(0))
        everyone = everywhere.to(torch.float32)
        return everyone, everyone + local if bool((local != 0).any()) else None

    def _num_regions(self, fields: Mapping[str, Field]) -> int:
        """Number of regions, 0 where no entry names one."""
        named = any(code is not None for code in self.regions(fields))
        return len(fields["region"].categories or ()) if named else 0

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

    def _probability(self, arrivals: Arrivals, number: Tensor, people: Tensor) -> Tensor:
        """() float64 that somebody of risk 1 is among a number () of infections of some people ()."""
        if bool(number > people) and self.name == SEED:
            where = "the population" if arrivals.region is None else arrivals.region
            raise ConfigError(
                f"{arrivals.key}: {number.item():g} infections are asked for, but {where} has {people.item():g} "
                f"susceptible people{'' if self.risk is None else ', each counted by its risk of infection'}; lower "
                "the number"
            )
        return (number / people).clamp(max=1.0) if bool(people != 0) else torch.zeros_like(people)


SEED = "Seed"


def _count(flags: Tensor, step: Step) -> int:
    """Number of agents of all shards, whatever their weights; a total of many rows costs more than one of a count."""
    return int(total(step.group, torch.count_nonzero(flags).reshape(1)))


def seed(entries: Sequence[Seeding], source: StageName, target: StageName, risk: str | None = None) -> Arrive:
    """The rule that infects on given days."""
    arrivals = []
    for i, entry in enumerate(entries):
        key = f"seeding[{i}]"
        day = _when(entry.get("day", 0), f"{key}.day")
        arrivals.append(Arrivals(key, *_amount(key, entry, "number", "per_100k"), day, day, entry.get("region")))
    return Arrive(SEED, arrivals, source, target, risk)


def bring(entries: Sequence[Importation], source: StageName, target: StageName, risk: str | None = None) -> Arrive:
    """The rule that infects day by day."""
    arrivals = []
    for i, entry in enumerate(entries):
        key = f"importation[{i}]"
        last = entry.get("to")
        arrivals.append(
            Arrivals(
                key,
                *_amount(key, entry, "per_day", "per_day_per_100k"),
                _when(entry.get("from", 0), f"{key}.from"),
                None if last is None else _when(last, f"{key}.to"),
                entry.get("region"),
            )
        )
    return Arrive("Import", arrivals, source, target, risk)


def _amount(key: str, entry: Mapping[str, Any], absolute: str, relative: str) -> tuple[float, bool]:
    """The number that an entry gives, and whether it is per 100,000 residents."""
    given = [name for name in (absolute, relative) if name in entry]
    if len(given) != 1:
        raise ConfigError(
            f"{key}: expected exactly one of {absolute} (agents) and {relative} (per 100,000 residents), got "
            f"{'both' if given else 'neither'}"
        )
    return entry[given[0]], given[0] == relative


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
