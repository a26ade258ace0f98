r"""How active people are in their places, by age, so that a setting carries the contacts that are reported.

Who is in which place is given by rolls, sites and classes; how many contacts a day people of each age have there
is given by a contact matrix. Both are met when the weight between two members of a place is multiplied by a_i a_j,
with one number a per age.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gnabm.contacts import Places
from gnabm.errors import DataError
from graphs.meetings import meetings

Floats = NDArray[np.float64]
LEAST, MOST = 0.05, 20.0
"""Bounds of an activity: beyond them the places, not the people, are what is wrong."""
_ROUNDS = 10_000
_TOLERANCE = 1e-12


def fit_activity(met: Floats, wanted: Floats) -> Floats:
    r"""Activity of each group with which its contacts equal those wanted.

    Solves :math:`a_x \sum_y T_{xy} a_y = r_x` by :math:`a_x \leftarrow \sqrt{a_x r_x / (T a)_x}`. The solution
    minimises :math:`\frac12 a^\top T a - r^\top \log a`, convex in log a, so within the bounds there is only one.

    Args:
        met: (A, A) T, contacts per day between groups when everybody's activity is 1, summed over participants;
            symmetric, not negative.
        wanted: (A,) r, contacts per day of each group, summed over its people.

    Returns:
        (A,) a between LEAST and MOST; 1 for a group that meets nobody. A total out of reach of the bounds is not met.

    Raises:
        DataError: met is not square and symmetric, or an entry is negative or not finite.

    Reference:
        Knight, Ruiz and Ucar (2014), SIAM J. Matrix Anal. Appl. 35, 931-955 (symmetry-preserving scaling).
    """
    if met.ndim != 2 or met.shape != (len(wanted), len(wanted)):
        raise DataError(f"met must be ({len(wanted)}, {len(wanted)}) as wanted has it, got {met.shape}")
    if not (np.isfinite(met).all() and np.isfinite(wanted).all()) or (met < 0).any() or (wanted < 0).any():
        raise DataError("contacts must be finite and not negative; check the layers and the contact matrix")
    if not np.allclose(met, met.T, rtol=1e-6, atol=1e-9 * max(float(met.max(initial=0.0)), 1.0)):
        raise DataError("met must be symmetric: co-members of a place meet each other; give contacts of Places")
    present = met.sum(axis=1) > 0
    activity = np.ones(len(wanted))
    for _ in range(_ROUNDS):
        had = np.where(present, (met * activity).sum(axis=1), 1.0)
        new = np.where(present, np.clip(np.sqrt(activity * wanted / had), LEAST, MOST), 1.0)
        if float(np.abs(new - activity).max(initial=0.0)) < _TOLERANCE:
            return np.asarray(new)
        activity = new
    return np.asarray(activity)


def activity_in_setting(places: Sequence[Places], group: NDArray[np.uint8], target: Floats) -> NDArray[np.float32]:
    """Activity of each agent in the places of one setting, one number per group.

    Args:
        places: Layers of the setting, with their contacts per visit; any activity they have is left aside.
        group: (num_agents,) group of each agent, 0..A-1.
        target: (A, A) contacts per day of a participant (row) in the setting; only its row totals are met.

    Returns:
        (num_agents,) float32, rounded to six digits so that it does not hang on the last bits of a sum.

    Raises:
        DataError: the target has another number of groups than the agents, or a negative entry.
    """
    groups = len(target)
    met = np.zeros((groups, groups))
    for layer in places:
        met += meetings(Places(layer.place, layer.indptr, layer.member, layer.contacts), group, groups)
    people = np.bincount(group, minlength=groups)
    by_group = np.round(fit_activity(met, target.sum(axis=1) * people), 6)
    return by_group.astype(np.float32)[group]
