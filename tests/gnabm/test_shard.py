"""A shard holds the rows it owns and numbers its sources in the order of the whole."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnabm import Population
from gnabm.contacts import Contacts, Places
from gnabm.errors import DataError
from gnabm.halo import pack
from gnabm.local import on_shards
from gnabm.messages import pull_edges, push_edges
from gnabm.rowset import RowSet
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
        indptr, member = places.members
        for agent in range(low, high):
            local = int(places.place[agent - low])
            assert (local < 0) == (home.place[agent] < 0)
            if local >= 0:
                mine = source_row[member[indptr[local] : indptr[local + 1]].long()]
                there = home.place[agent]
                assert np.array_equal(mine, home.member[home.indptr[there] : home.indptr[there + 1]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("every", [1, 7, 50, 401])
def test_only_what_sends_crosses_a_border(dtype, every):
    def work(group):
        shard = cut(POPULATION, group, BOUNDS)
        low, high = BOUNDS[group.rank : group.rank + 2]
        at = torch.arange(low, high)
        x = torch.where(at % every == 0, torch.sqrt(at.to(dtype)), 0.0)
        dense = shard.halo.dense(group, x)
        before = replace(group.traffic)
        rows = x.nonzero().squeeze(1)
        sources, value = shard.halo.start(group, rows, x[rows]).wait()
        assert sources.dtype == torch.int64 and value.dtype == dtype
        assert torch.equal(sources, dense.nonzero().squeeze(1)) and torch.equal(value, dense[sources])
        crossed = sum(int((x[to.long()] != 0).sum()) for to in shard.halo.send)
        assert group.traffic.bytes - before.bytes == crossed * (4 + dtype.itemsize)
        assert group.traffic.exchanges - before.exchanges == 1
        return crossed

    assert (sum(on_shards(5, work)) > 0) == (every < 401)


def test_where_no_shard_needs_a_row_of_another_nothing_is_exchanged():
    home = np.arange(400) // 10
    population = Population(400, {}, Contacts({"home": Places.of(home)}, 400))

    def work(group):
        shard = cut(population, group, (0, 100, 130, 400))
        before, rows = replace(group.traffic), torch.arange(0, shard.num_owned, 3)
        x = torch.zeros(shard.num_owned).index_fill(0, rows, 2.0)
        sources, values = shard.halo.start(group, rows, x[rows]).wait()
        assert torch.equal(sources, rows) and torch.equal(values, x[rows])
        assert shard.halo.dense(group, x) is x
        assert group.traffic == before
        return shard.halo.crosses

    assert on_shards(3, work) == [False] * 3


def test_a_rank_without_a_border_takes_part_in_the_exchange_of_the_others():
    home = np.arange(400) // 10
    home[0], home[399] = 50, 50
    population = Population(400, {}, Contacts({"home": Places.of(home)}, 400))

    def work(group):
        shard = cut(population, group, (0, 100, 130, 400))
        sources, _ = shard.halo.start(group, torch.arange(shard.num_owned), torch.ones(shard.num_owned)).wait()
        assert torch.equal(sources, torch.arange(shard.num_sources))
        return shard.halo.crosses, shard.num_sources - shard.num_owned

    assert on_shards(3, work) == [(True, 1), (True, 0), (True, 1)]


@given(st.sets(st.integers(0, 400)), st.sets(st.integers(0, 400)), st.integers(0, 10**6), st.integers(1, 2))
def test_a_message_names_the_places_of_its_rows_in_the_list_of_the_receiver(listed, sending, shift, width):
    wanted = np.array(sorted(listed), dtype=np.int32) + shift
    rows = np.array(sorted(sending), dtype=np.int64) + shift
    words = np.arange(width * rows.size, dtype=np.int32).reshape(rows.size, width)
    message = pack(RowSet.of(torch.from_numpy(wanted)), rows, words)
    both, place, at = np.intersect1d(wanted, rows, return_indices=True)
    assert message.shape == (both.size, 1 + width)
    assert np.array_equal(message[:, 0], place) and np.array_equal(message[:, 1:], words[at])


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("bounds", [BOUNDS, (0, 400)])
def test_interior_and_boundary_together_are_the_edges_and_only_the_boundary_waits(weighted, bounds):
    friends = POPULATION.contacts["friends"]
    layer = friends if weighted else replace(friends, weight=None)
    population = Population(400, {}, type(POPULATION.contacts)({"friends": layer}, 400))
    x = torch.from_numpy(10 ** np.random.default_rng(2).uniform(-4, 4, 400)).to(torch.float32)
    x[::3] = 0.0

    def work(group):
        shard = cut(population, group, bounds)
        edges, own = shard.layers["friends"], x[bounds[group.rank] : bounds[group.rank + 1]]
        rows = own.nonzero().squeeze(1)
        values = own[rows]
        crossing = shard.halo.start(group, rows, values)
        sums = push_edges(rows, values, *edges.interior, shard.num_owned)
        sources, values = crossing.wait()
        whole = push_edges(sources, values, *edges.out, shard.num_owned)
        sizes = [len(edges.interior[1])]
        if edges.boundary is not None:
            late = push_edges(sources, values, *edges.boundary, shard.num_owned)
            assert not ((sums != 0) & (late != 0)).any()  # a target has all its edges on one side
            sums = sums + late
            sizes.append(len(edges.boundary[1]))
        assert torch.equal(sums, whole)
        assert sum(sizes) == len(edges.source)
        assert torch.equal(whole, pull_edges(shard.halo.dense(group, own), edges.indptr, edges.source, edges.weight))
        return sums, sizes

    parts = on_shards(len(bounds) - 1, work)
    indptr, source = torch.from_numpy(layer.indptr), torch.from_numpy(layer.source)
    weight = torch.from_numpy(layer.weight) if weighted else None
    assert torch.equal(torch.cat([sums for sums, _ in parts]), pull_edges(x, indptr, source, weight))
    if len(bounds) > 2:
        assert any(all(sizes) and len(sizes) == 2 for _, sizes in parts)  # some shard has edges on both sides


def test_one_shard_waits_for_nobody():
    edges = cut(POPULATION).layers["friends"]
    assert edges.interior is edges.out and edges.boundary is None


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
