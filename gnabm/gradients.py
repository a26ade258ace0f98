"""How good the gradients of a model are: each estimator beside finite differences of the same draws.

A differentiable run of a model with draws gives an estimate of the derivative of an expectation. It has a variance,
which runs of several seeds show, and may have a bias, which central differences show: two plain runs of the same seed,
with the parameter a little above and below, share their draws wherever they can (common random numbers), so their
difference is far less noisy than either. `compare` sets both side by side.

References: Glasserman and Yao (1992), Management Science 38(6), 884-908 (common random numbers); L'Ecuyer (1990),
Management Science 36(11), 1364-1383 (estimators of derivatives).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import torch
from torch import Tensor

from gnabm.contacts import Contacts
from gnabm.errors import ConfigError, DataError
from gnabm.memory import added_peak
from gnabm.model import Model
from gnabm.outcome import Outcome, outcomes
from gnabm.parameters import Parameters
from gnabm.periods import Period
from gnabm.population import Population
from gnabm.sampling import ESTIMATORS, Estimator, Score, estimator
from gnabm.simulate import simulate

_LEAST = 2
"""Seeds that a standard error needs."""


@dataclass(frozen=True)
class Row:
    """One estimator of the derivative of one outcome in one parameter.

    Args:
        parameter: Its name. A vector is moved as a whole, in proportion to its values: the derivative is by their mean.
        estimator: Its name.
        observable: Name of the outcome.
        mean: Mean over seeds of the gradient; None where it is exactly 0 in every seed, which is no answer: either
            nothing of the parameter reaches the outcome, or the chain is broken on the way (`gnabm.audit`).
        se: Standard error of the mean; None without a mean.
        fd: Mean over seeds of the finite difference.
        fd_se: Its standard error.
        bias_percent: 100 (mean - fd) / |fd|; None without a mean, and where fd is 0.
        bias_se: Standard error of `bias_percent`, seeds paired; None where that is.
        variance: Variance of the gradient of one seed; None without a mean.
        seeds: Number of seeds.
        seconds: Of one run and one backward pass.
        bytes: Most memory that these took; None where the system does not tell.
    """

    parameter: str
    estimator: str
    observable: str
    mean: float | None
    se: float | None
    fd: float
    fd_se: float
    bias_percent: float | None
    bias_se: float | None
    variance: float | None
    seeds: int
    seconds: float
    bytes: int | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which has neither NaN nor infinity."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True, eq=False)
class _Move:
    """A parameter, or one number of it, and how far it is moved up and down.

    Args:
        name: Name of the parameter or number.
        tensor: Name of the tensor.
        direction: Of the tensor's shape; change of the tensor when the number changes by 1.
        up: The tensor above.
        down: The tensor below.
        distance: Between the two, in the number.
    """

    name: str
    tensor: str
    direction: Tensor
    up: dict[str, Tensor]
    down: dict[str, Tensor]
    distance: float

    @staticmethod
    def of(parameters: Parameters, name: str, width: float) -> _Move | None:
        """The move; None where the value is 0, or its bounds keep it: it has no relative width."""
        entry = parameters[name.partition("[")[0]]
        value = entry.value.detach().to(torch.float64)  # where the derivative is taken
        parts = value.reshape(-1)
        chosen = torch.ones_like(parts)
        if name != entry.name:
            chosen = torch.tensor([float(element == name) for element in entry.element_names()], dtype=torch.float64)
        moved = parts * chosen
        mean = float(moved.sum() / chosen.sum())
        if mean == 0:
            return None
        # A bound on one side leaves a one-sided difference.
        told = entry.input
        more = [(told.high if v > 0 else told.low) / v for v in moved.tolist() if v]
        less = [(told.low if v > 0 else told.high) / v for v in moved.tolist() if v]
        most, least = min(1 + width, *more), max(1 - width, *less)
        if not most > least:
            return None

        def times(factor: float) -> dict[str, Tensor]:
            new = (parts + moved * (factor - 1)).reshape(value.shape).to(entry.value.dtype)
            return {entry.name: new.clamp(told.low, told.high)}  # float32 may round out of them

        direction = (moved / mean).reshape(value.shape)
        return _Move(name, entry.name, direction, times(most), times(least), (most - least) * mean)


class _Runs:
    """Runs of one model on one population, in seconds and bytes."""

    def __init__(self, model: Model, population: Population, **options: Any) -> None:  # noqa: ANN401
        self.model, self.population, self.options = model, population, options

    def plain(self, seed: int, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Observables of a plain run."""
        run = simulate(self.model, self.population, seed=seed, parameters=parameters, **self.options)
        return {name: value.to(torch.float64) for name, value in run.observed.items()}

    def gradients(
        self, seed: int, kind: Estimator, moves: Sequence[_Move], wanted: Sequence[Outcome]
    ) -> tuple[Tensor, float, int | None]:
        """(num_moves, num_outcomes) derivatives, seconds of a run and one backward pass, bytes of all of it."""
        known = Parameters.of(self.model)
        names = list(dict.fromkeys(move.tensor for move in moves))
        leaves = {name: known[name].value.detach().clone().requires_grad_() for name in names}  # of this run alone

        def work() -> tuple[list[dict[str, Tensor]], float]:
            began = time.perf_counter()
            run = simulate(self.model, self.population, seed=seed, parameters=leaves, gradient=kind, **self.options)
            forward, began, found = time.perf_counter() - began, time.perf_counter(), []
            for outcome in wanted:
                value = outcome(run.observed)
                got: Sequence[Tensor | None] = [None] * len(leaves)
                if value.requires_grad:
                    got = torch.autograd.grad(value, list(leaves.values()), retain_graph=True, allow_unused=True)
                found.append({n: torch.zeros(()) if g is None else g for n, g in zip(leaves, got, strict=True)})
            return found, forward + (time.perf_counter() - began) / max(len(wanted), 1)

        (found, seconds), most = added_peak(work)
        table = [[float((each[move.tensor] * move.direction).sum()) for each in found] for move in moves]
        return torch.tensor(table, dtype=torch.float64), seconds, most


def compare(
    model: Model,
    population: Population | Contacts,
    *,
    steps: int,
    seeds: Sequence[int],
    parameters: Sequence[str] = ("*",),
    estimators: Sequence[str | Estimator] = ("local-score",),
    observables: Sequence[str] | None = None,
    width: float = 0.1,
    budget: float = math.inf,
    dt: float = 1.0,
    start: date | None = None,
    changes: Sequence[Period] = (),
    checkpoint: int | None = 10,
    gradient_horizon: int | None = None,
) -> list[Row]:
    """Set gradients beside finite differences with common random numbers.

    Args:
        model: The model.
        population: Agents and contacts.
        steps: Number of steps.
        seeds: Seeds of the runs, two or more.
        parameters: Patterns of names (`Infect.*`), or numbers of vectors (`Infect.susceptibility[3]`). Those whose
            value is 0 are left out, and vectors that bounds on both sides keep.
        estimators: Names or estimators. The baseline of `score` is the mean of the runs of other seeds.
        observables: Names of observables or outcomes (`stage_count.recovered`); None for all.
        width: Half the width of a difference, as a share of the value.
        budget: Seconds after which no other seed is begun once there are two; half of it is for the differences.
        dt: Days per step.
        start: Date of step 0, or None.
        changes: From which steps on another model and seed hold.
        checkpoint: Keep the state of a differentiable run every so many steps; None keeps the graph of all.
        gradient_horizon: Cut the gradient of the state every so many steps, or None.

    Returns:
        A row for each parameter, estimator and outcome.

    Raises:
        GnabmError: A name is unknown, there are fewer than two seeds, or what `simulate` refuses.
    """
    _check(steps, seeds, width)
    people, moves, kinds = Population.of(population), _moves(model, parameters, width), _kinds(estimators)
    wanted = outcomes(model, None if observables is None else tuple(observables))
    common = {"steps": steps, "dt": dt, "start": start, "changes": changes}
    plain = _Runs(model, people, **common)
    began = time.perf_counter()
    means: list[dict[str, Tensor]] = []
    differences: list[Tensor] = []
    for seed in seeds:
        if len(differences) >= _LEAST and time.perf_counter() - began > budget / 2:
            break
        difference, mean = _difference(plain, seed, moves, wanted)
        differences.append(difference)
        means.append(mean)
    runs = _Runs(model, people, checkpoint=checkpoint, gradient_horizon=gradient_horizon, **common)
    found: dict[str, list[tuple[Tensor, float, int | None]]] = {name: [] for name in kinds}
    for number in range(len(differences)):
        if number >= _LEAST and time.perf_counter() - began > budget:
            break
        for name, kind in kinds.items():
            used = Score(_others(means, number)) if isinstance(kind, Score) and not kind.baseline else kind
            found[name].append(runs.gradients(seeds[number], used, moves, wanted))
    return _rows(moves, wanted, found, torch.stack(differences))


def _check(steps: int, seeds: Sequence[int], width: float) -> None:
    if steps < 1:
        raise DataError(f"a gradient needs a step at least, got steps={steps}; give steps=30")
    if len(seeds) < _LEAST or len(set(seeds)) < len(seeds):
        raise DataError(f"a standard error needs two or more different seeds, got {list(seeds)}; give seeds=[1, 2, 3]")
    if not 0 < width < 1:
        raise DataError(f"width must be a share of the value between 0 and 1, got {width}; 0.1 is usual")


def _kinds(given: Sequence[str | Estimator]) -> dict[str, Estimator]:
    """Estimators by name."""
    found: dict[str, Estimator] = {}
    for kind in given:
        name = label(kind)
        if name in found:
            raise DataError(f"two estimators are called {name}; give each once, or compare them in two calls")
        found[name] = estimator(kind)
    return found


def _moves(model: Model, names: Sequence[str], width: float) -> list[_Move]:
    """What is moved, in the order of the names, each once."""
    known = Parameters.of(model)
    chosen: dict[str, None] = {}
    for name in names:
        plain = name.partition("[")[0]
        whole = plain in known.names and name != plain
        chosen |= dict.fromkeys(
            [name] if whole else [e.name for e in known.select(name) if e.value.is_floating_point()]
        )
    moves = [move for name in chosen if (move := _Move.of(known, name, width)) is not None]
    if not moves:
        raise ConfigError(
            f"no parameter of {model.name} among {list(names)} has a value other than 0 that its bounds let move; "
            "compare at other values"
        )
    return moves


def label(kind: str | Estimator) -> str:
    """Name of an estimator as tables show it.

    Args:
        kind: A name, or an estimator.

    Raises:
        ConfigError: The name is unknown.

    Example:
        >>> label("gumbel"), label("local-score")
        ('gumbel(0.5)', 'local-score')
    """
    made = estimator(kind)
    name = next((name for name in ESTIMATORS if type(estimator(name)) is type(made)), type(made).__name__)
    temperature = getattr(made, "temperature", None)
    return name if temperature is None else f"{name}({temperature:g})"


def _difference(
    runs: _Runs, seed: int, moves: Sequence[_Move], wanted: Sequence[Outcome]
) -> tuple[Tensor, dict[str, Tensor]]:
    """(num_moves, num_outcomes) differences of a seed, and the mean of its runs by observable."""
    rows: list[Tensor] = []
    mean: dict[str, Tensor] = {}
    for move in moves:
        up, down = runs.plain(seed, move.up), runs.plain(seed, move.down)
        rows.append(torch.stack([(outcome(up) - outcome(down)) / move.distance for outcome in wanted]))
        for name, value in up.items():
            part = (value + down[name]) / (2 * len(moves))
            mean[name] = mean[name] + part if name in mean else part
    return torch.stack(rows), mean


def _others(means: Sequence[Mapping[str, Tensor]], number: int) -> dict[str, Tensor | float]:
    """The mean of all runs of the other seeds, by observable."""
    others = [mean for at, mean in enumerate(means) if at != number]
    return {name: torch.stack([mean[name] for mean in others]).mean(0) for name in others[0]}


def _rows(
    moves: Sequence[_Move],
    wanted: Sequence[Outcome],
    found: Mapping[str, Sequence[tuple[Tensor, float, int | None]]],
    differences: Tensor,
) -> list[Row]:
    rows = []
    for i, move in enumerate(moves):
        for j, outcome in enumerate(wanted):
            for name, runs in found.items():
                g, fd = torch.stack([g[i, j] for g, _, _ in runs]), differences[:, i, j]
                known = bool(g.any())
                mean, se, variance = (float(g.mean()), _se(g), float(g.var())) if known else (None, None, None)
                bias, bias_se = _bias(g, fd) if known else (None, None)
                figures = mean, se, float(fd.mean()), _se(fd), bias, bias_se, variance
                seconds = sum(s for _, s, _ in runs) / len(runs)
                most = max((b for _, _, b in runs if b is not None), default=None)
                rows.append(Row(move.name, name, outcome.name, *figures, len(runs), seconds, most))
    return rows


def _se(values: Tensor) -> float:
    return float(values.std() / math.sqrt(values.shape[0]))


def _bias(gradient: Tensor, difference: Tensor) -> tuple[float | None, float | None]:
    """Bias in per cent and its standard error, as a ratio of two means over paired seeds (delta method)."""
    fd = float(difference.mean())
    if fd == 0:
        return None, None
    paired = difference[: gradient.shape[0]]
    ratio = float(gradient.mean()) / fd
    se = _se(gradient - ratio * paired) / abs(fd)
    return 100 * (float(gradient.mean()) - fd) / abs(fd), 100 * se
