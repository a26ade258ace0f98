"""What a run will need, before it starts: sizes, borders, memory and disk."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from cluster.bounds import grain, row_work, split
from cluster.cost import BUSY_SHARE, Load
from cluster.footprint import TRACED_BYTES, footprint, item_size
from cluster.halo import Traffic, drawn_across, measure
from cluster.sizes import edge_contacts, place_contacts
from cluster.space import amount
from gnabm.agents import Stages
from gnabm.contacts import Contacts, Edges, Mixing, Places
from gnabm.errors import CapacityError, ConfigError
from gnabm.linelist import ROW_BYTES
from gnabm.model import Model
from gnabm.population import Population
from gnabm.simulate import check_record, check_steps

PROCESS_BYTES = 520 << 20
"""Resident memory of a process with the interpreter, torch and the compiled kernels; measured on Linux. The first run
of all compiles the kernels, which takes 160 MiB more."""
ACTOR_BYTES = 545 << 20
"""The same for a process of Ray."""
DRIVER_BYTES = 1130 << 20
"""The process that starts actors, and Ray's own beside it, half each; measured on Linux."""
DRIVER_BYTES_PER_AGENT = 10
"""What the driver of actors reads of a population at once, to make its model and to plan."""
LINE_LIST_BYTES = 70 << 20
"""What writes a line list: pandas, Parquet, a piece of the list."""
SENT_BYTES = 8
"""Bytes of a row that crosses a border: its place in the list of the border, and its value."""
CROSSING_BYTES = 12
"""Bytes of a drawn contact that crosses: its seat and its value."""
_ROWS_PER_READ = 1 << 20


@dataclass(frozen=True)
class LayerPlan:
    """One layer.

    Args:
        kind: `edges`, `places` or `mixing`.
        size: Directed edges, memberships, or expected contacts per day.
        per_agent: Mean contacts per agent and day.
        cut: Share of what shards read (edges, members of their places) or draw whose source another shard owns.
    """

    kind: str
    size: float
    per_agent: float
    cut: float


@dataclass(frozen=True)
class ShardPlan:
    """One shard.

    Args:
        first_row: First row.
        num_agents: Rows that it owns.
        work: Messages that a step reads, and its rows; what the shards are balanced by.
        halo_rows: Rows that it reads from others.
        halo_bytes: Bytes that it receives per step and field sent, if everyone sends: every halo row (`SENT_BYTES`)
            and every contact that crosses on average (`CROSSING_BYTES`).
        held_memory: Bytes of the arrays that it keeps: columns, layers, state, recorded steps.
        peak_memory: Estimated peak resident memory in bytes, that of its process included where it has its own.
    """

    first_row: int
    num_agents: int
    work: int
    halo_rows: int
    halo_bytes: int
    held_memory: int
    peak_memory: int


@dataclass(frozen=True)
class Plan:
    """What a run will need.

    Args:
        num_agents: Agents.
        steps: Steps.
        layers: By name.
        shards: In the order of ranks.
        balance: Work of the largest shard over the mean; 1 is even.
        driver: Bytes besides the shards': the driver of actors and Ray's processes, or the one process of shards that
            take turns; 0 for one shard alone.
        memory: Estimated peak memory of the driver and all shards together, in bytes.
        disk: Upper bound of the trajectory in bytes: fields and infections uncompressed, one infection for each agent.
        record: Recorded fields.
        seconds: Roughly the seconds of a step: in the quiet, and while a tenth of the agents is infectious.
    """

    num_agents: int
    steps: int
    layers: Mapping[str, LayerPlan]
    shards: tuple[ShardPlan, ...]
    balance: float
    driver: int
    memory: int
    disk: int
    record: tuple[str, ...]
    seconds: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts."""
        plain = asdict(self)
        return {**plain, "shards": list(plain["shards"]), "record": list(self.record), "seconds": list(self.seconds)}


def plan(
    population: Population | Contacts,
    model: Model,
    *,
    shards: int = 1,
    steps: int,
    record: Sequence[str] = (),
    transport: Literal["auto", "local", "actors"] = "auto",
    infections: bool = False,
    threads: int | None = None,
) -> Plan:
    """Count what a run will need; reads the graph in bounded pieces.

    Memory is counted array by array (`cluster.footprint`), for an epidemic in which a fifth of the agents is infectious
    at the peak. It is meant to lie between 5 % under and 15 % over the peak resident memory; `python -m
    benchmarks.memory` measures how far it does.

    Args:
        population: In memory or on disk.
        model: The model.
        shards: Number of shards.
        steps: Number of steps.
        record: State fields to store.
        transport: As for `run`: shards that are `local` share one process, actors have a process each and a driver.
        infections: Whether who infected whom is stored; one infection for each agent is counted on.
        threads: Threads of each shard; by default the cores of this machine, divided by the shards.

    Raises:
        ConfigError: There are fewer blocks than shards, or the transport is unknown.
    """
    if transport not in ("auto", "local", "actors"):
        raise ConfigError(f"transport must be 'auto', 'local' or 'actors', got {transport!r}")
    check_steps(steps)
    check_record(model, record)
    whole = Population.of(population)
    bounds = split(whole, shards, grain(whole, shards) if record else None)
    halo, traffic = measure(whole, bounds)
    layers = {n: _layer_plan(whole, layer, traffic.get(n), bounds) for n, layer in whole.contacts.layers.items()}
    work = [_work(whole, low, high) for low, high in pairwise(bounds)]
    share = np.diff(bounds) / whole.num_agents
    drawn = sum(layer.size for layer in layers.values() if layer.kind == "mixing")
    crossing = sum(layer.size * layer.cut for layer in layers.values() if layer.kind == "mixing")
    driver, process = _processes(whole.num_agents, shards, transport)
    if driver and infections:
        driver += LINE_LIST_BYTES + TRACED_BYTES * whole.num_agents
    elif infections:
        process += LINE_LIST_BYTES
    sizes = []
    for rank, (low, high) in enumerate(pairwise(bounds)):
        border = int(halo[rank])
        found = footprint(
            whole, model, traffic, rank, high - low, border, drawn * share[rank], record, infections=infections
        )
        sent = int(SENT_BYTES * border + CROSSING_BYTES * crossing * share[rank])
        sizes.append(ShardPlan(low, high - low, work[rank], border, sent, found.held, process + found.peak))
    at_once = 1 if transport == "local" else shards
    cores = threads or max(1, len(os.sched_getaffinity(0)) // at_once)
    return Plan(
        whole.num_agents,
        steps,
        layers,
        tuple(sizes),
        max(work) / (sum(work) / shards),
        driver,
        driver + sum(s.peak_memory for s in sizes),
        _disk(whole, model, steps, record) + ROW_BYTES * whole.num_agents * infections,
        tuple(record),
        _seconds(layers, sizes, whole.num_agents, cores, at_once),
    )


def _seconds(
    layers: Mapping[str, LayerPlan], shards: Sequence[ShardPlan], num_agents: int, threads: int, at_once: int
) -> tuple[float, float]:
    """Seconds of a quiet and of a busy step, of the largest shard or of all one after the other."""
    links = sum(layer.size for layer in layers.values() if layer.kind != "mixing") / num_agents
    drawn = sum(layer.size for layer in layers.values() if layer.kind == "mixing") / num_agents
    slowest = max(shards, key=lambda shard: shard.work)
    load = Load(slowest.num_agents, len(layers), links, drawn, slowest.halo_bytes, len(shards))
    turns = len(shards) // at_once
    return turns * load.seconds(0.0, threads), turns * load.seconds(BUSY_SHARE, threads)


def _work(population: Population, low: int, high: int) -> int:
    if high - low < population.num_agents:
        pieces = range(low, high, _ROWS_PER_READ)
        return sum(int(row_work(population, at, min(at + _ROWS_PER_READ, high)).sum()) for at in pieces)
    total = population.num_agents
    for layer in population.contacts.layers.values():
        match layer:
            case Edges():
                total += layer.num_edges
            case Places():
                total += int(layer.member.shape[0])
            case Mixing():
                total += population.num_agents
    return total


def _layer_plan(
    population: Population, layer: Edges | Places | Mixing, traffic: Traffic | None, bounds: tuple[int, ...]
) -> LayerPlan:
    agents = population.num_agents
    if isinstance(layer, Mixing):
        contacts, across = drawn_across(layer, bounds)
        return LayerPlan("mixing", contacts, contacts / agents, across)
    assert traffic is not None
    held, remote = int(traffic.held.sum()), int(traffic.remote.sum())
    across = remote / held if held else 0.0
    if isinstance(layer, Edges):
        return LayerPlan("edges", layer.num_edges, edge_contacts(layer) / agents, across)
    return LayerPlan("places", int(layer.member.shape[0]), place_contacts(layer) / agents, across)


def _processes(num_agents: int, shards: int, transport: str) -> tuple[int, int]:
    """Bytes besides the shards', and of the process of each shard."""
    if transport == "actors" or (transport == "auto" and shards > 1):
        return DRIVER_BYTES + DRIVER_BYTES_PER_AGENT * num_agents, ACTOR_BYTES
    return (PROCESS_BYTES, 0) if shards > 1 else (0, PROCESS_BYTES)


def _disk(population: Population, model: Model, steps: int, record: Sequence[str]) -> int:
    fields = sum(item_size(model.state[name]) for name in record) * population.num_agents * steps
    keys = 8 * population.num_agents if record else 0
    cells = 0
    for observable in model.observe:
        groups = int(np.prod([len(population.categories(b) or ()) or 1 for b in observable.by]))
        counted = model.state.get(observable.counts or "")
        cells += groups * (len(counted) if isinstance(counted, Stages) else 1)
    return int(fields + keys + 8 * cells * steps + (1 << 16))


def refuse_if_too_large(plan: Plan, memory_available: int | None = None, disk_available: int | None = None) -> None:
    """Refuse a run that will not fit, and say by how much.

    Args:
        plan: The plan.
        memory_available: Bytes of memory for all shards together, or None when it is not known.
        disk_available: Bytes of disk for the trajectory, or None when it is not known.

    Raises:
        CapacityError: Memory or disk is short.
    """
    lacks = []
    if memory_available is not None and plan.memory > memory_available:
        lacks.append(
            f"needs {amount(plan.memory)} of memory, {amount(memory_available)} are available: "
            f"{amount(plan.memory - memory_available)} too little; use fewer agents, or a cluster (RAY_ADDRESS) with "
            "more machines and shards"
        )
    if disk_available is not None and plan.disk > disk_available:
        lacks.append(
            f"may write {amount(plan.disk)}, {amount(disk_available)} of disk are free: "
            f"{amount(plan.disk - disk_available)} too little; record fewer fields ({', '.join(plan.record) or 'none'} "
            "now), fewer steps, or choose another disk with --out"
        )
    if lacks:
        raise CapacityError(f"{plan.num_agents} agents on {len(plan.shards)} shards: {'; '.join(lacks)}")
