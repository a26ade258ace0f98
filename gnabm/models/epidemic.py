"""Compartmental epidemics on a contact graph: `sir` and `seir`.

Both are discrete in time: in a step of dt days an event of hazard h happens with probability 1 - exp(-h dt), from
the state at the start of the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gnabm.agents import Agents, Column, StageName, Stages
from gnabm.errors import ConfigError, DataError
from gnabm.model import Leavers, Model, Observable, State, count_by_stage
from gnabm.neighbours import Neighbours
from gnabm.rule import Rule, SeedAgents, SeedAtRandom, Step

# Stages

SIR = Stages("susceptible", "infectious", "recovered")
SEIR = Stages("susceptible", "exposed", "infectious", "recovered")

# Rules


def _rate(value: float, name: str) -> nn.Parameter:
    number = torch.tensor(float(value))
    if not bool(torch.isfinite(number)) or number < 0:
        raise DataError(f"{name} must be a finite number >= 0, got {value}")
    return nn.Parameter(number)


def happens(hazard: Tensor, dt: float) -> Tensor:
    """Probability of at least one event of a hazard (n,), per day, in dt days."""
    return -torch.expm1(-hazard * dt)


class Infect(Rule):
    r"""Infection by infectious contacts, :math:`P = 1 - \exp(-\beta \, dt \sum_{j \to i} w_{ji})`.

    Args:
        transmission_rate: beta, infections per contact.
        source: Stage of the susceptible.
        target: Stage of the newly infected.
        infectious: Stage of those who transmit.
    """

    reproducibility = "bit"

    def __init__(self, transmission_rate: float, source: StageName, target: StageName, infectious: StageName) -> None:
        super().__init__()
        self.transmission_rate = _rate(transmission_rate, "transmission_rate")
        self.source, self.target, self.infectious = source, target, infectious

    def where(self, agents: Agents) -> Tensor:
        """The susceptible."""
        flags: Tensor = agents.stage.is_(self.source)
        return flags

    def forward(self, agents: Agents, contacts: Neighbours, step: Step) -> Mapping[str, Column]:
        """Move the newly infected."""
        stage = agents.stage
        sent = agents.everyone.stage.is_(self.infectious)
        hazard = self.transmission_rate * contacts.sum_neighbours(sent)
        return {"stage": stage.move(self.source, self.target, step.bernoulli(happens(hazard, step.dt)))}


class Leave(Rule):
    r"""A stage left at a constant rate, :math:`P = 1 - \exp(-r \, dt)`: geometric durations.

    Args:
        rate: r, per day.
        source: Stage to leave.
        target: Stage to enter.
        name: Name of the rule.
    """

    reproducibility = "bit"

    def __init__(self, rate: float, source: StageName, target: StageName, name: str) -> None:
        super().__init__(name)
        self.rate = _rate(rate, f"rate of {name}")
        self.source, self.target = source, target

    def where(self, agents: Agents) -> Tensor:
        """Those in the stage."""
        flags: Tensor = agents.stage.is_(self.source)
        return flags

    def forward(self, agents: Agents, contacts: Neighbours, step: Step) -> Mapping[str, Column]:
        """Move those who leave."""
        leaving = step.bernoulli(happens(self.rate, step.dt))
        return {"stage": agents.stage.move(self.source, self.target, leaving)}


class InfectByAge(Rule):
    r"""Infection with age-dependent susceptibility and an infectiousness profile over age of infection.

    .. math:: \lambda_i = \beta \, \sigma(a_i) \sum_l v_l \sum_{j \to i} w^l_{ji} \, g(\tau_j) \, [j \in I]

    with tau the whole days since infection, whatever the length of a step.

    Args:
        transmission_rate: beta, infections per contact.
        susceptibility: (num_age_groups,) sigma by ten-year age, or None for 1.
        profile: (num_days,) g by days since infection; its last value holds from there on.
        layer_weights: v by name of layer, 1 where absent.
    """

    writes = {"stage": "exclusive", "infected_on": "sole"}  # noqa: RUF012
    reproducibility = "bit"

    def __init__(
        self,
        transmission_rate: float,
        susceptibility: Sequence[float] | None,
        profile: Sequence[float],
        layer_weights: Mapping[str, float],
    ) -> None:
        super().__init__("Infect")
        self.transmission_rate = _rate(transmission_rate, "transmission_rate")
        self.susceptibility = (
            None if susceptibility is None else nn.Parameter(_positive(susceptibility, "susceptibility"))
        )
        self.profile = nn.Parameter(_positive(profile, "infectiousness"))
        self.layer_weights = nn.ParameterDict({n: _rate(v, f"layer_weights.{n}") for n, v in layer_weights.items()})
        self.stages = tuple(SEIR)

    def where(self, agents: Agents) -> Tensor:
        """The susceptible."""
        flags: Tensor = agents.stage.is_(self.stages[0])
        return flags

    def forward(self, agents: Agents, contacts: Neighbours, step: Step) -> Mapping[str, Column]:
        """Move the newly infected and note the step."""
        susceptible, exposed, infectious, _ = self.stages
        everyone = agents.everyone
        day = _days(step.index - everyone.infected_on, step.dt, self.profile.shape[0] - 1)
        sent = self.profile.index_select(0, day) * everyone.stage.is_(infectious)
        hazard = self.transmission_rate * contacts.sum_neighbours(sent, dict(self.layer_weights))
        if self.susceptibility is not None:
            hazard = hazard * self.susceptibility.index_select(0, agents.age_group.to(torch.int32))
        newly = step.bernoulli(happens(hazard, step.dt))
        stage = agents.stage.move(susceptible, exposed, newly)
        infected_on = torch.where(newly != 0, step.index, agents.infected_on)
        return {"stage": stage, "infected_on": infected_on.to(torch.int32)}


def _days(steps: Tensor, dt: float, last: int) -> Tensor:
    """Whole days within [0, last] in a number of steps (n,) int32."""
    if dt == 1:
        return steps.clamp(0, last)
    # Rounded before the floor: ten steps of 0.7 days are 7 days, though their product is just below.
    days = torch.round(steps.to(torch.float64) * dt, decimals=9).floor()
    return days.clamp(0, last).to(torch.int32)


def _positive(values: Sequence[float], name: str) -> Tensor:
    tensor = torch.tensor([float(v) for v in values])
    if tensor.numel() == 0 or not bool((torch.isfinite(tensor) & (tensor >= 0)).all()):
        raise DataError(f"{name} must be a list of finite numbers >= 0, got {list(values)}")
    return tensor


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


# Models


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
    )


def seir(
    transmission_rate: float,
    latent_rate: float,
    recovery_rate: float,
    initial_infected: float | Sequence[int] = 0.001,
    susceptibility: Sequence[float] | None = None,
    infectiousness: Sequence[float] = (1.0,),
    layer_weights: Mapping[str, float] | None = None,
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
    """
    s, e, i, r = SEIR
    return Model(
        [
            InfectByAge(transmission_rate, susceptibility, infectiousness, layer_weights or {}),
            Leave(latent_rate, e, i, "BecomeInfectious"),
            Leave(recovery_rate, i, r, "Recover"),
        ],
        state={
            "stage": SEIR,
            "infected_on": State(
                -1, torch.int32, "step of infection; -1 for those infected at the start or never", "step"
            ),
        },
        initial=_seeds(s, e, initial_infected),
        observe=[count_by_stage, _incidence(s)],
        name="seir",
    )
