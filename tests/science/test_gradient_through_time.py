"""A rate that held on day 0 alone moves day 20: the gradient against finite differences with common random numbers."""

import math

import numpy as np
import pytest
import torch

from gnabm import Contacts, Mixing, Places, simulate
from gnabm.models.epidemic import sir
from gnabm.periods import Period

SIZE, STEPS, RATE, SEEDS = 10_000, 21, 0.03, 40
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def contacts():
    rng = np.random.default_rng(1)
    sizes = rng.choice([1, 2, 3, 4, 5], p=[0.2, 0.3, 0.2, 0.2, 0.1], size=SIZE)
    homes = Places.of(np.repeat(np.arange(SIZE), sizes)[:SIZE])
    return Contacts({"home": homes, "pool": Mixing.uniform(SIZE, 4.0)}, SIZE)


def prevalence(contacts, rate, seed, gradient=None):
    """Infectious agents on day 20 of a run whose transmission rate was another on day 0; and the parameter of day 0."""
    first, later = sir(rate, 0.1, 0.01), sir(RATE, 0.1, 0.01)
    run = simulate(first, contacts, steps=STEPS, seed=seed, gradient=gradient, changes=[Period(1, later, seed)])
    return run.observed["stage_count"][-1, 1].sum(), first.rules()[0].transmission_rate


def test_the_rate_of_day_0_moves_the_prevalence_of_day_20(contacts):
    found, differences, step = [], [], 0.02
    for seed in range(SEEDS):
        count, rate = prevalence(contacts, RATE, seed, "local-score")
        found.append(torch.autograd.grad(count, rate)[0].item())
        up, down = (prevalence(contacts, RATE + s * step, seed)[0].item() for s in (1, -1))
        differences.append((up - down) / (2 * step))
    gradient, difference = np.mean(found), np.mean(differences)
    error = np.std(found, ddof=1) / math.sqrt(SEEDS), np.std(differences, ddof=1) / math.sqrt(SEEDS)
    print(f"gradient {gradient:.0f} +- {error[0]:.0f}, difference {difference:.0f} +- {error[1]:.0f}")
    assert difference > 3 * error[1]
    assert gradient > 0
    within = abs(gradient - difference) < 2 * math.hypot(*error)
    assert 0.67 <= gradient / difference <= 1.5 or within
