"""`gnabm sensitivity` on a graph of 300 agents."""

import json

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from gnabm.cli import app


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    pairs = np.unique(rng.integers(0, 300, (2400, 2)), axis=0)
    np.savetxt("edges.csv", pairs[pairs[:, 0] != pairs[:, 1]], "%d", ",", header="source,target", comments="")
    values = {
        "model": "epidemic.sir",
        "parameters": {"transmission_rate": 0.05, "recovery_rate": 0.1, "initial_infected": 0.05},
        "population": {"edges": "edges.csv"},
        "run": {"start": "2022-01-20", "steps": 14, "seed": 3},
        "gradient": {"checkpoint": 5},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(values))
    return "own.yaml"


def gnabm(*arguments, code=0):
    result = CliRunner().invoke(app, ["sensitivity", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def test_json_has_the_names_that_scripts_rely_on(config):
    found = json.loads(gnabm(config, "--seeds", 2, "--json").stdout)
    assert found["groups"] == ["week 0", "week 1"]
    assert found["parameters"] == ["Infect.transmission_rate", "Recover.rate", "SeedAtRandom.share"]
    assert np.shape(found["elasticity"]) == np.shape(found["se"]) == (2, 3)
    assert found["elasticity"][0][0] > 0 > found["elasticity"][0][1]


def test_check_and_global_stand_beside_it_and_on_the_page(config, tmp_path):
    options = ["--check", "--check-seeds", 2, "--global", "--samples", 2, "--set", "run.transport=local"]
    options += ["--parameters", "Infect.*", "--parameters", "R*"]
    shown = gnabm(config, "--seeds", 2, *options, "--by", "all", "--out", "page.html").stdout
    for text in ("Elasticity of incidence", "central differences", "sobol", "morris", "page.html"):
        assert text in shown
    assert "The same by central differences" in (tmp_path / "page.html").read_text()
    assert {"elasticity.csv", "elasticity.png"} < {path.name for path in (tmp_path / "page_report").iterdir()}
    found = json.loads(gnabm(config, "--seeds", 2, *options, "--json").stdout)
    assert [row["parameter"] for row in found["check"]["rows"]] == found["parameters"]
    assert set(found["global"]) == {"sobol", "morris"}


def test_what_no_gradient_reaches_is_named_and_none_in_json(config):
    none = "parameters.transmission_rate=0"
    said = gnabm(config, "--seeds", 2, "--set", none).stdout
    assert "gnabm gradients --audit" in said and "no gradient reached Infect.transmission_rate" in said
    found = json.loads(gnabm(config, "--seeds", 2, "--set", none, "--json").stdout)
    assert "Infect.transmission_rate" in found["unreached"] and found["elasticity"][0][0] is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--global", "--samples", 3), "power of 2"),
        (("--check", "--factor", 1.0), "greater than 1"),
        (
            ("--check", "--parameters", "Infect.*", "--set", "parameters.transmission_rate=0"),
            "Infect.transmission_rate",
        ),
        (("--outcome", "stage_count.infectious"), "--by stage"),
        (("--out", "page.html"), "page_report has no manifest.json"),
        (("--by", "weak"), "did you mean 'week'"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_the_first_run(config, monkeypatch, tmp_path, options, said):
    (tmp_path / "page_report").mkdir()
    (tmp_path / "page_report" / "mine.txt").write_text("mine")
    monkeypatch.setattr("gnabm.cli.sensitivity.sensitivity", None)
    assert said in " ".join(gnabm(config, *options, code=2).stderr.split())


def test_numbers_without_a_range_are_left_out_aloud(config):
    options = ["--global", "--samples", 2, "--set", "run.transport=local", "--set", "parameters.transmission_rate=0"]
    said = " ".join(gnabm(config, "--seeds", 2, *options, "--by", "all").stdout.split())
    assert "leave them no range: Infect.transmission_rate" in said
    assert "nan" not in said


def test_what_is_not_there_is_named_with_the_nearest(config, tmp_path):
    assert "did you mean 'week'" in " ".join(gnabm(config, "--by", "weak", code=2).stderr.split())
    assert "no parameter matches" in " ".join(gnabm(config, "--parameters", "Infekt.*", code=2).stderr.split())
    (tmp_path / "page.html").write_text("mine")
    assert "--overwrite" in gnabm(config, "--out", "page.html", code=2).stderr
