"""Large regions cut into districts: the same country, made of smaller pieces."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphs
from graphs import districts
from graphs.building import peak_memory
from graphs.country import make_plan, people_task, workers_task
from graphs.districts import count_districts, district_flows, entities, shared_out
from graphs.fidelity import compare
from graphs.meetings import column
from graphs.sources import load_country
from tests.graphs.test_building import contents

NZ = load_country("New Zealand")
CONFIG = {"country": "New Zealand", "num_agents": 200_000, "seed": 2}
LIMIT = 6_000


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """A store, and its plan, with regions cut into districts of at most LIMIT people."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(districts, "MOST_PEOPLE", LIMIT)
        path = graphs.build(CONFIG, tmp_path_factory.mktemp("cut") / "g", num_workers=2)
        return path, make_plan("New Zealand", CONFIG["num_agents"], CONFIG["seed"])


@pytest.fixture(scope="module")
def figures(cut):
    return graphs.summarise(cut[0])


def test_no_region_of_new_zealand_is_cut():
    assert count_districts(NZ.residents.astype(np.int64)).tolist() == [1] * 16
    assert make_plan("New Zealand", 5_174_700, 0).entity.tolist() == list(range(16))
    assert count_districts(np.array([1, 2_000_000, 2_000_001])).tolist() == [1, 1, 2]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_every_district_draws_for_itself_and_the_first_one_as_its_region(number):
    made = entities(np.array(number))
    assert len(np.unique(made)) == len(made) == sum(number)
    first = np.cumsum(number) - number
    assert made[first].tolist() == list(range(len(number)))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 2**32))
def test_what_is_shared_out_adds_up(number, seed):
    table = np.random.default_rng(seed).uniform(0, 9, (len(number), 2))
    made = shared_out(table, np.array(number))
    np.testing.assert_allclose(np.add.reduceat(made, np.cumsum(number) - number), table)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 2**32))
def test_flows_between_districts_are_those_of_their_regions_and_sparse(number, seed):
    flows = np.random.default_rng(seed).integers(0, 1000, (len(number), len(number)))
    made = district_flows(flows, np.array(number))
    first = np.cumsum(number) - number
    np.testing.assert_array_equal(np.add.reduceat(np.add.reduceat(made, first), first, axis=1), flows)
    assert (made >= 0).all()
    assert (made > 0).sum() <= 2 * len(number) * sum(number)
    np.testing.assert_array_equal(district_flows(flows, np.ones_like(number)), flows)


def test_districts_are_alike_and_hold_everybody(cut):
    _, plan = cut
    assert len(plan.people) > 40
    assert plan.people.sum() == CONFIG["num_agents"]
    assert plan.people.max() <= LIMIT * 1.05
    for region in range(16):
        assert np.ptp(plan.people[plan.region == region]) <= 60
        assert np.ptp(plan.employees[plan.region == region], axis=0).max(initial=0) <= 1
    np.testing.assert_array_equal(plan.bands_before[-1] + plan.homes[-1] @ plan.compositions, np.bincount(
        np.minimum(np.arange(101) // 10, 7), plan.ages
    ))  # fmt: skip


def test_rows_ages_and_places_of_a_cut_country_are_whole(cut):
    path, plan = cut
    population = graphs.open_graph(path)
    np.testing.assert_array_equal(np.bincount(column(population.columns["age"]), minlength=101), plan.ages)
    np.testing.assert_array_equal(column(population.columns["region"]), np.repeat(plan.region, plan.people))
    for name in ("home", "class", "school", "team", "site"):
        layer = population.contacts[name]
        place, indptr, member = (column(each) for each in (layer.place, layer.indptr, layer.member))
        assert (np.diff(indptr) > 0).all()
        np.testing.assert_array_equal(place[member], np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)))
        assert len(member) == (place >= 0).sum()
    assert (column(population.contacts["home"].place) >= 0).all()


def test_homes_lie_within_districts_and_so_do_areas(cut):
    path, plan = cut
    population = graphs.open_graph(path)
    for values in (population.contacts["home"].place, population.columns["area"]):
        values = column(values)
        assert (values[plan.row_start[1:]] == values[plan.row_start[1:] - 1] + 1).all()


@pytest.mark.parametrize("district", [0, 7, 30])
def test_as_many_leave_a_district_for_each_other_as_are_planned(cut, district):
    _, plan = cut
    workers = workers_task(plan, district, people_task(plan, district))
    assert [len(part) for part in workers] == plan.flows[district].tolist()
    assert len(workers[district]) == plan.flows[district].max()
    near = plan.region == plan.region[district]
    assert plan.flows[district][near].sum() == len(workers[district])  # the own region is the own district


def test_a_cut_country_meets_the_tables(cut, figures):
    missed = {name: record["error"] for name, record in compare(cut[0], figures).items() if record["within"] is False}
    assert missed == {}
    flow = np.array(figures["commuters"])
    assert np.abs(flow / flow.sum(axis=1, keepdims=True) - NZ.commute).max() < 0.002


def test_one_worker_builds_the_same_districts(tmp_path, monkeypatch, cut):
    monkeypatch.setattr(districts, "MOST_PEOPLE", LIMIT)
    assert contents(graphs.build(CONFIG, tmp_path / "g", scheduler="synchronous")) == contents(cut[0])


PEAK = """
import sys, graphs  # ru_maxrss would begin with the memory of the process that starts this one
from pathlib import Path
from graphs import districts
if __name__ == "__main__":
    districts.MOST_PEOPLE = 50_000
    graphs.build({"country": "New Zealand", "num_agents": int(sys.argv[1])}, sys.argv[2], num_workers=2)
    print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


@pytest.mark.slow
def test_memory_of_a_build_is_as_estimated_and_grows_by_few_bytes_per_agent(tmp_path, monkeypatch):
    monkeypatch.setattr(districts, "MOST_PEOPLE", 50_000)
    peak = []
    for number in (400_000, 4_000_000):
        run = [sys.executable, "-c", PEAK, str(number), str(tmp_path / str(number))]
        peak.append(1024 * int(subprocess.run(run, check=True, capture_output=True, text=True).stdout.split()[-1]))
        assert peak[-1] <= peak_memory(number, 2)
    assert all(more - less < 16 * 3_600_000 + 50e6 for less, more in pairwise(peak))
