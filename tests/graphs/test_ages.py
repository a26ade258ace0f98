"""Ages within households: only handed on, in the proportions of the stated weight, alike for partners."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from graphs.ages import closeness, exchange_ages
from graphs.sources import load_country

NZ = load_country("New Zealand")
CLOSE = closeness(NZ)


def homes_of(population):
    """Ages, household of each, and per household size, youngest and oldest."""
    age = np.asarray(population.columns["age"][:]).astype(np.int64)
    indptr = np.asarray(population.contacts["home"].indptr[:])
    size, first = np.diff(indptr), indptr[:-1]
    return (
        age,
        np.repeat(np.arange(len(size)), size),
        size,
        np.minimum.reduceat(age, first),
        np.maximum.reduceat(age, first),
    )


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 1)), min_size=1, max_size=60), st.integers(0, 2**64 - 1))
def test_ages_change_hands_within_a_band_and_nothing_else(rows, key):
    age = np.array([row[0] for row in rows], np.uint8)
    home = np.cumsum([row[1] for row in rows]).astype(np.int32)
    home -= home[0]
    made = exchange_ages(age, home, CLOSE, key)
    np.testing.assert_array_equal(np.minimum(made // 10, 7), np.minimum(age // 10, 7))
    np.testing.assert_array_equal(np.sort(made), np.sort(age))
    np.testing.assert_array_equal(made, exchange_ages(age, home, CLOSE, key))


def test_deals_come_in_proportion_to_the_closeness_of_their_households():
    age = np.array([30, 33, 39, 5, 36], np.uint8)  # homes: {0, 1}, {2, 3}, {4}; the child stays where it is
    home = np.array([0, 0, 1, 1, 2], np.int32)
    weight = {}
    for deal in permutations((30, 33, 39, 36)):
        pair, parent = sorted(deal[:2]), deal[2]
        key = (*pair, parent)
        weight[key] = weight.get(key, 0.0) + CLOSE[0, pair[1] - pair[0]] * CLOSE[0, parent - 5]
    draws = [
        exchange_ages(age, home, CLOSE, key, rounds=40) for key in np.random.default_rng(1).integers(0, 2**63, 4000)
    ]
    seen = [(*sorted(made[:2].tolist()), int(made[2])) for made in draws]
    total = sum(weight.values())
    observed = [seen.count(key) for key in weight]
    assert chisquare(observed, [4000 * value / total for value in weight.values()]).pvalue > 1e-3


def test_two_children_follow_the_spacing_of_births_and_not_that_of_partners():
    age = np.array([0, 1, 2, 3, 9, 8, 5, 5], np.uint8)
    home = np.repeat(np.arange(4), 2).astype(np.int32)
    assert CLOSE.shape == (2, 101)
    assert (CLOSE > 0).all()
    assert CLOSE[1].argmax() in (2, 3)
    assert CLOSE[1, 0] < CLOSE[1, 3] / 5  # twins are rare
    made = [exchange_ages(age, home, CLOSE, key, rounds=20).reshape(-1, 2) for key in range(400)]
    gaps = np.abs(np.diff(np.array(made, np.int64), axis=2)).ravel()
    assert (gaps == 0).mean() < 0.05


def test_parents_are_about_thirty_years_older_than_children():
    apart = np.arange(12, 46)
    assert apart[CLOSE[0, apart].argmax()] in range(28, 34)


def test_partners_are_of_like_age(population):
    _, _, size, youngest, oldest = homes_of(population)
    pairs = (size == 2) & (youngest >= 20) & (oldest < 70) & (oldest // 10 - youngest // 10 <= 1)
    gap = (oldest - youngest)[pairs]
    assert 3.0 < gap.mean() < 4.5
    assert (gap <= 10).mean() > 0.95


def test_young_children_have_a_parent_18_to_45_years_older(population):
    age, home, size, _, oldest = homes_of(population)
    adult = age >= 20
    couples = (np.bincount(home, adult) == 2) & (size >= 3) & (oldest < 60)
    parents = age[adult & couples[home]].reshape(-1, 2)
    number = np.cumsum(couples) - 1
    child = np.flatnonzero((age < 10) & couples[home])
    apart = parents[number[home[child]]] - age[child][:, None]
    fits = (apart >= 18) & (apart <= 45)
    assert fits.any(axis=1).mean() > 0.98
    assert fits.all(axis=1).mean() > 0.92


def test_brothers_and_sisters_are_rarely_of_one_age(population):
    age, home, size, _, _ = homes_of(population)
    young = age < 20
    two = np.bincount(home, young, minlength=len(size)) == 2
    gap = np.abs(np.diff(age[young & two[home]].reshape(-1, 2))).ravel()
    assert (gap == 0).mean() < 0.03
    assert np.median(gap) == pytest.approx(3, abs=1)
