"""Work in New Zealand: who is employed, where they commute to, sites, enterprises and whom they meet there."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import graphs
from gnabm.contacts import Places
from graphs.country import make_plan, people_task, sites_task, workers_task
from graphs.meetings import column
from graphs.mixing import NUM_GROUPS, activity_group, reciprocal
from graphs.sources import CLASSES, load_country
from graphs.store import extra_array
from graphs.work import LEAST_EMPLOYEES, join_sites, plan_flows, seat_by_age, site_sizes

NZ = load_country("New Zealand")
REGIONS = range(16)
MOST_EMPLOYEES = (19, 49, 10**9)


class Work:
    """Workers and sites of all regions, made as a build makes them."""

    def __init__(self, num_agents, seed=0):
        self.plan = make_plan("New Zealand", num_agents, seed)
        self.people = [people_task(self.plan, r) for r in REGIONS]
        self.workers = [workers_task(self.plan, r, self.people[r]) for r in REGIONS]
        self.sites = [self.seat(r) for r in REGIONS]
        self.age = np.concatenate([part.age for part in self.people])

    def seat(self, region):
        return sites_task(self.plan, region, [self.workers[home][region] for home in REGIONS])

    @property
    def flow(self):
        return np.array([[len(part) for part in row] for row in self.workers])


@pytest.fixture(scope="module")
def work():
    return Work(200_000)


def by_five_years(counts):
    return np.add.reduceat(counts, np.arange(0, 100, 5))


def enterprises_of(site):
    """Employees, sites and class of each enterprise of a region."""
    employees = np.bincount(site.enterprise, site.site_size)
    code = np.zeros(len(employees), np.int64)
    code[site.enterprise] = site.enterprise_class
    return employees, np.bincount(site.enterprise), code


# Who is employed, and where


def test_each_region_has_the_employees_of_the_business_table(work):
    scaled = NZ.employees.sum(axis=1) * 200_000 / NZ.residents.sum()
    np.testing.assert_allclose(work.flow.sum(axis=0), scaled, atol=3)


def test_employees_by_enterprise_class_are_the_tables_within_a_tenth_of_a_point(work):
    made = sum(np.bincount(site.enterprise_class, site.site_size, 3) for site in work.sites)
    table = NZ.employees.sum(axis=0)
    assert np.abs(made / made.sum() - table / table.sum()).max() < 0.001


def test_mean_site_sizes_are_those_of_the_business_table(work):
    workers = sum(np.bincount(site.enterprise_class, site.site_size, 3) for site in work.sites)
    sites = sum(np.bincount(site.enterprise_class, minlength=3) for site in work.sites)
    np.testing.assert_allclose(workers / sites, [4.5, 21.8, 42.1], rtol=0.01)


def test_twenty_thousand_agents_have_sites_of_the_right_mean_sizes():
    made = Work(20_000)
    workers = sum(np.bincount(site.enterprise_class, site.site_size, 3) for site in made.sites)
    sites = sum(np.bincount(site.enterprise_class, minlength=3) for site in made.sites)
    np.testing.assert_allclose(workers / sites, [4.5, 21.8, 42.1], rtol=0.05)


def test_commuters_go_where_the_commute_table_says(work):
    share = work.flow / work.flow.sum(axis=1, keepdims=True)
    assert np.abs(share - NZ.commute).max() < 0.001
    np.testing.assert_array_equal(work.flow[NZ.commute == 0], 0)


def test_the_share_of_workers_living_in_another_region_is_the_tables(work):
    away = 1 - np.trace(work.flow) / work.flow.sum()
    living = work.flow.sum(axis=1)
    assert away == pytest.approx(1 - np.diag(NZ.commute) @ living / living.sum(), abs=2e-4)
    tasman = NZ.regions.index("Tasman")
    assert work.flow[tasman, NZ.regions.index("Nelson")] / living[tasman] == pytest.approx(2778 / 18294, rel=0.01)


def test_planned_flows_have_the_employees_as_columns_and_the_commute_shares_as_rows():
    employees = np.round(NZ.employees).astype(np.int64)
    flows = plan_flows(NZ, employees)
    np.testing.assert_array_equal(flows.sum(axis=0), employees.sum(axis=1))
    np.testing.assert_allclose(flows / flows.sum(axis=1, keepdims=True), NZ.commute, atol=1e-4)


def test_employed_persons_by_age_are_in_proportion_to_the_employment_rates(work):
    employed = np.bincount(np.concatenate([part.age for row in work.workers for part in row]), minlength=101)
    wanted = np.bincount(work.age, minlength=101) * NZ.employment
    made, rate = by_five_years(employed), by_five_years(wanted)
    assert np.abs(made / made.sum() - rate / rate.sum()).sum() / 2 < 0.002


def test_employment_rates_are_the_released_ones_of_the_census_and_fall_to_none_at_both_ends():
    assert NZ.employment[[15, 19, 24, 65, 69, 70]].tolist() == [0.451, 0.451, 0.73, 0.44, 0.44, 0.247]
    assert (NZ.employment[:12] == 0).all()
    assert (NZ.employment[90:] == 0).all()
    assert (np.diff(NZ.employment[12:25]) >= 0).all()
    assert (np.diff(NZ.employment[50:]) <= 0).all()


# Sites, teams and enterprises


@settings(max_examples=6)
@given(st.integers(1000, 20_000), st.integers(0, 2**40))
def test_everybody_employed_sits_at_one_site_and_at_most_in_one_of_its_teams(num_agents, seed):
    made = Work(num_agents, seed)
    for region, site in enumerate(made.sites):
        here = np.concatenate([made.workers[home][region].rows for home in REGIONS])
        np.testing.assert_array_equal(np.sort(site.rows), np.sort(here))
        assert site.site_size.sum() == len(here)
        assert site.team_size.sum() == len(site.team_rows)
        assert (site.site_size > 0).all()
        assert (site.team_size > 0).all()
        assert len(np.unique(site.team_rows)) == len(site.team_rows)
        site_of, team_of = np.full((2, len(made.age)), -1)
        site_of[site.rows] = np.repeat(np.arange(len(site.site_size)), site.site_size)
        team_of[site.team_rows] = np.repeat(np.arange(len(site.team_size)), site.team_size)
        pairs = np.unique(np.stack([team_of, site_of])[:, team_of >= 0], axis=1)
        assert pairs.shape[1] == len(site.team_size)
        assert (pairs[1] >= 0).all()
    rows = np.concatenate([site.rows for site in made.sites])
    assert len(np.unique(rows)) == len(rows)
    assert made.age[rows].min() >= 12
    for home in REGIONS:
        for part in made.workers[home]:
            np.testing.assert_array_equal(part.age, made.age[part.rows])


def test_a_region_is_seated_alike_whenever_it_is_seated(work):
    again = work.seat(3)
    for name, value in vars(work.sites[3]).items():
        np.testing.assert_array_equal(getattr(again, name), value)


def test_a_site_has_no_team_or_several_of_about_ten_that_differ_by_at_most_one(work):
    site = work.sites[1]
    site_of = np.full(len(work.age), -1)
    site_of[site.rows] = np.repeat(np.arange(len(site.site_size)), site.site_size)
    of_team = site_of[site.team_rows[np.cumsum(site.team_size) - site.team_size]]
    teams = np.bincount(of_team, minlength=len(site.site_size))
    assert not (teams == 1).any()
    assert site.site_size[teams == 0].max() <= 15
    in_teams = np.bincount(of_team, site.team_size, len(teams))
    np.testing.assert_array_equal(in_teams[teams > 0], site.site_size[teams > 0])
    first = np.flatnonzero(np.diff(of_team, prepend=-1))
    assert (np.maximum.reduceat(site.team_size, first) - np.minimum.reduceat(site.team_size, first)).max() <= 1
    assert 7 <= site.team_size.min() <= site.team_size.max() <= 13


def test_enterprises_have_the_employees_of_their_class(work):
    for site in work.sites:
        employees, _, code = enterprises_of(site)
        assert (employees >= np.array(LEAST_EMPLOYEES)[code]).all()
        assert (employees <= np.array(MOST_EMPLOYEES)[code]).all()


def test_only_enterprises_of_twenty_and_more_have_several_sites(work):
    sites = np.zeros(3)
    for site in work.sites:
        _, count, code = enterprises_of(site)
        assert (count[code == 0] == 1).all()
        sites = np.maximum(sites, [count[code == number].max() for number in range(3)])
    assert (sites[1:] >= 2).all()


def test_sites_are_joined_until_their_enterprise_is_large_enough():
    size = np.array([3, 30, 12, 5, 9, 7, 60, 20, 25, 10])
    kind = np.array([0, 1, 1, 1, 1, 1, 2, 2, 2, 2], np.uint8)
    # 12 + 5 + 9 make 26; the 7 that is left joins the 30. 20 + 25 + 10 make 55 beside the 60.
    assert join_sites(size, kind).tolist() == [0, 2, 1, 1, 1, 2, 4, 3, 3, 3]


@given(st.lists(st.tuples(st.integers(1, 80), st.integers(0, 2)), max_size=60))
@example([])
@example([(19, 1)])
def test_at_most_one_enterprise_of_a_class_is_too_small_and_only_where_no_site_is_large(drawn):
    size = np.array([n for n, _ in drawn], np.int64)
    kind = np.array([c for _, c in drawn], np.uint8)
    enterprise = join_sites(size, kind)
    assert set(enterprise.tolist()) == set(range(len(set(enterprise.tolist()))))
    for code, least in enumerate(LEAST_EMPLOYEES):
        mine = kind == code
        assert not set(enterprise[mine].tolist()) & set(enterprise[~mine].tolist())
        employees = [size[enterprise == number].sum() for number in set(enterprise[mine].tolist())]
        short = sum(int(n) < least for n in employees)
        assert short == 0 or (short == 1 and size[mine].max() < least)


@given(st.integers(0, 5000), st.floats(1.2, 40), st.floats(0.2, 1.5), st.sampled_from([49.0, 3000.0]))
def test_site_sizes_sum_to_the_workers_and_keep_to_the_largest(total, mean, sigma, largest):
    sizes = site_sizes(total, mean, sigma, largest)
    assert sizes.sum() == total
    assert (sizes >= 1).all()
    assert (sizes <= largest + 1).all()
    if total > 100 * mean:
        assert total / len(sizes) == pytest.approx(mean, rel=0.02)


# Whom they meet


def test_within_a_stretch_workers_stand_by_age_and_stretches_keep_their_place():
    position = np.array([9.0, 1.0, 5.0, 3.0, 7.0])
    age = np.array([40.0, 60.0, 20.0, 30.0, 10.0])
    assert seat_by_age(position, age, 2).tolist() == [3, 1, 4, 2, 0]
    assert seat_by_age(position, age, 1).tolist() == np.argsort(position).tolist()
    assert seat_by_age(position, age, 5).tolist() == np.argsort(age).tolist()


def variance_within_teams(work):
    """Share of the variance of workers' ages that lies within teams."""
    of_age = np.concatenate([work.age[site.team_rows] for site in work.sites]).astype(float)
    team = np.repeat(
        np.arange(sum(len(site.team_size) for site in work.sites)), [n for s in work.sites for n in s.team_size]
    )
    mean = np.bincount(team, of_age) / np.bincount(team)
    return np.square(of_age - mean[team]).mean() / of_age.var()


def test_workers_of_a_team_are_somewhat_alike_in_age_and_not_when_ages_are_blurred_away(work, monkeypatch):
    # Of ten drawn at random nine tenths of the variance lie within; of ages a that are ordered by a plus noise e,
    # var(e) / (var(a) + var(e)) of that.
    noise = NZ.assumed["work_age_spread"] ** 2
    age = np.concatenate([part.age for row in work.workers for part in row]).astype(float)
    assert variance_within_teams(work) == pytest.approx(0.9 * noise / (noise + age.var()), rel=0.05)
    monkeypatch.setitem(NZ.assumed, "work_age_spread", 1e9)
    assert variance_within_teams(Work(50_000)) == pytest.approx(0.9, abs=0.01)


@pytest.fixture(scope="module")
def contacts_at_work(population):
    """(made, source): contacts per day at work by five-year age, row = participant."""
    group = activity_group(column(population.columns["age"]))
    people = np.bincount(group, minlength=NUM_GROUPS)
    made = graphs.contact_matrices(population)
    return made["team"] + made["site"], reciprocal(NZ.contacts["work"], people)


def test_contacts_at_work_by_age_correlate_with_the_reciprocal_contact_matrix(contacts_at_work):
    made, source = contacts_at_work
    assert np.corrcoef(made.ravel(), source.ravel())[0, 1] >= 0.97


def test_people_of_each_age_have_the_reported_contacts_at_work(contacts_at_work):
    made, source = (matrix.sum(axis=1) for matrix in contacts_at_work)
    reported = source >= 0.5
    assert reported.sum() == 11
    np.testing.assert_allclose(made[reported], source[reported], rtol=0.15)


def test_workers_of_65_and_more_are_as_active_as_those_of_60(population):
    active = column(population.contacts["site"].activity)
    group = activity_group(column(population.columns["age"]))
    of_60 = active[group == 12]
    assert of_60[0] > 0.1
    for older in (13, 14, 15):  # the survey's workers are younger, the census's are not
        assert (active[group == older] == of_60[0]).all()


def test_the_store_knows_who_commutes_where_and_how_old_they_are(summary, population):
    flow = np.array(summary["commuters"])
    made = Work(population.num_agents)
    np.testing.assert_array_equal(flow, made.flow)
    assert sum(summary["employees_5yr"]) == flow.sum() == sum(summary["employees_by_enterprise_size"].values())
    assert np.abs(flow / flow.sum(axis=1, keepdims=True) - NZ.commute).max() < 0.005


def test_sites_and_enterprises_of_the_store_are_of_one_class_and_region(store, population):
    site = population.contacts["site"]
    assert isinstance(site, Places)
    enterprise, code = (extra_array(store, f"layers/site/{name}") for name in ("enterprise", "enterprise_class"))
    assert len(enterprise) == len(code) == site.num_places
    number = np.unique(enterprise)
    np.testing.assert_array_equal(number, np.arange(len(number)))
    assert len(np.unique(np.stack([enterprise, code]), axis=1).T) == len(number)
    assert len(CLASSES) == len(LEAST_EMPLOYEES) == 1 + code.max()
