"""Draws of events, and the gradient that a differentiable run gives them.

An estimator returns the hard outcome of a keyed draw; they differ only in the backward pass.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from gnabm.errors import ConfigError, nearest
from gnabm.random import bernoulli


class Estimator(Protocol):
    """How a Bernoulli event is drawn and what gradient it passes on."""

    def __call__(self, state: int, keys: Tensor, p: Tensor) -> Tensor:
        """Draw events with probability p (n,) keyed by keys (n,)."""
        ...


class Hard:
    """No gradient: (n,) bool."""

    def __call__(self, state: int, keys: Tensor, p: Tensor) -> Tensor:
        """Draw (n,) bool."""
        return bernoulli(state, keys, p)


class StraightThrough:
    r"""The hard outcome forward, the identity in p backward.

    Exact in expectation for what is linear in the event; biased otherwise. Reference: Bengio, Leonard and Courville
    (2013), arXiv 1308.3432.
    """

    def __call__(self, state: int, keys: Tensor, p: Tensor) -> Tensor:
        """Draw (n,) float flags with d flag / d p = 1."""
        hard = bernoulli(state, keys, p).to(p.dtype)
        return hard + (p - p.detach())  # p - p is 0 in value: the detached copy only removes p's value


_ESTIMATORS = {"straight-through": StraightThrough}


def estimator(name: str | None) -> Estimator:
    """The estimator of a run by name; None for a forward run."""
    if name is None:
        return Hard()
    if name not in _ESTIMATORS:
        raise ConfigError(f"unknown gradient estimator {name!r}; {nearest(name, _ESTIMATORS)}")
    return _ESTIMATORS[name]()


def zero_where(mask: Tensor, p: Tensor) -> Tensor:
    """Probabilities of a forward run set to 0 where an agent cannot have the event.

    Args:
        mask: (n,) bool or number.
        p: (n,).
    """
    return torch.where(mask != 0, p, torch.zeros_like(p))
