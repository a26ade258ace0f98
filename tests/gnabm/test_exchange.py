"""Totals are exact, the same in any order, and refuse what they cannot hold."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import gnabm.exchange
from gnabm.errors import TotalOverflowError
from gnabm.exchange import FIXED_POINT, ShardGroup, Solo, Total, exchange, exchange_columns, total
from gnabm.linear import gradients
from gnabm.local import on_shards


@given(st.lists(st.floats(-1e6, 1e6), max_size=50), st.randoms())
def test_the_order_of_rows_does_not_change_a_bit(values, rng):
    shuffled = list(values)
    rng.shuffle(shuffled)
    one = total(Solo(), torch.tensor(values, dtype=torch.float64))
    assert torch.equal(one, total(Solo(), torch.tensor(shuffled, dtype=torch.float64)))
    assert float(one) == pytest.approx(sum(values), abs=len(values) / FIXED_POINT + 1e-9)


def test_counts_are_integers_and_sums_of_floats_float64():
    assert total(Solo(), torch.tensor([True, False, True])).tolist() == 2
    assert total(Solo(), torch.tensor([3, 4], dtype=torch.uint8)).dtype == torch.int64
    assert total(Solo(), torch.tensor([0.5, 0.25])).dtype == torch.float64
    assert total(Solo(), torch.empty(0)).item() == 0.0


def test_by_bin():
    index = torch.tensor([0, 2, 2])
    assert total(Solo(), torch.tensor([1.5, 2.0, 0.25]), index, 4).tolist() == [1.5, 0, 2.25, 0]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64])
@pytest.mark.parametrize("piece", [1, 7, 100, 101, 1000])
def test_pieces_of_any_length_add_up_to_the_same(monkeypatch, dtype, piece):
    x = torch.from_numpy(np.random.default_rng(2).integers(0, 9, 101) / 8).to(dtype)
    index = torch.arange(101, dtype=torch.int32) % 4
    monkeypatch.setattr(gnabm.exchange, "_PIECE", piece)
    assert total(Solo(), x).item() == x.double().sum()
    assert total(Solo(), x, index, 5).tolist() == [*(x[index == k].double().sum() for k in range(4)), 0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 5e9])
def test_a_total_out_of_range_is_refused(value):
    with pytest.raises(TotalOverflowError, match="scale the values down"):
        total(Solo(), torch.tensor([1.0, value]))


def test_a_sum_that_would_overflow_is_refused_before_it_wraps_round():
    with pytest.raises(TotalOverflowError):
        total(Solo(), torch.full((100,), 1e8))
    assert total(Solo(), torch.full((10,), 1e8)).item() == 1e9


def test_totals_and_their_gradients_are_those_of_one_shard():
    x = torch.from_numpy(np.random.default_rng(1).normal(size=101))
    index = torch.arange(101) % 5

    def work(group: ShardGroup):
        low, high = group.rank * 101 // group.size, (group.rank + 1) * 101 // group.size
        mine = x[low:high].clone().requires_grad_()
        binned = total(group, mine, index[low:high], 5)
        # A loss that every shard computes alike is counted on one of them.
        loss = (binned**2).sum() * (1.0 if group.rank == 0 else 0.0)
        return binned.detach(), torch.autograd.grad(loss, mine)[0]

    (expected, gradient), *_ = on_shards(1, work)
    for size in (2, 3, 7):
        results = on_shards(size, work)
        assert all(torch.equal(binned, expected) for binned, _ in results)
        assert torch.equal(torch.cat([g for _, g in results]), gradient)


@pytest.mark.parametrize("index", [None, torch.tensor([0, 2, 2, 1], dtype=torch.int32)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_a_total_gives_back_is_made_in_the_type_of_its_rows(index, dtype):
    linear, table = Total(Solo(), index, 3, 4, dtype), torch.rand(3, 5, dtype=torch.float64) / 3
    if index is None:
        linear, table = Total(Solo(), None, 1, 4, dtype), table[:1]
    spread = linear.transposed(table)
    assert spread.dtype == dtype
    assert torch.equal(spread, table[[0] * 4 if index is None else index.long()].to(dtype))
    x = torch.rand(4, dtype=dtype, requires_grad=True)
    each = torch.rand(5, 3, dtype=torch.float64)
    (batch,) = gradients([total(Solo(), x, torch.tensor([0, 2, 2, 1]), 3)], [x], [each], batched=True)
    assert torch.equal(batch, each[:, [0, 2, 2, 1]].to(dtype))


def test_the_adjoint_of_an_exchange_sends_gradients_back_where_the_values_came_from():
    size = 3

    def work(group: ShardGroup):
        # Variable sizes: rank s sends s + r + 1 values to rank r.
        parts = [torch.arange(group.rank + r + 1, dtype=torch.float64).requires_grad_() for r in range(size)]
        received = exchange(group, parts)
        assert [len(p) for p in received] == [s + group.rank + 1 for s in range(size)]
        loss = sum((100 * group.rank + s) * p.sum() for s, p in enumerate(received))
        return [g.tolist() for g in torch.autograd.grad(loss, parts)]

    for sender, found in enumerate(on_shards(size, work)):
        for receiver, gradient in enumerate(found):
            assert gradient == [100.0 * receiver + sender] * (sender + receiver + 1)


def test_a_single_row_keeps_columns_of_any_width_whatever_stands_before_them():
    columns = [torch.tensor([2.5]), torch.tensor([-(2**40) - 1]), torch.tensor([7], dtype=torch.int32)]
    columns += [torch.tensor([2**50 + 3]), torch.tensor([[1.5, 2.5]], dtype=torch.float64)]
    for received in on_shards(2, lambda group: exchange_columns(group, [columns, columns])):
        assert all(torch.equal(a, b) for row in received for a, b in zip(row, columns, strict=True))


def test_alone_an_exchange_returns_what_was_sent():
    x = torch.ones(3, requires_grad=True)
    (received,) = exchange(Solo(), [x])
    assert torch.autograd.grad(2 * received.sum(), x)[0].tolist() == [2.0, 2.0, 2.0]
