"""What a run of covid shows is what went in: durations, outcomes, intervals, conservation, one history."""

from datetime import date

import numpy as np
import pytest
import torch
from scipy import stats

import graphs
from cluster import run
from gnabm import Contacts, Field, Mixing, Population, open_trajectory, simulate
from gnabm.infections import open_infections
from gnabm.models.covid import (
    ASYMPTOMATIC,
    DEAD,
    HOSPITAL,
    ICU,
    MILD,
    PRESYMPTOMATIC_MILD,
    PRESYMPTOMATIC_SEVERE,
    RECOVERED,
    RECOVERING,
    SEVERE,
    SUSCEPTIBLE,
    Disease,
)
from gnabm.models.epidemic import covid
from gnabm.nextgen import Encounters, next_generation_matrix
from gnabm.testing import awkward_population

AGES = (*(f"{a}-{a + 9}" for a in range(0, 80, 10)), "80+")
PUBLISHED = Disease.of({}, {}, {}, 1.0)
# Sigma of the intervals: 30 of them at 4 standard errors fail by chance once in 500 times.
SIGMA = 4.0
# Every way is taken often, so that each duration has many cases.
FREQUENT = {
    "asymptomatic": [0.2] * 9, "severe": [0.6] * 9, "hospital": [0.6] * 9, "icu": [0.5] * 9,
    "dead_on_ward": [0.2] * 9, "dead_in_icu": [0.5] * 9,
}  # fmt: skip


def people(num_agents, contacts=None, num_groups=9):
    """Ages in turn."""
    age_group = (np.arange(num_agents) % num_groups).astype(np.uint8)
    contacts = contacts or Contacts.from_edges([], [], num_agents=num_agents)
    return Population(
        num_agents, {"age_group": age_group}, contacts, {"age_group": Field("age_group", categories=AGES)}
    )


def stages_of_all(num_agents, steps, dt=1.0, **parameters):
    """(steps, num_agents) stages of people who are all infected just before the first step, and their ages."""
    population = people(num_agents)
    trajectory = simulate(
        covid(0.0, initial_infected=1.0, **parameters), population, steps=steps, seed=5, dt=dt, record=["stage"]
    )
    return trajectory.to_xarray()["stage"].values, population.columns["age_group"]


# Durations


@pytest.mark.parametrize("dt", [1.0, 0.5])
def test_stages_last_as_long_as_published(dt):
    stage, _ = stages_of_all(6_000, int(200 / dt), dt, probabilities=FREQUENT)
    ever = {s: (stage == int(s)).any(0) for s in (MILD, SEVERE, HOSPITAL, ICU, DEAD, RECOVERING)}
    ways = {
        "asymptomatic": (ASYMPTOMATIC, ~(ever[MILD] | ever[SEVERE])),
        "presymptomatic": (PRESYMPTOMATIC_MILD, ever[MILD]),
        "mild": (MILD, ever[MILD]),
        "severe_to_hospital": (SEVERE, ever[HOSPITAL]),
        "severe_to_recovered": (SEVERE, ever[SEVERE] & ~ever[HOSPITAL]),
        "hospital_to_icu": (HOSPITAL, ever[ICU]),
        "hospital_to_dead": (HOSPITAL, ever[DEAD] & ~ever[ICU]),
        "hospital_to_recovered": (HOSPITAL, ever[HOSPITAL] & ~ever[DEAD] & ~ever[ICU]),
        "icu_to_dead": (ICU, ever[ICU] & ever[DEAD]),
        "icu_to_recovering": (ICU, ever[RECOVERING]),
        "recovering": (RECOVERING, ever[RECOVERING]),
    }
    for name, (source, who) in ways.items():
        # The initial infections are in their first stage before the first record.
        unseen = 1 if source in (ASYMPTOMATIC, PRESYMPTOMATIC_MILD) else 0
        steps = (stage[:, who] == int(source)).sum(0) + unseen
        law = PUBLISHED.durations[name].pmf(dt)
        number = np.arange(1, law.size + 1)
        mean = (law * number).sum()
        sd = ((law * (number - mean) ** 2).sum()) ** 0.5
        fourth = (law * (number - mean) ** 4).sum()
        assert steps.size > 150, name
        assert abs(steps.mean() - mean) <= SIGMA * sd / steps.size**0.5 + 1e-9, (name, steps.mean(), mean)
        error = (max(fourth - sd**4, 0.0) / steps.size) ** 0.5
        assert abs(steps.var() - sd**2) <= SIGMA * error + 1e-9, (name, steps.std(), sd)
        # The law in whole steps has the published mean and deviation, but for "at least one step".
        given = PUBLISHED.durations[name]
        assert mean * dt == pytest.approx(given.mean, rel=0.02), name
        if given.sd is not None:
            assert sd * dt == pytest.approx(given.sd, rel=0.02), name


# Outcomes


def assert_outcomes(num_agents):
    stage, age = stages_of_all(num_agents, 220)
    assert set(np.unique(stage[-1])) == {int(DEAD), int(RECOVERED)}
    ever = {s: (stage == int(s)).any(0) for s in (MILD, SEVERE, HOSPITAL, ICU, DEAD)}
    chance, problems, tests = PUBLISHED.probabilities, [], 0
    for name, of, happened in (
        ("asymptomatic", np.full(num_agents, True), ~(ever[MILD] | ever[SEVERE])),
        ("severe", np.full(num_agents, True), ever[SEVERE]),
        ("hospital", ever[SEVERE], ever[HOSPITAL]),
        ("icu", ever[HOSPITAL], ever[ICU]),
        ("dead_on_ward", ever[HOSPITAL], ever[DEAD] & ~ever[ICU]),
        ("dead_in_icu", ever[ICU], ever[ICU] & ever[DEAD]),
    ):
        for group in range(9):
            among = of & (age == group)
            if among.any():
                tests += 1
                found = stats.binomtest(int((happened & among).sum()), int(among.sum()), chance[name][group])
                problems += [(name, group, found)] if found.pvalue < 1e-3 / 54 else []
    assert tests > 40 and not problems, problems


def test_outcomes_by_age_have_the_published_probabilities():
    assert_outcomes(27_000)


@pytest.mark.slow
def test_outcomes_by_age_have_the_published_probabilities_among_many():
    assert_outcomes(360_000)


def test_protection_lowers_the_probability_of_severe_disease_and_of_infection():
    population = people(40_000)
    protected = {"vaccination": {"coverage": 1.0, "against_severe": 0.75}}
    model = covid(0.0, seeding=[{"number": 40_000}], **protected)
    observed = simulate(model, population, steps=1, seed=5).observed["stage_count"][0]
    severe, expected = observed[int(PRESYMPTOMATIC_SEVERE)], 0.25 * np.array(PUBLISHED.probabilities["severe"])
    number = observed.sum(0)
    for group in range(9):
        assert stats.binomtest(int(severe[group]), int(number[group]), expected[group]).pvalue > 1e-4
    mixing = Contacts({"pool": Mixing.uniform(40_000, 10.0)}, 40_000).with_expected_mixing()
    population = people(40_000, mixing)

    def infected(efficacy):
        model = covid(1.0, 0.02, vaccination={"coverage": 1.0, "against_infection": efficacy}, susceptibility=[1.0] * 9)
        return simulate(model, population, steps=4, seed=5).observed["incidence"].sum()

    # Few are infected in four days, and all of them by the same infectors.
    naive, guarded = float(infected(0.0)), float(infected(0.6))
    assert guarded / naive == pytest.approx(0.4, abs=4 * 0.4 * (1 / naive + 1 / guarded) ** 0.5)


# Transmission


@pytest.fixture(scope="module")
def first_generation():
    """Line list of an epidemic in a pool that meets anew every day, those whom the first cases infected apart."""
    size, contacts, rate = 160_000, 20.0, 0.25
    pool = Contacts({"pool": Mixing.uniform(size, contacts)}, size)
    model = covid(rate, 0.006, susceptibility=[1.0] * 9)
    # Nobody is over 79, so that 70-74 and 75 and over have about the courses of 70-79.
    trajectory = simulate(model, people(size, pool, 8), steps=30, seed=11, infections=True)
    found = trajectory.infections
    first = found.agent[found.step == -1].to_numpy()
    return model, contacts, rate, first, found[found.infector.isin(first)]


def test_generation_intervals_are_the_intrinsic_ones(first_generation):
    model, _, _, _, infections = first_generation
    expected = model.transmission.generation_interval(1.0)
    steps = infections.step.to_numpy() + 1  # the first cases were infected in step -1
    found = np.bincount(steps, minlength=expected.size + 1)[1 : expected.size + 1]
    assert found.sum() == len(infections) > 1000
    last = int(np.flatnonzero(found.sum() * expected > 8)[-1])
    observed = np.append(found[:last], found[last:].sum())
    predicted = np.append(expected[:last], expected[last:].sum()) * found.sum()
    assert stats.chisquare(observed, predicted * observed.sum() / predicted.sum()).pvalue > 1e-3
    mean, sd = (expected * np.arange(1, expected.size + 1)).sum(), steps.std()
    assert abs(steps.mean() - mean) < SIGMA * sd / len(steps) ** 0.5


def test_first_cases_infect_as_many_as_the_next_generation_matrix_says(first_generation):
    model, contacts, rate, first, infections = first_generation
    cases = infections.groupby("infector").size().reindex(first, fill_value=0).to_numpy()
    pool = {"pool": Encounters(np.full((16, 16, 1), contacts / 16), np.ones((16, 16, 1)), "drawn")}
    expected = next_generation_matrix(pool, model.transmission, rate, 1.0)[:16].sum(1).mean()
    depleted = 0.03  # at most so many have been infected when the first cases have infected whom they will
    error = SIGMA * cases.std() / len(cases) ** 0.5
    assert expected * (1 - depleted) - error < cases.mean() < expected + error, (cases.mean(), expected)


def test_infections_rise_with_the_transmission_rate_and_so_says_the_gradient():
    population = awkward_population(400)
    found = {}
    for rate in (0.98, 1.0, 1.02):
        model = covid(rate, 0.05)
        gradient = "straight-through" if rate == 1.0 else None
        incidence = simulate(model, population, steps=12, seed=2, gradient=gradient).observed["incidence"]
        found[rate] = incidence.sum()
        if gradient:
            infect = next(rule for rule in model.rules() if rule.name == "Infect")
            slopes = torch.autograd.grad(
                found[rate], [infect.transmission_rate, infect.susceptibility, infect.infectious.factors]
            )
    for slope in slopes:
        assert bool(torch.isfinite(slope).all()) and float(slope.sum()) > 0
    assert found[0.98] <= found[1.0] <= found[1.02]
    # Each of the three scales every hazard, so by Euler's theorem on homogeneous functions they say the same.
    by_age = (slopes[1] * infect.susceptibility).sum()
    by_stage = (slopes[2] * infect.infectious.factors).sum()
    assert by_age.item() == pytest.approx(slopes[0].item(), rel=1e-4)
    assert by_stage.item() == pytest.approx(slopes[0].item(), rel=1e-4)


def test_gradients_have_the_sign_of_finite_differences_of_the_same_draws_and_a_known_bias():
    size, rate, repeats = 2000, 0.4, 7
    population = people(size, Contacts({"pool": Mixing.uniform(size, 10.0)}, size).with_expected_mixing())

    def run_at(value, seed, gradient=None):
        """Infected by day 10 and by day 30, dead by day 30, from the counts of stages."""
        model = covid(value, 0.02, susceptibility=[1.0] * 9, probabilities=FREQUENT)
        counts = simulate(model, population, steps=30, seed=seed, gradient=gradient).observed["stage_count"].sum(2)
        left = counts[:, int(SUSCEPTIBLE)]
        return model, (size - left[9], size - left[-1], counts[-1, int(DEAD)])

    differences, gradients = [], []
    for seed in range(repeats):
        up, down = (run_at(value, seed)[1] for value in (1.05 * rate, 0.95 * rate))
        differences.append([(float(a) - float(b)) / (0.1 * rate) for a, b in zip(up, down, strict=True)])
        model, found = run_at(rate, seed, "straight-through")
        theta = next(rule for rule in model.rules() if rule.name == "Infect").transmission_rate
        gradients.append([torch.autograd.grad(x, theta, retain_graph=True)[0].item() for x in found])
    expected, error = np.mean(differences, 0), np.std(differences, 0, ddof=1) / repeats**0.5
    early, late, deaths = np.mean(gradients, 0) / expected
    assert (expected > 4 * error).all(), (expected, error)
    # Someone who might have been infected sends, in the gradient, as one asymptomatic since the start of the run: over
    # the first ten days that makes up for the rest (here 1.2 of the difference), over thirty it leaves 0.35 of it.
    assert 0.7 < early < 1.8 and 0.2 < late < 0.6, (early, late)
    # Outcomes are drawn for the infected alone and carry no gradient, so what is left in the deaths is that of the
    # infections of those who died: of the right sign, and less than 5 % of the difference.
    assert 0 < deaths < 0.05, deaths


# Conservation


def test_every_count_follows_from_the_moves():
    population = awkward_population(6000)
    model = covid(2.0, 0.02, importation=[{"per_day": 10.0}], probabilities=FREQUENT, prior_infection={"share": 0.2})
    start = simulate(model, population, steps=0, seed=3).agents.stage.codes
    observed = {n: v.numpy() for n, v in simulate(model, population, steps=60, seed=3).observed.items()}
    count = observed["stage_count"]
    assert (count.sum(1) == count[0].sum(0)).all()
    before = np.bincount(start.numpy(), minlength=11)
    total = np.concatenate([before[None], count.sum((2, 3))])
    flow = {n: observed[n].sum((1, 2)) for n in ("incidence", "deaths", "hospital_admissions")}
    assert (flow["incidence"] == -np.diff(total[:, int(SUSCEPTIBLE)])).all()
    assert (flow["deaths"] == np.diff(total[:, int(DEAD)])).all()
    beds = [int(HOSPITAL), int(ICU), int(RECOVERING)]
    assert (observed["hospital_occupancy"] == count[:, beds].sum(1)).all()
    assert (observed["icu_occupancy"] == count[:, int(ICU)]).all()
    left = flow["hospital_admissions"] - np.diff(total[:, beds].sum(1))
    gone = np.diff(total[:, int(RECOVERED)]) + flow["deaths"]
    assert ((left >= 0) & (left <= gone)).all() and flow["deaths"].sum() > 100


# One history


def everything(country):
    """Covid on New Zealand with all of it on."""
    return covid(
        0.75, 0.002,
        seeding=[{"number": 20, "day": "2022-01-25", "region": "Auckland"}],
        importation=[{"per_day": 3.0, "from": 5}],
        vaccination={"coverage": {"Auckland": 0.9, "elsewhere": [0, 0.5, 0.8, 0.8, 0.8, 0.9, 0.9, 0.9, 0.9]},
                     "against_infection": 0.3, "against_severe": 0.7},
        prior_infection={"share": 0.05, "against_infection": 0.6},
        layer_weights={"home": 2.0, "community": 0.25},
        calendar={"weekly": {"class": [1, 1, 1, 1, 1, 0, 0], "team": [1, 1, 1, 1, 1, 0.3, 0.2]},
                  "closed_in_holidays": ["class", "school"], "school_terms": "New Zealand"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def country(tmp_path_factory):
    return graphs.ensure({"country": "New Zealand", "num_agents": 20_000}, tmp_path_factory.mktemp("graphs"))


def history(country, folder, **how):
    fields = ("stage", "infected_on", "due", "next_stage", "infection_risk", "severe_risk")
    result = run(
        everything(country), country, steps=40, seed=7, start=date(2022, 1, 20), record=fields, out=folder,
        infections=True, **how,
    )  # fmt: skip
    dataset = open_trajectory(result.path).load()
    names = [*fields, "stage_count", "incidence", "deaths", "hospital_admissions", "hospital_occupancy",
             "icu_occupancy"]  # fmt: skip
    return {name: dataset[name].values for name in names}, open_infections(folder)


@pytest.mark.slow
@pytest.mark.parametrize("dt", [1.0, 0.5])
def test_shards_and_forms_give_the_same_bits_with_all_of_it_on(country, tmp_path, dt):
    whole, line_list = history(country, tmp_path / "whole", dt=dt)
    assert whole["incidence"].sum() > 300 and line_list.layer.nunique() >= 6
    assert {"Seed", "Import"} <= set(line_list.layer.astype(str))
    for shards in (1, 2, 3, 7):
        for messages in ("auto", "push", "pull"):
            how = {"shards": shards, "transport": "local", "messages": messages, "dt": dt}
            found, listed = history(country, tmp_path / f"{shards}{messages}", **how)
            for name, values in whole.items():
                assert np.array_equal(found[name], values), (shards, messages, name)
            assert listed.equals(line_list), (shards, messages)
