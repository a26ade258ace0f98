"""Infection by contacts: the rules that turn what is received into infections, and what makes contacts fewer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from gnabm.agents import Agents, Column, Field, Stage, StageName, Stages
from gnabm.errors import DataError, UnknownFieldError, nearest
from gnabm.exposure import Part, candidates
from gnabm.intervention import Schedule, When
from gnabm.messages import nonzero_rows
from gnabm.models.calendar import Calendar
from gnabm.models.immunity import region_names
from gnabm.models.infectiousness import Profile, StageFactors, as_rate, as_rates
from gnabm.neighbours import Neighbours
from gnabm.parameters import Input
from gnabm.random import bernoulli
from gnabm.rule import Rule, Step, stands
from gnabm.scan import Named, refuse_labels, senders

Moved = tuple[Tensor, Mapping[str, Column]]
"""Rows that change, and their new values."""
HOME = "home"
"""Layer in which those who isolate meet others as before."""
_WEEK = 7
_TRANSMISSION = Input("infections per contact")


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

    inputs: ClassVar[Mapping[str, Input]] = {"transmission_rate": _TRANSMISSION}
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


class Closure(nn.Module):
    """Fewer contacts in some layers for a time: a factor of 1 less the strength.

    By region it holds for what residents of the region receive, wherever it comes from.

    Args:
        layers: Names of the layers.
        strength: Share of the contacts that fall away, within [0, 1].
        when: When it holds.
        regions: Names of the regions, or None for all.

    Raises:
        DataError: The strength is no such share.
    """

    inputs: ClassVar[Mapping[str, Input]] = {"strength": Input("share of the contacts that fall away", high=1.0)}

    def __init__(
        self, layers: Sequence[str], strength: float, when: When, regions: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        if not 0 <= strength <= 1:
            raise DataError(f"strength of a closure must lie in [0, 1], got {strength}; 1 leaves no contacts")
        self.layers, self.when, self.regions = tuple(layers), when, None if regions is None else tuple(regions)
        self.strength = nn.Parameter(torch.tensor(float(strength)))

    def factor(self, agents: Agents, step: Step) -> Tensor:
        """() factor of the layers, or (num_rows,) where regions differ; differentiable in strength and days."""
        lost = self.strength * self.when.active(agents, step)
        if self.regions is not None:
            names = region_names(agents.fields, "regions of a closure")
            closed = torch.tensor([name in self.regions for name in names], dtype=lost.dtype)
            lost = lost * closed.index_select(0, agents.region.to(torch.int32))
        return 1 - lost

    def refuse_unknown(self, name: str, layers: Sequence[str], fields: Mapping[str, Field]) -> None:
        """Refuse layers and regions that are not there.

        Args:
            name: Name of the closure, for messages.
            layers: Layers of the contact graph.
            fields: Columns of the population.

        Raises:
            UnknownFieldError: There is no such layer or region.
            ConfigError: The population has no regions.
        """
        for layer in self.layers:
            if layer not in layers:
                raise UnknownFieldError(f"interventions: {name}: there is no layer {layer!r}; {nearest(layer, layers)}")
        known = () if self.regions is None else region_names(fields, f"interventions: {name}")
        for region in self.regions or ():
            if region not in known:
                raise UnknownFieldError(
                    f"interventions: {name}: there is no region {region!r}; {nearest(region, known)}"
                )

    @property
    def by_agent(self) -> bool:
        """Whether the factor differs by agent."""
        return self.regions is not None or self.when.by_region


class InfectByAge(Rule):
    r"""Infection with age-dependent susceptibility and infectiousness over the time since infection.

    .. math:: \lambda_i = \beta(t, i) \, \sigma(a_i) \, r_i
        \sum_l v_l c_l(t) q^l_i \sum_{j \to i} w^l_{ji} \, q^l_j \, g(\tau_j) \, f(s_j)

    with tau the time since infection, f a factor of the stage, r the relative risk of who is immune in part, c the
    calendar and closures of the layer, and q the isolation of sender and receiver, 1 in the layer `home`.

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
        closures: Closures by name.
        outside: Names of the state fields whose product is q; where there are any, the rule runs in its plain form.
        rate_by_week: Factor on beta in each week of the run, the last one from there on; or None for 1.
        rate_by_region: Factor on beta by region of who is infected, or None for 1; with it the rule is plain torch.
    """

    inputs: ClassVar[Mapping[str, Input]] = {
        "transmission_rate": _TRANSMISSION,
        "susceptibility": Input("relative susceptibility", axis="ten-year age"),
        "layer_weights": Input("factor on the contacts of a layer"),
        "profile.values": Input("infectiousness", axis="day since infection"),
        "infectious.factors": Input("infectiousness relative to other stages", axis="stage"),
        "rate_by_week": Input("factor on the transmission rate", axis="week"),
        "rate_by_region": Input("factor on the transmission rate", axis="region"),
    }
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
        closures: Mapping[str, Closure] | None = None,
        outside: Sequence[str] = (),
        rate_by_week: Sequence[float] | None = None,
        rate_by_region: Sequence[float] | None = None,
    ) -> None:
        super().__init__("Infect")
        self.transmission_rate = as_rate(transmission_rate, "transmission_rate")
        self.susceptibility = None if susceptibility is None else as_rates(susceptibility, "susceptibility")
        self.profile = profile
        self.layer_weights = nn.ParameterDict({n: as_rate(v, f"layer_weights.{n}") for n, v in layer_weights.items()})
        self.source, self.target = source, target
        self.infectious = infectious if isinstance(infectious, StageName) else StageFactors(infectious)
        self.calendar, self.risk, self.outside = calendar, risk, tuple(outside)
        self.closures = nn.ModuleDict(dict(closures or {}))
        self.rate_by_week = None if rate_by_week is None else as_rates(rate_by_week, "rate_by_week")
        self.rate_by_region = None if rate_by_region is None else as_rates(rate_by_region, "rate_by_region")
        told = {**Closure.inputs, **{f"when.{name}": told for name, told in Schedule.inputs.items()}}
        self.inputs = {  # type: ignore[misc]
            **type(self).inputs,
            **{f"closures.{closure}.{name}": each for closure in self.closures for name, each in told.items()},
        }

    def where(self, agents: Agents) -> Tensor:
        """The susceptible."""
        flags: Tensor = agents.stage.is_(self.source)
        return flags

    @property
    def has_kernel(self) -> bool:
        """Whether `fused` stands for `forward`.

        It reads tables of the profile and of the stages' factors, and one factor of each layer for everybody.
        """
        tabled = [part for part in (self.profile, self.infectious) if isinstance(part, nn.Module)]
        closed = [closure for closure in self.closures.values() if isinstance(closure, Closure) and closure.by_agent]
        by_agent = bool(self.outside or closed) or self.rate_by_region is not None
        return super().has_kernel and not by_agent and all(stands(part, "table") for part in tabled)

    def forward(self, agents: Agents, contacts: Neighbours, step: Step) -> Mapping[str, Column]:
        """Move the newly infected and note the step."""
        senders = self._senders(agents.everyone.stage) if step.weighted else None
        sent = self._sent(agents.everyone, step, senders)
        fields = self._isolated(sent, agents, contacts, step)
        hazard = self._rate(step) * contacts.sum_neighbours(*fields, senders=senders)
        if self.rate_by_region is not None:
            refuse_labels(Named("region", agents.region), self.rate_by_region.shape[0])
            hazard = hazard * self.rate_by_region.index_select(0, agents.region.to(torch.int32))
        if self.susceptibility is not None:
            refuse_labels(Named("age_group", agents.age_group), self.susceptibility.shape[0])
            hazard = hazard * self.susceptibility.index_select(0, agents.age_group.to(torch.int32))
        if self.risk is not None:
            hazard = hazard * getattr(agents, self.risk)
        newly = step.bernoulli(happens(hazard, step.dt))
        stage = agents.stage.move(self.source, self.target, newly)
        infected_on = torch.where(newly != 0, step.index, agents.infected_on)
        return {"stage": stage, "infected_on": infected_on.to(torch.int32)}

    def _senders(self, stage: Stage) -> Tensor | None:
        """(num_agents,) flags of those whose stage lets them send, who alone have a gradient in what they send."""
        if isinstance(self.infectious, StageName):
            return stage.is_(self.infectious)
        if not isinstance(self.infectious, StageFactors):
            return None
        flags = [stage.is_(name) for name in self.infectious.stages]
        return torch.stack(flags).any(0)

    def _sent(self, everyone: Agents, step: Step, senders: Tensor | None = None) -> Tensor:
        """What everyone sends (num_agents,), worked out for the senders alone where they are known."""
        if senders is not None:
            rows = nonzero_rows(senders)
            values = self._sent(everyone.only(rows), step)
            return values.new_zeros(everyone.num_agents).index_copy(0, rows, values)
        stage, since, infectious = everyone.stage, everyone.infected_on, self.infectious
        factor = stage.is_(infectious) if isinstance(infectious, StageName) else infectious(stage)
        sent: Tensor = self.profile(step.index - since, step.dt) * factor
        return sent

    def _isolated(
        self, sent: Tensor, agents: Agents, contacts: Neighbours, step: Step
    ) -> tuple[Tensor | dict[str, Tensor], dict[str, float | Tensor]]:
        """What everyone sends, by layer where some isolate, and the weight of each layer for those who receive."""
        weights = self._weights(agents, contacts, step)
        if not self.outside:
            return sent, weights
        by_layer, less = dict.fromkeys(contacts, sent), sent
        for field in self.outside:
            less = less * getattr(agents.everyone, field)
        for name in contacts:
            if name != HOME:
                by_layer[name] = less
                for field in self.outside:
                    weights[name] = weights.get(name, 1.0) * getattr(agents, field)
        return by_layer, weights

    def _rate(self, step: Step) -> Tensor:
        """() infections per contact in this step."""
        if self.rate_by_week is None:
            return self.transmission_rate
        week = math.floor(round(step.index * step.dt, 9) / _WEEK)
        return self.transmission_rate * self.rate_by_week[min(week, self.rate_by_week.shape[0] - 1)]

    def fused(self, agents: Agents, contacts: Neighbours, step: Step) -> Moved | None:
        """Move the newly infected and note the step, walking the agents once."""
        if not all(_single(closure.strength) for closure in self.closures.values() if isinstance(closure, Closure)):
            return None
        stage: Stage = agents.stage
        factor = self._factors(stage.family)
        if float(factor[int(self.source)]) != 0:
            return None  # who sends would hear itself
        table = factor.unsqueeze(1) * self.profile.table(step.dt)
        risk = None if self.risk is None else getattr(agents, self.risk)
        if not _single(self.transmission_rate, self.susceptibility, table, risk, self.rate_by_week):
            return None
        rows, values = senders(stage.codes, agents.infected_on, step.index, table)
        newly = _infected(agents, contacts.exposure(rows, values, self._weights(agents, contacts, step)), self, step)
        infected_on = torch.full(newly.shape, step.index, dtype=torch.int32)
        return newly, {"stage": stage.all_in(self.target, newly), "infected_on": infected_on}

    def _factors(self, family: Stages) -> Tensor:
        """(num_stages,) infectiousness of each stage relative to others."""
        if isinstance(self.infectious, StageFactors):
            return self.infectious.table(family)
        return torch.nn.functional.one_hot(torch.tensor(int(self.infectious)), len(family)).to(torch.float32)

    def _weights(self, agents: Agents, contacts: Neighbours, step: Step) -> dict[str, float | Tensor]:
        """Weight of each layer in this step, () or (num_rows,)."""
        weights: dict[str, float | Tensor] = dict(self.layer_weights)
        if self.calendar is not None:
            for name, factor in self.calendar.factors(step, list(contacts)).items():
                weights[name] = weights.get(name, 1.0) * factor
        for closure in self.closures.values():
            assert isinstance(closure, Closure)
            left = closure.factor(agents, step)
            for name in closure.layers:
                weights[name] = weights.get(name, 1.0) * left
        return weights


def _single(*values: Tensor | None) -> bool:
    """Whether values are float32, in which the kernels compute."""
    return all(value is None or value.dtype == torch.float32 for value in values)


def _infected(agents: Agents, parts: Sequence[Part], rule: Infect | InfectByAge, step: Step) -> Tensor:
    """Rows (n,) that are infected by what they receive."""
    group = by_group = risk = None
    rate = rule._rate(step) if isinstance(rule, InfectByAge) else rule.transmission_rate
    if isinstance(rule, InfectByAge):
        if rule.susceptibility is not None:
            group, by_group = Named("age_group", agents.age_group), rule.susceptibility
        risk = None if rule.risk is None else getattr(agents, rule.risk)
    state = step.stream("bernoulli")
    rows, hazard = candidates(
        parts, agents.stage.codes, rule.source, state=state, keys=agents.keys, rate=rate, dt=step.dt,
        group=group, by_group=by_group, risk=risk,
    )  # fmt: skip
    drawn = bernoulli(state, agents.keys, happens(hazard, step.dt), rows)
    return rows.index_select(0, nonzero_rows(drawn))
