"""Areas of about 20,000 people within regions.

No table here says which areas a country has, so they are synthetic (flagged assumed): a region is cut into areas of
about equal size, which stand in a row. Along that order, "distance" is counted in people.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def count_areas(region_people: Ints, area_people: float) -> Ints:
    """Number of areas of each region or district, at least one."""
    return np.maximum(1, np.rint(region_people / area_people)).astype(np.int64)
