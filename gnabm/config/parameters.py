"""The parameters of a model: the keywords of its function are the schema."""

from __future__ import annotations

import collections.abc
import inspect
import math
import pkgutil
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from importlib import import_module
from typing import Any

from gnabm.errors import ConfigError, nearest
from gnabm.model import Model
from gnabm.models.entries import describe, refusal, refuse_keys
from gnabm.models.policies import KINDS, kind_of
from gnabm.units import quantity

ModelFunction = Callable[..., Model]
INTERVENTIONS = "interventions"
"""Keyword of the interventions, which stand beside the parameters in a config."""
_DURATIONS = ("start", "end", "days", "delay")


def model_functions() -> dict[str, ModelFunction]:
    """The shipped models by the name that a config gives them, such as `epidemic.sir`."""
    models = import_module("gnabm.models")
    found: dict[str, ModelFunction] = {}
    for info in pkgutil.iter_modules(models.__path__):
        module = import_module(f"gnabm.models.{info.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            own = function.__module__ == module.__name__ and not name.startswith("_")
            if own and typing.get_type_hints(function).get("return") is Model:
                found[f"{info.name}.{name}"] = function
    return found


def model_function(name: str) -> ModelFunction:
    """The function of a model.

    Raises:
        ConfigError: there is no such model.
    """
    known = model_functions()
    if name not in known:
        raise ConfigError(f"model: there is no {name!r}; {nearest(name, known)}")
    return known[name]


def check_parameters(
    function: ModelFunction, given: Mapping[str, Any], derived: tuple[str, ...] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Check and convert the parameters of a model.

    Args:
        function: The model.
        given: Values as YAML reads them.
        derived: Names of parameters that are computed, so must not be given.

    Returns:
        Converted values, and one line for each that is wrong.
    """
    hints, wanted = typing.get_type_hints(function), inspect.signature(function).parameters
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in given.items():
        where = f"parameters.{name}"
        if name == INTERVENTIONS:
            problems.append(f"{where}: is no parameter; give {INTERVENTIONS}: [...] beside parameters")
        elif name not in wanted:
            known = [key for key in wanted if key != INTERVENTIONS]
            problems.append(f"{where}: no such key; {nearest(str(name), known)}")
        elif name in derived:
            problems.append(f"{where}: is derived from reproduction_number; give one of the two")
        else:
            try:
                values[name] = _convert(value, hints[name], where)
            except ConfigError as error:
                problems.append(str(error))
    for name, parameter in wanted.items():
        if parameter.default is inspect.Parameter.empty and name not in given and name not in derived:
            hint = " or reproduction_number" if name == "transmission_rate" else ""
            problems.append(f"parameters.{name}: missing; give {describe(hints[name])}{hint}")
    return values, problems


def check_interventions(
    function: ModelFunction, given: Sequence[Any], start: date | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Check and convert interventions.

    Args:
        function: The model.
        given: As YAML reads them.
        start: Date of the first step, or None.

    Returns:
        Converted interventions, dates as they were given, and one line for each that is wrong.
    """
    hints = typing.get_type_hints(function)
    if given and INTERVENTIONS not in hints:
        return [], [f"{INTERVENTIONS}: {function.__name__} takes none; use epidemic.seir or epidemic.covid"]
    made: list[dict[str, Any]] = []
    problems: list[str] = []
    for number, entry in enumerate(given):
        where = f"{INTERVENTIONS}[{number}]"
        try:
            made.append(_convert(entry, KINDS[kind_of(entry, where)], where))
            in_days(made[-1], start, where)
        except ConfigError as error:
            problems.append(str(error))
    return made, problems


def in_days(entry: Mapping[str, Any], start: date | None, where: str) -> dict[str, Any]:
    """An intervention with its start and end in days since the start of the run.

    Args:
        entry: As it was converted.
        start: Date of the first step, or None.
        where: Its key.

    Raises:
        ConfigError: A date lies before the run, or the run has none.
    """
    days = dict(entry)
    for name in ("start", "end"):
        value = entry.get(name)
        if not isinstance(value, str):
            continue
        moment = _moment(value)
        if moment is None:
            days[name] = _number(value, f"{where}.{name}")
            continue
        if len(value) > len("2022-01-20"):
            raise ConfigError(
                f"{where}.{name}: {value} has a time; give the date alone, or a number of days since the start of the "
                "run, of which a fraction is allowed"
            )
        day = moment.date()
        if start is None:
            raise ConfigError(
                f"{where}.{name}: {value} is a date, but this run has none; give run.start, or the number of days "
                "since the start"
            )
        if day < start:
            raise ConfigError(f"{where}.{name}: {value} lies before the run, which starts on {start}; take a later day")
        days[name] = float((day - start).days)
    return days


def _moment(text: str) -> datetime | None:
    """The date or time that a text is."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _convert(value: Any, hint: Any, where: str) -> Any:  # noqa: ANN401
    """Value in the type of a hint, quantities in days and per day."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert(value, _alternative(value, arguments, hint, where), where)
    if hint is type(None):
        return None
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return _number(value, where)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is bool and isinstance(value, bool):
        return value
    if hint is str and isinstance(value, (str, date)):
        return value.isoformat() if isinstance(value, date) else value  # YAML reads 2022-01-20 as a date
    if typing.is_typeddict(hint) and isinstance(value, dict):
        return _convert_keys(value, hint, where)
    if origin is collections.abc.Sequence and isinstance(value, list):
        return [_convert(entry, arguments[0], f"{where}[{i}]") for i, entry in enumerate(value)]
    if origin is collections.abc.Mapping and isinstance(value, dict):
        return {str(k): _convert(entry, arguments[1], f"{where}.{k}") for k, entry in value.items()}
    raise refusal(value, hint, where)


def _convert_keys(value: dict[Any, Any], hint: Any, where: str) -> dict[str, Any]:  # noqa: ANN401
    """A mapping with stated keys, each in its type."""
    refuse_keys(value, hint, where)
    hints = typing.get_type_hints(hint)
    return {name: _convert(entry, hints[name], f"{where}.{name}") for name, entry in value.items()}


def _alternative(value: Any, options: tuple[Any, ...], hint: Any, where: str) -> Any:  # noqa: ANN401
    """The option of a union whose outer type a value has."""
    outer = {type(None): types.NoneType, list: collections.abc.Sequence, dict: collections.abc.Mapping}
    wanted = outer.get(type(value))
    for option in options:
        if (typing.get_origin(option) or option) is wanted:
            return option
    keyed = [option for option in options if typing.is_typeddict(option)]
    if isinstance(value, dict) and keyed:  # the one that knows most of the keys
        return max(keyed, key=lambda option: len(typing.get_type_hints(option).keys() & value.keys()))
    # A text is a quantity such as `2 weeks` unless a text is asked for.
    for kinds, scalars in (((str, date), (str, float)), (int, (int, float)), (float, (float,))):
        if isinstance(value, kinds) and not isinstance(value, bool):
            for scalar in scalars:
                if scalar in options:
                    return scalar
    raise refusal(value, hint, where)


def _number(value: float | str, where: str) -> float:
    """A finite number; with a unit, a rate needs `per` and days must not have it."""
    words = value.split() if isinstance(value, str) else []
    key = re.sub(r"(\[\d+\])+$", "", where).rpartition(".")[2]
    if len(words) > 1 and key.endswith("_rate") and "per" not in words:
        raise ConfigError(f"{where}: expected a rate such as '0.1 per day', got the duration {value!r}")
    if key in _DURATIONS and "per" in words:
        raise ConfigError(f"{where}: expected days such as '2 weeks' or 14, got the rate {value!r}")
    number = quantity(value, where)
    if not math.isfinite(number):
        raise ConfigError(f"{where}: expected a finite number, got {value!r}")
    return number
