"""Branches: many scenarios from one state, each with the bits of a run of its own.

The state at the start of a step is kept beside the run that it belongs to and made once. A scenario goes on from there
under its own changes; its trajectory holds the earlier steps too, so it is a run like any other.
"""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import zarr

from cluster.run import STORE, Beginning, Keeping, OnStep, RunResult, run
from cluster.space import telling_of_space
from cluster.state import check_state
from gnabm.errors import ConfigError, RunError, StoreError
from gnabm.linelist import PARQUET
from gnabm.model import Model
from gnabm.periods import Period
from gnabm.population import Population
from gnabm.writers import settle

_log = logging.getLogger(__name__)
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST)
_ATTEMPTS = 8


@dataclass(frozen=True, eq=False)
class Trunk:
    """The run that branches leave.

    Args:
        model: Its model.
        population: A graph store, or a population in memory.
        steps: Number of steps of the whole run; those of a branch too.
        seed: Seed of all draws.
        changes: From which steps on another model and seed hold.
        settings: Other keywords of `cluster.run`, such as shards, dt, start, record.
    """

    model: Model
    population: Path | str | Population
    steps: int
    seed: int
    changes: Sequence[Period] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


def branch(
    trunk: Trunk,
    step: int,
    scenarios: Mapping[str, Sequence[Period]],
    *,
    state: Path,
    out: Path | str,
    basis: Mapping[str, Any] | None = None,
    earlier: Path | None = None,
    overwrite: bool = False,
) -> dict[str, RunResult]:
    """Run scenarios that differ from a run only from a step on; bit-equal to running each whole.

    Args:
        trunk: The run that they leave.
        step: The first step that may differ.
        scenarios: Changes of each besides those of the trunk before the step; `()` goes on without any.
        state: Where the state at the start of the step is, or is to be kept.
        out: Folder; each scenario makes `NAME/trajectory.zarr` in it.
        basis: What decides the state, in plain types (config, population, versions). A state that was kept with
            another is made anew. Without it the caller answers for `state` being of this trunk.
        earlier: Trajectory of the trunk, or None.
        overwrite: Replace trajectories that are there.

    Raises:
        GnabmError: As `cluster.run`.
    """
    for name, changes in scenarios.items():
        early = [period.step for period in changes if period.step < step]
        if early:
            raise ConfigError(f"scenario {name!r} changes step {early[0]}, but branches at step {step}; branch earlier")
    beginning = ensure_state(trunk, step, state, basis or {}, earlier=earlier)
    before = [period for period in trunk.changes if period.step < step]
    return {
        name: run(
            trunk.model, trunk.population, steps=trunk.steps, seed=trunk.seed, changes=[*before, *changes],
            begin=beginning, out=Path(out) / name, overwrite=overwrite, **trunk.settings,
        )
        for name, changes in scenarios.items()
    }  # fmt: skip


def ensure_state(
    trunk: Trunk,
    step: int,
    path: Path,
    basis: Mapping[str, Any],
    *,
    earlier: Path | None = None,
    tell: Callable[[str], None] = _log.warning,
    on_step: OnStep | None = None,
) -> Beginning | None:
    """The state of a run at the start of a step: the one that is kept, or made by running up to there.

    Args:
        trunk: The run.
        step: Steps before the state.
        path: Where the state is kept.
        basis: What decides it, in plain types.
        earlier: Trajectory of the run, if its first steps are whole and of this run; checked against the state. Without
            it the steps before are recorded with the state.
        tell: Told why a state or a trajectory that is there is not used.
        on_step: Called after each step that is made.

    Returns:
        State and trajectory to go on from; None for step 0, where a branch makes the initial state itself.

    Raises:
        ConfigError: The run has no such step.
        RunError: No space is left, or the folder cannot be written.
        KeyboardInterrupt: The steps were interrupted; nothing is left.
    """
    if not 0 <= step < trunk.steps:
        raise ConfigError(f"a branch leaves at a step within [0, {trunk.steps}), got {step}; the run has {trunk.steps}")
    if step == 0:
        return None
    if earlier is not None and _last(earlier, step) is None:
        tell(f"{earlier} has not the {step} steps before, or cannot be read; they are made again")
        earlier = None
    whole = _is_whole(path, basis, step, tell)
    if not whole and earlier is not None:
        _make(trunk, step, path, basis, recorded=False, on_step=on_step)
        whole = True
    beginning = _steps_before(path, step, earlier, tell) if whole else None
    if beginning is None:
        _make(trunk, step, path, basis, recorded=True, on_step=on_step)
        beginning = Beginning(path, path / STORE)
    return beginning


def _is_whole(path: Path, basis: Mapping[str, Any], step: int, tell: Callable[[str], None]) -> bool:
    if not path.exists():
        return False
    try:
        check_state(path, basis, step)
    except StoreError as error:
        tell(f"{error}; it is made again")
        return False
    return True


def _steps_before(path: Path, step: int, earlier: Path | None, tell: Callable[[str], None]) -> Beginning | None:
    """A state with the trajectory of the steps before it: the one inside, or another that ends in the state."""
    wanted = _totals(path)
    for trajectory in (path / STORE, earlier):
        last = None if trajectory is None else _last(trajectory, step)
        if last is not None and last.keys() == wanted.keys() and all(np.array_equal(last[n], wanted[n]) for n in last):
            return Beginning(path, trajectory)
    if earlier is not None:
        tell(f"{earlier} does not lead to the state {path}; its steps are made again")
    return None


def _totals(path: Path) -> dict[str, Any]:
    """Observables that are kept with a state."""
    group = zarr.open_group(str(path), mode="r").get("observed")
    return {name: array[...] for name, array in group.arrays()} if isinstance(group, zarr.Group) else {}


def _last(trajectory: Path, step: int) -> dict[str, Any] | None:
    """Observables of the last step before, or None when a trajectory has not so many steps or cannot be read."""
    try:
        root = zarr.open_group(str(trajectory), mode="r", use_consolidated=False)
        found = {}
        for name, array in root.arrays():
            dims = getattr(array.metadata, "dimension_names", None) or ("",)
            if dims[0] == "time" and "agent" not in dims and name != "time":
                found[name] = array[step - 1]
        return found if root["time"].shape[0] >= step else None  # type: ignore[union-attr]
    except Exception:  # no trajectory, or a decoder that fails in a way of its own
        return None


def _make(
    trunk: Trunk, step: int, path: Path, basis: Mapping[str, Any], *, recorded: bool, on_step: OnStep | None
) -> None:
    """Run up to the step beside the path, and rename: a state that is there is whole.

    Another process may make the same state at the same time; the first that is there stays.
    """
    temporary, old = (path.parent / f".{path.name}.{uuid4().hex[:12]}.{what}" for what in ("partial", "old"))
    try:
        with telling_of_space(path):
            temporary.mkdir(parents=True)
        before = [period for period in trunk.changes if period.step < step]
        settings = dict(trunk.settings) | ({} if recorded else {"record": (), "infections": False})
        result = run(
            trunk.model, trunk.population, steps=step, seed=trunk.seed, changes=before, on_step=on_step,
            out=temporary if recorded else None, keep=Keeping(temporary, basis), **settings,
        )  # fmt: skip
        if result.status == "interrupted":
            raise KeyboardInterrupt
        (temporary / PARQUET).unlink(missing_ok=True)  # the list is in the trajectory
        _put(temporary, path, old, lambda: _is_usable(path, basis, step, recorded=recorded))
    except PermissionError as error:
        raise RunError(
            f"{path} cannot be written ({error}); copy the run to a folder that can be, and branch there"
        ) from error
    finally:
        for folder in (temporary, old):
            if folder.exists():
                settle()
                shutil.rmtree(folder, ignore_errors=True)


def _is_usable(path: Path, basis: Mapping[str, Any], step: int, *, recorded: bool) -> bool:
    """Whether a state is there that does as well as one that was made now."""

    def quiet(_: str) -> None:
        """The caller was told why what is there is made again."""

    return _is_whole(path, basis, step, quiet) and (not recorded or _steps_before(path, step, None, quiet) is not None)


def _put(temporary: Path, path: Path, old: Path, is_usable: Callable[[], bool]) -> None:
    """Give a folder its name; what is there makes way, unless it is usable.

    Args:
        temporary: The folder.
        path: Its name.
        old: Where what is there is put.
        is_usable: Whether what is there is as good.
    """
    for _ in range(_ATTEMPTS):
        if is_usable():
            return
        try:
            path.rename(old)
        except FileNotFoundError:
            pass  # nothing was there, or another process took it away
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            shutil.rmtree(old)
            continue
        try:
            temporary.rename(path)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            continue  # another process put its own there just now
        return
    raise RunError(f"{path} is replaced by other processes all the time; branch when they are done")
