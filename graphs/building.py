"""Build a country's graph store from its tables, once per content of the config."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from dask.delayed import delayed

from gnabm.errors import ConfigError, OutputExistsError, nearest
from graphs.assemble import Assembled, assemble
from graphs.country import Plan, arrivals_of, make_plan, people_task, schools_task, sites_task, workers_task
from graphs.people import People
from graphs.scheduling import check_workers, compute
from graphs.schools import Schools
from graphs.sources import check_country, load_country
from graphs.store import SCHEMA, block_size, read_attributes, write_store
from graphs.work import Sites

GENERATOR = 3
"""Raised whenever the same config and tables give another population."""
_KEYS = ("country", "num_agents", "seed")


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


def _canonical_hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def content_hash(config: Mapping[str, Any]) -> str:
    """Hash of all that a store's content depends on: config, tables, schema and generator."""
    resolved = resolve(config)
    tables = load_country(resolved.country).digest
    return _canonical_hash([resolved.as_dict(), tables, SCHEMA, GENERATOR])


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
    people, schools, sites = _run(plan, scheduler, num_workers)
    made = assemble(plan, people, schools, sites)
    write_store(out, made.columns, made.layers, _attributes(plan, resolved, made))
    return out


def _run(plan: Plan, scheduler: str, num_workers: int | None) -> tuple[list[People], list[Schools], list[Sites]]:
    """Run the tasks of all regions; only whole numbers and rows travel between them."""
    shared = delayed(plan, traverse=False, pure=False)
    regions = range(len(plan.region_people))
    people = [delayed(people_task, pure=False)(shared, r) for r in regions]
    schools = [
        delayed(schools_task, pure=False)(shared, z, [people[r] for r in zone]) for z, zone in enumerate(plan.zones)
    ]
    workers = [delayed(workers_task, pure=False)(shared, r, people[r]) for r in regions]
    arrivals = [[delayed(arrivals_of, pure=False)(workers[home], r) for home in regions] for r in regions]
    sites = [delayed(sites_task, pure=False)(shared, r, arrivals[r]) for r in regions]
    done = compute([*people, *schools, *sites], scheduler, num_workers)
    first, last = len(people), len(people) + len(schools)
    return done[:first], done[first:last], done[last:]


def _attributes(plan: Plan, resolved: Resolved, made: Assembled) -> dict[str, Any]:
    num_agents = resolved.num_agents
    return {
        "num_agents": num_agents,
        "block": block_size(num_agents),
        "layers": made.layer_records,
        "fields": made.field_records,
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
