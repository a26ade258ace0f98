"""Shards' agents and records put together again, in the order of rows; and `run_local`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date

import numpy as np
import torch
from torch import Tensor

from cluster.bounds import split
from gnabm.agents import Agents, Column, Stage
from gnabm.contacts import Contacts
from gnabm.errors import ConfigError
from gnabm.linelist import Batch, Legend, as_frame, in_order
from gnabm.local import LocalGroup, LocalThreads
from gnabm.model import Model
from gnabm.neighbours import Form
from gnabm.periods import Period
from gnabm.population import Population
from gnabm.shard import cut
from gnabm.simulate import Simulation, as_numpy, check_record, check_steps
from gnabm.trajectory import Schema, Trajectory, initial_counts

Loss = Callable[[Mapping[str, Tensor]], Tensor]
"""From the observables of a run, each (time, ...), to a scalar."""


def join_columns(parts: Sequence[Column]) -> Column:
    """One column from those of all shards, in the order of ranks."""
    if isinstance(parts[0], Stage):
        stages = [p for p in parts if isinstance(p, Stage)]
        flags = [s.flags for s in stages if s.flags is not None]
        return Stage(parts[0].family, torch.cat([s.codes for s in stages]), torch.cat(flags) if flags else None)
    return torch.cat([p for p in parts if isinstance(p, Tensor)])


def join_agents(parts: Sequence[Agents]) -> Agents:
    """The agents of all shards, in the order of ranks."""
    columns = {name: join_columns([p.columns[name] for p in parts]) for name in parts[0].columns}
    return Agents(columns, parts[0].fields)


def run_local(
    model: Model,
    population: Population | Contacts,
    *,
    shards: int,
    steps: int,
    seed: int,
    dt: float = 1.0,
    start: date | None = None,
    record: Sequence[str] = (),
    messages: Form = "auto",
    gradient: str | None = None,
    loss: Loss | None = None,
    bounds: Sequence[int] | None = None,
    changes: Sequence[Period] = (),
    infections: bool = False,
) -> Trajectory:
    """Run a model on k shards in this process: `gnabm.simulate` with the same bits, cut in k.

    A loss that is to be differentiated is given here, because the backward pass crosses the shards too: every shard
    computes it from the totals that all of them have, it is counted once, and `.grad` of the model's parameters grows
    by its gradient as after `loss.backward()` on one shard.

    Args:
        model: The model; its parameters are shared by all shards.
        population: Agents and contacts, or contacts alone.
        shards: Number of shards.
        steps: Number of steps.
        seed: Seed of all draws.
        dt: Length of a step in days.
        start: Date of step 0, or None.
        record: State fields to keep for each agent and step.
        messages: Form of the kernels.
        gradient: Estimator of a differentiable run, or None.
        loss: Scalar to differentiate in the model's parameters; needs `gradient`. Its value is in the attributes of the
            trajectory.
        bounds: (shards + 1,) first row of each shard, or None to balance them.
        changes: From which steps on another model and seed hold.
        infections: Record who infected whom.

    Returns:
        Observables, recorded fields and final agents of all shards in the order of rows, without gradient.

    Raises:
        RunError: Shards called different collectives.
        GnabmError: As `gnabm.simulate`.
    """
    check_steps(steps)
    check_record(model, record)
    if loss is not None and gradient is None:
        raise ConfigError("a loss needs a differentiable run; pass gradient='straight-through'")
    whole = Population.of(population)
    edges = tuple(bounds) if bounds is not None else split(whole, shards)

    def shard_run(group: LocalGroup) -> tuple[Trajectory, tuple[Legend, Batch] | None]:
        shard = cut(whole, group, edges)
        run = Simulation(
            model, shard, seed=seed, dt=dt, start=start, messages=messages, gradient=gradient, changes=changes,
            infections=infections,
        )  # fmt: skip
        observed: dict[str, list[Tensor]] = {o.name: [] for o in model.observe}
        fields: dict[str, list[np.ndarray]] = {name: [] for name in record}
        attributes: dict[str, object] = initial_counts(run.observed)
        for _ in range(steps):
            for name, value in run.advance().items():
                observed[name].append(value)
            for name in record:
                fields[name].append(as_numpy(run.agents.columns[name]).copy())
        schema = Schema.of(model, shard, observed=run.observed, dt=dt, start=start, record=record)
        stacked = {n: torch.stack(v) if v else torch.zeros(schema.shape(n)) for n, v in observed.items()}
        attributes |= {} if loss is None else {"loss": _backward(loss(stacked), group.rank)}
        kept = {n: np.stack(v) if v else np.empty((0, shard.num_owned), np.uint8) for n, v in fields.items()}
        # The graph of one shard cannot be followed outside its thread: the gradient was taken above.
        part = Trajectory(schema, {n: v.detach() for n, v in stacked.items()}, kept, run.agents, attributes, steps)
        return part, None if run.tracer is None else (run.tracer.legend, run.tracer.take(steps))

    with LocalThreads(shards) as threads:
        runs = threads.each(shard_run)
    parts, told = [part for part, _ in runs], [noted for _, noted in runs if noted is not None]
    joined = {name: np.concatenate([p.fields[name] for p in parts], axis=1) for name in record}
    agents = join_agents([p.agents for p in parts])
    line_list = as_frame(in_order([batch for _, batch in told]), told[0][0]) if told else None
    return Trajectory(parts[0].schema, parts[0].observed, joined, agents, parts[0].attributes, steps, line_list)


def _backward(loss: Tensor, rank: int) -> float:
    # All shards walk the same graph and so meet in the same exchanges, but the loss counts on one of them.
    loss.backward(torch.ones_like(loss) if rank == 0 else torch.zeros_like(loss))  # type: ignore[no-untyped-call]
    return float(loss.detach())  # a number for the record
