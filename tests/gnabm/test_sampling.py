"""Estimators: hard forward, their own gradient backward."""

import pytest
import torch

from gnabm.errors import ConfigError
from gnabm.random import bernoulli
from gnabm.sampling import Hard, StraightThrough, estimator, zero_where

KEYS = torch.arange(1000)


def test_straight_through_is_the_hard_draw_with_the_gradient_of_p():
    p = torch.linspace(0, 1, 1000).requires_grad_()
    flags = StraightThrough()(42, KEYS, p)
    assert torch.equal(flags.detach(), bernoulli(42, KEYS, p).float())
    upstream = torch.arange(1000.0)
    assert torch.equal(torch.autograd.grad(flags, p, upstream)[0], upstream)


def test_the_hard_draw_has_no_gradient():
    flags = Hard()(42, KEYS, torch.full((1000,), 0.5, requires_grad=True))
    assert flags.dtype == torch.bool and not flags.requires_grad


def test_straight_through_is_exact_in_expectation_for_what_is_linear_in_the_event():
    p = torch.full((200_000,), 0.3, dtype=torch.float64)
    keys = torch.arange(200_000)
    epsilon = 0.01  # the same draws with a little more chance: finite differences with common random numbers
    difference = bernoulli(7, keys, p + epsilon).double().mean() - bernoulli(7, keys, p - epsilon).double().mean()
    error = (2 * epsilon * (1 - 2 * epsilon) / 200_000) ** 0.5 / (2 * epsilon)
    assert abs(float(difference) / (2 * epsilon) - 1.0) < 4.5 * error


def test_by_name():
    assert isinstance(estimator(None), Hard)
    assert isinstance(estimator("straight-through"), StraightThrough)
    with pytest.raises(ConfigError, match="did you mean 'straight-through'"):
        estimator("straight")


def test_zero_where_keeps_the_gradient_of_flags():
    p = torch.tensor([0.5, 0.25])
    assert zero_where(torch.tensor([True, False]), p).tolist() == [0.5, 0.0]
    flags = torch.tensor([1.0, 0.0], requires_grad=True)
    assert torch.autograd.grad(zero_where(flags, p).sum(), flags)[0].tolist() == [0.5, 0.25]
