"""A trajectory is a dataset with names, units and dates, in memory and on disk."""

from datetime import date
from functools import partial

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from cluster import run_local
from gnabm import Contacts, Field, Model, Observable, Population, State, open_trajectory, simulate
from gnabm.errors import OutputExistsError, StoreError
from gnabm.models.epidemic import seir, sir
from gnabm.testing import awkward_population
from gnabm.trajectory import Trajectory, TrajectoryStore

POPULATION = awkward_population(300)
RING = Contacts.from_edges(range(8), [(k + 1) % 8 for k in range(8)], num_agents=8, undirected=True)


def test_a_bare_graph_has_time_and_stage_only():
    data = simulate(sir(0.5, 0.1, [0]), RING, steps=5, seed=1).to_xarray()
    assert dict(data.sizes) == {"time": 5, "stage": 3}
    assert data.incidence.dims == ("time",) and data.stage_count.dims == ("time", "stage")
    assert list(data.stage.values) == ["susceptible", "infectious", "recovered"]
    assert (data.stage_count.sum("stage") == 8).all()


@pytest.mark.parametrize("labels", [("region",), ("age_group",), ("region", "age_group")])
def test_labels_that_the_population_has_become_dims(labels):
    columns = {name: POPULATION.columns[name] for name in labels}
    fields = {name: POPULATION.fields[name] for name in labels}
    population = Population(300, columns, POPULATION.contacts, fields)
    data = simulate(sir(0.05, 0.1, 0.1), population, steps=4, seed=1).to_xarray()
    assert data.incidence.dims == ("time", *labels)
    assert data.stage_count.dims == ("time", "stage", *labels)
    assert {d: len(data[d]) for d in labels} == {d: len(fields[d].categories) for d in labels}
    assert (data.stage_count.sum(("stage", *labels)) == 300).all()
    for name in labels:  # whoever is in a group stays in it
        others = [d for d in labels if d != name]
        counts = data.stage_count.sum(["stage", *others]).isel(time=-1).values
        assert (counts == np.bincount(columns[name], minlength=counts.size)).all()


def test_incidence_excludes_the_initially_infected():
    data = simulate(sir(0.05, 0.1, 0.1), POPULATION, steps=10, seed=1).to_xarray().sum(("region", "age_group"))
    susceptible = data.stage_count.sel(stage="susceptible").values
    assert susceptible[0] + data.incidence.values[0] < 300
    assert (data.incidence.values[1:] == -np.diff(susceptible)).all()


@pytest.mark.parametrize("dt", [1.0, 0.5, 7.0])
def test_time_decodes_to_dates(tmp_path, dt):
    run = simulate(sir(0.5, 0.1, [0]), RING, steps=40, seed=1, start=date(2022, 1, 20), dt=dt)
    expected = pd.date_range("2022-01-20", periods=40, freq=pd.Timedelta(days=dt))
    assert (run.to_xarray().time.values == expected.values).all()
    stored = open_trajectory(run.save(tmp_path / "t.zarr"))
    assert (stored.time.values == expected.values).all()


def test_without_a_calendar_time_is_the_step(tmp_path):
    run = simulate(sir(0.5, 0.1, [0]), RING, steps=4, seed=1, dt=0.5)
    assert run.to_xarray().time.values.tolist() == [0, 1, 2, 3]
    assert open_trajectory(run.save(tmp_path / "t.zarr")).time.values.tolist() == [0, 1, 2, 3]


def test_saved_and_opened_it_is_the_same(tmp_path):
    run = simulate(
        seir(0.1, 0.5, 0.2, 0.1), POPULATION, steps=37, seed=1, start=date(2022, 1, 20), record=["stage", "infected_on"]
    )
    path = run.save(tmp_path / "run" / "trajectory.zarr")
    for opened in (open_trajectory(path), open_trajectory(tmp_path / "run")):
        xr.testing.assert_equal(opened.load().drop_attrs(), run.to_xarray().drop_attrs())
        assert opened.attrs["status"] == "complete"
        assert opened.incidence.attrs == {"units": "agents", "long_name": run.to_xarray().incidence.attrs["long_name"]}
        assert opened.stage.attrs["flag_meanings"] == "susceptible exposed infectious recovered"
        assert (opened.agent.values == POPULATION.columns["key"]).all()
        assert opened.stage.dims == ("time", "agent") and next(iter(opened.stage_name.values)) == "susceptible"
    plain = xr.open_zarr(path, consolidated=False)  # no gnabm needed to read it
    assert int(plain.stage_count.sum()) == 37 * 300


@pytest.mark.parametrize("record", [[], ["stage"]])
def test_a_run_of_no_steps_is_saved_and_opened(tmp_path, record):
    run = simulate(sir(0.5, 0.1, [0]), RING, steps=0, seed=1, start=date(2022, 1, 20), record=record)
    opened = open_trajectory(run.save(tmp_path / "t.zarr"))
    assert opened.stage_count.shape == run.to_xarray().stage_count.shape == (0, 3)


def test_nothing_is_overwritten_unless_asked(tmp_path):
    run = simulate(sir(0.5, 0.1, [0]), RING, steps=2, seed=1)
    path = run.save(tmp_path / "t.zarr")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        run.save(path)
    simulate(sir(0.5, 0.1, [0]), RING, steps=3, seed=1).save(path, overwrite=True)
    assert open_trajectory(path).sizes["time"] == 3


def test_an_unfinished_store_says_so_and_holds_the_steps_that_are_done(tmp_path):
    run = simulate(sir(0.5, 0.1, [0]), RING, steps=6, seed=1, record=["stage"])
    store = TrajectoryStore.create(tmp_path / "t.zarr", run.schema, keys=None, attributes={"seed": 1})
    store.grow(4)
    store.write_field("stage", 0, 0, run.fields["stage"][:4])
    store.append({n: v[:4] for n, v in run.observed.items()})
    store.grow(6)
    store.write_field("stage", 4, 0, run.fields["stage"][4:])  # killed here, the owners were ahead of the time axis
    half = open_trajectory(tmp_path / "t.zarr")
    assert half.attrs["status"] == "running" and half.attrs["seed"] == 1
    assert half.incidence.values.tolist() == run.observed["incidence"][:4].tolist()
    assert half.sizes["time"] == 4
    store.append({n: v[4:] for n, v in run.observed.items()})
    store.finish("complete")
    xr.testing.assert_equal(open_trajectory(tmp_path / "t.zarr").load().drop_attrs(), run.to_xarray().drop_attrs())


@pytest.mark.parametrize("unit", ["agents", "litres"])
def test_the_type_on_disk_is_that_of_the_value_whatever_its_unit(tmp_path, unit):
    observe = [
        Observable("third", lambda before, after: after.key * 0.3, unit=unit),
        Observable("old", lambda before, after: after.key > 3, unit=unit),
        Observable("sum", lambda before, after: after.key, unit=unit),
    ]
    run = simulate(Model([], state={"x": State(0.0)}, observe=observe), RING, steps=2, seed=1)
    opened = open_trajectory(run.save(tmp_path / "t.zarr"))
    assert {n: str(opened[n].dtype) for n in ("third", "old", "sum")} == {
        "third": "float64", "old": "int64", "sum": "int64",
    }  # fmt: skip
    xr.testing.assert_equal(opened.load().drop_attrs(), run.to_xarray().drop_attrs())
    assert opened.third.values == pytest.approx([8.4, 8.4], abs=1e-5)
    assert opened.old.values.tolist() == [4, 4] and opened["sum"].values.tolist() == [28, 28]


def record_only(record):
    return Model([], state={"x": State(2.0)}, observe=()), {"steps": 3, "seed": 1, "record": record}


@pytest.mark.parametrize("start", [None, date(2022, 1, 20)])
@pytest.mark.parametrize("record", [[], ["x"]])
@pytest.mark.parametrize("run", [simulate, partial(run_local, shards=2, bounds=(0, 4, 8))], ids=["simulate", "local"])
def test_a_run_without_observables_keeps_its_steps(tmp_path, run, record, start):
    model, options = record_only(record)
    trajectory = run(model, RING, start=start, **options)
    data = trajectory.to_xarray()
    assert data.sizes["time"] == 3
    opened = open_trajectory(trajectory.save(tmp_path / "t.zarr"))
    xr.testing.assert_equal(opened.load().drop_attrs(), data.drop_attrs())
    for name in record:
        assert opened[name].shape == (3, 8) and (opened[name] == 2).all()


def test_fields_tell_the_number_of_steps():
    model, options = record_only(["x"])
    run = simulate(model, RING, **options)
    assert Trajectory(run.schema, {}, run.fields, run.agents).to_xarray().sizes["time"] == 3


@pytest.mark.parametrize("told", [True, False])
def test_a_store_without_observables_appends_the_steps_that_it_is_told_or_made_room_for(tmp_path, told):
    model, options = record_only(["x"])
    run = simulate(model, RING, **options)
    store = TrajectoryStore.create(tmp_path / "t.zarr", run.schema, keys=None, attributes={})
    store.grow(2)
    store.append({}, *([2] if told else []))
    assert open_trajectory(tmp_path / "t.zarr").sizes["time"] == 2
    store.grow(3)
    store.append({}, *([1] if told else []))
    store.finish("complete")
    assert open_trajectory(tmp_path / "t.zarr").time.values.tolist() == [0, 1, 2]


def test_what_is_no_trajectory_is_refused(tmp_path):
    with pytest.raises(StoreError, match="holds no trajectory"):
        open_trajectory(tmp_path)
    xr.Dataset({"a": ("x", [1])}).to_zarr(tmp_path / "other", consolidated=False)
    with pytest.raises(StoreError, match="foreign store"):
        open_trajectory(tmp_path / "other")


def test_a_column_with_codes_outside_its_categories_is_refused():
    columns = {"region": np.full(8, 2, dtype=np.uint8)}
    population = Population(8, columns, RING, {"region": Field("region", categories=("n", "s"))})
    with pytest.raises(ValueError, match="'region' has codes outside its 2 categories"):
        simulate(sir(0.1, 0.1, [0]), population, steps=1, seed=1)


def test_a_store_reads_given_keys_in_pieces_and_writes_every_block(tmp_path, monkeypatch):
    monkeypatch.setattr("gnabm.trajectory._ROWS_PER_PIECE", 3)
    run = simulate(sir(0.5, 0.1, [0]), RING, steps=2, seed=1, record=["stage"])
    keys = np.arange(8)[::-1] * 5
    store = TrajectoryStore.create(tmp_path / "t.zarr", run.schema, keys=keys, attributes={})
    store.grow(2)
    store.write_field("stage", 0, 0, np.zeros((2, 8), dtype=np.uint8))
    store.append({n: v.detach() for n, v in run.observed.items()}, 2)
    assert (open_trajectory(tmp_path / "t.zarr").agent.values == keys).all()
    assert any((tmp_path / "t.zarr" / "stage" / "c").rglob("*"))  # a block of zeros is data too
