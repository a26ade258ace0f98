"""Every linear map has the gradient of its transpose and the tangent of itself, one by one or as a batch."""

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad, gradcheck

from gnabm import Contacts, Mixing, Places, Population
from gnabm.drawing import Messages
from gnabm.exchange import Solo, Total
from gnabm.linear import EdgeSums, PlaceSums, apply, carries_gradient, gradients
from gnabm.local import on_shards
from gnabm.messages import nonzero_rows, pull_edges, transpose
from gnabm.mixing import MixingTables
from gnabm.neighbours import Neighbours
from gnabm.sent import Sent
from gnabm.shard import MixingShard, cut
from gnabm.testing import awkward_population
from gnabm.testing.watch import num_threads

POPULATION = awkward_population(60)
SHARDS = [(0, 60), (0, 9, 10, 60)]


def rng(seed=0):
    """A generator."""
    return np.random.default_rng(seed)


def edges(num_sources, num_targets, number, weighted, seed=0):
    """Edges by target and by source."""
    code = np.unique(rng(seed).integers(0, num_sources * num_targets, number))
    target, source = np.divmod(code, num_sources)
    indptr = torch.from_numpy(np.concatenate([[0], np.cumsum(np.bincount(target, minlength=num_targets))]))
    weight = torch.from_numpy(rng(seed).random(code.size).astype(np.float32)) if weighted else None
    into = indptr, torch.from_numpy(source.astype(np.int32)), weight
    return into, transpose(*into[:2], num_sources, weight)


def maps():
    """One of each map that needs no other shard, with the number of its columns."""
    for weighted in (False, True):
        into, out = edges(12, 9, 40, weighted)
        some = torch.tensor([1, 4, 7])
        for sources, targets in ((None, None), (some, None), (None, some), (some, torch.tensor([0, 8]))):
            yield f"edges{weighted}", EdgeSums(into, out, sources, targets), 12 if sources is None else 3
    place = torch.from_numpy(rng().integers(-1, 4, 15).astype(np.int32))
    for weight in (None, torch.rand(5)):
        for activity in (None, torch.rand(15)):
            for rows in (None, torch.tensor([2, 3, 11, 14])):
                made = PlaceSums(place, 5, weight, activity, rows, torch.arange(4, 13))
                yield "places", made, 15 if rows is None else 4
    message = torch.from_numpy(rng().integers(0, 7, (2, 30)).astype(np.int32))
    yield "messages", Messages(message[0], message[1], 7, 8), 8
    yield "total", Total(Solo(), torch.arange(11, dtype=torch.int32) % 3, 3, 11, torch.float64), 11
    yield "one total", Total(Solo(), None, 1, 11, torch.float64), 11


MAPS = list(maps())


def matrix(linear, num_columns):
    """The matrix of a map, column by column."""
    return torch.stack([linear(column) for column in torch.eye(num_columns, dtype=torch.float64)], 1)


@pytest.mark.parametrize(("name", "linear", "size"), MAPS, ids=[m[0] for m in MAPS])
def test_the_transposed_map_has_the_transposed_matrix(name, linear, size):
    dense = matrix(linear, size)
    assert dense.abs().sum() > 0
    torch.testing.assert_close(matrix(linear.transposed, dense.shape[0]), dense.T)
    torch.testing.assert_close(matrix(linear.transposed.transposed, size), dense)


@pytest.mark.parametrize(("name", "linear", "size"), MAPS, ids=[m[0] for m in MAPS])
def test_features_are_mapped_as_if_alone(name, linear, size):
    x = torch.from_numpy(10 ** rng(1).uniform(-4, 4, (size, 3)))
    for dtype in (torch.float32, torch.float64):
        together = linear(x.to(dtype))
        for column in range(3):
            assert torch.equal(together[:, column], linear(x[:, column].to(dtype).contiguous()))
    assert linear(x[:, :0]).shape == (together.shape[0], 0)


@pytest.mark.parametrize(("name", "linear", "size"), MAPS, ids=[m[0] for m in MAPS])
@pytest.mark.parametrize("features", [(), (2,)])
def test_gradients_and_tangents_are_finite_differences(name, linear, size, features):
    x = torch.rand(size, *features, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda v: apply(linear, v), x, check_forward_ad=True)


@pytest.mark.parametrize(("name", "linear", "size"), MAPS, ids=[m[0] for m in MAPS])
def test_a_batch_of_gradients_is_one_after_the_other(name, linear, size):
    x = torch.rand(size, dtype=torch.float64, requires_grad=True)
    y = apply(linear, x.sin()) ** 2
    each = torch.rand(4, y.shape[0], dtype=torch.float64)
    other = torch.ones(2, requires_grad=True)
    batched = gradients([y], [x, other], [each], batched=True, retain_graph=True)
    one_by_one = [gradients([y], [x, other], [g], retain_graph=True) for g in each]
    torch.testing.assert_close(batched[0], torch.stack([found for found, _ in one_by_one]), rtol=1e-13, atol=1e-13)
    assert batched[1] is None and one_by_one[0][1] is None


def test_both_kernels_of_edges_have_the_bits_of_the_reference_on_any_threads():
    into, out = edges(3000, 2000, 40_000, True)
    asked = torch.arange(0, 2000, 3)
    for share in (0.001, 0.1, 0.9):
        x = torch.from_numpy((10 ** rng(2).uniform(-4, 4, 3000) * (rng(3).random(3000) < share)).astype(np.float32))
        expected, senders = pull_edges(x, *into), nonzero_rows(x)
        for threads in (1, 2, 3, 7):
            with num_threads(threads):
                assert torch.equal(EdgeSums(into, out)(x), expected)
                assert torch.equal(EdgeSums(into, out, senders)(x[senders]), expected)
                assert torch.equal(EdgeSums(into, out, senders, asked)(x[senders]), expected[asked])


def neighbours(group, bounds, *, rows=None, weights=None):
    """The awkward graph of one step, its mixing drawn."""
    shard = cut(POPULATION, group, bounds)
    tables = {n: MixingTables.of(v.layer, 1.0) for n, v in shard.layers.items() if isinstance(v, MixingShard)}
    return Neighbours(shard, 1, 3, 1.0, "auto", tables, rows=rows, weights=weights)


def own(x, group, bounds):
    """Rows of a shard."""
    return x[bounds[group.rank] : bounds[group.rank + 1]]


def loss_gradient(x, weight, bounds, send, every=1):
    """Gradient in x (60,) of a weighted sum of what everyone receives through all layers, over some shards."""

    def work(group):
        mine = own(x, group, bounds).clone().requires_grad_()
        rows = torch.arange(group.rank, len(mine), every) if every > 1 else None
        graph = neighbours(group, bounds, rows=rows)
        sent = send(graph.shard, mine)
        total = mine.sum() * 0
        for name in graph:
            received = graph[name].received(sent)
            share = own(weight, group, bounds)
            total = total + (received * (share if rows is None else share[rows])).sum()
        return torch.autograd.grad(total, mine)[0]

    return torch.cat(on_shards(len(bounds) - 1, work))


def everyone(shard, x):
    """Everyone sends."""
    return Sent(shard, x, False)


def some_of(shard, x):
    """Only those who have something send."""
    rows = nonzero_rows(x.detach())
    return Sent(shard, None, False, rows, x.index_select(0, rows))


@pytest.mark.parametrize("bounds", SHARDS, ids=["alone", "three"])
@pytest.mark.parametrize("name", list(POPULATION.contacts))
def test_every_layer_has_the_gradient_of_finite_differences_across_shards(name, bounds):
    x = torch.from_numpy(rng(4).random(60) * (rng(5).random(60) < 0.5))

    def received(v, weight):
        parts = on_shards(
            len(bounds) - 1,
            lambda g: (neighbours(g, bounds)[name].received(everyone(neighbours(g, bounds).shard, own(v, g, bounds)))
                       * own(weight, g, bounds)).sum().detach(),
        )  # fmt: skip
        return float(sum(parts))

    def gradient(weight):
        def work(group):
            mine = own(x, group, bounds).clone().requires_grad_()
            graph = neighbours(group, bounds)
            out = graph[name].received(everyone(graph.shard, mine)) * own(weight, group, bounds)
            return torch.autograd.grad(out.sum(), mine)[0]

        return torch.cat(on_shards(len(bounds) - 1, work))

    weight = torch.from_numpy(rng(6).random(60))
    found = gradient(weight)
    for agent in (0, 9, 10, 33, 59):
        step = torch.zeros_like(x)
        step[agent] = 1e-3  # linear: no error of truncation
        difference = (received(x + step, weight) - received(x - step, weight)) / 2e-3
        # The expected form rounds its totals to 2^-30.
        assert found[agent].item() == pytest.approx(difference, rel=2e-5, abs=2e-6)


@pytest.mark.parametrize("every", [1, 3])
def test_whoever_sends_nothing_may_be_left_out_of_the_gradient(every):
    x = torch.from_numpy(rng(4).random(60) * (rng(5).random(60) < 0.3))
    weight = torch.from_numpy(rng(6).random(60))
    for bounds in SHARDS:
        dense = loss_gradient(x, weight, bounds, everyone, every)
        sparse = loss_gradient(x, weight, bounds, some_of, every)
        torch.testing.assert_close(sparse, torch.where(x != 0, dense, 0.0), rtol=1e-12, atol=1e-12)


def test_gradients_over_shards_are_those_of_one():
    x, weight = torch.from_numpy(rng(4).random(60)), torch.from_numpy(rng(6).random(60))
    alone = loss_gradient(x, weight, (0, 60), everyone)
    for bounds in ((0, 30, 60), (0, 9, 10, 60), (0, 1, 2, 20, 33, 50, 59, 60)):
        torch.testing.assert_close(loss_gradient(x, weight, bounds, everyone), alone, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("features", [(), (2,)])
def test_weights_of_senders_carry_the_gradient_of_flags_that_have_none(features):
    flags = torch.from_numpy(rng(5).random((60, *features)) < 0.4)

    def gradient(x):
        weights = torch.ones(60, requires_grad=True)
        graph = neighbours(Solo(), (0, 60), weights=weights)
        received = sum(graph[name].sum_neighbours(x) for name in graph)
        return received.detach(), torch.autograd.grad((received**2).sum(), weights)[0]

    plain = gradient(flags.float())
    dense = gradient(flags.float().requires_grad_())  # everyone sends
    assert torch.equal(plain[0], dense[0])
    torch.testing.assert_close(plain[1], dense[1])


def test_the_tangent_of_all_layers_is_their_sum_of_the_tangent():
    graph, x, direction = neighbours(Solo(), (0, 60)), torch.rand(60).double(), torch.randn(60).double()
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(graph.sum_neighbours(forward_ad.make_dual(x, direction))).tangent
    torch.testing.assert_close(tangent, neighbours(Solo(), (0, 60)).sum_neighbours(direction), rtol=1e-6, atol=1e-6)


def test_a_tensor_with_a_graph_or_a_tangent_carries_a_gradient():
    x = torch.ones(2)
    assert not carries_gradient(x) and carries_gradient(x.clone().requires_grad_())
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, x)
        assert carries_gradient(dual * 2) and not carries_gradient(x) and not carries_gradient(dual.detach())


def test_a_place_of_two_hears_only_the_other():
    population = Population(3, {}, Contacts({"home": Places.of(np.array([0, 0, 1]), num_places=2)}, 3))
    x = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    graph = Neighbours(cut(population), 1, 0, 1.0, "auto", {})
    received = graph.sum_neighbours(x)
    assert received.tolist() == [2.0, 1.0, 0.0]
    assert torch.autograd.grad(received @ torch.tensor([10.0, 1.0, 5.0]), x)[0].tolist() == [1.0, 10.0, 0.0]


def test_drawn_contacts_have_the_gradient_and_the_tangent_of_finite_differences():
    layer = Mixing.uniform(50, 2.0)
    graph = Neighbours(
        cut(Population(50, {}, Contacts({"m": layer}, 50))), 1, 0, 1.0, "auto", {"m": MixingTables.of(layer, 1.0)}
    )
    x = torch.rand(50, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda v: graph["m"].received(Sent(graph.shard, v, False)), x, check_forward_ad=True)
