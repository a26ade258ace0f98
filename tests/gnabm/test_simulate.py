"""The loop: same draws whatever else runs, yesterday's observables, the calendar, edge cases."""

from datetime import date, datetime

import numpy as np
import pytest
import torch

from gnabm import (
    Contacts,
    Field,
    Model,
    Observable,
    Population,
    Rule,
    SeedAgents,
    Simulation,
    Stages,
    State,
    count_by_stage,
    simulate,
)
from gnabm.errors import ConfigError, ConflictError, DataError, KindError, ShapeError, UnknownFieldError
from gnabm.models.epidemic import SIR, Infect, Leave, seir, sir
from gnabm.shard import cut
from gnabm.testing import awkward_population

POPULATION = awkward_population(800)
RING = Contacts.from_edges(range(8), [(k + 1) % 8 for k in range(8)], num_agents=8, undirected=True)
POPULATION_OF_8 = Population(
    8, {"region": np.array([0, 0, 0, 1, 1, 1, 1, 1], dtype=np.uint8)}, RING,
    {"region": Field("region", categories=("north", "south"))},
)  # fmt: skip
S, I, R = SIR  # noqa: E741


def history(model, population=POPULATION, steps=12, **options):
    """Stages of every agent and step, and all observables."""
    run = simulate(model, population, steps=steps, seed=3, record=["stage"], **options)
    return [run.fields["stage"], *(v.detach().numpy() for v in run.observed.values())]


def same(one, other):
    """Whether two histories are the same."""
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


class Inert(Rule):
    """Draws, sends and totals, and changes nothing."""

    writes = {"stage": "exclusive"}  # noqa: RUF012

    def forward(self, agents, contacts, step):
        step.bernoulli(torch.tensor(0.5))
        step.uniform()
        step.total(contacts.sum_neighbours(agents.stage.is_(I)))
        return {"stage": agents.stage}


@pytest.mark.parametrize("place", ["first", "last", "own phase"])
def test_an_inert_rule_changes_no_draw(place):
    infect, recover = Infect(0.05, S, I, I), Leave(0.2, I, R, "Recover")
    rules = {"first": [Inert(), infect, recover], "last": [infect, recover, Inert()],
             "own phase": [[Inert()], [infect, recover]]}[place]  # fmt: skip
    with_inert = Model(rules, state={"stage": SIR}, initial=SeedAgents(S, I, [3, 10, 17]))
    without = Model([infect, recover], state={"stage": SIR}, initial=SeedAgents(S, I, [3, 10, 17]))
    one = history(without)
    assert same(one, history(with_inert))
    assert len({codes.tobytes() for codes in one[0]}) > 3


def test_where_gives_the_bits_of_the_dense_run():
    class DenseInfect(Infect):
        def where(self, agents):
            return None

        def forward(self, agents, contacts, step):
            hazard = self.transmission_rate * contacts.sum_neighbours(agents.stage.is_(I))
            newly = step.bernoulli(-torch.expm1(-hazard * step.dt), where=agents.stage.is_(S))
            return {"stage": agents.stage.move(S, I, newly)}

    models = []
    for kind in (Infect, DenseInfect):
        rules = [kind(0.05, S, I, I), Leave(0.2, I, R, "Recover")]
        rules[0].name = "Infect"
        models.append(Model(rules, state={"stage": SIR}, initial=SeedAgents(S, I, [3, 10, 17])))
    assert same(history(models[0]), history(models[1]))


@pytest.mark.parametrize("messages", ["auto", "push", "pull"])
def test_the_form_of_the_kernels_changes_no_bit(messages):
    assert same(history(seir(0.1, 0.5, 0.2, 0.02)), history(seir(0.1, 0.5, 0.2, 0.02), messages=messages))


def test_a_differentiable_run_has_the_same_history_and_gradients_that_reach_back():
    model = sir(0.03, 0.2, 0.05)
    assert same(history(model), history(model, gradient="straight-through"))
    run = simulate(model, POPULATION, steps=20, seed=3, gradient="straight-through")
    late = run.observed["incidence"][-1].sum() + run.observed["stage_count"][-1, 2].sum()
    gradients = torch.autograd.grad(late, [p for _, p in model.named_parameters()])
    assert all(bool(g.isfinite()) and float(g) != 0 for g in gradients)


def test_one_seed_one_history():
    assert same(history(sir(0.05, 0.2, 0.02)), history(sir(0.05, 0.2, 0.02)))
    other = simulate(sir(0.05, 0.2, 0.02), POPULATION, steps=12, seed=4, record=["stage"])
    assert not np.array_equal(other.fields["stage"], history(sir(0.05, 0.2, 0.02))[0])


def test_a_longer_run_continues_a_shorter_one():
    assert np.array_equal(history(sir(0.05, 0.2, 0.02), steps=5)[0], history(sir(0.05, 0.2, 0.02), steps=12)[0][:5])


def test_the_infected_first_send_in_the_step_after_their_infection():
    run = simulate(sir(1e9, 0.0, initial_infected=[0]), RING, steps=5, seed=1, record=["stage"])
    reached = (run.fields["stage"] == 1).sum(1)
    assert reached.tolist() == [3, 5, 7, 8, 8]
    assert run.observed["incidence"].tolist() == [2, 2, 2, 1, 0]


def test_the_infected_can_first_recover_in_the_step_after_their_infection():
    run = simulate(sir(1e9, 1e9, initial_infected=[0]), RING, steps=5, seed=1)
    assert run.observed["stage_count"].tolist() == [[5, 2, 1], [3, 2, 3], [1, 2, 5], [0, 1, 7], [0, 0, 8]]


class Watches(Rule):
    """Notes what it sees."""

    writes = {}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, agents, contacts, step):
        counts = None if step.index < 0 else step.observed["stage_count"].tolist()
        self.seen.append((step.index, counts, step.date if step.start else None))
        return {}


def test_a_rule_sees_yesterdays_observables():
    watches = Watches()
    model = Model([Infect(1e9, S, I, I), watches], state={"stage": SIR}, initial=SeedAgents(S, I, [0]))
    simulate(model, RING, steps=3, seed=1)
    assert [s[:2] for s in watches.seen] == [(0, [7, 1, 0]), (1, [5, 3, 0]), (2, [3, 5, 0])]


@pytest.mark.parametrize(
    ("dt", "second"), [(1.0, datetime(2022, 1, 21)), (0.5, datetime(2022, 1, 20, 12)), (7.0, datetime(2022, 1, 27))]
)
def test_steps_have_dates(dt, second):
    watches = Watches()
    simulate(Model([watches], state={"stage": SIR}), RING, steps=2, seed=1, start=date(2022, 1, 20), dt=dt)
    assert [s[2] for s in watches.seen] == [datetime(2022, 1, 20), second]


def test_a_run_without_a_calendar_has_no_date():
    class Asks(Watches):
        def forward(self, agents, contacts, step):
            step.weekday  # noqa: B018
            return {}

    model = Model([Asks()], state={"stage": SIR})
    simulate(model, RING, steps=1, seed=1, start=date(2022, 1, 20))
    with pytest.raises(ConfigError, match="this run has no calendar"):
        simulate(model, RING, steps=1, seed=1)


def test_no_steps_give_the_initial_state_and_empty_observables():
    run = simulate(sir(0.1, 0.1, [2]), POPULATION_OF_8, steps=0, seed=1, record=["stage"])
    assert run.agents.stage.codes.tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    assert run.observed["stage_count"].shape == (0, 3, 2) and run.fields["stage"].shape == (0, 8)
    assert run.to_xarray().stage_count.shape == (0, 3, 2)


def test_recorded_fields_are_the_state_at_the_end_of_each_step():
    run = simulate(seir(0.5, 0.5, 0.2, 0.1), POPULATION, steps=6, seed=1, record=["stage", "infected_on"])
    assert np.array_equal(run.fields["stage"][-1], run.agents.stage.codes.numpy())
    assert run.fields["infected_on"].dtype == np.int32
    counts = np.stack([(run.fields["stage"] == k).sum(1) for k in range(4)], 1)
    assert np.array_equal(counts, run.observed["stage_count"].sum((2, 3)))
    new = (run.fields["infected_on"] == np.arange(6)[:, None])[1:].sum(1)
    assert np.array_equal(new, run.observed["incidence"].sum((1, 2))[1:])


def test_observables_of_floats_and_of_flags_are_grouped():
    observe = [
        count_by_stage,
        Observable("years", lambda before, after: after.age.float(), by=("region",), unit="years"),
        Observable("old", lambda before, after: after.age > 60, by=()),
    ]
    run = simulate(Model([], state={"stage": SIR}, observe=observe), POPULATION, steps=1, seed=1)
    age, region = POPULATION.columns["age"].astype(float), POPULATION.columns["region"]
    assert run.observed["years"].tolist() == [[age[region == r].sum() for r in range(3)]]
    assert run.observed["years"].dtype == torch.float64
    assert run.observed["old"].tolist() == [(age > 60).sum()]


def test_a_stream_is_drawn_once_per_step():
    class Twice(Rule):
        def forward(self, agents, contacts, step):
            step.bernoulli(torch.tensor(0.5))
            step.bernoulli(torch.tensor(0.5))

    with pytest.raises(ConflictError, match=r"rule 'Twice' draws twice from its stream 'bernoulli'.*name="):
        simulate(Model([Twice()], state={"stage": SIR}), RING, steps=1, seed=0)


def test_messages_are_sent_by_everyone():
    class Sends(Rule):
        def where(self, agents):
            return agents.stage.is_(S)

        def forward(self, agents, contacts, step):
            contacts.sum_neighbours(agents.stage.is_(I))

    with pytest.raises(ShapeError, match=r"sent by everyone: expected \(8,\) values, got \(7,\).*agents.everyone"):
        simulate(Model([Sends()], state={"stage": SIR}, initial=SeedAgents(S, I, [0])), RING, steps=1, seed=0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(steps=-1), DataError, "steps must be >= 0"), (dict(steps=1.0), KindError, "steps must be an integer"),
        (dict(steps=True), KindError, "steps must be an integer"), (dict(dt=0.0), DataError, "dt must be"),
        (dict(dt=float("nan")), DataError, "dt must be"), (dict(messages="pul"), DataError, "'auto', 'push' or 'pull'"),
        (dict(record="stage"), KindError, r"write \['stage'\]"),
        (dict(gradient="exact"), ConfigError, "unknown gradient"),
        (dict(record=["stag"]), UnknownFieldError, "did you mean 'stage'"),
        (dict(population=Contacts.from_edges([], [], num_agents=0)), DataError, "at least one agent"),
        (dict(population=Contacts({}, 8)), UnknownFieldError, "has no layer"),
        (dict(model=sir(0.1, 0.1, [9])), ConfigError, "not all agents of this population"),
        (dict(population=Population(8, {"stage": np.zeros(8)}, RING)), DataError, "also a column of the population"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(options, error, message):
    arguments = {"model": sir(0.1, 0.1, [0]), "population": RING, "steps": 1, "seed": 0, **options}
    with pytest.raises(error, match=message):
        simulate(arguments.pop("model"), arguments.pop("population"), **arguments)


def test_a_probability_out_of_range_names_the_cure():
    class Bad(Rule):
        def forward(self, agents, contacts, step):
            step.bernoulli(torch.tensor(1.5))

    with pytest.raises(DataError, match=r"must lie in \[0, 1\], got 1.5"):
        simulate(Model([Bad()], state={"stage": SIR}), RING, steps=1, seed=0)


def test_the_tap_hears_every_rule():
    heard = []
    run = Simulation(sir(0.1, 0.1, [0]), cut(Population.of(RING)), seed=0, tap=lambda *call: heard.append(call[:3]))
    run.advance()
    assert heard == [(-1, "SeedAgents", "stage"), (0, "Infect", "stage"), (0, "Recover", "stage")]


def test_a_state_of_one_agent_without_contacts():
    alone = Contacts.from_edges([], [], num_agents=1)
    run = simulate(sir(1.0, 1e9, [0]), alone, steps=2, seed=0)
    assert run.observed["stage_count"].tolist() == [[0, 0, 1], [0, 0, 1]]


def test_float_state_decays_as_its_closed_form():
    class Decay(Rule):
        writes = {"x": "sole"}  # noqa: RUF012

        def forward(self, agents, contacts, step):
            return {"x": agents.x * 0.5}

    run = simulate(Model([Decay()], state={"x": State(1.0)}, observe=()), RING, steps=10, seed=0, record=["x"])
    assert run.fields["x"][:, 3].tolist() == [0.5**k for k in range(1, 11)]


def test_stages_of_another_family_are_refused():
    other, *_ = Stages("a", "b", "c")
    with pytest.raises(UnknownFieldError, match="no stage of"):
        simulate(Model([Leave(0.1, other, other, "r")], state={"stage": SIR}), RING, steps=1, seed=0)
