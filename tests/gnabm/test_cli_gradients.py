"""`gnabm gradients` as scripts use it."""

import json

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from gnabm.cli import app
from gnabm.cli.gradients import Asked, _prepare

ROW = {
    "parameter", "estimator", "observable", "mean", "se", "fd", "fd_se", "bias_percent", "bias_se", "variance",
    "seeds", "seconds", "bytes", "agents", "steps", "seed",
}  # fmt: skip


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A run of 12 steps on a random graph of 300 agents."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GNABM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GNABM_TRACEBACK", raising=False)
    pairs = np.unique(np.random.default_rng(3).integers(0, 300, (2400, 2)), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    np.savetxt("edges.csv", pairs, "%d", ",", header="source,target", comments="")
    values = {
        "model": "epidemic.sir",
        "parameters": {"transmission_rate": 0.05, "recovery_rate": 0.1, "initial_infected": 0.05},
        "population": {"edges": "edges.csv"},
        "run": {"start": "2022-01-20", "steps": 12, "seed": 3},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(values))
    return "own.yaml"


def gnabm(*arguments, code=0):
    result = CliRunner().invoke(app, ["gradients", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def test_json_has_a_row_for_each_parameter_estimator_and_outcome(config):
    more = ("--seeds", 2, "--estimators", "local-score", "--estimators", "gumbel(0.3)", "--observables", "incidence")
    rows = json.loads(gnabm(config, "--json", *more).stdout)
    assert all((row["agents"], row["steps"], row["seed"]) == (300, 12, 3) for row in rows)
    assert {(row["parameter"], row["estimator"]) for row in rows} == {
        (name, kind)
        for name in ("Infect.transmission_rate", "Recover.rate", "SeedAtRandom.share")
        for kind in ("local-score", "gumbel(0.3)")
    }
    assert all(set(row) == ROW for row in rows)


def test_the_table_names_what_was_compared(config):
    said = gnabm(config, "--seeds", 2, "--parameters", "Recover.*", "--observables", "stage_count.recovered").stdout
    assert "own: 300 agents, 12 steps, 2 seeds from 3 on, local-score" in said
    assert "Recover.rate" in said and "Infect" not in said and "±" in said


def test_the_audit_says_what_is_connected(config):
    rows = json.loads(gnabm(config, "--audit", "--json").stdout)
    told = {"parameter", "observable", "connected", "through_time", "broken_at", "served_by", "agents", "steps", "seed"}
    assert all(set(row) == told for row in rows)
    assert all(row["connected"] for row in rows if row["observable"] == "stage_count.recovered")
    said = gnabm(config, "--audit").stdout
    assert "through earlier steps" in said and "own: 300 agents, 12 steps, seed 3, local-score" in said


def test_a_parameter_that_no_gradient_reaches_is_named(config):
    said = gnabm(config, "--seeds", 2, "--set", "parameters.transmission_rate=0", "--observables", "incidence")
    assert "no gradient of local-score reached Recover.rate, SeedAtRandom.share" in " ".join(said.stdout.split())
    assert "gnabm gradients --audit" in said.stdout


def test_the_command_line_says_how_many_agents_a_country_has(monkeypatch, tmp_path):
    monkeypatch.setattr("gnabm.cli.gradients.prepare", lambda config, strict: config.population.num_agents)

    def built(agents, *overrides):
        return _prepare("sir_small", overrides, Asked(agents, None, None, (), ["*"], None, None, None))[0]

    assert built(None) == 10_000  # the config's own 50,000, at most 10,000
    assert built(None, "population.num_agents=20000") == 20_000
    assert built(300, "population.num_agents=20000") == built(300) == 300
    assert built(None, "population.num_agents=null") == 10_000
    assert built(None, "population.num_agents=500") == 500


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--estimators", "strait-through"), "did you mean 'straight-through'"),
        (("--parameters", "Infekt.*"), "no parameter matches"),
        (("--observables", "deaths"), "there is no outcome 'deaths'"),
        (("--width", "3"), "width must be a share"),
        (("--agents", "100"), "--agents is for a country"),
        (("--audit", "--seeds", "3", "--width", "0.2"), "no use for --seeds and --width"),
        (("--audit", "--estimators", "smoothed", "--estimators", "gumbel"), "a second of --estimators"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(config, arguments, said):
    assert said in " ".join(gnabm(config, *arguments, code=2).stderr.split())
