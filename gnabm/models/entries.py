"""Mappings with stated keys, such as interventions: a typed dictionary is their schema, in a config and in a call."""

from __future__ import annotations

import collections.abc
import types
import typing
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from gnabm.errors import ConfigError, nearest


def refuse_keys(entry: Mapping[Any, Any], hint: Any, where: str) -> None:  # noqa: ANN401
    """Refuse unknown keys, and the lack of one that is needed.

    Args:
        entry: Keys and values.
        hint: Typed dictionary that states the keys.
        where: Key of the entry, for messages.

    Raises:
        ConfigError: A key is unknown or missing.
    """
    hints = typing.get_type_hints(hint)
    for name in entry:
        if name not in hints:
            raise ConfigError(f"{where}.{name}: no such key; {nearest(str(name), hints)}")
    # __required_keys__ does not see NotRequired where annotations are strings.
    for name, stated in typing.get_type_hints(hint, include_extras=True).items():
        if name not in entry and typing.get_origin(stated) is not typing.NotRequired:
            raise ConfigError(f"{where}.{name}: missing; give {describe(hints[name])}")


def refuse_types(value: object, hint: Any, where: str) -> None:  # noqa: ANN401
    """Refuse a value that is not of the type of a hint, and such values and keys within it.

    Args:
        value: Anything.
        hint: `float`, `str`, `bool`, a union, a sequence or a typed dictionary of these.
        where: Its key, for messages.

    Raises:
        ConfigError: It is of another type.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if typing.is_typeddict(hint) and isinstance(value, Mapping):
        refuse_keys(value, hint, where)
        for name, stated in typing.get_type_hints(hint).items():
            if name in value:
                refuse_types(value[name], stated, f"{where}.{name}")
    elif origin is collections.abc.Sequence and isinstance(value, collections.abc.Sequence):
        if isinstance(value, str):
            raise refusal(value, hint, where)
        for number, entry in enumerate(value):
            refuse_types(entry, arguments[0], f"{where}[{number}]")
    elif not any(_is(value, kind) for kind in (arguments if origin in (typing.Union, types.UnionType) else [hint])):
        raise refusal(value, hint, where)


def _is(value: object, kind: Any) -> bool:  # noqa: ANN401
    if isinstance(value, bool):
        return kind is bool
    kinds: dict[Any, type] = {float: Real, int: Integral, str: str}
    return kind in kinds and isinstance(value, kinds[kind])


def refusal(value: object, hint: object, where: str) -> ConfigError:
    """The error of a value that is not of the type of a hint."""
    return ConfigError(f"{where}: expected {describe(hint)}, got {value!r}")


def describe(hint: Any) -> str:  # noqa: ANN401
    """A type in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(option) for option in arguments)
    if origin is collections.abc.Sequence:
        if typing.is_typeddict(arguments[0]):
            return f"a list of mappings with keys {', '.join(typing.get_type_hints(arguments[0]))}"
        return f"a list of {describe(arguments[0]).removeprefix('a ')}s".replace("null", "nothing")
    if origin is collections.abc.Mapping:
        return f"a mapping of names to {describe(arguments[1]).removeprefix('a ')}s"
    if typing.is_typeddict(hint):
        return f"a mapping with keys {', '.join(typing.get_type_hints(hint))}"
    words = {
        float: "a number", int: "a whole number", str: "a text", bool: "true or false", type(None): "null",
    }  # fmt: skip
    return words.get(hint, str(hint))
