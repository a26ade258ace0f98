"""Pairs counted by size of place: the meetings of the layer, in any parts."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnabm.contacts import Places
from graphs.counts import PlaceCounts
from graphs.meetings import meetings


def layer_of(seed, contacts):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 4, 400).astype(np.uint8)
    return Places.of(rng.integers(-1, 40, 400), contacts, num_places=40), group


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.floats(0.1, 30.0))
def test_counted_pairs_weigh_what_the_layer_weighs(seed, contacts):
    layer, group = layer_of(seed, contacts)
    counts = PlaceCounts.of(layer.indptr, group[layer.member], 4)
    np.testing.assert_allclose(counts.meetings(contacts), meetings(layer, group, 4), rtol=1e-12)
    np.testing.assert_array_equal(counts.by_size, np.bincount(np.diff(layer.indptr)))


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 40), min_size=1, max_size=4))
def test_parts_add_to_the_whole_in_any_order(seed, cuts):
    layer, group = layer_of(seed, 3.0)
    ends = [0, *sorted(cuts), 40]
    parts = [
        PlaceCounts.of(
            layer.indptr[first : last + 1] - layer.indptr[first],
            group[layer.member[layer.indptr[first] : layer.indptr[last]]],
            4,
        )
        for first, last in pairwise(ends)
    ]
    whole = PlaceCounts.of(layer.indptr, group[layer.member], 4)
    for order in (parts, parts[::-1]):
        made = order[0]
        for part in order[1:]:
            made = made + part
        for name in ("size", "places", "pairs"):
            np.testing.assert_array_equal(getattr(made, name), getattr(whole, name))


def test_one_alone_meets_nobody():
    counts = PlaceCounts.of(np.array([0, 1, 3]), np.array([0, 1, 1], np.uint8), 2)
    assert counts.meetings(1.0) == pytest.approx(np.array([[0.0, 0.0], [0.0, 2.0]]))
