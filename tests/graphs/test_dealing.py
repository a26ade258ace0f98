"""Dealing households out over regions: margins exact, young people where they are wanted."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.dealing import deal_homes, young_shares


def made_country(seed, regions=5, sizes=4):
    """(homes, country, young) of a country whose table is known to exist: drawn with tilts of its own."""
    rng = np.random.default_rng(seed)
    number = np.arange(sizes + 1)
    tilt = rng.uniform(-1, 1, regions)
    base = rng.uniform(1, 5, (sizes, sizes + 1)) * (number <= np.arange(1, sizes + 1)[:, None])
    table = np.rint(100 * base * np.exp(tilt[:, None, None] * number)).astype(np.int64)
    return table.sum(axis=2), table.sum(axis=0), (table * number).sum(axis=(1, 2)), table


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_expected_households_have_all_three_margins(seed):
    homes, country, young, _ = made_country(seed)
    made = young_shares(homes, country, young)
    np.testing.assert_allclose(made.sum(axis=0), country, rtol=1e-9)
    np.testing.assert_allclose(made.sum(axis=2), homes, rtol=1e-6)
    np.testing.assert_allclose((made * np.arange(5)).sum(axis=(1, 2)), young, rtol=1e-6)


def test_a_table_that_was_made_by_tilts_is_found_again():
    homes, country, young, table = made_country(7)
    np.testing.assert_allclose(young_shares(homes, country, young), table, atol=3)  # it was rounded to whole homes


def test_without_a_tilt_every_region_has_its_even_part():
    homes, country, _, _ = made_country(3)
    share = country / country.sum(axis=1, keepdims=True)
    even = homes[:, :, None] * share
    np.testing.assert_allclose(young_shares(homes, country, (even * np.arange(5)).sum(axis=(1, 2))), even, rtol=1e-7)


def test_what_is_out_of_reach_ends_at_a_bound_and_keeps_the_country():
    homes, country = np.array([[4], [6]]), np.array([[5, 5]])
    made = young_shares(homes, country, np.array([9.0, -4.0]))
    np.testing.assert_allclose(made.sum(axis=0), country)
    assert np.isfinite(made).all()
    assert made[0, 0, 1] > 3


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(1, 30), st.integers(0, 2**32))
def test_the_deal_of_whole_households_meets_its_margins(regions, kinds, seed):
    rng = np.random.default_rng(seed)
    count = rng.integers(0, 40, kinds)
    share = rng.dirichlet(np.ones(regions), kinds)
    room = rng.multinomial(count.sum(), np.full(regions, 1 / regions))
    dealt = deal_homes(count, share, room)
    np.testing.assert_array_equal(dealt.sum(axis=0), count)
    np.testing.assert_array_equal(dealt.sum(axis=1), room)
    np.testing.assert_array_equal(dealt, deal_homes(count, share, room))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 8), st.integers(0, 2**32))
def test_a_deal_with_room_stays_near_its_expectation_all_the_way(regions, seed):
    rng = np.random.default_rng(seed)
    count, share = rng.integers(1, 40, 25), rng.dirichlet(np.ones(regions), 25)
    total = int(count.sum())
    dealt = deal_homes(count, share, np.full(regions, total))
    ahead = np.cumsum(dealt.T - count[:, None] * share, axis=0)
    assert ahead.max() <= 1.0
    assert ahead.min() > -np.log(regions) - 1
