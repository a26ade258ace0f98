"""Who is immune at the start, and how far: vaccination and prior infection, by age and region.

Two state fields say how far: `infection_risk`, the hazard of infection, and `severe_risk`, the probability of severe
disease once infected, both relative to somebody who never met the disease. Protection from several sources
multiplies, as if they acted independently.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, NotRequired, TypedDict

import torch
from torch import Tensor, nn

from gnabm.agents import Agents, Column, Field, StageName
from gnabm.errors import ConfigError, nearest
from gnabm.model import State
from gnabm.neighbours import Neighbours
from gnabm.parameters import Input
from gnabm.rule import Merge, Rule, Step
from gnabm.scan import Named, refuse_labels

NUM_AGE_GROUPS = 9
AGE_GROUPS = (*(f"{10 * decade}-{10 * decade + 9}" for decade in range(NUM_AGE_GROUPS - 1)), "80+")
"""The ten-year age groups that parameters by age refer to."""
ELSEWHERE = "elsewhere"
"""Stands for all regions that are not named."""
Shares = float | Sequence[float] | Mapping[str, float | Sequence[float]]
"""One share, a share for each ten-year age group, or either by region."""

RISKS = {
    "infection_risk": State(1.0, torch.float32, "hazard of infection relative to that of somebody without protection"),
    "severe_risk": State(1.0, torch.float32, "probability of severe disease relative to the same"),
}
"""State fields of immunity."""


class Vaccination(TypedDict):
    """Vaccination before the run.

    Attributes:
        coverage: Share of people vaccinated: one number, nine by ten-year age, or either by region.
        against_infection: Efficacy: share by which the hazard of infection is lower.
        against_severe: Efficacy: share by which the probability of severe disease of the infected is lower.
    """

    coverage: float | Sequence[float] | Mapping[str, float | Sequence[float]]
    against_infection: NotRequired[float]
    against_severe: NotRequired[float]


class PriorInfection(TypedDict):
    """Infection before the run.

    Attributes:
        share: Share of the susceptible infected before: one number, nine by ten-year age, or either by region.
        against_infection: As in `Vaccination`; left out or 1, they start recovered, and it is no parameter to learn.
        against_severe: As in `Vaccination`.
    """

    share: float | Sequence[float] | Mapping[str, float | Sequence[float]]
    against_infection: NotRequired[float]
    against_severe: NotRequired[float]


class Protect(Rule):
    """Initial state: protect a share of each age and region.

    Its `share` is learned in the shape in which it is given: one number, nine by age, or either for each region that is
    named (`regions` has the names). Where the protected start in another stage `against_infection` is no parameter: it
    went into the choice of that stage, so another value would change nothing.

    Args:
        name: Name of the rule.
        key: Name of the parameter that holds the shares, for messages.
        shares: Of the susceptible.
        against_infection: Share by which the hazard of infection is lower.
        against_severe: Share by which the probability of severe disease is lower.
        source: Stage of the susceptible.
        target: Stage that the protected start in.
    """

    writes: ClassVar[Mapping[str, Merge]] = {
        "stage": "exclusive", "infection_risk": "exclusive", "severe_risk": "exclusive",
    }  # fmt: skip
    inputs: ClassVar[Mapping[str, Input]] = {
        "share": Input(
            "share of the susceptible protected at the start", high=1.0, axis="region as named, ten-year age"
        ),
        "against_infection": Input("share by which the hazard of infection of the protected is lower", high=1.0),
        "against_severe": Input("share by which the probability of severe disease of the protected is lower", high=1.0),
    }
    reproducibility = "bit"

    def __init__(
        self,
        name: str,
        key: str,
        shares: Shares,
        *,
        against_infection: float,
        against_severe: float,
        source: StageName,
        target: StageName,
    ) -> None:
        super().__init__(name)
        prefix = key.split(".")[0]
        lower = torch.tensor(_share(against_infection, f"{prefix}.against_infection"))
        self.against_infection: Tensor
        if target == source:
            self.against_infection = nn.Parameter(lower)
        else:
            self.register_buffer("against_infection", lower)
        self.against_severe = nn.Parameter(torch.tensor(_share(against_severe, f"{prefix}.against_severe")))
        self.source, self.target, self.key = source, target, key
        self.regions = tuple(str(name) for name in shares) if isinstance(shares, Mapping) else None
        self.share = nn.Parameter(torch.tensor(_shares(shares, key)))

    def forward(self, agents: Agents, contacts: Neighbours, step: Step) -> Mapping[str, Column]:
        """Draw who is protected."""
        # The shares and groups of all agents are gone before there are new risks.
        protected = step.bernoulli(self._of_each(agents), where=agents.stage.is_(self.source))
        stage = agents.stage
        if self.target != self.source:
            stage = stage.move(self.source, self.target, protected)
        return {
            "stage": stage,
            "infection_risk": agents.infection_risk * (1 - self.against_infection * protected),
            "severe_risk": agents.severe_risk * (1 - self.against_severe * protected),
        }

    def _of_each(self, agents: Agents) -> Tensor:
        """(n,) share of the age and region of each agent."""
        table, group = self.table(agents.fields), ages(agents)
        if table.shape[0] > 1:
            refuse_labels(Named("region", agents.region), table.shape[0])
            group = torch.add(group, agents.region, alpha=NUM_AGE_GROUPS)
        return table.reshape(-1).index_select(0, group)

    def table(self, fields: Mapping[str, Field]) -> Tensor:
        """(num_regions or 1, num_age_groups) shares.

        Args:
            fields: Columns of the population.

        Raises:
            ConfigError: A region is named that the population has not, or one is not named.
        """
        by_age = self.share if self.share.dim() == (2 if self.regions else 1) else self.share.unsqueeze(-1)
        table = by_age.reshape(-1, by_age.shape[-1]).expand(-1, NUM_AGE_GROUPS)
        if self.regions in (None, (ELSEWHERE,)):
            return table
        assert self.regions is not None
        regions = region_names(fields, self.key)
        for name in self.regions:
            if name != ELSEWHERE and name not in regions:
                raise ConfigError(f"{self.key}.{name}: there is no such region; {nearest(name, regions)}")
        missing = [name for name in regions if name not in self.regions]
        if missing and ELSEWHERE not in self.regions:
            raise ConfigError(
                f"{self.key} says nothing of {', '.join(missing)}; add them, or {ELSEWHERE!r} for all other regions"
            )
        rows = [self.regions.index(name if name in self.regions else ELSEWHERE) for name in regions]
        return table.index_select(0, torch.tensor(rows))


def vaccinate(keys: Vaccination, source: StageName) -> Protect:
    """The rule that vaccinates."""
    return Protect(
        "Vaccinate", "vaccination.coverage", keys["coverage"], against_infection=keys.get("against_infection", 0.0),
        against_severe=keys.get("against_severe", 0.0), source=source, target=source,
    )  # fmt: skip


def infect_before(keys: PriorInfection, source: StageName, recovered: StageName) -> Protect:
    """The rule that makes prior infections."""
    against = keys.get("against_infection", 1.0)
    return Protect(
        "InfectBefore", "prior_infection.share", keys["share"], against_infection=against,
        against_severe=keys.get("against_severe", 0.0), source=source, target=recovered if against == 1 else source,
    )  # fmt: skip


def ages(agents: Agents) -> Tensor:
    """(n,) int32 ten-year age group of each agent.

    Raises:
        ConfigError: The population has no such groups.
        DataError: A code is none of theirs.
    """
    refuse_other_ages(agents.fields if "age_group" in agents else {})
    found: Tensor = agents.age_group
    refuse_labels(Named("age_group", found), NUM_AGE_GROUPS)
    return found.to(torch.int32)


def refuse_other_ages(fields: Mapping[str, Field]) -> None:
    """Refuse a population without the ten-year age groups.

    Raises:
        ConfigError: It has none, or others.
    """
    field = fields.get("age_group")
    groups = () if field is None or field.categories is None else field.categories
    if len(groups) != NUM_AGE_GROUPS:
        raise ConfigError(
            "this model needs the ten-year age groups 0-9, ..., 70-79, 80+ as age_group, got "
            f"{', '.join(groups) or 'none'}; give the agents an integer column age (in years), from which the groups "
            "are made"
        )


def region_names(fields: Mapping[str, Field], key: str) -> tuple[str, ...]:
    """Names of the regions of a population.

    Raises:
        ConfigError: It has none.
    """
    field = fields.get("region")
    if field is None or field.categories is None:
        raise ConfigError(f"{key} is by region, but the population has no regions; leave the regions out")
    return field.categories


def _shares(shares: Shares, key: str) -> float | list[float] | list[list[float]]:
    """Shares in the shape in which they are given: (), (9,), (num_regions,) or (num_regions, 9)."""
    if not isinstance(shares, Mapping):
        return _by_age(shares, key)
    rows = [_by_age(value, f"{key}.{name}") for name, value in shares.items()]
    if not any(isinstance(row, list) for row in rows):
        return [row for row in rows if not isinstance(row, list)]
    return [row if isinstance(row, list) else [row] * NUM_AGE_GROUPS for row in rows]


def _by_age(value: float | Sequence[float], key: str) -> float | list[float]:
    """One share, or one for each of the ages."""
    if isinstance(value, (int, float)):
        return _share(value, key)
    if len(value) != NUM_AGE_GROUPS:
        raise ConfigError(
            f"{key} has {len(value)} values; give one number, or nine for the ages 0-9, 10-19, ..., 70-79, 80+"
        )
    return [_share(v, key) for v in value]


def _share(value: float, key: str) -> float:
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise ConfigError(f"{key} must lie in [0, 1], got {value}; it is a share, so write 0.9 for 90 %")
    return float(value)
