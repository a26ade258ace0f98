"""How long stages last in whole steps, and the courses of one stage and of two."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gnabm.errors import DataError
from gnabm.models.durations import Duration, one_stage, two_stages


@settings(max_examples=25)
@given(mean=st.floats(0.3, 40), ratio=st.floats(0.2, 1.2), dt=st.sampled_from([0.25, 0.5, 1.0, 2.0]))
def test_a_duration_keeps_its_mean_to_what_rounding_and_one_step_at_least_add(mean, ratio, dt):
    law = Duration(mean, mean * ratio).pmf(dt)
    steps = np.arange(1, law.size + 1)
    assert law.sum() == pytest.approx(1, abs=1e-12) and (law >= 0).all()
    a, scale = ratio**-2, mean * ratio**2
    rounded = np.maximum(np.round(stats.gamma.ppf(np.linspace(0, 1, 4_003)[1:-1], a, scale=scale) / dt), 1)
    assert (law * steps).sum() * dt == pytest.approx(rounded.mean() * dt, rel=0.02)


@pytest.mark.parametrize("dt", [0.1, 0.25, 0.5, 1.0, 3.0])
def test_a_duration_without_spread_is_one_of_the_two_steps_around_its_mean(dt):
    law = Duration(5.14).pmf(dt)
    assert (law > 1e-9).sum() <= 2
    assert (law * np.arange(1, law.size + 1)).sum() * dt == pytest.approx(5.14)


def test_a_duration_shorter_than_a_step_takes_one():
    assert Duration(0.3).pmf(1.0).tolist() == [1.0]


@pytest.mark.parametrize("values", [(0.0,), (-1.0, 2.0), (3.0, 0.0), (float("nan"),), (2.0, float("inf"))])
def test_a_duration_is_positive(values):
    with pytest.raises(DataError, match="must be a positive number of days"):
        Duration(*values)


@pytest.mark.parametrize("length", [6, 25])
def test_courses_of_two_stages_are_those_of_all_pairs_of_durations(length):
    first, second = np.array([0.2, 0.5, 0.3]), np.array([0.1, 0.0, 0.4, 0.5])
    probability, before, after = two_stages(first, second, length)
    steps = np.arange(1, length + 1)
    pairs = [(p * q, a, b) for a, p in enumerate(first, 1) for b, q in enumerate(second, 1) if p * q]
    expected = {(*(steps <= a), *((steps > a) & (steps <= a + b))): p for p, a, b in pairs}
    found = {(*x, *y): p for x, y, p in zip(before, after, probability, strict=True)}
    assert found == pytest.approx(expected)


def test_grouped_courses_keep_the_mean_of_each_step():
    law = Duration(90.0, 40.0).pmf(1.0)
    probability, inside = one_stage(law, 400)
    assert probability.size == 32
    lasting = np.zeros(400)
    lasting[: law.size] = law[::-1].cumsum()[::-1][:400]
    assert probability @ inside == pytest.approx(lasting, abs=1e-9)


# Derivatives of the law


@settings(max_examples=40)
@given(mean=st.floats(0.5, 40), ratio=st.floats(0.15, 1.3), dt=st.sampled_from([0.25, 1.0, 2.0]))
def test_the_score_is_the_derivative_of_the_logarithm_of_the_law(mean, ratio, dt):
    law = Duration(mean, mean * ratio)
    steps, score = law.pmf(dt), law.score(dt)
    assert score.shape == (steps.size, 2)
    common = np.flatnonzero(steps > 1e-4)
    common = common[common < steps.size - 1]
    for which, width in enumerate((mean * 1e-4, mean * ratio * 1e-4)):
        up, down = (Duration(mean + s * width * (which == 0), mean * ratio + s * width * (which == 1)) for s in (1, -1))
        found = (up.pmf(dt)[common] - down.pmf(dt)[common]) / (2 * width) / steps[common]
        assert score[common, which] == pytest.approx(found, rel=1e-4, abs=1e-4 / mean)
    # A score has mean 0, since the law always adds up to 1.
    assert steps @ score == pytest.approx([0, 0], abs=1e-7 / min(mean * ratio, 1))


@pytest.mark.parametrize("dt", [0.5, 1.0])
def test_the_score_of_an_exponential_duration_is_the_closed_form(dt):
    mean, law = 4.0, Duration(4.0, 4.0)
    # Along mean = sd the law is exponential: P(w) = e^(-x/m) (1 - e^(-dt/m)) with x = (w - 1/2) dt, w > 1.
    x = (np.arange(2, 60) - 0.5) * dt
    closed = x / mean**2 - dt / mean**2 * np.exp(-dt / mean) / -np.expm1(-dt / mean)
    first = -1.5 * dt / mean**2 * np.exp(-1.5 * dt / mean) / -np.expm1(-1.5 * dt / mean)
    assert law.score(dt)[:59].sum(1) == pytest.approx([first, *closed], rel=1e-8, abs=1e-10)


@pytest.mark.parametrize(("mean", "dt"), [(5.14, 1.0), (5.14, 0.25), (0.9, 0.5)])
def test_the_score_of_a_duration_without_spread_lengthens_it_by_what_the_mean_grows(mean, dt):
    law = Duration(mean)
    steps, score = law.pmf(dt), law.score(dt)
    assert (steps * score[:, 0] * np.arange(1, steps.size + 1)).sum() * dt == pytest.approx(1)
    assert (score[:, 1] == 0).all()


@pytest.mark.parametrize("law", [Duration(5.0), Duration(0.3)])
def test_a_duration_that_is_certain_has_no_score(law):
    assert (law.score(1.0) == 0).all()


def test_what_cannot_be_drawn_has_no_score():
    law = Duration(40.0, 0.5)
    assert law.pmf(1.0)[0] == 0 and np.isfinite(law.score(1.0)).all()
