import logging
import os
import shutil
import signal
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
import zarr

from cluster import Trunk, branch, run
from cluster.branch import ensure_state
from cluster.run import Beginning
from cluster.state import check_state, read_state, write_state
from gnabm import Contacts, Population
from gnabm.errors import ConfigError, OutputExistsError, RunError, StoreError
from gnabm.models.epidemic import seir
from gnabm.periods import Period

RECORD = ["stage", "infected_on"]
STEPS, AT = 38, 34  # neither a whole number of chunks of time


def models(**more):
    """A model of the awkward population without the expected mixing, which has no infector."""
    given = {
        "transmission_rate": 0.04, "latent_rate": 0.4, "recovery_rate": 0.2, "initial_infected": 0.02,
        "susceptibility": [0.35, 0.69, 1.03, 1.03, 1.03, 1.03, 1.27, 1.52, 1.52],
        "infectiousness": [0.1, 0.8, 1.3, 0.9, 0.4],
    }  # fmt: skip
    return seir(**(given | more))


@pytest.fixture(scope="module")
def base():
    return models()


@pytest.fixture(scope="module")
def scenarios(base):
    slower = models(transmission_rate=0.01)
    return {
        "same": (),
        "slower": (Period(AT, slower, 3),),
        "reseeded": (Period(AT, base, 11), Period(AT + 2, models(layer_weights={"home": 0.1}), 12)),
    }


def trunk(base, population, changes=(), **settings):
    return Trunk(base, population, STEPS, 3, changes, {"record": RECORD, "infections": True} | settings)


def read(folder):
    """All that a run leaves, whatever it says of its making."""
    path = folder / "trajectory.zarr"
    return xr.open_zarr(path).load().drop_attrs(), pd.read_parquet(folder / "infections.parquet")


def same(one, other):
    (data, line_list), (wanted, infections) = read(one), read(other)
    pd.testing.assert_frame_equal(line_list, infections)
    return data.identical(wanted)


def with_infectors(population):
    """The population without the expected mixing, which no store holds and which has no infector."""
    layers = {n: layer for n, layer in population.contacts.layers.items() if n != "expected"}
    contacts = Contacts(layers, population.num_agents)
    return Population(population.num_agents, population.columns, contacts, population.fields)


@pytest.fixture(scope="module")
def many(population):
    return with_infectors(population)


@pytest.fixture(scope="module")
def wholes(base, scenarios, many, tmp_path_factory):
    """Each scenario run whole, on one shard."""
    folder = tmp_path_factory.mktemp("wholes")
    for name, changes in scenarios.items():
        one = trunk(base, many)
        run(base, many, steps=STEPS, seed=3, changes=changes, out=folder / name, **one.settings)
    return folder


@pytest.mark.parametrize(("shards", "recorded"), [(1, False), (2, True), (3, False)])
def test_branches_have_the_bits_of_whole_runs(base, scenarios, many, wholes, tmp_path, shards, recorded):
    one = trunk(base, many, shards=shards, transport="local")
    earlier = wholes / "same" / "trajectory.zarr" if recorded else None
    results = branch(one, AT, scenarios, state=tmp_path / "34.zarr", out=tmp_path, earlier=earlier)
    assert [r.steps_done for r in results.values()] == [STEPS] * 3
    assert (tmp_path / "34.zarr" / "trajectory.zarr").exists() != recorded
    for name in scenarios:
        assert same(tmp_path / name, wholes / name), name
    assert not read(tmp_path / "slower")[0].identical(read(tmp_path / "same")[0])


@pytest.mark.ray
def test_branches_on_actors_have_the_bits_of_whole_runs(ray_cluster, base, scenarios, stored, wholes, tmp_path):
    one = trunk(base, stored, shards=2)
    branch(one, AT, {"slower": scenarios["slower"]}, state=tmp_path / "34.zarr", out=tmp_path)
    assert same(tmp_path / "slower", wholes / "slower")


@pytest.mark.parametrize("at", [0, 1, 6, 7])
def test_a_ring_in_half_days_branches_at_any_step_also_after_changes_of_its_own(ring_of_eight, tmp_path, at):
    first, later, other = (seir(rate, 0.5, 0.1, [0]) for rate in (0.9, 0.3, 1.5))
    own, new = [Period(3, later, 5), Period(6, first, 6)], Period(at, other, 8)
    settings = {"record": RECORD, "infections": True, "dt": 0.5}
    changes = [*(p for p in own if p.step < at), new]
    run(first, ring_of_eight, steps=12, seed=2, changes=changes, out=tmp_path / "whole", **settings)
    one = Trunk(first, ring_of_eight, 12, 2, own, {**settings, "shards": 2, "transport": "local"})
    branch(one, at, {"new": [new]}, state=tmp_path / "state.zarr", out=tmp_path)
    assert same(tmp_path / "new", tmp_path / "whole")


SLOWER = (Period(5, models(transmission_rate=0.01), 3),)


def short(base, few, **settings):
    return Trunk(base, few, 8, 3, (), trunk(base, few, **settings).settings)


@pytest.fixture(scope="module")
def few(small_population):
    """Few agents in memory."""
    return with_infectors(small_population)


@pytest.fixture(scope="module")
def alone(base, few, tmp_path_factory):
    """A scenario of theirs run whole."""
    folder = tmp_path_factory.mktemp("alone")
    run(base, few, steps=8, seed=3, changes=SLOWER, out=folder, **short(base, few).settings)
    return folder


@pytest.fixture(scope="module")
def kept(base, few, tmp_path_factory):
    """A state with the steps before it, for tests to spoil a copy of."""
    folder = tmp_path_factory.mktemp("kept")
    branch(short(base, few), 5, {}, state=folder / "5.zarr", out=folder, basis={"config": 1})
    return folder / "5.zarr"


@pytest.fixture
def copied(kept, tmp_path):
    return shutil.copytree(kept, tmp_path / "5.zarr")


def test_a_state_is_made_once(base, few, copied):
    steps = []
    before = os.stat(copied / "zarr.json").st_mtime_ns
    found = ensure_state(short(base, few), 5, copied, {"config": 1}, on_step=lambda *a: steps.append(a))
    assert found == Beginning(copied, copied / "trajectory.zarr") and found.step == 5
    assert steps == [] and os.stat(copied / "zarr.json").st_mtime_ns == before


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda s: flip(s / "columns/stage/c/0", 40), "is damaged"),
        (lambda s: flip(s / "columns/infected_on/c/0", -3), "is damaged"),
        (lambda s: flip(s / "observed/stage_count/c/0/0/0", 30), "is damaged"),
        (lambda s: (s / "columns/stage/c/0").unlink(), "another checksum"),
        (lambda s: shutil.rmtree(s / "columns/stage"), "is damaged"),
        (lambda s: (s / "columns/stage/zarr.json").write_text("{"), "is damaged"),
        (lambda s: (s / "zarr.json").write_text("{"), "is damaged"),
        (lambda s: (s / "zarr.json").unlink(), "there is no state"),
        (lambda s: zarr.open_group(s).attrs.update({"gnabm": {"kind": "graph"}}), "is no state of schema 1"),
    ],
)
def test_a_spoilt_state_is_refused(copied, spoil, why):
    spoil(copied)
    with pytest.raises(StoreError, match=why):
        check_state(copied, {"config": 1}, 5)


def test_a_spoilt_state_is_made_again_aloud(base, few, alone, copied, caplog):
    flip(copied / "columns/stage/c/0", 40)
    with caplog.at_level(logging.WARNING):
        wanted = {"slower": SLOWER}
        branch(short(base, few), 5, wanted, state=copied, out=copied.parent, basis={"config": 1})
    assert "it is made again" in caplog.text and str(copied) in caplog.text
    check_state(copied, {"config": 1}, 5)
    assert same(copied.parent / "slower", alone)
    assert sorted(p.name for p in copied.parent.iterdir()) == ["5.zarr", "slower"]


def test_every_flipped_byte_of_a_column_is_found(copied):
    for name in ("stage", "infected_on"):
        chunk = copied / "columns" / name / "c" / "0"
        whole = chunk.read_bytes()
        for place in np.random.default_rng(1).integers(0, len(whole), 60):
            flip(chunk, int(place))
            # A byte that the decoder does not read, such as a reserved one, may be another: the values are the same.
            try:
                check_state(copied, {"config": 1}, 5)
            except StoreError:
                pass
            else:
                assert torch.equal(read_state(copied, 0, 400).columns[name], values(whole, copied, name))
            chunk.write_bytes(whole)


def values(whole, state, name):
    (state / "columns" / name / "c" / "0").write_bytes(whole)
    return read_state(state, 0, 400).columns[name]


def test_a_state_of_another_run_or_step_is_named(copied):
    with pytest.raises(StoreError, match="state of another run: its config is 1, not 2"):
        check_state(copied, {"config": 2}, 5)
    with pytest.raises(StoreError, match="its versions is None, not 3"):
        check_state(copied, {"config": 1, "versions": 3}, 5)
    with pytest.raises(StoreError, match="at step 5, not 4"):
        check_state(copied, {"config": 1}, 4)


def test_a_state_is_read_by_rows_as_it_was_written(tmp_path):
    columns = {"stage": np.arange(200_000).astype(np.uint8), "load": np.linspace(0, 1, 200_000), "odd": np.ones(1) > 0}
    observed = {"total": torch.tensor(3, dtype=torch.int64), "by": torch.arange(6, dtype=torch.float64).reshape(2, 3)}
    write_state(tmp_path / "s", columns.items(), observed, 5, {"x": (1, 2.5)})
    check_state(tmp_path / "s", {"x": [1, 2.5]}, 5)
    part = read_state(tmp_path / "s", 65_000, 70_000)
    assert (part.columns["stage"].numpy() == columns["stage"][65_000:135_000]).all()
    assert (part.columns["load"].numpy() == columns["load"][65_000:135_000]).all()
    assert part.columns["load"].dtype == torch.float64 and part.columns["odd"].dtype == torch.bool
    assert all(torch.equal(part.observed[name], value) for name, value in observed.items())


def test_a_trajectory_that_does_not_lead_to_the_state_is_not_used(base, few, alone, tmp_path, caplog):
    run(base, few, steps=8, seed=4, out=tmp_path / "other", **short(base, few).settings)
    earlier = tmp_path / "other" / "trajectory.zarr"
    with caplog.at_level(logging.WARNING):
        wanted = {"slower": SLOWER}
        branch(short(base, few), 5, wanted, state=tmp_path / "5.zarr", out=tmp_path, earlier=earlier)
    assert "does not lead to the state" in caplog.text
    assert same(tmp_path / "slower", alone)


def test_a_trajectory_that_ends_too_early_is_not_used(base, few, alone, tmp_path, caplog):
    run(base, few, steps=4, seed=3, out=tmp_path / "short", **short(base, few).settings)
    earlier = tmp_path / "short" / "trajectory.zarr"
    with caplog.at_level(logging.WARNING):
        wanted = {"slower": SLOWER}
        branch(short(base, few), 5, wanted, state=tmp_path / "5.zarr", out=tmp_path, earlier=earlier)
    assert "has not the 5 steps before" in caplog.text
    assert same(tmp_path / "slower", alone)


def test_a_trajectory_without_what_is_recorded_leaves_no_half_branch(base, few, tmp_path):
    run(base, few, steps=8, seed=3, out=tmp_path / "bare")
    earlier = tmp_path / "bare" / "trajectory.zarr"
    for settings, cure in (({}, "has no .* run it again"), ({"record": ()}, "run it again with record.infections")):
        one = trunk(base, few, **settings)
        with pytest.raises(StoreError, match=cure):
            branch(one, 5, {"slower": ()}, state=tmp_path / "5.zarr", out=tmp_path, earlier=earlier)
        assert not (tmp_path / "slower" / "trajectory.zarr").exists()


def test_ctrl_c_on_the_way_to_the_state_leaves_nothing(base, few, tmp_path):
    def interrupt(step, observed):
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        ensure_state(short(base, few), 5, tmp_path / "5.zarr", {}, on_step=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_an_error_on_the_way_to_the_state_keeps_the_one_that_was_there(base, few, copied):
    def fail(step, observed):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        ensure_state(short(base, few), 5, copied, {"config": 2}, tell=print, on_step=fail)
    check_state(copied, {"config": 1}, 5)
    assert list(copied.parent.iterdir()) == [copied]


def meanwhile(monkeypatch, wanted, source, path):
    """Put a state at the path when a method of a module is called, as another process would."""
    owner, name = wanted
    original, put = getattr(owner, name), []

    def calls(*arguments, **keywords):
        found = original(*arguments, **keywords) if owner is not type(path) else None
        if not put and (found is not None or arguments[1] == path):
            shutil.rmtree(path, ignore_errors=True)
            put.append(shutil.copytree(source, path))
        return original(*arguments, **keywords) if found is None else found

    monkeypatch.setattr(owner, name, calls)
    return put


@pytest.mark.parametrize("when", ["while it is made", "while it is renamed"])
@pytest.mark.parametrize("there", [False, True])
def test_of_two_processes_that_make_a_state_the_first_to_finish_leaves_it(
    base, few, kept, tmp_path, monkeypatch, when, there
):
    path = tmp_path / "5.zarr"
    if there:
        shutil.copytree(kept, path)
        flip(path / "columns/stage/c/0", 40)
    wanted = (sys.modules["cluster.branch"], "run") if when == "while it is made" else (type(path), "rename")
    put = meanwhile(monkeypatch, wanted, kept, path)
    found = ensure_state(short(base, few), 5, path, {"config": 1}, tell=print)
    assert put == [path] and found == Beginning(path, path / "trajectory.zarr")
    check_state(path, {"config": 1}, 5)
    assert list(tmp_path.iterdir()) == [path]
    files = [p for p in kept.rglob("*") if p.is_file()]
    assert all(os.stat(p).st_mtime_ns == os.stat(path / p.relative_to(kept)).st_mtime_ns for p in files)


def test_a_state_of_another_run_that_is_put_there_meanwhile_makes_way(base, few, kept, tmp_path, monkeypatch):
    path = tmp_path / "5.zarr"
    put = meanwhile(monkeypatch, (sys.modules["cluster.branch"], "run"), kept, path)
    ensure_state(short(base, few), 5, path, {"config": 2})
    check_state(path, {"config": 2}, 5)
    assert put == [path] and list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_branched_is_refused_with_the_cure(base, few, copied, tmp_path):
    one = short(base, few)
    with pytest.raises(ConfigError, match=r"within \[0, 8\), got 8"):
        branch(one, 8, {"a": ()}, state=tmp_path / "s", out=tmp_path)
    with pytest.raises(ConfigError, match="scenario 'slower' changes step 5, but branches at step 6; branch earlier"):
        branch(one, 6, {"slower": SLOWER}, state=tmp_path / "s", out=tmp_path)
    with pytest.raises(ConfigError, match="cannot go on from step 5; raise steps"):
        run(base, few, steps=4, seed=3, begin=Beginning(copied))
    (tmp_path / "a" / "trajectory.zarr").mkdir(parents=True)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        branch(one, 5, {"a": ()}, state=copied, out=tmp_path, basis={"config": 1})


def test_no_space_for_the_state_says_so_and_leaves_none(base, few, tmp_path, monkeypatch):
    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules["cluster.run"], "write_state", full)
    with pytest.raises(RunError, match="no space left on the device"):
        ensure_state(short(base, few), 3, tmp_path / "states" / "3.zarr", {})
    assert list((tmp_path / "states").iterdir()) == []
