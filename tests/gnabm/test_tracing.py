"""The recorder names infectors that sent something, by the same bits everywhere, and changes nothing else."""

import numpy as np
import pandas as pd
import pytest
import torch

from gnabm import Contacts, Mixing, Model, Places, Population, Rule, simulate
from gnabm.agents import Field, Stages
from gnabm.errors import ConfigError, ConflictError, DataError, ShapeError
from gnabm.model import State
from gnabm.models.epidemic import seir
from gnabm.rule import SeedAgents
from gnabm.testing.watch import num_threads

S, I = SI = Stages("S", "I")  # noqa: E741
AGENTS = 400


def people(agents=AGENTS, seed=2):
    """Homes, friends with weights, classes with activity, and a pool; keys in no order."""
    rng = np.random.default_rng(seed)
    pairs = np.unique(rng.integers(0, agents, (3 * agents, 2)), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    weight = rng.gamma(1.0, 0.5, len(pairs)).astype(np.float32)
    friends = Contacts.from_edges(pairs[:, 0], pairs[:, 1], weight, agents, name="friends").layers
    room = Places.of(np.where(rng.random(agents) < 0.3, -1, rng.integers(0, 20, agents)), 4.0, num_places=20)
    activity = rng.gamma(2.0, 0.5, agents).astype(np.float32)
    layers = {
        "home": Places.of(np.arange(agents) // 3),
        **friends,
        "class": Places(room.place, room.indptr, room.member, 4.0, activity=activity),
        "pool": Mixing.uniform(agents, 2.0, 0.5),
    }
    columns = {
        "key": rng.permutation(agents) * 7 + 100,
        "age": rng.integers(0, 90, agents).astype(np.uint8),
        "region": (np.arange(agents) >= 150).astype(np.uint8),
    }
    fields = {"region": Field("region", "region", "", ("north island", "south island"))}
    return Population(agents, columns, Contacts(layers, agents), fields)


def model(**changes):
    settings = {
        "transmission_rate": 0.25, "latent_rate": 0.5, "recovery_rate": 0.25, "initial_infected": 0.02,
        "layer_weights": {"class": 0.7, "pool": 0.5}, "infectiousness": [0.2, 1.0, 0.7, 0.4],
    }  # fmt: skip
    return seir(**(settings | changes))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small arrays: threads would only wait for each other."""
    with num_threads(1):
        yield


@pytest.fixture(scope="module")
def population():
    return people()


@pytest.fixture(scope="module")
def traced(population):
    return simulate(model(), population, steps=40, seed=5, infections=True, record=["stage"])


def test_recording_infections_changes_nothing_else(population, traced):
    plain = simulate(model(), population, steps=40, seed=5, record=["stage"])
    assert plain.infections is None
    assert all(torch.equal(value, traced.observed[name]) for name, value in plain.observed.items())
    assert (plain.fields["stage"] == traced.fields["stage"]).all()


def test_there_is_one_record_for_each_infection(population, traced):
    records = traced.infections
    first = records[records.step >= 0]
    assert (np.bincount(first.step, minlength=40) == traced.observed["incidence"].sum(1).numpy()).all()
    assert records.agent.is_unique
    row = pd.Series(np.arange(AGENTS), index=population.columns["key"])
    stage = traced.fields["stage"]
    assert all(stage[step, row[agent]] == 1 for step, agent in zip(first.step, first.agent, strict=True))
    assert records.equals(records.sort_values(["step", "agent"], ignore_index=True))
    rows = row[records.agent].to_numpy()
    assert (records.age == population.columns["age"][rows]).all()
    assert (records.region.cat.codes == population.columns["region"][rows]).all()
    assert set(records.region) == {"north island", "south island"}


def test_the_initial_ones_come_from_nobody_in_step_minus_one(traced):
    initial = traced.infections[traced.infections.step == -1]
    assert len(initial) > 0
    assert set(initial.layer) == {"SeedAtRandom"}
    assert (initial.infector == -1).all()
    assert (traced.infections.infector[traced.infections.step >= 0] >= 0).all()


def test_infectors_were_infectious_and_in_contact_through_the_layer(population, traced):
    records = traced.infections[traced.infections.step >= 0]
    row = pd.Series(np.arange(AGENTS), index=population.columns["key"])
    layers, stage = population.contacts.layers, traced.fields["stage"]
    assert set(records.layer) == set(layers)
    for agent, step, infector, layer in records[["agent", "step", "infector", "layer"]].itertuples(index=False):
        i, j = row[agent], row[infector]
        assert stage[step - 1, j] == 2
        if layer in ("home", "class"):
            assert layers[layer].place[i] == layers[layer].place[j] >= 0
        if layer == "friends":
            friends = layers[layer]
            assert j in friends.source[friends.indptr[i] : friends.indptr[i + 1]]


@pytest.mark.parametrize(("messages", "threads"), [("auto", 2), ("push", 2), ("pull", 1)])
def test_forms_and_threads_do_not_change_the_list(population, traced, messages, threads):
    with num_threads(threads):
        other = simulate(model(), population, steps=40, seed=5, infections=True, messages=messages)
    pd.testing.assert_frame_equal(other.infections, traced.infections)


def test_another_seed_and_another_step_length_give_another_list(population, traced):
    assert not simulate(model(), population, steps=40, seed=6, infections=True).infections.equals(traced.infections)
    half = simulate(model(), population, steps=40, seed=5, dt=0.5, infections=True).infections
    assert len(half) > 50
    assert (half.infector[half.step >= 0] >= 0).all()


def test_dates_follow_the_calendar(population):
    start = np.datetime64("2022-01-20").item()
    records = simulate(model(), population, steps=20, seed=5, dt=0.5, start=start, infections=True).infections
    for step, date in zip(records.step, records.date, strict=True):
        assert date == pd.Timestamp("2022-01-20") + pd.Timedelta(hours=12 * step)
    assert simulate(model(), population, steps=2, seed=5, infections=True).infections.date.isna().all()


class Race(Rule):
    """A rule that infects all susceptibles with contacts, in ways that the recorder accepts or refuses."""

    infects = True

    def __init__(self, how="well", name=None):
        super().__init__(name)
        self.how = how

    def where(self, agents):
        return agents.stage.is_(S)

    def forward(self, agents, contacts, step):
        sent = agents.everyone.stage.is_(I).to(torch.float32)
        match self.how:
            case "one layer":
                hazard = contacts["home"].sum_neighbours(sent)
            case "twice":
                hazard = contacts.sum_neighbours(sent) + contacts.sum_neighbours(2 * sent)
            case "wide":
                hazard = contacts.sum_neighbours(torch.stack([sent, sent], 1)).select(1, 0)
            case "negative":
                hazard = contacts.sum_neighbours(-sent).abs()
            case "own stream":
                hazard = contacts.sum_neighbours(sent) * step.uniform("layer")
            case "background":
                hazard = contacts.sum_neighbours(sent) + 1
            case "outside":
                hazard = step.uniform()
            case "own factors":  # an agent of an odd key meets nobody at home, one of an even key nobody elsewhere
                odd = (agents.key % 2).to(torch.float32)
                weights = {name: 1 - odd if name == "home" else odd for name in contacts}
                hazard = contacts.sum_neighbours(sent, weights)
            case _:
                hazard = contacts.sum_neighbours(sent)
        return {"stage": agents.stage.move(S, I, hazard > 0)}


def chain(rule, keys=(0,)):
    return Model([rule], state={"stage": SI}, initial=SeedAgents(S, I, list(keys)), name="chain")


def line(agents=5):
    one = np.arange(agents - 1)
    return Contacts.from_edges(one, one + 1, num_agents=agents, undirected=True, name="home")


def test_a_factor_of_its_own_for_each_agent_decides_its_layer(population):
    seeds = population.columns["key"][::20].tolist()
    records = simulate(chain(Race("own factors"), seeds), population, steps=4, seed=1, infections=True).infections
    later = records[records.step >= 0]
    assert 20 < (later.layer == "home").sum() < len(later) - 20
    assert ((later.layer == "home") == (later.agent % 2 == 0)).all()


def test_on_a_line_everyone_is_infected_by_the_one_before():
    records = simulate(chain(Race()), line(), steps=4, seed=1, infections=True).infections
    assert records.agent.tolist() == [0, 1, 2, 3, 4]
    assert records.infector.tolist() == [-1, 0, 1, 2, 3]
    assert records.step.tolist() == [-1, 0, 1, 2, 3]
    assert records.layer.tolist() == ["SeedAgents", "home", "home", "home", "home"]
    assert list(records.columns) == ["agent", "step", "date", "infector", "layer"]


@pytest.mark.parametrize("how", ["outside", "background"])
def test_infections_without_contacts_come_from_nobody_by_the_name_of_the_rule(how):
    records = simulate(chain(Race(how, name="import")), line(), steps=1, seed=1, infections=True).infections
    beside = how == "background"  # agent 1 has an infectious neighbour, the others have only the background
    assert records.layer.tolist() == ["SeedAgents", "home" if beside else "import", *["import"] * 3]
    assert records.infector.tolist() == [-1, 0 if beside else -1, -1, -1, -1]


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("one layer", ConflictError, r"infects by the layer 'home' alone.*\{layer: weight\}"),
        ("twice", ConflictError, "infects by 2 sums over neighbours"),
        ("wide", ShapeError, "one value per agent"),
        ("negative", DataError, "below 0"),
        ("own stream", ConflictError, "stream 'layer'.*another name="),
    ],
)
def test_hazards_that_have_no_shares_are_refused_when_they_are_recorded(how, error, message):
    simulate(chain(Race(how)), line(), steps=1, seed=1)
    with pytest.raises(error, match=message):
        simulate(chain(Race(how)), line(), steps=1, seed=1, infections=True)


class Quiet(Rule):
    """Says that it infects, but moves no stage."""

    infects = True
    writes = {"other": "sole"}  # noqa: RUF012


def test_what_cannot_be_traced_is_refused_before_the_first_step(population):
    with pytest.raises(ConfigError, match=r"differentiable run records no infections"):
        simulate(model(), population, steps=1, seed=1, gradient="straight-through", infections=True)
    expected = Mixing.uniform(3, 2.0)
    expected = Mixing(
        expected.group, expected.matrix, expected.area_start, expected.area_region, expected.counts, expected=True
    )
    with pytest.raises(ConfigError, match=r"layer 'pool' is the expected form.*run.mixing: drawn"):
        simulate(model(), Contacts({"pool": expected}, 3), steps=1, seed=1, infections=True)
    with pytest.raises(ConfigError, match=r"quiet has no rule that infects.*infects = True"):
        simulate(Model([], state={"stage": SI}, name="quiet"), line(), steps=1, seed=1, infections=True)
    with pytest.raises(ConfigError, match="does not write `stage`"):
        simulate(Model([Quiet()], state={"stage": SI, "other": State(0.0)}), line(), steps=1, seed=1, infections=True)
