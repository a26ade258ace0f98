"""`gnabm branch`: scenarios from the state of a run on a day, each a run folder like any other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import zarr
from torch import Tensor

from gnabm.cli.failures import Interrupted, console
from gnabm.cli.populations import Ready, content_of, prepare
from gnabm.cli.progress import Watch
from gnabm.cli.running import CONFIG, STATES, TRAJECTORY, check_room, free_memory, leave_run, refuse_existing
from gnabm.config import Config, load
from gnabm.config.changes import alike, build_periods, step_at, step_of, stretches, value_of
from gnabm.config.load import check, parse, setting
from gnabm.errors import ConfigError, OutputExistsError, StoreError
from gnabm.model import Model
from gnabm.models.tables import digest

_HOW = ("shards", "threads", "messages", "transport")
"""Keys of `run` that say how it is made; a branch may be made in its own way."""
_ANYHOW = ("steps", *_HOW)
"""Keys of `run` that leave the bits of a step as they are."""


def branch_run(
    run: Path, day: float, overrides: Sequence[str], scenarios: Path | None, out: Path, *, overwrite: bool
) -> None:
    """Run scenarios that leave a run on a day.

    Args:
        run: Run folder; its config.yaml is what the scenarios share, and the state is kept in its folder `states`.
        day: Days since the start; the first that may differ.
        overrides: As `key=value`, what one scenario sets from that day on; it is left in `out`. Keys of `run` that
            leave the bits alone, such as run.shards, say how the branch is made.
        scenarios: YAML file of several, name to keys and values; each is left in `out/NAME`.
        out: Run folder, or folder of run folders.
        overwrite: Replace runs that are there.

    Raises:
        ConfigError: There is no such run, day, or key.
        OutputExistsError: A folder is there.
        RunError: A step failed, or no space is left.
    """
    base = _base(run)
    step = _step(base, day)
    if scenarios is not None and overrides:
        raise ConfigError("--set and --scenarios exclude each other; write what is set into the file")
    wanted = {out: dict(map(setting, overrides))} if scenarios is None else _read(scenarios, out)
    configs = {folder: _config(base, step, day, keys, folder.name) for folder, keys in wanted.items()}
    for folder in configs:
        refuse_existing(folder, overwrite=overwrite)
        if folder.resolve() == run.resolve():
            raise OutputExistsError(f"{folder} is the run that is branched; choose another folder with --out")
    ready = prepare(base, strict=False)
    branches = {folder: _branch(ready, config) for folder, config in configs.items()}
    for folder, one in branches.items():
        if _same_from(step, ready, one):
            raise ConfigError(f"scenario {folder.name}: nothing differs: {_values_now(base, step, wanted[folder])}")
    check_room(ready, out, free_memory())
    for one in branches.values():
        if one.config.run != ready.config.run:
            check_room(one, out, free_memory())
    beginning = _beginning(ready, run, step, day)
    for folder, one in branches.items():
        leave_run(one, folder, beginning, {"branched_from": str(run.resolve()), "day": day})


def _base(run: Path) -> Config:
    if not (run / CONFIG).is_file():
        raise StoreError(f"{run} is no run folder, it has no {CONFIG}; give one of `gnabm run`")
    return load(run / CONFIG)


def _step(base: Config, day: float) -> int:
    step = step_at(base.run, day)
    if not 0 <= step < base.run.steps:
        last = (base.run.steps - 1) * base.run.dt
        raise ConfigError(f"--day {day:g} is outside the run, which can be left on days 0 to {last:g}")
    return step


def _read(path: Path, out: Path) -> dict[Path, dict[str, Any]]:
    """Folder to keys of each scenario of a file."""
    try:
        found = parse(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give a YAML file of scenarios") from error
    if not isinstance(found, dict) or not found:
        raise ConfigError(f"{path}: expected scenarios by name, such as closed: {{parameters.recovery_rate: 0.2}}")
    scenarios = {}
    for name, keys in found.items():
        if not isinstance(name, str) or name in ("", ".", "..") or "/" in name:
            raise ConfigError(f"{path}: {name!r} cannot name a folder; name scenarios such as schools_closed")
        if not isinstance(keys, dict) or not all(isinstance(key, str) for key in keys):
            raise ConfigError(f"{path}: {name}: expected keys and values, such as run.seed: 8, got {keys!r}")
        scenarios[out / name] = keys
    return scenarios


def _config(base: Config, step: int, day: float, keys: Mapping[str, Any], name: str) -> Config:
    """The config of a whole run that is the base's until a step and has other values from there on."""
    if not keys:
        raise ConfigError(f"scenario {name}: nothing differs; give --set KEY=VALUE, or keys in the file of scenarios")
    values = base.resolved()
    how = {key: value for key, value in keys.items() if key.removeprefix("run.") in _HOW and key.startswith("run.")}
    values["run"] |= {key.removeprefix("run."): value for key, value in how.items()}
    keys = {key: value for key, value in keys.items() if key not in how}
    if not keys:
        raise ConfigError(f"scenario {name}: nothing differs, {', '.join(how)} leaves all bits as they are; add a KEY")
    changes = [(step_of(change, base.run), said) for change, said in zip(base.changes, values["changes"], strict=True)]
    same = {key: value for at, said in changes if at == step for key, value in said["set"].items()}
    others = [(at, said) for at, said in changes if at != step]
    ordered = sorted([*others, (step, {"day": day, "set": {**same, **keys}})], key=lambda entry: entry[0])
    values["changes"] = [said for _, said in ordered]
    at = values["changes"].index(next(said for first, said in ordered if first == step))
    try:
        return check(values, name, f"scenario {name}")
    except ConfigError as error:
        raise ConfigError(*(str(part).replace(f"changes[{at}].set.", "") for part in error.args)) from error


def _branch(ready: Ready, config: Config) -> Ready:
    from graphs import encounters

    config = config.model_copy(update={"population": ready.config.population})
    return replace(ready, config=config, changes=build_periods(config, ready.population, ready.parameters, encounters))


def _same_from(step: int, ready: Ready, one: Ready) -> bool:
    """Whether a branch has the rules and seeds of the run from a step on, at every step."""
    steps = {step, *(period.step for period in (*ready.changes, *one.changes) if period.step > step)}
    held = ((_held(ready, at), _held(one, at)) for at in sorted(steps))
    return all(mine[1] == its[1] and alike(mine[0].phases, its[0].phases) for mine, its in held)


def _held(ready: Ready, step: int) -> tuple[Model, int]:
    """The model and the seed of a step."""
    last = max((period for period in ready.changes if period.step <= step), key=lambda p: p.step, default=None)
    return (ready.model, ready.config.run.seed) if last is None else (last.model, last.seed)


def _values_now(base: Config, step: int, keys: Mapping[str, Any]) -> str:
    """What keys of a scenario have for values in the run, and the cure."""
    config = base
    for stretch in stretches(base):
        config = stretch.config if stretch.step <= step else config
    told = []
    for key in keys:
        if key.removeprefix("run.") in _HOW:
            continue
        try:
            value = value_of(config, key)
            shown = f"{value:.12g}" if isinstance(value, float) else json.dumps(value, default=str)
            told.append(f"{key} is {shown} in the run already")
        except (KeyError, AttributeError):  # a key of a mapping that the run leaves at its default
            told.append(f"{key} has by default what is set")
    return "; ".join(told) + "; give another value"


def _beginning(ready: Ready, run: Path, step: int, day: float) -> Any:  # noqa: ANN401
    """The state of the run on the day, from its folder or made now, with the steps before it."""
    from cluster.branch import Trunk, ensure_state

    config, screen = ready.config, console()
    who = ready.store if ready.store is not None and config.run.mixing == "drawn" else ready.population
    settings = {
        "shards": config.run.shards, "transport": config.run.transport, "threads": config.run.threads,
        "messages": config.run.messages, "dt": config.run.dt, "start": config.run.start,
        "record": config.record.fields, "infections": config.record.infections,
    }  # fmt: skip
    trunk = Trunk(ready.model, who, config.run.steps, config.run.seed, ready.changes, settings)
    path = run / STATES / f"{day:.12g}.zarr"
    earlier = _trajectory(ready, run)
    if not path.exists():
        screen.print(f"{run} keeps no state of day {day:g} yet: running up to there once", soft_wrap=True)
    if earlier is None and step:
        screen.print(f"{run / TRAJECTORY} is not one of this config and these versions: not used", soft_wrap=True)
    shorter = config.model_copy(update={"run": config.run.model_copy(update={"steps": step})})
    watch = Watch(shorter, ready.population.num_agents, screen)
    with ExitStack() as stack:

        def on_step(index: int, observed: Mapping[str, Tensor]) -> None:
            if watch.done == 0:
                stack.enter_context(watch)
            watch.on_step(index, observed)

        try:
            return ensure_state(
                trunk, step, path, _basis(ready, step), earlier=earlier, on_step=on_step,
                tell=lambda line: screen.print(line, soft_wrap=True),
            )  # fmt: skip
        except KeyboardInterrupt as error:
            raise Interrupted(f"stopped by Ctrl-C on the way to day {day:g}; no state and no run was left") from error


def _basis(ready: Ready, step: int) -> dict[str, Any]:
    """All that decides the state of a run at a step."""
    from cluster.run import versions

    config = ready.config
    before = [
        (step_of(change, config.run), dict(change.set))
        for change in config.changes
        if step_of(change, config.run) < step
    ]
    return {
        "model": config.model,
        "parameters": dict(ready.parameters),
        "run": {key: value for key, value in config.resolved()["run"].items() if key not in _ANYHOW},
        "changes": before,
        "record": config.resolved()["record"],
        "population": content_of(ready),
        "model_tables": digest(),
        "versions": versions(),
    }


def _trajectory(ready: Ready, run: Path) -> Path | None:
    """The trajectory of a run if it is of the config beside it, and of the population, tables and versions of now."""
    from cluster.run import versions

    path = run / TRAJECTORY
    try:
        said = dict(zarr.open_group(str(path), mode="r", use_consolidated=False).attrs)
        same = _fixed(said["config"]) == _fixed(ready.config.resolved())
        whose: Any = said["population"]
        same = same and whose["content"] == content_of(ready) and said["model_tables_content"] == digest()
        return path if same and said["versions"] == versions() else None
    except Exception:  # none, one of another kind, or one that is cut off: it is not used, which the caller says
        return None


def _fixed(values: Any) -> dict[str, Any]:  # noqa: ANN401
    """Values of a resolved config without the keys that leave the bits as they are."""
    run = {key: value for key, value in values["run"].items() if key not in _ANYHOW}
    return {**values, "run": run}
