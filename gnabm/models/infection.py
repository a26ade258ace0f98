"""Infection by contacts: what the infected send over time, and the rules that turn what is received into infections."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gnabm.agents import Agents, Column, Stage, StageName, Stages
from gnabm.errors import DataError
from gnabm.exposure import Part, candidates
from gnabm.messages import nonzero_rows
from gnabm.models.calendar import Calendar
from gnabm.models.durations import gamma_cdf
from gnabm.neighbours import Neighbours
from gnabm.random import bernoulli
from gnabm.rule import Rule, Step, stands
from gnabm.scan import Named, refuse_labels, senders

Floats = NDArray[np.float64]
Moved = tuple[Tensor, Mapping[str, Column]]
"""Rows that change, and their new values."""
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

    def table(self, dt: float) -> Tensor:
        """(K,) infectiousness 0, 1, ... steps after infection; the last value holds from there on."""
        last = self.values.shape[0] - 1
        values: Tensor = self(torch.arange(math.ceil(last / dt) + 2, dtype=torch.int32), dt)
        return values

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

    def table(self, dt: float) -> Tensor:
        """(K,) infectiousness 0, 1, ... steps after infection; the last value, 0, holds from there on."""
        if dt not in self._tables:
            values = np.concatenate([[0.0], self.by_steps(self.length(dt), dt), [0.0]])
            self._tables[dt] = torch.from_numpy(values.astype(np.float32))
        return self._tables[dt]

    def forward(self, steps: Tensor, dt: float) -> Tensor:
        """Infectiousness (n,) a number of steps (n,) int32 after infection; 0 for less than one."""
        table = self.table(dt)
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

    def table(self, family: Stages) -> Tensor:
        """(num_stages,) factor of each stage; differentiable in the factors."""
        codes = torch.tensor([int(s) for s in self.stages])
        return torch.zeros(len(family)).index_copy(0, codes, self.factors)

    def forward(self, stage: Stage) -> Tensor:
        """Factor (n,) of each agent; differentiable in the factors and in the stages."""
        table = self.table(stage.family)
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

    def fused(self, agents: Agents, contacts: Neighbours, step: Step) -> Moved | None:
        """Move the newly infected, walking the agents once."""
        stage: Stage = agents.stage
        if self.source == self.infectious:
            return None  # who sends would hear itself
        if not _single(self.transmission_rate):
            return None
        rows = stage.rows(self.infectious)
        newly = _infected(agents, contacts.exposure(rows, torch.ones(rows.shape[0]), {}), self, step)
        return newly, {"stage": stage.all_in(self.target, newly)}


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

    @property
    def has_kernel(self) -> bool:
        """Whether `fused` stands for `forward`; it reads tables of the profile and of the stages' factors."""
        tabled = [part for part in (self.profile, self.infectious) if isinstance(part, nn.Module)]
        return super().has_kernel and all(stands(part, "table") for part in tabled)

    def forward(self, agents: Agents, contacts: Neighbours, step: Step) -> Mapping[str, Column]:
        """Move the newly infected and note the step."""
        sent = self._sent(agents.everyone, step)
        hazard = self.transmission_rate * contacts.sum_neighbours(sent, self._weights(contacts, step))
        if self.susceptibility is not None:
            refuse_labels(Named("age_group", agents.age_group), self.susceptibility.shape[0])
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
        factor = stage.is_(infectious) if isinstance(infectious, StageName) else infectious(stage)
        sent: Tensor = self.profile(step.index - since, step.dt) * factor
        return sent

    def fused(self, agents: Agents, contacts: Neighbours, step: Step) -> Moved | None:
        """Move the newly infected and note the step, walking the agents once."""
        stage: Stage = agents.stage
        factor = self._factors(stage.family)
        if float(factor[int(self.source)]) != 0:
            return None  # who sends would hear itself
        table = factor.unsqueeze(1) * self.profile.table(step.dt)
        risk = None if self.risk is None else getattr(agents, self.risk)
        if not _single(self.transmission_rate, self.susceptibility, table, risk):
            return None
        rows, values = senders(stage.codes, agents.infected_on, step.index, table)
        newly = _infected(agents, contacts.exposure(rows, values, self._weights(contacts, step)), self, step)
        infected_on = torch.full(newly.shape, step.index, dtype=torch.int32)
        return newly, {"stage": stage.all_in(self.target, newly), "infected_on": infected_on}

    def _factors(self, family: Stages) -> Tensor:
        """(num_stages,) infectiousness of each stage relative to others."""
        if isinstance(self.infectious, StageFactors):
            return self.infectious.table(family)
        return torch.nn.functional.one_hot(torch.tensor(int(self.infectious)), len(family)).to(torch.float32)

    def _weights(self, contacts: Neighbours, step: Step) -> dict[str, float | Tensor]:
        """Weight of each layer in this step."""
        weights: dict[str, float | Tensor] = dict(self.layer_weights)
        if self.calendar is not None:
            for name, factor in self.calendar.factors(step, list(contacts)).items():
                weights[name] = weights.get(name, 1.0) * factor
        return weights


def _single(*values: Tensor | None) -> bool:
    """Whether values are float32, in which the kernels compute."""
    return all(value is None or value.dtype == torch.float32 for value in values)


def _infected(agents: Agents, parts: Sequence[Part], rule: Infect | InfectByAge, step: Step) -> Tensor:
    """Rows (n,) that are infected by what they receive."""
    group = by_group = risk = None
    if isinstance(rule, InfectByAge):
        if rule.susceptibility is not None:
            group, by_group = Named("age_group", agents.age_group), rule.susceptibility
        risk = None if rule.risk is None else getattr(agents, rule.risk)
    state = step.stream("bernoulli")
    rows, hazard = candidates(
        parts, agents.stage.codes, rule.source, state=state, keys=agents.keys, rate=rule.transmission_rate, dt=step.dt,
        group=group, by_group=by_group, risk=risk,
    )  # fmt: skip
    drawn = bernoulli(state, agents.keys, happens(hazard, step.dt), rows)
    return rows.index_select(0, nonzero_rows(drawn))
