"""Whole households: every region, band and size holds exactly its people for any number of agents."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnabm.errors import DataError
from graphs.compositions import band_shares, fit, size_shares
from graphs.households import count_sizes, deal_districts, make_households
from graphs.rounding import largest_remainder
from graphs.sources import load_country

NZ = load_country("New Zealand")


@settings(max_examples=4, deadline=None)
@given(st.integers(2000, 60_000))
def test_regions_bands_and_sizes_are_exact(num_agents):
    made = make_households(NZ, num_agents)
    size = made.people.sum(axis=1)
    np.testing.assert_array_equal(made.by_region @ size, largest_remainder(NZ.residents, num_agents))
    people = np.einsum("c,cb->b", made.count, made.people)
    np.testing.assert_array_equal(people, largest_remainder(band_shares(NZ), num_agents))
    np.testing.assert_array_equal(made.by_region.sum(axis=0), made.count)
    counts = np.bincount(size, made.count, minlength=9)[1:]
    np.testing.assert_array_equal(counts, count_sizes(NZ, num_agents))
    wanted = size_shares(NZ) * counts.sum()
    wanted[1:3] = counts[1:3]  # a person more or less in some of these makes the agents exact
    assert np.abs(counts - wanted).max() < 1


@settings(max_examples=6, deadline=None)
@given(st.integers(1000, 300_000))
def test_young_people_follow_the_students_of_their_region(num_agents):
    made = make_households(NZ, num_agents)
    young = (made.by_region @ made.people)[:, :2].sum(axis=1)
    wanted = NZ.students.sum(axis=1) / NZ.students.sum() * young.sum()
    assert np.abs(young - wanted).max() <= 15  # households are whole, and walked size by size
    assert np.corrcoef(young, wanted)[0, 1] > 0.99


def test_each_composition_keeps_its_weight_in_the_whole_country():
    made, kinds = make_households(NZ, 5_174_700), fit(NZ)
    assert np.abs(made.count - kinds.weight * made.count.sum()).max() < 40  # of 1,953,000 households
    apart = np.abs(made.count / made.count.sum() - kinds.weight).sum() / 2
    assert apart < 0.002


def test_regions_hold_households_in_the_proportions_of_the_census():
    made = make_households(NZ, 1_000_000)
    homes = made.by_region.sum(axis=1)
    grown = NZ.households * NZ.growth
    np.testing.assert_allclose(homes / homes.sum(), grown / grown.sum(), rtol=0.01)


@pytest.mark.parametrize("districts", [1, 2, 3, 7, 12])
def test_districts_of_a_region_are_alike(districts):
    made = make_households(NZ, 1_000_000)
    count = made.by_region[1]
    dealt = deal_districts(made.people, count, districts)
    np.testing.assert_array_equal(dealt.sum(axis=0), count)
    size = made.people.sum(axis=1)
    by_size = np.stack([np.bincount(size, each, minlength=9) for each in dealt])
    assert np.ptp(by_size, axis=0).max() <= 1
    bands = dealt @ made.people
    assert (np.ptp(bands, axis=0) / bands.mean(axis=0)).max() <= 0.05


def test_too_few_agents_for_the_sizes_of_a_country_are_refused():
    with pytest.raises(DataError, match="1 agents are too few"):
        count_sizes(NZ, 1)
