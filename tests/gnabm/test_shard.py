"""A shard holds the rows it owns and numbers its sources in the order of the whole."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gnabm import Population
from gnabm.errors import DataError
from gnabm.local import on_shards
from gnabm.shard import cut
from gnabm.testing import awkward_population

POPULATION = awkward_population(400)
BOUNDS = (0, 13, 14, 200, 390, 400)


@pytest.mark.parametrize(
    ("size", "bounds"),
    [(1, (0, 399)), (1, (1, 400)), (1, (0, 200, 400)), (2, (0, 400)), (2, (0, 0, 400)), (2, (0, 400, 400)),
     (3, (0, 300, 200, 400)), (2, (0, -5, 400)), (2, None)],
)  # fmt: skip
def test_bounds_that_do_not_cut_the_rows_are_refused(size, bounds):
    with pytest.raises(DataError, match=f"do not cut 400 agents into {size} shards"):
        on_shards(size, lambda group: cut(POPULATION, group, bounds))


def test_every_column_is_owned_once():
    shards = on_shards(5, lambda group: cut(POPULATION, group, BOUNDS))
    assert [s.num_owned for s in shards] == [13, 1, 186, 190, 10]
    for name, column in POPULATION.columns.items():
        assert np.array_equal(torch.cat([s.columns[name] for s in shards]).numpy(), column)


def test_rows_are_the_keys_where_there_is_none():
    bare = Population(400, {}, POPULATION.contacts)
    shards = on_shards(5, lambda group: cut(bare, group, BOUNDS))
    assert torch.cat([s.columns["key"] for s in shards]).tolist() == list(range(400))


def test_sources_keep_the_order_of_the_whole_and_edges_their_ends():
    def work(group):
        shard = cut(POPULATION, group, BOUNDS)
        rows = torch.arange(BOUNDS[group.rank], BOUNDS[group.rank + 1], dtype=torch.float64)
        return shard, shard.halo.dense(group, rows).to(torch.int64)  # global row of each source

    whole = POPULATION.contacts["friends"]
    home = POPULATION.contacts["home"]
    for rank, (shard, source_row) in enumerate(on_shards(5, work)):
        assert (source_row.diff() > 0).all()
        low, high = BOUNDS[rank : rank + 2]
        edges = shard.layers["friends"]
        first, last = whole.indptr[low], whole.indptr[high]
        assert np.array_equal(source_row[edges.source.long()], whole.source[first:last])
        assert np.array_equal(edges.weight, whole.weight[first:last])
        places = shard.layers["home"]
        for agent in range(low, high):
            local = int(places.place[agent - low])
            assert (local < 0) == (home.place[agent] < 0)
            if local >= 0:
                mine = source_row[places.member[places.indptr[local] : places.indptr[local + 1]].long()]
                there = home.place[agent]
                assert np.array_equal(mine, home.member[home.indptr[there] : home.indptr[there + 1]])


def test_only_what_sends_crosses_a_border():
    def work(group):
        shard = cut(POPULATION, group, BOUNDS)
        low, high = BOUNDS[group.rank : group.rank + 2]
        x = torch.where(torch.arange(low, high) % 50 == 0, 1.5, 0.0)
        rows, value = shard.halo.active(group, x)
        dense = shard.halo.dense(group, x)
        assert torch.equal(rows, dense.nonzero().squeeze(1)) and torch.equal(value, dense[rows])

    on_shards(5, work)


class OnDisk:
    """An array that is read by slices only, as a store's."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, rows):
        return self.array[rows]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda group: (group + 1) % 16, "counts by area and group do not match"),
        (lambda group: group + 1, r"rows 0..399 hold groups 1..16, outside 0..15; rebuild"),
    ],
)
def test_groups_that_do_not_match_the_counts_are_refused(change, message):
    layer = POPULATION.contacts["community"]
    broken = replace(layer, group=OnDisk(change(layer.group).astype(np.uint8)))
    population = Population(400, {}, type(POPULATION.contacts)({"community": broken}, 400))
    with pytest.raises(DataError, match=message):
        cut(population)
