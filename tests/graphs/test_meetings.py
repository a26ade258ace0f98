"""Who meets whom by group: pieces of any length give the same, and what is in no group is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphs
from gnabm.contacts import Contacts, Places
from gnabm.errors import DataError
from gnabm.population import Population
from graphs import meetings as module
from graphs.meetings import codes, indptr_pieces, meetings, pairs
from graphs.mixing import NUM_GROUPS, activity_group


@settings(max_examples=60)
@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 12))
def test_pieces_of_an_indptr_hold_every_place_once_and_few_members(sizes, block):
    indptr = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        parts = list(indptr_pieces(indptr))
    assert [n for part in parts for n in np.diff(part)] == sizes
    assert all(part[-1] - part[0] <= block or len(part) == 2 for part in parts)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), st.integers(0, 200), st.integers(1, 50), st.booleans(), st.integers(0, 2**32))
def test_pairs_do_not_hang_on_the_pieces_in_which_a_layer_is_read(number, edges, block, weighted, seed):
    rng = np.random.default_rng(seed)
    source = rng.integers(0, number, edges)
    target = (source + rng.integers(1, number, edges)) % number
    weight = rng.uniform(0, 3, edges) if weighted else None
    graph = Contacts.from_edges(source, target, weight, num_agents=number, duplicates="sum")
    (edge_layer,) = graph.layers.values()
    places = Places.of(rng.integers(-1, 6, number), 2.0, activity=rng.uniform(0.1, 3, number).astype(np.float32))
    group = rng.integers(0, 3, number).astype(np.uint8)
    for layer in (edge_layer, places):
        whole = pairs(layer, group, 3)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_BLOCK", block)
            for made, expected in zip(pairs(layer, group, 3), whole, strict=True):
                np.testing.assert_array_equal(made, expected)
    expected = np.zeros((3, 3))
    np.add.at(expected, (group[target], group[source]), 1.0 if weight is None else weight)
    np.testing.assert_allclose(meetings(edge_layer, group, 3), expected, rtol=1e-5)


def test_more_than_256_activities_weigh_as_they_are():
    rng = np.random.default_rng(3)
    place, active = rng.integers(0, 50, 600), rng.uniform(0.5, 2, 600).astype(np.float32)
    made = meetings(Places.of(place, activity=active), np.zeros(600, np.uint8), 1)
    sums, squares = (np.bincount(place, active.astype(float) ** power) for power in (1, 2))
    assert made[0, 0] == pytest.approx((sums**2 - squares).sum(), rel=1e-6)


@pytest.mark.parametrize("age", [[30, -4, 2], [30, -1280, 2], [30.0, np.nan, 2.0]])
def test_an_age_in_no_group_is_refused_by_the_name_of_its_column(age):
    with pytest.raises(DataError, match=r"column 'age': row 1 has .* in none of 16 groups; give"):
        codes("age", np.array(age), NUM_GROUPS, activity_group)
    layers = {"home": Places.of(np.zeros(3, np.int32))}
    population = Population(3, {"age": np.array(age)}, Contacts(layers, 3))
    for reads in (graphs.encounters, graphs.contact_matrices, graphs.summarise):
        with pytest.raises(DataError, match="column 'age': row 1"):
            reads(population)


def test_ages_of_any_type_have_the_same_groups():
    age = np.array([0, 4, 5, 74, 75, 100])
    for kind in (np.uint8, np.int64, np.float32):
        assert codes("age", age.astype(kind), NUM_GROUPS, activity_group).tolist() == [0, 0, 1, 14, 15, 15]
