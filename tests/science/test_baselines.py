"""The bits of each shipped model on one population, frozen.

The numbers change only together with a line in the CHANGELOG that begins with `[changes results]`.
"""

import hashlib
from dataclasses import replace
from datetime import date

import pytest

from gnabm import Contacts, simulate
from gnabm.models.epidemic import covid, seir, sir
from gnabm.testing import awkward_population


def alike(population):
    """The population with everyone equally active in its places."""
    layers = dict(population.contacts.layers)
    layers["site"] = replace(layers["site"], activity=None)
    return replace(population, contacts=Contacts(layers, population.num_agents))


ACTIVE = awkward_population(3000)
POPULATION = {"sir": alike(ACTIVE), "seir": alike(ACTIVE), "covid": ACTIVE}
MODELS = {
    "sir": sir(0.05, 0.15, 0.005),
    "seir": seir(
        0.06,
        0.4,
        0.2,
        0.005,
        susceptibility=[0.5, 0.7, 1.0, 1.0, 1.1, 1.1, 1.2, 1.3, 1.5],
        infectiousness=[0.0, 0.1, 0.6, 1.0, 0.7, 0.4],
        layer_weights={"site": 0.8, "community": 1.2},
    ),
    "covid": covid(
        0.5,
        0.005,
        seeding=[{"number": 5, "day": 3, "region": "south"}],
        importation=[{"per_day": 1, "from": "2022-01-25", "to": "2022-02-10"}],
        vaccination={"coverage": 0.3, "against_infection": 0.3, "against_severe": 0.8},
        prior_infection={"share": 0.1, "against_infection": 0.8, "against_severe": 0.9},
        layer_weights={"site": 0.8, "community": 1.2},
        calendar={"weekly": {"site": [1, 1, 1, 1, 1, 0, 0]}},
        severity=2.0,
    ),
}
# By model: agents in each stage after 40 steps, and the hash of the incidence by step, region and age group.
BASELINES = {
    "sir": ([74, 87, 2839], "447ebdb4137f4c2a6bda3798261d5f6e8a1ed41e418a7583cda410357add8c5b"),
    "seir": ([2342, 113, 158, 387], "911b3d9b7634534d4d1f8741eef46d0ede2a8eb87db09c4355c6e80b43d37188"),
    "covid": (
        [2066, 187, 144, 51, 196, 75, 12, 0, 13, 0, 256],
        "1ffce9ee921cc3170b082d2f339b635d7bc34bd686dec4666fb884d53184dedc",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_gives_the_bits_that_it_always_gave(name):
    observed = simulate(MODELS[name], POPULATION[name], steps=40, seed=20220120, start=date(2022, 1, 20)).observed
    groups = tuple(range(1, observed["stage_count"].dim() - 1))
    counts = observed["stage_count"][-1].sum(groups).tolist()
    incidence = observed["incidence"].numpy().astype("<i8").tobytes()
    assert (counts, hashlib.sha256(incidence).hexdigest()) == BASELINES[name]
