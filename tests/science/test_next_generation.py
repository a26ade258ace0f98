"""First infections and growth are those of the next-generation matrix and of Euler and Lotka."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from gnabm import Contacts, Mixing, Model, Places, Population, SeedAgents, State, simulate
from gnabm.errors import ConfigError
from gnabm.models.epidemic import SEIR, Infect, Leave, seir
from gnabm.models.infection import InfectByAge
from gnabm.models.infectiousness import DailyProfile
from gnabm.nextgen import Encounters, by_five_years, next_generation_matrix, reproduction_number, transmission_rate_for
from gnabm.transmission import Courses, Transmission
from graphs import encounters

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


def pool(expected):
    """The same pool as the matrix sees it."""
    return {"pool": Encounters(MATRIX[:, :, None], np.ones((2, 2, 1)), "expected" if expected else "drawn")}


def geometric(rate, dt=1.0, profile=(1.0,), steps=400):
    """Infectious from the step after infection for a geometric number of steps."""
    stay = np.exp(-rate * dt)
    number = np.arange(1, steps + 1)
    sent = np.asarray(profile)[np.minimum(np.round(number * dt, 9).astype(int), len(profile) - 1)]
    share = stay ** (number - 1) * (1 - stay)
    return Transmission(lambda _: Courses(share[None] / share.sum(), np.tril(np.tile(sent, (steps, 1)))))


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
    days = 1 / (1 - np.exp(-0.25))
    matrix = next_generation_matrix(pool(expected), geometric(0.25), 0.05, 1.0)
    per_contact = 0.05 if expected else 1 - np.exp(-0.05)
    assert matrix == pytest.approx(per_contact * days * MATRIX)
    # An infector's number varies with its days (geometric) and, when drawn, with its contacts per day.
    mean = 2000 * matrix[infector]
    spread = np.sqrt(mean * (1 + matrix[infector] * (1 + 1 / 0.7 / days)))
    depletion = mean / (200_000 * SHARES) / 2
    assert (np.abs(infected - mean * (1 - depletion)) < 4.5 * spread).all(), (infected, mean, spread)


@pytest.mark.parametrize("dt", [1.0, 0.5, 0.25])
def test_first_infections_by_days_of_infection_are_those_of_the_next_generation_matrix(dt):
    s, e, i, r = SEIR
    people = population(200_000, expected=True)
    profile = np.exp(-((np.arange(20) - 5.0) ** 2) / 8).tolist()
    seeds = np.flatnonzero(people.columns["group"] == 0)[:2000]
    # The seeds start infectious and the infected stay exposed, so every infection is by a seed.
    infect = InfectByAge(0.05, None, DailyProfile(profile), {}, source=s, target=e, infectious=i)
    rules = [infect, Leave(0.15, i, r, "Recover")]
    state = {"stage": SEIR, "infected_on": State(-1, torch.int32)}
    model = Model(rules, state=state, initial=SeedAgents(s, i, seeds.tolist()))
    stage = simulate(model, people, steps=int(60 / dt), seed=3, dt=dt).agents.stage.codes.numpy()
    infected = np.bincount(people.columns["group"][stage == 1], minlength=2)
    mean = 2000 * next_generation_matrix(pool(expected=True), geometric(0.15, dt, profile), 0.05, dt)[0]
    spread = np.sqrt(mean * (1 + mean / 2000))
    depletion = mean / (200_000 * SHARES) / 2
    assert (np.abs(infected - mean * (1 - depletion)) < 4.5 * spread).all(), (infected, mean, spread)


@pytest.mark.parametrize("dt", [1.0, 0.5])
def test_nobody_is_infected_twice_in_homes_and_classes(dt):
    """One infected agent in each home and class; the infected pass nothing on."""
    s, e, i, r = SEIR
    homes, size = 20_000, 6
    num_agents = homes * size
    age = np.tile(np.array([40, 38, 70, 8, 12, 12], np.uint8), homes)
    activity = np.tile([1.0, 0.5, 0.2, 2.0, 1.0, 1.0], homes)
    home = Places.of(np.repeat(np.arange(homes), size), activity=activity)
    people = Population(num_agents, {"age": age}, Contacts({"home": home}, num_agents))
    disease = geometric(0.2, dt)
    for infector in (0, 3):
        rules = [Infect(0.3, s, e, i), Leave(0.2, i, r, "Recover")]
        seeds = (np.arange(homes) * size + infector).tolist()
        model = Model(rules, state={"stage": SEIR}, initial=SeedAgents(s, i, seeds))
        stage = simulate(model, people, steps=int(60 / dt), seed=5, dt=dt).agents.stage.codes.numpy()
        infected = np.bincount(age[stage == 1] // 5, minlength=16)
        expected = homes * next_generation_matrix(encounters(people), disease, 0.3, dt)[age[infector] // 5]
        ill = expected > 0
        assert ill.sum() >= 4 and (infected[~ill] == 0).all()
        assert (np.abs(infected - expected)[ill] < 4.5 * np.sqrt(expected[ill])).all(), (infected, expected)
        assert expected.sum() < 0.75 * homes * 0.3 * 5 * activity[infector] * (activity[:6].sum() - activity[infector])


def test_the_oldest_five_year_group_has_the_mean_of_the_two_ten_year_groups_that_it_spans():
    values = by_five_years([0, 1, 2, 3, 4, 5, 6, 7, 11])
    assert values.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 9]


def test_a_stated_reproduction_number_is_met_or_refused():
    layers = {"home": Encounters(np.full((1, 1, 1), 3.0), np.ones((1, 1, 1)), "pairs"), **pool_of_one(2.0)}
    disease = geometric(0.2)
    rate = transmission_rate_for(2.5, layers, disease, 1.0)
    assert reproduction_number(next_generation_matrix(layers, disease, rate, 1.0)) == pytest.approx(2.5, rel=1e-8)
    with pytest.raises(ConfigError, match=r"reproduction_number 4 is out of reach: .* it is 3"):
        transmission_rate_for(4, {"home": layers["home"]}, disease, 1.0)
    with pytest.raises(ConfigError, match="no contact transmits"):
        transmission_rate_for(2, layers, Transmission(disease.courses, None, {"home": 0.0, "pool": 0.0}), 1.0)


def pool_of_one(contacts):
    """Drawn contacts of one group."""
    return {"pool": Encounters(np.full((1, 1, 1), contacts), np.ones((1, 1, 1)), "drawn")}


def growth(transmission_rate, latent_rate, recovery_rate, profile, expected):
    """The root of Euler and Lotka in steps of a day: sum over ages of infection of K(age) exp(-r age) = 1."""
    leaves, recovers = 1 - np.exp(-latent_rate), 1 - np.exp(-recovery_rate)
    exposed, infectious, kernel = 1.0, 0.0, [0.0]
    for age in range(1, 400):
        sent = profile[min(age, len(profile) - 1)] * transmission_rate
        kernel.append(infectious * (sent if expected else 1 - np.exp(-sent)))
        infectious, exposed = infectious * (1 - recovers) + exposed * leaves, exposed * (1 - leaves)
    largest = reproduction_number(MATRIX)
    ages = np.arange(len(kernel))
    disease = seir(transmission_rate, latent_rate, recovery_rate, infectiousness=profile).transmission
    matrix = next_generation_matrix(pool(expected), disease, transmission_rate, 1.0)
    # Long durations stand for each other in the courses, which their mean does not feel.
    assert largest * sum(kernel) == pytest.approx(reproduction_number(matrix), rel=1e-6 if expected else 2e-3)
    return brentq(lambda r: largest * (kernel * np.exp(-r * ages)).sum() - 1, -0.5, 2.0)


@pytest.mark.slow
@pytest.mark.parametrize("expected", [False, True], ids=["drawn", "expected"])
def test_an_epidemic_grows_at_the_rate_of_euler_and_lotka(expected):
    profile = [0.0, 0.3, 1.0, 1.0, 0.6]
    model = seir(0.12, 0.5, 0.25, initial_infected=0.0002, infectiousness=profile)
    people = population(1_000_000, expected)
    rate = growth(0.12, 0.5, 0.25, profile, expected)
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
