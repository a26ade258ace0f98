import threading

import pytest
import torch

from gnabm.errors import DataError, RunError
from gnabm.exchange import exchange, total
from gnabm.local import LocalThreads

SIZES = [[2, 0, 3], [1, 4, 0], [0, 0, 5]]  # rows that rank r sends to rank s


@pytest.fixture
def three():
    with LocalThreads(3) as threads:
        yield threads


def test_every_part_arrives_at_its_rank_in_the_order_of_senders(three):
    def task(group):
        parts = [torch.full((n,), 10 * group.rank + to) for to, n in enumerate(SIZES[group.rank])]
        return group.all_to_all(parts)

    for rank, received in enumerate(three.each(task)):
        assert [part.tolist() for part in received] == [[10 * r + rank] * SIZES[r][rank] for r in range(3)]


def test_what_was_sent_may_be_changed_once_it_is_sent(three):
    def task(group):
        x, counts = torch.full((2,), group.rank), torch.full((2,), group.rank)
        pending = group.start([x] * 3)
        x += 10
        summed = group.all_reduce(counts)
        counts += 10
        return [part.tolist() for part in pending.wait()], summed.tolist()

    assert three.each(task) == [([[r, r] for r in range(3)], [3, 3])] * 3


def test_one_shard_runs_at_a_time_in_the_order_of_ranks(three):
    log, running = [], threading.Lock()

    def task(group):
        for turn in range(4):
            assert running.acquire(blocking=False)
            log.append((turn, group.rank))
            running.release()
            group.all_reduce(torch.tensor(1))

    three.each(task)
    assert log == [(turn, rank) for turn in range(4) for rank in range(3)]


def test_the_adjoint_of_the_exchange_sends_gradients_back():
    draw = torch.Generator().manual_seed(1)
    sent = [[torch.randn(n, 2, generator=draw, dtype=torch.float64) for n in row] for row in SIZES]
    dual = [[torch.randn(SIZES[r][s], 2, generator=draw, dtype=torch.float64) for r in range(3)] for s in range(3)]

    def task(group):
        parts = [p.clone().requires_grad_() for p in sent[group.rank]]
        received = exchange(group, parts)
        loss = sum((d * y).sum() for d, y in zip(dual[group.rank], received, strict=True))
        loss.backward()
        return loss.detach(), [p.grad for p in parts]

    with LocalThreads(3) as threads:
        results = threads.each(task)
    # <E x, y> = <x, E* y>
    forward = sum(loss for loss, _ in results)
    backward = sum(
        (g * x).sum() for (_, grads), xs in zip(results, sent, strict=True) for g, x in zip(grads, xs, strict=True)
    )
    torch.testing.assert_close(forward, backward, rtol=1e-12, atol=1e-12)
    for rank, (_, grads) in enumerate(results):
        assert all(torch.equal(g, dual[s][rank]) for s, g in enumerate(grads))


def test_the_adjoint_of_a_total_sums_the_gradients_of_all_shards(three):
    def task(group):
        x = torch.arange(3.0 + group.rank, requires_grad=True)
        result = total(group, x)
        result.backward(torch.tensor(1.0 + group.rank, dtype=torch.float64))
        return result.detach(), x.grad

    for rank, (result, grad) in enumerate(three.each(task)):
        assert result == 3 + 6 + 10
        assert torch.equal(grad, torch.full((3 + rank,), 6.0))


def test_an_exception_on_one_shard_ends_all_with_that_exception(three):
    reached = []

    def task(group):
        group.all_reduce(torch.tensor(1))
        if group.rank == 1:
            raise DataError("a rule said no")
        group.all_reduce(torch.tensor(1))
        reached.append(group.rank)

    with pytest.raises(DataError, match="a rule said no"):
        three.each(task)
    assert reached == []
    assert three.each(lambda group: group.rank) == [0, 1, 2]  # the threads are still of use


def test_different_collectives_are_named_with_rank_and_place(three):
    def task(group):
        if group.rank == 2:
            return group.all_to_all([torch.zeros(1)] * 3)
        return group.all_reduce(torch.zeros(1, dtype=torch.int64))

    with pytest.raises(
        RunError, match=r"rank 0 calls all_reduce of int64.*test_local.*rank 2 calls all_to_all of float32"
    ):
        three.each(task)


def test_the_same_collective_called_from_two_places_is_seen(three):
    def task(group):
        x = torch.tensor(1)
        return group.all_reduce(x) if group.rank else [group.all_reduce(x)][0] + group.all_reduce(x)

    with pytest.raises(RunError, match=r"rank 0 .*rank 1 has ended"):
        three.each(task)


def test_a_shard_that_leaves_the_others_waiting_is_named(three):
    with pytest.raises(RunError, match=r"rank 1 calls all_reduce .* but rank 0 has ended"):
        three.each(lambda group: group.rank and group.all_reduce(torch.tensor(1)))
    with pytest.raises(RunError, match=r"rank 0 waits in all_reduce .* but rank 2 has ended"):
        three.each(lambda group: group.rank < 2 and group.all_reduce(torch.tensor(1)))


def test_no_thread_is_left_behind():
    before = threading.active_count()
    with LocalThreads(5) as threads, pytest.raises(ZeroDivisionError):
        threads.each(lambda group: 1 // (group.rank - 3))
    assert threading.active_count() == before
