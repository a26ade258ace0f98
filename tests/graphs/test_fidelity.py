"""New Zealand at 50,000 agents against the tables that it was built from."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

import graphs
from gnabm import Contacts
from gnabm.cli import app
from gnabm.contacts import Edges, Places
from gnabm.errors import UnknownFieldError
from gnabm.population import Population
from graphs.fidelity import compare, summarise
from graphs.mixing import reciprocal
from graphs.published import beside_tables
from graphs.rounding import largest_remainder
from graphs.sources import load_country
from graphs.store import extra_array

NZ = load_country("New Zealand")


def total_variation(counts, expected):
    a, b = np.asarray(counts, float), np.asarray(expected, float)
    return np.abs(a / a.sum() - b / b.sum()).sum() / 2


def test_table_of_regions_sums_to_the_published_population():
    assert len(NZ.regions) == 16
    assert NZ.residents.sum() == 5_174_700


def test_regions_are_the_largest_remainder_of_the_estimates(summary):
    assert list(summary["agents_by_region"].values()) == largest_remainder(NZ.residents, 50_000).tolist()
    assert list(summary["agents_by_region"]) == list(NZ.regions)


def test_ages_meet_world_population_prospects(summary):
    assert len(summary["age_5yr"]) == 21
    assert total_variation(summary["age_5yr"], NZ.age_5yr) <= 0.005


def test_household_sizes_meet_the_census(summary):
    sizes = [summary["household_size"].get(str(n), 0) for n in range(1, len(NZ.household_size) + 1)]
    assert total_variation(sizes, NZ.household_size) <= 0.01
    assert 50_000 / sum(sizes) == pytest.approx(2.65, abs=0.02)


def test_comembers_meet_the_census(summary):
    made = np.array(summary["household_comembers_10yr"])
    assert np.abs(made - NZ.comembers).max() <= 0.08


def test_parents_live_with_their_children(summary):
    made = np.array(summary["household_comembers_10yr"])
    for child, parent in ((0, 3), (1, 4)):
        assert made[child, parent] == pytest.approx(NZ.comembers[child, parent], rel=0.1)
        assert made[parent, child] == pytest.approx(NZ.comembers[parent, child], rel=0.1)


def test_employees_by_enterprise_class_meet_business_demography(summary):
    scale = 50_000 / NZ.residents.sum()
    made = list(summary["employees_by_enterprise_size"].values())
    np.testing.assert_allclose(made, NZ.employees.sum(axis=0) * scale, rtol=0.002)
    mean = NZ.employees.sum(axis=0) / NZ.units.sum(axis=0)
    np.testing.assert_allclose(list(summary["mean_site_size"].values()), mean, rtol=0.03)


def test_school_and_work_carry_the_published_contacts_and_few_more(summary, population):
    people = np.bincount(np.minimum(np.array(population.columns["age"][:]) // 5, 15), minlength=16)
    each = summary["contacts_per_agent"]
    work = (NZ.contacts["work"].sum(axis=1) * people).sum() / 50_000
    school = (NZ.contacts["school"].sum(axis=1) * people).sum() / 50_000
    # Ages that the source hardly describes are as active as their neighbours, and add to what it has.
    assert 1.0 <= (each["team"] + each["site"]) / work <= 1.04
    assert 1.0 <= (each["class"] + each["school"]) / school <= 1.04


def test_community_contacts_are_mutual_and_keep_the_published_total(summary, population):
    mixing = population.contacts["community"]
    people = mixing.counts.sum(axis=0)
    made = mixing.matrix * people[:, None]  # by a with b, of all a
    assert np.allclose(made, made.T, rtol=0, atol=1e-9 * made.max())
    published = (NZ.contacts["other"].sum(axis=1) * people).sum() / 50_000
    assert summary["contacts_per_agent"]["community"] == pytest.approx(published, rel=1e-9)


def test_summary_is_plain_json_with_the_stated_keys(summary):
    assert list(json.loads(json.dumps(summary))) == [
        "num_agents",
        "agents_by_region",
        "age_5yr",
        "household_size",
        "household_comembers_10yr",
        "homes_with_under_20",
        "employees_by_enterprise_size",
        "mean_site_size",
        "employees_5yr",
        "commuters",
        "school_rolls",
        "regional_rolls",
        "students",
        "enrolled_6_to_15",
        "contacts_per_agent",
        "contact_matrix",
        "activity_at_bounds",
    ]
    assert set(summary["contact_matrix"]) == {"home", "school", "work", "other"}
    assert np.shape(summary["contact_matrix"]["home"]) == (16, 16)


def test_contact_matrix_of_places_equals_the_dense_sum():
    rng = np.random.default_rng(3)
    age = rng.integers(0, 95, 40).astype(np.uint8)
    place = np.sort(rng.integers(0, 6, 40)).astype(np.int32)
    indptr = np.searchsorted(place, np.arange(7))
    layer = Places(place, indptr, np.arange(40, dtype=np.int32), contacts=3.0)
    made = graphs.contact_matrices(Population(40, {"age": age}, Contacts({"club": layer}, 40)))["club"]
    dense = np.zeros((16, 16))
    group = np.minimum(age // 5, 15)
    for i in range(40):
        for j in range(40):
            if i != j and place[i] == place[j]:
                others = (place == place[i]).sum() - 1
                dense[group[i], group[j]] += min(3.0, others) / others
    dense /= np.maximum(np.bincount(group, minlength=16), 1)[:, None]
    np.testing.assert_allclose(made, dense, rtol=1e-6, atol=1e-12)


def test_contact_matrix_of_edges_counts_what_targets_receive():
    contacts = Contacts.from_edges([0, 1, 2], [1, 2, 1], [2.0, 3.0, 4.0], num_agents=3)
    ages = np.array([3, 12, 80], np.uint8)
    made = graphs.contact_matrices(Population(3, {"age": ages}, contacts))["contacts"]
    expected = np.zeros((16, 16))
    expected[2, 0], expected[2, 15], expected[15, 2] = 2.0, 4.0, 3.0
    np.testing.assert_array_equal(made, expected)


def test_contact_matrices_without_ages_are_refused():
    contacts = Contacts.from_edges([0], [1], num_agents=2)
    with pytest.raises(UnknownFieldError, match="'age'"):
        graphs.contact_matrices(Population(2, {}, contacts))


def test_summary_of_a_bare_graph_has_only_what_it_knows():
    empty = Edges(np.zeros(4, np.int64), np.zeros(0, np.int32))
    made = graphs.summarise(Population(3, {}, Contacts({"contacts": empty}, 3)))
    assert made == {"num_agents": 3, "contacts_per_agent": {"contacts": 0.0}}


ASKED = {
    "regions": 0.0,
    "ages": 0.005,
    "household_sizes": 0.01,
    "household_comembers": 0.08,
    "parents_and_children": 0.1,
    "homes_with_under_20": 0.015,
    "employees": 0.02,
    "site_sizes": 0.1,
    "school_rolls": 0.1,
    "students": 0.05,
    **{f"contacts_{setting}": 0.1 for setting in ("school", "work", "other")},
    **{f"contacts_{setting}_rows": 0.15 for setting in ("school", "work", "other")},
}


@pytest.fixture(scope="module")
def compared(store, summary):
    return compare(store, summary)


@pytest.mark.parametrize("figure", ASKED)
def test_figure_is_within_what_is_asked_of_it(compared, figure):
    record = compared[figure]
    assert record["tolerance"] == ASKED[figure]
    assert record["within"], f"{record['error']} > {record['tolerance']}"


def test_homes_are_never_bent_towards_the_contact_survey(compared):
    for figure in ("contacts_home", "contacts_home_rows"):
        assert compared[figure]["tolerance"] is None
        assert compared[figure]["within"] is None


def test_each_figure_stands_beside_its_source(compared):
    for record in json.loads(json.dumps(compared)).values():
        assert np.shape(record["achieved"]) == np.shape(record["source"])
        assert record["labels"] is None or np.shape(record["achieved"])[0] == len(record["labels"])
        assert record["measure"]
        assert {"name", "source", "year", "licence", "assumed"} <= set(record["citation"])
        assert record["citation"]["assumed"] is False  # nobody is compared with what was assumed


def test_errors_are_those_of_their_measures(compared, summary):
    assert compared["ages"]["error"] == pytest.approx(total_variation(summary["age_5yr"], NZ.age_5yr))
    made = np.array(summary["household_comembers_10yr"])
    assert compared["household_comembers"]["error"] == np.abs(made - NZ.comembers).max()
    group = np.array(summary["age_5yr"])
    people = np.append(group[:15], group[15:].sum())
    wanted = reciprocal(NZ.contacts["work"], people)
    work = np.array(summary["contact_matrix"]["work"])
    correlation = np.corrcoef(work.ravel(), wanted.ravel())[0, 1]
    assert compared["contacts_work"]["error"] == pytest.approx(1 - correlation)
    rows = [abs(a / b - 1) for a, b in zip(work.sum(axis=1), wanted.sum(axis=1), strict=True) if b >= 0.5]
    assert compared["contacts_work_rows"]["error"] == pytest.approx(max(rows))


def test_a_figure_that_misses_says_so(store, summary):
    moved = dict(summary["agents_by_region"])
    moved["Auckland"] -= 1
    moved["Otago"] += 1
    record = compare(store, {**summary, "agents_by_region": moved})["regions"]
    assert (record["error"], record["within"]) == (1.0, False)


def test_a_store_of_an_earlier_generator_is_compared_by_what_it_holds(store, compared, tmp_path):
    earlier = tmp_path / "earlier.zarr"
    shutil.copytree(store, earlier)
    for array in ("site/region", "school/region", "school/roll", "school/staff"):
        shutil.rmtree(earlier / "layers" / array)
    assert compared.keys() - compare(earlier).keys() == {"commuting", "students"}
    shown = CliRunner().invoke(app, ["inspect", str(earlier), "--json"])
    assert shown.exit_code == 0


def test_pupils_are_counted_where_they_live_and_staff_are_not(store, summary):
    sector, roll = (extra_array(store, f"layers/school/{name}") for name in ("sector", "roll"))
    rolls = [int(roll[sector == number].sum()) for number in range(2)]
    assert np.sum(summary["students"], axis=0).tolist() == rolls


def test_median_rolls_are_compared_by_region_where_there_are_schools_enough(summary):
    schools, median = NZ.schools.astype(int).tolist(), (NZ.median_roll * 1.05).tolist()
    made = {**summary, "regional_rolls": {"median": median, "schools": schools}}
    record = beside_tables(made, NZ)["regional_school_rolls"]
    assert len(record["labels"]) == (NZ.schools >= 10).sum() == 28
    assert record["error"] == pytest.approx(0.05)
    assert "Nelson, secondary" not in record["labels"]
    assert "regional_school_rolls" not in beside_tables(summary, NZ)  # of 50,000 people no region has ten


def test_an_activity_at_its_bound_is_told(summary):
    assert summary["activity_at_bounds"] == {"school": [], "work": []}
    records = beside_tables({**summary, "activity_at_bounds": {"work": ["60-64"]}}, NZ)
    assert records["contacts_work_rows"]["measure"].endswith("activity at its bound: 60-64")
    activity = np.array([0.05, 1.0, 20.0], np.float32)
    layer = Places(np.zeros(3, np.int32), np.array([0, 3]), np.arange(3, dtype=np.int32), None, "work", activity)
    made = summarise(Population(3, {"age": np.array([3, 40, 80], np.uint8)}, Contacts({"site": layer}, 3)))
    assert made["activity_at_bounds"] == {"work": ["0-4", "75+"]}


def test_homes_with_someone_under_20_are_counted_as_homes():
    ages = np.array([40, 19, 5, 30, 31, 20, 18], np.uint8)
    home = Places.of([0, 0, 0, 1, 1, 2, 3])
    made = summarise(Population(7, {"age": ages}, Contacts({"home": home}, 7)))
    assert made["homes_with_under_20"] == 0.5


def test_a_population_of_no_country_has_nothing_to_be_compared_with(population):
    empty = Edges(np.zeros(4, np.int64), np.zeros(0, np.int32))
    assert compare(Population(3, {}, Contacts({"contacts": empty}, 3))) == {}
    in_memory = compare(population)
    assert "household_sizes" in in_memory
    assert "site_sizes" not in in_memory


def test_inspect_shows_what_is_achieved_beside_its_source(store, compared):
    figures = json.loads(CliRunner().invoke(app, ["inspect", str(store), "--json"]).stdout)
    assert figures["fidelity"] == json.loads(json.dumps(compared))
    shown = CliRunner(env={"COLUMNS": "160"}).invoke(app, ["inspect", str(store)]).stdout
    line = next(row for row in shown.splitlines() if row.startswith("homes with someone under 20"))
    assert "0.366" in line
    assert "met" in line
