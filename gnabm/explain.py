"""`explain`: why one agent did what it did in one step.

The run is made again up to that step, with the same bits, and the rules of the step are looked over their shoulder:
what their contacts sent, what they drew, what they returned. So nothing need be stored for it, and any agent and step
can be asked for afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import torch
from torch import Tensor

from gnabm.agents import Agents, Column, Field, Stage
from gnabm.contacts import Contacts, Edges, Places
from gnabm.errors import DataError, GnabmError, KindError
from gnabm.explanation import Account, Explanation, Received, Source, Sum, Value, chance_of
from gnabm.merge import Change
from gnabm.model import Model
from gnabm.neighbours import Form, Neighbours
from gnabm.periods import Period
from gnabm.population import Population
from gnabm.race import NOBODY
from gnabm.rule import Rule, Step
from gnabm.shard import MixingShard, Shard, cut
from gnabm.simulation import Simulation
from gnabm.tracing import Tracer
from gnabm.witness import Heard, WatchedStep, contacts_of, heard, others, race_of

OnStep = Callable[[int, Mapping[str, Tensor]], None]
"""Called with the index of a step that was made again and its observables."""


def explain(
    model: Model,
    population: Population | Contacts,
    *,
    agent: int,
    step: int,
    seed: int,
    dt: float = 1.0,
    start: date | None = None,
    messages: Form = "auto",
    changes: Sequence[Period] = (),
    most_sources: int = 12,
    on_step: OnStep | None = None,
) -> Explanation:
    """Make a run again up to a step and explain that step for one agent.

    Args:
        model: The model of the run.
        population: Its agents and contacts.
        agent: Key of the agent.
        step: Step to explain, 0, 1, ...; -1 is the making of the initial state.
        seed: Seed of the run.
        dt: Length of a step in days.
        start: Date of step 0, or None for a run without a calendar.
        messages: Form of the message kernels; the bits are the same.
        changes: From which steps on another model and seed hold.
        most_sources: How many contacts to list one by one; the others are summed.
        on_step: Called after each step that is made again, the explained one included.

    Raises:
        DataError: There is no such agent or step.
        KindError: Agent or step are no integers.

    Example:
        >>> from gnabm.models.epidemic import sir
        >>> ring = Contacts.from_edges([0, 1, 2], [1, 2, 0], num_agents=3, undirected=True)
        >>> told = explain(sir(0.5, 0.1, initial_infected=[0]), ring, agent=1, step=0, seed=1)
        >>> told.before["stage"], [source.agent for source in told.rules[0].sums[0].sources]
        ('susceptible', [0])
    """
    for name, value in (("agent", agent), ("step", step)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise KindError(f"{name} must be an integer, got {value!r}")
    if step < -1:
        raise DataError(f"step must be 0 or more, or -1 for the initial state, got {step}")
    whole = Population.of(population)
    shard = cut(whole)
    row = _row_of(agent, shard)
    run = _Watched(
        model, shard, row, int(step), most_sources, seed=seed, dt=dt, start=start, messages=messages, changes=changes
    )
    for index in range(step + 1):
        observed = run.advance()
        if on_step is not None:
            on_step(index, observed)
    fields = run.agents.fields
    return Explanation(
        agent=int(agent), step=int(step), dt=run.dt, seed=run.seed, date=run.date,
        about={n: _value(c, row, fields.get(n)) for n, c in shard.columns.items() if n != "key"},
        units={n: f.unit for n, f in fields.items() if f.unit},
        surroundings={n: _surroundings(n, row, whole, shard) for n in shard.layers},
        before=run.before or run.state(), rules=tuple(run.accounts), after=run.state(),
    )  # fmt: skip


def _row_of(agent: int, shard: Shard) -> int:
    key = shard.columns["key"].numpy()
    rows = np.flatnonzero(key == agent)
    if rows.size == 0:
        raise DataError(
            f"there is no agent {agent}: the {key.size:,} keys lie within {key.min()}..{key.max()}; the line list "
            "(record.infections) and the recorded fields name agents by key"
        )
    return int(rows[0])


def _value(column: Column, row: int, meaning: Field | None = None) -> Value:
    """One agent's value of a column, by name where it is a label."""
    if isinstance(column, Stage):
        return column.family.names[int(column.codes[row])]
    value: Value = column[row].item()
    if meaning is not None and meaning.categories is not None and 0 <= int(value) < len(meaning.categories):
        return meaning.categories[int(value)]
    return value


def _surroundings(name: str, row: int, population: Population, shard: Shard) -> dict[str, Value]:
    """What an agent is part of in a layer."""
    layer, part = population.contacts[name], shard.layers[name]
    if isinstance(layer, Edges):
        first, last = (int(n) for n in np.asarray(layer.indptr[row : row + 2]))
        return {"kind": "edges", "contacts": last - first}
    if isinstance(layer, Places):
        place = int(np.asarray(layer.place[row : row + 1])[0])
        if place < 0:
            return {"kind": "places", "members": 0}
        first, last = (int(n) for n in np.asarray(layer.indptr[place : place + 2]))
        found: dict[str, Value] = {"kind": "places", "place": place, "members": last - first}
        if layer.activity is not None:
            found["activity"] = float(np.asarray(layer.activity[row : row + 1])[0])
        return found
    assert isinstance(part, MixingShard)
    area, group = int(np.searchsorted(part.area_start, row, side="right")) - 1, int(part.group[row])
    mean = float(np.asarray(layer.matrix)[group].sum())
    return {"kind": "mixing", "area": area, "group": group, "mean_contacts_per_day": mean}


# Looking on


class _Watched(Simulation):
    """A simulation that notes what the rules of one step do to one agent.

    Args:
        model: The model.
        shard: The whole population as one shard.
        row: Row of the agent.
        explained: The step.
        most_sources: How many contacts to list one by one.
        seed: Seed of all draws.
        dt: Length of a step in days.
        start: Date of step 0, or None.
        messages: Form of the kernels.
        changes: From which steps on another model and seed hold.
    """

    def __init__(
        self, model: Model, shard: Shard, row: int, explained: int, most_sources: int, *, seed: int, dt: float,
        start: date | None, messages: Form, changes: Sequence[Period],
    ) -> None:  # fmt: skip
        self.row, self.explained, self.most_sources = row, explained, most_sources
        self.accounts: list[Account] = []
        self.before: dict[str, Value] = {}
        super().__init__(model, shard, seed=seed, dt=dt, start=start, messages=messages, changes=changes)
        self.date = None if self.start is None else self.start + timedelta(days=self.dt * max(explained, 0))

    def state(self) -> dict[str, Value]:
        """The agent's state fields now."""
        return {name: _value(self.agents.columns[name], self.row) for name in self.model.state}

    def advance(self) -> Mapping[str, Tensor]:
        """Make one step; before the explained one the agent's state is noted."""
        if self.index == self.explained:
            self.before = self.state()
        return super().advance()

    def _fused(self, rule: Rule, neighbours: Neighbours) -> dict[str, Change] | None:
        # A kernel cannot be looked over its shoulder; the plain rule draws the same.
        return None if self.index == self.explained else super()._fused(rule, neighbours)

    def _ask(self, rule: Rule, shown: Agents, neighbours: Neighbours, step: Step) -> Mapping[str, Column]:
        if self.index != self.explained:
            return super()._ask(rule, shown, neighbours, step)
        if self.index < 0 and not self.before:
            self.before = self.state()
        phases = [] if self.index < 0 else self.model.phases
        phase = next((i for i, rules in enumerate(phases) if rule in rules), -1)
        parameters = {n: float(p) for n, p in rule.named_parameters() if p.numel() == 1}
        account = Account(rule.name, phase, True, parameters)
        at = self.row
        if shown.rows is not None:
            at = int(torch.searchsorted(shown.rows, self.row))
            if at == shown.rows.shape[0] or int(shown.rows[at]) != self.row:
                self.accounts.append(replace(account, concerned=False))
                return super()._ask(rule, shown, neighbours, step)
        graph = neighbours if neighbours.asked is not None else replace(neighbours, asked=[])
        watched = WatchedStep(**vars(step), at=at)
        returned = super()._ask(rule, shown, graph, watched)
        asked = list(graph.asked or ())
        self._try_others(rule, shown, graph, watched, returned)
        graph = replace(graph, asked=asked)
        self.accounts.append(self._account(account, rule, graph, watched, shown, returned, at))
        return returned

    def _try_others(
        self, rule: Rule, shown: Agents, graph: Neighbours, step: WatchedStep, returned: Mapping[str, Column]
    ) -> None:
        """Mark the draws that made no difference: with another outcome the rule does the same to the agent."""
        made = {name: _value(column, step.at) for name, column in returned.items()}
        for number, draw in enumerate(step.draws):
            differs = False
            for outcome in others(draw):
                again = replace(step, used=set(), draws=[], instead={draw.stream: outcome})
                tried = super()._ask(rule, shown, replace(graph, asked=[]), again)
                differs = differs or made != {name: _value(column, step.at) for name, column in tried.items()}
            if others(draw):
                step.draws[number] = replace(draw, used=differs)

    def _account(
        self, account: Account, rule: Rule, graph: Neighbours, step: WatchedStep, shown: Agents,
        returned: Mapping[str, Column], at: int,
    ) -> Account:  # fmt: skip
        asked = list(graph.asked or ())
        quiet = replace(graph, asked=[])  # sums that are made again to be told are not asked by the rule
        sums = [part for each in asked for part in heard(each, quiet, at)]
        chance = chance_of(step.draws)
        hazard = None
        if rule.infects and sums and chance is not None and chance.probability is not None:
            # A probability that was rounded to 1 no longer tells its hazard.
            hazard = -math.log1p(-chance.probability) / self.dt if chance.probability < 1 else None
        changes = {}
        for name, column in returned.items():
            old, new = _value(shown.columns[name], self.row), _value(column, at)
            if rule.writes[name] == "adds":
                assert not isinstance(old, str) and not isinstance(new, str)
                new = old + new
            if new != old:
                changes[name] = (old, new)
        told = tuple(self._sum(part, graph, hazard) for part in sums)
        account = replace(account, sums=told, draws=tuple(step.draws), changes=changes, hazard=hazard)
        return self._traced(account, rule, step, replace(graph, asked=asked), returned, at)

    def _traced(
        self, account: Account, rule: Rule, step: Step, graph: Neighbours, returned: Mapping[str, Column], at: int
    ) -> Account:
        """The account with the infector, by the race of the line list."""
        if not rule.infects or "stage" not in (account.changes or {}):
            return account
        before, after, row = self.agents.columns["stage"], returned["stage"], torch.tensor([self.row])
        assert isinstance(before, Stage) and isinstance(after, Stage)
        change = Change(rule.name, rule.writes["stage"], row, None, before.take(row), after.take(torch.tensor([at])))
        try:
            tracer = Tracer(self.shard, self.dt, self.start)
            tracer.expect(self.model)
            tracer.note(rule, step, change, graph)
        except GnabmError as error:
            return replace(account, untraced=str(error))
        record = tracer.take(step.index + 1)
        infector = int(record["infector"][0])
        through = tracer.names[int(record["layer"][0])]
        if infector == NOBODY:
            return replace(account, infected_through=through)
        assert graph.asked, "an infector is one of those whom the sum of the hazard heard"
        race = race_of(self.row, through, rule.name, graph.asked[0].sent[through].x, graph)
        return replace(account, infected_by=infector, infected_through=through, race=race)

    def _sum(self, call: Heard, graph: Neighbours, hazard: float | None) -> Sum:
        """The parts of a sum over contacts, and who sent them."""
        layers, sources = [], []
        for name, received in call.parts.items():
            factor = call.factors.get(name, 1.0)
            share = factor * received / call.total if call.total else 0.0
            found = contacts_of(self.row, name, graph)
            met = silent = None
            if found is not None:
                rows, weight = found
                sent = call.x[name].detach()[torch.from_numpy(rows)].to(torch.float64).numpy()  # an account is data
                loud = np.flatnonzero(sent * weight)
                met, silent = rows.size, rows.size - loud.size
                sources += [
                    self._source(int(rows[k]), name, float(weight[k]), float(sent[k]), factor, call.total)
                    for k in loud
                    if factor  # of a layer that is closed today nothing comes, whatever was sent
                ]
            part = None if hazard is None else hazard * share
            layers.append(Received(name, factor, met, silent, factor * received, share, part))
        sources.sort(key=lambda s: (-abs(s.received), s.agent, s.layer))
        listed, others = sources[: self.most_sources], sources[self.most_sources :]
        return Sum(call.total, tuple(layers), tuple(listed), len(sources), math.fsum(s.received for s in others))

    def _source(self, row: int, layer: str, contacts: float, sent: float, factor: float, total: float) -> Source:
        columns, received = self.agents.columns, factor * contacts * sent
        stage = _value(columns["stage"], row) if "stage" in columns else None
        age = _value(columns["age"], row) if "age" in columns else None
        return Source(
            agent=int(_value(columns["key"], row)), layer=layer, stage=None if stage is None else str(stage),
            age=None if age is None else float(age), contacts=contacts, sent=sent, received=received,
            share=received / total if total else 0.0,
        )  # fmt: skip
