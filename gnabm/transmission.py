r"""How infectious an infected agent is over time: what a reproduction number and a generation interval follow from.

An infection takes one of several courses (asymptomatic; ill after five days and in hospital after ten; ...). A
course is a row of values that the agent sends, step by step; the courses of an age have probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gnabm.errors import DataError

Floats = NDArray[np.float64]
AGE_GROUPS = 16
"""Five-year groups 0-4, ..., 70-74, 75 and over."""


@dataclass(frozen=True, eq=False)
class Courses:
    """The courses that an infection can take (P of them, over K steps).

    Args:
        probability: (16, P) of each course by five-year age of the infected, or (1, P) for all ages; rows sum to 1.
        infectiousness: (P, K) what an agent sends at the start of step k = 1, ..., K after its infection, relative to
            a transmission rate of 1 per contact.

    Raises:
        DataError: The two do not fit, or hold negative or infinite numbers.
    """

    probability: Floats
    infectiousness: Floats

    def __post_init__(self) -> None:
        """Check shapes and values."""
        if self.probability.ndim != 2 or self.probability.shape[1:] != self.infectiousness.shape[:1]:
            raise DataError(
                f"courses must be probabilities (ages, P) and infectiousness (P, K), got {self.probability.shape} and "
                f"{self.infectiousness.shape}"
            )
        for name, values in (("probability", self.probability), ("infectiousness", self.infectiousness)):
            if not np.isfinite(values).all() or (values < 0).any():
                raise DataError(f"{name} of courses must be finite and >= 0")
        if np.abs(self.probability.sum(1) - 1).max(initial=0.0) > 1e-6:
            raise DataError("the probabilities of the courses of each age must sum to 1")

    @property
    def mean(self) -> Floats:
        """(16 or 1, K) expected infectiousness by age and step after infection."""
        return np.asarray(self.probability @ self.infectiousness)


@dataclass(frozen=True, eq=False)
class Transmission:
    """What a model says of its transmission, apart from its rate.

    Args:
        courses: Courses of an infection for steps of dt days.
        susceptibility: By ten-year age group, or None for 1.
        layer_weights: Factor on the contacts of a layer, by name; 1 where absent.
    """

    courses: Callable[[float], Courses]
    susceptibility: Sequence[float] | None = None
    layer_weights: Mapping[str, float] = field(default_factory=dict)

    def generation_interval(self, dt: float) -> Floats:
        """Intrinsic distribution of the steps from infection to infecting, the ages of infectors weighed alike.

        Args:
            dt: Length of a step in days.

        Returns:
            (K,) probabilities of 1, ..., K steps.

        Raises:
            DataError: Nobody is ever infectious.
        """
        mean = self.courses(dt).mean.mean(0)
        if not mean.sum() > 0:
            raise DataError("a generation interval needs somebody to be infectious; check the infectiousness")
        return np.asarray(mean / mean.sum())
