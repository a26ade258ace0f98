import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnabm.errors import DataError
from graphs.rounding import deal, group_by, largest_remainder, split_evenly, spread, systematic

weights = st.lists(st.floats(0, 1e6), min_size=1, max_size=60).filter(lambda w: sum(w) > 1e-6)
totals = st.integers(0, 10_000_000)


@given(weights, totals)
def test_largest_remainder_keeps_the_total_and_misses_each_share_by_less_than_one(weight, total):
    made = largest_remainder(weight, total)
    share = np.array(weight) / np.sum(weight) * total
    assert made.sum() == total
    assert (made >= 0).all()
    assert np.abs(made - share).max() < 1 + 1e-6 * max(total, 1)


@given(weights, totals)
def test_largest_remainder_never_orders_two_entries_against_their_weights(weight, total):
    made = largest_remainder(weight, total)
    order = np.argsort(weight, kind="stable")
    assert (np.diff(made[order]) >= -1).all()


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30).filter(any))
def test_largest_remainder_of_whole_numbers_at_their_own_total_changes_nothing(counts):
    assert largest_remainder(counts, sum(counts)).tolist() == counts


@pytest.mark.parametrize("bad", [[-1.0, 2.0], [np.nan, 1.0], [0.0, 0.0]])
def test_largest_remainder_refuses_what_cannot_be_shared(bad):
    with pytest.raises(DataError):
        largest_remainder(bad, 5)
    with pytest.raises(DataError, match="total must be 0 or more"):
        largest_remainder([1.0], -1)


@given(weights, st.integers(0, 100_000))
def test_systematic_rounding_keeps_every_running_sum(weight, total):
    made = systematic(weight, total)
    exact = np.cumsum(weight) / np.sum(weight) * total
    assert made.sum() == total
    assert (made >= 0).all()
    assert np.abs(np.cumsum(made) - exact).max() <= 0.5 + 1e-6 * max(total, 1)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any), st.data())
def test_dealing_in_parts_deals_every_card_once(counts, data):
    total = sum(counts)
    cut = data.draw(st.integers(0, total))
    cards = np.array(counts)
    made = np.concatenate([deal(cards, 0, cut), deal(cards, cut, total)])
    assert np.bincount(made, minlength=len(counts)).tolist() == counts


@given(st.integers(1, 100_000))
def test_spread_is_a_permutation(total):
    step, modulus = spread(total)
    assert modulus == total
    assert np.gcd(step, total) == 1


def test_every_part_of_a_deal_has_its_share():
    counts = np.array([5000, 3000, 2000])
    part = np.bincount(deal(counts, 4000, 5000), minlength=3)
    assert np.abs(part - [500, 300, 200]).max() <= 5


@given(st.integers(0, 1000), st.integers(1, 50))
def test_even_parts_differ_by_at_most_one(total, parts):
    sizes = split_evenly(total, parts)
    assert sizes.sum() == total
    assert sizes.max() - sizes.min() <= 1


@given(st.lists(st.integers(-1, 6), max_size=50))
def test_members_of_places_are_the_rows_that_name_them(place):
    rows = np.array(place, np.int32)
    indptr, member = group_by(rows, 7)
    for number in range(7):
        assert member[indptr[number] : indptr[number + 1]].tolist() == np.flatnonzero(rows == number).tolist()
