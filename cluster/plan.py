"""What a run will need, before it starts: sizes, borders, memory and disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from cluster.bounds import grain, row_work, split
from cluster.halo import Traffic, drawn_across, measure
from cluster.space import amount
from gnabm.agents import Stages
from gnabm.contacts import Contacts, Edges, Mixing, Places
from gnabm.errors import CapacityError, ConfigError
from gnabm.linelist import ROW_BYTES
from gnabm.model import Model
from gnabm.population import Population
from gnabm.simulate import check_record, check_steps
from gnabm.trajectory import TIME_CHUNK

PROCESS_BYTES = 600 << 20
"""Resident memory of a process with the interpreter, torch and the compiled kernels; measured on Linux."""
DRIVER_BYTES = 640 << 20
"""The process that starts actors, and Ray's own beside it; measured on Linux."""
DRIVER_BYTES_PER_AGENT = 36
"""What the driver reads of a population, to plan the run and to make its model; measured, see `plan`."""
STEP_BYTES = 110
"""Bytes per owned row for the temporaries of a step: flags, hazards, probabilities, indices; measured, see `plan`."""
ACTIVE_SHARE = 0.3
"""Share of the agents that draw contacts at the peak of a strong epidemic."""
DRAWN_BYTES = 24
"""Bytes per drawn contact: sender, group, index, target, value; kept while the layers of a step are added up."""
TRACED_BYTES = 64
"""Bytes per owned row of a run that records infections: records of the steps not yet written, keys of those who drew
contacts; measured, see `plan`."""
SLACK = 1.2
"""Over what is counted: allocator, pieces of a store while they are read; measured, see `plan`."""
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
        halo_bytes: Bytes that it receives per step and field sent, at most: every halo row (value and
            position, 8 bytes) and every contact that crosses on average (value, group and index, 20 bytes).
        held_memory: Bytes of the arrays that it keeps: columns, layers and the rows that it sends.
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

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts."""
        plain = asdict(self)
        return {**plain, "shards": list(plain["shards"]), "record": list(self.record)}


def plan(
    population: Population | Contacts,
    model: Model,
    *,
    shards: int = 1,
    steps: int,
    record: Sequence[str] = (),
    transport: Literal["auto", "local", "actors"] = "auto",
    infections: bool = False,
) -> Plan:
    """Count what a run will need; reads the graph in bounded pieces.

    Memory counts the arrays that a shard holds and the temporaries of a step at the peak of an epidemic; its constants
    are rounded upwards from the peak resident memory of runs of New Zealand (5,174,700 agents, 180 steps, 2 shards as
    actors: 1.15 to 1.25 GiB per shard, 0.62 GiB for the driver, 0.14 GiB for Ray; recording 3.8M infections took 0.32
    GiB more on one shard).

    Args:
        population: In memory or on disk.
        model: The model.
        shards: Number of shards.
        steps: Number of steps.
        record: State fields to store.
        transport: As for `run`: shards that are `local` share one process, actors have a process each and a driver.
        infections: Whether who infected whom is stored; one infection for each agent is counted on.

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
    owned = np.diff(bounds)
    mixed = [layer for layer in layers.values() if layer.kind == "mixing"]
    crossing = sum(layer.size * layer.cut for layer in mixed) * owned / whole.num_agents
    drawn = sum(layer.size for layer in mixed) * owned / whole.num_agents
    driver, process = _processes(whole.num_agents, shards, transport)
    per_row = STEP_BYTES + TRACED_BYTES * infections
    if driver and infections:
        driver += TRACED_BYTES * whole.num_agents
    sizes = []
    for rank in range(shards):
        rows, border = int(owned[rank]), int(halo[rank])
        held, reading = _held(whole, traffic, rank, rows, border, shards)
        step = per_row * rows + 12 * border + int(ACTIVE_SHARE * DRAWN_BYTES * drawn[rank])
        peak = process + _working(model, held, reading, step, rows, record)
        sent = int(8 * border + 20 * crossing[rank])
        sizes.append(ShardPlan(bounds[rank], rows, work[rank], border, sent, held, peak))
    memory = driver + sum(s.peak_memory for s in sizes)
    balance = max(work) / (sum(work) / shards)
    return Plan(
        whole.num_agents,
        steps,
        layers,
        tuple(sizes),
        balance,
        driver,
        memory,
        _disk(whole, model, steps, record) + ROW_BYTES * whole.num_agents * infections,
        tuple(record),
    )


def _work(population: Population, low: int, high: int) -> int:
    pieces = range(low, high, _ROWS_PER_READ)
    return sum(int(row_work(population, at, min(at + _ROWS_PER_READ, high)).sum()) for at in pieces)


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
        return LayerPlan("edges", layer.num_edges, _edge_contacts(layer) / agents, across)
    return LayerPlan("places", int(layer.member.shape[0]), _place_contacts(layer) / agents, across)


def _edge_contacts(layer: Edges) -> float:
    if layer.weight is None:
        return float(layer.num_edges)
    pieces = range(0, layer.num_edges, _ROWS_PER_READ)
    return float(sum(np.asarray(layer.weight[at : at + _ROWS_PER_READ]).sum(dtype=np.float64) for at in pieces))


def _place_contacts(layer: Places) -> float:
    contacts = 0.0
    activity = None if layer.activity is None else np.asarray(layer.activity[:], dtype=np.float64)
    for at in range(0, layer.num_places, _ROWS_PER_READ):
        indptr = np.asarray(layer.indptr[at : min(at + _ROWS_PER_READ, layer.num_places) + 1], dtype=np.int64)
        size = indptr[1:] - indptr[:-1]
        pairs = (size * np.maximum(size - 1, 0)).astype(np.float64)
        if activity is not None:
            active = activity[np.asarray(layer.member[int(indptr[0]) : int(indptr[-1])])]
            place = np.repeat(np.arange(size.size), size)
            pairs = np.bincount(place, active, size.size) ** 2 - np.bincount(place, active**2, size.size)
        contacts += float((pairs * layer.weights(size).astype(np.float64)).sum())
    return contacts


def _processes(num_agents: int, shards: int, transport: str) -> tuple[int, int]:
    """Bytes besides the shards', and of the process of each shard."""
    if transport == "actors" or (transport == "auto" and shards > 1):
        return DRIVER_BYTES + DRIVER_BYTES_PER_AGENT * num_agents, PROCESS_BYTES
    return (PROCESS_BYTES, 0) if shards > 1 else (0, PROCESS_BYTES)


def _held(
    population: Population, traffic: Mapping[str, Traffic], rank: int, owned: int, halo: int, shards: int
) -> tuple[int, int]:
    """Bytes of the arrays that a shard keeps, and that reading its layers takes besides."""
    sources = owned + halo
    held = 8 * owned * ("key" not in population.columns) + 8 * halo  # keys, rows to send
    held += sum(owned * (8 if name == "key" else column.dtype.itemsize) for name, column in population.columns.items())
    reading = 0
    for name, layer in population.contacts.layers.items():
        kept, peak = _layer_memory(layer, traffic.get(name), rank, owned, sources, shards)
        held, reading = held + kept, max(reading, peak) if shards == 1 else reading + peak
    return int(held), int(reading)


def _working(model: Model, held: int, reading: int, step: int, owned: int, record: Sequence[str]) -> int:
    """Peak of a rank besides its process: what its shard holds, the state, and the reading, the step or the writing."""
    state = sum(_item(kind) for kind in model.state.values()) * owned
    recorded = TIME_CHUNK * owned * sum(_item(model.state[name]) for name in record)
    groups = 4 * owned
    stacked = TIME_CHUNK * owned * max((_item(model.state[name]) for name in record), default=0)  # as it is written
    return int(SLACK * (held + state + groups + max(reading, recorded + max(step, stacked))))


def _item(kind: Any) -> int:  # noqa: ANN401
    return 1 if isinstance(kind, Stages) else int(kind.dtype.itemsize)


def _layer_memory(
    layer: Edges | Places | Mixing, traffic: Traffic | None, rank: int, owned: int, sources: int, shards: int
) -> tuple[int, int]:
    """Bytes that a layer keeps, and that reading it takes besides."""
    if isinstance(layer, Mixing):
        starts = 8 * (1 + layer.matrix.shape[0] * (shards + 2))  # of the groups, here and on every shard
        return 17 * owned + starts, 17 * owned
    assert traffic is not None
    messages, places = int(traffic.held[rank]), int(traffic.places[rank])
    if isinstance(layer, Edges):
        one = 4 + (4 if layer.weight is not None else 0)
        # By target as stored, and by source for the push form.
        return 2 * one * messages + 8 * (owned + sources + 2), 16 * messages
    active = 0 if layer.activity is None else 4 * sources
    return 4 * (owned + sources + messages) + active + 12 * places + 8, 20 * messages


def _disk(population: Population, model: Model, steps: int, record: Sequence[str]) -> int:
    fields = sum(_item(model.state[name]) for name in record) * population.num_agents * steps
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
