"""A set of rows as bits agrees with a search in the sorted list."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnabm.rowset import RowSet

ROWS = st.lists(st.integers(0, 700), max_size=60)


@given(ROWS, ROWS, st.sampled_from([torch.int32, torch.int64]))
def test_places_are_those_in_the_sorted_list(rows, asked, dtype):
    held = RowSet.of(torch.tensor(rows, dtype=dtype))
    wanted = sorted(set(rows))
    assert held.size == len(wanted)
    places = held.places(torch.tensor(asked, dtype=dtype)).tolist()
    assert places == [wanted.index(row) if row in wanted else -1 for row in asked]


@given(ROWS, st.lists(st.integers(-1, 1500), max_size=60), st.integers(1, 3))
def test_entries_among_a_set_keep_their_order(rows, entries, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        at, place = RowSet.of(torch.tensor(rows)).among(torch.tensor(entries, dtype=torch.int32))
    finally:
        torch.set_num_threads(before)
    wanted = sorted(set(rows))
    assert at.tolist() == [k for k, row in enumerate(entries) if row in wanted]
    assert place.tolist() == [wanted.index(row) for row in entries if row in wanted]


def test_rows_far_out_cost_no_bits_before_them():
    rows = torch.tensor([2**33 + 5, 2**33 + 900])
    held = RowSet.of(rows)
    assert held.bits.size == 15
    assert held.places(torch.tensor([5, 2**33 + 900, 2**33 + 5, 2**33 + 5000])).tolist() == [-1, 1, 0, -1]


def test_a_large_set_is_that_of_a_mask():
    rng = np.random.default_rng(1)
    inside = rng.random(100_000) < 0.1
    asked = torch.from_numpy(rng.integers(0, 100_000, 50_000))
    places = RowSet.of(torch.from_numpy(rng.permutation(np.flatnonzero(inside)))).places(asked)
    wanted = np.where(inside, np.cumsum(inside) - 1, -1)
    assert (places.numpy() == wanted[asked.numpy()]).all()
