"""`gnabm inspect`: what a graph store or a run holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.table import Table

from gnabm.cli.failures import results
from gnabm.cli.populations import show_fidelity, show_tables
from gnabm.errors import GnabmError, StoreError
from gnabm.infections import generation_intervals, open_infections, share_by_layer
from gnabm.report import Summary, open_run
from gnabm.trajectory import INITIAL


def kind_of(path: Path) -> Literal["graph", "trajectory"]:
    """What stands at a path.

    Raises:
        StoreError: Nothing that gnabm wrote.
    """
    if not path.exists():
        raise StoreError(f"{path} does not exist; give a graph store of `gnabm build` or a run folder of `gnabm run`")
    if (path / "trajectory.zarr").is_dir():
        return "trajectory"
    try:
        attributes = json.loads((path / "zarr.json").read_text("utf-8")).get("attributes", {})
    except FileNotFoundError:
        raise StoreError(
            f"{path} holds neither a graph store nor a trajectory; give a store of `gnabm build` or a run folder"
        ) from None
    except (OSError, ValueError, AttributeError) as error:
        raise StoreError(f"{path}: zarr.json cannot be read ({error}); build or run it again") from error
    return "trajectory" if attributes.get("gnabm_kind") == "trajectory" else "graph"


def population_of(attributes: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], str]:
    """The population of a run beside its sources, and why there is nothing to show if there is not."""
    store = attributes.get("population", {}).get("store")
    if store is None:
        return {}, ""
    from graphs.fidelity import compare

    again = "`gnabm build` makes it again"
    if not Path(store).is_dir():
        return {}, f"The graph store {store} is gone, so the population cannot be shown; {again}."
    try:
        return compare(store), ""
    except (GnabmError, OSError, KeyError) as error:  # a store of an earlier version lacks arrays
        return {}, f"The graph store {store} cannot be read ({error}), so the population cannot be shown; {again}."


def inspect_path(path: Path, *, as_json: bool) -> None:
    """Print what a graph store or a run holds.

    Args:
        path: Graph store, run folder or trajectory.
        as_json: Print JSON and nothing else.
    """
    if kind_of(path) == "graph":
        from graphs import open_graph, summarise
        from graphs.fidelity import compare

        figures = summarise(path)
        figures["fidelity"] = compare(path, figures)
        if not as_json:
            _show_graph(path, figures, open_graph(path).attributes)
    else:
        figures = _trajectory_figures(path)
        if not as_json:
            _show_trajectory(path, figures)
    if as_json:
        print(json.dumps(figures))


def _trajectory_figures(path: Path) -> dict[str, Any]:
    dataset = open_run(path)
    steps = dataset.sizes["time"]
    figures: dict[str, Any] = {
        "status": str(dataset.attrs.get("status", "unknown")),
        "dims": {str(name): int(size) for name, size in dataset.sizes.items()},
        "variables": {
            str(name): [str(d) for d in array.dims]
            for name, array in dataset.variables.items()
            if name in dataset.data_vars
            or ("time" in array.dims and name != "time")  # a recorded stage is a coordinate
        },
    }
    if steps:
        summary = Summary.of(dataset)
        figures |= summary.headline()
        ends = summary.time[0], summary.time[-1]
        figures["time"] = [at.isoformat() if isinstance(at, date) else str(at) for at in ends]
        figures["stages_at_the_end"] = dict(zip(summary.stages, summary.stage_count[-1].tolist(), strict=True))
        for name, group in summary.groups.items():
            figures[f"infections_by_{name}"] = dict(zip(group.names, group.incidence.sum(0).tolist(), strict=True))
    figures |= _line_list_figures(path, float(dataset.attrs["dt_days"]))
    records, why_not = population_of(dataset.attrs)
    if records or why_not:
        within = [record["within"] for record in records.values()]
        figures["graph_store"] = {
            "path": str(dataset.attrs["population"]["store"]), "met": within.count(True), "missed": within.count(False),
            "without_tolerance": within.count(None), "why_not": why_not,
        }  # fmt: skip
    kept = ("status", "gnabm_kind", INITIAL)
    figures["attributes"] = {str(k): _plain(v) for k, v in dataset.attrs.items() if k not in kept}
    return figures


def _line_list_figures(path: Path, dt: float) -> dict[str, Any]:
    """What the line list of a run shows, when there is one."""
    infections = open_infections(path)
    if infections is None:
        return {}
    intervals = generation_intervals(infections)
    found: dict[str, Any] = {"records_of_infections": len(infections), "share_by_layer": share_by_layer(infections)}
    if intervals.sum():
        mean = float((intervals * np.arange(intervals.size)).sum() / intervals.sum())
        found["mean_generation_interval_days"] = mean * dt
    return found


def _plain(value: Any) -> Any:  # noqa: ANN401
    """A value that JSON can hold."""
    return value.item() if hasattr(value, "item") else value


def _grid(rows: Mapping[str, object]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


def _show_trajectory(path: Path, figures: Mapping[str, Any]) -> None:
    attributes = figures["attributes"]
    config = attributes.get("config", {})
    rows: dict[str, object] = {
        "trajectory": path,
        "status": figures["status"],
        "model": config.get("model", "-"),
        "dims": ", ".join(f"{name} {size:,}" for name, size in figures["dims"].items()),
        "variables": ", ".join(f"{name} ({', '.join(dims)})" for name, dims in figures["variables"].items()),
    }
    if "attack_rate" in figures:
        peak = figures["peak_date"] or f"step {figures['peak_step']}"
        rows |= {
            "time": " to ".join(figures["time"]),
            "agents": f"{figures['num_agents']:,}",
            "attack rate": f"{100 * figures['attack_rate']:.1f} %",
            "new infections": f"{figures['total_infections']:,}",
            "peak incidence": f"{figures['peak_incidence']:,} on {peak}",
            "at the end": ", ".join(f"{name} {count:,}" for name, count in figures["stages_at_the_end"].items()),
        }
    if "share_by_layer" in figures:
        rows["infections by layer"] = ", ".join(f"{n} {100 * s:.1f} %" for n, s in figures["share_by_layer"].items())
    if "mean_generation_interval_days" in figures:
        rows["generation interval"] = f"{figures['mean_generation_interval_days']:.2f} days on average"
    rows |= {
        **({"graph store": _store(figures["graph_store"])} if "graph_store" in figures else {}),
        "seed": attributes.get("seed", "-"),
        "shards": attributes.get("shards", "-"),
        "reproducibility": attributes.get("reproducibility", "-"),
        "seconds": f"{attributes['seconds']:.1f}" if "seconds" in attributes else "-",
    }
    results().print(_grid(rows))


def _store(found: Mapping[str, Any]) -> str:
    """Where the population of a run is, and how many published figures it meets."""
    return found["why_not"] or f"{found['path']}, published figures {found['met']} met, {found['missed']} missed"


def _show_graph(path: Path, figures: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
    screen = results()
    size: Mapping[str, int] = figures.get("household_size", {})
    homes = sum(size.values())
    rows: dict[str, object] = {
        "graph store": path,
        "agents": f"{figures['num_agents']:,} in blocks of {attributes.get('block', 0):,}",
        "config": ", ".join(f"{name} {value}" for name, value in attributes.get("config", {}).items()) or "-",
    }
    if homes:
        people = sum(int(n) * count for n, count in size.items())
        rows["households"] = f"{homes:,}, mean size {people / homes:.2f}"
    for name, mean in figures.get("contacts_per_agent", {}).items():
        rows[f"contacts per agent, {name}"] = f"{mean:.2f} per day"
    if "school_rolls" in figures:
        rows["median school roll"] = ", ".join(f"{name} {roll:.0f}" for name, roll in figures["school_rolls"].items())
    if "mean_site_size" in figures:
        rows["mean site size"] = ", ".join(f"{name} {mean:.1f}" for name, mean in figures["mean_site_size"].items())
    rows |= {name: f"{count:,}" for name, count in figures.get("agents_by_region", {}).items()}
    screen.print(_grid(rows))
    screen.print()
    show_fidelity(figures["fidelity"])
    show_tables(attributes.get("tables", []))
