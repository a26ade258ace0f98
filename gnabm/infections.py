r"""Who infected whom: the line list of a run, and what follows from it.

Two reproduction numbers are told apart. The cohort number R of step t is the mean number of agents that those
infected in step t went on to infect: it needs the line list and is known only for steps whose cases had time to
infect. The renewal estimate is the number that the incidence implies, :math:`R_t = I_t / \sum_s g_s I_{t - s}` with g
the generation interval: it needs no line list and is known up to today. In a steady growth they agree; when
transmission changes, the renewal estimate changes at once and the cohort number ahead of it.

References: Fraser (2007), PLoS ONE 2, e758 (the two numbers); Cori et al. (2013), Am. J. Epidemiol. 178, 1505-1512.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import ArrayLike, NDArray

from gnabm.errors import DataError, StoreError
from gnabm.linelist import GROUP, read_pieces

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def open_infections(run: str | Path) -> pd.DataFrame | None:
    """The line list of a run.

    Args:
        run: Run folder or its `trajectory.zarr`.

    Returns:
        Columns agent, step, date (NaT in a run without a calendar), infector (-1 for none), layer and, as the
        population has them, region and age; sorted by step, then agent; of the steps of the trajectory that are done.
        None when the run did not record infections.

    Raises:
        StoreError: There is no trajectory.
    """
    folder = Path(run)
    folder = folder / "trajectory.zarr" if (folder / "trajectory.zarr").is_dir() else folder
    if not (folder / "zarr.json").is_file():
        raise StoreError(f"{run} holds no trajectory; give a run folder, or make one with `gnabm run CONFIG`")
    if not (folder / GROUP / "zarr.json").is_file():
        return None
    try:
        return pd.concat(read_pieces(folder, steps_done(folder)), ignore_index=True)
    except (ValueError, KeyError, OSError) as error:
        raise StoreError(f"{run}: the line list cannot be read ({error}); run it again") from error


def steps_done(path: Path) -> int:
    """Number of steps that a trajectory tells of.

    Args:
        path: Folder of the trajectory.
    """
    time = zarr.open_group(str(path), mode="r")["time"]
    assert isinstance(time, zarr.Array)
    return int(time.shape[0])


def _origin(line_list: pd.DataFrame) -> Counts:
    """(num_records,) position of the record of each infector's latest infection before; -1 for none."""
    agent, step, infector = (line_list[name].to_numpy() for name in ("agent", "step", "infector"))
    order = np.lexsort((step, agent))
    whose = agent[order]
    at = np.searchsorted(whose, infector, side="right") - 1
    # The last infection of the infector, and where that is no earlier one, those before it.
    pending = np.flatnonzero((infector >= 0) & (at >= 0))
    found = np.full(agent.size, -1, dtype=np.int64)
    while pending.size:
        pending = pending[(at[pending] >= 0) & (whose[at[pending]] == infector[pending])]
        record = order[at[pending]]
        earlier = step[record] < step[pending]
        found[pending[earlier]] = record[earlier]
        pending = pending[~earlier]
        at[pending] -= 1
    return found


def cohort_reproduction(line_list: pd.DataFrame, steps: int, horizon: int) -> Floats:
    """Mean number of agents infected by those who were infected in each step.

    Args:
        line_list: A line list.
        steps: Steps of the run.
        horizon: Steps within which a case has infected nearly all that it ever will (`horizon`).

    Returns:
        (steps,); NaN for steps in which nobody was infected, and for the last `horizon` steps, whose cases have not
        infected all whom they will.
    """
    if horizon < 0:
        raise DataError(f"horizon must be >= 0 steps, got {horizon}; see gnabm.infections.horizon")
    step = line_list["step"].to_numpy()
    origin = _origin(line_list)
    cases = np.bincount(step[step >= 0], minlength=steps)[:steps]
    made = step[origin[origin >= 0]]
    secondary = np.bincount(made[made >= 0], minlength=steps)[:steps]
    result: Floats = np.divide(secondary, cases, out=np.full(steps, np.nan), where=cases > 0)
    result[max(steps - horizon, 0) :] = np.nan
    return result


def generation_intervals(line_list: pd.DataFrame) -> Counts:
    """Infections by the steps since their infector was infected.

    Args:
        line_list: A line list.

    Returns:
        (longest + 1,) counts of 0, 1, ... steps; (1,) zero when nobody infected anybody. Agents infected at the start
        count as infected in step -1. Infectors that are in no earlier record, such as those infectious at the start for
        another reason, are left out.
    """
    origin = _origin(line_list)
    step = line_list["step"].to_numpy()
    has = origin >= 0
    return np.bincount(step[has] - step[origin[has]], minlength=1)


def secondary_cases(line_list: pd.DataFrame, until: int) -> Counts:
    """Infections by how many agents each went on to infect.

    Args:
        line_list: A line list.
        until: Last step whose infections count; later ones have not infected all whom they will.

    Returns:
        (most + 1,) number of infections that led to 0, 1, ... others; (1,) zero when there are none.
    """
    origin = _origin(line_list)
    secondary = np.bincount(origin[origin >= 0], minlength=len(line_list))
    return np.bincount(secondary[line_list["step"].to_numpy() <= until], minlength=1)


def share_by_layer(line_list: pd.DataFrame) -> dict[str, float]:
    """Share of the infections that came through each layer, or from outside by each rule.

    Args:
        line_list: A line list.

    Returns:
        By name, those that occur, in the order of the layers; those infected at the start are left out. Shares sum to 1
        unless there are none.
    """
    layer = line_list["layer"][line_list["step"] >= 0].cat
    counts = np.bincount(layer.codes.to_numpy(), minlength=len(layer.categories))
    total = max(int(counts.sum()), 1)
    return {str(name): float(n / total) for name, n in zip(layer.categories, counts, strict=True) if n}


def horizon(generation_interval: Sequence[float] | Floats, share: float = 0.99) -> int:
    """Steps within which a case has made a share of its infections.

    Args:
        generation_interval: (K,) probabilities of 1, ..., K steps.
        share: Within (0, 1].
    """
    weights = _checked(generation_interval)
    if not 0 < share <= 1:
        raise DataError(f"share must lie in (0, 1], got {share}")
    return min(int(np.searchsorted(np.cumsum(weights), share - 1e-12)) + 1, weights.size)


def renewal_reproduction(incidence: ArrayLike, generation_interval: Sequence[float] | Floats) -> Floats:
    r"""Reproduction number of each step that the incidence implies, :math:`R_t = I_t / \sum_s g_s I_{t - s}`.

    Infections before the first step are not known to it, so it is too high for about one generation interval after the
    start, and by as much as infections are imported.

    Args:
        incidence: (steps,) new infections in each step.
        generation_interval: (K,) probabilities g of 1, ..., K steps.

    Returns:
        (steps,); NaN where nobody could have infected anybody.
    """
    infections = np.asarray(incidence, dtype=np.float64)
    if infections.ndim != 1 or not np.isfinite(infections).all() or (infections < 0).any():
        raise DataError("incidence must be one number >= 0 for each step; sum over regions and ages first")
    weights = np.concatenate([[0.0], _checked(generation_interval)])
    expected = np.convolve(infections, weights)[: infections.size] if infections.size else infections
    result: Floats = np.divide(infections, expected, out=np.full(infections.size, np.nan), where=expected > 0)
    return result


def _checked(generation_interval: Any) -> Floats:  # noqa: ANN401
    weights = np.asarray(generation_interval, dtype=np.float64)
    if weights.ndim != 1 or not weights.size or not np.isfinite(weights).all() or (weights < 0).any():
        raise DataError("generation_interval must hold probabilities of 1, ..., K steps, K >= 1")
    if abs(weights.sum() - 1) > 1e-6:
        raise DataError(f"the probabilities of a generation interval must sum to 1, got {weights.sum():.6g}")
    return weights
