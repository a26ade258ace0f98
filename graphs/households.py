"""Which households there are: whole numbers of each composition, in each region, for any number of agents.

The country is rounded first (households by size, then compositions within a size, then people per band made
exact by moving single people between bands), and then shared out over regions: by size as the census of each
region has it, and within a size so that people under 20 follow the students of the region (`graphs.dealing`). All of
it is deterministic; only the order of households within a district is shuffled, by a keyed generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gnabm.errors import DataError
from graphs.compositions import Compositions, band_shares, fit, size_shares
from graphs.dealing import deal_homes, young_shares
from graphs.families import MAX_SIZE
from graphs.rounding import deal, largest_remainder, split_evenly, systematic
from graphs.sources import Country

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_SIZES = np.arange(1, MAX_SIZE + 1)
_YOUNG = 2  # bands of people under 20


@dataclass(frozen=True)
class Households:
    """All households of a country.

    Attributes:
        people: (C, 8) people of each band in each composition.
        count: (C,) households of each composition in the country.
        by_region: (R, C) households of each region and composition.
        region_people: (R,) people of each region.
        band_people: (8,) people of each band in the country.
    """

    people: Ints
    count: Ints
    by_region: Ints
    region_people: Ints
    band_people: Ints


def make_households(country: Country, num_agents: int) -> Households:
    """Whole households of every region that hold exactly num_agents people.

    Args:
        country: Tables.
        num_agents: People.
    """
    kinds = fit(country)
    regions = people_by_region(country, num_agents)
    bands = largest_remainder(band_shares(country), num_agents)
    sizes = count_sizes(country, num_agents)
    count = _count_compositions(kinds, sizes, bands)
    table = _region_sizes(country, sizes, regions)
    young = country.students.sum(axis=1) / country.students.sum() * bands[:_YOUNG].sum()
    return Households(kinds.people, count, _deal_regions(kinds, count, table, young), regions, bands)


def people_by_region(country: Country, num_agents: int) -> Ints:
    """(R,) people of each region of a country of num_agents people."""
    return largest_remainder(country.residents, num_agents)


def count_sizes(country: Country, num_agents: int) -> Ints:
    """(8,) households by size that hold exactly num_agents people."""
    share = size_shares(country)
    count = largest_remainder(share, round(num_agents / float((share * _SIZES).sum())))
    missing = num_agents - int((count * _SIZES).sum())
    # A person more in |missing| households: from size 2 to 3, or back; both sizes are common.
    if count[1] < missing or count[2] < -missing:
        raise DataError(f"{num_agents} agents are too few to form the households of a country; ask for 1000 or more")
    count[1] -= missing
    count[2] += missing
    return count


def _count_compositions(kinds: Compositions, sizes: Ints, bands: Ints) -> Ints:
    """(C,) households of each composition with the given totals by size and people by band."""
    wanted = np.zeros(len(kinds.size))
    count = np.zeros(len(kinds.size), np.int64)
    for size, total in enumerate(sizes, start=1):
        rows = np.flatnonzero(kinds.size == size)
        weight = kinds.weight[rows]
        wanted[rows] = weight / weight.sum() * total
        count[rows] = systematic(weight, int(total))
    return _meet_bands(kinds.people, count, wanted, bands)


def _meet_bands(people: Ints, count: Ints, wanted: Floats, bands: Ints) -> Ints:
    """Move single people between bands until every band holds its people; sizes stay as they are.

    Each move takes the household that is most over its exact number and makes it the one that is most under.
    """
    index = {tuple(row): number for number, row in enumerate(people.tolist())}
    moves: dict[tuple[int, int], tuple[Ints, Ints]] = {}
    count = count.copy()
    excess = np.einsum("c,cb->b", count, people) - bands
    while excess.any():
        source, target = int(excess.argmax()), int(excess.argmin())
        if (source, target) not in moves:
            before = np.flatnonzero(people[:, source] > 0)
            changed = people[before]
            changed[:, source] -= 1
            changed[:, target] += 1
            after = np.array([index.get(tuple(row), -1) for row in changed.tolist()])
            moves[source, target] = before[after >= 0], after[after >= 0]
        before, after = moves[source, target]
        gain = (count - wanted)[before] - (count - wanted)[after]
        best = int(np.where(count[before] > 0, gain, -np.inf).argmax())
        count[before[best]] -= 1
        count[after[best]] += 1
        excess[source] -= 1
        excess[target] += 1
    return count


def _region_sizes(country: Country, sizes: Ints, regions: Ints) -> Ints:
    """(R, 8) households by region and size: rows hold the people of each region, columns sum to `sizes`.

    The exact table is the national one tilted by exp(t_r size), so that a region's mean household follows the
    census count of its households; it is rounded by columns and then mended by swaps of single people.
    """
    homes = country.households * country.growth
    homes = homes / homes.sum() * sizes.sum()
    exact = _tilt(sizes.astype(np.float64), homes, regions.astype(np.float64))
    table = np.stack([largest_remainder(exact[:, s], int(sizes[s])) for s in range(MAX_SIZE)], axis=1)
    excess = (table * _SIZES).sum(axis=1) - regions
    while excess.any():
        rich, poor = int(excess.argmax()), int(excess.argmin())
        step = _best_swap(table, exact, rich, poor, int(min(excess[rich], -excess[poor])))
        big, small = step
        table[rich, big] -= 1
        table[poor, big] += 1
        table[poor, small] -= 1
        table[rich, small] += 1
        excess[rich] -= big - small
        excess[poor] += big - small
    return table


def _best_swap(table: Ints, exact: Floats, rich: int, poor: int, limit: int) -> tuple[int, int]:
    """Sizes (indices) big > small: `rich` gives a household of size big for one of size small of `poor`."""
    over = table - exact
    best, found = -np.inf, (-1, -1)
    for small in range(MAX_SIZE):
        for big in range(small + 1, min(small + limit, MAX_SIZE - 1) + 1):
            if table[rich, big] == 0 or table[poor, small] == 0:
                continue
            gain = over[rich, big] - over[poor, big] + over[poor, small] - over[rich, small]
            if gain > best:
                best, found = float(gain), (big, small)
    if found[0] < 0:
        raise DataError("regions are too small to hold whole households; ask for more agents")
    return found


def _tilt(sizes: Floats, homes: Floats, people: Floats) -> Floats:
    """(R, 8) table with columns `sizes`, about `homes` households and `people` people per region."""
    share = np.tile(sizes / sizes.sum(), (len(homes), 1))
    mean = people / homes
    column = np.ones(MAX_SIZE)
    tilt = np.zeros(len(homes))
    table = share * homes[:, None]
    for _ in range(60):
        for _ in range(20):
            weight = share * column * np.exp(tilt[:, None] * _SIZES)
            weight /= weight.sum(axis=1, keepdims=True)
            first = (weight * _SIZES).sum(axis=1)
            variance = (weight * _SIZES**2).sum(axis=1) - first**2
            tilt += np.clip((mean - first) / variance, -0.5, 0.5)
        table = weight * homes[:, None]
        column *= sizes / table.sum(axis=0)
    return np.asarray(table * (sizes / table.sum(axis=0)))


def _deal_regions(kinds: Compositions, count: Ints, table: Ints, young: Floats) -> Ints:
    """(R, C) households of regions which hold about `young` (R,) people under 20."""
    under = kinds.people[:, :_YOUNG].sum(axis=1)
    cell = (kinds.size - 1) * (MAX_SIZE + 1) + under
    country = np.bincount(cell, count, minlength=MAX_SIZE * (MAX_SIZE + 1)).reshape(MAX_SIZE, MAX_SIZE + 1)
    country = country.astype(np.int64)
    share = young_shares(table, country, young) / np.maximum(country, 1)
    dealt = np.empty((len(table), len(count)), np.int64)
    for size in range(1, MAX_SIZE + 1):
        rows = np.flatnonzero(kinds.size == size)
        dealt[:, rows] = deal_homes(count[rows], share[:, size - 1, under[rows]].T, table[:, size - 1])
    return dealt


def deal_districts(people: Ints, count: Ints, districts: int) -> Ints:
    """Deal the households of a region evenly over its districts, size by size.

    Args:
        people: (C, 8) people of each band in each composition.
        count: (C,) households of each composition in the region.
        districts: Number of districts.

    Returns:
        (districts, C) households; those of one size differ by at most one between districts.
    """
    size = people.sum(axis=1)
    dealt = np.empty((districts, len(count)), np.int64)
    for number in range(1, MAX_SIZE + 1):
        rows = np.flatnonzero(size == number)
        ends = np.cumsum(split_evenly(int(count[rows].sum()), districts))
        for district, (first, last) in enumerate(pairwise([0, *ends.tolist()])):
            dealt[district, rows] = np.bincount(deal(count[rows], first, last), minlength=len(rows))
    return dealt
