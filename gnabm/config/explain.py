"""What is wrong with a config, in one line per key: its path, what was expected, what came, the cure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import ErrorDetails

from gnabm.config.schema import KINDS, Change, Config, Gradient, Record, Run, Section
from gnabm.errors import nearest

_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "list_type": "a list such as [stage]",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "date_type": "a date such as 2022-01-20",
    "finite_number": "a finite number",
}
_SECTIONS: dict[str, type[Section]] = {"run": Run, "record": Record, "changes": Change, "gradient": Gradient}


def explain(problem: ErrorDetails) -> str:
    """One line for one problem that pydantic found."""
    path = _path(problem["loc"])
    where = ".".join(path) or "the config"
    given, context = problem["input"], problem.get("ctx", {})
    kind = problem["type"]
    if kind == "extra_forbidden":
        return f"{where}: no such key; {nearest(path[-1], _known(problem['loc']))}"
    if kind == "missing":
        return f"{where}: missing; {_CURES.get(where, 'add it')}"
    if kind == "value_error":
        return f"{where}: {str(context.get('error')).removeprefix('dt: ')}"
    return f"{where}: expected {_expected(kind, context, problem['msg'])}, got {_shown(given)}"


_CURES = {
    "model": "name one, such as model: epidemic.seir",
    "population": "say who, such as population: {country: New Zealand}",
    "population.country": "name a country, or give edges: FILE or graph: STORE",
    "run": "say how long, such as run: {steps: 180}",
    "run.steps": "say how long, such as steps: 180",
}


def _path(location: Sequence[int | str]) -> list[str]:
    """Keys as they stand in the file; the tag that tells populations apart is none of them."""
    parts = [str(part) for part in location]
    return [parts[0], *parts[2:]] if len(parts) > 1 and parts[0] == "population" else parts


def _known(location: Sequence[int | str]) -> list[str]:
    if len(location) == 1:
        return [name for name in Config.model_fields if name != "name"]
    section = KINDS[str(location[1])] if location[0] == "population" else _SECTIONS[str(location[0])]
    return list(section.model_fields)


def _expected(kind: str, context: dict[str, Any], message: str) -> str:
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind == "greater_than_equal":
        return f"{context['ge']} or more"
    if kind == "greater_than":
        return f"a number above {context['gt']:g}"
    if kind == "less_than":
        return f"a number below {context['lt']}"
    if kind == "literal_error":
        return str(context["expected"])
    return message


def _shown(value: object) -> str:
    if isinstance(value, str):
        return f"the text {value!r}"
    return "nothing" if value is None else repr(value)
