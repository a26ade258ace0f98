import json
import shutil

import numpy as np
import pytest
import zarr

import graphs
from gnabm.contacts import Mixing, Places
from gnabm.errors import OutputExistsError, StoreError
from graphs.store import block_size, replacing, write_store


def tiny(path, **changes):
    """A store of three agents and one household."""
    layers = {
        "home": {
            "place": np.zeros(3, np.int32),
            "indptr": np.array([0, 3]),
            "member": np.arange(3, dtype=np.int32),
        }
    }
    record = {"name": "home", "kind": "places", "setting": "home", "contacts": None}
    attributes = {"num_agents": 3, "block": 16, "layers": [record], "tables": [], "config": {}}
    write_store(path, {"age": np.array([4, 30, 31], np.uint8)}, layers, attributes)
    if changes:
        root = zarr.open_group(store=str(path), mode="r+")
        root.attrs["gnabm"] = {**root.attrs["gnabm"], **changes}
    return path


@pytest.mark.parametrize(
    ("num_agents", "block"),
    [(1, 16), (1000, 16), (2048, 32), (50_000, 512), (5_174_700, 65_536), (10**9, 65_536)],
)
def test_blocks_are_powers_of_two_within_bounds(num_agents, block):
    assert block_size(num_agents) == block


def test_store_says_what_it_is_and_where_each_table_comes_from(store):
    found = dict(zarr.open_group(store=str(store), mode="r").attrs["gnabm"])
    assert (found["kind"], found["schema"], found["complete"]) == ("graph", 1, True)
    assert found["num_agents"] == 50_000
    assert found["config"] == {"country": "New Zealand", "num_agents": 50_000, "seed": 0}
    names = [layer["name"] for layer in found["layers"]]
    assert names == ["home", "class", "school", "team", "site", "community"]
    settings = [layer["setting"] for layer in found["layers"]]
    assert settings == ["home", "school", "school", "work", "work", "other"]
    for table in found["tables"]:
        assert set(table) == {"name", "source", "year", "licence", "assumed", "note"}
    assumed = {table["name"] for table in found["tables"] if table["assumed"]}
    assert {"enrolment_by_age", "education", "assumptions"} <= assumed
    assert not {"regions", "schools", "early_childhood", "contact_matrices"} & assumed
    json.dumps(found)


def test_opening_a_store_reads_columns_and_members_lazily(population):
    assert population.block == 512
    for column in population.columns.values():
        assert isinstance(column, zarr.Array)
        assert column.chunks == (512,)
    for layer in population.contacts.layers.values():
        if isinstance(layer, Places):
            assert isinstance(layer.member, zarr.Array)
        else:
            assert isinstance(layer, Mixing)
            assert isinstance(layer.group, zarr.Array)
    assert population.categories("region")[1] == "Auckland"
    assert population.categories("age_group")[-1] == "80+"


def test_a_written_population_comes_back(tmp_path):
    population = graphs.open_graph(tiny(tmp_path / "g"))
    assert population.columns["age"][:].tolist() == [4, 30, 31]
    assert graphs.summarise(tmp_path / "g")["household_size"] == {"3": 1}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schema": 2}, "schema 2, this gnabm reads schema 1; rebuild it"),
        ({"complete": False}, "incomplete.*build it again"),
        ({"kind": "trajectory"}, "kind 'trajectory', expected 'graph'"),
    ],
)
def test_a_store_of_another_kind_is_refused(tmp_path, changes, says):
    with pytest.raises(StoreError, match=says):
        graphs.open_graph(tiny(tmp_path / "g", **changes))


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match="does not exist; build it"):
        graphs.open_graph(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="no Zarr group"):
        graphs.open_graph(tmp_path / "folder")
    zarr.create_group(store=str(tmp_path / "group"))
    with pytest.raises(StoreError, match="no graph store"):
        graphs.open_graph(tmp_path / "group")


def test_a_store_without_its_arrays_is_refused(tmp_path):
    shutil.rmtree(tiny(tmp_path / "g") / "layers" / "home" / "member")
    with pytest.raises(StoreError, match=r"layer 'home' lacks 'member'.*rebuild"):
        graphs.open_graph(tmp_path / "g")
    shutil.rmtree(tmp_path / "g" / "layers" / "home")
    with pytest.raises(StoreError, match="layer 'home' is missing"):
        graphs.open_graph(tmp_path / "g")


def test_an_interrupted_write_leaves_nothing(tmp_path):
    class StopError(Exception):
        pass

    with pytest.raises(StopError), replacing(tmp_path / "g") as temporary:
        zarr.create_group(store=str(temporary))
        raise StopError
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_not_written_over_another(tmp_path):
    tiny(tmp_path / "g")
    with pytest.raises(OutputExistsError):
        tiny(tmp_path / "g")
