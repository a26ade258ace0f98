"""Gradients on shards: those of one shard, with and without checkpoints, in both precisions."""

import pytest
import torch

from cluster import run_local
from gnabm import simulate
from gnabm.models.epidemic import seir

STEPS = 12


def model(dtype=torch.float32):
    made = seir(0.06, 0.4, 0.2, 0.03, susceptibility=[0.8, 1.0, 1.1, 1.2, 0.9, 1.0, 1.0, 1.3, 0.7])
    return made.to(dtype)


def loss_of(observed):
    weight = torch.linspace(-1, 1, observed["incidence"].numel(), dtype=torch.float64)
    return (observed["incidence"].reshape(-1) * weight).sum() + observed["stage_count"][-1, 2].sum() ** 2 / 400


def vector(population, shards, dtype=torch.float32, **how):
    of = model(dtype)
    run = run_local(of, population, shards=shards, steps=STEPS, seed=4, loss=loss_of, **how)
    return run, torch.cat([p.grad.reshape(-1).double() for p in of.parameters()])


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("estimator", ["local-score", "straight-through", "smoothed", "score"])
def test_gradients_on_shards_agree_with_those_of_one(population, estimator, dtype, tolerance):
    first, one = vector(population, 1, dtype, gradient=estimator)
    assert bool(torch.isfinite(one).all())
    assert float(one.norm()) > 0
    for shards in (2, 3):
        run, cut = vector(population, shards, dtype, gradient=estimator)
        assert run.attributes["loss"] == first.attributes["loss"]
        assert float((cut - one).norm() / one.norm()) < tolerance


def test_checkpoints_change_no_bit_on_shards(population):
    _, kept = vector(population, 3, gradient="local-score", checkpoint=None)
    _, again = vector(population, 3, gradient="local-score", checkpoint=5)
    assert torch.equal(kept, again)


def test_shards_have_the_history_of_a_forward_run(population):
    plain = simulate(model(), population, steps=STEPS, seed=4)
    run, _ = vector(population, 3, gradient="local-score", checkpoint=4)
    assert all(torch.equal(run.observed[n], v.to(torch.float64)) for n, v in plain.observed.items())


def test_what_stands_for_a_parameter_gets_its_gradient_from_all_shards(population):
    _, expected = vector(population, 1, gradient="local-score")
    knob = torch.tensor(0.06, requires_grad=True)
    of = model()
    given = {"Infect.transmission_rate": knob * 1.0}
    run_local(of, population, shards=3, steps=STEPS, seed=4, gradient="local-score", loss=loss_of, parameters=given)
    names = [name for name, _ in of.named_parameters()]
    at = next(k for k, name in enumerate(names) if name.endswith("transmission_rate"))
    first = sum(p.numel() for p in list(of.parameters())[:at])
    assert knob.grad.item() == pytest.approx(expected[first].item(), rel=1e-4)
    assert of.rules()[0].transmission_rate.grad is None


def test_a_loss_may_look_at_parameters_and_at_tensors_without_gradient(population):
    of = model()
    given = {"Recover.rate": torch.tensor(0.2)}

    def loss(observed):
        return observed["incidence"].sum() * 0 + 1000 * of.rules()[0].transmission_rate

    run = run_local(of, population, shards=2, steps=3, seed=4, gradient="local-score", loss=loss, parameters=given)
    assert of.rules()[0].transmission_rate.grad.item() == pytest.approx(1000)
    assert run.attributes["loss"] == pytest.approx(60)
