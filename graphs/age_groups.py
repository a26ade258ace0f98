"""Ten-year age groups: the one place that derives them from ages, and the order of groups that came as text."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnabm.agents import Field

AGE_GROUPS = (*(f"{10 * decade}-{10 * decade + 9}" for decade in range(8)), "80+")
FIELD = Field("age_group", "ten-year age group", categories=AGE_GROUPS)
_RANGE = re.compile(r"\s*(<|under\b|below\b)?\s*(\d+)\s*(?:\+|(?:[-–]|to\b|and\b|or\b).*)?\s*", re.IGNORECASE)  # noqa: RUF001


def age_group(age: NDArray[Any]) -> NDArray[np.uint8]:
    """Code of the ten-year group of each age.

    Args:
        age: (n,) years, 0 or more.

    Returns:
        (n,) uint8 index into `AGE_GROUPS`; the last one is open.
    """
    code: NDArray[np.uint8] = np.minimum(age // 10, len(AGE_GROUPS) - 1).astype(np.uint8)
    return code


def ordered(labels: list[str]) -> list[str]:
    """Labels by their first number when all of them are age ranges ("5-9" before "10-14"), else as text.

    Args:
        labels: Distinct labels, such as "0-4", "5 to 9", "under 5", "80+".
    """
    found = [_RANGE.fullmatch(label) for label in labels]
    if not all(found):
        return sorted(labels)
    # "under 5" stands before "5-9".
    keys = {label: (int(match[2]), match[1] is None) for label, match in zip(labels, found, strict=True) if match}
    return sorted(labels, key=lambda label: (keys[label], label))
