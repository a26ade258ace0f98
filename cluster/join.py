"""Shards' agents and records put together again, in the order of rows; and `run_local`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date

import numpy as np
import torch
from torch import Tensor

from cluster.bounds import split
from gnabm.adjoint import Options, Tape
from gnabm.agents import Agents, Column, Stage
from gnabm.binding import Bound
from gnabm.contacts import Contacts
from gnabm.errors import ConfigError
from gnabm.linelist import as_frame, in_order
from gnabm.local import LocalGroup, LocalThreads
from gnabm.model import Model
from gnabm.neighbours import Form
from gnabm.periods import Period
from gnabm.population import Population
from gnabm.sampling import Estimator
from gnabm.shard import cut
from gnabm.simulate import Seen, check_record, check_steps, shaped
from gnabm.trajectory import Schema, Trajectory

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
    gradient: str | Estimator | None = None,
    parameters: Mapping[str, Tensor] | None = None,
    checkpoint: int | None = 10,
    gradient_horizon: int | None = None,
    loss: Loss | None = None,
    bounds: Sequence[int] | None = None,
    changes: Sequence[Period] = (),
    infections: bool = False,
) -> Trajectory:
    """Run a model on k shards in this process: `gnabm.simulate` with the same bits, cut in k.

    A loss that is to be differentiated is given here, because the backward pass crosses the shards too: `.grad` of the
    model's parameters, or of the tensors that stand for them, grows by its gradient as after `loss.backward()` on one
    shard. What the parameters get on each shard is added up once, in float64.

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
        parameters: Tensors that stand for parameters of the model, by name.
        checkpoint: As `gnabm.simulate`.
        gradient_horizon: As `gnabm.simulate`.
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
        raise ConfigError("a loss needs a differentiable run; pass gradient='local-score'")
    whole = Population.of(population)
    edges = tuple(bounds) if bounds is not None else split(whole, shards)
    bound = Bound.of(model, changes, parameters or {})
    options = Options.of(
        gradient, steps=steps, seed=seed, dt=dt, start=start, messages=messages, changes=changes, checkpoint=checkpoint,
        horizon=gradient_horizon, infections=infections,
    )  # fmt: skip

    def forward(group: LocalGroup) -> tuple[Tape, Seen, dict[str, Tensor]]:
        tape, seen = Tape(model, cut(whole, group, edges), bound.leaves, options), Seen(record)
        return tape, seen, tape.forward(seen.look)

    attributes: dict[str, object] = {}
    with LocalThreads(shards) as threads:
        with bound.standing():
            runs = threads.each(forward)
        observed = runs[0][2]
        if loss is not None:
            attributes["loss"] = _backward(threads, [tape for tape, _, _ in runs], observed, loss, bound)
    last = [tape.last for tape, _, _ in runs]
    schema = Schema.of(model, last[0].shard, observed=last[0].observed, dt=dt, start=start, record=record)
    shown = [seen.columns(run.shard.num_owned) for (_, seen, _), run in zip(runs, last, strict=True)]
    joined = {name: np.concatenate([columns[name] for columns in shown], axis=1) for name in record}
    told = [(run.tracer.legend, run.tracer.take(steps)) for run in last if run.tracer is not None]
    line_list = as_frame(in_order([batch for _, batch in told]), told[0][0]) if told else None
    agents = join_agents([run.agents for run in last])
    return Trajectory(
        schema, shaped(schema, observed, steps), joined, agents, {**(runs[0][1].initial or {}), **attributes}, steps,
        line_list,
    )  # fmt: skip


def _backward(
    threads: LocalThreads, tapes: Sequence[Tape], observed: Mapping[str, Tensor], loss: Loss, bound: Bound
) -> float:
    """Walk back on all shards, which meet in the same exchanges; the loss counts on one of them."""
    leaves = {name: value.detach().requires_grad_() for name, value in observed.items()}  # where the shards begin
    with torch.enable_grad():
        value = loss(leaves)
    value.backward()  # type: ignore[no-untyped-call]
    asked = {n: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for n, leaf in leaves.items()}

    def back(group: LocalGroup) -> list[Tensor]:
        own = asked if group.rank == 0 else {n: torch.zeros_like(g) for n, g in asked.items()}
        return tapes[group.rank].backward(own)

    with bound.standing():
        sums = [torch.stack(parts).sum(0) for parts in zip(*threads.each(back), strict=True)]
    learned = [(p, g.to(p.dtype)) for p, g in zip(bound.inputs, sums, strict=True) if p.requires_grad]
    if learned:
        torch.autograd.backward([p for p, _ in learned], [g for _, g in learned])
    return float(value.detach())  # a number for the record
