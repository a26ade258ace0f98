"""Single years of age: the ages of the country dealt out evenly over the ten-year bands of the households."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graphs.keyed import generator
from graphs.rounding import deal, largest_remainder, split_evenly
from graphs.sources import MAX_AGE, NUM_BANDS, Country

Ints = NDArray[np.int64]


def age_counts(country: Country, band_people: Ints) -> Ints:
    """(101,) people of each single year of age (100 = 100 and older) for given people per ten-year band.

    Within a band the five-year groups get their share by largest remainder; single years share a group
    evenly.
    """
    counts = np.zeros(MAX_AGE + 1, np.int64)
    for band in range(NUM_BANDS):
        groups = np.arange(2 * band, 2 * band + 2 if band < NUM_BANDS - 1 else len(country.age_5yr))
        people = largest_remainder(country.age_5yr[groups], int(band_people[band]))
        for group, total in zip(groups, people, strict=True):
            years = 5 if group < len(country.age_5yr) - 1 else 1
            counts[5 * group : 5 * group + years] = split_evenly(int(total), years)
    return counts


def region_ages(seed: int, region: int, band: NDArray[np.uint8], counts: Ints, before: Ints) -> NDArray[np.uint8]:
    """Age of each person of one region.

    Args:
        seed: Seed of the population.
        region: Index of the region.
        band: (n,) ten-year band of each person.
        counts: (101,) people of the country by age.
        before: (8,) people of each band in the regions before this one.

    Returns:
        (n,) uint8 age, years.
    """
    age = np.empty(len(band), np.uint8)
    for number in range(NUM_BANDS):
        rows = np.flatnonzero(band == number)
        first = 10 * number
        last = first + 10 if number < NUM_BANDS - 1 else MAX_AGE + 1
        start = int(before[number])
        years = first + deal(counts[first:last], start, start + len(rows))
        age[rows] = generator(seed, f"ages/{number}", region).permutation(years).astype(np.uint8)
    return age
