"""Rows have the group that their labels say, and the kernels count what NumPy counts, whatever the threads."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnabm import Contacts, Field, Population, grouping
from gnabm.errors import DataError
from gnabm.grouping import Grouping
from gnabm.shard import cut
from gnabm.testing.watch import num_threads

LABELS = {"region": (3, np.uint8), "age_group": (9, np.uint8), "county": (300, np.int16), "sex": (2, np.int64)}
STAGES = 5


def grouped(num_agents, by, seed=0):
    """The grouping of random agents, and the labels of each."""
    rng = np.random.default_rng(seed)
    columns = {name: rng.integers(0, size, num_agents).astype(dtype) for name, (size, dtype) in LABELS.items()}
    fields = {n: Field(n, categories=tuple(map(str, range(size)))) for n, (size, _) in LABELS.items()}
    population = Population(num_agents, columns, Contacts.from_edges([], [], num_agents=num_agents), fields)
    found = Grouping.of(cut(population), by)
    wide = [columns[name].astype(np.int64) for name in by]
    index = np.ravel_multi_index(wide, found.shape) if by else np.zeros(num_agents, dtype=np.int64)
    return found, index


@pytest.mark.parametrize(
    "by", [(), ("age_group",), ("county",), ("region", "age_group"), ("sex", "county"), tuple(LABELS)]
)
def test_groups_are_numbered_in_the_order_of_labels(by):
    found, index = grouped(101, by)
    assert (
        found.dims == by and found.shape == tuple(LABELS[n][0] for n in by) and found.size == np.prod([1, *found.shape])
    )
    assert found.index.dtype == torch.int32 and found.index.tolist() == index.tolist()
    rows = torch.tensor([0, 7, 7, 100])
    assert found.at(rows).dtype == torch.int32 and found.at(rows).tolist() == index[rows].tolist()
    assert found.at(rows[:0]).shape == (0,)
    codes = torch.arange(101, dtype=torch.uint8) % STAGES
    expected = np.zeros((STAGES, found.size), dtype=np.int64)
    np.add.at(expected, (codes.numpy(), index), 1)
    assert np.array_equal(found.count(codes, STAGES), expected)
    moves = found.moves(codes, codes.flip(0), STAGES)
    assert np.array_equal(moves, moves_of(codes.numpy(), codes.numpy()[::-1], index, found.size))


def moves_of(before, after, index, num_groups):
    """Those who moved, one by one."""
    out = np.zeros((STAGES, STAGES, num_groups), dtype=np.int64)
    moved = before != after
    np.add.at(out, (before[moved], after[moved], index[moved]), 1)
    return out


@given(
    st.integers(1, 200), st.integers(0, 15), st.integers(1, 3), st.sampled_from([0, 0.02, 0.5, 1]), st.integers(0, 99)
)
def test_those_who_moved_are_counted_on_any_threads_at_any_place_in_memory(num_agents, offset, threads, share, seed):
    found, index = grouped(num_agents, ("region", "age_group"), seed)
    rng = np.random.default_rng(seed)
    # Codes that begin anywhere in memory, and end in a part of a word.
    before, after = (torch.from_numpy(rng.integers(0, STAGES, offset + num_agents).astype(np.uint8)) for _ in range(2))
    before, after = before[offset:], after[:num_agents].clone()
    stays = torch.from_numpy(rng.random(num_agents) >= share)
    after[stays] = before[stays]
    with num_threads(threads):
        moves, counts = found.moves(before, after, STAGES), found.count(after, STAGES)
    assert np.array_equal(moves, moves_of(before.numpy(), after.numpy(), index, found.size))
    assert torch.equal(counts, found.count(before, STAGES) + moves.sum(0) - moves.sum(1))


@given(st.integers(1, 40), st.integers(0, 39), st.sampled_from([STAGES, 200, 255]), st.integers(1, 3))
def test_a_code_of_no_stage_is_refused(num_agents, at, wrong, threads):
    found, _ = grouped(num_agents, ("region", "age_group"))
    codes = torch.zeros(num_agents, dtype=torch.uint8)
    other = codes.clone()
    other[at % num_agents] = wrong
    with num_threads(threads):
        for count in (
            lambda: found.count(other, STAGES), lambda: found.moves(other, codes, STAGES),
            lambda: found.moves(codes, other, STAGES),
        ):  # fmt: skip
            with pytest.raises(DataError, match="code from 0 to 4, got 1 agents with another"):
                count()


def test_large_tables_are_filled_by_fewer_threads(monkeypatch):
    found, index = grouped(5000, ("county", "age_group"))
    before, after = (
        torch.from_numpy(np.random.default_rng(s).integers(0, STAGES, 5000).astype(np.uint8)) for s in (1, 2)
    )
    with num_threads(3):
        expected = found.moves(before, after, STAGES)
        for most in (1, 2 * STAGES**2 * found.size):
            monkeypatch.setattr(grouping, "_MOST_ENTRIES", most)
            assert torch.equal(found.moves(before, after, STAGES), expected)
    assert np.array_equal(expected, moves_of(before.numpy(), after.numpy(), index, found.size))
