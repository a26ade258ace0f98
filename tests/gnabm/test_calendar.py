"""Contacts of layers by weekday and school term."""

from datetime import date, datetime

import numpy as np
import pytest

from gnabm.models.calendar import Calendar, school_terms
from gnabm.rule import Step
from gnabm.sampling import Hard

START = date(2022, 1, 20)


def factor(calendar, day, dt=1.0, layers=("class", "team")):
    start = datetime(2022, 1, 20)
    index = round((day - start.date()).days / dt)
    return calendar.factors(Step(index, dt, 0, {}, start, "r", None, Hard(), None), list(layers))


WEEK = Calendar.of(
    {"weekly": {"class": [1, 1, 1, 1, 1, 0, 0], "team": [2, 2, 2, 2, 2, 1, 1]}, "closed_in_holidays": ["class"],
     "school_terms": "New Zealand"}
)  # fmt: skip


def test_a_week_in_term_has_the_contacts_of_seven_average_days():
    days = [factor(WEEK, date(2022, 3, 7 + d)) for d in range(7)]
    assert [d["class"] for d in days] == pytest.approx([1.4] * 5 + [0, 0])
    assert sum(d["team"] for d in days) == pytest.approx(7)


def test_classes_close_in_holidays_and_teams_do_not():
    found = factor(WEEK, date(2022, 4, 19))
    assert found["class"] == 0 and found["team"] == pytest.approx(14 / 12)


def test_weekly_numbers_can_be_used_as_they_are():
    plain = Calendar.of({"weekly": {"team": [1, 1, 1, 1, 1, 0.5, 0]}, "average_day": False})
    assert factor(plain, date(2022, 3, 12)) == {"team": 0.5}


@pytest.mark.parametrize("dt", [0.25, 0.5, 2.0, 7.0, 10.0])
def test_a_step_has_the_mean_of_its_days(dt):
    days = [factor(WEEK, date.fromordinal(START.toordinal() + d))["class"] for d in range(70)]
    steps = [
        WEEK.factors(Step(i, dt, 0, {}, datetime(2022, 1, 20), "r", None, Hard(), None), ["class", "team"])["class"]
        for i in range(int(70 / dt))
    ]
    per_step = max(int(dt), 1)
    expected = np.repeat(days, max(int(1 / dt), 1)).reshape(-1, per_step).mean(1)
    assert steps == pytest.approx(expected.tolist())


def test_terms_of_a_country_ascend_and_do_not_overlap():
    days = [day for term in school_terms("New Zealand") for day in term]
    assert days == sorted(days) and len(set(days)) == len(days)
    lengths = [(last - first).days for first, last in school_terms("New Zealand")]
    assert all(60 <= n <= 80 for n in lengths)
