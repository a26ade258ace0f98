"""The line list is the same on any shards, and lies beside the trajectory whatever became of the run."""

import os
import signal

import pandas as pd
import pytest
import xarray as xr
import yaml
from typer.testing import CliRunner

from cluster import run
from cluster.join import run_local
from cluster.plan import plan
from cluster.run import Beginning, Keeping
from gnabm import Contacts, Model, Population, Rule, open_trajectory, simulate
from gnabm.cli import app
from gnabm.errors import ConfigError, DataError, StoreError
from gnabm.infections import open_infections, share_by_layer
from gnabm.testing.watch import num_threads
from graphs.store import open_graph

SETTINGS = {"steps": 40, "seed": 3}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small arrays: threads would only wait for each other."""
    with num_threads(1):
        yield


@pytest.fixture(scope="module")
def people(population):
    """The awkward population without the expected form, in which nobody infects anybody."""
    layers = {n: v for n, v in population.contacts.layers.items() if n != "expected"}
    contacts = Contacts(layers, population.num_agents)
    return Population(population.num_agents, population.columns, contacts, population.fields)


@pytest.fixture(scope="module")
def alone(people, model_of_session):
    return simulate(model_of_session, people, **SETTINGS, infections=True).infections


@pytest.mark.parametrize("messages", ["auto", "push", "pull"])
@pytest.mark.parametrize("shards", [1, 2, 3, 7])
def test_the_list_has_the_same_bits_on_any_shards(people, model, alone, shards, messages):
    cut = run_local(model, people, shards=shards, **SETTINGS, messages=messages, infections=True)
    pd.testing.assert_frame_equal(cut.infections, alone)


def test_infections_cross_shards(people, model_of_session, alone):
    key = people.columns["key"]
    low = set(key[: people.num_agents // 2].tolist())
    known = alone[alone.infector >= 0]
    across = known[known.agent.isin(low) != known.infector.isin(low)]
    assert {"home", "friends", "site", "drawn"} <= set(known.layer)
    assert {"friends", "site", "drawn"} <= set(across.layer)


def test_a_run_that_does_not_record_them_has_none(people, model):
    assert run_local(model, people, shards=2, steps=1, seed=3).infections is None


@pytest.mark.parametrize("shards", [1, 3])
def test_a_run_leaves_the_list_in_zarr_and_parquet(people, model, alone, tmp_path, shards):
    run(model, people, shards=shards, transport="local", out=tmp_path, infections=True, **SETTINGS)
    pd.testing.assert_frame_equal(open_infections(tmp_path), alone)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "infections.parquet"), alone)
    with xr.open_zarr(tmp_path / "trajectory.zarr", group="infections") as dataset:
        assert dataset.sizes == {"infection": len(alone)}
    dataset = open_trajectory(tmp_path)
    assert "infection" not in dataset.dims
    assert int(dataset.incidence.sum()) == (alone.step >= 0).sum()


@pytest.mark.ray
def test_two_actors_leave_the_same_list(ray_cluster, stored, model_of_session, tmp_path):
    alone = simulate(model_of_session, open_graph(stored), **SETTINGS, infections=True).infections
    run(model_of_session, stored, shards=2, transport="actors", out=tmp_path, infections=True, **SETTINGS)
    pd.testing.assert_frame_equal(open_infections(tmp_path), alone)


@pytest.mark.parametrize("shards", [1, 2])
def test_an_interrupted_run_keeps_the_infections_of_the_steps_that_it_made(people, model, alone, tmp_path, shards):
    def interrupt(step, _):
        if step == 34:
            os.kill(os.getpid(), signal.SIGINT)

    run(
        model, people, shards=shards, transport="local", out=tmp_path, infections=True, on_step=interrupt, **SETTINGS
    )  # fmt: skip
    done = alone[alone.step < 35]
    pd.testing.assert_frame_equal(open_infections(tmp_path), done)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "infections.parquet"), done)


class Fails(Rule):
    """Refuses step 36."""

    writes = {}  # noqa: RUF012

    def forward(self, agents, contacts, step):
        if step.index == 36:
            raise DataError("step 36 is refused")
        return {}


def test_a_failed_run_keeps_the_whole_steps_that_were_written(people, model, alone, tmp_path):
    phases = [*model.phases, [Fails()]]
    failing = Model(phases, state=model.state, initial=model.initial, observe=model.observe)
    with pytest.raises(DataError, match="step 36"):
        run(failing, people, out=tmp_path, infections=True, **SETTINGS)
    pd.testing.assert_frame_equal(open_infections(tmp_path), alone[alone.step < 32])


@pytest.mark.parametrize("shards", [1, 2])
def test_a_run_that_goes_on_from_a_state_takes_the_earlier_records_over(people, model, alone, tmp_path, shards):
    told = {"seed": 3, "infections": True, "shards": shards, "transport": "local"}
    run(model, people, steps=21, out=tmp_path / "a", keep=Keeping(tmp_path / "state.zarr", {}), **told)
    begin = Beginning(tmp_path / "state.zarr", tmp_path / "a" / "trajectory.zarr")
    run(model, people, steps=40, out=tmp_path / "b", begin=begin, **told)
    pd.testing.assert_frame_equal(open_infections(tmp_path / "b"), alone)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "b" / "infections.parquet"), alone)
    run(model, people, steps=21, out=tmp_path / "c", seed=3)
    begin = Beginning(tmp_path / "state.zarr", tmp_path / "c" / "trajectory.zarr")
    with pytest.raises(StoreError, match=r"no line list to go on from.*record\.infections"):
        run(model, people, steps=40, out=tmp_path / "d", begin=begin, **told)


def test_replacing_a_run_takes_its_parquet_with_it(people, model, tmp_path):
    run(model, people, steps=2, seed=3, out=tmp_path, infections=True)
    run(model, people, steps=2, seed=3, out=tmp_path, overwrite=True)
    assert open_infections(tmp_path) is None
    assert not (tmp_path / "infections.parquet").exists()


def test_a_run_that_stores_nothing_records_no_infections(people, model):
    with pytest.raises(ConfigError, match="give out="):
        run(model, people, steps=1, seed=3, infections=True)


def test_a_plan_counts_the_list(people, model):
    with_list, without = (plan(people, model, steps=9, infections=wanted) for wanted in (True, False))
    assert with_list.disk - without.disk == 64 * people.num_agents
    assert with_list.memory > without.memory


def test_the_command_line_records_and_shows_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edges.csv").write_text("source,target\n" + "".join(f"{i},{(i + 7) % 97}\n" for i in range(97)))
    values = {
        "model": "epidemic.sir",
        "parameters": {"transmission_rate": 0.4, "recovery_rate": 0.1, "initial_infected": 0.1},
        "population": {"edges": "edges.csv"},
        "run": {"start": "2022-01-20", "steps": 12, "seed": 3},
        "record": {"infections": True},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(values))
    ran = CliRunner().invoke(app, ["run", "own.yaml", "--out", "out"])
    assert ran.exit_code == 0, ran.output
    records = open_infections("out")
    assert (records.date.dt.day == 20 + records.step).all()
    told = CliRunner().invoke(app, ["inspect", "out", "--json"])
    figures = yaml.safe_load(told.stdout)
    assert figures["share_by_layer"] == share_by_layer(records)
    assert figures["records_of_infections"] == len(records) > 10
    assert 1 <= figures["mean_generation_interval_days"] < 12
    shown = CliRunner().invoke(app, ["inspect", "out"]).output
    assert "infections by layer" in shown
    assert "days on average" in shown
