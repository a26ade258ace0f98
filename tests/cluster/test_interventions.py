"""Interventions on shards: values and gradients are those of one shard."""

import pytest
import torch

from cluster import plan, run_local
from gnabm import simulate
from gnabm.models.epidemic import seir

STEPS = 12
WATCHED = {"observable": "incidence", "above_per_100k": 900.0, "days": 2.5}
EVERYTHING = [
    {"close": ["site", "friends"], "strength": 0.4, "start": 2, "end": 4.5},
    {"close": ["drawn"], "strength": 0.7, "when": {**WATCHED, "by_region": True}},
    {"close": ["expected"], "strength": 0.5, "when": {**WATCHED, "delay": 2.0}},
    {"close": ["site"], "regions": ["north"], "strength": 0.5, "start": 5.5},
    {"isolate": "symptomatic", "compliance": 0.6, "strength": 0.9, "start": 3},
    {"test": "symptomatic", "probability": 0.4, "sensitivity": 0.8, "delay": 0.5, "days": 3, "start": 1.5},
    {"vaccinate": [["80+", "70-79"], ["20-29"]], "per_day_per_100k": 900, "against_infection": 0.9, "delay": 1},
]


def run_on(shards, population, dtype, gradient="local-score", steps=STEPS):
    model = seir(0.04, 0.4, 0.2, 0.03, interventions=EVERYTHING, rate_by_region=[1.0, 0.9]).to(dtype)

    def loss(observed):
        weight = torch.linspace(0.5, 1, observed["incidence"].numel(), dtype=torch.float64)
        return (observed["incidence"].reshape(-1) * weight).sum()

    how = {"gradient": gradient, "loss": loss, "checkpoint": 5} if gradient else {}
    return model, run_local(model, population, shards=shards, steps=steps, seed=4, **how)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_gradients_of_interventions_on_shards_agree_with_those_of_one(population, dtype, tolerance):
    def vector(shards):
        model, run = run_on(shards, population, dtype)
        grads = {name: p.grad.reshape(-1).double() for name, p in model.named_parameters() if p.grad is not None}
        return run.attributes["loss"], grads

    (loss, one), (same, cut) = vector(1), vector(3)
    assert same == loss and set(cut) == set(one)
    scale = torch.cat([*one.values()]).norm()
    assert all(float((cut[n] - one[n]).norm()) < tolerance * max(float(one[n].norm()), 1e-3 * scale) for n in one)
    assert sum(bool(g.any()) for g in one.values()) > 20


def test_a_shard_of_one_agent_watches_like_all_others(ring_of_eight):
    model = seir(0.3, 0.4, 0.2, [0, 4], interventions=[{"close": ["contacts"], "when": {**WATCHED, "days": 3}}])
    plain = simulate(model, ring_of_eight, steps=6, seed=4)
    run = run_local(model, ring_of_eight, shards=7, steps=6, seed=4)
    assert torch.equal(run.observed["incidence"], plain.observed["incidence"])


@pytest.mark.parametrize(
    "keys",
    [{"rate_by_region": [1.0, 0.9]}, {"interventions": [EVERYTHING[3]]}, {"interventions": [EVERYTHING[4]]}],
    ids=["rate by region", "closure by region", "isolation"],
)
def test_a_plan_counts_the_plain_form_of_an_infection_that_differs_by_agent(population, keys):
    def peak(**keys):
        return plan(population, seir(0.04, 0.4, 0.2, 0.03, **keys), shards=1, steps=10).shards[0].peak_memory

    assert peak(**keys) - peak() > 50 * population.num_agents
    assert peak(interventions=[EVERYTHING[0]]) == peak()
