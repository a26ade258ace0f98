"""Estimators: hard forward, their own gradient backward."""

import pytest
import torch
from torch.autograd import forward_ad

from gnabm.errors import ConfigError
from gnabm.random import bernoulli, uniform
from gnabm.sampling import (
    ESTIMATORS,
    Gumbel,
    Hard,
    LocalScore,
    Score,
    Smoothed,
    StraightThrough,
    estimator,
    log_likelihood,
    zero_where,
)

KEYS = torch.arange(1000)
MANY = torch.arange(400_000)


@pytest.mark.parametrize("kind", [StraightThrough(), Gumbel(), Gumbel(0.1), Gumbel(2.0), Smoothed()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flags_have_the_bits_of_the_plain_draw(kind, dtype):
    p = torch.linspace(0, 1, 1000, dtype=dtype)
    flags = kind(42, KEYS, p)
    assert flags.dtype == dtype
    assert torch.equal(flags != 0, bernoulli(42, KEYS, p))


@pytest.mark.parametrize("kind", [StraightThrough(), Gumbel(0.3), Smoothed()])
def test_forward_mode_has_the_slope_of_reverse_mode_and_so_has_a_batch(kind):
    p = torch.linspace(0, 1, 1000, dtype=torch.float64).requires_grad_()
    slope = torch.autograd.grad(kind(42, KEYS, p).sum(), p)[0]
    assert torch.isfinite(slope).all()
    with forward_ad.dual_level():
        dual = kind(42, KEYS, forward_ad.make_dual(p.detach(), torch.ones_like(p)))
        assert torch.equal(forward_ad.unpack_dual(dual).tangent, slope)
    rows = torch.stack([torch.ones_like(p), torch.arange(1000.0, dtype=torch.float64)])
    batch = torch.autograd.grad(kind(42, KEYS, p), p, rows, is_grads_batched=True)[0]
    assert torch.allclose(batch, rows * slope, rtol=1e-15)


def test_the_slope_of_gumbel_is_that_of_the_relaxed_draw():
    p = torch.linspace(0.001, 0.999, 1000, dtype=torch.float64).requires_grad_()
    u = uniform(42, KEYS)
    relaxed = torch.sigmoid((torch.logit(p) - torch.logit(u)) / 0.3)
    assert torch.equal(relaxed > 0.5, bernoulli(42, KEYS, p))
    expected = torch.autograd.grad(relaxed.sum(), p)[0]
    assert torch.allclose(torch.autograd.grad(Gumbel(0.3)(42, KEYS, p).sum(), p)[0], expected, rtol=1e-9)


@pytest.mark.parametrize("p", [0.0, 0.02, 0.3, 0.97, 1.0])
def test_the_mean_slope_of_smoothed_jumps_is_one(p):
    chance = torch.full(MANY.shape, p, requires_grad=True)
    slope = torch.autograd.grad(Smoothed()(42, MANY, chance).sum(), chance)[0]
    spread = float(slope.std()) / MANY.shape[0] ** 0.5
    assert abs(float(slope.mean()) - 1) <= 4 * spread + 1e-6


def test_the_mean_slope_of_gumbel_nears_one_as_the_temperature_falls_and_its_spread_grows():
    chance = torch.full(MANY.shape, 0.3, requires_grad=True)
    slopes = [torch.autograd.grad(Gumbel(t)(42, MANY, chance).sum(), chance)[0] for t in (1.0, 0.5, 0.1)]
    bias = [abs(float(slope.mean()) - 1) for slope in slopes]
    assert bias[0] > bias[1] > bias[2] and bias[2] < 0.03
    assert slopes[0].std() < slopes[1].std() < slopes[2].std()


def test_the_score_of_a_draw_has_mean_zero_and_none_where_nothing_is_left_to_chance():
    chance = torch.full(MANY.shape, 0.3, requires_grad=True)
    noted = log_likelihood(chance, bernoulli(42, MANY, chance))
    assert not noted.any()
    score = torch.autograd.grad(noted.sum(), chance)[0]
    assert score.unique().tolist() == pytest.approx([-1 / 0.7, 1 / 0.3])
    assert abs(float(score.mean())) < 4 * float(score.std()) / MANY.shape[0] ** 0.5
    certain = torch.tensor([0.0, 1.0], requires_grad=True)
    assert not torch.autograd.grad(log_likelihood(certain, certain.detach() > 0).sum(), certain)[0].any()


def test_a_baseline_is_taken_off_what_the_score_is_multiplied_by():
    value = torch.tensor([3.0, 5.0])
    assert Score().residual("deaths", value).tolist() == [3.0, 5.0]
    assert Score({"deaths": 1.0}).residual("deaths", value).tolist() == [2.0, 4.0]
    assert Score({"deaths": value}).residual("deaths", value).tolist() == [0.0, 0.0]


def test_straight_through_is_the_hard_draw_with_the_gradient_of_p():
    p = torch.linspace(0, 1, 1000).requires_grad_()
    flags = StraightThrough()(42, KEYS, p)
    assert torch.equal(flags.detach(), bernoulli(42, KEYS, p).float())
    upstream = torch.arange(1000.0)
    assert torch.equal(torch.autograd.grad(flags, p, upstream)[0], upstream)


def test_the_hard_draw_has_no_gradient():
    flags = Hard()(42, KEYS, torch.full((1000,), 0.5, requires_grad=True))
    assert flags.dtype == torch.bool and not flags.requires_grad


def test_by_name():
    assert isinstance(estimator(None), Hard)
    assert isinstance(estimator("straight-through"), StraightThrough)
    assert isinstance(estimator("local-score"), LocalScore)
    assert all(estimator(name).flags in (True, False) for name in ESTIMATORS)
    assert estimator("gumbel(0.25)").temperature == 0.25
    given = Gumbel(0.1)
    assert estimator(given) is given
    with pytest.raises(ConfigError, match="did you mean 'straight-through'"):
        estimator("straight")


def test_a_temperature_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="positive number, got 0"):
        Gumbel(0)
    with pytest.raises(ConfigError, match=r"such as gumbel\(0.5\), got 'gumbel\(warm\)'"):
        estimator("gumbel(warm)")


def test_zero_where_leaves_the_others_their_probability():
    p = torch.tensor([0.5, 0.25])
    assert zero_where(torch.tensor([True, False]), p).tolist() == [0.5, 0.0]
    assert zero_where(torch.tensor([0.0, 1.0]), p).tolist() == [0.0, 0.25]
