"""A line list on disk comes back as it was, whole steps only, for xarray, pandas and gnabm."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

from gnabm import Contacts, Mixing, open_trajectory, simulate
from gnabm.errors import StoreError
from gnabm.infections import open_infections, steps_done
from gnabm.linelist import Legend, LineListStore, write_parquet
from gnabm.models.epidemic import sir


@pytest.fixture(scope="module")
def trajectory():
    """Ninety agents in one pool, a line list of which all but the first come after step 0."""
    population = Contacts({"pool": Mixing.uniform(90, 4.0)}, 90)
    start = np.datetime64("2022-01-20").item()
    return simulate(sir(0.1, 0.2, 0.05), population, steps=40, seed=3, start=start, infections=True)


@pytest.fixture
def stored(trajectory, tmp_path):
    return trajectory.save(tmp_path / "trajectory.zarr")


def test_a_line_list_comes_back_from_disk(trajectory, stored, tmp_path):
    assert len(trajectory.infections) > 40
    pd.testing.assert_frame_equal(open_infections(stored), trajectory.infections)
    pd.testing.assert_frame_equal(open_infections(tmp_path), trajectory.infections)


def test_xarray_opens_the_list_and_the_trajectory_around_it(trajectory, stored):
    dataset = xr.open_zarr(stored, group="infections")
    records = trajectory.infections
    assert dict(dataset.sizes) == {"infection": len(records)}
    for name in ("agent", "step", "infector", "date"):
        assert (dataset[name].values == records[name].to_numpy()).all()
    assert np.take(dataset.layer.names, dataset.layer.values).tolist() == records.layer.tolist()
    assert set(open_trajectory(stored).dims) == {"time", "stage"}


def test_parquet_holds_the_same_list_with_dictionaries_and_dates(trajectory, stored, tmp_path):
    write_parquet(stored, 40, tmp_path / "infections.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "infections.parquet"), trajectory.infections)
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_records_of_steps_that_are_not_done_are_left_out(trajectory, stored):
    zarr.open_group(str(stored), use_consolidated=False)["time"].resize((10,))
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        zarr.consolidate_metadata(str(stored))
    assert steps_done(stored) == 10
    records = open_infections(stored)
    pd.testing.assert_frame_equal(records, trajectory.infections[trajectory.infections.step < 10])


def test_a_list_that_was_being_lengthened_is_as_long_as_its_shortest_column(trajectory, stored):
    agents = zarr.open_array(str(stored / "infections" / "agent"))
    agents.resize((agents.shape[0] + 1000,))
    pd.testing.assert_frame_equal(open_infections(stored), trajectory.infections)
    assert xr.open_zarr(stored, group="infections").sizes["infection"] == len(trajectory.infections)


def test_batches_are_appended_across_chunks(stored, trajectory, monkeypatch):
    monkeypatch.setattr("gnabm.linelist.ROWS_PER_CHUNK", 7)
    pd.testing.assert_frame_equal(open_infections(stored), trajectory.infections)
    store = LineListStore(stored)
    batch = {"agent": [99], "step": [39], "infector": [3], "layer": [0]}
    before = len(trajectory.infections)
    legend = Legend(("pool", "SeedAtRandom", "Infect", "Late"), None, 1.0, np.datetime64("2022-01-20").item())
    store.append({n: np.array(v) for n, v in batch.items()}, legend)
    records = open_infections(stored)
    assert records.agent.tolist()[before:] == [99]
    assert list(records.layer.cat.categories) == list(legend.layers)
    assert records.date.iloc[-1] == pd.Timestamp("2022-02-28")


def test_runs_without_a_list_say_so(tmp_path):
    simulate(sir(0.1, 0.2), Contacts({"pool": Mixing.uniform(9, 1.0)}, 9), steps=1, seed=1).save(tmp_path / "t.zarr")
    assert open_infections(tmp_path / "t.zarr") is None
    with pytest.raises(StoreError, match="gnabm run"):
        open_infections(tmp_path)
