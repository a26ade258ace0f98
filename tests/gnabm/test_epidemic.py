"""Shares, keys and counts of the initially infected; the infectiousness by days."""

import numpy as np
import pytest
import torch

from gnabm import Contacts, Field, Population, Stages, simulate
from gnabm.errors import ConfigError, DataError
from gnabm.model import Model, State
from gnabm.models import importation, infection
from gnabm.models.epidemic import INFECTED_ON, seir, sir
from gnabm.models.infectiousness import DailyProfile, whole_days

NOBODY = Contacts.from_edges([], [], num_agents=40)
MODELS = pytest.mark.parametrize(
    "model", [lambda initial: sir(0.1, 0.0, initial), lambda initial: seir(0.1, 0.0, 0.0, initial)], ids=["sir", "seir"]
)


def infected(model):
    return simulate(model, NOBODY, steps=1, seed=1).agents.stage.codes.nonzero().flatten().tolist()


@MODELS
@pytest.mark.parametrize("count", [1, 5, -1, True, False, np.int64(1), torch.tensor(1), np.array(7)])
def test_a_count_of_infected_is_refused(model, count):
    with pytest.raises(ConfigError, match=r"a float such as 0.001, or the keys of those infected such as \[0\]"):
        model(count)


@MODELS
@pytest.mark.parametrize("share", [float("nan"), -0.1, 1.1, float("inf"), np.float32("nan"), torch.tensor(torch.nan)])
def test_a_share_outside_0_to_1_is_refused(model, share):
    with pytest.raises(ConfigError, match=r"must lie in \[0, 1\]"):
        model(share)


@MODELS
@pytest.mark.parametrize("none", [0, 0.0, np.int64(0), [], ()])
def test_nobody_is_infected_by_nothing(model, none):
    assert infected(model(none)) == []


@MODELS
@pytest.mark.parametrize("keys", [[3, 1], (1, 3), torch.tensor([1, 3]), np.array([3, 1]), {1, 3}, range(1, 4, 2)])
def test_keys_of_any_kind_name_the_infected(model, keys):
    assert infected(model(keys)) == [1, 3]


@MODELS
@pytest.mark.parametrize("share", [1.0, np.float64(1), torch.tensor(1.0)])
def test_a_share_of_one_infects_everybody(model, share):
    assert infected(model(share)) == list(range(40))


@pytest.mark.parametrize(
    ("dt", "steps", "day"),
    [(1, 3, 3), (1.0, 3, 3), (0.1, 30, 3), (0.1, 29, 2), (0.7, 10, 7), (0.5, 1, 0), (0.25, 4, 1), (1 / 3, 9, 3),
     (1 / 24, 48, 2), (2.0, 3, 6), (0.5, 99, 20), (1, 99, 20), (0.5, -3, 0), (1, -3, 0)],
)  # fmt: skip
def test_an_age_in_steps_is_the_whole_days_of_it(dt, steps, day):
    assert whole_days(torch.tensor([steps], dtype=torch.int32), dt, 20).tolist() == [day]


def days(model, dt):
    """Expected infectiousness times days."""
    return float(model.transmission.courses(dt).mean.sum() * dt)


def test_all_ages_round_as_the_next_generation_matrix_does():
    # A profile that is 1 from a day on, and recovery so slow that every step counts: D drops by the days before it.
    for dt in (0.1, 0.3, 0.7, 1 / 3):
        for day in (1, 2, 3, 6):
            age = torch.arange(1, 200, dtype=torch.int32)
            before = int((whole_days(age, dt, 100) < day).sum())
            profile = DailyProfile([0.0] * day + [1.0])
            sent = profile.by_steps(199, dt)
            assert sent.tolist() == [0.0] * before + [1.0] * (199 - before)


@pytest.mark.parametrize("dt", [1.0, 0.5])
def test_courses_of_an_epidemic_last_as_long_as_its_rates_say(dt):
    # A geometric number of steps at 1 - exp(-rate dt) per step.
    infectious = dt / -np.expm1(-0.1 * dt)
    assert days(sir(0.3, 0.1), dt) == pytest.approx(infectious, rel=1e-9)
    assert days(seir(0.3, 0.4, 0.1), dt) == pytest.approx(infectious, rel=1e-9)


def test_infectious_days_depend_little_on_the_length_of_a_step():
    profile = np.exp(-((np.arange(25) - 8.0) ** 2) / 18).tolist()
    found = [days(seir(0.3, 0.4, 0.1, infectiousness=profile), dt) for dt in (1.0, 0.5, 0.25)]
    assert max(found) < 1.15 * min(found), found
    assert min(found) > 0.5


def test_courses_need_stages_that_end():
    with pytest.raises(ConfigError, match="recovery_rate must be positive for a finite reproduction number"):
        sir(0.3, 0.0).transmission.courses(1.0)


def recorded(model, population, form):
    return simulate(model, population, steps=4, seed=1, messages=form, record=["stage"]).fields["stage"]


def test_a_model_in_double_precision_runs_by_its_plain_rules(monkeypatch):
    ring = Contacts.from_edges(np.arange(500), (np.arange(500) + 1) % 500, num_agents=500, undirected=True)
    risk = {"risk": State(0.5, torch.float64), "infected_on": INFECTED_ON}
    people = Stages("susceptible", "infected")
    models = [
        sir(0.4, 0.1, 0.1).double(), seir(0.4, 0.5, 0.1, 0.1).double(),
        Model(
            [importation.bring([{"per_day": 50.0}], *people, "risk")], state={"stage": people, **risk}, name="arrivals"
        ),
    ]  # fmt: skip
    for module, kernel in ((infection, "candidates"), (importation, "chosen_rows")):
        monkeypatch.setattr(module, kernel, None)
    for model in models:
        found = recorded(model, ring, "auto")
        assert (found[0] != found[-1]).any() and np.array_equal(found, recorded(model, ring, "pull"))


def regions(num_regions, wrong=None):
    """Agents of many regions, one of whom may be of none."""
    code = np.arange(2 * num_regions, dtype=np.int32) % num_regions
    code[1] = code[1] if wrong is None else wrong
    fields = {"region": Field("region", categories=tuple(f"r{i}" for i in range(num_regions)))}
    nobody = Contacts.from_edges([], [], num_agents=code.size)
    return Population(code.size, {"region": code}, nobody, fields)


@pytest.mark.parametrize("form", ["auto", "push"])
@pytest.mark.parametrize(("num_regions", "wrong"), [(3, None), (700, None), (3, 3), (700, 30_000_000), (3, -1)])
def test_arrivals_are_refused_in_a_region_of_no_name_and_only_there(form, num_regions, wrong):
    people, last = Stages("susceptible", "infected"), f"r{num_regions - 1}"
    bring = importation.bring([{"per_day": 2.0, "region": last}], *people)
    model = Model([bring], state={"stage": people, "infected_on": INFECTED_ON}, observe=())
    population = regions(num_regions, wrong)
    if wrong is None:
        arrived = simulate(model, population, steps=1, seed=1, messages=form).agents.stage.codes.nonzero().flatten()
        assert (arrived % num_regions == num_regions - 1).all() and len(arrived) == 2
    else:
        with pytest.raises(DataError, match=rf"'region' must hold codes from 0 to {num_regions - 1}, got {wrong} "):
            simulate(model, population, steps=1, seed=1, messages=form)
