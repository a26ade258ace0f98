"""How `gnabm plan` shows what a run needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from gnabm.cli.failures import results
from gnabm.cli.machine import in_bytes


def show_plan(plan: Mapping[str, Any], memory: int, disk: int) -> None:
    """Print a plan beside what the machine has.

    Args:
        plan: As `cluster.Plan.to_dict` gives it.
        memory: Bytes of memory that are free.
        disk: Bytes of disk that are free.
    """
    screen = results()
    shards = plan["shards"]
    needs = Table.grid(padding=(0, 2))
    needs.add_row("agents", f"{plan['num_agents']:,}")
    needs.add_row("steps", f"{plan['steps']:,}")
    needs.add_row("shards", f"{len(shards)}, the largest has {plan['balance']:.3f} x the mean work")
    needs.add_row("memory", f"about {in_bytes(plan['memory'])} at the peak, {in_bytes(memory)} free")
    if plan["driver"]:
        needs.add_row("", f"of which {in_bytes(plan['driver'])} for the driver and Ray")
    recorded = ", ".join(plan["record"]) or "no field"
    needs.add_row(
        "disk", f"up to {in_bytes(plan['disk'])} before compression ({recorded} recorded), {in_bytes(disk)} free"
    )
    quiet, busy = plan["seconds"]
    needs.add_row(
        "time", f"roughly {quiet:.2g} s per step in the quiet, {busy:.2g} s while a tenth of the agents is infectious"
    )
    screen.print(needs)
    screen.print(_layers(plan["layers"]))
    screen.print(_shards(shards))


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(columns[0], no_wrap=True)
    for name in columns[1:]:
        table.add_column(name, justify="right")
    return table


def _layers(layers: Mapping[str, Mapping[str, Any]]) -> Table:
    table = _table("layer", "kind", "edges, members or contacts", "contacts per agent and day", "cut")
    for name, layer in layers.items():
        size, mean = f"{layer['size']:,.0f}", f"{layer['per_agent']:.2f}"
        table.add_row(name, layer["kind"], size, mean, f"{100 * layer['cut']:.2f} %")
    return table


def _shards(shards: list[Mapping[str, Any]]) -> Table:
    table = _table("shard", "agents", "messages per step", "halo agents", "halo per step", "peak memory")
    for number, shard in enumerate(shards):
        table.add_row(
            str(number), f"{shard['num_agents']:,}", f"{shard['work']:,}", f"{shard['halo_rows']:,}",
            in_bytes(shard["halo_bytes"]), in_bytes(shard["peak_memory"]),
        )  # fmt: skip
    return table
