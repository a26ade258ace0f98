"""Reading a config: a YAML file, or the name of a shipped one, with overrides from the command line."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from gnabm.config.build import keywords
from gnabm.config.changes import assign, check_changes
from gnabm.config.explain import explain
from gnabm.config.parameters import INTERVENTIONS, check_interventions, check_parameters, model_functions
from gnabm.config.schema import KINDS, Config
from gnabm.errors import ConfigError, GnabmError, nearest

_FILES = ("edges", "agents", "graph")


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, which YAML itself resolves in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping."""
        seen: set[object] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # a list or mapping as a key is refused below
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands here twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def shipped() -> dict[str, str]:
    """Names of the shipped configs and their text."""
    folder = files("gnabm").joinpath("configs")
    entries = (entry for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return {entry.name.removesuffix(".yaml"): entry.read_text("utf-8") for entry in entries}


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read and check a config.

    Args:
        path: A YAML file, or the name of a shipped config such as `new_zealand`.
        overrides: `key.key=value`, the value as YAML.

    Raises:
        ConfigError: The file is missing or broken, a key is unknown, or a value is not what it must be; all such
            problems are listed, each with its key and the cure.

    Example:
        >>> load("sir_small", ["run.steps=10"]).run.steps
        10
    """
    name, text, folder = _read(Path(path))
    values = parse(text, str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, got {type(values).__name__}")
    _anchor(values, folder)
    for override in overrides:
        _override(values, override)
    _anchor(values, Path.cwd())
    return check({**values}, name, str(path))


def _read(path: Path) -> tuple[str, str, Path]:
    """Name, text and folder of a config."""
    if path.is_file():
        try:
            return path.stem, path.read_text("utf-8"), path.resolve().parent
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read ({error}); give a YAML file in UTF-8") from error
    known = shipped()
    if str(path) in known:
        return path.name, known[str(path)], Path.cwd()
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give a YAML file, such as {path / 'config.yaml'}")
    raise ConfigError(f"{path}: there is no such file, and no shipped config of that name; {nearest(path.stem, known)}")


def parse(text: str, where: str) -> Any:  # noqa: ANN401
    """A text as safe YAML.

    Args:
        text: The text.
        where: What it is, for the message.

    Raises:
        ConfigError: It is no YAML, or gives a key twice.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2022-02-30
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        lines = text.splitlines()
        shown = f": {lines[mark.line].strip()!r}" if mark is not None and mark.line < len(lines) else ""
        reason = getattr(error, "problem", None) or str(error) or "not readable"
        raise ConfigError(
            f"{where}{line}: this is no YAML, {reason}{shown}; check indentation, quotes and brackets there"
        ) from error


def setting(override: str) -> tuple[str, Any]:
    """Dotted key and value of an override `key.key=value`, the value as YAML.

    Raises:
        ConfigError: It is none.
    """
    key, sign, text = override.partition("=")
    if not sign or not all(key.strip().split(".")):
        raise ConfigError(f"--set {override}: expected key.key=value, such as --set run.steps=30")
    return key.strip(), parse(text, f"--set {override}")


def _override(values: dict[str, Any], override: str) -> None:
    """Set one key; the mappings on the way are made where they are missing."""
    key, value = setting(override)
    try:
        assign(values, key, value)
    except ConfigError as error:
        raise ConfigError(f"--set {override}: {error}") from error


def _anchor(values: dict[str, Any], folder: Path) -> None:
    """Make the files of a population absolute, so that a config means the same from everywhere."""
    population = values.get("population")
    if not isinstance(population, dict):
        return
    for key in _FILES:
        if isinstance(population.get(key), str):
            population[key] = str(folder / Path(population[key]).expanduser())


def check(values: dict[str, Any], name: str, where: str) -> Config:
    """Check the values of a config.

    Args:
        values: As YAML gives them.
        name: Name of the run.
        where: What they come from, for the message.

    Raises:
        ConfigError: All problems, each with its key and the cure.
    """
    problems = _population_problems(values.get("population"))
    config = None
    if "name" in values:
        problems.append(f"name: no such key; {nearest('name', [k for k in Config.model_fields if k != 'name'])}")
        del values["name"]
    try:
        config = Config.model_validate({**values, "name": name})
    except ValidationError as error:
        found = error.errors(include_url=False)
        doubled = bool(problems)  # a population of two kinds would be reported key by key as well
        problems += [explain(p) for p in found if not (doubled and p["loc"][0] == "population")]
    converted, wrong = _model_problems(values, config)
    problems += wrong
    if config is not None and not problems:
        config = config.model_copy(update=converted)
        changes, problems = check_changes(config)
        config = config.model_copy(update={"changes": changes})
    if problems or config is None:
        raise ConfigError(*[f"{where}: {problem}" if len(problems) == 1 else problem for problem in problems])
    return config


def _population_problems(population: object) -> list[str]:
    if not isinstance(population, Mapping):
        return []
    kinds = [kind for kind in KINDS if kind in population]
    if len(kinds) < 2:
        return []
    return [
        f"population: has {' and '.join(kinds)}, which exclude each other; give one of {', '.join(KINDS)} "
        f"(on the command line: --set 'population={{{kinds[-1]}: ...}}')"
    ]


def _model_problems(values: Mapping[str, Any], config: Config | None) -> tuple[dict[str, Any], list[str]]:
    """Converted parameters and interventions, and what is wrong with the model, with them and the fields to record."""
    name, given = values.get("model"), values.get("parameters", {})
    if not isinstance(name, str) or not isinstance(given, dict):
        return {}, []  # already reported as wrong types
    known = model_functions()
    if name not in known:
        return {}, [f"model: there is no {name!r}; {nearest(name, known)}"]
    derived = ("transmission_rate",) if values.get("reproduction_number") is not None else ()
    parameters, problems = check_parameters(known[name], given, derived)
    converted: dict[str, Any] = {"parameters": parameters}
    if config is not None:
        converted["interventions"], wrong = check_interventions(known[name], config.interventions, config.run.start)
        problems += wrong
    if problems:
        return converted, problems
    keyed = parameters if config is None else keywords(config.model_copy(update=converted))
    try:
        model = known[name](**keyed, **dict.fromkeys(derived, 1.0))
    except GnabmError as error:
        return converted, [str(error) if str(error).startswith(INTERVENTIONS) else f"parameters: {error}"]
    record = values.get("record")
    fields = record.get("fields", []) if isinstance(record, dict) else []
    for field in fields if isinstance(fields, list) else []:
        if isinstance(field, str) and field not in model.state:
            problems.append(f"record.fields: {name} has no state field {field!r}; {nearest(field, model.state)}")
    return converted, problems
