import math
from datetime import date

import numpy as np
import pytest
import yaml

from gnabm import Contacts, Field, Population
from gnabm.config import build_model, load, shipped
from gnabm.errors import ConfigError
from gnabm.nextgen import Encounters

SIR = {
    "model": "epidemic.sir",
    "parameters": {"transmission_rate": "0.3 per contact", "recovery_rate": "0.7 per week"},
    "population": {"edges": "edges.csv"},
    "run": {"steps": 10},
}


@pytest.fixture
def sir(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(SIR))
    return path


def problems(path, *overrides):
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    return [str(part) for part in caught.value.args]


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_config_loads_by_its_name_and_has_at_most_40_lines(name):
    assert load(name).name == name
    assert len(shipped()[name].splitlines()) <= 40


@pytest.mark.parametrize("name", sorted(shipped()))
def test_the_resolved_config_loads_again_to_the_same_run(name, tmp_path):
    config = load(name, ["run.shards=3", "run.dt=12 hours", "record.fields=[stage]"])
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config.resolved()))
    assert load(path) == config


def test_quantities_come_out_in_days_and_per_day(sir):
    config = load(sir, ["run.dt=12 hours"])
    assert config.parameters["recovery_rate"] == pytest.approx(0.1)
    assert config.parameters["transmission_rate"] == 0.3
    assert config.run.dt == 0.5


def test_an_override_is_parsed_as_yaml_and_makes_the_mappings_on_its_way(sir):
    config = load(sir, ["record.fields=[stage]", "run.start=2022-01-20", "run.seed=8"])
    assert config.record.fields == ["stage"]
    assert config.run.start == date(2022, 1, 20)
    assert config.run.seed == 8


def test_files_are_found_from_the_config_and_overrides_from_the_working_folder(sir, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load(sir).population.edges == str(tmp_path / "edges.csv")
    assert load(sir, ["population.edges=mine.csv"]).population.edges == str(elsewhere / "mine.csv")


@pytest.mark.parametrize(
    ("override", "path", "cure"),
    [
        ("run.sede=3", "run.sede", "did you mean 'seed'?"),
        ("popolation={}", "popolation", "did you mean 'population'?"),
        ("population.edgse=x", "population.edgse", "did you mean 'edges'?"),
        ("parameters.recovery_rat=1", "parameters.recovery_rat", "did you mean 'recovery_rate'?"),
        ("model=epidemic.sri", "model", "did you mean 'epidemic.sir'?"),
        ("record.fields=[stag]", "record.fields", "did you mean 'stage'?"),
        ("run.steps=many", "run.steps", "expected a whole number, got the text 'many'"),
        ("run.steps=10.5", "run.steps", "expected a whole number, got 10.5"),
        ("run.steps=true", "run.steps", "expected a whole number, got True"),
        ("run.shards=0", "run.shards", "expected 1 or more, got 0"),
        ("run.dt=0 days", "run.dt", "positive duration"),
        ("run.dt=1 per day", "run.dt", "a duration such as '1 day'"),
        ("run.start=tomorrow", "run.start", "2022-01-20"),
        ("run.messages=pul", "run.messages", "'auto', 'push' or 'pull'"),
        ("run=3", "run", "a mapping"),
        ("record.fields=stage", "record.fields", "a list such as [stage]"),
        ("parameters.recovery_rate=5 days", "parameters.recovery_rate", "a rate such as '0.1 per day'"),
        ("parameters.recovery_rate=1 per fortnight", "parameters.recovery_rate", "unknown unit"),
        ("parameters.recovery_rate=.nan", "parameters.recovery_rate", "a finite number"),
        ("parameters.recovery_rate=-1", "parameters", ">= 0"),
        ("parameters.initial_infected=[a]", "parameters.initial_infected[0]", "a whole number"),
        ("parameters.initial_infected={}", "parameters.initial_infected", "a number or a list of whole numbers"),
        ("reproduction_number=2", "parameters.transmission_rate", "give one of the two"),
        ("population.graph=nz.zarr", "population", "has edges and graph"),
        ("population.country=New Zealand", "population", "has country and edges"),
    ],
)
def test_a_wrong_value_is_named_with_its_path_and_the_cure(sir, override, path, cure):
    (problem,) = problems(sir, override)
    assert f": {path}: " in problem
    assert cure in problem


def test_all_problems_are_listed_at_once(sir):
    found = problems(sir, "run.steps=x", "run.shards=0", "population.agent=a.csv", "parameters.gamma=1")
    assert [p.split(":")[0] for p in found] == ["population.agent", "run.steps", "run.shards", "parameters.gamma"]


@pytest.mark.parametrize("key", ["model", "population", "run.steps", "parameters.recovery_rate"])
def test_a_missing_key_is_named(tmp_path, key):
    values = yaml.safe_load(yaml.safe_dump(SIR))
    section, _, name = key.rpartition(".")
    del (values[section] if section else values)[name]
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(values))
    assert f"{key}: missing" in problems(path)[0]


def test_broken_yaml_is_refused_with_file_and_line(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("model: epidemic.sir\nrun: {steps: 3\nrecord: x\n")
    (problem,) = problems(path)
    assert str(path) in problem
    assert "line 3" in problem


@pytest.mark.parametrize(
    "run",
    ["{steps: 12, seed: {{seed}}}", "{steps: 12, [1, 2]: 3}", "{steps: 12, ? {a: 1} : 2}", "{start: 2022-02-30}"],
)
def test_a_template_left_unfilled_and_other_values_that_yaml_cannot_build_are_refused(tmp_path, run):
    path = tmp_path / "template.yaml"
    path.write_text(f"model: epidemic.sir\nrun: {run}\n")
    assert "this is no YAML" in problems(path)[0]


def test_a_key_given_twice_is_refused(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("model: epidemic.sir\nrun: {steps: 3}\nrun: {steps: 4}\n")
    assert "line 3" in problems(path)[0]
    assert "'run' stands here twice" in problems(path)[0]


def test_an_unknown_config_names_the_nearest_shipped_one():
    assert "did you mean 'new_zealand'?" in problems("new_zeeland")[0]


@pytest.mark.parametrize("override", ["run.steps", "=3", "run..steps=3", "model.x=3"])
def test_a_malformed_override_is_refused(sir, override):
    assert f"--set {override}" in problems(sir, override)[0]


@pytest.fixture
def aged():
    ages = np.repeat(np.arange(0, 90, 3, dtype=np.uint8), 4)
    number = np.arange(ages.size)
    decades = (*(f"{10 * d}-{10 * d + 9}" for d in range(8)), "80+")
    fields = {"age": Field("age", "age", "years"), "age_group": Field("age_group", "decade", categories=decades)}
    contacts = Contacts.from_edges(number, np.roll(number, 1), num_agents=ages.size, undirected=True, name="home")
    return Population(ages.size, {"age": ages, "age_group": (ages // 10).astype(np.uint8)}, contacts, fields)


def test_a_stated_reproduction_number_scales_the_transmission_rate(sir, aged):
    # Everyone meets everyone alike, so R0 = rate x contacts per day x days infectious, 1 / (1 - exp(-recovery_rate)).
    contacts = Encounters(np.full((16, 16, 1), 1 / 16), np.ones((16, 16, 1)), "expected")
    overrides = ["reproduction_number=3", "parameters={recovery_rate: 0.1}"]
    model = build_model(load(sir, overrides), aged, lambda population: {"home": contacts})
    rate = float(model.rules()[0].transmission_rate.detach())
    assert rate == pytest.approx(3 * -math.expm1(-0.1), rel=1e-5)


@pytest.mark.parametrize(
    ("parameters", "cure"),
    [
        ("{layer_weights: {hom: 2}}", "did you mean 'home'?"),
        ("{susceptibility: [1, 2]}", "2 values for the 9 age groups"),
    ],
)
def test_parameters_that_do_not_fit_the_population_are_refused(sir, aged, parameters, cure):
    given = {"latent_rate": 0.5, "recovery_rate": 0.1, "transmission_rate": 0.1, **yaml.safe_load(parameters)}
    config = load(sir, ["model=epidemic.seir", f"parameters={given}"])
    with pytest.raises(ConfigError, match=cure.replace("?", r"\?")):
        build_model(config, aged)


def test_a_susceptibility_by_age_needs_the_ten_year_groups(sir, aged):
    given = {"latent_rate": 0.5, "recovery_rate": 0.1, "transmission_rate": 0.1, "susceptibility": [1] * 9}
    config = load(sir, ["model=epidemic.seir", f"parameters={given}"])
    build_model(config, aged)
    fields = {"age_group": Field("age_group", "text order", categories=tuple(sorted(map(str, range(9)))))}
    other = Population(aged.num_agents, aged.columns, aged.contacts, fields)
    with pytest.raises(ConfigError, match=r"has 0, 1, 2, .*integer column age"):
        build_model(config, other)


def test_a_reproduction_number_needs_ages(sir):
    config = load(sir, ["reproduction_number=3", "parameters={recovery_rate: 0.1}"])
    ring = Population.of(Contacts.from_edges([0, 1, 2], [1, 2, 0], num_agents=3))
    with pytest.raises(ConfigError, match="add a column age"):
        build_model(config, ring, lambda population: {})
