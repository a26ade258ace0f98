import os
import shutil
import signal
import subprocess
import sys
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
import zarr
from typer.testing import CliRunner

from gnabm import open_trajectory
from gnabm.cli import app


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GNABM_TRACEBACK", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a config of 12 days in half-day steps, which changes on its way, and its run."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(3)
    pairs = np.unique(rng.integers(0, 300, (2400, 2)), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    np.savetxt(folder / "edges.csv", pairs, "%d", ",", header="source,target", comments="")
    values = {
        "model": "epidemic.seir",
        "parameters": {
            "transmission_rate": 0.05, "latent_rate": 0.5, "recovery_rate": 0.1, "initial_infected": 0.05,
        },
        "population": {"edges": str(folder / "edges.csv")},
        "run": {"start": "2022-01-20", "steps": 24, "seed": 3, "dt": "12 hours"},
        "record": {"fields": ["stage"], "infections": True},
        "changes": [
            {"date": "2022-01-22", "set": {"parameters.recovery_rate": "1.4 per week"}},
            {"day": 5.5, "set": {"parameters.latent_rate": 1}},
            {"day": 9, "set": {"parameters.transmission_rate": 0.03}},
        ],
    }  # fmt: skip
    (folder / "own.yaml").write_text(yaml.safe_dump(values))
    gnabm("run", folder / "own.yaml", "--out", folder / "base")
    return folder


@pytest.fixture
def base(made, workplace):
    return shutil.copytree(made / "base", workplace / "base")


def gnabm(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


def refused(*arguments, code=2):
    result = gnabm(*arguments, code=code)
    assert "Traceback" not in result.output
    return " ".join(result.stderr.split())


def same(one, other):
    pd.testing.assert_frame_equal(*(pd.read_parquet(Path(run) / "infections.parquet") for run in (one, other)))
    return open_trajectory(one).load().drop_attrs().identical(open_trajectory(other).load().drop_attrs())


def left(folder):
    return sorted(p.name for p in Path(folder).iterdir())


SET = ("--set", "parameters.transmission_rate=0.2")


def test_a_branch_is_a_run_folder_whose_config_gives_the_same_bits_whole(base):
    before = open_trajectory(base).load()
    gnabm("branch", base, "--day", 5.5, *SET, "--set", "run.seed=11", "--out", "faster")
    assert left("faster") == ["config.yaml", "infections.parquet", "trajectory.zarr"]
    config = yaml.safe_load(Path("faster/config.yaml").read_text())
    merged = {"parameters.latent_rate": 1.0, "parameters.transmission_rate": 0.2, "run.seed": 11}
    assert [change["set"] for change in config["changes"]] == [
        {"parameters.recovery_rate": pytest.approx(0.2)}, merged, {"parameters.transmission_rate": 0.03},
    ]  # fmt: skip
    gnabm("run", "faster/config.yaml", "--out", "whole")
    assert same("faster", "whole") and not same_data("faster", "base")
    branched = open_trajectory("faster")
    assert (branched.attrs["branched_from"], branched.attrs["day"]) == (str(base), 5.5)
    assert branched.isel(time=slice(11)).load().drop_attrs().identical(before.isel(time=slice(11)).drop_attrs())
    assert left(base) == ["config.yaml", "infections.parquet", "states", "trajectory.zarr"]
    assert left(base / "states") == ["5.5.zarr"]


def same_data(one, other):
    return open_trajectory(one).load().drop_attrs().identical(open_trajectory(other).load().drop_attrs())


def test_many_scenarios_leave_from_one_state(base):
    Path("many.yaml").write_text("mild: {parameters.transmission_rate: 0.01}\nlucky:\n  run.seed: 4\n")
    said = gnabm("branch", base, "--day", 2, "--scenarios", "many.yaml", "--out", "many").stderr
    assert said.count("keeps no state of day 2 yet") == 1
    assert left("many") == ["lucky", "mild"]
    for name in left("many"):
        gnabm("run", f"many/{name}/config.yaml", "--out", f"whole/{name}")
        assert same(f"many/{name}", f"whole/{name}")
    said = gnabm("branch", base, "--day", 2, "--scenarios", "many.yaml", "--out", "many", "--overwrite").stderr
    assert "keeps no state" not in said and "again" not in said


def test_a_value_that_comes_back_later_is_a_change(base):
    gnabm("branch", base, "--day", 8, "--set", "parameters.transmission_rate=0.03", "--out", "earlier")
    gnabm("run", "earlier/config.yaml", "--out", "whole")
    assert same("earlier", "whole")


def test_a_branch_may_be_made_in_another_way_than_its_run(base):
    how = ("run.shards=2", "run.threads=1", "run.transport=local", "run.messages=push")
    gnabm("branch", base, "--day", 5.5, *SET, "--out", "one")
    gnabm("branch", base, "--day", 5.5, *SET, *(part for key in how for part in ("--set", key)), "--out", "two")
    assert same("one", "two")
    made = [yaml.safe_load(Path(name, "config.yaml").read_text()) for name in ("one", "two")]
    assert made[0]["changes"] == made[1]["changes"] and made[0]["run"]["shards"] == 1
    wanted = {"shards": 2, "threads": 1, "transport": "local", "messages": "push"}
    assert made[1]["run"] == made[0]["run"] | wanted


def test_a_branch_of_a_branch_on_three_shards_is_a_whole_run_too(base):
    config = yaml.safe_load((base / "config.yaml").read_text())
    config["run"] |= {"shards": 3, "transport": "local"}
    (base / "config.yaml").write_text(yaml.safe_dump(config))
    gnabm("branch", base, "--day", 4, *SET, "--out", "one")
    gnabm("branch", "one", "--day", 10, "--set", "parameters.recovery_rate=1", "--out", "two")
    gnabm("run", "two/config.yaml", "--out", "whole", "--set", "run.shards=1")
    assert same("two", "whole")


@pytest.mark.parametrize("spoil", ["no trajectory", "interrupted", "another config", "another version", "torn"])
def test_a_run_without_a_usable_trajectory_is_made_again_up_to_the_day(base, spoil):
    stored = base / "trajectory.zarr"
    if spoil == "no trajectory":
        shutil.rmtree(stored)
    elif spoil == "interrupted":
        gnabm("run", base / "config.yaml", "--out", "short", "--set", "run.steps=19")
        shutil.rmtree(stored)
        shutil.copytree("short/trajectory.zarr", stored)
        root = zarr.open_group(stored)
        short = root.attrs["config"]
        root.attrs["config"] = short | {"run": short["run"] | {"steps": 24}}
    elif spoil == "another config":
        config = yaml.safe_load((base / "config.yaml").read_text())
        config["parameters"]["transmission_rate"] = 0.06
        (base / "config.yaml").write_text(yaml.safe_dump(config))
    elif spoil == "another version":
        root = zarr.open_group(stored)
        root.attrs["versions"] = root.attrs["versions"] | {"torch": "0.1"}
    else:
        (stored / "incidence" / "zarr.json").write_text("{")
    said = gnabm("branch", base, "--day", 10, *SET, "--out", "faster").stderr
    assert "not used" in said or "they are made again" in said
    gnabm("run", "faster/config.yaml", "--out", "whole")
    assert same("faster", "whole")


def test_a_state_of_an_older_config_is_made_again_aloud(base):
    gnabm("branch", base, "--day", 3, *SET, "--out", "one")
    config = yaml.safe_load((base / "config.yaml").read_text())
    config["parameters"]["latent_rate"] = 0.7
    (base / "config.yaml").write_text(yaml.safe_dump(config))
    said = " ".join(gnabm("branch", base, "--day", 3, *SET, "--out", "two").stderr.split())
    assert "is the state of another run: its parameters.latent_rate is 0.5, not 0.7; it is made again" in said
    gnabm("run", "two/config.yaml", "--out", "whole")
    assert same("two", "whole")


def test_a_state_of_other_tables_is_made_again_aloud(base, workplace):
    edges = workplace / "edges.csv"
    config = yaml.safe_load((base / "config.yaml").read_text())
    lines = Path(config["population"]["edges"]).read_text().splitlines()
    edges.write_text("\n".join(lines))
    config["population"]["edges"] = str(edges)
    (base / "config.yaml").write_text(yaml.safe_dump(config))
    gnabm("branch", base, "--day", 3, *SET, "--out", "one")
    edges.write_text("\n".join(lines[:-200]))
    assert "its population is" in gnabm("branch", base, "--day", 3, *SET, "--out", "two").stderr.replace("\n", " ")
    gnabm("run", "two/config.yaml", "--out", "whole")
    assert same("two", "whole")


def test_a_state_and_a_trajectory_of_other_model_tables_are_made_again_aloud(workplace, monkeypatch):
    tables = shutil.copytree(files("gnabm.models.tables"), workplace / "tables")
    monkeypatch.setattr(import_module("gnabm.models.tables"), "files", lambda _: tables)
    number = np.arange(400)
    pairs = {"source": number, "target": (number + 1) % 400}
    pd.DataFrame(pairs).to_csv("edges.csv", index=False)
    pd.DataFrame({"key": number, "age": number % 90}).to_csv("agents.csv", index=False)
    values = {
        "model": "epidemic.covid",
        "parameters": {"transmission_rate": 3.0, "seeding": [{"number": 40}]},
        "population": {"edges": "edges.csv", "agents": "agents.csv"},
        "run": {"steps": 9, "seed": 3},
        "record": {"fields": ["stage"], "infections": True},
    }
    Path("covid.yaml").write_text(yaml.safe_dump(values))
    gnabm("run", "covid.yaml", "--out", "base")
    given = ("branch", "base", "--day", 6, "--set", "parameters.transmission_rate=1")
    assert "not used" not in gnabm(*given, "--out", "one").stderr
    durations = tables / "covid_durations.csv"
    old = durations.read_text()
    new = old.replace("presymptomatic,5.42,2.7", "presymptomatic,2,1")
    assert new != old
    durations.write_text(new)
    assert "parameters.durations.mild has by default what is set" in refused(
        *given[:-2], "--set", "parameters.durations.mild=[12, 5]", "--out", "none"
    )
    said = gnabm(*given, "--out", "two").stderr.replace("\n", " ")
    assert "its model_tables is" in said and "trajectory.zarr is not one of this config" in said
    gnabm("run", "two/config.yaml", "--out", "whole")
    assert same("two", "whole") and not same_data("one", "two")


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        (("--day", 12, *SET), "--day 12 is outside the run, which can be left on days 0 to 11.5"),
        (("--day", -1, *SET), "--day -1 is outside the run"),
        (("--day", 2.2, *SET), "take day 2 or 2.5"),
        (("--day", 2), "scenario out: nothing differs; give --set"),
        (("--day", 2, "--set", "parameters.transmision_rate=1"),
         "scenario out: parameters.transmision_rate: no such key; did you mean 'transmission_rate'?"),
        (("--day", 2, "--set", "parameters.recovery_rate=1.4 per week"),
         "scenario out: nothing differs: parameters.recovery_rate is 0.2 in the run already; give another value"),
        (("--day", 1, "--set", "parameters.recovery_rate=0.1"), "parameters.recovery_rate is 0.1 in the run already"),
        (("--day", 10, "--set", "parameters.transmission_rate=0.03", "--set", "run.seed=3"),
         "parameters.transmission_rate is 0.03 in the run already; run.seed is 3 in the run already"),
        (("--day", 2, "--set", "reproduction_number=null"), "reproduction_number is null in the run already"),
        (("--day", 2, "--set", "run.shards=2"), "nothing differs, run.shards leaves all bits as they are"),
        (("--day", 2, *SET, "--set", "run.shards=0"), "scenario out: run.shards: expected 1 or more"),
        (("--day", 2, "--set", "run.steps=4"), "run.steps: cannot change while a run goes on"),
        (("--day", 2, "--set", "parameters.initial_infected=0.2"), "acts only on the initial state"),
        (("--day", 2, "--set", "parameters"), "expected key.key=value"),
        (("--day", 2, *SET, "--scenarios", "many.yaml"), "exclude each other"),
        (("--day", 2, "--scenarios", "many.yaml"), "many.yaml: cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_branched_is_refused_before_anything_is_written(base, workplace, arguments, cure):
    assert cure in refused("branch", base, *arguments, "--out", "out")
    assert left(workplace) == ["base"] and "states" not in left(base)


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("[1, 2]", "expected scenarios by name"),
        ("a/b: {run.seed: 1}", "'a/b' cannot name a folder"),
        ("a: 3", "many.yaml: a: expected keys and values"),
        ("a: {}", "scenario a: nothing differs"),
        ("a: {run.seed: 1}\na: {run.seed: 2}", "stands here twice"),
        ("a: {run.seed: many}", "scenario a: run.seed: expected a whole number"),
    ],
)
def test_a_file_of_scenarios_that_makes_no_sense_is_refused(base, workplace, text, cure):
    Path("many.yaml").write_text(text)
    assert cure in refused("branch", base, "--day", 2, "--scenarios", "many.yaml", "--out", "out")
    assert left(workplace) == ["base", "many.yaml"]


def test_a_folder_that_is_no_run_or_is_there_is_refused(base, workplace):
    (workplace / "empty").mkdir()
    assert "give one of `gnabm run`" in refused("branch", "empty", "--day", 2, *SET, "--out", "out")
    assert "--overwrite" in refused("branch", base, "--day", 2, *SET, "--out", "empty")
    said = refused("branch", base, "--day", 2, *SET, "--out", "base", "--overwrite")
    assert "is the run that is branched" in said
    assert same_data(base, base) and left(workplace) == ["base", "empty"]


def test_the_help_has_an_example():
    assert "Example: gnabm branch " in gnabm("branch", "--help").stdout


def test_running_again_discards_the_states_of_the_earlier_run(base):
    gnabm("branch", base, "--day", 2, *SET, "--out", "one")
    gnabm("run", base / "config.yaml", "--out", base, "--overwrite")
    assert "states" not in left(base)


def test_ctrl_c_on_the_way_to_the_state_leaves_no_state_and_no_run(base, workplace):
    config = yaml.safe_load((base / "config.yaml").read_text())
    config["run"]["steps"] = 1_000_000
    (base / "config.yaml").write_text(yaml.safe_dump(config))
    code = "import sys; sys.argv = ['gnabm', *sys.argv[1:]]; from gnabm.cli import main; main()"
    arguments = ["branch", str(base), "--day", "400000", *SET, "--out", "faster"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        said = ""
        while not said.endswith("new\n") and (line := process.stderr.readline()):
            said += line
        process.send_signal(signal.SIGINT)
        said += process.stderr.read()
    assert process.returncode == 1, said
    assert "no state and no run was left" in said and "Traceback" not in said
    assert left(workplace) == ["base"] and left(base / "states") == []


COVID = {
    "model": "epidemic.covid",
    "reproduction_number": 3,
    "parameters": {
        "seeding": [{"number": 40}],
        "importation": [{"per_day": 2, "from": 3, "region": "Auckland"}],
        "vaccination": {"coverage": 0.5},
    },
    "population": {"country": "New Zealand", "num_agents": 20_000},
    "run": {"start": "2022-01-20", "steps": 25, "seed": 7, "transport": "local"},
    "record": {"fields": ["stage", "infected_on"], "infections": True},
}


SCENARIOS = {
    "border": {"parameters.importation": [{"per_day": 9, "from": 20}], "run.seed": 8},
    "closed": {"parameters.layer_weights.school": 0, "parameters.layer_weights.class": 0},
    "calm": {"reproduction_number": 1.1},
}


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 3])
def test_covid_in_small_new_zealand_branches_with_the_bits_of_whole_runs(monkeypatch, tmp_path_factory, shards):
    monkeypatch.setenv("GNABM_CACHE", str(tmp_path_factory.getbasetemp() / "branching"))
    Path("covid.yaml").write_text(yaml.safe_dump(COVID))
    gnabm("run", "covid.yaml", "--out", "base", "--set", f"run.shards={shards}")
    Path("many.yaml").write_text(yaml.safe_dump(SCENARIOS))
    gnabm("branch", "base", "--day", 14, "--scenarios", "many.yaml", "--out", "many")
    for name in SCENARIOS:
        gnabm("run", f"many/{name}/config.yaml", "--out", f"whole/{name}", "--set", "run.shards=1")
        assert same(f"many/{name}", f"whole/{name}"), name
        assert not same_data(f"many/{name}", "base")
