import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnabm.errors import DataError, ShapeError
from gnabm.sensitivity import allocate, project, refine

GAINS = st.lists(st.floats(0, 1e3), min_size=1, max_size=8)
SHARE = st.floats(0, 1)


def vector(values):
    return torch.tensor(values, dtype=torch.float64)


@given(GAINS, SHARE)
def test_the_budget_is_spent_and_no_layer_is_closed_more_than_wholly(gains, share):
    budget = share * len(gains)
    for found in (allocate(vector(gains), budget), project(vector(gains), budget)):
        assert float(found.sum()) == pytest.approx(budget, abs=1e-6)
        assert bool((found >= 0).all()) and bool((found <= 1 + 1e-12).all())


def test_reductions_are_in_proportion_to_gains():
    assert allocate(vector([1, 2, 5]), 0.8).tolist() == pytest.approx([0.1, 0.2, 0.5])


def test_what_is_above_a_whole_layer_goes_to_the_others_in_proportion():
    assert allocate(vector([1, 3, 16]), 2.0).tolist() == pytest.approx([0.25, 0.75, 1.0])


def test_layers_that_gain_nothing_come_last():
    assert allocate(vector([0, -3, 4]), 0.6).tolist() == pytest.approx([0, 0, 0.6])
    assert allocate(vector([0, -3, 4]), 1.6).tolist() == pytest.approx([0.3, 0.3, 1.0])


def test_costs_count_in_the_budget():
    found, cost = allocate(vector([1, 1]), 1.5, vector([2, 1])), vector([2, 1])
    assert float((found * cost).sum()) == pytest.approx(1.5)
    assert found.tolist() == pytest.approx([0.5, 0.5])


def test_projection_keeps_what_costs_the_budget_already():
    assert project(vector([0.2, 0.5, 0.3]), 1.0).tolist() == pytest.approx([0.2, 0.5, 0.3])


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_no_other_allocation_of_the_same_cost_is_nearer_than_the_projection(wanted, random):
    budget = 0.4 * len(wanted)
    nearest = (project(vector(wanted), budget) - vector(wanted)).norm()
    for _ in range(20):
        other = allocate(vector([random.random() for _ in wanted]), budget)
        assert nearest <= (other - vector(wanted)).norm() + 1e-6


def test_what_cannot_be_spent_is_refused():
    with pytest.raises(DataError, match="between 0 and 2"):
        allocate(vector([1, 1]), 2.5)
    with pytest.raises(DataError, match="positive"):
        project(vector([1, 1]), 1.0, vector([1, 0]))
    for work in (allocate, project):
        for wrong in (math.nan, math.inf):
            with pytest.raises(DataError, match="finite"):
                work(vector([1, wrong]), 1.0)
            with pytest.raises(DataError, match="finite"):
                work(vector([1, 1]), 1.0, vector([1, wrong]))
    with pytest.raises(DataError, match="finite"):
        refine(lambda reductions: vector([1, math.nan]), vector([1, 1]), 1.0)
    with pytest.raises(ShapeError):
        allocate(vector([1, 1]), 1.0, vector([1]))


def test_steps_along_a_constant_gain_close_the_layer_that_prevents_most():
    found = refine(lambda reductions: vector([1, 5, 2]), vector([1, 1, 1]) / 3, 1.0)
    assert found.tolist() == pytest.approx([0, 1, 0], abs=1e-6)


def test_steps_stay_where_all_layers_prevent_the_same():
    start = vector([0.2, 0.3, 0.5])
    assert refine(lambda reductions: vector([2, 2, 2]), start, 1.0).tolist() == pytest.approx(start.tolist())
