r"""How active people are in their places, by age, so that a setting carries the contacts that are reported.

Who is in which place is given by rolls, sites and classes; how many contacts a day people of each age have there
is given by a contact matrix. Both are met when the weight between two members of a place is multiplied by a_i a_j,
with one number a per age.

The matrix says next to nothing about ages that hardly anybody reported: in a setting where it has less than `LEAST_ROW`
contacts a day, those who are there all the same (workers of 65 and older) are as active as the nearest age that it
does describe.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gnabm.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LEAST, MOST = 0.05, 20.0
"""Bounds of an activity: beyond them the places, not the people, are what is wrong."""
LEAST_ROW = 0.5
"""Contacts per day below which a row of a contact matrix says little."""
_ROUNDS = 10_000
_TOLERANCE = 1e-12


def nearest_described(rows: Floats, present: NDArray[np.bool_]) -> Ints:
    """Group whose activity each group takes: its own, or that of the nearest group which the matrix describes.

    Args:
        rows: (A,) contacts per day of each group, by age.
        present: (A,) whether anybody of the group meets anybody.

    Returns:
        (A,) int64; of two that are as near the younger. Everybody its own if the matrix describes nobody here.
    """
    own = np.arange(len(rows))
    described = np.flatnonzero((rows >= LEAST_ROW) & present)
    if not len(described):
        return own
    nearest = described[np.abs(own[:, None] - described).argmin(axis=1)]
    return np.asarray(np.where(rows >= LEAST_ROW, own, nearest))


def fit_activity(met: Floats, wanted: Floats, like: Ints | None = None) -> Floats:
    r"""Activity of each group with which its contacts equal those wanted.

    Solves :math:`a_x \sum_y T_{xy} a_y = r_x` by :math:`a_x \leftarrow \sqrt{a_x r_x / (T a)_x}`. The solution
    minimises :math:`\frac12 a^\top T a - r^\top \log a`, convex in log a, so within the bounds there is only one.

    Args:
        met: (A, A) T, contacts per day between groups when everybody's activity is 1, summed over participants;
            symmetric, not negative.
        wanted: (A,) r, contacts per day of each group, summed over its people.
        like: (A,) group whose activity each group takes; only totals of groups that have their own are met. None:
            all have their own.

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
        new = new if like is None else np.where(present, new[like], 1.0)
        if float(np.abs(new - activity).max(initial=0.0)) < _TOLERANCE:
            return np.asarray(new)
        activity = new
    return np.asarray(activity)


def activity_in_setting(met: Floats, people: Ints, target: Floats) -> Floats:
    """Activity of each group in the places of one setting.

    Args:
        met: (A, A) contacts per day between groups in the layers of the setting when everybody's activity is 1.
        people: (A,) people of each group.
        target: (A, A) contacts per day of a participant (row) in the setting; only its row totals are met, and of
            those only what is `LEAST_ROW` or more.

    Returns:
        (A,) rounded to six digits so that it does not hang on the last bits of a sum.

    Raises:
        DataError: the target has another number of groups than the agents, or a negative entry.
    """
    rows = target.sum(axis=1)
    like = nearest_described(rows, met.sum(axis=1) > 0)
    return np.asarray(np.round(fit_activity(met, rows * people, like), 6))
