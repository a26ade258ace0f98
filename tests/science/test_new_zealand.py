"""One seed, one history: New Zealand at 50,000 agents, all layers, 60 steps, however it is run."""

import numpy as np
import pytest
import torch

import graphs
from cluster import run
from gnabm import Model, Rule, open_trajectory
from gnabm.models.epidemic import SEIR, seir
from gnabm.nextgen import transmission_rate_for

STEPS, SEED, FIELDS = 60, 7, ("stage", "infected_on")
DISEASE = {
    "latent_rate": 0.5,
    "recovery_rate": 0.1,
    "susceptibility": [0.35, 0.69, 1.03, 1.03, 1.03, 1.03, 1.27, 1.52, 1.52],
    "infectiousness": [0, 0.003, 0.091, 0.417, 0.812, 1, 0.932, 0.719, 0.485, 0.296, 0.167, 0.088, 0],
    "layer_weights": {"home": 2.0, "community": 0.25},
}
pytestmark = pytest.mark.slow


class Inert(Rule):
    """Draws, and moves nobody."""

    def forward(self, agents, contacts, step):
        susceptible, exposed, *_ = SEIR
        step.uniform()
        return {"stage": agents.stage.move(susceptible, exposed, step.bernoulli(torch.tensor(0.5)) & False)}


@pytest.fixture(scope="module")
def country(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    return graphs.ensure({"country": "New Zealand", "num_agents": 50_000}, folder)


@pytest.fixture(scope="module")
def model(country):
    met = graphs.encounters(graphs.open_graph(country))
    return seir(
        transmission_rate_for(2.5, met, seir(1.0, **DISEASE).transmission, 1.0), initial_infected=0.001, **DISEASE
    )


def history(model, country, folder, **how):
    result = run(model, country, steps=STEPS, seed=SEED, record=FIELDS, out=folder, **how)
    dataset = open_trajectory(result.path).load()
    return {name: dataset[name].values for name in ("incidence", "stage_count", *FIELDS)}


@pytest.fixture(scope="module")
def whole(model, country, tmp_path_factory):
    found = history(model, country, tmp_path_factory.mktemp("whole"))
    assert found["incidence"].sum() > 5000, "too small an epidemic to tell runs apart"
    return found


def assert_same(found, whole):
    for name, values in whole.items():
        assert np.array_equal(found[name], values), name


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("messages", ["auto", "push", "pull"])
@pytest.mark.parametrize("shards", [1, 2, 3, 7])
def test_shards_forms_and_threads_give_the_same_bits(model, country, whole, tmp_path, shards, messages, threads):
    how = {"shards": shards, "transport": "local", "messages": messages, "threads": threads}
    assert_same(history(model, country, tmp_path, **how), whole)


@pytest.mark.ray
@pytest.mark.parametrize("shards", [2, 3])
def test_actors_give_the_same_bits(model, country, whole, tmp_path, ray_cluster, shards):
    assert_same(history(model, country, tmp_path, shards=shards, transport="actors"), whole)


def test_an_inert_rule_changes_no_draw(model, country, whole, tmp_path):
    with_inert = Model(
        [Inert(), *model.rules()], state=model.state, initial=model.initial, observe=model.observe, name="seir"
    )
    assert_same(history(with_inert, country, tmp_path), whole)
