"""Kernels equal a dense NumPy twin, and push equals pull bit by bit on any number of threads."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnabm.drawing import add_in_order, draw_contacts
from gnabm.messages import (
    count_pairs,
    pull_edges,
    push_edges,
    push_places,
    read_places,
    segment_sum,
    transpose,
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
    assert torch.equal(again[0], indptr) and torch.equal(again[1], source)
    assert (again[2] is None) if not weighted else torch.equal(again[2], weight)


@pytest.mark.parametrize("active", [0.001, 0.01, 0.1, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weighted", [True, False])
def test_push_and_pull_have_the_same_bits_on_heavy_tails_and_any_threads(active, dtype, weighted):
    size = 30_000
    indptr, source, weight = graph(size, size, 600_000, tail=6.0)
    assert int(indptr.diff().max()) > 10_000
    weight = weight if weighted else None
    x = values((size,), dtype, active)
    out = transpose(indptr, source, size, weight)
    rows = x.nonzero().squeeze(1)
    expected = None
    for threads in THREADS:
        with num_threads(threads):
            pulled = pull_edges(x, indptr, source, weight)
            pushed = push_edges(rows, x[rows], *out, size)
        expected = pulled if expected is None else expected
        assert torch.equal(pulled, expected), threads
        assert torch.equal(pushed, expected), threads


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


@pytest.mark.parametrize("rows", [None, torch.arange(1, 5000, 7)])
def test_places_have_the_same_bits_with_and_without_gradient_and_as_columns(rows):
    place, indptr, member = places(5000, 200)
    x, weight = -values((5000,), active=0.5), values((200,), seed=4)  # negative: also the sign of zero must agree
    sums = segment_sum(x.index_select(0, member), indptr)
    with torch.no_grad():
        forward = read_places(sums, x, place, weight, rows)
        wide = read_places(sums[:, None].repeat(1, 2), x[:, None].repeat(1, 2), place, weight, rows)
    differentiable = read_places(sums, x, place, weight, rows)
    for other in (differentiable, wide[:, 0]):
        assert (forward.numpy().view(np.int32) == np.ascontiguousarray(other.numpy()).view(np.int32)).all()


def test_gradients_of_places_are_the_finite_differences():
    place, _, _ = places(9, 4)
    sums, own = torch.rand(4, dtype=torch.float64), torch.rand(9, dtype=torch.float64)
    weight = torch.rand(4, dtype=torch.float64)
    for some in (None, torch.tensor([0, 3, 4])):
        assert torch.autograd.gradcheck(
            lambda s, x, some=some: read_places(s, x, place, weight, some),
            (sums.requires_grad_(), own.requires_grad_()),
        )


def test_messages_are_added_in_the_order_given_on_any_threads():
    rng = np.random.default_rng(3)
    target = torch.from_numpy((500 * rng.random(300_000) ** 3).astype(np.int64))
    value = values((300_000,))
    expected = np.zeros(500, dtype=np.float32)
    np.add.at(expected, target.numpy(), value.numpy())  # one by one, in order
    for threads in THREADS:
        with num_threads(threads):
            with torch.no_grad():
                kernel = add_in_order(target, value, 500)
            assert torch.equal(kernel, torch.from_numpy(expected))
            assert torch.equal(add_in_order(target, value, 500), kernel)
            assert torch.equal(add_in_order(target, value[:, None], 500)[:, 0], kernel)


def test_pairs_are_counted():
    rng = np.random.default_rng(4)
    codes, group = rng.integers(0, 5, 10_001).astype(np.uint8), rng.integers(0, 7, 10_001).astype(np.int32)
    expected = np.bincount(codes.astype(int) * 7 + group, minlength=35).reshape(5, 7)
    for threads in THREADS:
        with num_threads(threads):
            assert count_pairs(torch.from_numpy(codes), torch.from_numpy(group), 5, 7).tolist() == expected.tolist()


def test_contacts_depend_on_the_sender_alone():
    keys = torch.arange(1000)
    group, area = (keys % 2).to(torch.uint8), torch.zeros(1000, dtype=torch.int64)
    tables = (
        torch.tensor([[0.2, 0.6, 1.0], [0.5, 0.9, 1.0]]).double(), torch.tensor([[0.3, 1.0], [1.0, 1.0]]).double(),
        torch.ones(1).double(), torch.zeros(1, 1, 2, dtype=torch.int64), torch.full((1, 1, 2), 500),
    )  # fmt: skip
    first, who, index = draw_contacts(77, keys, group, area, *tables)
    assert ((index >= 0) & (index < 500)).all()
    assert (who[torch.repeat_interleave(group.bool(), first.diff())] == 0).all()  # group 1 meets group 0 alone
    some = torch.arange(3, 1000, 11)
    s_first, s_who, s_index = draw_contacts(77, keys[some], group[some], area[some], *tables)
    assert torch.equal(s_first.diff(), first.diff()[some])
    picked = torch.isin(torch.repeat_interleave(keys, first.diff()), some)
    assert torch.equal(s_who, who[picked]) and torch.equal(s_index, index[picked])
