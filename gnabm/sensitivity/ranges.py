"""Sensitivity over whole ranges of parameters: Sobol indices and Morris screening, by many plain runs.

References: Saltelli et al. (2010), Comput. Phys. Commun. 181(2), 259-270; Morris (1991), Technometrics 33(2), 161-174;
Herman and Usher (2017), SALib, J. Open Source Softw. 2(9), 97.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gnabm.errors import DataError, UnknownFieldError, nearest
from gnabm.sensitivity.elements import Elements
from gnabm.sensitivity.question import Campaign, Variant

Method = Literal["sobol", "morris"]
METHODS: tuple[Method, ...] = get_args(Method)
_WIDE = 2.0
"""Factor of the range of a parameter without two finite bounds."""
_LEVELS = 4
"""Levels of Morris' grid."""


@dataclass(frozen=True, eq=False)
class Global:
    """Indices of each outcome in each parameter over their ranges.

    Args:
        method: `sobol` or `morris`.
        parameters: Names.
        ranges: (num_parameters, 2).
        groups: Names of the outcomes.
        indices: (num_groups, num_parameters) by name, with their confidence intervals (`_conf`): `S1` and `ST`, the
            share of variance that a parameter explains alone and with others, or `mu`, `mu_star` and `sigma`: mean,
            mean size and spread of the change over a whole range.
        runs: Number of runs.
        left_out: Names of numbers that have no range, for they are 0 or between two bounds that are one.
    """

    method: Method
    parameters: tuple[str, ...]
    ranges: NDArray[np.float64]
    groups: tuple[str, ...]
    indices: Mapping[str, NDArray[np.float64]]
    runs: int
    left_out: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "method": self.method, "runs": self.runs, "parameters": list(self.parameters), "groups": list(self.groups),
            "ranges": self.ranges.tolist(), "left_out": list(self.left_out),
            "indices": {
                name: [[None if np.isnan(v) else float(v) for v in row] for row in table]
                for name, table in self.indices.items()
            },
        }  # fmt: skip


def over_ranges(
    elements: Elements,
    campaign: Campaign,
    groups: Sequence[str],
    *,
    samples: int,
    seed: int,
    method: Method = "sobol",
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> Global:
    """Analyse outcomes over ranges of parameters. All runs have the same draws, so a difference is the parameters'.

    Args:
        elements: The numbers that vary; two or more.
        campaign: Makes the runs.
        groups: Names of its outcomes.
        samples: Base samples: (parameters + 2) times as many runs for `sobol` (a power of 2), (parameters + 1) times
            for `morris`.
        seed: Seed of the runs and of the design.
        method: The analysis.
        ranges: Ranges by name. Others are from half to twice the value, within the bounds; where these are one number,
            such as 0, it is left out.

    Raises:
        UnknownFieldError: A range has an unknown name.
        DataError: A range is empty, there are fewer than two numbers, too few samples, or the model refuses values
            within the ranges, such as probabilities that add up to more than 1.
    """
    bounds_of = varied(elements, samples, method, ranges)
    places, bounds = list(bounds_of), np.array(list(bounds_of.values()), dtype=np.float64)
    names = tuple(elements.names[place] for place in places)
    problem = {"num_vars": len(names), "names": list(names), "bounds": bounds.tolist()}
    points = _design(problem, samples, seed, method)
    variants = [Variant(seed, elements.replaced(dict(zip(places, map(float, p), strict=True)))) for p in points]
    try:
        outcomes = np.stack([found.numpy() for found in campaign(variants)])
    except DataError as error:
        raise DataError(f"the model refuses values within the ranges: {error}; give narrower ranges") from error
    each = [_indices(problem, points, outcomes[:, n], seed, method) for n in range(outcomes.shape[1])]
    indices = {name: np.stack([one[name] for one in each]) for name in each[0]}
    left_out = tuple(name for place, name in enumerate(elements.names) if place not in bounds_of)
    return Global(method, names, bounds, tuple(groups), indices, len(variants), left_out)


def varied(
    elements: Elements, samples: int, method: Method, ranges: Mapping[str, tuple[float, float]] | None = None
) -> dict[int, tuple[float, float]]:
    """What an analysis varies: the range of each number by its place, without those that have none.

    Args:
        elements: The numbers.
        samples: Base samples.
        method: The analysis.
        ranges: Ranges by name.

    Raises:
        UnknownFieldError: A range has an unknown name.
        DataError: A given range is empty, fewer than two numbers have one, or the samples are too few or no power of 2.
    """
    given = dict(ranges or {})
    for name, (low, high) in given.items():
        if name not in elements.names:
            raise UnknownFieldError(f"range of {name!r}: {nearest(name, elements.names)}")
        if not low < high:
            raise DataError(f"the range of {name} is empty, [{low:g}, {high:g}]; give low < high, or leave it out")
    every = {
        place: given.get(name, elements.around(place, _WIDE)) for place, name in enumerate(elements.names)
    }  # fmt: skip
    found = {place: (low, high) for place, (low, high) in every.items() if low < high}
    if len(found) < 2 or samples < 2:
        raise DataError(
            f"a global analysis needs two parameters with a range and two samples at least, got {len(found)} of "
            f"{len(every)} parameters and {samples} samples; give ranges to those that are 0"
        )
    if method == "sobol" and samples & (samples - 1):
        raise DataError(f"Sobol's sequence needs a power of 2 samples, got {samples}; give 2 ** n, such as 64")
    return found


def _design(problem: Mapping[str, Any], samples: int, seed: int, method: Method) -> NDArray[np.float64]:
    points: NDArray[np.float64]
    if method == "sobol":
        from SALib.sample import sobol

        points = sobol.sample(problem, samples, calc_second_order=False, seed=seed)
    else:
        from SALib.sample import morris

        points = morris.sample(problem, samples, num_levels=_LEVELS, seed=seed)
    return points


def _indices(
    problem: Mapping[str, Any], points: NDArray[np.float64], outcome: NDArray[np.float64], seed: int, method: Method
) -> dict[str, NDArray[np.float64]]:
    """Indices of one outcome; NaN where it never changes."""
    if method == "sobol":
        from SALib.analyze import sobol

        names = ["S1", "S1_conf", "ST", "ST_conf"]
        if np.ptp(outcome) == 0:
            return {name: np.full(problem["num_vars"], np.nan) for name in names}
        found = sobol.analyze(problem, outcome, calc_second_order=False, seed=seed)
    else:
        from SALib.analyze import morris

        names = ["mu", "mu_star", "mu_star_conf", "sigma"]
        found = morris.analyze(problem, points, outcome, num_levels=_LEVELS, seed=seed)
    return {name: np.asarray(found[name], dtype=np.float64) for name in names}
