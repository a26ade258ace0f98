"""Build a country's graph store from its tables, once per content of the config."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gnabm.errors import ConfigError, OutputExistsError, nearest
from graphs import districts
from graphs.appending import Appender
from graphs.assemble import Assembly, field_records
from graphs.country import Plan, make_plan
from graphs.households import people_by_region
from graphs.passes import first_pass, second_pass
from graphs.scheduling import check_workers, scheduled
from graphs.scratch import Scratch
from graphs.sources import check_country, load_country
from graphs.store import SCHEMA, block_size, read_attributes, replacing, root_attributes

GENERATOR = 3
"""Raised whenever the same config and tables give another population."""
_KEYS = ("country", "num_agents", "seed")
_PROGRAM_BYTES, _BUFFER_BYTES = 500 << 20, 100 << 20
"""Peak memory of each process with its libraries, and of the entries that wait for a whole chunk."""
_DISTRICT_BYTES, _COUNTRY_BYTES = 100, 4
"""Peak memory for each agent of the districts in flight, and of the country."""


@dataclass(frozen=True)
class Resolved:
    """A checked population config."""

    country: str
    num_agents: int
    seed: int

    def as_dict(self) -> dict[str, Any]:
        """The config with every default filled in."""
        return {"country": self.country, "num_agents": self.num_agents, "seed": self.seed}


def resolve(config: Mapping[str, Any]) -> Resolved:
    """Check a population config and fill in defaults.

    Args:
        config: `country`; `num_agents` (default: all residents); `seed` (default 0).

    Raises:
        ConfigError: unknown key or country, or a value of the wrong type or range.
    """
    for key in config:
        if key not in _KEYS:
            raise ConfigError(f"population.{key} is no key; {nearest(str(key), _KEYS)}")
    if "country" not in config:
        raise ConfigError("population.country is missing; name one, such as country: New Zealand")
    country = check_country(config["country"])
    values: dict[str, int] = {}
    for key, default, least in (
        ("num_agents", int(load_country(country).residents.sum()), 1),
        ("seed", 0, 0),
    ):
        value = config.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise ConfigError(f"population.{key} must be a whole number, got {value!r}")
        if value < least:
            raise ConfigError(f"population.{key} must be {least} or more, got {value}")
        values[key] = int(value)
    return Resolved(country, values["num_agents"], values["seed"])


def peak_memory(num_agents: int, num_workers: int | None = None, scheduler: str = "threads") -> int:
    """Bytes that a build takes at its peak, an upper estimate: only a few districts are in memory at a time.

    Args:
        num_agents: Agents of the country.
        num_workers: As in `build`.
        scheduler: As in `build`. Workers that are processes count too, as if all were on this machine.
    """
    workers = check_workers(scheduler, num_workers)
    here = _DISTRICT_BYTES * min(num_agents, 2 * workers * districts.MOST_PEOPLE)
    elsewhere = 0
    if scheduler in ("processes", "distributed"):
        made = _DISTRICT_BYTES * min(num_agents, workers * districts.MOST_PEOPLE)
        elsewhere = workers * _PROGRAM_BYTES + made
    return _PROGRAM_BYTES + _BUFFER_BYTES + here + elsewhere + _COUNTRY_BYTES * num_agents


def _canonical_hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def content_hash(config: Mapping[str, Any]) -> str:
    """Hash of all that a store's content depends on: config, tables, schema, generator, and where regions are cut."""
    resolved = resolve(config)
    country = load_country(resolved.country)
    content: list[Any] = [resolved.as_dict(), country.digest, SCHEMA, GENERATOR]
    if int(districts.count_districts(people_by_region(country, resolved.num_agents)).max()) > 1:
        content.append(districts.MOST_PEOPLE)
    return _canonical_hash(content)


def build(
    config: Mapping[str, Any], out: Path | str, *, scheduler: str = "threads", num_workers: int | None = None
) -> Path:
    """Build a country and store it.

    The bytes of every array depend on the config and the tables alone, not on scheduler or workers.

    Args:
        config: Population config: `country`, `num_agents`, `seed`.
        out: Folder of the store; must not exist.
        scheduler: `synchronous`, `threads`, `processes` or `distributed`.
        num_workers: Tasks in flight; None takes up to four cores.

    Returns:
        Path of the store.

    Raises:
        ConfigError: the config or the scheduler is not understood.
        OutputExistsError: out exists.

    Example:
        >>> store = graphs.build({"country": "New Zealand", "num_agents": 5000}, "nz")  # doctest: +SKIP
    """
    out = Path(out)
    resolved = resolve(config)
    check_workers(scheduler, num_workers)
    if out.exists():
        raise OutputExistsError(f"{out} exists already; choose another path or remove it first")
    plan = make_plan(resolved.country, resolved.num_agents, resolved.seed)
    with replacing(out) as temporary:
        made = Appender(temporary, block_size(resolved.num_agents))
        scratch = Scratch(temporary / ".scratch")
        layers = _run(plan, Assembly(plan, made, scratch), scheduler, num_workers)
        scratch.clear()
        made.close(root_attributes(_attributes(plan, resolved, layers)))
    return out


def _run(plan: Plan, assembly: Assembly, scheduler: str, num_workers: int | None) -> list[dict[str, Any]]:
    """Make all zones, in two passes; only a few are in memory at a time. Returns the records of the layers."""
    zones = range(len(plan.zones))
    with scheduled(scheduler, num_workers) as tasks:
        for zone, residents in enumerate(tasks.run(first_pass, ((plan, zone) for zone in zones))):
            assembly.take_residents(zone, residents)
        arguments = ((plan, *each) for each in assembly.second_pass_arguments())
        for zone, workplaces in enumerate(tasks.run(second_pass, arguments)):
            assembly.take_workplaces(zone, workplaces)
    return assembly.finish()


def _attributes(plan: Plan, resolved: Resolved, layers: list[dict[str, Any]]) -> dict[str, Any]:
    num_agents = resolved.num_agents
    return {
        "num_agents": num_agents,
        "block": block_size(num_agents),
        "layers": layers,
        "fields": field_records(plan.country),
        "tables": list(plan.country.tables),
        "config": resolved.as_dict(),
        "config_hash": _canonical_hash(resolved.as_dict()),
        "content_hash": content_hash(resolved.as_dict()),
    }


def ensure(
    config: Mapping[str, Any],
    cache_dir: Path | str,
    *,
    scheduler: str = "threads",
    num_workers: int | None = None,
) -> Path:
    """Build a country unless a store of the same content is there already.

    Args:
        config: Population config: `country`, `num_agents`, `seed`.
        cache_dir: Folder that holds one store per content.
        scheduler: As in `build`.
        num_workers: As in `build`.

    Returns:
        Path of the store.

    Raises:
        ConfigError: the config or the scheduler is not understood.
        StoreError: the stored population is damaged.
    """
    resolved = resolve(config)
    name = f"{resolved.country.lower().replace(' ', '_')}-{resolved.num_agents}-{content_hash(config)[:16]}.zarr"
    path = Path(cache_dir) / name
    if not path.exists():
        try:
            return build(config, path, scheduler=scheduler, num_workers=num_workers)
        except OSError:
            # Another process may have finished the same store first; whoever comes second uses it.
            if not path.exists():
                raise
    read_attributes(path)
    return path
