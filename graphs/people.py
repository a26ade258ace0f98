"""The people of one region: households in random order over areas, then ages, one row per person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphs.ages import exchange_ages, region_ages
from graphs.keyed import generator
from graphs.rounding import split_evenly
from graphs.sources import NUM_BANDS

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class People:
    """Rows of one region (n of them), households contiguous, area by area.

    Attributes:
        age: (n,) uint8 years.
        home: (n,) int32 household within the region, ascending.
        area: (n,) int32 area within the region, ascending.
    """

    age: NDArray[np.uint8]
    home: NDArray[np.int32]
    area: NDArray[np.int32]


def make_people(
    seed: int,
    region: int,
    homes: NDArray[np.int16],
    people: Ints,
    ages: Ints,
    before: Ints,
    num_areas: int,
    close: Floats,
) -> People:
    """Put the households of a region in order and give everybody an age.

    Args:
        seed: Seed of the population.
        region: Index of the region.
        homes: (H,) composition of each household.
        people: (C, 8) people of each band in each composition.
        ages: (101,) people of the country by age.
        before: (8,) people of each band in the regions before.
        num_areas: Areas of the region.
        close: (2, 101) densities of `graphs.ages.closeness`.
    """
    order = generator(seed, "households/order", region).permutation(len(homes))
    area_of_home = np.repeat(np.arange(num_areas, dtype=np.int32), split_evenly(len(homes), num_areas))
    inside = people[homes[order]]
    band = np.repeat(np.tile(np.arange(NUM_BANDS, dtype=np.uint8), len(homes)), inside.ravel())
    size = inside.sum(axis=1)
    home = np.repeat(np.arange(len(homes), dtype=np.int32), size)
    key = int(generator(seed, "ages/swaps", region).integers(2**64, dtype=np.uint64))
    return People(
        age=exchange_ages(region_ages(seed, region, band, ages, before), home, close, key),
        home=home,
        area=np.repeat(area_of_home, size),
    )
