"""Estimators: hard forward, their own gradient backward."""

import pytest
import torch
from torch.autograd import forward_ad

from gnabm import Contacts, simulate
from gnabm.errors import ConfigError, DataError, KindError, ShapeError
from gnabm.linear import gradients
from gnabm.models.epidemic import sir
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
    gradient_only,
    log_likelihood,
    zero_where,
)
from gnabm.tangent import jacobian

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


@pytest.mark.parametrize(
    ("baseline", "error", "words"),
    [
        ({"incidense": 1.0}, ConfigError, "names 'incidense'; did you mean 'incidence'"),
        ({"incidence": torch.ones(4)}, ShapeError, r"one number or have shape \(3,\), as the run has it, got \(4,\)"),
        ({"incidence": torch.ones(1)}, ShapeError, r"got \(1,\)"),
        ({"stage_count": torch.ones(3)}, ShapeError, r"shape \(3, 3\)"),
    ],
)
def test_a_baseline_that_does_not_fit_the_run_is_refused(baseline, error, words):
    model, pair = sir(0.1, 0.1, 0.1), Contacts.from_edges([0, 1], [1, 0], num_agents=2)
    common = dict(steps=3, seed=1, gradient=Score(baseline))
    for checkpoint in (None, 2):
        with pytest.raises(error, match=words):
            simulate(model, pair, checkpoint=checkpoint, **common)
    with pytest.raises(error, match=words):
        jacobian(model, pair, ["Recover.rate"], **common)


def test_a_baseline_by_step_is_taken_off_in_each_mode():
    model, pair = sir(0.1, 0.1, 0.1).double(), Contacts.from_edges([0, 1], [1, 0], num_agents=2)
    common = dict(steps=4, seed=2, gradient=Score({"stage_count": torch.arange(12.0).reshape(4, 3)}))
    stage_count = simulate(model, pair, **common).observed["stage_count"]
    for step, stage in ((0, 1), (3, 0), (3, 2)):
        (expected,) = torch.autograd.grad(stage_count[step, stage], [model.rules()[1].rate], retain_graph=True)
        found = jacobian(model, pair, ["Recover.rate"], **common)["stage_count"][step, stage, 0]
        torch.testing.assert_close(found, expected)
    with pytest.raises(DataError, match="the baseline of 'deaths' must be finite"):
        Score({"deaths": float("nan")})


def test_only_the_gradient_is_noted_whatever_the_value():
    x = torch.tensor([1.0, -torch.inf, torch.nan], requires_grad=True)
    rows = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert gradient_only(x).tolist() == [0.0, 0.0, 0.0]
    assert torch.equal(torch.autograd.grad(gradient_only(x), x, rows[0])[0], rows[0])
    noted = gradient_only(x)
    assert torch.equal(gradients([noted], [x], [rows], batched=True)[0], rows)
    with forward_ad.dual_level():
        dual = gradient_only(forward_ad.make_dual(x.detach(), rows[1]))
        assert torch.equal(forward_ad.unpack_dual(dual).tangent, rows[1])


class Loose:
    flags = local = False

    def __call__(self, state, keys, p):
        return bernoulli(state, keys, p)


def test_what_is_no_estimator_or_would_have_no_gradient_is_refused():
    for given in (bernoulli, LocalScore, 3, object()):
        with pytest.raises(KindError, match="says by flags and local"):
            estimator(given)
    with pytest.raises(ConfigError, match="Loose has neither flags nor a local likelihood"):
        estimator(Loose())


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
