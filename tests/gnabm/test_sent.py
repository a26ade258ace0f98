"""What is sent by those who can send has the gradient of what everyone sends."""

import pytest
import torch

from gnabm import simulate
from gnabm.errors import DataError, ShapeError
from gnabm.local import on_shards
from gnabm.mixing import MixingTables
from gnabm.models.epidemic import seir
from gnabm.models.infection import InfectByAge
from gnabm.neighbours import Neighbours
from gnabm.sent import Sent
from gnabm.shard import MixingShard, cut
from gnabm.testing import awkward_population

SIZE = 200
POPULATION = awkward_population(SIZE)
SENDERS = torch.rand(SIZE, generator=torch.manual_seed(1)) < 0.3
FACTOR = torch.rand(SIZE, generator=torch.manual_seed(2)).double() * (torch.arange(SIZE) % 2)  # 0 for some senders
RECEIVE = torch.rand(SIZE, generator=torch.manual_seed(3)).double()


def gradients(bounds, known):
    """What is received, and the gradients in a learned factor () and in the weights (SIZE,), over some shards."""

    def work(group):
        low, high = bounds[group.rank], bounds[group.rank + 1]
        shard, senders = cut(POPULATION, group, bounds), SENDERS[low:high]
        tables = {n: MixingTables.of(v.layer, 1.0) for n, v in shard.layers.items() if isinstance(v, MixingShard)}
        weights = torch.ones(high - low, dtype=torch.float64, requires_grad=True)
        shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
        graph = Neighbours(shard, 1, 3, 1.0, "auto", tables, torch.arange(0, high - low, 2), weights=weights)
        x = (FACTOR[low:high] + shift) * senders  # a sender of 0 has a gradient too
        received = graph.sum_neighbours(x, senders=senders if known else None)
        loss = (received * RECEIVE[low:high:2]).sum()
        return received.detach(), *torch.autograd.grad(loss, [shift, weights])

    return on_shards(len(bounds) - 1, work)


@pytest.mark.parametrize("bounds", [(0, SIZE), (0, 20, 22, SIZE)], ids=["alone", "three"])
def test_known_senders_change_no_sum_and_no_gradient(bounds):
    for known, plain in zip(gradients(bounds, True), gradients(bounds, False), strict=True):
        assert torch.equal(known[0], plain[0]) and known[0].any()
        torch.testing.assert_close(known[1], plain[1], rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(known[2], plain[2], rtol=1e-11, atol=1e-11)


def test_the_gradient_of_a_learned_factor_is_the_same_on_shards():
    alone, three = (sum(g[1] for g in gradients(b, True)) for b in ((0, SIZE), (0, 20, 22, SIZE)))
    torch.testing.assert_close(alone, three, rtol=1e-11, atol=0)


def test_a_run_has_the_same_gradient_whether_or_not_senders_are_known(monkeypatch):
    def run():
        model = seir(0.03, 0.4, 0.2, 0.05, infectiousness=[0.0, 0.5, 1.0, 0.7], layer_weights={"home": 0.5}).double()
        observed = simulate(model, POPULATION, steps=6, seed=2, gradient="local-score").observed
        torch.autograd.backward(observed["stage_count"][-1, 0].sum())
        return observed["stage_count"], {n: p.grad for n, p in model.named_parameters()}

    counts, found = run()
    monkeypatch.setattr(InfectByAge, "_senders", lambda self, stage: None)
    expected_counts, expected = run()
    assert torch.equal(counts, expected_counts) and sum(g.abs().sum() for g in expected.values()) > 0
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-10, atol=1e-10)


def test_whoever_sends_without_being_a_sender_is_refused():
    shard, x = cut(POPULATION), torch.ones(SIZE)
    with pytest.raises(DataError, match="not among `senders`"):
        Sent.of(shard, x, False, torch.ones(SIZE), SENDERS)
    with pytest.raises(ShapeError, match="sent by everyone"):
        Sent.of(shard, x[:5], False, None, None)
