"""Activity by age: totals met to rounding, one solution, bounds that hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnabm.contacts import Places
from gnabm.errors import DataError
from graphs.activity import LEAST, LEAST_ROW, MOST, activity_in_setting, fit_activity, nearest_described
from graphs.meetings import meetings


def symmetric(rng, groups):
    half = rng.random((groups, groups)) * rng.choice([0.0, 1.0, 50.0], (groups, groups))
    return half + half.T + np.diag(rng.uniform(1, 100, groups))


@given(st.floats(0.01, 1e6), st.floats(0.01, 1e6))
def test_one_group_has_the_square_root_of_its_ratio(met, wanted):
    expected = np.clip(np.sqrt(wanted / met), LEAST, MOST)
    assert fit_activity(np.array([[met]]), np.array([wanted])) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=50)
@given(st.integers(1, 16), st.integers(0, 2**32))
def test_the_activity_that_made_the_totals_is_found_again(groups, seed):
    rng = np.random.default_rng(seed)
    met, activity = symmetric(rng, groups), np.exp(rng.uniform(-2, 2, groups))
    found = fit_activity(met, activity * (met @ activity))
    np.testing.assert_allclose(found, activity, rtol=1e-7)


@settings(max_examples=50)
@given(st.integers(1, 16), st.integers(0, 2**32))
def test_totals_within_reach_are_met(groups, seed):
    rng = np.random.default_rng(seed)
    met = symmetric(rng, groups)
    wanted = met.sum(axis=1) * rng.uniform(0.5, 2, groups)
    activity = fit_activity(met, wanted)
    inside = (activity > LEAST) & (activity < MOST)
    np.testing.assert_allclose((activity * (met @ activity))[inside], wanted[inside], rtol=1e-6)


def test_what_cannot_be_met_stops_at_a_bound():
    met = np.array([[1.0, 0.2, 0.0], [0.2, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert fit_activity(met, np.array([0.0, 1.0, 1e6])).tolist()[::2] == [LEAST, MOST]


def test_a_group_that_the_matrix_hardly_describes_takes_the_nearest_that_it_does():
    rows = np.array([0.0, 0.4, 2.0, LEAST_ROW, 0.49, 3.0])
    here = np.array([True, True, True, True, True, False])
    assert nearest_described(rows, here).tolist() == [2, 2, 2, 3, 3, 5]
    assert nearest_described(np.zeros(3), np.ones(3, bool)).tolist() == [0, 1, 2]


@settings(max_examples=50)
@given(st.integers(2, 16), st.integers(0, 2**32))
def test_totals_of_those_described_are_met_whatever_the_others_do(groups, seed):
    rng = np.random.default_rng(seed)
    met, like = symmetric(rng, groups), np.sort(rng.integers(0, groups, groups))
    like = np.where(np.isin(np.arange(groups), like), np.arange(groups), like)
    given_ = np.exp(rng.uniform(-1, 1, groups))[like]
    wanted = given_ * (met @ given_)
    activity = fit_activity(met, wanted, like)
    np.testing.assert_array_equal(activity, activity[like])
    own = like == np.arange(groups)
    np.testing.assert_allclose((activity * (met @ activity))[own], wanted[own], rtol=1e-6)


def test_workers_whom_a_survey_missed_are_not_silenced():
    group = np.repeat(np.array([0, 1, 2], np.uint8), 20)
    place = np.tile(np.arange(6), 10)
    target = np.array([[2.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    met = meetings(Places.of(place, contacts=5.0), group, 3)
    active = activity_in_setting(met, np.bincount(group), target)
    assert active[2] == active[1] > LEAST
    layer = Places.of(place, contacts=5.0, activity=active[group])
    np.testing.assert_allclose(meetings(layer, group, 3).sum(axis=1)[:2] / 20, [3.0, 2.0], rtol=1e-5)


def test_a_group_that_meets_nobody_keeps_activity_one():
    met = np.array([[4.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(fit_activity(met, np.array([1.0, 7.0])), [0.5, 1.0])


def test_the_order_of_groups_does_not_matter():
    rng = np.random.default_rng(5)
    met, wanted, order = symmetric(rng, 9), rng.uniform(1, 200, 9), rng.permutation(9)
    np.testing.assert_allclose(
        fit_activity(met[np.ix_(order, order)], wanted[order]), fit_activity(met, wanted)[order], rtol=1e-9
    )


@pytest.mark.parametrize(
    ("met", "wanted", "says"),
    [
        (np.ones((2, 3)), np.ones(2), r"must be \(2, 2\)"),
        (np.array([[1.0, 2.0], [3.0, 1.0]]), np.ones(2), "symmetric"),
        (np.array([[1.0, -2.0], [-2.0, 1.0]]), np.ones(2), "not negative"),
        (np.eye(2), np.array([1.0, np.nan]), "finite"),
    ],
)
def test_what_is_no_table_of_meetings_is_refused(met, wanted, says):
    with pytest.raises(DataError, match=says):
        fit_activity(met, wanted)


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_random_places_of_a_setting_carry_the_row_totals(seed):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 5, 600).astype(np.uint8)
    layers = [(rng.integers(-1, number, 600), visits) for number, visits in ((30, 4.0), (6, 1.5))]
    target = rng.uniform(0.2, 2, (5, 5))  # every row is described
    met = sum(meetings(Places.of(place, visits), group, 5) for place, visits in layers)
    activity = activity_in_setting(met, np.bincount(group, minlength=5), target)[group]
    made = sum(meetings(Places.of(place, visits, activity=activity), group, 5) for place, visits in layers)
    np.testing.assert_allclose(made, made.T, rtol=1e-12)
    wanted = target.sum(axis=1) * np.bincount(group, minlength=5)
    np.testing.assert_allclose(made.sum(axis=1), wanted, rtol=1e-5)  # activities are rounded to six digits
