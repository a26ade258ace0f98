"""From a config to a population: built once per content, opened, or read from one's own tables."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from gnabm.cli.failures import console, out_of_space, results
from gnabm.cli.machine import available_disk, available_memory, in_bytes
from gnabm.config import Config, build_model, load
from gnabm.config.build import model_parameters
from gnabm.config.changes import build_periods
from gnabm.config.schema import Country, OwnTables, StoredGraph
from gnabm.errors import CapacityError, ConfigError, OutputExistsError, RunError
from gnabm.model import Model
from gnabm.periods import Period
from gnabm.population import Population


@dataclass(frozen=True, eq=False)
class Ready:
    """A config with its population and model.

    Args:
        config: The config, every default of the population filled in.
        store: The graph store, or None for a population in memory.
        population: The population.
        model: The model.
        parameters: All parameters of the model, derived ones too.
        changes: From which steps on another model and seed hold.
    """

    config: Config
    store: Path | None
    population: Population
    model: Model
    parameters: Mapping[str, Any]
    changes: tuple[Period, ...] = ()


def cache_folder() -> Path:
    """Where built populations are kept: $GNABM_CACHE, or ~/.cache/gnabm."""
    root = os.environ.get("GNABM_CACHE")
    return (Path(root).expanduser() if root else Path.home() / ".cache" / "gnabm") / "graphs"


def prepare(config: Config, *, strict: bool) -> Ready:
    """Open the population of a config, building it if need be, and make the model on it."""
    from graphs import encounters

    config, store, population = open_population(config, strict=strict)
    parameters = model_parameters(config, population, encounters)
    derived = {"reproduction_number": None, "parameters": parameters}
    model = build_model(config.model_copy(update=derived), population)
    changes = build_periods(config, population, parameters, encounters)
    if config.run.mixing == "expected":
        contacts = population.contacts.with_expected_mixing()
        population = Population(
            population.num_agents,
            population.columns,
            contacts,
            population.fields,
            population.block,
            population.attributes,
        )
    return Ready(config, store, population, model, parameters, changes)


def open_population(config: Config, *, strict: bool) -> tuple[Config, Path | None, Population]:
    """The config with the population's defaults filled in, its store, and the population."""
    from graphs import from_tables, open_graph, read_agents, read_edges

    who = config.population
    match who:
        case OwnTables():
            agents = None if who.agents is None else read_agents(who.agents)
            return config, None, from_tables(read_edges(who.edges), agents)
        case StoredGraph():
            population = open_graph(who.graph)
            refuse_assumed(population.attributes.get("tables", []), strict=strict)
            return config, Path(who.graph), population
        case Country():
            store = _ensure(who, strict=strict)
            population = open_graph(store)
            resolved = population.attributes["config"]
            filled = who.model_copy(update={"country": resolved["country"], "num_agents": resolved["num_agents"]})
            return config.model_copy(update={"population": filled}), store, population


def content_of(ready: Ready) -> str:
    """A hash of what makes a population what it is: its own tables, or what a store says that it was built from."""
    who = ready.config.population
    digest = hashlib.sha256()
    if isinstance(who, OwnTables):
        for path in (who.edges, who.agents or ""):
            digest.update(hashlib.sha256(Path(path).read_bytes() if path else b"").digest())
    else:
        digest.update(json.dumps(ready.population.attributes, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def refuse_assumed(tables: Iterable[Mapping[str, Any]], *, strict: bool) -> None:
    """Refuse tables that are assumed, when that was asked for.

    Raises:
        ConfigError: One line per assumed table.
    """
    assumed = [table for table in tables if table.get("assumed")]
    if strict and assumed:
        lines = [f"{table['name']} is assumed: {table.get('note') or table.get('source')}" for table in assumed]
        raise ConfigError(
            f"--strict refuses {len(assumed)} assumed tables; run without --strict to use them:",
            *lines,
        )


def _check_country(who: Country, *, strict: bool) -> dict[str, Any]:
    """What `graphs` needs to build a country, after the tables are checked."""
    from graphs.building import resolve
    from graphs.sources import load_country

    asked = {"country": who.country, "num_agents": who.num_agents, "seed": who.seed}
    wanted: dict[str, Any] = resolve(asked).as_dict()
    refuse_assumed(load_country(wanted["country"]).tables, strict=strict)
    return wanted


def _check_memory(wanted: Mapping[str, Any], who: Country) -> None:
    """Refuse a build that memory cannot hold."""
    from graphs.building import peak_memory

    number, have = wanted["num_agents"], available_memory()
    need, least = (peak_memory(number, workers, who.scheduler) for workers in (who.num_workers, 1))
    if need > have:
        fewer = least <= have
        raise CapacityError(
            f"population.num_agents: building {number:,} agents needs about {in_bytes(need)} of memory, "
            f"{in_bytes(have)} are free: {in_bytes(need - have)} too much; "
            f"lower population.{f'num_workers (one needs about {in_bytes(least)})' if fewer else 'num_agents'}"
        )


def _ensure(who: Country, *, strict: bool) -> Path:
    """The store of a country in the cache, built if it is not there."""
    from graphs import ensure
    from graphs.building import content_hash

    wanted, cache, screen = _check_country(who, strict=strict), cache_folder(), console()
    if not any(cache.glob(f"*-{content_hash(wanted)[:16]}.zarr")):
        _check_memory(wanted, who)
    cache.mkdir(parents=True, exist_ok=True)
    before = {entry.name for entry in cache.iterdir()}
    text = f"contact graph of {wanted['country']}, {wanted['num_agents']:,} agents"
    with _busy(screen, f"{text}: building it if it is not there (once)"), _telling_of_space(cache, "GNABM_CACHE"):
        store = ensure(wanted, cache, scheduler=who.scheduler, num_workers=who.num_workers)
    screen.print(f"{text}: {'built once, kept in' if store.name not in before else 'found in'} {cache}", soft_wrap=True)
    return store


def _busy(screen: Console, text: str) -> Any:  # noqa: ANN401
    """A spinner; a plain line where there is no terminal."""
    if not screen.is_terminal:
        screen.print(text, soft_wrap=True)
    return screen.status(text)


@contextmanager
def _telling_of_space(where: Path, option: str) -> Iterator[None]:
    """Say where a build ran out of space, and what moves it elsewhere."""
    try:
        yield
    except OSError as error:
        if out_of_space(error) is None:
            raise
        raise RunError(
            f"no space left on the device of {where} ({in_bytes(available_disk(where))} free) while building the "
            f"population; free some, or choose another device with {option}. No store was made"
        ) from error


def _leftovers(store: Path) -> list[Path]:
    """Unfinished folders beside a store: of builds of it that were killed, or that still run."""
    name = glob.escape(store.name)
    return sorted(path for start in (f".{name}", f"..{name}.new") for path in store.parent.glob(f"{start}.*.partial"))


def build_population(source: str, overrides: Sequence[str], out: Path | None, *, overwrite: bool, strict: bool) -> None:
    """Build the population of a config, print its store and its tables.

    Args:
        source: Config.
        overrides: As `key=value`.
        out: Folder of the store, or None for the cache.
        overwrite: Replace a graph store that is there.
        strict: Refuse assumed tables.
    """
    from graphs import build, open_graph

    config = load(source, overrides)
    who = config.population
    if isinstance(who, OwnTables):
        raise ConfigError(f"population.edges: {who.edges} needs no build; `gnabm run` reads it as it is")
    if out is None or isinstance(who, StoredGraph):
        if out is not None:
            raise ConfigError(f"population.graph: {who.graph} is built already; leave out --out")  # type: ignore[union-attr]
        _, store, population = open_population(config, strict=strict)
    else:
        wanted, screen = _check_country(who, strict=strict), console()
        _check_memory(wanted, who)
        target = _vacant(out, overwrite=overwrite)
        text = f"building {wanted['country']}, {wanted['num_agents']:,} agents"
        with _busy(screen, text), _telling_of_space(out, "--out"):
            build(wanted, target, scheduler=who.scheduler, num_workers=who.num_workers)
        if target != out:
            shutil.rmtree(out)
            target.rename(out)
        store, population = out, open_graph(out)
    assert store is not None
    show_tables(population.attributes.get("tables", []))
    result = results()
    result.print(f"{population.num_agents:,} agents in blocks of {population.block:,}")
    result.print(f"graph store: {store}", soft_wrap=True)
    result.print(f"graph cache: {cache_folder()} (GNABM_CACHE moves it)", soft_wrap=True)
    for left in _leftovers(store):
        result.print(f"unfinished: {left}; unless another build of this store runs, remove it", soft_wrap=True)


def _vacant(out: Path, *, overwrite: bool) -> Path:
    """A path that a store can be built at: out itself, or a sibling that replaces it in the end."""
    if not out.exists():
        return out
    if not overwrite:
        raise OutputExistsError(f"{out} exists; choose another folder with --out or replace it with --overwrite")
    if not (out / "zarr.json").is_file():
        raise OutputExistsError(f"{out} exists and is no store, so --overwrite leaves it alone; choose another --out")
    target = out.with_name(f".{out.name}.new")
    shutil.rmtree(target, ignore_errors=True)
    return target


def show_tables(tables: Sequence[Mapping[str, Any]]) -> None:
    """Print the tables that a population comes from."""
    if not tables:
        return
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    shown.add_column("table", no_wrap=True)
    shown.add_column("", no_wrap=True)
    shown.add_column("year", no_wrap=True)
    for name in ("licence", "source"):
        shown.add_column(name, overflow="fold")
    for table in tables:
        flag = "[yellow]assumed[/]" if table.get("assumed") else "measured"
        year = table.get("year")
        known = "-" if year is None else str(year)
        shown.add_row(str(table["name"]), flag, known, str(table["licence"]), str(table["source"]))
    results().print(shown)


def show_fidelity(figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Print what a population achieves beside what was published.

    Args:
        figures: Records of `graphs.fidelity.compare`.
    """
    if not figures:
        return
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("figure", "achieved", "source", "error", "at most", ""):
        shown.add_column(name, overflow="fold")
    shown.add_column("error counts", overflow="fold")
    shown.add_column("table", no_wrap=True)
    verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}
    for figure in figures.values():
        shown.add_row(
            str(figure["name"]),
            _few(figure["achieved"]),
            _few(figure["source"]),
            f"{figure['error']:.3f}",
            "-" if figure["tolerance"] is None else f"{figure['tolerance']:g}",
            verdict[figure["within"]],
            str(figure["measure"]),
            str(figure["citation"]["name"]),
        )
    results().print(shown)
    results().print()


def _few(values: object) -> str:
    """A number or up to four of them; larger tables are named by their error alone."""
    numbers = values if isinstance(values, list) else [values]
    if len(numbers) > 4:
        return ""
    return " ".join(f"{number:.3g}" for number in numbers)
