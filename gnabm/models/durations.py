"""How long stages last, in whole steps, and the courses of an infection that follow from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from gnabm.errors import ConfigError, DataError

Floats = NDArray[np.float64]
_TAIL = 1e-12
_STEP = 1e-3
"""Relative step of differences in a parameter."""
_GROUPS = 32
"""Durations of one stage that a course tells apart; when there are more, neighbours are averaged."""


@dataclass(frozen=True)
class Duration:
    """Days that a stage lasts, rounded to whole steps, at least one.

    Args:
        mean: Days.
        sd: Days, for a Gamma distribution; None for one of the two whole numbers of steps around the mean, at random
            such that the mean is met.

    Raises:
        DataError: A value is not positive and finite.
    """

    mean: float
    sd: float | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        for name, value in (("mean", self.mean), ("standard deviation", 1.0 if self.sd is None else self.sd)):
            if not (math.isfinite(value) and value > 0):
                raise DataError(f"the {name} of a duration must be a positive number of days, got {value}")

    def pmf(self, dt: float) -> Floats:
        """(W,) probabilities of 1, ..., W steps of dt days; what lies beyond 1 - 1e-12 is added to the last."""
        if self.sd is None:
            low = math.floor(round(self.mean / dt, 9))
            rest = min(max(self.mean / dt - low, 0.0), 1.0)
            steps = np.zeros(max(low + 1, 1))
            steps[max(low, 1) - 1] += 1 - rest
            steps[max(low + 1, 1) - 1] += rest
            return steps
        cdf = gamma_cdf(np.array([dt * 1.5]), self.mean, self.sd)
        size = 16
        while cdf[-1] < 1 - _TAIL:
            size *= 2
            cdf = gamma_cdf((np.arange(1, size + 1) + 0.5) * dt, self.mean, self.sd)
        cdf = cdf[: int(np.searchsorted(cdf, 1 - _TAIL)) + 1]
        cdf[-1] = 1.0
        return np.diff(cdf, prepend=0.0)

    def score(self, dt: float) -> Floats:
        r"""Derivatives of the log-probability of 1, ..., W steps of dt days.

        The Gamma distribution function has no closed derivative in its shape, so both derivatives are central
        differences of fourth order in the logarithm of the parameter, :math:`f' = (8 (f_1 - f_{-1}) - (f_2 - f_{-2})) /
        12 h`, in float64; tails are differences of the upper function, so nothing cancels. The relative error is below
        1e-7 where a duration has a probability above 1e-9. Where a duration is certain, or cannot be, there is none.

        Args:
            dt: Days.

        Returns:
            (W, 2) in the mean and in the standard deviation, per day; W is that of `pmf`. The second is 0 without one.
        """
        steps = self.pmf(dt)
        found = np.zeros((steps.size, 2))
        if self.sd is None:
            if steps.size > 1 and steps[-1] > 0 and steps[-2] > 0:
                found[-2:, 0] = -1 / (steps[-2] * dt), 1 / (steps[-1] * dt)
            return found
        size, h = steps.size, _STEP
        given = np.array([self.mean, self.sd])
        for which, by in enumerate(np.eye(2)):
            up, far, down, off = (_log_steps(given * (1 + k * h * by), dt, size) for k in (1, 2, -1, -2))
            with np.errstate(invalid="ignore"):
                found[:, which] = (8 * (up - down) - (far - off)) / (12 * h * given[which])
        # What underflows is never drawn.
        return np.where(np.isfinite(found), found, 0.0)


def gamma_cdf(x: NDArray[Any], mean: float, sd: float) -> Floats:
    """Distribution function of the Gamma distribution with a mean and a standard deviation."""
    scale = sd * sd / mean
    return np.asarray(special.gammainc(mean / scale, np.maximum(x, 0.0) / scale), dtype=np.float64)


def _log_steps(law: Floats, dt: float, size: int) -> Floats:
    """(size,) log-probabilities of 1, ..., size steps, of a mean and standard deviation; the last means and more."""
    mean, sd = law
    scale = sd * sd / mean
    edges = np.concatenate([[0.0], (np.arange(1, size) + 0.5) * dt]) / scale
    below = np.append(special.gammainc(mean / scale, edges), 1.0)
    above = np.append(special.gammaincc(mean / scale, edges), 0.0)
    steps = np.where(below[:-1] < 0.5, np.diff(below), -np.diff(above))
    with np.errstate(divide="ignore"):
        return np.log(steps)


def geometric(rate: float, dt: float, name: str) -> Floats:
    """(W,) probabilities that a stage left at a rate per day lasts 1, ..., W steps of dt days.

    Raises:
        ConfigError: The rate is 0, so the stage lasts for ever.
    """
    if not rate > 0:
        raise ConfigError(f"{name} must be positive for a finite reproduction number, got {rate}")
    stay = math.exp(-rate * dt)
    size = max(math.ceil(math.log(_TAIL) / -(rate * dt)), 1)
    steps = -math.expm1(-rate * dt) * stay ** np.arange(size)
    steps[-1] += 1 - steps.sum()
    return np.asarray(steps)


def _grouped(pmf: Floats, length: int) -> tuple[Floats, Floats]:
    """Group durations by their quantile.

    Args:
        pmf: (W,) of 1, ..., W steps.
        length: K.

    Returns:
        (G,) probability of each group, and (G, K) of 1, ..., K steps within it; K stands for K and more.
    """
    law = np.zeros(length)
    law[: min(length, pmf.size)] = pmf[:length]
    law[-1] += pmf[length:].sum()
    present = np.flatnonzero(law > 0)
    if present.size <= _GROUPS:
        of = np.arange(present.size)
    else:
        middle = np.cumsum(law[present]) - law[present] / 2
        of = np.unique((middle * _GROUPS).astype(np.int64), return_inverse=True)[1]
    within = np.zeros((int(of.max()) + 1, length))
    within[of, present] = law[present]
    share = within.sum(1)
    return share, within / share[:, None]


def one_stage(pmf: Floats, length: int) -> tuple[Floats, Floats]:
    """Courses of one stage.

    Args:
        pmf: (W,) probabilities of its duration.
        length: K.

    Returns:
        (P,) probabilities, and (P, K) share of each course that is in the stage at the start of step 1, ..., K.
    """
    share, within = _grouped(pmf, length)
    return share, _lasting(within)


def two_stages(first: Floats, second: Floats, length: int) -> tuple[Floats, Floats, Floats]:
    """Courses of one stage and then another.

    Args:
        first: (W,) probabilities of the duration of the first stage.
        second: (V,) of the second.
        length: K.

    Returns:
        (P,) probabilities, and twice (P, K): the share in the first and in the second stage at the start of each step.
    """
    share, within = _grouped(first, length)
    share_then, within_then = _grouped(second, length)
    lasting = _lasting(within_then)
    then = np.zeros((share.size, share_then.size, length))
    for steps in np.flatnonzero(within.any(0)) + 1:
        group = int(np.flatnonzero(within[:, steps - 1])[0])
        if steps < length:
            then[group, :, steps:] += within[group, steps - 1] * lasting[:, : length - steps]
    probability = share[:, None] * share_then
    return probability.ravel(), np.repeat(_lasting(within), share_then.size, axis=0), then.reshape(-1, length)


def _lasting(within: Floats) -> Floats:
    """Probability that a duration with these probabilities (G, K) of 1, ..., K is at least 1, ..., K."""
    return np.asarray(np.cumsum(within[:, ::-1], axis=1)[:, ::-1])
