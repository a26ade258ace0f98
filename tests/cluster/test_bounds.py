import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.bounds import _partition, grain, row_work, split
from gnabm import Contacts, Population
from gnabm.errors import ConfigError, KindError


def test_work_of_a_row_counts_itself_its_in_edges_and_its_places(population):
    layers = population.contacts.layers
    work = row_work(population, 0, 50)
    edges = np.diff(layers["friends"].indptr)[:50]
    visits = (layers["home"].place[:50] >= 0).astype(int) + (layers["site"].place[:50] >= 0)
    assert (work == 1 + edges + visits + 2).all()


@given(st.lists(st.integers(1, 50), min_size=1, max_size=9), st.integers(1, 9))
def test_the_largest_part_is_the_smallest_possible(work, parts):
    work, parts = np.array(work), min(parts, len(work))
    starts = _partition(work, parts)
    assert starts[0] == 0 and starts[-1] == work.size and (np.diff(starts) >= 1).all()
    largest = np.add.reduceat(work, starts[:-1]).max()
    best = np.full((parts + 1, work.size + 1), np.inf)
    best[0, 0] = 0
    for k in range(1, parts + 1):
        for end in range(k, work.size + 1):
            best[k, end] = min(max(best[k - 1, cut], work[cut:end].sum()) for cut in range(k - 1, end))
    assert largest == best[parts, -1]


def test_shards_are_whole_blocks_and_balanced_by_work(population):
    whole = dataclasses.replace(population, block=64)
    bounds = split(whole, 3)
    assert all(row % 64 == 0 for row in bounds[:-1]) and bounds[-1] == whole.num_agents
    work = [row_work(whole, low, high).sum() for low, high in pairwise(bounds)]
    heaviest_block = max(row_work(whole, at, min(at + 64, 3000)).sum() for at in range(0, 3000, 64))
    assert max(work) <= sum(work) / 3 + heaviest_block


def test_too_many_shards_are_refused_with_the_number_that_is_possible(population):
    with pytest.raises(ConfigError, match="at most 24 shards are possible, got 25"):
        split(dataclasses.replace(population, block=128), 25)
    assert len(split(dataclasses.replace(population, block=128), 24)) == 25


def test_a_single_block_is_spoken_of_in_the_singular(population):
    with pytest.raises(ConfigError, match=r"make 1 block, so at most 1 shard is possible, got 3; use 1 shard or"):
        split(dataclasses.replace(population, block=4096), 3)


@pytest.mark.parametrize(
    ("shards", "error"), [(0, ConfigError), (-1, ConfigError), (2.0, KindError), (True, KindError)]
)
def test_a_number_of_shards_that_is_none_is_refused(population, shards, error):
    with pytest.raises(error, match="shards must be"):
        split(population, shards)


def test_eight_agents_go_over_eight_shards(ring_of_eight):
    assert split(ring_of_eight, 8) == tuple(range(9))
    assert len(split(ring_of_eight, 7)) == 8


def test_the_grain_of_a_population_in_memory_leaves_every_shard_several_units():
    for agents, shards in [(8, 7), (3000, 3), (100_000, 2), (1, 1)]:
        unit = grain(Population.of(Contacts({}, agents)), shards)
        assert unit & (unit - 1) == 0
        assert unit * shards <= max(agents, shards)
