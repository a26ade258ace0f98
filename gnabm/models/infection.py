"""Infection by contacts: what the infected send over time, and the rules that turn what is received into infections."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gnabm.agents import Agents, Column, Stage, StageName
from gnabm.errors import DataError
from gnabm.messages import nonzero_rows
from gnabm.models.calendar import Calendar
from gnabm.models.durations import gamma_cdf
from gnabm.neighbours import Neighbours
from gnabm.rule import Rule, Step

Floats = NDArray[np.float64]
_TAIL = 1e-9


def as_rate(value: float, name: str) -> nn.Parameter:
    """A number >= 0 that can be learned."""
    number = torch.tensor(float(value))
    if not bool(torch.isfinite(number)) or number < 0:
        raise DataError(f"{name} must be a finite number >= 0, got {value}")
    return nn.Parameter(number)


def as_rates(values: Sequence[float], name: str) -> nn.Parameter:
    """Numbers >= 0 that can be learned."""
    tensor = torch.tensor([float(v) for v in values])
    if tensor.numel() == 0 or not bool((torch.isfinite(tensor) & (tensor >= 0)).all()):
        raise DataError(f"{name} must be a list of finite numbers >= 0, got {list(values)}")
    return nn.Parameter(tensor)


def happens(hazard: Tensor, dt: float) -> Tensor:
    """Probability of at least one event of a hazard (n,), per day, in dt days."""
    return -torch.expm1(-hazard * dt)


# Infectiousness over the time since infection


class DailyProfile(nn.Module):
    """Infectiousness by whole days since infection, whatever the length of a step; the last value holds from there on.

    Args:
        values: (num_days,) learned.
    """

    def __init__(self, values: Sequence[float]) -> None:
        super().__init__()
        self.values = as_rates(values, "infectiousness")

    def forward(self, steps: Tensor, dt: float) -> Tensor:
        """Infectiousness (n,) a number of steps (n,) int32 after infection."""
        return self.values.index_select(0, whole_days(steps, dt, self.values.shape[0] - 1))

    def by_steps(self, length: int, dt: float) -> Floats:
        """(length,) infectiousness 1, ..., length steps after infection."""
        with torch.no_grad():  # a table of numbers for the next-generation matrix
            values: Tensor = self(torch.arange(1, length + 1, dtype=torch.int32), dt)
        return np.asarray(values.numpy(), dtype=np.float64)


def whole_days(steps: Tensor, dt: float, last: int) -> Tensor:
    """Whole days within [0, last] in a number of steps (n,) int32."""
    if dt == 1:
        return steps.clamp(0, last)
    # Rounded before the floor: ten steps of 0.7 days are 7 days, though their product is just below.
    days = torch.round(steps.to(torch.float64) * dt, decimals=9).floor()
    return days.clamp(0, last).to(torch.int32)


class GammaProfile(nn.Module):
    r"""Infectiousness as the density of a Gamma distribution, averaged over each step.

    .. math:: g_k = (F(k \, dt) - F((k - 1) \, dt)) / dt

    k steps after infection, per day, so that it adds up to 1 over all days.

    Args:
        mean: Days.
        sd: Days.

    Reference:
        Hinch et al. (2021), PLoS Comput. Biol. 17(7) e1009146, eq. 1.
    """

    def __init__(self, mean: float, sd: float) -> None:
        super().__init__()
        for name, value in (("profile_mean", mean), ("profile_sd", sd)):
            if not (math.isfinite(value) and value > 0):
                raise DataError(f"infectiousness.{name} must be a positive number of days, got {value}")
        self.mean, self.sd = float(mean), float(sd)
        self._tables: dict[float, Tensor] = {}

    def length(self, dt: float) -> int:
        """Steps after which less than 1e-9 of the infectiousness is left."""
        size = 16
        while gamma_cdf(np.array([size * dt]), self.mean, self.sd)[0] < 1 - _TAIL:
            size *= 2
        cdf = gamma_cdf(np.arange(1, size + 1) * dt, self.mean, self.sd)
        return int(np.searchsorted(cdf, 1 - _TAIL)) + 1

    def by_steps(self, length: int, dt: float) -> Floats:
        """(length,) infectiousness 1, ..., length steps after infection, per day."""
        return np.asarray(np.diff(gamma_cdf(np.arange(length + 1) * dt, self.mean, self.sd)) / dt)

    def forward(self, steps: Tensor, dt: float) -> Tensor:
        """Infectiousness (n,) a number of steps (n,) int32 after infection; 0 for less than one."""
        if dt not in self._tables:
            values = np.concatenate([[0.0], self.by_steps(self.length(dt), dt), [0.0]])
            self._tables[dt] = torch.from_numpy(values.astype(np.float32))
        table = self._tables[dt]
        return table.index_select(0, steps.clamp(0, table.shape[0] - 1))


Profile = DailyProfile | GammaProfile


class StageFactors(nn.Module):
    """Infectiousness relative to other stages.

    Args:
        factors: By stage; the other stages send nothing. Learned.
    """

    def __init__(self, factors: Mapping[StageName, float]) -> None:
        super().__init__()
        self.stages = tuple(factors)
        self.factors = as_rates(list(factors.values()), "infectiousness")

    def possible(self, stage: Stage) -> Tensor:
        """(n,) bool of a set of agents that contains all whose factor is not 0."""
        codes = [int(s) for s in self.stages]
        return (stage.codes >= min(codes)) & (stage.codes <= max(codes))

    def forward(self, stage: Stage) -> Tensor:
        """Factor (n,) of each agent; differentiable in the factors and in the stages."""
        codes = torch.tensor([int(s) for s in self.stages])
        table = torch.zeros(len(stage.family)).index_copy(0, codes, self.factors)
        if stage.flags is None:
            return table.index_select(0, stage.codes.to(torch.int32))
        result = torch.zeros(len(stage))
        for name in self.stages:
            result = result + table[int(name)] * stage.is_(name)
        return result


# Rules


class Infect(Rule):
    r"""Infection by infectious contacts, :math:`P = 1 - \exp(-\beta \, dt \sum_{j \to i} w_{ji})`.

    Args:
        transmission_rate: beta, infections per contact.
        source: Stage of the susceptible.
        target: Stage of the newly infected.
        infectious: Stage of those who transmit.
    """

    reproducibility = "bit"
    infects = True

    def __init__(self, transmission_rate: float, source: StageName, target: StageName, infectious: StageName) -> None:
        super().__init__()
        self.transmission_rate = as_rate(transmission_rate, "transmission_rate")
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


class InfectByAge(Rule):
    r"""Infection with age-dependent susceptibility and infectiousness over the time since infection.

    .. math:: \lambda_i = \beta \, \sigma(a_i) \, r_i \sum_l v_l c_l(t) \sum_{j \to i} w^l_{ji} \, g(\tau_j) \, f(s_j)

    with tau the time since infection, f a factor of the stage, r the relative risk of who is immune in part and c the
    calendar of the layer.

    Args:
        transmission_rate: beta, infections per contact.
        susceptibility: (num_age_groups,) sigma by ten-year age, or None for 1.
        profile: g.
        layer_weights: v by name of layer, 1 where absent.
        source: Stage of the susceptible.
        target: Stage of the newly infected.
        infectious: The one stage that transmits, or the factor f of each that does.
        calendar: c by layer and date, or None for 1.
        risk: Name of the state field that holds r, or None for 1.
    """

    writes = {"stage": "exclusive", "infected_on": "sole"}  # noqa: RUF012
    reproducibility = "bit"
    infects = True

    def __init__(
        self,
        transmission_rate: float,
        susceptibility: Sequence[float] | None,
        profile: Profile,
        layer_weights: Mapping[str, float],
        *,
        source: StageName,
        target: StageName,
        infectious: StageName | Mapping[StageName, float],
        calendar: Calendar | None = None,
        risk: str | None = None,
    ) -> None:
        super().__init__("Infect")
        self.transmission_rate = as_rate(transmission_rate, "transmission_rate")
        self.susceptibility = None if susceptibility is None else as_rates(susceptibility, "susceptibility")
        self.profile = profile
        self.layer_weights = nn.ParameterDict({n: as_rate(v, f"layer_weights.{n}") for n, v in layer_weights.items()})
        self.source, self.target = source, target
        self.infectious = infectious if isinstance(infectious, StageName) else StageFactors(infectious)
        self.calendar, self.risk = calendar, risk

    def where(self, agents: Agents) -> Tensor:
        """The susceptible."""
        flags: Tensor = agents.stage.is_(self.source)
        return flags

    def forward(self, agents: Agents, contacts: Neighbours, step: Step) -> Mapping[str, Column]:
        """Move the newly infected and note the step."""
        sent = self._sent(agents.everyone, step)
        hazard = self.transmission_rate * contacts.sum_neighbours(sent, self._weights(contacts, step))
        if self.susceptibility is not None:
            hazard = hazard * self.susceptibility.index_select(0, agents.age_group.to(torch.int32))
        if self.risk is not None:
            hazard = hazard * getattr(agents, self.risk)
        newly = step.bernoulli(happens(hazard, step.dt))
        stage = agents.stage.move(self.source, self.target, newly)
        infected_on = torch.where(newly != 0, step.index, agents.infected_on)
        return {"stage": stage, "infected_on": infected_on.to(torch.int32)}

    def _sent(self, everyone: Agents, step: Step) -> Tensor:
        """What everyone sends (num_agents,)."""
        stage, since, infectious = everyone.stage, everyone.infected_on, self.infectious
        if isinstance(infectious, StageName):
            only: Tensor = self.profile(step.index - since, step.dt) * stage.is_(infectious)
            return only
        if stage.flags is not None:
            dense: Tensor = self.profile(step.index - since, step.dt) * infectious(stage)
            return dense
        # A forward run looks up the infected alone: the same values, and 0 is what the others send.
        rows = nonzero_rows(infectious.possible(stage))
        values = self.profile(step.index - since.index_select(0, rows), step.dt) * infectious(stage.take(rows))
        return torch.zeros(len(stage)).index_copy(0, rows, values)

    def _weights(self, contacts: Neighbours, step: Step) -> dict[str, float | Tensor]:
        """Weight of each layer in this step."""
        weights: dict[str, float | Tensor] = dict(self.layer_weights)
        if self.calendar is not None:
            for name, factor in self.calendar.factors(step, list(contacts)).items():
                weights[name] = weights.get(name, 1.0) * factor
        return weights
