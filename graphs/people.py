"""The people of one district: households in random order over areas, then ages, one row per person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphs.ages import district_ages, exchange_ages
from graphs.keyed import generator
from graphs.rounding import split_evenly
from graphs.sources import NUM_BANDS

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class People:
    """Rows of one district (n of them), households contiguous, area by area.

    Attributes:
        age: (n,) uint8 years.
        home: (n,) int32 household within the district, ascending.
        area: (n,) int32 area within the district, ascending.
    """

    age: NDArray[np.uint8]
    home: NDArray[np.int32]
    area: NDArray[np.int32]


def make_people(
    seed: int,
    entity: int,
    count: Ints,
    people: Ints,
    ages: Ints,
    before: Ints,
    num_areas: int,
    close: Floats,
) -> People:
    """Put the households of a district in order and give everybody an age.

    Args:
        seed: Seed of the population.
        entity: Number of the district in keyed draws.
        count: (C,) households of each composition.
        people: (C, 8) people of each band in each composition.
        ages: (101,) people of the country by age.
        before: (8,) people of each band in the districts before.
        num_areas: Areas of the district.
        close: (2, 101) densities of `graphs.ages.closeness`.
    """
    homes = np.repeat(np.arange(len(count), dtype=np.int16), count)
    homes = homes[generator(seed, "households/order", entity).permutation(len(homes))]
    area_of_home = np.repeat(np.arange(num_areas, dtype=np.int32), split_evenly(len(homes), num_areas))
    inside = people.astype(np.uint8)[homes]
    band = np.repeat(np.tile(np.arange(NUM_BANDS, dtype=np.uint8), len(homes)), inside.ravel())
    size = inside.sum(axis=1, dtype=np.int64)
    home = np.repeat(np.arange(len(homes), dtype=np.int32), size)
    key = int(generator(seed, "ages/swaps", entity).integers(2**64, dtype=np.uint64))
    return People(
        age=exchange_ages(district_ages(seed, entity, band, ages, before), home, close, key),
        home=home,
        area=np.repeat(area_of_home, size),
    )
