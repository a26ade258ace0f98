r"""Which region each household stands in, so that regions have as many young people as their schools have students.

Households by region and size are given, and so are the compositions of the country. Dealt out by size alone, every
region would have the age structure of its household sizes, and the students of no region would fit. Instead region r
is expected to have

.. math:: m_{rc} = h_{rs} \, w_{rc} / \sum_{c' \in s} w_{rc'}, \quad w_{rc} = x_c \exp(t_r k_c)

households of composition c of size s, where h are its households by size, k_c people of the composition are under 20,
the x make the compositions those of the country, and the t meet the young people of each region. Of all tables with
these margins it is nearest, in relative entropy, to the deal by size alone. Whole households follow it by a running
quota.

Reference:
    Deming and Stephan (1940), Ann. Math. Statist. 11, 427-444 (iterative proportional fitting).
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_ROUNDS = 400
_STEPS = 3  # of Newton for the tilts, between two scalings of the columns
_ENOUGH = 1e-10  # relative; the deal itself is of whole households
_STEEPEST = 6.0
"""Bound of a tilt: a person under 20 more makes a household at most 400 times as likely, or as rare."""
_DIGITS = 9


def young_shares(homes: Ints, country: Ints, young: Floats) -> Floats:
    """Households by region, size and people under 20: margins given, regions tilted to their young people.

    Args:
        homes: (R, S) households by region and size.
        country: (S, K) households of the country by size and people under 20 (0, 1, ... K - 1); rows sum to the
            columns of homes.
        young: (R,) people under 20 wanted in each region. Out of reach of so few households, a region comes as near
            as the bound of its tilt allows.

    Returns:
        (R, S, K) expected households. Those of each size and number of young people sum to the country's exactly up
        to rounding, those of each region and size up to the tolerance of the fit.
    """
    number = np.arange(country.shape[1])
    scale = np.where(country > 0, 1.0, 0.0)
    total = np.where(country > 0, country, 0).astype(np.float64)
    tilt = np.zeros(len(homes))
    start = total / np.maximum(total.sum(axis=1, keepdims=True), 1.0)
    made = np.zeros((*homes.shape, len(number)))
    for _ in range(_ROUNDS):
        for _ in range(_STEPS):
            weight = start * scale * np.exp(tilt[:, None, None] * number)
            weight /= np.maximum(weight.sum(axis=2, keepdims=True), 1e-300)
            first = (weight * number).sum(axis=2)
            variance = (homes * ((weight * number**2).sum(axis=2) - first**2)).sum(axis=1)
            step = (young - (homes * first).sum(axis=1)) / np.maximum(variance, 1e-9)
            tilt = np.clip(tilt + np.clip(step, -0.5, 0.5), -_STEEPEST, _STEEPEST)
        made = weight * homes[:, :, None]
        column = made.sum(axis=0)
        change = np.where(column > 0, total / np.maximum(column, 1e-300), 1.0)
        scale *= change
        if float(np.abs(change - 1.0).max()) < _ENOUGH:
            break
    return np.asarray(made * change)


@numba.njit(cache=True, nogil=True)
def _walk(count: Ints, share: Floats, room: Ints) -> Ints:  # pragma: no cover - compiled
    """Deal composition by composition: each household to the region that is furthest behind and has room."""
    regions = len(room)
    due = np.zeros(regions)
    left = room.copy()
    dealt = np.zeros((regions, len(count)), np.int64)
    for c in range(len(count)):
        for _ in range(count[c]):
            best = -1
            for r in range(regions):
                due[r] += share[c, r]
                if left[r] > 0 and (best < 0 or due[r] > due[best]):
                    best = r
            due[best] -= 1.0
            left[best] -= 1
            dealt[best, c] += 1
    return dealt


def deal_homes(count: Ints, share: Floats, room: Ints) -> Ints:
    """Deal the households of one size out over the regions.

    Args:
        count: (C,) households of each composition, in an order along which neighbours are alike.
        share: (C, R) expected share of each region in them; rows sum to 1.
        room: (R,) households of each region; they sum to those of count.

    Returns:
        (R, C) int64 households of each region and composition: `count` and `room` are met exactly.
    """
    # Rounded, so that a choice between two regions does not hang on the last bits of an exponential.
    return np.asarray(_walk(count, np.round(share, _DIGITS), room))
