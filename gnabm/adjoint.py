"""The reverse pass: a run that can be walked backwards, a step at a time.

A `Tape` makes the run forwards and keeps either the graph of every step, or the state of every k-th step. Backwards it
takes one step after the other, made again where its graph was not kept, so the memory of the reverse pass is one step
and a few states; what a parameter gets in each step is added up in float64. Both ways do the same arithmetic in the
same order, so they give the same bits.

Reference: Griewank and Walther (2000), ACM Trans. Math. Softw. 26(1), 19-45 (checkpoints).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import torch
from torch import Tensor

from gnabm.binding import Bound
from gnabm.errors import ConfigError, DataError
from gnabm.exchange import total
from gnabm.linear import gradients
from gnabm.model import Model
from gnabm.neighbours import Form
from gnabm.periods import Period
from gnabm.sampling import Estimator, Score, estimator
from gnabm.shard import Shard
from gnabm.simulation import Frame, Simulation, precision

Carried = dict[str, Tensor]
"""What carries gradient from one step to the next, by name."""
_WHOLE = "likelihood"
"""Name of the likelihood of a whole run among what a step hands on."""


@dataclass(frozen=True, eq=False)
class Options:
    """What a differentiable run is asked for, besides model and shard.

    Args:
        steps: Number of steps.
        seed: Seed of all draws.
        estimator: Gradient of the draws, or None for a forward run, which can only be made.
        dt: Days per step.
        start: Date of step 0, or None.
        messages: Form of the kernels.
        changes: From which steps on another model and seed hold.
        infections: Note who infected whom, in a forward run.
        checkpoint: Keep the state every so many steps and make the steps again; None keeps the graph of each.
        horizon: Cut the gradient of the state every so many steps, or None.
    """

    steps: int
    seed: int
    estimator: Estimator | None
    dt: float = 1.0
    start: date | None = None
    messages: Form = "auto"
    changes: Sequence[Period] = ()
    infections: bool = False
    checkpoint: int | None = None
    horizon: int | None = None

    @staticmethod
    def of(gradient: str | Estimator | None, **given: Any) -> Options:  # noqa: ANN401
        """The options, with an estimator by name.

        Raises:
            ConfigError: A forward run is asked for what only a differentiable one has, or the other way round.
            DataError: A number of steps between checkpoints or cuts is not positive.
        """
        if gradient is not None and given.get("infections"):
            raise ConfigError(
                "a differentiable run records no infections: an infection that happened has no gradient in who made "
                "it; leave gradient out, or infections"
            )
        for name in ("checkpoint", "horizon"):
            value, label = given.get(name), "gradient_horizon" if name == "horizon" else name
            if name == "horizon" and value is not None and gradient is None:
                raise ConfigError(f"{label} is for a differentiable run; pass gradient='local-score', or leave it out")
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise DataError(f"{label} must be a number of steps >= 1 or None, got {value!r}")
        if gradient is None:
            return Options(estimator=None, **{**given, "checkpoint": None})  # there is nothing to walk back
        return Options(estimator=estimator(gradient), **given)


Look = Callable[[Simulation], None]


@dataclass(eq=False)
class _Link:
    """One step of the run: what it took over, what it handed on."""

    taken: Carried
    left: Carried


class Tape:
    """A differentiable run of one shard: forwards once, then backwards as often as asked.

    Every shard of a group makes the same calls. While they run, the leaves stand for the model's parameters
    (`standing_for`), which the caller sees to, since shards in one process share the model.

    Args:
        model: The model.
        shard: The shard.
        leaves: Tensors that stand for the parameters, each a leaf that asks for a gradient.
        options: What is asked for.
    """

    def __init__(self, model: Model, shard: Shard, leaves: Sequence[Tensor], options: Options) -> None:
        self.model, self.shard, self.leaves, self.options = model, shard, list(leaves), options
        self.links: list[_Link] = []
        self.frames: dict[int, Frame] = {}
        self.residuals: dict[str, Tensor] = {}
        self.last: Simulation
        self._replays: dict[bool, Simulation] = {}
        method = options.estimator
        self.traced = method is not None and method.local and not method.flags
        # Hard draws have the bits of a forward run in float32, so its kernels make the states between checkpoints.
        self.swift = method is None or precision(model) == torch.float32

    def _simulation(self, differentiable: bool, begin: bool = True, graph: bool = True) -> Simulation:
        given = self.options
        return Simulation(
            self.model, self.shard, seed=given.seed, dt=given.dt, start=given.start, messages=given.messages,
            gradient=given.estimator if differentiable else None, changes=given.changes, infections=given.infections,
            begin=begin, graph=graph, lineage=self.traced,
        )  # fmt: skip

    def _replay(self, frame: Frame, graph: bool) -> Simulation:
        """A run at the start of a step, which is made again; one serves for all steps."""
        if graph not in self._replays:
            self._replays[graph] = self._simulation(graph or not self.swift, begin=False, graph=graph)
        run = self._replays[graph]
        run.restore(frame)
        return run

    def forward(self, look: Look) -> dict[str, Tensor]:
        """Make the run.

        Args:
            look: Called at the start and after every step.

        Returns:
            Observables by name, (steps, ...), without a graph; float64 in a differentiable run.
        """
        given = self.options
        keep = given.estimator is not None and given.checkpoint is None
        with torch.set_grad_enabled(keep):
            run = self._simulation(differentiable=keep or not self.swift, graph=keep)
            if isinstance(given.estimator, Score):
                given.estimator.check({n: (given.steps, *v.shape) for n, v in run.observed.items()})
            look(run)
            self.links = [_Link({}, self._left(run))] if keep else []
            seen: dict[str, list[Tensor]] = {name: [] for name in run.observed}
            for step in range(given.steps):
                if keep:
                    taken = run.take_over()
                elif given.checkpoint is not None and step % given.checkpoint == 0:
                    self.frames[step] = run.frame()
                observed = run.advance()
                if keep:
                    self.links.append(_Link(taken, self._left(run)))
                for name, value in observed.items():
                    seen[name].append(value.detach())  # the tape has its graph
                look(run)
        self.last = run
        shown = {
            n: torch.stack(v) if v else run.observed[n].new_zeros(0, *run.observed[n].shape) for n, v in seen.items()
        }
        if given.estimator is None:
            return shown
        observed = {name: value.to(torch.float64) for name, value in shown.items()}
        if isinstance(given.estimator, Score):
            self.residuals = {name: given.estimator.residual(name, value) for name, value in observed.items()}
        return observed

    def backward(self, cotangents: Mapping[str, Tensor], batched: bool = False) -> list[Tensor]:
        """Gradient of the sum of observables times cotangents, in the leaves.

        Args:
            cotangents: By observable, of its shape (steps, ...); those absent count as 0. Of several shards rank 0
                alone has them; the others have zeros.
            batched: Whether the cotangents have a first dim of several outcomes, walked back together.

        Returns:
            For each leaf its gradient on this shard, float64, (batch, ...) when batched; to be added up over shards.
        """
        size = (next(iter(cotangents.values())).shape[0],) if batched else ()
        found = [torch.zeros((*size, *leaf.shape), dtype=torch.float64) for leaf in self.leaves]
        adjoint: Carried = {}
        for step in range(self.options.steps, -1, -1):
            if step:
                for name, cotangent in cotangents.items():
                    key = f"observed:{name}"
                    new = cotangent.select(len(size), step - 1)
                    adjoint[key] = adjoint[key] + new if key in adjoint else new
                    if self.residuals:
                        score = (new * self.residuals[name][step - 1]).reshape(*size, -1).sum(-1)
                        adjoint[_WHOLE] = adjoint[_WHOLE] + score if _WHOLE in adjoint else score
            adjoint = self._back(self._link(step), adjoint, found, batched)
            if step > 1 and self.options.horizon is not None and (step - 1) % self.options.horizon == 0:
                adjoint = {}  # the initial state belongs to the first steps
        return found

    def _left(self, run: Simulation) -> Carried:
        """What a step hands on, and the likelihood of all draws so far where that weighs the whole run."""
        left = run.carried()
        if isinstance(self.options.estimator, Score):
            assert run.log_weight is not None
            left[_WHOLE] = total(self.shard.group, run.log_weight)
        return left

    def _back(self, link: _Link, adjoint: Carried, found: list[Tensor], batched: bool) -> Carried:
        """Add to what the leaves get, and return the adjoint of what the step took over."""
        pairs = [(link.left[n], a.to(link.left[n].dtype)) for n, a in adjoint.items() if link.left[n].requires_grad]
        if not pairs:
            return {}
        outputs, grads = zip(*pairs, strict=True)
        names, inputs = list(link.taken), [*link.taken.values(), *self.leaves]
        got = gradients(outputs, inputs, grads, batched=batched, retain_graph=self.options.checkpoint is None)
        for leaf, part in zip(found, got[len(names) :], strict=True):
            if part is not None:
                leaf += part.to(torch.float64)
        return {n: g for n, g in zip(names, got, strict=False) if g is not None}

    def _link(self, step: int) -> _Link:
        """The step that ends with observation `step`, with its graph; 0 stands for the initial state."""
        if self.options.checkpoint is None:
            return self.links[step]
        with torch.enable_grad():
            if step == 0:
                return _Link({}, self._left(self._simulation(differentiable=True)))
            run = self._replay(self._frame(step - 1), graph=True)
            taken = run.take_over()
            run.advance()
            return _Link(taken, self._left(run))

    def _frame(self, step: int) -> Frame:
        """The state at the start of a step, with those between two checkpoints made again when the first is asked."""
        assert self.options.checkpoint is not None
        if step not in self.frames:
            first = step - step % self.options.checkpoint
            with torch.no_grad():
                run = self._replay(self.frames[first], graph=False)
                for number in range(first + 1, step + 1):
                    run.advance()
                    self.frames[number] = run.frame()
        frame = self.frames[step]
        if step % self.options.checkpoint:
            del self.frames[step]
        return frame


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        tape: Tape,
        bound: Bound,
        look: Look,
        names: list[str],
        *values: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.tape, ctx.bound, ctx.names, ctx.dtypes = tape, bound, names, [v.dtype for v in values]
        with bound.standing():
            observed = tape.forward(look)
        return tuple(observed[name] for name in names)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:  # noqa: ANN401
        with ctx.bound.standing():
            found = ctx.tape.backward(dict(zip(ctx.names, grads, strict=True)))
        return (None, None, None, None, *(g.to(d) for g, d in zip(found, ctx.dtypes, strict=True)))


def tape_run(
    model: Model, shard: Shard, options: Options, values: Mapping[str, Tensor], look: Look
) -> tuple[dict[str, Tensor], Simulation]:
    """Make a run; if it is differentiable its observables carry a graph to the parameters: one node of autograd.

    Args:
        model: The model.
        shard: A shard that is alone.
        options: What is asked for.
        values: Tensors that stand for parameters of the model, by name; the others are its own.
        look: Called at the start and after every step.

    Returns:
        Observables by name, and the run at its end.
    """
    bound = Bound.of(model, options.changes, values)
    tape = Tape(model, shard, bound.leaves, options)
    names = [o.name for o in model.observe]
    if names and bound.inputs and options.estimator is not None:
        outputs = _Run.apply(tape, bound, look, names, *bound.inputs)  # type: ignore[no-untyped-call]
        observed = dict(zip(names, outputs, strict=True))
    else:
        with bound.standing():
            observed = tape.forward(look)
    return observed, tape.last


def pull_back(observed: Tensor, cotangents: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of several sums of an observable, walked back together: the run is made again once, not for each sum.

    Args:
        observed: (steps, ...) observable of a differentiable run, as the run returned it.
        cotangents: (num_sums, steps, ...) what each sum takes of it.
        inputs: Parameters, or tensors that the run was given for them.

    Returns:
        (num_sums, *shape) float64 for each of the inputs.

    Raises:
        DataError: The tensor is no observable of a differentiable run, or the run has none of the inputs.
    """
    node: Any = observed.grad_fn
    if not isinstance(getattr(node, "tape", None), Tape):
        raise DataError("expected an observable of a differentiable run; pass gradient='local-score' to simulate")
    places = [[at for at, own in enumerate(node.bound.given) if own is tensor] for tensor in inputs]
    if not all(places):
        raise DataError("the run was not given these tensors; pass the same ones as parameters= to simulate")
    with node.bound.standing():
        found = node.tape.backward({node.names[observed.output_nr]: cotangents}, batched=True)
    return [torch.stack([found[at] for at in place]).sum(0) for place in places]
