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


def test_by_name():
    assert isinstance(estimator(None), Hard)
    assert isinstance(estimator("straight-through"), StraightThrough)
    with pytest.raises(ConfigError, match="did you mean 'straight-through'"):
        estimator("straight")


def test_zero_where_leaves_the_others_their_probability():
    p = torch.tensor([0.5, 0.25])
    assert zero_where(torch.tensor([True, False]), p).tolist() == [0.5, 0.0]
    assert zero_where(torch.tensor([0.0, 1.0]), p).tolist() == [0.0, 0.25]
