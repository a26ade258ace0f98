"""What one infected agent does to one other is exact under the local score, however strong the contact."""

import math

import numpy as np
import pytest
import torch

from gnabm import Contacts, Mixing, Places, simulate
from gnabm.models.epidemic import sir

PAIRS, STEPS, RATE, SHARE, SEEDS = 2_000, 40, 0.03, 0.2, 8


def directed():
    rows = np.arange(PAIRS)
    return Contacts.from_edges(2 * rows, 2 * rows + 1, weight=np.full(PAIRS, 2.0), num_agents=2 * PAIRS)


def homes():
    return Contacts({"home": Places.of(np.arange(2 * PAIRS) // 2)}, 2 * PAIRS)


def active_homes():
    activity = np.full(2 * PAIRS, 1.5, dtype=np.float32)
    return Contacts({"home": Places.of(np.arange(2 * PAIRS) // 2, activity=activity)}, 2 * PAIRS)


@pytest.mark.parametrize(
    "contacts, hazard, receivers, checkpoint",
    [(directed, 2.0, 1, None), (homes, 1.0, 2, 15), (active_homes, 2.25, 2, 15)],
)
def test_pairs_have_the_exact_derivative_in_the_share_that_starts_infected(contacts, hazard, receivers, checkpoint):
    graph, found = contacts(), []
    for seed in range(SEEDS):
        model = sir(RATE, 0.0, SHARE)
        run = simulate(model, graph, steps=STEPS, seed=seed, gradient="local-score", checkpoint=checkpoint)
        infected = run.observed["stage_count"][-1, 1].sum() / PAIRS
        found.append(torch.autograd.grad(infected, model.initial[0].share)[0].item())
    passed_on = 1 - math.exp(-RATE * hazard * STEPS)
    exact = 2 + receivers * (1 - 2 * SHARE) * passed_on
    slope = 2 + receivers * (1 - 2 * SHARE) * RATE * hazard * STEPS * (1 - passed_on)
    error = np.std(found, ddof=1) / math.sqrt(SEEDS)
    within_a_step = RATE * hazard / 2 * (exact - 2)  # there the slope remains
    assert abs(np.mean(found) - exact) < 3.5 * error + within_a_step
    assert abs(slope - exact) > 6 * error + within_a_step, "the test could not tell a finite change from its slope"


def test_contacts_that_are_drawn_anew_owe_nothing_to_the_past():
    """In a large pool the slope is what a source does: the epidemic's gradient is that of its mean field."""
    size, found, step = 20_000, [], 0.01
    drawn = Contacts({"pool": Mixing.uniform(size, 5.0)}, size)

    def infections(rate, seed, gradient=None):
        model = sir(rate, 0.2, 0.01)
        run = simulate(model, drawn, steps=25, seed=seed, gradient=gradient)
        return run.observed["incidence"].sum(), model.rules()[0].transmission_rate

    for seed in range(8):
        total, rate = infections(0.08, seed, "local-score")
        gradient = torch.autograd.grad(total, rate)[0].item()
        up, down = (infections(0.08 + s * step, seed)[0].item() for s in (1, -1))
        found.append((gradient, (up - down) / (2 * step)))
    mean, error = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / math.sqrt(len(found))
    assert abs(mean[0] - mean[1]) < 3 * math.hypot(*error) + 0.03 * mean[1]
