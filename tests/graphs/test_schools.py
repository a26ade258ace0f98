"""Schools, early childhood and tertiary: rolls and staff against their tables, contacts against the matrix."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.ages import district_ages
from graphs.country import make_plan
from graphs.districts import shared_out
from graphs.meetings import column, meetings
from graphs.mixing import activity_group, reciprocal
from graphs.rounding import largest_remainder
from graphs.schools import count_schools, pupil_quotas, rolls, school_zones, zone_rolls
from graphs.sources import EDUCATION, SECTORS, load_country
from graphs.staff import match_sites
from graphs.store import extra_array

NZ = load_country("New Zealand")
EVERYBODY = NZ.residents.sum()
SCALE = 50_000 / EVERYBODY
ONE_EACH = np.ones(16, np.int64)
MEDIANS = (NZ.median_roll * NZ.schools).sum(axis=0) / NZ.schools.sum(axis=0)


@pytest.fixture(scope="module")
def sector(store):
    return extra_array(store, "layers/school/sector")


@pytest.fixture(scope="module")
def roll(store):
    return extra_array(store, "layers/school/roll")


@pytest.fixture(scope="module")
def age(population):
    return column(population.columns["age"])


@pytest.fixture(scope="module")
def school(population):
    return column(population.contacts["school"].place)


@pytest.fixture(scope="module")
def is_staff(store, school):
    found = np.zeros(len(school), bool)
    found[extra_array(store, "layers/school/staff")] = True
    return found


# Rolls


@settings(max_examples=60)
@given(st.floats(2e-4, 1.0))
def test_zones_are_runs_of_regions_with_schools_enough(scale):
    zones = school_zones(NZ.schools, ONE_EACH, scale)
    assert [region for zone in zones for region in zone] == list(range(16))
    for zone in zones:
        assert len(zones) == 1 or (NZ.schools[list(zone)].sum(axis=0) * scale >= 5 - 1e-9).all()
    for column_, whole in zip(count_schools(NZ.schools, zones, scale).T, NZ.schools.sum(axis=0), strict=True):
        assert column_.sum() == round(whole * scale)


def test_in_full_every_region_has_the_schools_of_the_table():
    zones = school_zones(NZ.schools, ONE_EACH, 1.0)
    assert zones == tuple((region,) for region in range(16))
    np.testing.assert_array_equal(count_schools(NZ.schools, zones, 1.0), NZ.schools)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 7), min_size=16, max_size=16).map(np.array), st.floats(2e-4, 8.0))
def test_zones_of_districts_have_schools_enough_and_cross_regions_only_where_those_must(number, scale):
    region = np.repeat(np.arange(16), number)
    schools = shared_out(NZ.schools, number)
    zones = school_zones(NZ.schools, number, scale)
    assert [district for zone in zones for district in zone] == list(range(len(region)))
    together = school_zones(NZ.schools, ONE_EACH, scale)  # regions that share their schools
    run = np.repeat(np.arange(len(together)), [len(regions) for regions in together])
    for zone in zones:
        assert len(set(run[region[list(zone)]])) == 1
        assert len(zones) == 1 or (schools[list(zone)].sum(axis=0) * scale >= 5 - 1e-6).all()
    count = count_schools(schools, zones, scale)
    np.testing.assert_array_equal(count.sum(axis=0), np.rint(schools.sum(axis=0) * scale))
    exact = np.stack([schools[list(zone)].sum(axis=0) * scale for zone in zones])
    assert np.abs(count - exact).max() < 1


@pytest.mark.parametrize("sector", [0, 1])
@pytest.mark.parametrize(("zone", "count"), [((1,), 30), ((1, 2), 47), ((4, 5, 6), 12)])
def test_a_region_weighs_in_the_rolls_of_a_zone_by_the_share_of_it_that_is_there(zone, count, sector):
    total = round(count * 1.2 * NZ.median_roll[list(zone), sector].mean())

    def made(districts, share):
        return zone_rolls(NZ, districts, sector, total, count, share)

    whole = made(zone, [1.0] * len(zone))
    assert len(whole) == count and whole.sum() == total
    halves = made(tuple(np.repeat(zone, 2)), [0.5] * 2 * len(zone))
    assert np.abs(np.sort(halves) - np.sort(whole)).max() <= np.ptp(whole) / 20
    if len(zone) > 1:
        first = made((zone[0],), [1.0])
        mostly = made(zone, [1.0] + [1e-6] * (len(zone) - 1))
        assert np.abs(np.median(mostly) - np.median(first)) < np.abs(np.median(whole) - np.median(first))


@pytest.mark.parametrize("region", range(16))
@pytest.mark.parametrize("sector", [0, 1])
def test_rolls_of_a_region_in_full_have_the_median_and_sum_of_the_table(region, sector):
    total, count = int(NZ.students[region, sector]), int(NZ.schools[region, sector])
    made = zone_rolls(NZ, (region,), sector, total, count, (1.0,))
    expected = rolls(total, count, NZ.median_roll[region, sector], NZ.max_roll[region, sector])
    np.testing.assert_allclose(np.sort(made), np.sort(expected), atol=1.0)  # a pupil moves with the rounding
    assert made.sum() == total
    assert np.median(made) == pytest.approx(NZ.median_roll[region, sector], rel=0.01)
    assert made.max() <= NZ.max_roll[region, sector] + 1


@settings(max_examples=200)
@given(st.integers(3, 40), st.floats(30, 500), st.floats(0.9, 1.25), st.floats(2.2, 6))
def test_rolls_have_their_median_sum_and_bounds(count, median, mean, largest):
    total = round(count * median * mean)
    made = rolls(total, count, median, median * largest)
    assert made.sum() == total
    assert (np.diff(made) >= 0).all() or np.diff(made).min() == -1  # a pupil moves with the rounding
    assert np.median(made) == pytest.approx(median, abs=1.01)
    assert made.min() >= 4
    assert made.max() <= median * largest + 1


def test_the_two_middle_rolls_are_as_far_from_the_median():
    made = np.sort(rolls(1750, 6, 251, 513))  # the secondary schools of the West Coast
    assert made[2] + made[3] == pytest.approx(502, abs=1)


@pytest.mark.parametrize("num_agents", [50_000, 100_000, 200_000, 400_000, 1_000_000])
def test_median_rolls_do_not_hang_on_the_number_of_agents(num_agents):
    scale = num_agents / EVERYBODY
    zones = school_zones(NZ.schools, ONE_EACH, scale)
    count = count_schools(NZ.schools, zones, scale)
    for sector in range(2):
        made = [
            zone_rolls(
                NZ,
                zone,
                sector,
                round(NZ.students[list(zone), sector].sum() * scale),
                int(schools[sector]),
                [1.0] * len(zone),
            )
            for zone, schools in zip(zones, count, strict=True)
        ]
        assert np.median(np.concatenate(made)) == pytest.approx(MEDIANS[sector], rel=0.1)


def test_median_rolls_of_a_built_country_meet_the_table(summary):
    np.testing.assert_allclose([summary["school_rolls"][name] for name in SECTORS], MEDIANS, rtol=0.1)


# Who is enrolled


@pytest.mark.parametrize(("num_agents", "students_apart", "least"), [(5_174_700, 0.03, 0.95), (200_000, 0.03, 0.94)])
def test_every_region_has_the_children_for_its_schools(num_agents, students_apart, least):
    plan = make_plan("New Zealand", num_agents, 0)
    for region, homes in enumerate(plan.homes):
        band = np.repeat(np.arange(8, dtype=np.uint8), homes @ plan.compositions)
        age = district_ages(0, region, band, plan.ages, plan.bands_before[region])
        there = np.bincount(age, minlength=101)
        quotas = pupil_quotas(NZ, there, plan.students[region])[:2]
        np.testing.assert_allclose(quotas.sum(axis=1), plan.students[region], rtol=students_apart)
        assert quotas[:, 6:16].sum() / there[6:16].sum() >= least


def test_quotas_meet_the_students_and_the_ages():
    ages = make_plan("New Zealand", 50_000, 0).ages
    students = largest_remainder(NZ.students.sum(axis=0), round(NZ.students.sum() * SCALE))
    quotas = pupil_quotas(NZ, ages, students)
    assert (quotas.sum(axis=0) <= ages).all()
    assert (quotas >= 0).all()
    np.testing.assert_allclose(quotas.sum(axis=1)[:2], students, rtol=0.05)  # the ages hold 5 % less


def test_pupils_meet_the_school_table(sector, roll):
    assert roll[sector < len(SECTORS)].sum() == pytest.approx(NZ.students.sum() * SCALE, rel=0.02)


def test_early_childhood_holds_the_children_of_the_census_week_in_as_many_services(sector, roll):
    here = sector == EDUCATION.index("early childhood")
    assert roll[here].sum() == pytest.approx(NZ.early_childhood[1] * SCALE, rel=0.01)
    assert here.sum() == pytest.approx(NZ.early_childhood[0] * SCALE, abs=1)


def test_a_tenth_of_working_age_is_in_tertiary_education(sector, roll, age):
    students = roll[sector == EDUCATION.index("tertiary")].sum()
    # Ministry of Education: 11.0 % of ages 16-64 in 2017, domestic, at any time in the year, and falling.
    assert 0.09 <= students / ((age >= 16) & (age < 65)).sum() <= 0.12


def test_pupils_are_of_the_ages_of_their_sector(sector, school, age, is_staff):
    bounds = {"primary": (5, 12), "secondary": (5, 18), "early childhood": (0, 4), "tertiary": (16, 64)}
    for number, name in enumerate(EDUCATION):
        mine = age[(school >= 0) & ~is_staff & (sector[school] == number)]
        assert bounds[name][0] <= mine.min()
        assert mine.max() <= bounds[name][1]


def test_no_class_holds_more_pupils_than_its_sector_has(population, sector, school, is_staff):
    place = column(population.contacts["class"].place)
    np.testing.assert_array_equal(place >= 0, school >= 0)
    pupils = (school >= 0) & ~is_staff
    size = np.bincount(place[pupils])
    sector_of = np.zeros(len(size), int)
    sector_of[place[pupils]] = sector[school[pupils]]
    assert (size > 0).all()
    assert (size <= NZ.class_size[sector_of]).all()


def test_classes_of_schools_are_of_neighbouring_ages(population, sector, school, age, is_staff):
    place = column(population.contacts["class"].place)
    pupils = (school >= 0) & ~is_staff & (sector[school] < len(SECTORS))
    low, high = np.full(place.max() + 1, 200), np.zeros(place.max() + 1, int)
    np.minimum.at(low, place[pupils], age[pupils])
    np.maximum.at(high, place[pupils], age[pupils])
    assert np.median((high - low)[high > 0]) <= 1


# Staff


def test_staff_are_adults_employed_at_one_site_and_enrolled_nowhere(population, school, roll, age, is_staff):
    assert is_staff.sum() == (school >= 0).sum() - roll.sum()
    assert age[is_staff].min() >= 18
    site = column(population.contacts["site"].place)
    pairs = np.unique(np.stack([school[is_staff], site[is_staff]]), axis=1)
    assert pairs.shape[1] == len(roll) == len(np.unique(pairs[1]))


def test_every_sector_has_its_staff(sector, roll, school, is_staff):
    staff = np.bincount(school[is_staff], minlength=len(roll))
    for number in range(len(EDUCATION)):
        here = sector == number
        assert roll[here].sum() / staff[here].sum() == pytest.approx(NZ.pupils_per_staff[number], rel=0.1)
        assert (staff[here] > 0).all()


def test_staff_are_dealt_evenly_over_classes(population, school, is_staff):
    place = column(population.contacts["class"].place)
    per_class = np.bincount(place[is_staff], minlength=place.max() + 1)
    school_of = np.zeros(place.max() + 1, int)
    school_of[place[school >= 0]] = school[school >= 0]
    for number in np.unique(school_of):
        assert np.ptp(per_class[school_of == number]) <= 1


def test_a_school_takes_the_nearest_site_of_its_size():
    size, site = np.array([10, 10, 3, 50, 10]), np.array([0.0, 90.0, 40.0, 20.0, 55.0])
    assert match_sites(np.array([10.2, 9.9]), np.array([80.0, 50.0]), size, site).tolist() == [1, 4]


def test_those_who_want_most_choose_first_and_the_last_go_without():
    size, site = np.array([5, 20, 0]), np.array([0.0, 1.0, 2.0])
    assert match_sites(np.array([4.0, 30.0, 1.0]), np.zeros(3), size, site).tolist() == [0, 1, -1]


@given(st.integers(0, 2**32))
def test_no_site_is_taken_twice(seed):
    rng = np.random.default_rng(seed)
    size = rng.integers(0, 30, 40)
    found = match_sites(rng.uniform(0, 40, 25), rng.uniform(0, 1, 25), size, rng.uniform(0, 1, 40))
    taken = found[found >= 0]
    assert len(np.unique(taken)) == len(taken) == min(25, (size > 0).sum())
    assert (size[taken] > 0).all()


# Contacts


@pytest.mark.parametrize(
    ("setting", "layers", "least"), [("school", ("class", "school"), 0.95), ("work", ("team", "site"), 0.9)]
)
def test_contacts_by_age_meet_the_matrix_made_mutual(population, age, setting, layers, least):
    group = activity_group(age)
    people = np.bincount(group, minlength=16)
    target = reciprocal(NZ.contacts[setting], people)
    made = sum(meetings(population.contacts[name], group, 16) for name in layers) / people[:, None]
    assert np.corrcoef(made.ravel(), target.ravel())[0, 1] >= least
    asked = target.sum(axis=1) >= 0.5
    np.testing.assert_allclose(made.sum(axis=1)[asked], target.sum(axis=1)[asked], rtol=1e-4)


@pytest.mark.parametrize(("layers", "share"), [(("class", "school"), 0.001), (("team", "site"), 0.02)])
def test_few_pairs_meet_more_than_once_a_day(population, layers, share):
    often = total = 0
    for name in layers:
        layer = population.contacts[name]
        indptr, member = column(layer.indptr), column(layer.member)
        active = column(layer.activity).astype(float)[member]
        for first, last, weight in zip(indptr[:-1], indptr[1:], layer.weights(np.diff(indptr)), strict=True):
            values, count = np.unique(active[first:last], return_counts=True)
            pairs = np.outer(count, count) - np.diag(count)
            often += pairs[weight * np.outer(values, values) > 1].sum()
            total += pairs.sum()
    assert often / total <= share


def test_activity_is_of_school_and_work_and_never_of_the_home(population):
    contacts = population.contacts
    assert contacts["home"].activity is None
    for inner, outer in (("class", "school"), ("team", "site")):
        np.testing.assert_array_equal(column(contacts[inner].activity), column(contacts[outer].activity))
