"""Contacts per visit and mutual matrices against closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.mixing import reciprocal, visit_contacts

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=12).map(np.array)


def made(contacts, sizes):
    return sum((np.minimum(c, size - 1) * size).sum() for c, size in zip(contacts, sizes, strict=True))


@given(SIZES, SIZES, st.floats(0.1, 0.9), st.floats(0.0, 0.95))
def test_contacts_per_visit_add_up_to_the_total_in_their_shares(inner, outer, share, filled):
    most = made((np.inf, np.inf), (inner, outer))
    found = visit_contacts(filled * most, (share, 1 - share), (np.bincount(inner), np.bincount(outer)))
    assert made(found, (inner, outer)) == pytest.approx(filled * most, rel=1e-4, abs=1e-2)
    assert found[0] * (1 - share) == pytest.approx(found[1] * share, abs=1e-5)


def test_contacts_per_visit_of_equal_places_are_the_mean_that_is_wanted():
    assert visit_contacts(60.0, (1.0,), (np.bincount(np.full(4, 5)),)) == pytest.approx([3.0])


def test_out_of_reach_everybody_meets_everybody():
    (found,) = visit_contacts(1e9, (0.5,), (np.bincount([2, 7]),))
    assert found >= 6


def test_a_layer_without_places_leaves_the_contacts_to_the_other():
    none = np.empty(0, np.int64)
    assert visit_contacts(60.0, (0.5, 0.5), (none, np.bincount(np.full(4, 5))))[1] == pytest.approx(3.0)


def test_mutual_contacts_are_the_mean_of_what_both_sides_report():
    matrix, people = np.array([[2.0, 1.0], [4.0, 3.0]]), np.array([10, 5])
    made = reciprocal(matrix, people) * people[:, None]
    np.testing.assert_allclose(made, [[20.0, 15.0], [15.0, 15.0]])


def test_a_group_without_people_has_no_contacts():
    assert reciprocal(np.ones((2, 2)), np.array([4, 0])).tolist() == [[1.0, 0.0], [0.0, 0.0]]
