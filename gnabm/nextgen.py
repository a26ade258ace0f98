r"""The next-generation matrix of a model on a population, and the transmission rate that gives a stated R0.

.. math:: K_{a b} = \sum_l \sum_w n^l_{a b}(w) \, E_c[1 - \exp(-\beta \, v_l \, \sigma_b \, w \, D_c)]

is the expected number of people of age b whom one infected agent of age a infects while everybody else is
susceptible: n the people of age b whom it meets w times a day in layer l, c the course of its infection, D_c
infectiousness times days over that course. So nobody is infected twice: a home of four holds three infections at most.
In a layer whose contacts are drawn anew each step, each contact infects with 1 - exp(-beta v sigma x) for what the
infector sends in that step; in the expected form of such a layer hazards add up without limit.

R0 is the largest eigenvalue. Infections of later generations meet people whom others have infected, so the cohort
reproduction number of a run lies below it from the second generation on wherever people meet in groups. People who meet
in two layers are counted in both.

Reference: Diekmann, Heesterbeek and Metz (1990), J. Math. Biol. 28, 365-382; Ball, Mollison and Scalia-Tomba (1997),
Ann. Appl. Probab. 7, 46-89 (the same with groups).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from gnabm.errors import ConfigError, DataError, UnknownFieldError, nearest
from gnabm.transmission import AGE_GROUPS, Courses, Transmission

Floats = NDArray[np.float64]
_BINS = 128
"""Values of infectiousness times days that stand for all courses of an age."""
_LARGEST_RATE = 1e6


@dataclass(frozen=True, eq=False)
class Encounters:
    """Who meets whom in a layer, by age.

    Args:
        number: (A, A, W) people of the column's age whom a participant of the row's age meets, by how often; for drawn
            and expected contacts (A, A, 1) contacts per day.
        weight: (A, A, W) contacts per day with each of them; 1 for drawn and expected contacts.
        kind: `pairs` meet day after day, `drawn` contacts are others in each step, `expected` ones are a mean field.
    """

    number: Floats
    weight: Floats
    kind: Literal["pairs", "drawn", "expected"]


def by_five_years(by_ten_years: Sequence[float]) -> Floats:
    """Values of the ten-year groups 0-9, ..., 80+ on the five-year groups 0-4, ..., 75+.

    Args:
        by_ten_years: (num_ten_year_groups,); 75+ gets the mean of 70-79 and 80+, for about as many people are 75-79 as
            are older.
    """
    values = np.asarray(by_ten_years, dtype=np.float64)
    result: Floats = values[np.minimum(np.arange(AGE_GROUPS + 1) * 5 // 10, values.size - 1)]
    return np.append(result[:-2], result[-2:].mean())


def next_generation_matrix(
    encounters: Mapping[str, Encounters], transmission: Transmission, transmission_rate: float, dt: float
) -> Floats:
    """The matrix K.

    Args:
        encounters: By layer (`graphs.encounters`).
        transmission: Courses of an infection, susceptibility, layer weights.
        transmission_rate: beta, infections per contact.
        dt: Length of a step in days.

    Returns:
        (A, A), row = infector.

    Raises:
        DataError: There is no layer.
        UnknownFieldError: A weight is for a layer that is not there.
    """
    for name in transmission.layer_weights:
        if name not in encounters:
            raise UnknownFieldError(f"layer_weights.{name}: there is no such layer; {nearest(name, encounters)}")
    if not encounters:
        raise DataError("a next-generation matrix needs at least one layer of contacts")
    return _matrix(encounters, transmission, _Doses.of(transmission.courses(dt), dt), transmission_rate, dt)


@dataclass(frozen=True, eq=False)
class _Doses:
    """What the courses send in all, in few values.

    Args:
        dose: (A, D) infectiousness times days.
        share: (A, D) probability of each.
        step: (A, S) infectiousness in one step.
        steps: (A, S) expected number of steps with it.
    """

    dose: Floats
    share: Floats
    step: Floats
    steps: Floats

    @staticmethod
    def of(courses: Courses, dt: float) -> _Doses:
        totals = courses.infectiousness.sum(1) * dt
        dose, share = _binned(totals, courses.probability)
        ages, flat = courses.probability.shape[0], courses.infectiousness.ravel()
        length = courses.infectiousness.shape[1]
        step, steps = _binned(flat, np.repeat(courses.probability, length, axis=1).reshape(ages, -1))
        return _Doses(dose, share, step, steps)


def _binned(values: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Values (P,) with weights (A, P): as they are when few differ, else the means of bins of near-equal weight.

    Returns:
        values (A, B) and weights (A, B); those that are 0 infect nobody and are left out.
    """
    values, weight = values[values > 0], weight[:, values > 0]
    distinct, at = np.unique(values, return_inverse=True)
    if distinct.size > _BINS:
        alike = np.bincount(at, weight.sum(0))
        below = (np.cumsum(alike) - alike / 2) / alike.sum()
        at = np.minimum((below * _BINS).astype(np.int64), _BINS - 1)[at]
    size = min(distinct.size, _BINS)
    mass = np.stack([np.bincount(at, w, size) for w in weight])
    sums = np.stack([np.bincount(at, w * values, size) for w in weight])
    return np.divide(sums, mass, out=np.zeros(sums.shape), where=mass > 0), mass.astype(np.float64)


def _matrix(
    encounters: Mapping[str, Encounters], transmission: Transmission, doses: _Doses, rate: float, dt: float
) -> Floats:
    ages = next(iter(encounters.values())).number.shape[0]
    given = transmission.susceptibility
    sigma = np.ones(ages) if given is None else by_five_years(given)
    total = np.zeros((ages, ages))
    for name, layer in encounters.items():
        factor = rate * transmission.layer_weights.get(name, 1.0)
        for a in range(ages):
            of = min(a, doses.dose.shape[0] - 1)
            if layer.kind == "pairs":
                hazard = factor * sigma[:, None] * layer.weight[a]
                infected = -np.expm1(-hazard[..., None] * doses.dose[of]) @ doses.share[of]
                total[a] += (layer.number[a] * infected).sum(1)
            elif layer.kind == "drawn":
                infected = -np.expm1(-factor * sigma[:, None] * doses.step[of]) @ doses.steps[of]
                total[a] += layer.number[a, :, 0] * dt * infected
            else:
                total[a] += layer.number[a, :, 0] * factor * sigma * (doses.dose[of] @ doses.share[of])
    return total


def reproduction_number(matrix: Floats) -> float:
    """Largest eigenvalue of a next-generation matrix (num_groups, num_groups)."""
    return float(np.abs(np.linalg.eigvals(matrix)).max())


def transmission_rate_for(
    target: float, encounters: Mapping[str, Encounters], transmission: Transmission, dt: float
) -> float:
    """The transmission rate at which the reproduction number is the stated one.

    Args:
        target: Basic reproduction number, > 0.
        encounters: By layer (`graphs.encounters`).
        transmission: Courses of an infection, susceptibility, layer weights.
        dt: Length of a step in days.

    Raises:
        ConfigError: The target is not positive, nobody could infect anybody, or the contacts do not suffice.
    """
    if not target > 0:
        raise ConfigError(f"reproduction_number must be positive, got {target}")
    small = 1e-9
    slope = reproduction_number(next_generation_matrix(encounters, transmission, small, dt)) / small
    if not slope > 0:
        raise ConfigError("no contact transmits: every layer weight, susceptibility, infectiousness or contact is 0")
    doses = _Doses.of(transmission.courses(dt), dt)

    def missing(rate: float) -> float:
        return reproduction_number(_matrix(encounters, transmission, doses, rate, dt)) - target

    low = high = target / slope  # each contact counts as new, so the rate is at least this
    while missing(high) < 0:
        high *= 2
        if high > _LARGEST_RATE:
            most = missing(high) + target
            raise ConfigError(
                f"reproduction_number {target} is out of reach: with infection at every contact it is {most:.3g}; "
                "lower it, or raise the contacts"
            )
    return float(brentq(missing, low, high, rtol=1e-10)) if high > low else low
