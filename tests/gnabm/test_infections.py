"""What follows from a line list, on lists whose answers are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnabm.errors import DataError
from gnabm.infections import (
    cohort_reproduction,
    generation_intervals,
    horizon,
    renewal_reproduction,
    secondary_cases,
    share_by_layer,
)
from gnabm.linelist import Legend, as_frame, in_order

LAYERS = ("home", "work", "Seed", "Import")


def line_list(*records):
    """From (agent, step, infector, layer), in any order."""
    agent, step, infector, layer = zip(*records, strict=True) if records else ((), (), (), ())
    batch = {
        "agent": np.array(agent, dtype=np.int64), "step": np.array(step, dtype=np.int32),
        "infector": np.array(infector, dtype=np.int64),
        "layer": np.array([LAYERS.index(name) for name in layer], dtype=np.int16),
    }  # fmt: skip
    return as_frame(in_order([batch]), Legend(LAYERS, None, 1.0, None))


# Seed 9 infects 4 and 5 in step 0, 4 infects 6, 7, 8 in steps 2 and 3, 5 nobody; 6 infects 9 a second time in step 5,
# who infects 1 in step 6; 2 comes from outside in step 6.
STORY = line_list(
    (9, -1, -1, "Seed"), (4, 0, 9, "home"), (5, 0, 9, "work"), (6, 2, 4, "home"), (7, 2, 4, "work"), (8, 3, 4, "home"),
    (9, 5, 6, "work"), (1, 6, 9, "home"), (2, 6, -1, "Import"),
)  # fmt: skip
EMPTY = line_list()


def test_a_cohort_has_the_mean_number_of_those_it_infected():
    nan = np.nan
    np.testing.assert_array_equal(cohort_reproduction(STORY, 8, 0), [1.5, nan, 0.5, 0, nan, 1, 0, nan])
    np.testing.assert_array_equal(cohort_reproduction(STORY, 8, 3), [1.5, nan, 0.5, 0, nan, nan, nan, nan])
    assert np.isnan(cohort_reproduction(STORY, 8, 20)).all()
    assert np.isnan(cohort_reproduction(EMPTY, 3, 1)).all()
    assert cohort_reproduction(EMPTY, 0, 1).shape == (0,)


def test_generation_intervals_start_from_the_latest_infection_of_the_infector():
    # 9 to 4 and 5: 1 step each; 4 to 6 and 7: 2, to 8: 3; 6 to 9: 3; 9, infected again in step 5, to 1: 1.
    assert generation_intervals(STORY).tolist() == [0, 3, 2, 2]
    assert generation_intervals(EMPTY).tolist() == [0]


def test_each_infection_of_an_agent_has_its_own_secondary_cases():
    assert secondary_cases(STORY, 8).tolist() == [5, 2, 1, 1]  # 9 first 2, 4 3, 6 1, 9 then 1, five nobody
    assert secondary_cases(STORY, 0).tolist() == [1, 0, 1, 1]
    assert secondary_cases(EMPTY, 3).tolist() == [0]


def test_infectors_that_are_in_no_record_have_no_interval():
    records = line_list((4, 2, 77, "home"), (5, 3, 4, "home"))
    assert generation_intervals(records).tolist() == [0, 1]
    assert secondary_cases(records, 9).tolist() == [1, 1]


def test_shares_leave_out_the_initial_ones_and_sum_to_one():
    assert share_by_layer(STORY) == {"home": 4 / 8, "work": 3 / 8, "Import": 1 / 8}
    assert share_by_layer(STORY[STORY.step < 0]) == {}


@st.composite
def histories(draw):
    """Agents infected, perhaps again, by anyone who was infected before, or by nobody."""
    records, ever = [], []
    for step in range(-1, 7):
        fresh = draw(st.lists(st.integers(0, 6), max_size=3, unique=True))
        records += [(a, step, draw(st.sampled_from([-1, 50, *ever])), "home") for a in fresh]
        ever += fresh
    return records


@given(histories())
def test_analyses_equal_their_definitions(records):
    frame = line_list(*records)
    origin = {}
    for agent, step, infector, _ in records:
        before = [s for a, s, _, _ in records if a == infector and s < step]
        origin[agent, step] = (infector, max(before)) if before else None
    made = [where for where in origin.values() if where is not None]
    number = {case: made.count(case) for case in origin}
    intervals = [step - where[1] for (_, step), where in origin.items() if where is not None]
    assert generation_intervals(frame).tolist() == np.bincount(intervals or [], minlength=1).tolist()
    counted = [n for (_, step), n in number.items() if step <= 3]
    assert secondary_cases(frame, 3).tolist() == np.bincount(counted or [], minlength=1).tolist()
    for step, value in enumerate(cohort_reproduction(frame, 7, 2)):
        cohort = [n for (_, s), n in number.items() if s == step]
        known = bool(cohort) and step < 5
        assert np.isnan(value) if not known else value == pytest.approx(np.mean(cohort))


def test_the_horizon_is_the_step_by_which_nearly_all_infections_are_made():
    assert horizon([0.5, 0.3, 0.15, 0.05]) == 4
    assert horizon([0.5, 0.3, 0.15, 0.05], 0.95) == 3
    assert horizon([0.5, 0.3, 0.2, 0.0], 1.0) == 3
    assert horizon([1.0]) == 1


def test_renewal_finds_the_number_that_made_the_incidence():
    g = np.array([0.2, 0.5, 0.3])
    number = np.array([1.8, 1.8, 1.8, 1.1, 0.7, 0.7, 0.7, 2.0])
    incidence = [100.0]
    for t in range(1, 9):
        incidence.append(number[t - 1] * sum(g[s - 1] * incidence[t - s] for s in (1, 2, 3) if t >= s))
    found = renewal_reproduction(incidence, g)
    assert np.isnan(found[0])
    np.testing.assert_allclose(found[1:], number)
    assert np.isnan(renewal_reproduction([0, 0, 0], g)).all()
    assert renewal_reproduction([], g).shape == (0,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: renewal_reproduction([1, -1], [1.0]), "one number >= 0"),
        (lambda: renewal_reproduction([[1, 1]], [1.0]), "sum over regions"),
        (lambda: renewal_reproduction([1, 1], [0.5]), "must sum to 1, got 0.5"),
        (lambda: horizon([]), "K >= 1"),
        (lambda: horizon([1.0], 0), "share must lie"),
        (lambda: cohort_reproduction(STORY, 3, -1), "horizon must be >= 0"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(DataError, match=message):
        call()
