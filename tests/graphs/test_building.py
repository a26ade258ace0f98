"""A country's graph: conserved people, one content whatever runs it, refused inputs."""

import errno
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import graphs
from gnabm.cli import populations
from gnabm.cli.populations import build_population
from gnabm.contacts import Places
from gnabm.errors import CapacityError, ConfigError, OutputExistsError, RunError, StoreError
from graphs import building, districts
from graphs.country import make_plan, people_task, schools_task, sites_task, workers_task

SMALL = {"country": "New Zealand", "num_agents": 20_000, "seed": 3}
PLACES = ("home", "class", "school", "team", "site")


def contents(path):
    """Bytes of every array of a store, by its name."""
    root = zarr.open_group(store=str(path), mode="r")
    arrays = {name: item for name, item in root.members(max_depth=None) if isinstance(item, zarr.Array)}
    return {name: (str(a.dtype), a.shape, np.asarray(a[...]).tobytes()) for name, a in arrays.items()}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return contents(graphs.build(SMALL, tmp_path_factory.mktemp("one") / "g", scheduler="synchronous", num_workers=1))


@pytest.mark.parametrize("num_workers", [2, 5])
def test_threads_build_the_same_bytes(tmp_path, reference, num_workers):
    assert contents(graphs.build(SMALL, tmp_path / "g", num_workers=num_workers)) == reference


@pytest.mark.parametrize("scheduler", ["processes", "distributed"])
def test_other_schedulers_build_the_same_bytes(tmp_path, reference, scheduler):
    assert contents(graphs.build(SMALL, tmp_path / "g", scheduler=scheduler, num_workers=2)) == reference


def test_another_seed_moves_people_but_keeps_the_totals(tmp_path, reference):
    made = contents(graphs.build(SMALL | {"seed": 4}, tmp_path / "g"))
    assert made["agents/age"] != reference["agents/age"]
    ages = [np.sort(np.frombuffer(each["agents/age"][2], np.uint8)) for each in (made, reference)]
    np.testing.assert_array_equal(*ages)
    assert made["agents/region"] == reference["agents/region"]


@pytest.mark.parametrize("name", PLACES)
def test_places_and_their_members_say_the_same(population, name):
    layer = population.contacts[name]
    assert isinstance(layer, Places)
    place, indptr, member = (np.asarray(a[:]) for a in (layer.place, layer.indptr, layer.member))
    assert place.dtype == np.int32
    assert indptr[0] == 0
    assert indptr[-1] == len(member) == (place >= 0).sum()
    assert (np.diff(indptr) > 0).all()
    np.testing.assert_array_equal(place[member], np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)))
    same = np.diff(place[member]) == 0
    assert (np.diff(member)[same] > 0).all()


def test_everybody_lives_in_one_household_of_neighbouring_rows(population):
    place = np.asarray(population.contacts["home"].place[:])
    assert set(np.diff(place).tolist()) <= {0, 1}
    assert place[0] == 0


def test_household_members_share_area_and_region(population):
    first = np.asarray(population.contacts["home"].indptr[:])[:-1]
    size = np.diff(np.asarray(population.contacts["home"].indptr[:]))
    for name in ("area", "region"):
        column = np.asarray(population.columns[name][:])
        np.testing.assert_array_equal(column, np.repeat(column[first], size))


def test_no_child_below_ten_lives_without_an_adult(population):
    age = np.asarray(population.columns["age"][:])
    indptr = np.asarray(population.contacts["home"].indptr[:])
    oldest = np.maximum.reduceat(age, indptr[:-1])
    youngest = np.minimum.reduceat(age, indptr[:-1])
    assert (oldest[youngest < 10] >= 20).all()


def test_classes_lie_within_schools_and_teams_within_sites(population):
    for inner, outer in (("class", "school"), ("team", "site")):
        within = np.asarray(population.contacts[inner].place[:])
        around = np.asarray(population.contacts[outer].place[:])
        assert (around[within >= 0] >= 0).all()
        pairs = np.unique(np.stack([within, around])[:, within >= 0], axis=1)
        assert pairs.shape[1] == population.contacts[inner].num_places


def test_workers_are_of_working_age(population):
    age = np.asarray(population.columns["age"][:])
    assert age[np.asarray(population.contacts["site"].member[:])].min() >= 12


def test_areas_are_runs_of_rows_within_regions(population):
    mixing = population.contacts["community"]
    area = np.asarray(population.columns["area"][:])
    region = np.asarray(population.columns["region"][:])
    np.testing.assert_array_equal(area, np.repeat(np.arange(len(mixing.area_region)), np.diff(mixing.area_start)))
    np.testing.assert_array_equal(mixing.area_region[area], region)
    assert (np.diff(mixing.area_region) >= 0).all()
    groups = np.asarray(mixing.group[:])
    counts = np.bincount(area.astype(np.int64) * 16 + groups, minlength=mixing.counts.size)
    np.testing.assert_array_equal(counts.reshape(-1, 16), mixing.counts)


@settings(max_examples=8)
@given(st.integers(1000, 8000), st.integers(0, 2**40))
def test_any_number_of_agents_fills_every_seat(num_agents, seed):
    plan = make_plan("New Zealand", num_agents, seed)
    regions = range(16)
    people = [people_task(plan, r) for r in regions]
    assert sum(len(part.age) for part in people) == num_agents
    np.testing.assert_array_equal(np.bincount(np.concatenate([p.age for p in people]), minlength=101), plan.ages)
    workers = [workers_task(plan, r, people[r]) for r in regions]
    sites = [sites_task(plan, r, [workers[home][r] for home in regions]) for r in regions]
    seated = np.concatenate([site.rows for site in sites])
    assert len(np.unique(seated)) == len(seated) == sum(len(rows) for part in workers for rows in part)
    assert sorted(region for zone in plan.zones for region in zone) == list(regions)
    for number, zone in enumerate(plan.zones):
        pupils = schools_task(plan, number, [people[r] for r in zone])
        np.testing.assert_array_equal(pupils.schools.place >= 0, pupils.classes.place >= 0)
        assert len(pupils.sector) == len(pupils.schools.indptr) - 1
        assert (np.diff(pupils.schools.indptr) > 0).all()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"country": "Atlantis"}, "New Zealand"),
        ({"country": None}, "New Zealand"),
        ({}, "population.country is missing"),
        ({"country": "New Zealand", "num_agent": 5000}, "did you mean 'num_agents'"),
        ({"country": "New Zealand", "num_agents": 0}, "must be 1 or more, got 0"),
        ({"country": "New Zealand", "num_agents": -4}, "must be 1 or more, got -4"),
        ({"country": "New Zealand", "num_agents": 999}, "must be 1000 to"),
        ({"country": "New Zealand", "num_agents": 2.5e4}, "whole number"),
        ({"country": "New Zealand", "num_agents": True}, "whole number"),
        ({"country": "New Zealand", "num_agents": 5000, "seed": "x"}, "whole number"),
        ({"country": "New Zealand", "num_agents": 5000, "seed": -1}, "must be 0 or more"),
    ],
)
def test_bad_configs_are_refused_and_leave_nothing_behind(tmp_path, config, says):
    with pytest.raises(ConfigError, match=says):
        graphs.build(config, tmp_path / "g")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "says"), [({"scheduler": "thread"}, "did you mean 'threads'"), ({"num_workers": 0}, "1 or more")]
)
def test_unknown_schedulers_and_no_workers_are_refused(tmp_path, options, says):
    with pytest.raises(ConfigError, match=says):
        graphs.build(SMALL, tmp_path / "g", **options)


def test_an_existing_folder_is_not_written_over(tmp_path):
    with pytest.raises(OutputExistsError, match="exists already"):
        graphs.build(SMALL, tmp_path)


def test_a_store_is_built_once_per_content(tmp_path, monkeypatch):
    config = {"country": "new_zealand", "num_agents": 1000}
    first = graphs.ensure(config, tmp_path)
    made = []
    monkeypatch.setattr(building, "make_plan", lambda *args: made.append(args))
    assert graphs.ensure({"country": "New Zealand", "num_agents": 1000, "seed": 0}, tmp_path) == first
    assert made == []
    assert building.content_hash(config) != building.content_hash(config | {"seed": 1})
    assert building.content_hash(config) != building.content_hash(config | {"num_agents": 1001})


def test_two_that_build_the_same_store_at_once_get_one(tmp_path):
    config = {"country": "New Zealand", "num_agents": 1000, "seed": 9}
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: graphs.ensure(config, tmp_path), range(2)))
    assert paths[0] == paths[1]
    assert [p.name for p in tmp_path.iterdir()] == [paths[0].name]


def test_a_build_that_fails_halfway_says_why_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(building.Assembly, "take_workplaces", full)
    with pytest.raises(OSError, match="No space left"):
        graphs.build(SMALL, tmp_path / "g")
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys, graphs
from graphs.assemble import Assembly
if __name__ == "__main__":
    Assembly.finish = lambda self: os.kill(os.getpid(), signal.SIGKILL)
    graphs.ensure({"country": "New Zealand", "num_agents": 1000}, sys.argv[1])
"""


def test_what_a_killed_build_left_is_never_taken_for_a_store(tmp_path):
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False).returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".")
    with pytest.raises(StoreError, match="did not finish"):
        graphs.open_graph(left)
    assert graphs.ensure({"country": "New Zealand", "num_agents": 1000}, tmp_path) != left


def test_a_build_over_a_file_limit_says_where_and_what_moves_it(store, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    small = ["population.num_agents=20000"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))  # `store` has been built, so kernels are compiled
    try:
        with pytest.raises(RunError, match=r"no space left on the device of .*nz\.zarr.* another device with --out"):
            build_population("sir_small", small, tmp_path / "nz.zarr", overwrite=False, strict=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_build_names_what_killed_builds_of_its_store_left(tmp_path, capsys):
    left = [tmp_path / name for name in (".nz.zarr.0123.partial", "..nz.zarr.new.4567.partial")]
    for folder in (*left, tmp_path / ".other.zarr.89ab.partial"):
        folder.mkdir()
    small = ["population.num_agents=1000"]
    build_population("sir_small", small, tmp_path / "nz.zarr", overwrite=False, strict=False)
    said = capsys.readouterr().out
    assert all(f"unfinished: {folder};" in said for folder in left)
    assert "other.zarr" not in said


def test_stores_of_cut_regions_have_names_of_their_own(monkeypatch):
    whole = building.content_hash(SMALL)
    monkeypatch.setattr(districts, "MOST_PEOPLE", 20_000)
    assert building.content_hash(SMALL) == whole
    monkeypatch.setattr(districts, "MOST_PEOPLE", 3000)
    cut = building.content_hash(SMALL)
    monkeypatch.setattr(districts, "MOST_PEOPLE", 2999)
    assert len({whole, cut, building.content_hash(SMALL)}) == 3


def test_the_memory_of_a_build_is_bounded_by_the_districts_in_flight():
    assert building.peak_memory(20_000) < 2**30
    assert building.peak_memory(330_000_000, 2) < 3 * 2**30
    assert building.peak_memory(67_000_000, 2) < building.peak_memory(67_000_000, 4)


@pytest.mark.parametrize("scheduler", ["processes", "distributed"])
def test_workers_that_are_processes_need_memory_of_their_own(scheduler):
    each = [building.peak_memory(20_000, workers, scheduler) for workers in (1, 2, 3)]
    assert each[0] - building.peak_memory(20_000, 1) > 400 << 20
    assert np.diff(each).tolist() == [500 << 20] * 2


@pytest.mark.parametrize(
    ("free", "cure"),
    [(2.5, r"lower population\.num_workers \(one needs about"), (0.5, r"lower population\.num_agents$")],
)
def test_too_little_memory_names_the_key_that_helps(tmp_path, monkeypatch, free, cure):
    monkeypatch.setattr(populations, "available_memory", lambda: int(free * 2**30))
    large = ["population.num_agents=67000000", "population.num_workers=8"]
    with pytest.raises(CapacityError, match=cure):
        build_population("sir_small", large, tmp_path / "g", overwrite=False, strict=False)
