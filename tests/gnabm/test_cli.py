import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
import zarr
from typer.testing import CliRunner

from cluster.crew import OneInProcess
from gnabm import open_trajectory
from gnabm.cli import app
from gnabm.cli.earlier import EarlierRun
from gnabm.cli.machine import available_memory
from gnabm.errors import RunError

COMMANDS = ("build", "plan", "run", "inspect", "report")
SCREEN = 24


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GNABM_CACHE", str(cache))
    monkeypatch.delenv("GNABM_TRACEBACK", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def config(tmp_path):
    """A run of 12 steps on a random graph of 300 agents."""
    rng = np.random.default_rng(3)
    pairs = np.unique(rng.integers(0, 300, (2400, 2)), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    np.savetxt(tmp_path / "edges.csv", pairs, "%d", ",", header="source,target", comments="")
    values = {
        "model": "epidemic.sir",
        "parameters": {"transmission_rate": 0.05, "recovery_rate": 0.1, "initial_infected": 0.05},
        "population": {"edges": "edges.csv"},
        "run": {"start": "2022-01-20", "steps": 12, "seed": 3},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(values))
    return "own.yaml"


def gnabm(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


def refused(*arguments, code=2):
    """What a refused command says: one screen, on standard error, no traceback."""
    result = gnabm(*arguments, code=code)
    assert len(result.stderr.splitlines()) < SCREEN
    assert "Traceback" not in result.output
    return " ".join(result.stderr.split())


def left(folder):
    return sorted(p.name for p in folder.iterdir())


NEW_ZEALAND = ("sir_small", "--set", "population.num_agents=2000", "--set", "run.steps=5")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example_that_names_the_command(command):
    assert f"Example: gnabm {command} " in gnabm(command, "--help").stdout


def test_a_run_leaves_its_config_and_trajectory_and_can_be_inspected_and_reported(config, workplace):
    shown = gnabm("run", config).stdout
    run = workplace / "runs" / "own"
    assert left(run) == ["config.yaml", "trajectory.zarr"]
    data = open_trajectory(run)
    assert data.attrs["status"] == "complete"
    assert data.attrs["config"] == yaml.safe_load((run / "config.yaml").read_text())
    attack = 1 - int(data.stage_count.isel(time=-1, stage=0)) / 300
    assert f"{100 * attack:.1f} %" in shown
    assert "gnabm report runs/own" in shown
    figures = json.loads(gnabm("inspect", "--json", run).stdout)
    assert figures["total_infections"] == int(data.incidence.sum())
    assert figures["status"] == "complete"
    assert gnabm("report", run).stdout.strip() == str(run / "report.html")
    assert f"{100 * attack:.1f} %" in (run / "report.html").read_text()


def test_the_stored_config_runs_again_to_the_same_bits(config, workplace):
    gnabm("run", config, "--out", "a", "--set", "record.fields=[stage]")
    gnabm("run", "a/config.yaml", "--out", "b")
    assert open_trajectory(workplace / "a").drop_attrs().identical(open_trajectory(workplace / "b").drop_attrs())


def test_overwrite_replaces_a_run_and_spares_what_is_not_its_own(config, workplace):
    gnabm("run", config, "--out", "a")
    gnabm("report", "a")
    (workplace / "a" / "notes.txt").write_text("mine")
    gnabm("run", config, "--out", "a", "--overwrite", "--set", "run.steps=5")
    assert left(workplace / "a") == ["config.yaml", "notes.txt", "trajectory.zarr"]
    assert open_trajectory(workplace / "a").sizes["time"] == 5


@pytest.mark.parametrize("error", [RunError("a shard died"), KeyboardInterrupt()])
def test_overwrite_keeps_the_earlier_run_until_the_first_step_is_done(config, workplace, monkeypatch, error):
    gnabm("run", config, "--out", "a")
    gnabm("report", "a")
    before, kept = (workplace / "a" / "config.yaml").read_text(), open_trajectory(workplace / "a")

    each = OneInProcess.each

    def fail(crew, call, *arguments):
        if call != "advance":
            return each(crew, call, *arguments)
        assert left(workplace / "a") == [".earlier", "config.yaml", "trajectory.zarr"]
        raise error

    again = ("run", config, "--out", "a", "--overwrite", "--set", "run.steps=5")
    with monkeypatch.context() as broken:
        broken.setattr(OneInProcess, "each", fail)
        refused(*again, code=1)
    assert left(workplace / "a") == ["config.yaml", "report", "report.html", "trajectory.zarr"]
    assert (workplace / "a" / "config.yaml").read_text() == before
    assert open_trajectory(workplace / "a").identical(kept)
    gnabm(*again)
    assert left(workplace / "a") == ["config.yaml", "trajectory.zarr"]


def test_an_earlier_run_that_a_killed_one_had_set_aside_is_found_again(workplace):
    run = workplace / "a"
    (run / ".earlier").mkdir(parents=True)
    (run / ".earlier" / "config.yaml").write_text("old")
    (run / "config.yaml").write_text("of the killed run")
    earlier = EarlierRun(run, ("config.yaml", "report.html"))
    earlier.set_aside()
    assert left(run) == [".earlier"]
    earlier.restore()
    assert left(run) == ["config.yaml"] and (run / "config.yaml").read_text() == "old"


def test_inspect_lists_a_recorded_stage_and_the_time_of_day(config):
    gnabm("run", config, "--out", "a", "--set", "record.fields=[stage]", "--set", "run.dt=12 hours")
    figures = json.loads(gnabm("inspect", "--json", "a").stdout)
    assert figures["variables"]["stage"] == ["time", "agent"]
    assert figures["variables"]["incidence"] == ["time"]
    assert figures["time"] == ["2022-01-20T00:00:00", "2022-01-25T12:00:00"]
    assert "stage (time, agent)" in " ".join(gnabm("inspect", "a").stdout.split())


def test_progress_tells_the_time_of_day_of_half_days(config):
    shown = gnabm("run", config, "--set", "run.dt=12 hours").stderr
    assert "2022-01-20 00:00" in shown and "2022-01-20 12:00" in shown
    assert "2022-01-31 " in gnabm("run", config, "--out", "b").stderr


def test_a_store_that_is_there_needs_no_memory_to_build_it(monkeypatch):
    gnabm("build", *NEW_ZEALAND)
    monkeypatch.setattr("gnabm.cli.populations.available_memory", lambda: 1000)
    gnabm("build", *NEW_ZEALAND)
    assert "lower population.num_agents" in refused("build", *NEW_ZEALAND, "--out", "nz.zarr")


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"memory.max": "1000", "memory.current": "900", "memory.stat": "anon 100\ninactive_file 700"}, 800),
        ({"memory.max": "max", "memory.current": "900", "memory.stat": ""}, None),
        ({"memory/memory.limit_in_bytes": "1000", "memory/memory.usage_in_bytes": "900",
          "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 50"}, 150),
    ],
)  # fmt: skip
def test_free_memory_is_that_of_the_container_with_its_file_cache(tmp_path, monkeypatch, files, free):
    (tmp_path / "memory").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("gnabm.cli.machine._CGROUP", tmp_path)
    found = available_memory()
    assert found == free if free is not None else found > 10**6


def test_plan_prints_what_a_run_needs_and_json_is_pure(config):
    plan = json.loads(gnabm("plan", config, "--json").stdout)
    assert plan["num_agents"] == 300
    shown = gnabm("plan", config, "--set", "run.shards=3").stdout
    for word in ("memory", "disk", "shard", "cut", "halo", "contacts"):
        assert word in shown


def test_build_says_where_the_store_is_and_which_tables_are_assumed(workplace, cache):
    shown = gnabm("build", *NEW_ZEALAND).stdout
    assert str(cache) in shown
    assert "assumed" in shown and "CC BY 4.0" in shown
    assert "found in" in gnabm("build", *NEW_ZEALAND).stderr
    gnabm("build", *NEW_ZEALAND, "--out", "nz.zarr")
    figures = json.loads(gnabm("inspect", "--json", "nz.zarr").stdout)
    assert figures["num_agents"] == 2000
    assert len(figures["agents_by_region"]) == 16
    assert "Wellington" in gnabm("inspect", "nz.zarr").stdout
    gnabm("run", "sir_small", "--set", "population={graph: nz.zarr}", "--set", "run.steps=3", "--out", "stored")
    assert dict(open_trajectory(workplace / "stored").sizes) == {"time": 3, "stage": 3, "region": 16, "age_group": 9}


def test_expected_mixing_and_local_shards_run_from_the_command_line(workplace):
    more = ("--set", "run.mixing=expected", "--set", "run.shards=3", "--set", "run.transport=local", "--out", "a")
    gnabm("run", *NEW_ZEALAND, *more)
    assert open_trajectory(workplace / "a").attrs["shards"] == 3


def test_strict_refuses_assumed_tables_and_lists_them(workplace):
    said = refused("run", *NEW_ZEALAND, "--strict")
    assert "assumptions is assumed" in said and "run without --strict" in said
    assert not (workplace / "runs").exists()


@pytest.mark.parametrize(
    ("override", "cure"),
    [
        ("run.sede=3", "did you mean 'seed'?"),
        ("population={country: Atlantis}", "known: New Zealand"),
        ("population={country: New Zealand, num_agents: 0}", "expected 1 or more"),
        ("run.shards=0", "expected 1 or more"),
        ("run.shards=five", "expected a whole number"),
        ("population={edges: nowhere.csv}", "check the path"),
        ("run.shards=1000", "or fewer shards"),
        ("population={country: New Zealand, num_agents: 100000000000000}", "lower population.num_agents"),
    ],
)
def test_a_bad_value_is_refused_before_anything_is_written(config, workplace, override, cure):
    before = left(workplace)
    assert cure in refused("run", config, "--set", override)
    assert left(workplace) == before


@pytest.mark.parametrize(
    ("rows", "cure"),
    [
        ("0,1,nan", "contacts per day, 0 or more"),
        ("0,1,-2", "contacts per day, 0 or more"),
        ("7,7,1", "drop self-loops"),
        ("0,99,1", "add it to the agent table"),
        ("0,one,1", "must be a whole number"),
        ("0,1,1\n0,1,1", "add the weights up"),
    ],
)
def test_a_bad_edge_is_refused_with_file_and_row(config, workplace, rows, cure):
    (workplace / "bad.csv").write_text(f"source,target,weight\n2,3,1\n{rows}\n")
    (workplace / "agents.csv").write_text("key\n" + "\n".join(map(str, range(10))))
    said = refused("run", config, "--set", "population={edges: bad.csv, agents: agents.csv}")
    assert cure in said
    assert "bad.csv, row" in said
    assert not (workplace / "runs").exists()


def test_an_existing_output_folder_is_refused_with_the_option_that_replaces_it(config, workplace):
    (workplace / "there").mkdir()
    assert "--overwrite" in refused("run", config, "--out", "there")
    assert left(workplace / "there") == []
    gnabm("run", config, "--out", "there", "--overwrite")


def test_a_file_in_place_of_the_output_folder_is_never_replaced(config, workplace):
    (workplace / "there").write_text("mine")
    assert "choose another" in refused("run", config, "--out", "there", "--overwrite")
    assert (workplace / "there").read_text() == "mine"


def test_an_unfilled_template_is_bad_input(workplace):
    (workplace / "template.yaml").write_text("model: epidemic.sir\nrun: {steps: 12, seed: {{seed}}}\n")
    assert "template.yaml, line 2" in refused("run", "template.yaml")


def test_broken_yaml_is_refused_with_its_line(workplace):
    (workplace / "broken.yaml").write_text("model: epidemic.sir\nrun: [steps\n")
    said = refused("run", "broken.yaml")
    assert "broken.yaml, line 3" in said and "check indentation" in said


def test_a_store_of_another_schema_is_refused_with_the_cure(config, workplace):
    gnabm("build", *NEW_ZEALAND, "--out", "nz.zarr")
    group = zarr.open_group("nz.zarr", mode="r+")
    group.attrs["gnabm"] = {**group.attrs["gnabm"], "schema": 99}
    for command in (("inspect", "nz.zarr"), ("run", config, "--set", "population={graph: nz.zarr}")):
        assert "rebuild" in refused(*command)
    assert not (workplace / "runs").exists()


@pytest.mark.parametrize("command", ["inspect", "report"])
def test_what_is_no_store_is_refused(workplace, command):
    (workplace / "empty").mkdir()
    (workplace / "garbled").mkdir()
    (workplace / "garbled" / "zarr.json").write_text("{not json")
    assert "gnabm run" in refused(command, "nowhere")
    assert "gnabm build" in refused(command, "empty")
    assert "cannot be read" in refused(command, "garbled")


def test_an_unknown_option_is_bad_input(config):
    gnabm("run", config, "--sett", "run.seed=3", code=2)


def test_an_unexpected_error_exits_1_with_a_hint_and_no_traceback(config, monkeypatch):
    def fail(*arguments, **keywords):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("gnabm.cli.running.prepare", fail)
    assert "GNABM_TRACEBACK=1" in refused("run", config, code=1)


def subprocess_gnabm(*arguments, before="pass", **more):
    """The command in a process of its own, after some lines of Python."""
    code = f"import sys; {before}; sys.argv = ['gnabm', *sys.argv[1:]]; from gnabm.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **more,
    )  # fmt: skip


def test_missing_torch_scatter_is_refused_with_the_command_that_installs_it(config, workplace):
    process = subprocess_gnabm("run", config, before="sys.modules['torch_scatter'] = None")
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 2, said
    assert "make setup" in said
    assert len(said.splitlines()) < SCREEN and "Traceback" not in said
    assert not (workplace / "runs").exists()


def test_help_does_not_wait_for_torch():
    process = subprocess_gnabm("--help", before="sys.modules['torch'] = None")
    out, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "inspect" in out


def test_ctrl_c_leaves_a_readable_trajectory_that_says_so(config, workplace):
    with subprocess_gnabm("run", config, "--set", "run.steps=1000000", "--out", "a") as process:
        said = ""
        while not said.endswith("new\n") and (line := process.stderr.readline()):
            said += line
        process.send_signal(signal.SIGINT)
        said += process.stderr.read()
    assert process.returncode == 1, said
    assert "stopped by Ctrl-C after" in said and "Traceback" not in said
    data = open_trajectory(workplace / "a")
    assert data.attrs["status"] == "interrupted"
    assert 0 < data.sizes["time"] < 1000000
    assert (data.stage_count.sum("stage") == 300).all()


@pytest.mark.ray
def test_ctrl_c_stops_two_shards_and_leaves_a_readable_trajectory(workplace):
    more = ("--set", "run.steps=1000000", "--set", "run.shards=2", "--out", "a")
    with subprocess_gnabm("run", *NEW_ZEALAND[:3], *more, start_new_session=True) as process:
        said = ""
        while not said.endswith("new\n") and (line := process.stderr.readline()):
            said += line
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all processes of the command
        said += process.stderr.read()
    assert process.returncode == 1, said
    assert "stopped by Ctrl-C after" in said and "Traceback" not in said
    data = open_trajectory(workplace / "a")
    assert data.attrs["status"] == "interrupted" and data.attrs["shards"] == 2
    assert 0 < data.sizes["time"] < 1000000
    assert (data.stage_count.sum(("stage", "region", "age_group")) == 2000).all()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 96 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=96k", "none", folder], capture_output=True)
    if not done or done.returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_no_space_left_is_a_failure_and_nothing_looks_whole(config, small_disk):
    more = ("--set", "run.steps=3000", "--set", "record.fields=[stage]", "--set", "run.start=null")
    said = refused("run", config, "--out", small_disk / "a", *more, code=1)
    assert "no space left" in said and "--out" in said
    assert zarr.open_group(small_disk / "a" / "trajectory.zarr", mode="r").attrs["status"] in ("failed", "running")


def test_no_space_for_a_store_leaves_none(small_disk):
    assert "no space left" in refused("build", *NEW_ZEALAND, "--out", small_disk / "nz.zarr", code=1)
    assert not (small_disk / "nz.zarr").exists()
