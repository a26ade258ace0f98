import os
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import run
from cluster.space import amount
from cluster.worker import Job, Worker
from gnabm import Model, Rule, open_trajectory, simulate
from gnabm.agents import Stages
from gnabm.errors import ConfigError, DataError, GnabmError, OutputExistsError, RunError
from gnabm.exchange import Solo
from gnabm.trajectory import TrajectoryStore
from graphs.store import open_graph

S, I = SI = Stages("S", "I")  # noqa: E741
RECORD = ["stage", "infected_on"]


@pytest.fixture(scope="module")
def whole(population, model_of_session):
    return simulate(model_of_session, population, steps=70, seed=3, record=RECORD)


def agrees(dataset, trajectory, steps):
    for name, value in trajectory.observed.items():
        assert (dataset[name].values == value[:steps].numpy()).all(), name
    for name, value in trajectory.fields.items():
        assert (dataset[name].values == value[:steps]).all(), name
    assert dataset.sizes["time"] == steps


@pytest.mark.parametrize("shards", [1, 3])
def test_a_run_leaves_the_trajectory_that_simulate_returns(population, model, whole, tmp_path, shards):
    seen = []
    result = run(
        model, population, shards=shards, transport="local", steps=70, seed=3, record=RECORD, out=tmp_path,
        on_step=lambda step, observed: seen.append((step, int(observed["incidence"].sum()))),
    )  # fmt: skip
    dataset = xr.open_zarr(result.path, consolidated=False)
    agrees(dataset, whole, 70)
    assert (dataset.agent.values == population.columns["key"]).all()
    assert seen == list(enumerate(whole.observed["incidence"].sum((1, 2)).tolist()))
    assert (result.steps_done, result.status, len(result.ranks)) == (70, "complete", shards)
    assert 0 < result.startup_seconds < result.seconds
    assert all(peak > 2**27 for peak in result.peak_rss)
    assert {"read", "initial", "step", "write", "exchange"} == set(result.ranks[0].seconds)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_store_gives_what_its_population_gives_in_memory(stored, model, tmp_path, shards):
    settings = {"steps": 35, "seed": 3, "record": RECORD}
    in_memory = simulate(model, open_graph(stored), **settings)
    result = run(model, stored, shards=shards, transport="local", out=tmp_path, **settings)
    agrees(open_trajectory(tmp_path), in_memory, 35)
    assert zarr.open_array(result.path / "stage").chunks == (32, 64)
    assert all(r.first_row % 64 == 0 for r in result.ranks)


def test_the_attributes_say_how_the_run_was_made(population, model, tmp_path):
    settings = {"dt": 0.5, "start": np.datetime64("2022-01-20").item(), "messages": "pull"}
    result = run(model, population, steps=3, seed=9, out=tmp_path, attributes={"name": "mine"}, **settings)
    attributes = open_trajectory(tmp_path).attrs
    wanted = {
        "status": "complete", "dt_days": 0.5, "start": "2022-01-20", "seed": 9, "shards": 1, "messages": "pull",
        "reproducibility": "bit", "name": "mine",
    }  # fmt: skip
    assert {name: attributes[name] for name in wanted} == wanted
    assert {"python", "torch", "numpy", "zarr", "gnabm"} <= set(attributes["versions"])
    assert attributes["peak_rss"] == list(result.peak_rss)
    times = open_trajectory(tmp_path).time.values
    assert str(times[-1]).startswith("2022-01-21T00:00")


def test_threads_of_the_caller_are_kept(population, model):
    before = torch.get_num_threads()
    run(model, population, steps=1, seed=1, threads=1, on_step=lambda *_: None)
    assert torch.get_num_threads() == before


def test_nothing_is_stored_without_a_folder(population, model):
    result = run(model, population, steps=2, seed=1, record=["stage"])
    assert (result.path, result.steps_done) == (None, 2)


@pytest.mark.parametrize("shards", [1, 2])
def test_ctrl_c_finishes_the_step_and_leaves_what_is_done(population, model, whole, tmp_path, shards):
    def interrupt(step, _):
        if step == 40:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    result = run(
        model,
        population,
        shards=shards,
        transport="local",
        steps=70,
        seed=3,
        record=RECORD,
        out=tmp_path,
        on_step=interrupt,
    )
    assert (result.steps_done, result.status) == (41, "interrupted")
    dataset = xr.open_zarr(result.path, consolidated=False)
    agrees(dataset, whole, 41)
    assert dataset.attrs["status"] == "interrupted"
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("shards", [1, 2])
def test_an_interrupt_that_is_raised_leaves_what_is_done(population, model, whole, tmp_path, shards):
    def interrupt(step, _):
        if step == 3:
            raise KeyboardInterrupt

    result = run(
        model,
        population,
        shards=shards,
        transport="local",
        steps=70,
        seed=3,
        record=RECORD,
        out=tmp_path,
        on_step=interrupt,
    )
    assert (result.steps_done, result.status) == (4, "interrupted")
    agrees(open_trajectory(tmp_path), whole, 4)


class Fails(Rule):
    """Refuses step 35 on the shard of the last agents."""

    def where(self, agents):
        return agents.age > 200

    def forward(self, agents, contacts, step):
        if step.index == 35 and bool((agents.everyone.key == 10**9).any()):
            raise DataError("step 35 is refused")
        return {}


@pytest.mark.parametrize("shards", [1, 3])
def test_a_failed_run_raises_its_error_and_says_so(population, tmp_path, shards):
    model = Model([Fails()], state={"stage": SI})
    with pytest.raises(DataError, match="step 35 is refused"):
        run(model, population, shards=shards, transport="local", steps=70, seed=3, record=["stage"], out=tmp_path)
    dataset = open_trajectory(tmp_path)
    assert dataset.attrs["status"] == "failed"
    assert dataset.sizes["time"] == dataset["stage"].shape[0] == 32


def test_a_stored_run_needs_an_observable(population, tmp_path):
    with pytest.raises(ConfigError, match="count_by_stage"):
        run(Model([], state={"stage": SI}, observe=[]), population, steps=1, seed=1, out=tmp_path)


def test_a_trajectory_that_is_there_is_refused_before_anything_runs(population, model, tmp_path):
    run(model, population, steps=1, seed=1, out=tmp_path)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        run(model, population, steps=1, seed=1, out=tmp_path)
    run(model, population, steps=2, seed=1, out=tmp_path, overwrite=True)
    assert open_trajectory(tmp_path).sizes["time"] == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"transport": "mpi"}, "transport must be"),
        ({"shards": 0}, "shards must be at least 1"),
        ({"shards": 5000}, "at most 3000 shards"),
        ({"steps": -1}, "steps must be >= 0"),
        ({"record": ["stagee"]}, "did you mean 'stage'"),
        ({"messages": "shout"}, "messages must be"),
    ],
)
def test_bad_arguments_leave_nothing_behind(population, model, tmp_path, settings, message):
    with pytest.raises(GnabmError, match=message) as error:
        run(model, population, out=tmp_path, **({"steps": 1, "seed": 1} | settings))
    assert isinstance(error.value, (ConfigError, ValueError, TypeError, KeyError))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tiny_disk(tmp_path):
    """A device of half a megabyte."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a small tmpfs is not permitted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("shards", [1, 2])
def test_no_space_left_says_so_with_the_cure(population, model, tiny_disk, shards):
    with pytest.raises(RunError, match=r"no space left on the device of .* free\).*--out"):
        run(model, population, shards=shards, transport="local", steps=3000, seed=3, record=RECORD, out=tiny_disk)
    try:
        status = open_trajectory(tiny_disk).attrs["status"]
    except Exception:  # not even readable: nothing that looks whole
        return
    assert status in ("failed", "running")


def test_a_full_device_at_the_start_leaves_nothing(population, model, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(RunError, match="no space left"):
            run(model, population, steps=2, seed=3, out=tmp_path / "new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "new" / "trajectory.zarr").exists()


def test_one_shard_does_not_import_ray(tmp_path):
    code = (
        "import sys; from cluster import run; from gnabm import Contacts, Population\n"
        "from gnabm.models.epidemic import sir\n"
        "ring = Population.of(Contacts.from_edges([0, 1], [1, 0], num_agents=2))\n"
        f"run(sir(0.5, 0.1), ring, steps=2, seed=1, out={str(tmp_path)!r})\n"
        "assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_amounts_read_as_people_say_them():
    assert [amount(n) for n in (512, 1536, 5 * 2**40)] == ["512 bytes", "1.5 KiB", "5.0 TiB"]


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 70), st.integers(1, 4), st.integers(0, 1000))
def test_the_recorded_stages_are_those_that_the_observable_counts(
    small_population, model_of_session, steps, shards, seed
):
    settings = {"shards": shards, "transport": "local", "steps": steps, "seed": seed, "record": ["stage"]}
    with TemporaryDirectory() as folder:
        dataset = xr.open_zarr(run(model_of_session, small_population, out=folder, **settings).path).load()
    counted = dataset["stage_count"].values.reshape(steps, dataset.sizes["stage"], -1).sum(2)
    assert (counted == [np.bincount(day, minlength=counted.shape[1]) for day in dataset["stage"].values]).all()


@pytest.mark.parametrize("shards", [1, 2])
def test_a_device_that_fills_up_later_leaves_the_whole_steps_before(
    population, model, whole, tmp_path, monkeypatch, shards
):
    write = TrajectoryStore.write_field

    def full(self, name, step, row, values):
        if step:
            raise OSError(28, "No space left on device")
        write(self, name, step, row, values)

    monkeypatch.setattr(TrajectoryStore, "write_field", full)
    with pytest.raises(RunError, match="no space left on the device"):
        run(model, population, shards=shards, transport="local", steps=70, seed=3, record=RECORD, out=tmp_path)
    dataset = open_trajectory(tmp_path)
    assert dataset.attrs["status"] == "failed"
    agrees(dataset, whole, 32)


def test_a_rank_keeps_no_more_steps_than_one_chunk_and_none_without_a_store(population, model, tmp_path):
    job = Job(model, None, (0, population.num_agents), 3, 1.0, None, "auto", ("stage",), 500, 64, tmp_path, None)
    assert Worker(job, population, Solo()).buffer["stage"].shape == (32, population.num_agents)
    assert Worker(replace(job, path=None), population, Solo()).buffer == {}
