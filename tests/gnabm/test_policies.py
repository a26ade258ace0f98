"""Interventions as a config and a call say them, and what they do to infections."""

from datetime import date

import pytest
import torch

from gnabm import Contacts, Population, simulate
from gnabm.config import load
from gnabm.config.build import keywords
from gnabm.errors import ConfigError, GnabmError
from gnabm.models.epidemic import covid, seir, sir
from gnabm.models.fitting import refuse_unfit
from gnabm.parameters import Parameters
from gnabm.testing import ModelConformance
from gnabm.testing.awkward import awkward_population

LAYERS = ("friends", "home", "site", "community", "field")
WATCHED = {"observable": "incidence", "above_per_100k": 600.0, "days": 2.5, "by_region": True}
EVERYTHING = [
    {"close": ["site", "friends"], "strength": 0.4, "start": 2, "end": 4.5, "name": "Partly"},
    {"close": ["community"], "strength": 0.7, "when": WATCHED},
    {"close": ["field"], "regions": ["north"], "start": 2},
    {"isolate": "symptomatic", "compliance": 0.6, "strength": 0.9, "start": 3},
    {"test": "symptomatic", "probability": 0.4, "sensitivity": 0.8, "delay": 0.5, "days": 3, "start": 1.5},
    {"vaccinate": [["80+", "70-79"], ["20-29"]], "per_day": 40, "against_infection": 0.9, "delay": 1},
]


@pytest.fixture(scope="module")
def population():
    return awkward_population(3_000)


def curve(population, *interventions, rate=0.05, steps=8, messages="auto", gradient=None, **keys):
    model = seir(rate, 0.5, 0.2, 0.05, interventions=interventions, **keys)
    run = simulate(model, population, steps=steps, seed=5, messages=messages, gradient=gradient)
    return run.observed["incidence"].sum(2).to(torch.float64)


@pytest.mark.parametrize("messages", ["auto", "push", "pull"])
def test_a_full_closure_is_a_layer_of_weight_0(population, messages):
    closed = curve(population, {"close": ["site", "home"]}, messages=messages)
    assert torch.equal(closed, curve(population, layer_weights={"site": 0.0, "home": 0.0}))
    assert closed.sum() < curve(population).sum()


def test_a_closure_in_part_multiplies_with_the_weight_of_the_layer(population):
    closure = {"close": ["site"], "strength": 0.75}
    assert torch.equal(
        curve(population, closure, layer_weights={"site": 2.0}), curve(population, layer_weights={"site": 0.5})
    )


def test_before_its_start_and_after_its_end_a_closure_changes_nothing(population):
    closed, free = curve(population, {"close": LAYERS, "start": 3, "end": 6}), curve(population)
    assert torch.equal(closed[:3], free[:3]) and not closed[3:6].any() and free[3:6].any() and closed[6:].any()


def test_a_region_closes_alone(population):
    closed, free = curve(population, {"close": LAYERS, "regions": ["south"]}), curve(population)
    assert not closed[:, 2].any() and free[:, 2].any() and torch.equal(closed[0, :2], free[0, :2])


def test_each_region_has_its_own_trigger(population):
    when = {"observable": "incidence", "above": 12.0, "days": 100.0, "by_region": True}
    free = curve(population, steps=8)
    assert (free[:4].amax(0) > 12).tolist() == [True, True, False]  # the last region is the smallest
    closed = curve(population, {"close": LAYERS, "when": when}, steps=8)
    assert not closed[3:, :2].any() and closed[3:5, 2].any()


@pytest.mark.parametrize("messages", ["auto", "push", "pull"])
def test_a_rate_by_week_holds_from_week_to_week(population, messages):
    weeks = curve(population, rate=0.1, steps=16, rate_by_week=[0.5, 0.0, 0.25], messages=messages)
    assert torch.equal(weeks[:7], curve(population, steps=7)) and not weeks[7:14].any() and weeks[14:].any()


def test_a_rate_by_region_is_that_of_who_is_infected(population):
    regions = curve(population, rate_by_region=[1.0, 0.0, 1.0])
    assert torch.equal(regions[0, ::2], curve(population)[0, ::2]) and not regions[:, 1].any()


@pytest.mark.parametrize("estimator", ["local-score", "straight-through"])
def test_every_parameter_of_an_intervention_has_a_gradient_and_a_meaning(population, estimator):
    model = seir(0.05, 0.5, 0.2, 0.05, interventions=EVERYTHING, rate_by_week=[1, 0.8], rate_by_region=[1, 1, 0.9])
    run = simulate(model, population, steps=9, seed=5, gradient=estimator)
    plain = simulate(model, population, steps=9, seed=5)
    assert torch.equal(run.observed["incidence"].detach(), plain.observed["incidence"].double())
    run.observed["incidence"].sum().backward()
    entries = {entry.name: entry for entry in Parameters.of(model)}
    silent = {name for name, entry in entries.items() if entry.value.grad is None or not entry.value.grad.any()}
    assert silent == {"Campaign.against_severe"} and all(entry.input.meaning for entry in entries.values())


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"strength": 0.5}, "exactly one of close, isolate, test, vaccinate, got neither"),
        ({"close": ["site"], "isolate": "symptomatic"}, "got close and isolate"),
        ("closed", "expected a mapping with one of close, isolate, test, vaccinate, got 'closed'"),
        ({"close": "site"}, "close: expected a list of texts, got 'site'"),
        ({"close": []}, "close: is empty"),
        ({"close": ["site"], "regions": []}, "regions: is empty"),
        ({"close": ["site"], "strenght": 0.5}, "strenght: no such key; did you mean 'strength'"),
        ({"close": ["site"], "strength": "0.5"}, "strength: expected a number, got '0.5'"),
        ({"close": ["site"], "strength": True}, "strength: expected a number, got True"),
        ({"close": ["site"], "when": {**WATCHED, "dayz": 3}}, "when.dayz: no such key; did you mean 'days'"),
        ({"close": ["site"], "when": {"observable": "incidence", "above": 3}}, "when.days: missing; give a number"),
        ({"close": ["site"], "when": 3}, "when: expected a mapping with keys observable, above"),
        ({"vaccinate": [], "per_day": 3}, "vaccinate: a list is empty"),
        ({"vaccinate": ["80+"], "per_day": 3}, r"vaccinate\[0\]: expected a list of texts"),
        ({"close": ["site"], "strength": 1.2}, r"strength must lie in \[0, 1\]"),
        ({"close": ["site"], "start": "2022-02-02"}, "start: '2022-02-02' is no number of days"),
        ({"close": ["site"], "start": 4, "when": WATCHED}, "start and when exclude each other"),
        ({"close": ["site"], "when": {**WATCHED, "observable": "stage_count"}}, "is none that counts agents"),
        ({"close": ["site"], "when": {**WATCHED, "above": 3.0}}, "got both"),
        ({"isolate": "everybody", "compliance": 0.5}, "expected `symptomatic`"),
        ({"isolate": "symptomatic"}, "compliance: missing"),
        ({"close": ["site"], "name": "a b"}, "'a b' is no name"),
        ({"close": ["site"], "name": "keys"}, "'keys' is taken"),
        ({"close": ["site"], "name": "lambda"}, "'lambda' is no name"),
        ({"close": ["site"], "name": ""}, "'' is no name"),
    ],
)
def test_what_is_no_intervention_is_refused_with_its_key(entry, message):
    with pytest.raises(ConfigError, match=rf"interventions\[0\].*{message}"):
        seir(0.1, 0.1, 0.1, interventions=[entry])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"interventions": [{"close": ["sit"]}]}, "interventions: Close: there is no layer 'sit'; did you mean 'site'"),
        ({"interventions": [{"close": ["site"], "regions": ["nord"]}]}, "there is no region 'nord'"),
        ({"rate_by_region": [1.0, 2.0]}, "rate_by_region has 2 values for 3 regions"),
    ],
)
def test_what_a_population_has_not_is_refused_before_a_run(population, keys, message):
    with pytest.raises(GnabmError, match=message):
        refuse_unfit(seir(0.1, 0.1, 0.1, **keys), population, None, 10)


def test_isolation_needs_a_layer_of_homes():
    nobody = Population.of(Contacts.from_edges([], [], num_agents=3, name="everybody"))
    model = seir(0.1, 0.1, 0.1, interventions=[{"isolate": "symptomatic", "compliance": 0.5}])
    with pytest.raises(ConfigError, match="in the layer 'home' alone, and the layers of this population are everybody"):
        refuse_unfit(model, nobody, None, 10)


@pytest.mark.parametrize(
    ("keys", "has"),
    [
        ({"interventions": EVERYTHING[:1]}, True),
        ({"interventions": EVERYTHING[1:2]}, False),
        ({"interventions": EVERYTHING[2:3]}, False),
        ({"interventions": EVERYTHING[3:4]}, False),
        ({"rate_by_region": [1.0, 0.5]}, False),
    ],
)
def test_what_differs_by_agent_needs_the_plain_form(keys, has):
    (infect,) = (rule for rule in seir(0.1, 0.1, 0.1, **keys).rules() if rule.name == "Infect")
    assert infect.has_kernel is has


# Configs

POLICY = "new_zealand_policy"


def test_dates_of_a_config_become_days_of_its_run():
    config = load(POLICY, ["run.start=2022-02-01"])
    first, *_, last = keywords(config)["interventions"]
    assert (first["start"], first["end"], last["start"], last["waning_rate"]) == (19, 33, 0, 0.004)
    assert config.resolved()["interventions"][0]["start"] == date(2022, 2, 20).isoformat()
    assert config.gradient.checkpoint == 10 and config.gradient.estimator == "local-score"


def test_a_duration_is_a_day_too():
    config = load(POLICY, ["interventions=[{close: [school], start: 2 weeks, end: 21.5}]"])
    assert keywords(config)["interventions"] == [{"close": ["school"], "start": 14.0, "end": 21.5}]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "interventions=[{close: [site], strngth: 1}]",
            r"interventions\[0\].strngth: no such key; did you mean",
        ),
        ("interventions=[{clse: [site]}]", r"interventions\[0\]: expected exactly one .* did you mean 'close'"),
        ("interventions=[{close: [site], test: symptomatic}]", "exactly one of .* got close and test"),
        ("interventions=[{close: [site], start: 2022-02-01 12:00:00}]", "2022-02-01T12:00:00 has a time; give the"),
        ("interventions=[{close: [site], start: 2 per week}]", "start: expected days such as .* the rate '2 per week'"),
        ("interventions=[{close: [site], when: {observable: deaths, days: 3 per day}}]", "when.days: expected days"),
        ("interventions=[{vaccinate: [[80+]], per_day: 3, waning_rate: 9 days}]", "waning_rate: expected a rate"),
        ("interventions=[{vaccinate: [[80+]], per_dya: 3}]", "per_dya: no such key; did you mean 'per_day'"),
        (
            "interventions=[{isolate: symptomatic, compliance: much}]",
            "compliance: expected a number",
        ),
        ("interventions=[{close: [site], start: 2021-01-01}]", "2021-01-01 lies before the run"),
        ("interventions=[{close: [site], end: 2022-01-25, start: 9}]", "ends on day 5, before it begins on day 9"),
        ("interventions=[{close: [site], when: {observable: deaths, days: 7}}]", "exactly one of above"),
        ("interventions={}", "interventions: expected a list"),
        ("parameters.interventions=[]", "give interventions: .* beside parameters"),
        ("gradient.estimator=straight", "gradient.estimator: expected 'local-score', 'straight-through'"),
        ("gradient.horizn=3", "gradient.horizn: no such key; did you mean 'horizon'"),
    ],
)
def test_a_config_that_is_wrong_names_the_key_and_the_cure(override, message):
    with pytest.raises(ConfigError, match=message):
        load(POLICY, [override])


def test_a_model_without_interventions_refuses_them():
    with pytest.raises(ConfigError, match=r"interventions: sir takes none; use epidemic\.seir"):
        load("sir_small", ["interventions=[{close: [site]}]"])
    assert "interventions" not in sir.__annotations__


def test_a_date_needs_a_run_with_dates():
    with pytest.raises(ConfigError, match=r"interventions\[0\].start: 2022-02-20 is a date, but this run has none"):
        load(POLICY, ["run.start=null"])


class TestEverythingConformance(ModelConformance):
    """A model with interventions of every kind is the same in all forms of a run."""

    small = 1_000
    large = 20_000
    gradient = "local-score"

    def model(self):
        return seir(0.1, 0.5, 0.2, 0.1, interventions=EVERYTHING, rate_by_week=[1, 0.8], rate_by_region=[1, 1, 0.9])


class TestClosureConformance(ModelConformance):
    """Closures of all regions keep the kernel of the rule that infects."""

    small = 1_000
    large = 20_000
    gradient = "local-score"

    def model(self):
        when = {"observable": "incidence", "above": 5.0, "days": 3.0}
        closures = [{"close": ["home"], "strength": 0.3, "start": 1.5}, {"close": ["site"], "when": when}]
        model = covid(0.5, initial_infected=0.1, interventions=closures, rate_by_week=[0.8])
        assert all(rule.has_kernel for rule in model.rules() if rule.name == "Infect")
        return model
