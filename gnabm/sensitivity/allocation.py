r"""How to spend a budget of closures on layers: by the gradient of what is to be prevented.

A lockdown multiplies the weight of layer l by 1 - r_l, with a reduction r_l in [0, 1]. Its cost is
:math:`\sum_l c_l r_l`; with c = 1 it is the sum of the reductions.

Reference: Quera-Bofarull et al. (2023), AAMAS 2023 (factors 1 - g of normalised gradients).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gnabm.errors import DataError, ShapeError


def allocate(gradient: Tensor, budget: float, cost: Tensor | None = None) -> Tensor:
    """Reductions in proportion to gains, none above 1, what is above it given to the others in proportion.

    Args:
        gradient: (num_layers,) what a reduction of each layer prevents: the gradient of cases in its log weight. Layers
            with nothing to gain, of 0 or less, get a part only when all others are closed.
        budget: Cost of all reductions, between 0 and that of closing everything.
        cost: (num_layers,) cost of closing each layer; 1 where None.

    Returns:
        (num_layers,) float64 reductions, of the cost of the budget.

    Raises:
        DataError: The budget cannot be spent, a cost is not positive, or a number is not finite.
    """
    each = _costs(gradient, budget, cost)
    share = gradient.detach().to(torch.float64).clamp(min=0)  # an allocation is data
    found = _filled(share, budget, each, torch.zeros_like(each))
    left = budget - float((each * found).sum())
    if left > 1e-12 * max(budget, 1.0):  # those that gain are closed
        found = _filled((share == 0).to(torch.float64), left, each, found)
    return found


def _filled(share: Tensor, budget: float, cost: Tensor, given: Tensor) -> Tensor:
    """Reductions min(1, m * share) where a share is positive, with m such that they cost the budget if they can."""
    found, open_ = given.clone(), share > 0
    while bool(open_.any()):
        share = share / share[open_].max()  # only proportions matter, and tiny ones would be lost
        spent = float((cost * found)[(share > 0) & ~open_].sum())
        found[open_] = share[open_] * ((budget - spent) / float((cost * share)[open_].sum()))
        over = open_ & (found > 1)
        if not over.any():
            break
        found[over] = 1.0
        open_ &= ~over
    return found


def project(wanted: Tensor, budget: float, cost: Tensor | None = None) -> Tensor:
    r"""The nearest reductions within [0, 1] of the cost of a budget: the projection of a gradient step.

    Args:
        wanted: (num_layers,) reductions, any numbers.
        budget: Cost of all reductions.
        cost: (num_layers,) cost of closing each layer; 1 where None.

    Returns:
        (num_layers,) float64, :math:`\min(1, \max(0, w_l - m c_l))` with m such that the cost is met (bisection).

    Raises:
        DataError: The budget cannot be spent, a cost is not positive, or a number is not finite.
    """
    each = _costs(wanted, budget, cost)
    start = wanted.detach().to(torch.float64)  # an allocation is data
    reach = float(((start.abs() + 1) / each).max())
    low, high = -reach, reach
    for _ in range(100):
        middle = (low + high) / 2
        if float((each * (start - middle * each).clamp(0, 1)).sum()) > budget:
            low = middle
        else:
            high = middle
    return (start - high * each).clamp(0, 1)


def _costs(values: Tensor, budget: float, cost: Tensor | None) -> Tensor:
    each = torch.ones(values.shape, dtype=torch.float64) if cost is None else cost.to(torch.float64)
    if values.dim() != 1 or each.shape != values.shape:
        raise ShapeError(f"expected one number and one cost per layer, got {tuple(values.shape)}, {tuple(each.shape)}")
    _check_finite(values)
    _check_finite(each)
    if not bool((each > 0).all()):
        raise DataError(f"costs must be positive, got {each.tolist()}; leave out a layer that cannot be closed")
    if not 0 <= budget <= float(each.sum()):
        raise DataError(
            f"the budget must lie between 0 and {float(each.sum()):g}, the cost of closing all, got {budget}"
        )
    return each


def _check_finite(values: Tensor) -> None:
    if not bool(values.isfinite().all()):
        raise DataError(
            f"expected finite numbers, got {values.tolist()}; leave out a layer whose gradient or cost is not known"
        )


def refine(
    gains: Callable[[Tensor], Tensor], start: Tensor, budget: float, cost: Tensor | None = None, rounds: int = 8
) -> Tensor:
    """A few projected gradient steps from an allocation to a better one of the same cost.

    Args:
        gains: What a further reduction of each layer would prevent at some reductions, (num_layers,) to the same.
        start: (num_layers,) reductions to begin with.
        budget: Cost of all reductions.
        cost: (num_layers,) cost of closing each layer; 1 where None.
        rounds: Number of steps; the n-th has the length 1 / (2 n).

    Returns:
        (num_layers,) float64 reductions: the last, for gains do not say how good an allocation is. Try it beside the
        start on other seeds where draws make gains noisy.

    Raises:
        DataError: The budget cannot be spent, a cost is not positive, or a number is not finite.
    """
    each, found = _costs(start, budget, cost), project(start, budget, cost)
    for number in range(1, rounds + 1):
        gain = gains(found).detach().to(torch.float64)  # an allocation is data
        _check_finite(gain)
        along = gain - each * ((gain * each).sum() / (each * each).sum())  # what the budget leaves to choose
        length = float(along.norm())
        if length == 0:
            break
        found = project(found + along / (2 * number * length), budget, cost)
    return found
