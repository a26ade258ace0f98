"""A lockdown budget spent by gradient, against spending it evenly or at random (Quera-Bofarull et al. 2023).

New Zealand at 5,000 agents; from day 21 on the weight of each layer but the homes is multiplied by 1 - r. The cost is
the sum of the reductions r, as in the paper: 1.5 of the 5 layers.
"""

import numpy as np
import pytest
import torch

import graphs
from gnabm import simulate
from gnabm.models.epidemic import seir
from gnabm.nextgen import transmission_rate_for
from gnabm.sensitivity import allocate, refine

LAYERS = ("class", "school", "team", "site", "community")
STRENGTHS = [f"Infect.closures.no_{layer}.strength" for layer in LAYERS]
DISEASE = {"latent_rate": 0.5, "recovery_rate": 0.2, "layer_weights": {"home": 2.0, "community": 0.25}}
STEPS, FIRST, BUDGET = 70, 21, 1.5
UNIFORM = torch.full((5,), BUDGET / 5, dtype=torch.float64)
UNSEEN = range(10)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def country(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    return graphs.open_graph(graphs.ensure({"country": "New Zealand", "num_agents": 5_000}, folder))


@pytest.fixture(scope="module")
def model(country):
    law = seir(1.0, **DISEASE).transmission
    rate = transmission_rate_for(2.5, graphs.encounters(country), law, 1.0)
    closures = [{"close": [layer], "name": f"no_{layer}", "strength": 0.0, "start": FIRST} for layer in LAYERS]
    return seir(rate, initial_infected=0.003, interventions=closures, **DISEASE)


def strengths(reductions, **how):
    return {n: torch.tensor(float(r), **how) for n, r in zip(STRENGTHS, reductions, strict=True)}


@pytest.fixture(scope="module")
def cases(model, country):
    """Infections of some seeds under some reductions."""

    def run(reductions, seeds=UNSEEN):
        given = strengths(reductions)
        made = (simulate(model, country, steps=STEPS, seed=seed, parameters=given) for seed in seeds)
        return np.array([float(one.observed["incidence"].sum()) for one in made])

    return run


@pytest.fixture(scope="module")
def gains(model, country):
    """What a further reduction prevents, by three differentiable runs of seeds that nothing else uses."""
    seeds = iter(range(1000, 2000))

    def prevented(reductions):
        found = torch.zeros(5, dtype=torch.float64)
        for _ in range(3):
            given = strengths(reductions, requires_grad=True)
            made = simulate(model, country, steps=STEPS, seed=next(seeds), gradient="local-score", parameters=given)
            found -= torch.stack(torch.autograd.grad(made.observed["incidence"].sum(), list(given.values()))) / 3
        return found

    return prevented


@pytest.fixture(scope="module")
def by_gradient(gains):
    return allocate(gains(torch.zeros(5)), BUDGET)


@pytest.fixture(scope="module")
def refined(gains):
    return refine(gains, allocate(gains(UNIFORM), BUDGET), BUDGET, rounds=6)


def assert_fewer(found, other):
    """Seed by seed, by three standard errors of the mean difference."""
    less = other - found
    assert less.mean() > 3 * less.std(ddof=1) / np.sqrt(len(less))


def test_all_cost_the_same(by_gradient, refined):
    assert float(by_gradient.sum()) == pytest.approx(BUDGET)
    assert float(refined.sum()) == pytest.approx(BUDGET)


def test_a_gradient_of_no_lockdown_allocates_better_than_evenly(cases, by_gradient):
    assert_fewer(cases(by_gradient), cases(UNIFORM))
    assert_fewer(cases(UNIFORM), cases(torch.zeros(5)))


def test_a_few_gradient_steps_come_within_a_tenth_of_the_best_of_200_random_allocations(cases, refined, by_gradient):
    generator = torch.Generator().manual_seed(0)
    exponential = -torch.rand(200, 5, generator=generator, dtype=torch.float64).log()
    drawn = [allocate(share, BUDGET) for share in exponential]
    # The best ten on two of the seeds are then tried on all of them.
    screened = sorted(drawn, key=lambda reductions: cases(reductions, UNSEEN[:2]).mean())[:10]
    best = min(cases(reductions).mean() for reductions in screened)
    found = cases(refined)
    assert_fewer(found, cases(by_gradient))
    assert found.mean() <= 1.1 * best, f"{found.mean():.0f} by gradient, {best:.0f} by the best of 200"
