"""Gradients of deaths in the days and thresholds of interventions, beside differences of runs with common draws."""

import math

import numpy as np
import pytest
import torch

from gnabm import Contacts, Mixing, Places, Population, simulate
from gnabm.agents import Field
from gnabm.models.epidemic import covid
from gnabm.models.immunity import AGE_GROUPS
from gnabm.parameters import Parameters

SIZE, STEPS = 8_000, 60
SEVERE = {
    "probabilities": {
        "asymptomatic": [0.2] * 9, "severe": [0.6] * 9, "hospital": [0.8] * 9, "icu": [0.3] * 9,
        "dead_on_ward": [0.3] * 9, "dead_in_icu": [0.6] * 9,
    },
    "durations": {
        "severe_to_hospital": [3.0], "hospital_to_dead": [5.0], "hospital_to_icu": [2.0], "icu_to_dead": [5.0],
    },
}  # fmt: skip
"""A disease that kills many within the horizon, so that differences of deaths stand out of their noise."""
CAMPAIGN = {
    "vaccinate": [["80+", "70-79", "60-69"], ["50-59", "40-49"], ["0-9", "10-19", "20-29", "30-39"]],
    "per_day": SIZE / 40, "against_infection": 0.6, "against_severe": 0.8, "delay": 3.0, "start": 8.0,
}  # fmt: skip
CLOSURE = {"close": ["pool"], "strength": 0.7}
TRIGGER = {"observable": "hospital_occupancy", "above": 0.025 * SIZE, "days": 25.0}


@pytest.fixture(scope="module")
def population():
    """Homes of three on average, and a pool in which everybody meets eight others a day."""
    rng = np.random.default_rng(0)
    layers = {"home": Places.of(rng.integers(0, SIZE // 3, SIZE)), "pool": Mixing.uniform(SIZE, 8.0)}
    age = rng.integers(0, 90, SIZE)
    columns = {"key": np.arange(SIZE), "age_group": np.minimum(age // 10, 8).astype(np.uint8)}
    fields = {"age_group": Field("age_group", "ten-year age", categories=AGE_GROUPS)}
    return Population(SIZE, columns, Contacts(layers, SIZE).with_expected_mixing(), fields)


def compare(population, model, name, step, seeds):
    """Mean and standard error of the gradient of deaths, and of the central difference."""
    value = Parameters.of(model)[name].value.detach()

    def deaths(at, seed, gradient=None):
        run = simulate(model, population, steps=STEPS, seed=seed, parameters={name: at}, gradient=gradient)
        return run.observed["deaths"].sum()

    found, differences = [], []
    for seed in range(seeds):
        at = value.clone().requires_grad_()
        found.append(torch.autograd.grad(deaths(at, seed, "local-score"), at)[0].item())
        differences.append((deaths(value + step, seed) - deaths(value - step, seed)).item() / (2 * step))
    return [(np.mean(v), np.std(v, ddof=1) / math.sqrt(seeds)) for v in (found, differences)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "interventions", "name", "step"),
    [
        (0.3, [CAMPAIGN], "Campaign.when.start", 2.0),
        (0.6, [{**CLOSURE, "when": TRIGGER}], "WatchClose.above", 15.0),
    ],
    ids=["start of vaccination", "threshold of a trigger"],
)
def test_deaths_rise_with_what_comes_late_as_fast_as_differences_say(population, rate, interventions, name, step):
    model = covid(rate, initial_infected=0.01, interventions=interventions, **SEVERE)
    (gradient, its_error), (difference, its_noise) = compare(population, model, name, step, seeds=14)
    assert gradient > 3 * its_error and difference > 3 * its_noise
    assert 0.67 <= gradient / difference <= 1.5
