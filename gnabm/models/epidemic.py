"""Epidemics on a contact graph: `sir`, `seir` and `covid`.

All are discrete in time: in a step of dt days an event of hazard h happens with probability 1 - exp(-h dt), from the
state at the start of the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from gnabm.agents import Agents, Column, Stage, StageName, Stages
from gnabm.errors import ConfigError
from gnabm.model import Leavers, Model, Observable, State, count_by_stage
from gnabm.models.calendar import Calendar, CalendarKeys
from gnabm.models.covid import (
    ASYMPTOMATIC,
    COVID,
    MILD,
    OBSERVABLES,
    RECOVERED,
    SEVERE,
    SUSCEPTIBLE,
    Disease,
    published_susceptibility,
    tables_in_use,
)
from gnabm.models.durations import geometric, one_stage, two_stages
from gnabm.models.immunity import RISKS, PriorInfection, Vaccination, infect_before, vaccinate
from gnabm.models.importation import Importation, Seeding, bring, seed
from gnabm.models.infection import Infect, InfectByAge, happens
from gnabm.models.infectiousness import DailyProfile, as_rate
from gnabm.models.policies import Intervention, Policies
from gnabm.models.progression import STATE, Progress
from gnabm.neighbours import Neighbours
from gnabm.parameters import Input
from gnabm.rule import Rule, SeedAgents, SeedAtRandom, Step
from gnabm.scan import event_rows
from gnabm.transmission import Courses, Transmission

# Stages

SIR = Stages("susceptible", "infectious", "recovered")
SEIR = Stages("susceptible", "exposed", "infectious", "recovered")

INFECTED_ON = State(-1, torch.int32, "step of infection; -1 for those infected at the start or never", "step")

# Rules


class Leave(Rule):
    r"""A stage left at a constant rate, :math:`P = 1 - \exp(-r \, dt)`: geometric durations.

    Args:
        rate: r, per day.
        source: Stage to leave.
        target: Stage to enter.
        name: Name of the rule.
    """

    inputs: ClassVar[Mapping[str, Input]] = {"rate": Input("rate at which the stage is left", "per day")}
    reproducibility = "bit"

    def __init__(self, rate: float, source: StageName, target: StageName, name: str) -> None:
        super().__init__(name)
        self.rate = as_rate(rate, f"rate of {name}")
        self.source, self.target = source, target

    def where(self, agents: Agents) -> Tensor:
        """Those in the stage."""
        flags: Tensor = agents.stage.is_(self.source)
        return flags

    def forward(self, agents: Agents, contacts: Neighbours, step: Step) -> Mapping[str, Column]:
        """Move those who leave."""
        leaving = step.bernoulli(happens(self.rate, step.dt))
        return {"stage": agents.stage.move(self.source, self.target, leaving)}

    def fused(self, agents: Agents, contacts: Neighbours, step: Step) -> tuple[Tensor, Mapping[str, Column]]:
        """Move those who leave, walking the stage alone."""
        stage: Stage = agents.stage
        p, rows = happens(self.rate, step.dt), stage.rows(self.source)
        leaving = event_rows(step.stream("bernoulli"), agents.keys, stage.codes, self.source, p, rows)
        return leaving, {"stage": stage.all_in(self.target, leaving)}


# Initial state


def _seeds(susceptible: StageName, infected: StageName, initial_infected: float | Sequence[int]) -> Rule:
    if isinstance(initial_infected, (Tensor, np.ndarray, np.generic)) and initial_infected.ndim == 0:
        initial_infected = initial_infected.item()
    if isinstance(initial_infected, int) and (isinstance(initial_infected, bool) or initial_infected != 0):
        raise ConfigError(
            f"initial_infected={initial_infected} is neither a share nor a list of keys; give the share of agents as a "
            "float such as 0.001, or the keys of those infected such as [0]"
        )
    if isinstance(initial_infected, (int, float)):
        return SeedAtRandom(susceptible, infected, float(initial_infected))
    return SeedAgents(susceptible, infected, list(initial_infected))


# Observables


def _incidence(susceptible: StageName) -> Observable:
    return Observable("incidence", Leavers(susceptible), meaning="new infections in the step, initial ones excluded")


# Courses of an infection


class _Sir:
    """Courses of `sir`: infectious for a geometric number of steps."""

    def __init__(self, recovery_rate: float) -> None:
        self.recovery_rate = recovery_rate

    def __call__(self, dt: float) -> Courses:
        steps = geometric(self.recovery_rate, dt, "recovery_rate")
        probability, infectious = one_stage(steps, steps.size)
        return Courses(probability[None, :], infectious)


class _Seir:
    """Courses of `seir`: exposed and then infectious, each for a geometric number of steps."""

    def __init__(self, latent_rate: float, recovery_rate: float, profile: DailyProfile) -> None:
        self.latent_rate, self.recovery_rate, self.profile = latent_rate, recovery_rate, profile

    def __call__(self, dt: float) -> Courses:
        exposed = geometric(self.latent_rate, dt, "latent_rate")
        infectious = geometric(self.recovery_rate, dt, "recovery_rate")
        length = exposed.size + infectious.size
        probability, _, sending = two_stages(exposed, infectious, length)
        return Courses(probability[None, :], sending * self.profile.by_steps(length, dt))


# Models


def _state(stages: Stages, course: Mapping[str, State], policies: Policies, immune: bool) -> dict[str, Stages | State]:
    """All state fields: the stage, those of the course of a disease, of immunity and of interventions."""
    return {
        "stage": stages, "infected_on": INFECTED_ON, **course, **(RISKS if immune else {}), **policies.state,
    }  # fmt: skip


def sir(transmission_rate: float, recovery_rate: float, initial_infected: float | Sequence[int] = 0.001) -> Model:
    """Susceptible, infectious, recovered.

    Args:
        transmission_rate: Infections per contact.
        recovery_rate: Per day.
        initial_infected: Probability that an agent starts infectious (a float), or the keys of those who do.

    Reference:
        Kermack and McKendrick (1927), Proc. R. Soc. A 115, 700-721.

    Example:
        >>> from gnabm import Contacts, simulate
        >>> ring = Contacts.from_edges([0, 1, 2, 3], [1, 2, 3, 0], num_agents=4, undirected=True)
        >>> run = simulate(sir(0.5, 0.1, initial_infected=[0]), ring, steps=20, seed=1)
        >>> int(run.to_xarray().stage_count.isel(time=-1).sum())
        4
    """
    s, i, r = SIR
    return Model(
        [Infect(transmission_rate, s, i, i), Leave(recovery_rate, i, r, "Recover")],
        state={"stage": SIR},
        initial=_seeds(s, i, initial_infected),
        observe=[count_by_stage, _incidence(s)],
        name="sir",
        transmission=Transmission(_Sir(recovery_rate)),
    )


def seir(
    transmission_rate: float,
    latent_rate: float,
    recovery_rate: float,
    initial_infected: float | Sequence[int] = 0.001,
    susceptibility: Sequence[float] | None = None,
    infectiousness: Sequence[float] = (1.0,),
    layer_weights: Mapping[str, float] | None = None,
    rate_by_week: Sequence[float] | None = None,
    rate_by_region: Sequence[float] | None = None,
    interventions: Sequence[Intervention] = (),
) -> Model:
    """Susceptible, exposed, infectious, recovered, with ages and layers.

    Args:
        transmission_rate: Infections per contact at infectiousness, susceptibility and layer weight 1.
        latent_rate: Exposed to infectious, per day.
        recovery_rate: Infectious to recovered, per day.
        initial_infected: Probability that an agent starts exposed (a float), or the keys of those who do.
        susceptibility: By ten-year age group (the population's `age_group`), or None for 1.
        infectiousness: By whole days since infection, for any dt; the last value holds from there on.
        layer_weights: Factor on the contacts of a layer, by name; 1 where absent.
        rate_by_week: Factor on the transmission rate in each week of the run, the last one from there on.
        rate_by_region: Factor on the transmission rate of each region, in their order.
        interventions: Closures, isolation, tests and vaccination (`gnabm.models.policies`), such as `{close: [school],
            strength: 0.8, start: 30}`. The infectious are symptomatic; the susceptible and recovered are vaccinated.
    """
    s, e, i, r = SEIR
    profile, weights = DailyProfile(infectiousness), dict(layer_weights or {})
    observe = [count_by_stage, _incidence(s)]
    policies = Policies.of(interventions, symptomatic=(i,), eligible=(s, r), observables=observe)
    infect = InfectByAge(
        transmission_rate, susceptibility, profile, weights, source=s, target=e, infectious=i,
        risk="infection_risk" if policies.vaccinates else None, closures=policies.closures, outside=policies.outside,
        rate_by_week=rate_by_week, rate_by_region=rate_by_region,
    )  # fmt: skip
    rules = [infect, Leave(latent_rate, e, i, "BecomeInfectious"), Leave(recovery_rate, i, r, "Recover")]
    return Model(
        [*policies.phases, rules],
        state=_state(SEIR, {}, policies, policies.vaccinates),
        initial=[_seeds(s, e, initial_infected), *policies.initial],
        observe=observe,
        name="seir",
        transmission=Transmission(_Seir(latent_rate, recovery_rate, profile), susceptibility, weights),
    )


def covid(
    transmission_rate: float,
    initial_infected: float | Sequence[int] = 0.0,
    seeding: Sequence[Seeding] = (),
    importation: Sequence[Importation] = (),
    vaccination: Vaccination | None = None,
    prior_infection: PriorInfection | None = None,
    layer_weights: Mapping[str, float] | None = None,
    calendar: CalendarKeys | None = None,
    susceptibility: Sequence[float] | None = None,
    severity: float = 1.0,
    probabilities: Mapping[str, Sequence[float]] | None = None,
    durations: Mapping[str, Sequence[float]] | None = None,
    infectiousness: Mapping[str, float] | None = None,
    rate_by_week: Sequence[float] | None = None,
    rate_by_region: Sequence[float] | None = None,
    interventions: Sequence[Intervention] = (),
) -> Model:
    r"""COVID-19 in eleven stages, with ages, layers, immunity at the start, arrivals and a calendar.

    A reproduction number from which the transmission rate follows is that of a population without immunity, in an
    average week of a school term, and without interventions.

    Args:
        transmission_rate: Infections per contact by one with severe symptoms, per unit of infectiousness: an infector
            with factor 1 sends 1 in all, spread over the days since infection.
        initial_infected: Probability that an agent is infected just before the first step (a float), whatever its
            immunity, or the keys of those who are. They are vaccinated like all others.
        seeding: Infections on given days, as `{number: 20, day: 2022-01-22, region: Auckland}`, or `per_100k` residents
            instead of `number`.
        importation: Infections day by day, as `{per_day: 2, from: 2022-02-28, to: 2022-06-30, region: Auckland}`, or
            `per_day_per_100k` residents instead of `per_day`.
        vaccination: Before the run, as `{coverage: 0.9, against_infection: 0.3, against_severe: 0.8}`; the coverage is
            one share, nine by ten-year age, or either by region.
        prior_infection: Before the run, as `{share: 0.1, against_infection: 0.8, against_severe: 0.9}`; without
            `against_infection` they start recovered.
        layer_weights: Factor on the contacts of a layer, by name; 1 where absent.
        calendar: Weekdays and school holidays, as `{weekly: {team: [1, 1, 1, 1, 1, 0, 0]}, closed_in_holidays:
            [class], school_terms: New Zealand}`; numbers of a week are scaled to a mean of 1 unless `average_day` is
            false.
        susceptibility: By ten-year age (9,); published where None.
        severity: Factor on the probability of severe disease, for a milder or graver strain.
        probabilities: By name (`asymptomatic`, `severe`, `hospital`, `icu`, `dead_on_ward`, `dead_in_icu`) and ten-year
            age (9,); published where absent.
        durations: Mean and standard deviation in days by name, such as `{mild: [12, 5], severe_to_hospital: [5.14]}`;
            published where absent.
        infectiousness: Factors `asymptomatic`, `presymptomatic`, `mild`, `severe`, and `profile_mean`, `profile_sd` in
            days; published where absent.
        rate_by_week: Factor on the transmission rate in each week of the run, the last one from there on.
        rate_by_region: Factor on the transmission rate of each region, in their order.
        interventions: Closures, isolation, tests and vaccination (`gnabm.models.policies`), such as `{close: [school],
            strength: 0.8, when: {observable: hospital_occupancy, above_per_100k: 5, days: 28}}`. Those with mild or
            severe symptoms are symptomatic; the susceptible and recovered are vaccinated.

    References:
        Hinch et al. (2021), PLoS Comput. Biol. 17(7) e1009146; Chopra et al. (2021), arXiv 2110.04421.

    Example:
        >>> model = covid(0.05, seeding=[{"number": 20, "day": 3}])
        >>> [rule.name for rule in model.rules()]
        ['Seed', 'Infect', 'Progress']
    """
    s, a = SUSCEPTIBLE, ASYMPTOMATIC
    disease = Disease.of(probabilities or {}, durations or {}, infectiousness or {}, severity)
    weights = dict(layer_weights or {})
    ages = published_susceptibility() if susceptibility is None else susceptibility
    # Those infected at the start were vaccinated before, but their infection is no prior one.
    vaccinated = [] if vaccination is None else [vaccinate(vaccination, s)]
    infected_before = [] if prior_infection is None else [infect_before(prior_infection, s, RECOVERED)]
    policies = Policies.of(interventions, symptomatic=(MILD, SEVERE), eligible=(s, RECOVERED), observables=OBSERVABLES)
    immune = bool(vaccinated or infected_before or policies.vaccinates)
    infect_risk, severe_risk = ("infection_risk", "severe_risk") if immune else (None, None)
    infect = InfectByAge(
        transmission_rate, ages, disease.profile, weights, source=s, target=a, infectious=disease.infectious(),
        calendar=None if calendar is None else Calendar.of(calendar), risk=infect_risk, closures=policies.closures,
        outside=policies.outside, rate_by_week=rate_by_week, rate_by_region=rate_by_region,
    )  # fmt: skip
    course = (a, disease.outcomes(), disease.transitions(), disease.figures(), severe_risk)
    start, progress = Progress(*course, name="InitialProgress"), Progress(*course)
    entering = (seed(seeding, s, a, infect_risk), bring(importation, s, a, infect_risk))
    before: list[Rule] = [*vaccinated, _seeds(s, a, initial_infected), *infected_before]
    own: list[Rule] = [*(rule for rule in entering if rule.arrivals), infect, progress]
    return Model(
        [*policies.phases, *([rule] for rule in own)],
        state=_state(COVID, STATE, policies, immune),
        initial=[*before, *policies.initial, start],
        observe=OBSERVABLES,
        name="covid",
        transmission=Transmission(disease.courses, ages, weights),
        sources=tables_in_use(susceptibility, probabilities or {}, durations or {}, infectiousness or {}, calendar),
    )
