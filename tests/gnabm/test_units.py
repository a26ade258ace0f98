"""Quantities carry units."""

import pytest

from gnabm.errors import ConfigError
from gnabm.units import quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 weeks", 14.0), ("1 day", 1.0), ("12 hours", 0.5), ("365.25 days", 365.25), ("0.7 per week", 0.1),
        ("0.3 per contact", 0.3), ("24 per hour", 576.0), ("3", 3.0), (4, 4.0), (0.5, 0.5), ("1e-3 per day", 0.001),
        ("-.5", -0.5), ("  2   per year ", 2 / 365.25),
    ],
)  # fmt: skip
def test_quantities_are_in_days_and_per_day(text, value):
    assert quantity(text) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("text", ["", "day", "0.1 per", "0.1 / day", "one day", "1 2", "0.1 contact", True, None])
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(ConfigError, match="recovery_rate"):
        quantity(text, "recovery_rate")


def test_an_unknown_unit_names_its_neighbour():
    with pytest.raises(ConfigError, match="did you mean 'week'"):
        quantity("0.1 per wek")
