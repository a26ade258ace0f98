r"""The next-generation matrix of a model on a population, and the transmission rate that gives a stated R0.

.. math:: K_{a b} = \beta \, D \, \sigma_b \sum_l v_l M^l_{a b}

is the expected number of infections in age group b by one infected agent of age group a while almost everyone is
susceptible: M the mean contacts per day of a participant of age a with people of age b, D the expected
infectiousness times days. R0 is its largest eigenvalue. It counts every contact as new, so within homes and classes
it is an upper bound.

Reference: Diekmann, Heesterbeek and Metz (1990), J. Math. Biol. 28, 365-382.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gnabm.errors import ConfigError, DataError, UnknownFieldError, nearest

AGE_GROUPS = 16
"""Five-year groups 0-4, ..., 70-74, 75 and over."""
_TAIL = 1e-12


def by_five_years(by_ten_years: Sequence[float]) -> NDArray[np.float64]:
    """Values of the ten-year groups 0-9, ..., 80+ on the five-year groups 0-4, ..., 75+.

    Args:
        by_ten_years: (num_ten_year_groups,); 75+ gets the value of 70-79.
    """
    values = np.asarray(by_ten_years, dtype=np.float64)
    result: NDArray[np.float64] = values[np.minimum(np.arange(AGE_GROUPS) * 5 // 10, values.size - 1)]
    return result


def infectious_days(
    recovery_rate: float, dt: float, latent_rate: float | None = None, infectiousness: Sequence[float] = (1.0,)
) -> float:
    r"""Expected infectiousness times days of one infected agent, in the discrete time of the simulation.

    .. math:: D = dt \sum_{k \ge 1} g_{\lfloor k \, dt \rfloor} \Pr[\text{infectious } k \text{ steps after infection}]

    Args:
        recovery_rate: Infectious to recovered, per day.
        dt: Length of a step in days.
        latent_rate: Exposed to infectious, per day; None for a model without latency.
        infectiousness: (num_days,) g by whole days since infection; the last value holds from there on.
    """
    stay = math.exp(-recovery_rate * dt)
    leave = 1.0 if latent_rate is None else -math.expm1(-latent_rate * dt)
    if stay >= 1 or leave <= 0:
        raise ConfigError("recovery_rate and latent_rate must be positive for a finite reproduction number")
    # An agent infected in step t is in its first stage at the start of step t + 1, that is at age of infection 1.
    exposed, infectious = (1.0, 0.0) if latent_rate is not None else (0.0, 1.0)
    days, age = 0.0, 1
    while exposed + infectious > _TAIL:
        day = math.floor(round(age * dt, 9))  # as the rule has it
        days += infectious * infectiousness[min(day, len(infectiousness) - 1)]
        infectious = infectious * stay + exposed * leave
        exposed *= 1 - leave
        age += 1
    return days * dt


def next_generation_matrix(
    contacts: Mapping[str, NDArray[np.float64]],
    transmission_rate: float,
    days: float,
    susceptibility: NDArray[np.float64] | None = None,
    layer_weights: Mapping[str, float] | None = None,
) -> NDArray[np.float64]:
    """The matrix K.

    Args:
        contacts: (num_groups, num_groups) mean contacts per day by layer, row = participant.
        transmission_rate: Infections per contact.
        days: Expected infectiousness times days (`infectious_days`).
        susceptibility: (num_groups,), or None for 1.
        layer_weights: Factor by layer, 1 where absent.

    Returns:
        (num_groups, num_groups), row = infector.
    """
    weights = layer_weights or {}
    for name in weights:
        if name not in contacts:
            raise UnknownFieldError(f"layer_weights.{name}: there is no such layer; {nearest(name, contacts)}")
    if not contacts:
        raise DataError("a next-generation matrix needs at least one layer of contacts")
    total = sum(np.asarray(matrix) * weights.get(name, 1.0) for name, matrix in contacts.items())
    sigma = np.ones(np.shape(total)[0]) if susceptibility is None else susceptibility
    result: NDArray[np.float64] = transmission_rate * days * total * sigma[None, :]
    return result


def reproduction_number(matrix: NDArray[np.float64]) -> float:
    """Largest eigenvalue of a next-generation matrix (num_groups, num_groups)."""
    return float(np.abs(np.linalg.eigvals(matrix)).max())


def transmission_rate_for(
    target: float,
    contacts: Mapping[str, NDArray[np.float64]],
    *,
    recovery_rate: float,
    dt: float,
    latent_rate: float | None = None,
    infectiousness: Sequence[float] = (1.0,),
    susceptibility: Sequence[float] | None = None,
    layer_weights: Mapping[str, float] | None = None,
) -> float:
    """The transmission rate at which the reproduction number is the stated one.

    Args:
        target: Basic reproduction number, > 0.
        contacts: (16, 16) mean contacts per day by layer and five-year age, row = participant.
        recovery_rate: Per day.
        dt: Length of a step in days.
        latent_rate: Per day, or None.
        infectiousness: By days since infection.
        susceptibility: By ten-year age group, or None.
        layer_weights: Factor by layer.

    Raises:
        ConfigError: The target is not positive, or nobody could infect anybody.
    """
    if not target > 0:
        raise ConfigError(f"reproduction_number must be positive, got {target}")
    days = infectious_days(recovery_rate, dt, latent_rate, infectiousness)
    sigma = None if susceptibility is None else by_five_years(susceptibility)
    unit = reproduction_number(next_generation_matrix(contacts, 1.0, days, sigma, layer_weights))
    if not unit > 0:
        raise ConfigError("no contact transmits: every layer weight, susceptibility or contact is 0")
    return target / unit
