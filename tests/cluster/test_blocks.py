"""A rank reads its own rows of a store and the places that it visits, nothing else."""

import dataclasses

import numpy as np
import pytest

from gnabm import Contacts, Edges, Mixing, Places
from gnabm.local import LocalThreads
from gnabm.shard import cut
from graphs.store import open_graph

RANK, SHARDS = 1, 4
BY_ROW = {Edges: ("indptr", "source", "weight"), Places: ("place", "indptr", "member"), Mixing: ("group",)}


class Recorded:
    """An array that remembers the (first, after the last) entries of each slice that was read."""

    def __init__(self, array, reads):
        self.array, self.reads = array, reads
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        first, last, _ = rows.indices(self.shape[0])
        self.reads.append((first, last))
        return self.array[rows]


@pytest.fixture(scope="module")
def read_by_one_rank(stored):
    """Slices that rank 1 of 4 read, by array, and its bounds."""
    whole = open_graph(stored)
    reads = {}

    def recorded(name, array):
        return Recorded(array, reads.setdefault(name, []))

    layers = {
        name: dataclasses.replace(
            layer, **{part: recorded(f"{name}/{part}", getattr(layer, part)) for part in BY_ROW[type(layer)]}
        )
        for name, layer in whole.contacts.layers.items()
    }
    columns = {name: recorded(name, column) for name, column in whole.columns.items()}
    watched = dataclasses.replace(whole, columns=columns, contacts=Contacts(layers, whole.num_agents))
    for slices in reads.values():
        slices.clear()  # what checks read as the population was made
    bounds = (0, 768, 1536, 2304, 3000)
    with LocalThreads(SHARDS) as threads:
        threads.each(lambda group: cut(watched if group.rank == RANK else whole, group, bounds))
    return whole, reads, bounds[RANK], bounds[RANK + 1]


def test_columns_and_places_of_rows_are_read_within_the_shard(read_by_one_rank):
    _, reads, low, high = read_by_one_rank
    rows = [name for name in reads if "/" not in name or name.endswith(("/place", "/group"))]
    assert {"age", "key", "home/place", "site/place", "drawn/group"} <= set(rows)
    for name in rows:
        assert reads[name] or name not in ("key", "home/place", "site/place", "drawn/group"), name
        assert all(low <= first <= last <= high for first, last in reads[name]), (name, reads[name])
    assert reads["age"] == [], "a column that no rule asks for is not read"


def test_edges_are_read_within_those_of_the_shard(read_by_one_rank):
    whole, reads, low, high = read_by_one_rank
    ends = np.asarray(whole.contacts["friends"].indptr[low : high + 1])
    assert reads["friends/indptr"] == [(low, high + 1)]
    assert reads["friends/source"] == reads["friends/weight"] == [(int(ends[0]), int(ends[-1]))]
