"""`simulate(model, population, steps=..., seed=...) -> Trajectory`: the one loop, on one shard in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import torch
from torch import Tensor

from gnabm.adjoint import Options, tape_run
from gnabm.agents import Column, Stage
from gnabm.contacts import Contacts
from gnabm.errors import DataError, KindError, UnknownFieldError, nearest
from gnabm.linelist import as_frame, in_order
from gnabm.model import Model
from gnabm.neighbours import Form
from gnabm.periods import Period
from gnabm.population import Population
from gnabm.sampling import Estimator
from gnabm.shard import cut
from gnabm.simulation import Simulation
from gnabm.trajectory import Schema, Trajectory, initial_counts


def simulate(
    model: Model,
    population: Population | Contacts,
    *,
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
    changes: Sequence[Period] = (),
    infections: bool = False,
) -> Trajectory:
    """Run a model on a population, on one shard in this process.

    Args:
        model: The model.
        population: Agents and contacts, or bare contacts.
        steps: Number of steps, >= 0.
        seed: Seed; one seed, one history.
        dt: Length of a step in days.
        start: Date of the first step; None for a run without a calendar.
        record: State fields to keep for each agent and step.
        messages: `push`, `pull` or `auto`; the bits are the same.
        gradient: Estimator of a differentiable run (`local-score`, `straight-through`, ...), or None.
        parameters: Tensors that stand for parameters of the model in this run, by name (`Infect.transmission_rate`);
            they may come out of other computations, such as a neural network.
        checkpoint: In a differentiable run, keep the state every so many steps and make the steps again in the
            backward pass; None keeps the graph of every step. The gradient has the same bits.
        gradient_horizon: Cut the gradient of the state every so many steps, or None.
        changes: From which steps on another model and seed hold.
        infections: Record who infected whom: the trajectory's `infections`.

    Returns:
        Observables of each step, the recorded fields and the final agents. In a differentiable run the observables are
        float64 and carry the gradient: `backward()` of what is made of them fills the parameters' `.grad`.

    Raises:
        GnabmError: An argument, a rule or the population is refused, with the cure.
    """
    check_steps(steps)
    check_record(model, record)
    shard, seen = cut(Population.of(population)), Seen(record)
    options = Options.of(
        gradient, steps=steps, seed=seed, dt=dt, start=start, messages=messages, changes=changes, infections=infections,
        checkpoint=checkpoint, horizon=gradient_horizon,
    )  # fmt: skip
    observed, run = tape_run(model, shard, options, parameters or {}, seen.look)
    schema = Schema.of(model, shard, observed=run.observed, dt=dt, start=start, record=record)
    return Trajectory(
        schema,
        shaped(schema, observed, steps),
        seen.columns(shard.num_owned),
        run.agents,
        seen.initial or {},
        num_steps=steps,
        infections=None if run.tracer is None else as_frame(in_order([run.tracer.take(steps)]), run.tracer.legend),
    )


class Seen:
    """What a run showed on its way: its first counts, and recorded fields at the end of each step.

    Args:
        record: State fields to keep.
    """

    def __init__(self, record: Sequence[str]) -> None:
        self.fields: dict[str, list[np.ndarray]] = {name: [] for name in record}
        self.initial: dict[str, object] | None = None

    def look(self, run: Simulation) -> None:
        """Look at the initial state, then at the end of each step."""
        if self.initial is None:
            self.initial = initial_counts({n: v.detach() for n, v in run.observed.items()})
            return
        for name, kept in self.fields.items():
            kept.append(as_numpy(run.agents.columns[name]).copy())

    def columns(self, num_agents: int) -> dict[str, np.ndarray]:
        """(steps, num_agents) of each recorded field."""
        return {n: np.stack(v) if v else np.empty((0, num_agents), np.uint8) for n, v in self.fields.items()}


def shaped(schema: Schema, observed: Mapping[str, Tensor], steps: int) -> dict[str, Tensor]:
    """Observables as a trajectory has them, also of a run without steps."""
    return {n: v if steps else torch.zeros(schema.shape(n), dtype=v.dtype) for n, v in observed.items()}


def as_numpy(column: Column) -> np.ndarray:
    """A column as it is recorded: codes for stages."""
    tensor = column.codes if isinstance(column, Stage) else column
    return tensor.detach().numpy()  # a record is data


def check_steps(steps: int) -> None:
    """Refuse a number of steps that is none."""
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)):
        raise KindError(f"steps must be an integer, got {steps!r}")
    if steps < 0:
        raise DataError(f"steps must be >= 0, got {steps}")


def check_record(model: Model, record: Sequence[str]) -> None:
    """Refuse fields to record that the model has not."""
    if isinstance(record, str):
        raise KindError(f"record must be a list of field names, got the string {record!r}; write [{record!r}]")
    for name in record:
        if name not in model.state:
            raise UnknownFieldError(
                f"cannot record {name!r}: no state field of {model.name}; {nearest(name, model.state)}"
            )
