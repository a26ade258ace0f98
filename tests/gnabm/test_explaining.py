"""`gnabm explain RUN` tells what RUN did, whatever shards it ran on, or says why it cannot."""

import json
import shutil
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
import yaml
import zarr
from typer.testing import CliRunner

from gnabm import open_trajectory
from gnabm.cli import app
from gnabm.testing.watch import num_threads

NUM_AGENTS = 240
STAGES = ("susceptible", "exposed", "infectious", "recovered")


def gnabm(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


def refused(*arguments, code=2):
    """What a refused command says: one screen, no traceback."""
    result = gnabm(*arguments, code=code)
    assert "Traceback" not in result.output
    return " ".join(result.stderr.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Configs and runs: on one shard, on two, with half days and a change on the way."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(3)
    pairs = np.unique(rng.integers(0, NUM_AGENTS, (1600, 2)), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    layer = np.where(np.arange(len(pairs)) % 3, "work", "home")
    table = {"source": pairs[:, 0], "target": pairs[:, 1], "weight": rng.random(len(pairs)).round(3), "layer": layer}
    pd.DataFrame(table).to_csv(folder / "edges.csv", index=False)
    ages = rng.integers(0, 90, NUM_AGENTS)
    pd.DataFrame({"key": range(NUM_AGENTS), "age": ages}).to_csv(folder / "agents.csv", index=False)
    values = {
        "model": "epidemic.seir",
        "parameters": {
            "transmission_rate": 0.3, "latent_rate": 0.4, "recovery_rate": 0.2, "initial_infected": 0.05,
            "layer_weights": {"home": 2.0}, "susceptibility": [0.5, 1, 1, 1, 1, 1, 1, 1.5, 1.5],
        },
        "population": {"edges": "edges.csv", "agents": "agents.csv"},
        "run": {"start": "2022-01-20", "steps": 14, "seed": 3},
        "record": {"fields": ["stage", "infected_on"], "infections": True},
    }  # fmt: skip
    (folder / "own.yaml").write_text(yaml.safe_dump(values))
    own = folder / "own.yaml"
    gnabm("run", own, "--out", folder / "one")
    gnabm("run", own, "--set", "run.shards=2", "--set", "run.transport=local", "--out", folder / "two")
    change = "changes=[{day: 3, set: {parameters.transmission_rate: 0.6, run.seed: 9}}]"
    gnabm("run", own, "--set", "run.dt=0.5", "--set", change, "--out", folder / "half")
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    """The runs are small: threads would only wait for each other."""
    with num_threads(1):
        yield


def told(run, agent, day):
    return json.loads(gnabm("explain", run, "--agent", agent, "--day", day, "--json").stdout)


@pytest.mark.parametrize(("name", "dt"), [("one", 1.0), ("two", 1.0), ("half", 0.5)])
def test_the_explanation_is_what_the_run_recorded(folder, name, dt):
    run = folder / name
    stage = open_trajectory(run)["stage"].values
    cases = pd.read_parquet(run / "infections.parquet")
    caught = cases[cases.step > 0].iloc[::16]
    assert len(caught) > 3
    for case in caught.itertuples():
        one = told(run, case.agent, case.step * dt)
        assert one["step"] == case.step
        assert one["before"]["stage"] == STAGES[stage[case.step - 1, case.agent]] == "susceptible"
        assert one["after"]["stage"] == STAGES[stage[case.step, case.agent]] == "exposed"
        infect = one["rules"][0]
        assert infect["draws"][0]["happened"]
        assert infect["draws"][0]["uniform"] < infect["draws"][0]["probability"]
        assert infect["infected_by"] == case.infector
        assert infect["infected_through"] == case.layer
        race = infect["race"]
        assert -np.log(race["infector"]["uniform"]) / race["sent"] == pytest.approx(race["time"])
        assert race["runners"] == len({s["agent"] for s in infect["sums"][0]["sources"] if s["layer"] == case.layer})
        assert one["seed"] == (9 if name == "half" and case.step >= 6 else 3)
        rate = infect["parameters"]["transmission_rate"]
        assert rate == pytest.approx(0.6 if name == "half" and case.step >= 6 else 0.3)
        age = one["about"]["age"]
        susceptibility = 0.5 if age < 10 else 1.5 if age >= 70 else 1.0
        assert infect["hazard"] == pytest.approx(rate * susceptibility * infect["sums"][0]["received"], rel=1e-4)
        for source in infect["sums"][0]["sources"]:
            assert source["stage"] == STAGES[stage[case.step - 1, source["agent"]]] == "infectious"


def test_agents_to_whom_nothing_happened_are_explained_too(folder):
    stage = open_trajectory(folder / "one")["stage"].values
    for agent in range(0, NUM_AGENTS, 40):
        one = told(folder / "one", agent, 9)
        assert one["before"]["stage"] == STAGES[stage[8, agent]]
        assert one["after"]["stage"] == STAGES[stage[9, agent]]
        assert [rule["concerned"] for rule in one["rules"]] == [one["before"]["stage"] == s for s in STAGES[:3]]


def test_the_initial_state_is_explained(folder):
    cases = pd.read_parquet(folder / "one" / "infections.parquet")
    seed = int(cases[cases.step == -1].agent.iloc[0])
    one = told(folder / "one", seed, -1)
    assert one["after"]["stage"] == "exposed"
    (rule,) = one["rules"]
    assert rule["rule"] == rule["infected_through"] == "SeedAtRandom"
    assert rule["draws"][0]["uniform"] < rule["draws"][0]["probability"] == pytest.approx(0.05)


def test_the_story_names_agent_date_hazard_and_outcome(folder):
    cases = pd.read_parquet(folder / "one" / "infections.parquet")
    case = cases[cases.step > 3].iloc[0]
    by_day = gnabm("explain", folder / "one", "--agent", case.agent, "--day", case.step)
    by_date = gnabm("explain", folder / "one", "--agent", case.agent, "--date", f"{case.date:%Y-%m-%d}")
    assert by_day.stdout == by_date.stdout
    assert f"Agent {case.agent}, step {case.step}, day {case.step}, {case.date:%A %Y-%m-%d}" in by_day.stdout
    assert f"infected by agent {case.infector}, through {case.layer}" in by_day.stdout
    assert "hazard" in by_day.stdout
    assert "it happens" in by_day.stdout
    assert "the layer draws " in by_day.stdout
    assert "raced, time -log(u) / (contacts per day x sent): the winner drew" in by_day.stdout
    assert "made again in" in by_day.stderr


def test_nothing_is_written(folder):
    before = sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*"))
    told(folder / "one", 5, 4)
    assert sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*")) == before


def test_questions_that_the_run_cannot_answer_are_refused(folder):
    one = folder / "one"
    assert "no agent 240: the 240 keys lie within 0..239" in refused("explain", one, "--agent", 240, "--day", 3)
    assert "a day lies within 0 .. 13" in refused("explain", one, "--agent", 4, "--day", 14)
    assert "the run starts on 2022-01-20" in refused("explain", one, "--agent", 4, "--date", "2022-01-19")
    assert "not both" in refused("explain", one, "--agent", 4, "--day", 1, "--date", "2022-01-21")
    assert "which day?" in refused("explain", one, "--agent", 4)
    assert "is no folder" in refused("explain", folder / "none", "--agent", 4, "--day", 1)


def copied(folder, tmp_path):
    return shutil.copytree(folder / "one", tmp_path / "run")


def test_a_folder_without_config_or_population_is_refused_with_the_cure(folder, tmp_path):
    run = copied(folder, tmp_path)
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").unlink()
    assert "has no config.yaml" in refused("explain", run, "--agent", 4, "--day", 1)
    gone = {**config, "population": {"graph": str(tmp_path / "gone.zarr")}}
    (run / "config.yaml").write_text(yaml.safe_dump(gone))
    assert "gone.zarr of this run is gone; build it there again" in refused("explain", run, "--agent", 4, "--day", 1)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    shutil.rmtree(run / "trajectory.zarr")
    assert "holds no trajectory" in refused("explain", run, "--agent", 4, "--day", 1)


def test_other_versions_are_told(folder, monkeypatch):
    monkeypatch.setattr(import_module("cluster.run"), "versions", lambda: {"torch": "99.0"})
    said = gnabm("explain", folder / "one", "--agent", 4, "--day", 2).stderr
    assert "torch" in said
    assert "99.0 now. The bits may differ" in said


def test_another_history_than_the_recorded_one_is_never_explained(folder, tmp_path):
    run = copied(folder, tmp_path)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["parameters"]["transmission_rate"] = 0.9
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert "would explain another history" in refused("explain", run, "--agent", 4, "--day", 9, code=1)


def spoil(stored, name, at, value):
    """Write another value into the record of a run, and leave its observables alone."""
    root = zarr.open_group(str(stored), mode="r+", use_consolidated=False)
    root[name][at] = value


def test_an_agent_whose_record_is_another_is_never_explained(folder, tmp_path):
    run = copied(folder, tmp_path)
    stored = run / "trajectory.zarr"
    cases = pd.read_parquet(run / "infections.parquet")
    at = int(np.flatnonzero(cases.step > 3)[0])
    case = cases.iloc[at]
    asked = ("explain", run, "--agent", case.agent, "--day", case.step)
    gnabm(*asked)
    for name, value in (("infector", case.infector + 1), ("layer", int(case.layer == "home")), ("step", case.step - 1)):
        kept = shutil.copytree(stored, tmp_path / "kept")
        codes = list(cases.layer.cat.categories)
        value = (codes.index(case.layer) + 1) % 2 if name == "layer" else value
        spoil(stored, f"infections/{name}", at, value)
        said = refused(*asked, code=1)
        assert f"agent {case.agent} is infected by agent {case.infector} through {case.layer}; by the line list" in said
        assert "would explain another history" in said
        shutil.rmtree(stored)
        kept.rename(stored)
    gnabm(*asked)
    spoil(stored, "stage", (case.step, case.agent), 3)
    assert f"is exposed after it, the run recorded {STAGES[3]}" in refused(*asked, code=1)
    gnabm("explain", run, "--agent", case.agent, "--day", -1)


@pytest.mark.slow
def test_the_population_of_a_country_is_built_again_but_never_mistaken_for_another(tmp_path, monkeypatch):
    monkeypatch.setenv("GNABM_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "run"
    gnabm("run", "sir_small", "--set", "population.num_agents=2000", "--set", "run.steps=3", "--out", run)
    shutil.rmtree(tmp_path / "cache")
    assert told(run, 77, 2)["about"]["region"]
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["population"]["seed"] = 5
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert "tables or generator have changed; run it again" in refused("explain", run, "--agent", 77, "--day", 2)
