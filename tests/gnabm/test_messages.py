"""Kernels equal a dense NumPy twin, and push equals pull bit by bit on any number of threads."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnabm import bins
from gnabm.bins import add_listed
from gnabm.messages import (
    gather_sum,
    nonzero_rows,
    pull_edges,
    push_edges,
    push_places,
    read_places,
    rows_where,
    segment_sum,
    transpose,
    weigh,
)
from gnabm.testing.watch import num_threads

THREADS = (1, 2, 3, 7)


def graph(num_sources, num_targets, num_edges, seed=0, tail=1.0):
    """Random in-edges, ascending sources within a target, weights over decades; in-degrees of a heavy tail."""
    rng = np.random.default_rng(seed)
    target = (num_targets * rng.random(num_edges) ** tail).astype(np.int64)
    code = np.unique(target * num_sources + rng.integers(0, num_sources, num_edges))
    target, source = np.divmod(code, num_sources)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(target, minlength=num_targets))])
    weight = (10 ** rng.uniform(-4, 3, code.size)).astype(np.float32)
    return torch.from_numpy(indptr), torch.from_numpy(source.astype(np.int32)), torch.from_numpy(weight)


def dense(indptr, source, weight, num_sources):
    """(num_targets, num_sources) float64 adjacency matrix."""
    matrix = np.zeros((len(indptr) - 1, num_sources))
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    matrix[rows, source] = 1.0 if weight is None else weight
    return matrix


def values(shape, dtype=torch.float32, active=1.0, seed=1):
    """Positive values over many decades, a share of them not 0."""
    rng = np.random.default_rng(seed)
    x = 10 ** rng.uniform(-5, 5, shape) * (rng.random(shape[:1] + (1,) * (len(shape) - 1)) < active)
    return torch.from_numpy(x).to(dtype)


@given(
    st.integers(1, 20), st.integers(1, 20), st.integers(0, 120), st.integers(0, 99),
    st.sampled_from([torch.float32, torch.float64]), st.sampled_from([(), (1,), (4,)]), st.booleans(),
)  # fmt: skip
def test_pull_equals_the_matrix_product(num_sources, num_targets, num_edges, seed, dtype, features, weighted):
    indptr, source, weight = graph(num_sources, num_targets, num_edges, seed)
    weight = weight.to(dtype) if weighted else None
    x = values((num_sources, *features), dtype, seed=seed)
    expected = dense(indptr, source, weight, num_sources) @ x.numpy().astype(np.float64)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    result = pull_edges(x, indptr, source, weight)
    assert result.dtype == dtype
    np.testing.assert_allclose(result.numpy(), expected, rtol=tolerance)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 120), st.integers(0, 99), st.booleans())
def test_transposing_twice_is_the_graph(num_sources, num_targets, num_edges, seed, weighted):
    indptr, source, weight = graph(num_sources, num_targets, num_edges, seed)
    out = transpose(indptr, source, num_sources, weight if weighted else None)
    assert (dense(indptr, source, weight if weighted else None, num_sources) == dense(*out, num_targets).T).all()
    again = transpose(out[0], out[1], num_targets, out[2])
    assert torch.equal(again[0].long(), indptr) and torch.equal(again[1], source)
    assert (again[2] is None) if not weighted else torch.equal(again[2], weight)


@pytest.mark.parametrize("active", [0.001, 0.01, 0.1, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weighted", [True, False])
def test_push_and_pull_have_the_same_bits_on_heavy_tails_and_any_threads(active, dtype, weighted):
    size = 30_000
    indptr, source, weight = graph(size, size, 600_000, tail=6.0)
    assert int(indptr.diff().max()) > 10_000
    weight = weight.to(dtype) if weighted else None
    x = values((size,), dtype, active)
    out = transpose(indptr, source, size, weight)
    assert out[0].dtype == torch.int32
    rows = nonzero_rows(x)
    expected = None
    for threads in THREADS:
        with num_threads(threads):
            pulled = pull_edges(x, indptr, source, weight)
            expected = pulled if expected is None else expected
            assert torch.equal(pulled, expected), threads
            assert torch.equal(gather_sum(x, indptr, source, weight), expected), threads
            assert torch.equal(gather_sum(x, indptr.int(), source, weight), expected), threads
            for starts in (out[0], out[0].long()):
                assert torch.equal(push_edges(rows, x[rows], starts, *out[1:], size), expected), threads


@pytest.mark.parametrize("batch", [1, 1000, 1 << 30])
def test_push_adds_to_given_sums_in_the_order_of_the_messages_in_any_batches(batch, monkeypatch):
    monkeypatch.setattr(bins, "_MIN_BATCH", batch)
    size, num_edges = 2_000, 30_000
    in_edges = graph(size, size, num_edges, tail=3.0)
    indptr, target, weight = transpose(*in_edges[:2], size, in_edges[2])
    x = values((size,), active=0.3)
    rows = nonzero_rows(x)
    start = values((size,), seed=7)
    expected = start.numpy().copy()
    source = np.repeat(np.arange(size), np.diff(indptr))
    sends = x.numpy()[source] != 0
    np.add.at(expected, target.numpy()[sends], (x.numpy()[source] * weight.numpy())[sends])  # one by one, in order
    for threads in THREADS:
        with num_threads(threads):
            out = start.clone()
            assert push_edges(rows, x[rows], indptr, target, weight, size, out) is out
            assert torch.equal(out, torch.from_numpy(expected))
            listed = start.clone()
            sent = torch.from_numpy((x.numpy()[source] * weight.numpy())[sends])
            add_listed(target[torch.from_numpy(sends)], sent, listed, fresh=False)
            assert torch.equal(listed, out)


def test_nobody_who_sends_leaves_zeros():
    indptr, source, _ = graph(50, 40, 100)
    out = transpose(indptr, source, 50, None)
    nobody = torch.empty(0, dtype=torch.int64)
    assert torch.equal(push_edges(nobody, torch.empty(0), *out, 40), torch.zeros(40))
    assert torch.equal(push_places(nobody, torch.empty(0), torch.zeros(50, dtype=torch.int32), 9), torch.zeros(9))
    assert push_edges(nobody, torch.empty(0), torch.zeros(1, dtype=torch.int32), out[1][:0], None, 0).shape == (0,)


@given(st.integers(0, 400), st.integers(0, 9), st.integers(0, 99), st.sampled_from([0.0, 0.01, 0.5, 1.0]))
def test_rows_of_a_code_are_found_wherever_the_codes_begin(size, offset, seed, share):
    rng = np.random.default_rng(seed)
    codes = torch.from_numpy(np.where(rng.random(size + offset) < share, 3, rng.integers(0, 256, size + offset)))
    codes = codes.to(torch.uint8)[offset:]
    for code in (0, 3, 255):
        assert rows_where(codes, code).tolist() == np.flatnonzero(codes.numpy() == code).tolist()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.int64, torch.float32, torch.float64])
def test_rows_that_are_not_zero_are_found_on_any_threads(dtype):
    x = (values((100_003,), active=0.05) * 1e5).clamp(max=100).to(dtype)
    if dtype.is_floating_point:
        x[::17], x[5] = -0.0, float("nan")
    for threads in THREADS:
        with num_threads(threads):
            rows = nonzero_rows(x)
            assert rows.dtype == torch.int64 and torch.equal(rows, x.nonzero().squeeze(1))


def undirected(size, num_edges, seed=0):
    """indptr, source and weight of a graph in which each edge goes both ways, some of them several times."""
    rng = np.random.default_rng(seed)
    pair = rng.integers(0, size, (num_edges, 2))
    pair = np.concatenate([pair, pair[:, ::-1]])
    target, source = pair[np.lexsort((pair[:, 1], pair[:, 0]))].T
    indptr = np.concatenate([[0], np.cumsum(np.bincount(target, minlength=size))])
    weight = 1.0 + (target + source) + target * source
    return torch.from_numpy(indptr), torch.from_numpy(source.astype(np.int32)), torch.from_numpy(weight).float()


@given(st.integers(2, 12), st.integers(1, 60), st.integers(0, 99))
def test_an_undirected_graph_is_its_own_transpose_and_no_other_is(size, num_edges, seed):
    indptr, source, weight = undirected(size, num_edges, seed)
    same = transpose(indptr, source, size, weight)
    assert same[0] is indptr and same[1] is source and same[2] is weight
    assert transpose(indptr, source, size, None)[1] is source
    other = weight.clone()
    other[0] = 0.5
    out = transpose(indptr, source, size, other)
    assert (dense(indptr, source, other, size) == dense(*out, size).T).all()
    mirrored = dense(indptr, source, None, size) == dense(indptr, source, None, size).T
    one_way = indptr.clone()
    one_way[1:] -= 1  # without its first edge
    fewer = transpose(one_way.clamp(min=0), source[1:], size, None)
    assert mirrored.all() and torch.equal(fewer[0].diff().sum(), torch.tensor(source.shape[0] - 1))


def test_a_column_of_many_features_has_the_bits_of_that_column_alone():
    size = 20_000
    indptr, source, weight = graph(size, size, 300_000, tail=6.0)
    x = values((size, 4))
    together = pull_edges(x, indptr, source, weight)
    for column in range(4):
        assert torch.equal(together[:, column], pull_edges(x[:, column].contiguous(), indptr, source, weight))
        assert torch.equal(
            together[:, column : column + 1], pull_edges(x[:, column : column + 1], indptr, source, weight)
        )


def test_the_backward_of_pull_has_the_same_bits_on_any_threads():
    size = 50_000
    indptr, source, weight = graph(size, size, 600_000, tail=1.0)
    source = (source.double() / size).pow(6).mul(size).int()  # heavy-tailed out-degrees: many addends per gradient
    x = values((size,)).requires_grad_()
    weight.requires_grad_()
    upstream = values((size,), seed=5)
    found = []
    for threads in THREADS:
        with num_threads(threads):
            found.append(torch.autograd.grad(pull_edges(x, indptr, source, weight), (x, weight), upstream))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("features", [(), (3,)])
def test_gradients_of_pull_are_the_finite_differences(features):
    indptr, source, weight = graph(6, 5, 18)
    x = torch.rand(6, *features, dtype=torch.float64).requires_grad_()
    weight = torch.rand(weight.shape, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, w: pull_edges(a, indptr, source, w), (x, weight))


def places(num_agents, num_places, seed=0):
    """place (num_agents,), indptr and member of the same places; some agents have none, some places nobody."""
    rng = np.random.default_rng(seed)
    place = rng.integers(-1, num_places - 1, num_agents)
    member = np.argsort(place, kind="stable")[(place < 0).sum() :]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(place[place >= 0], minlength=num_places))])
    return torch.from_numpy(place.astype(np.int32)), torch.from_numpy(indptr), torch.from_numpy(member)


@given(st.integers(1, 40), st.integers(2, 8), st.integers(0, 99), st.sampled_from([torch.float32, torch.float64]))
def test_places_equal_the_matrix_of_co_members(num_agents, num_places, seed, dtype):
    place, indptr, member = places(num_agents, num_places, seed)
    x = torch.from_numpy(np.random.default_rng(seed).integers(0, 9, num_agents)).to(dtype)
    weight = torch.arange(1, num_places + 1, dtype=torch.float32) / 4
    together = (
        (place[:, None] == place[None, :]).numpy() & (place >= 0).numpy()[:, None] & ~np.eye(num_agents, dtype=bool)
    )
    factor = np.where(place >= 0, weight[place.clamp(min=0).long()], 0)
    expected = (together * factor[:, None]) @ x.numpy()
    sums = segment_sum(x.index_select(0, member), indptr)
    rows = x.nonzero().squeeze(1)
    assert torch.equal(push_places(rows, x[rows], place, num_places), sums)
    with torch.no_grad():
        np.testing.assert_allclose(read_places(sums, x, place, weight), expected, rtol=1e-6)
        some = torch.arange(0, num_agents, 3)
        np.testing.assert_allclose(read_places(sums, x, place, weight, some), expected[::3], rtol=1e-6)


@pytest.mark.parametrize("num_places", [3, 500, 60_000])
@pytest.mark.parametrize("codes", [None, torch.uint8, torch.int32])
def test_place_sums_have_the_bits_of_the_plain_sum_on_any_threads(num_places, codes):
    size = 100_000
    place, indptr, member = places(size, num_places)
    x = values((size,), active=0.2)
    table = values((200,), seed=8)
    code = None if codes is None else torch.randint(0, 200, (size,), generator=torch.manual_seed(0)).to(codes)
    activity = None if code is None else table[code.int()]
    expected = segment_sum(weigh(x, activity).index_select(0, member), indptr)
    rows = nonzero_rows(x)
    for threads in THREADS:
        with num_threads(threads):
            pushed = push_places(rows, x[rows], place, num_places, code, None if code is None else table)
            assert torch.equal(pushed, expected), threads


@pytest.mark.parametrize("rows", [None, torch.arange(1, 5000, 7)])
def test_whoever_has_no_place_receives_positive_zero(rows):
    place, indptr, member = places(5000, 200)
    x, weight = -values((5000,), active=0.5), values((200,), seed=4)
    sums = segment_sum(x.index_select(0, member), indptr)
    received = read_places(sums, x, place, weight, rows)
    nowhere = place.index_select(0, torch.arange(5000) if rows is None else rows) < 0
    assert nowhere.any() and (received.numpy().view(np.int32)[nowhere] == 0).all()  # the sign of zero too
