"""What changes while a run goes on: `changes: [{day: 30, set: {parameters.recovery_rate: 0.2 per day}}]`.

From the first step of that day on the values hold, those of earlier changes too. A reproduction number fixes the
transmission rate where it is stated, under the parameters of that time; another parameter that changes later leaves
the rate as it is, so that closing schools lowers transmission instead of moving it elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from datetime import date
from functools import partial
from itertools import pairwise
from types import FunctionType
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from gnabm.config.build import Meetings, build_model, keywords, model_parameters
from gnabm.config.explain import explain
from gnabm.config.parameters import check_parameters, model_function
from gnabm.config.schema import Change, Config, Run
from gnabm.errors import ConfigError, GnabmError, nearest
from gnabm.model import Model
from gnabm.periods import Period, other_record
from gnabm.population import Population

RATE, NUMBER, SEED = "parameters.transmission_rate", "reproduction_number", "run.seed"


@dataclass(frozen=True, eq=False)
class Stretch:
    """A config that holds from a step on.

    Args:
        step: The first step.
        config: All values of that time; itself without changes.
        keys: The keys that changed there.
    """

    step: int
    config: Config
    keys: tuple[str, ...]


def step_at(run: Run, day: float) -> int:
    """The step that begins on a day.

    Args:
        run: Length of a step.
        day: Days since the start.

    Raises:
        ConfigError: No step begins there.

    Example:
        >>> step_at(Run(steps=10, dt=0.5), 2)
        4
    """
    step = round(day / run.dt)
    if abs(step * run.dt - day) > 1e-9 * max(1.0, day):
        below = int(day / run.dt)
        raise ConfigError(
            f"no step begins on day {day:g}, steps are {run.dt:g} days long; take day {below * run.dt:g} or "
            f"{(below + 1) * run.dt:g}"
        )
    return step


def step_of(change: Change, run: Run) -> int:
    """The first step at which a change holds.

    Raises:
        ConfigError: It says no day or two, or its day is none of the run's.
    """
    if (change.day is None) == (change.date is None):
        raise ConfigError("say when: give one of day (days since the start) and date")
    if change.date is not None and run.start is None:
        raise ConfigError(f"date {change.date} needs a calendar; give run.start, or a day instead")
    if change.date is not None and run.start is not None:
        step = step_at(run, float((change.date - run.start).days))
        said = f"date {change.date}"
    else:
        assert change.day is not None
        step, said = step_at(run, change.day), f"day {change.day:g}"
    if not 0 <= step < run.steps:
        raise ConfigError(f"{said} is outside the run, which has {run.steps} steps of {run.dt:g} days; raise run.steps")
    return step


def assign(values: dict[str, Any], key: str, value: Any) -> None:  # noqa: ANN401
    """Set a dotted key; the mappings on the way are made where they are missing.

    Raises:
        ConfigError: Something on the way is no mapping.
    """
    *way, last = key.split(".")
    at = values
    for depth, part in enumerate(way):
        inner = at.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{'.'.join(way[: depth + 1])} is no mapping, it is {inner!r}")
        at = inner
    at[last] = value


def check_changes(config: Config) -> tuple[list[Change], list[str]]:
    """Check the changes of a config.

    Args:
        config: The config, its own parameters checked.

    Returns:
        Changes in the order of their steps, values converted as those of the config, and one line for each problem.
    """
    problems: list[str] = []
    timed: list[tuple[int, int, Change]] = []
    for number, change in enumerate(config.changes):
        try:
            timed.append((step_of(change, config.run), number, change))
        except ConfigError as error:
            problems.append(f"changes[{number}]: {error}")
    timed.sort(key=lambda entry: entry[0])
    for (earlier, one, _), (later, other, _) in pairwise(timed):
        if earlier == later:
            problems.append(f"changes[{one}] and changes[{other}] hold from the same step; put their keys into one")
    checked: list[Change] = []
    current = config.model_copy(update={"changes": []})
    for step, number, change in timed:
        if not change.set:
            problems.append(f"changes[{number}].set: is empty; give keys such as parameters.recovery_rate: 0.2 per day")
            continue
        found, wrong = _overlaid(current, change.set)
        if found is not None and not wrong:
            wrong = _useless(current, found, change.set) + _past(current, found, step * config.run.dt)
        problems += [f"changes[{number}].set.{line}" for line in wrong]
        if found is None or wrong:
            break  # what follows would stand on values that are not there
        checked.append(change.model_copy(update={"set": {key: value_of(found, key) for key in change.set}}))
        current = found
    return checked, problems


def stretches(config: Config) -> list[Stretch]:
    """The configs that hold one after another once those of the first step of the run are left.

    Args:
        config: A config whose changes are checked.
    """
    made: list[Stretch] = []
    current = config.model_copy(update={"changes": []})
    for change in config.changes:
        found, wrong = _overlaid(current, change.set)
        assert found is not None and not wrong, wrong
        made.append(Stretch(step_of(change, config.run), found, tuple(change.set)))
        current = found
    return made


def build_periods(
    config: Config, population: Population, parameters: Mapping[str, Any], encounters: Meetings | None = None
) -> tuple[Period, ...]:
    """Models and seeds of the times after each change.

    Args:
        config: A config whose changes are checked.
        population: Who it runs on.
        parameters: All parameters of the model that the run begins with, derived ones too.
        encounters: Gives who meets whom by age; needed when a change states a reproduction number.

    Raises:
        ConfigError: A parameter does not fit the population.
    """
    rate = parameters.get("transmission_rate")
    made: list[Period] = []
    for stretch in stretches(config):
        now = stretch.config
        if NUMBER in stretch.keys:
            rate = model_parameters(now, population, encounters)["transmission_rate"]
        elif RATE in stretch.keys:
            rate = now.parameters["transmission_rate"]
        fixed = {} if rate is None else {"transmission_rate": rate}
        settled = now.model_copy(update={"reproduction_number": None, "parameters": {**now.parameters, **fixed}})
        made.append(Period(stretch.step, build_model(settled, population), now.run.seed))
    return tuple(made)


def _overlaid(config: Config, keys: Mapping[str, Any]) -> tuple[Config | None, list[str]]:
    """A config with some values replaced and checked, or what is wrong with them."""
    problems = [problem for key in keys if (problem := _refused(key, config))]
    if RATE in keys and NUMBER in keys:
        problems.append(f"{RATE}: is derived from {NUMBER}; give one of the two")
    if problems:
        return None, problems
    values = config.resolved()
    if RATE in keys:
        values[NUMBER] = None
    if keys.get(NUMBER) is not None:
        values["parameters"].pop("transmission_rate", None)
    try:
        for key, value in keys.items():
            assign(values, key, value)
        found = Config.model_validate({**values, "name": config.name})
    except ValidationError as error:
        return None, [explain(problem) for problem in error.errors(include_url=False)]
    except ConfigError as error:
        return None, [str(error)]
    function = model_function(found.model)
    parameters, problems = check_parameters(function, found.parameters, _derived(found))
    if problems:
        return None, problems
    found = found.model_copy(update={"parameters": parameters})
    try:
        differs = other_record(_model(config), _model(found))
    except GnabmError as error:
        return None, [f"parameters: {error}"]
    if differs is not None:
        keyed = ", ".join(keys)
        return None, [f"{keyed}: makes a model with {differs}; a run keeps one state, so change it from the start"]
    return found, []


def _refused(key: str, config: Config) -> str | None:
    if key in (NUMBER, SEED) or (key.startswith("parameters.") and key.count(".") >= 1 and not key.endswith(".")):
        return None
    known = [f"parameters.{name}" for name in config.parameters]
    return (
        f"{key}: cannot change while a run goes on, only parameters, {NUMBER} and {SEED} can; "
        f"{nearest(key, [*known, NUMBER, SEED])}"
    )


def _derived(config: Config) -> tuple[str, ...]:
    return ("transmission_rate",) if config.reproduction_number is not None else ()


def _model(config: Config) -> Model:
    """The model of a config; rates that follow from a population stand at 1."""
    return model_function(config.model)(**keywords(config), **dict.fromkeys(_derived(config), 1.0))


def _useless(before: Config, after: Config, keys: Mapping[str, Any]) -> list[str]:
    """Keys that act at the start of a run only, so that a change of theirs would do nothing."""
    problems = []
    full = _model(after)
    for key in keys:
        if not key.startswith("parameters."):
            continue
        without, wrong = (
            _overlaid(before, {k: v for k, v in keys.items() if k != key}) if len(keys) > 1 else (before, [])
        )
        if without is None or wrong:
            continue  # the other keys cannot stand without it, so it does something
        other = _model(without)
        if alike(full.phases, other.phases) and not alike(full.initial, other.initial):
            problems.append(
                f"{key}: acts only on the initial state, which is made before the first step; set it in the "
                "config itself, in a run of its own"
            )
    return problems


def _past(before: Config, after: Config, day: float) -> list[str]:
    """New entries of lists such as a seeding that lie before the day of their change, so that nothing would happen."""
    problems = []
    for name, entries in after.parameters.items():
        known = before.parameters.get(name)
        for number, entry in enumerate(entries if isinstance(entries, list) else []):
            if not isinstance(entry, dict) or (isinstance(known, list) and entry in known):
                continue
            last = entry.get("to", entry.get("day", None if "from" in entry or name != "seeding" else 0))
            if isinstance(last, str) and after.run.start is not None:
                last = (date.fromisoformat(last) - after.run.start).days
            if isinstance(last, int) and last + 1 <= day:
                problems.append(
                    f"parameters.{name}[{number}]: ends on day {last}, before the change on day {day:g}, so it would "
                    "never happen; give a later day"
                )
    return problems


def value_of(config: Config, key: str) -> Any:  # noqa: ANN401
    """The value of a dotted key that can change.

    Raises:
        KeyError: It is a key of a mapping that has it not, such as a layer whose factor nobody stated.
    """
    found: Any = config if key in (NUMBER, SEED) else {"parameters": config.parameters}
    for part in key.split("."):
        found = found[part] if isinstance(found, Mapping) else getattr(found, part)
    return found


def alike(one: Any, other: Any, within: frozenset[tuple[int, int]] = frozenset()) -> bool:  # noqa: ANN401
    """Whether two objects, such as rules, hold the same values all the way down.

    Args:
        one: An object.
        other: Another.
        within: Pairs that are being compared, by identity; met again inside themselves they count as alike.
    """
    if one is other or (id(one), id(other)) in within:
        return True
    if type(one) is not type(other):
        return False
    within = within | {(id(one), id(other))}
    if isinstance(one, torch.Tensor):
        return bool(one.dtype == other.dtype and torch.equal(one, other))
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype and np.array_equal(one, other))
    if isinstance(one, FunctionType):
        return one.__code__ == other.__code__ and alike(_bound(one), _bound(other), within)
    if isinstance(one, partial):
        return alike((one.func, one.args, one.keywords), (other.func, other.args, other.keywords), within)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(value, other[key], within) for key, value in one.items())
    if isinstance(one, Sequence) and not isinstance(one, (str, bytes)):
        return len(one) == len(other) and all(alike(mine, its, within) for mine, its in zip(one, other, strict=True))
    own = any("__eq__" in vars(kind) for kind in type(one).__mro__[:-1]) and not is_dataclass(one)
    return bool(one == other) if own or not hasattr(one, "__dict__") else alike(vars(one), vars(other), within)


def _bound(function: FunctionType) -> tuple[Any, ...]:
    """What a function holds besides its code."""
    closure = tuple(cell.cell_contents for cell in function.__closure__ or ())
    return function.__module__, function.__qualname__, function.__defaults__, function.__kwdefaults__, closure
