"""What a run will need, before it starts: sizes, borders, memory and disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from cluster.bounds import grain, row_work, split
from cluster.halo import Traffic, drawn_across, measure
from cluster.space import amount
from gnabm.agents import Stages
from gnabm.contacts import Contacts, Edges, Mixing, Places
from gnabm.errors import CapacityError
from gnabm.model import Model
from gnabm.population import Population
from gnabm.simulate import check_record, check_steps
from gnabm.trajectory import TIME_CHUNK

PROCESS_BYTES = 600 << 20
"""Resident memory of a process with the interpreter, torch and the compiled kernels; measured on Linux."""
STEP_BYTES = 80
"""Bytes per owned row for the temporaries of a step: flags, hazards, probabilities, indices; measured, see `plan`."""
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
        peak_memory: Estimated peak resident memory in bytes.
    """

    first_row: int
    num_agents: int
    work: int
    halo_rows: int
    halo_bytes: int
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
        memory: Estimated peak memory of all shards together, in bytes.
        disk: Upper bound of the trajectory in bytes: fields uncompressed.
        record: Recorded fields.
    """

    num_agents: int
    steps: int
    layers: Mapping[str, LayerPlan]
    shards: tuple[ShardPlan, ...]
    balance: float
    memory: int
    disk: int
    record: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts."""
        plain = asdict(self)
        return {**plain, "shards": list(plain["shards"]), "record": list(self.record)}


def plan(
    population: Population | Contacts, model: Model, *, shards: int = 1, steps: int, record: Sequence[str] = ()
) -> Plan:
    """Count what a run will need; reads the graph in bounded pieces.

    Memory counts the arrays that a shard holds and the temporaries of a step; its constants were measured against the
    peak resident memory of runs of New Zealand (5,174,700 agents on 1 and 2 shards) and are rounded upwards.

    Args:
        population: In memory or on disk.
        model: The model.
        shards: Number of shards.
        steps: Number of steps.
        record: State fields to store.

    Raises:
        ConfigError: There are fewer blocks than shards.
    """
    check_steps(steps)
    check_record(model, record)
    whole = Population.of(population)
    bounds = split(whole, shards, grain(whole, shards) if record else None)
    halo, traffic = measure(whole, bounds)
    layers = {n: _layer_plan(whole, layer, traffic.get(n), bounds) for n, layer in whole.contacts.layers.items()}
    work = [_work(whole, low, high) for low, high in pairwise(bounds)]
    owned = np.diff(bounds)
    crossing = np.zeros(shards)
    for layer in layers.values():
        if layer.kind == "mixing":
            crossing += layer.size * layer.cut * owned / whole.num_agents
    sizes = [
        ShardPlan(
            bounds[rank],
            int(owned[rank]),
            work[rank],
            int(halo[rank]),
            int(8 * halo[rank] + 20 * crossing[rank]),
            _memory(whole, model, traffic, rank, int(owned[rank]), int(halo[rank]), shards, record),
        )
        for rank in range(shards)
    ]
    memory = sum(s.peak_memory for s in sizes)
    balance = max(work) / (sum(work) / shards)
    return Plan(
        whole.num_agents,
        steps,
        layers,
        tuple(sizes),
        balance,
        memory,
        _disk(whole, model, steps, record),
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
    for at in range(0, layer.num_places, _ROWS_PER_READ):
        indptr = np.asarray(layer.indptr[at : min(at + _ROWS_PER_READ, layer.num_places) + 1], dtype=np.int64)
        size = indptr[1:] - indptr[:-1]
        contacts += float((size * np.maximum(size - 1, 0) * layer.weights(size).astype(np.float64)).sum())
    return contacts


def _memory(
    population: Population, model: Model, traffic: Mapping[str, Traffic], rank: int, owned: int, halo: int, shards: int,
    record: Sequence[str],
) -> int:  # fmt: skip
    """Peak of a rank: what its shard holds, the state, the step, and the layer that is being read."""
    sources = owned + halo
    held = 8 * owned * ("key" not in population.columns) + 8 * halo  # keys, rows to send
    held += sum(owned * (8 if name == "key" else column.dtype.itemsize) for name, column in population.columns.items())
    reading = 0
    for name, layer in population.contacts.layers.items():
        kept, peak = _layer_memory(layer, traffic.get(name), rank, owned, sources)
        held, reading = held + kept, max(reading, peak) if shards == 1 else reading + peak
    state = sum(_item(kind) for kind in model.state.values()) * owned
    recorded = TIME_CHUNK * owned * sum(_item(model.state[name]) for name in record)
    groups = 4 * owned
    stacked = TIME_CHUNK * owned * max((_item(model.state[name]) for name in record), default=0)  # as it is written
    step = STEP_BYTES * owned + 12 * halo
    return int(PROCESS_BYTES + SLACK * (held + state + groups + max(reading, recorded + max(step, stacked))))


def _item(kind: Any) -> int:  # noqa: ANN401
    return 1 if isinstance(kind, Stages) else int(kind.dtype.itemsize)


def _layer_memory(
    layer: Edges | Places | Mixing, traffic: Traffic | None, rank: int, owned: int, sources: int
) -> tuple[int, int]:
    """Bytes that a layer keeps, and that reading it takes besides."""
    if isinstance(layer, Mixing):
        return 17 * owned, 17 * owned
    assert traffic is not None
    messages, places = int(traffic.held[rank]), int(traffic.places[rank])
    if isinstance(layer, Edges):
        one = 4 + (4 if layer.weight is not None else 0)
        # By target as stored, and by source for the push form.
        return 2 * one * messages + 8 * (owned + sources), 16 * messages
    return 4 * (owned + sources + messages) + 12 * places, 20 * messages


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
