"""Forward mode: how all observables of a run move with a few parameters, in memory that does not grow with steps.

A run is made with dual numbers: each parameter, log-weight and float column has a value and a tangent, and both go
through the same loop. So the derivative in one direction costs a run, and nothing is kept of past steps. Reverse mode
(`simulate(..., gradient=...)` and `backward`) is for many parameters and few outcomes; forward mode for few parameters
and many outcomes, or for runs too long to be walked back.

Reference: Griewank and Walther (2008), Evaluating Derivatives, SIAM, chapter 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import cast

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from gnabm.binding import learnable, standing_for
from gnabm.contacts import Contacts
from gnabm.errors import ConfigError
from gnabm.exchange import total
from gnabm.model import Model
from gnabm.parameters import Parameters
from gnabm.population import Population
from gnabm.sampling import Estimator, Score, estimator
from gnabm.shard import cut
from gnabm.simulate import check_steps
from gnabm.simulation import Simulation


def jacobian(
    model: Model,
    population: Population | Contacts,
    parameters: Sequence[str],
    *,
    steps: int,
    seed: int,
    gradient: str | Estimator = "local-score",
    dt: float = 1.0,
    start: date | None = None,
) -> dict[str, Tensor]:
    r"""Derivatives of all observables in some parameters, :math:`\partial y_t / \partial \theta_p`, by forward mode.

    Args:
        model: The model.
        population: Agents and contacts.
        parameters: Names of parameters, `RULE.ATTRIBUTE`; each entry of a parameter is one direction.
        steps: Number of steps.
        seed: Seed of all draws.
        gradient: Estimator of the draws.
        dt: Length of a step in days.
        start: Date of the first step, or None.

    Returns:
        By observable (steps, ..., P) float64 with P the number of entries of the parameters, in the order given.
        Takes P runs, one after the other, and the memory of one.

    Raises:
        UnknownFieldError: The model has no such parameter.
        ConfigError: No parameter was named.
    """
    known, method = Parameters.of(model), estimator(gradient)
    if isinstance(parameters, str) or not parameters:
        raise ConfigError(f"parameters must be a list of names such as {known.names[:2]}, got {parameters!r}")
    chosen = [cast(nn.Parameter, known[name].value) for name in parameters]
    check_steps(steps)
    shard = cut(Population.of(population))

    def along(parameter: nn.Parameter, entry: int) -> dict[str, Tensor]:
        others = [p for p in learnable(model) if p is not parameter]
        direction = torch.zeros_like(parameter)
        direction.view(-1)[entry] = 1
        with forward_ad.dual_level():
            moved = forward_ad.make_dual(parameter.detach(), direction)  # type: ignore[no-untyped-call]
            values = [p.detach() for p in others]  # tangents take the place of a graph
            with standing_for([model], [parameter, *others], [moved, *values]):
                return _tangents(Simulation(model, shard, seed=seed, dt=dt, start=start, gradient=method), steps)

    columns = [along(parameter, entry) for parameter in chosen for entry in range(parameter.numel())]
    return {name: torch.stack([column[name] for column in columns], -1) for name in columns[0]}


def _tangents(run: Simulation, steps: int) -> dict[str, Tensor]:
    """Tangents of all observables of a run of dual numbers: by name (steps, ...) float64."""
    names = list(run.observed)
    shapes = {name: (steps, *run.observed[name].shape) for name in names}
    score = run.estimator if isinstance(run.estimator, Score) else None
    if score is not None:
        score.check(shapes)
    values, found = ({n: torch.zeros(shapes[n], dtype=torch.float64) for n in names} for _ in range(2))
    whole = torch.zeros(steps, dtype=torch.float64)
    for step in range(steps):
        for name, value in run.advance().items():
            values[name][step], found[name][step] = value.detach(), _tangent(value)
        if score is not None:
            assert run.log_weight is not None
            whole[step] = _tangent(total(run.shard.group, run.log_weight))
    if score is None:
        return found
    for name in names:
        by_step = whole.reshape(-1, *(1,) * (values[name].dim() - 1))
        found[name] += score.residual(name, values[name]) * by_step
    return found


def _tangent(x: Tensor) -> Tensor:
    """The tangent of a tensor in float64, 0 where it has none."""
    found = forward_ad.unpack_dual(x).tangent  # type: ignore[no-untyped-call]
    return torch.zeros_like(x, dtype=torch.float64) if found is None else found.to(torch.float64)
