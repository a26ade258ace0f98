"""Quantities with units as a config writes them: `0.3 per contact`, `0.1 per day`, `1 day`.

Inside gnabm durations are days (float) and rates are per day; a rate per contact is a pure number.
"""

from __future__ import annotations

import re

from gnabm.errors import ConfigError, nearest

DAYS = {"second": 1 / 86400, "minute": 1 / 1440, "hour": 1 / 24, "day": 1.0, "week": 7.0, "year": 365.25}
_QUANTITY = re.compile(r"^\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(per\s+)?([a-zA-Z]*)\s*$")


def quantity(text: str | float | int, where: str = "value") -> float:
    """Parse a number with an optional unit into gnabm's units (days, per day, per contact).

    Args:
        text: A bare number, a duration (`2 weeks` -> 14.0), a rate (`0.7 per week` -> 0.1) or a number `per contact`.
        where: Name of the config key, for the error.

    Raises:
        ConfigError: The text is no quantity or its unit is unknown.

    Example:
        >>> quantity("2 weeks"), quantity("0.7 per week"), quantity("0.3 per contact")
        (14.0, 0.09999999999999999, 0.3)
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return float(text)
    match = _QUANTITY.match(str(text))
    if match is None:
        raise ConfigError(f"{where}: expected a number with a unit such as '0.1 per day' or '1 day', got {text!r}")
    number, per, unit = float(match[1]), match[2], match[3].lower().removesuffix("s")
    if unit in ("", "contact") and (unit == "contact") == bool(per):
        return number
    if unit not in DAYS:
        raise ConfigError(f"{where}: unknown unit in {text!r}; {nearest(unit, [*DAYS, 'per contact'])}")
    return number / DAYS[unit] if per else number * DAYS[unit]
