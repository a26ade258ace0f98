"""Infections and growth on a mixing layer are those of the next-generation matrix and of Euler and Lotka."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from gnabm import Contacts, Mixing, Model, Population, SeedAgents, State, simulate
from gnabm.models.epidemic import SEIR, Infect, InfectByAge, Leave, seir
from gnabm.nextgen import infectious_days, next_generation_matrix, reproduction_number

SHARES = np.array([0.3, 0.7])
# Contacts per day, row = participant; reciprocal on the shares: 0.3 * 3 = 0.7 * 9 / 7.
MATRIX = np.array([[6.0, 3.0], [9 / 7, 4.0]])


def population(num_agents, expected):
    """Two groups, shuffled over the rows of one pool."""
    first = int(SHARES[0] * num_agents)
    group = np.random.default_rng(1).permutation(np.arange(num_agents) >= first).astype(np.uint8)
    mixing = replace(
        Mixing.uniform(num_agents, 1.0), group=group, matrix=MATRIX, counts=np.array([[first, num_agents - first]]),
        dispersion=0.7, expected=expected,
    )  # fmt: skip
    return Population(num_agents, {"group": group}, Contacts({"pool": mixing}, num_agents))


def per_contact(transmission_rate, expected):
    """Infections per contact: a drawn contact infects with 1 - exp(-beta), a mean field with beta."""
    return transmission_rate if expected else 1 - np.exp(-transmission_rate)


@pytest.mark.parametrize("expected", [False, True], ids=["drawn", "expected"])
@pytest.mark.parametrize("infector", [0, 1])
def test_first_infections_are_those_of_the_next_generation_matrix(expected, infector):
    s, e, i, r = SEIR
    people = population(200_000, expected)
    seeds = np.flatnonzero(people.columns["group"] == infector)[:2000]
    # The infected stay exposed, so every infection is by a seed.
    rules = [Infect(0.05, s, e, i), Leave(0.25, i, r, "Recover")]
    model = Model(rules, state={"stage": SEIR}, initial=SeedAgents(s, i, seeds.tolist()))
    stage = simulate(model, people, steps=80, seed=3).agents.stage.codes.numpy()
    infected = np.bincount(people.columns["group"][stage == 1], minlength=2)
    days = infectious_days(0.25, 1.0)
    matrix = next_generation_matrix({"pool": MATRIX}, per_contact(0.05, expected), days)
    # An infector's number varies with its days (geometric) and, when drawn, with its contacts per day.
    mean = 2000 * matrix[infector]
    spread = np.sqrt(mean * (1 + matrix[infector] * (1 + 1 / 0.7 / days)))
    depletion = mean / (200_000 * SHARES) / 2
    assert (np.abs(infected - mean * (1 - depletion)) < 4.5 * spread).all(), (infected, mean, spread)


@pytest.mark.parametrize("dt", [1.0, 0.5, 0.25])
def test_first_infections_by_days_of_infection_are_those_of_the_next_generation_matrix(dt):
    s, _, i, r = SEIR
    people = population(200_000, expected=True)
    profile = np.exp(-((np.arange(20) - 5.0) ** 2) / 8).tolist()
    seeds = np.flatnonzero(people.columns["group"] == 0)[:2000]
    # The seeds start infectious and the infected stay exposed, so every infection is by a seed.
    rules = [InfectByAge(0.05, None, profile, {}), Leave(0.15, i, r, "Recover")]
    state = {"stage": SEIR, "infected_on": State(-1, torch.int32)}
    model = Model(rules, state=state, initial=SeedAgents(s, i, seeds.tolist()))
    stage = simulate(model, people, steps=int(60 / dt), seed=3, dt=dt).agents.stage.codes.numpy()
    infected = np.bincount(people.columns["group"][stage == 1], minlength=2)
    days = infectious_days(0.15, dt, None, profile)
    mean = 2000 * next_generation_matrix({"pool": MATRIX}, 0.05, days)[0]
    spread = np.sqrt(mean * (1 + mean / 2000))
    depletion = mean / (200_000 * SHARES) / 2
    assert (np.abs(infected - mean * (1 - depletion)) < 4.5 * spread).all(), (infected, mean, spread)


def growth(transmission_rate, latent_rate, recovery_rate, profile):
    """The root of Euler and Lotka in steps of a day: sum over ages of infection of K(age) exp(-r age) = 1."""
    leaves, recovers = 1 - np.exp(-latent_rate), 1 - np.exp(-recovery_rate)
    exposed, infectious, kernel = 1.0, 0.0, [0.0]
    for age in range(1, 400):
        kernel.append(infectious * profile[min(age, len(profile) - 1)])
        infectious, exposed = infectious * (1 - recovers) + exposed * leaves, exposed * (1 - leaves)
    largest = reproduction_number(MATRIX) * transmission_rate
    ages = np.arange(len(kernel))
    assert largest * sum(kernel) == pytest.approx(
        reproduction_number(MATRIX) * transmission_rate * infectious_days(recovery_rate, 1.0, latent_rate, profile)
    )
    return brentq(lambda r: largest * (kernel * np.exp(-r * ages)).sum() - 1, -0.5, 2.0)


@pytest.mark.slow
@pytest.mark.parametrize("expected", [False, True], ids=["drawn", "expected"])
def test_an_epidemic_grows_at_the_rate_of_euler_and_lotka(expected):
    profile = [0.0, 0.3, 1.0, 1.0, 0.6]
    model = seir(0.12, 0.5, 0.25, initial_infected=0.0002, infectiousness=profile)
    people = population(1_000_000, expected)
    rate = growth(per_contact(0.12, expected), 0.5, 0.25, profile)
    days, found = np.arange(10, 22), []
    for seed in range(8):
        observed = simulate(model, people, steps=22, seed=seed).observed
        new, susceptible = observed["incidence"].double().numpy(), observed["stage_count"][:, 0].double().numpy()
        per_susceptible = (new / (susceptible + new))[days]
        found.append(np.polyfit(days, np.log(per_susceptible), 1, w=np.sqrt(new[days]))[0])
    error = np.std(found, ddof=1) / np.sqrt(8)
    depletion = 0.01 * rate  # 1.5 % have been infected at the end; the reproduction number falls as much
    assert error < 0.02 * rate
    assert abs(np.mean(found) - rate) < 4 * error + depletion, (found, rate)
