"""Vaccination while the run goes on: daily supply, priority by age, protection that comes late and wanes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from gnabm.agents import Agents, Column, StageName
from gnabm.errors import ConfigError
from gnabm.intervention import NEVER, PEOPLE, Schedule, When, ramp, residents
from gnabm.model import State
from gnabm.models.immunity import NUM_AGE_GROUPS, ages
from gnabm.models.infectiousness import as_rate
from gnabm.models.isolation import in_stages, share
from gnabm.neighbours import Neighbours
from gnabm.parameters import Input
from gnabm.rule import Merge, Rule, Step

CAMPAIGN = {
    "infection_risk_before": State(1.0, torch.float32, "infection_risk without the campaign"),
    "severe_risk_before": State(1.0, torch.float32, "severe_risk without the campaign"),
    "vaccinated": State(0.0, torch.float32, "1 for those vaccinated in the campaign"),
    "vaccinated_on": State(NEVER, torch.float32, "day of the vaccination", "day"),
}
"""State fields of a campaign, besides those of immunity."""


class Remember(Rule):
    """Initial state: note the risks that everybody starts with."""

    writes: ClassVar[Mapping[str, Merge]] = {"infection_risk_before": "sole", "severe_risk_before": "sole"}
    reproducibility = "bit"

    def forward(self, agents: Agents, contacts: Neighbours, step: Step) -> Mapping[str, Column]:
        """Note them."""
        return {"infection_risk_before": agents.infection_risk, "severe_risk_before": agents.severe_risk}


class Vaccinate(Rule):
    r"""Vaccinate with a daily supply, the first band of ages first.

    Who is eligible in a band is vaccinated with the probability of the doses left for it over the eligible in it, so
    the doses are right in expectation; what a band does not need is left for the next one. A queue in a fixed order
    would give each dose to somebody, but has no gradient. The risks of somebody vaccinated :math:`\tau` days ago are
    multiplied by

    .. math:: 1 - e \, \mathrm{clamp}((\tau + h - d) / h, 0, 1) \, \exp(-\omega \max(\tau - d, 0))

    with the efficacy e, the delay d, the waning rate omega and the length of a step h. It multiplies with the
    protection that somebody starts with: those vaccinated before the run get a booster.

    Args:
        name: Name of the rule.
        bands: Ten-year age groups of each band, the first one served first; other ages are not vaccinated.
        supply: Doses per day, in all or per 100,000 residents.
        relative: Whether the supply is per 100,000 residents.
        against_infection: e of the hazard of infection.
        against_severe: e of the probability of severe disease of the infected.
        delay: d, days.
        waning_rate: omega, per day.
        stages: Stages in which somebody is vaccinated.
        when: When there is supply.

    Raises:
        ConfigError: A share is none, an age group stands in two bands, or the trigger is by region.
        DataError: Another number is below 0.
    """

    writes: ClassVar[Mapping[str, Merge]] = {
        "infection_risk": "sole", "severe_risk": "sole", "vaccinated": "sole", "vaccinated_on": "sole",
    }  # fmt: skip
    inputs: ClassVar[Mapping[str, Input]] = {
        "supply": Input("doses", "per day, in all or per 100,000 residents"),
        "against_infection": Input("share by which the hazard of infection is lower", high=1.0),
        "against_severe": Input("share by which the probability of severe disease is lower", high=1.0),
        "delay": Input("from the dose to protection", "days"),
        "waning_rate": Input("decline of the protection", "per day"),
        **{f"when.{name}": told for name, told in Schedule.inputs.items()},
    }
    reproducibility = "bit"

    def __init__(
        self, name: str, bands: Sequence[Sequence[int]], supply: float, *, relative: bool, against_infection: float,
        against_severe: float, delay: float, waning_rate: float, stages: Sequence[StageName], when: When,
    ) -> None:  # fmt: skip
        super().__init__(name)
        listed = [age for band in bands for age in band]
        if len(set(listed)) < len(listed):
            raise ConfigError(f"{name}: an age group stands in two bands of {list(bands)}; leave it in one")
        if when.by_region:
            raise ConfigError(
                f"{name}: a supply for the whole country cannot be triggered by region; leave by_region out"
            )
        self.band = torch.full((NUM_AGE_GROUPS,), len(bands))
        for number, band in enumerate(bands):
            self.band[list(band)] = number
        self.num_bands, self.relative, self.stages, self.when = len(bands), relative, tuple(stages), when
        self.supply = as_rate(supply, f"{name}.supply")
        self.against_infection = share(against_infection, f"{name}.against_infection")
        self.against_severe = share(against_severe, f"{name}.against_severe")
        self.delay, self.waning_rate = as_rate(delay, f"{name}.delay"), as_rate(waning_rate, f"{name}.waning_rate")

    def where(self, agents: Agents) -> Tensor:
        """Those who may be vaccinated, and those who were."""
        on: Tensor = agents.vaccinated_on
        eligible, offered = in_stages(agents, self.stages), self.band < self.num_bands
        if not bool(offered.all()):
            eligible = eligible & offered.index_select(0, ages(agents))
        return eligible | (on != NEVER)

    def forward(self, agents: Agents, contacts: Neighbours, step: Step) -> Mapping[str, Column]:
        """Vaccinate, and let the protection come and go."""
        t, h = step.index * step.dt, step.dt
        if isinstance(self.when, Schedule) and bool(t + h < self.when.start):
            return {}  # on all shards alike
        flag, on = agents.vaccinated, agents.vaccinated_on
        # All shards agree on this: it is the same for everybody.
        if bool(self.when.reached(agents, step)):
            eligible = in_stages(agents, self.stages) & (on == NEVER)
            chance = self._chances(agents.everyone, step).index_select(0, self.band.index_select(0, ages(agents)))
            drawn = step.bernoulli(chance.to(flag.dtype), where=eligible)
            flag = flag + torch.where(eligible, drawn.to(flag.dtype), 0.0)
            on = torch.where(eligible & (drawn != 0), t, on)
        since = t - on - self.delay
        lasts = ramp((since + h) / h) * torch.exp(-self.waning_rate * since.clamp(min=0))
        protected = torch.where(on == NEVER, 0.0, lasts * flag)
        return {
            "vaccinated": flag,
            "vaccinated_on": on,
            "infection_risk": agents.infection_risk_before * (1 - self.against_infection * protected),
            "severe_risk": agents.severe_risk_before * (1 - self.against_severe * protected),
        }

    def _chances(self, everyone: Agents, step: Step) -> Tensor:
        """(num_bands + 1,) float64 probability of a dose in each band in this step, 0 for those in none."""
        left = (self.supply * step.dt * self.when.active(everyone, step, of_chance=True)).to(torch.float64)
        if self.relative:
            left = left * residents(everyone, step)[0] / PEOPLE
        flags = everyone.stage.is_(self.stages[0])
        for stage in self.stages[1:]:
            flags = (
                flags + everyone.stage.is_(stage) if flags.is_floating_point() else flags | everyone.stage.is_(stage)
            )
        flags = flags * (1 - everyone.vaccinated)
        band = self.band.index_select(0, ages(everyone))
        waiting = step.total(flags, band, self.num_bands + 1).to(torch.float64)
        chances = []
        for number in waiting[:-1]:
            served = torch.minimum(left, number)
            chances.append(served / number.clamp(min=1.0))
            left = left - served
        return torch.stack([*chances, torch.zeros((), dtype=torch.float64)])
