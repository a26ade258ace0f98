"""Sensitivity from one run and one backward pass: outcome groups x parameters at once.

A campaign of finite differences makes two runs for each parameter and seed. Here a differentiable run is made once for
each seed, and the backward pass of every outcome group gives its derivative in all parameters.

Reference: Quera-Bofarull et al. (2023), Don't simulate twice: one-shot sensitivity analyses via automatic
differentiation, AAMAS 2023.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gnabm.adjoint import pull_back
from gnabm.contacts import Contacts
from gnabm.errors import ConfigError, DataError
from gnabm.gradients import label
from gnabm.population import Population
from gnabm.sampling import Estimator, Score, estimator
from gnabm.sensitivity.elements import Elements
from gnabm.sensitivity.question import Question, Variant

TOGETHER = 40_000_000
"""Most groups x agents that are walked back together, at about 47 bytes for each."""


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Derivatives of outcomes in parameters, of each seed; where they come from is `method`.

    Args:
        parameters: (num_parameters,) name of each, elements of vectors apart (`Infect.susceptibility[3]`).
        values: (num_parameters,) float64, where the derivatives hold.
        groups: (num_groups,) names of the outcomes.
        outcomes: (num_seeds, num_groups) float64, the outcomes.
        gradients: (num_seeds, num_groups, num_parameters) float64, d outcome / d parameter; NaN of a parameter that no
            gradient reached.
        seconds: Wall-clock seconds of all of it.
        method: The estimator, or `differences`.
    """

    parameters: tuple[str, ...]
    values: Tensor
    groups: tuple[str, ...]
    outcomes: Tensor
    gradients: Tensor
    seconds: float
    method: str

    @property
    def absolute(self) -> Tensor:
        """(num_groups, num_parameters) mean over seeds of d outcome / d parameter."""
        return self.gradients.mean(0)

    @property
    def absolute_se(self) -> Tensor:
        """Standard error of `absolute`; NaN for a single seed."""
        return _standard_error(self.gradients)

    @property
    def elasticity(self) -> Tensor:
        """(num_groups, num_parameters) d log(mean outcome) / d log(parameter); NaN where an outcome is 0 in all seeds.

        The mean derivative over the mean outcome, not the mean of their ratio, which seeds with few cases would rule.
        """
        return self.absolute * self.values / self._mean().unsqueeze(1)

    @property
    def se(self) -> Tensor:
        """Standard error of `elasticity` as a ratio of two means (delta method); NaN for a single seed."""
        scaled = self.gradients * self.values
        residual = scaled - self.elasticity * self.outcomes.unsqueeze(2)
        return _standard_error(residual) / self._mean().abs().unsqueeze(1)

    @property
    def unreached(self) -> tuple[str, ...]:
        """Parameters without derivatives: nothing happened that they have a part in, or a rule breaks the chain."""
        lost = self.gradients.isnan().all(0).all(0).tolist()
        return tuple(name for name, gone in zip(self.parameters, lost, strict=True) if gone)

    def _mean(self) -> Tensor:
        mean = self.outcomes.mean(0)
        return torch.where(mean == 0, torch.nan, mean)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists for JSON; what is not known is None."""
        return {
            "method": self.method,
            "seeds": int(self.outcomes.shape[0]),
            "seconds": self.seconds,
            "parameters": list(self.parameters),
            "values": self.values.tolist(),
            "groups": list(self.groups),
            "outcome": self.outcomes.mean(0).tolist(),
            "elasticity": listed(self.elasticity),
            "se": listed(self.se),
            "absolute": listed(self.absolute),
            "absolute_se": listed(self.absolute_se),
            "unreached": list(self.unreached),
        }


def _standard_error(values: Tensor) -> Tensor:
    """Standard error of the mean over the first dim."""
    seeds = values.shape[0]
    return values.std(0) / math.sqrt(seeds) if seeds > 1 else torch.full_like(values[0], torch.nan)


def listed(table: Tensor) -> list[list[float | None]]:
    """A table for JSON, which has no NaN."""
    return [[None if math.isnan(value) else value for value in row] for row in table.tolist()]


def sensitivity(
    question: Question,
    population: Population | Contacts,
    *,
    seeds: Sequence[int],
    parameters: Sequence[str] = ("*",),
    gradient: str | Estimator = "local-score",
    checkpoint: int | None = 10,
    horizon: int | None = None,
) -> Sensitivity:
    """How outcomes change with parameters: one differentiable run for each seed, all groups walked back together.

    Args:
        question: Model, steps and outcomes.
        population: Agents and contacts.
        seeds: Seeds of the runs; errors need two or more.
        parameters: Patterns of names (`Infect.*`); those that are differentiable are taken.
        gradient: The estimator; its bias is that of the result. Not `score`, which needs runs of other seeds for its
            control variate.
        checkpoint: Keep the state every so many steps; None keeps the graph of all.
        horizon: Cut the gradient of the state every so many steps, or None.

    Returns:
        The sensitivity. A derivative that is exactly 0 in all groups and seeds is NaN, for it is no answer
        (`Sensitivity.unreached`); `gnabm.audit` says why.

    Raises:
        GnabmError: A name is unknown, or what `simulate` refuses.

    Example:
        >>> from gnabm import Contacts
        >>> from gnabm.models.epidemic import sir
        >>> ring = Contacts.from_edges([0, 1, 2, 3], [1, 2, 3, 0], num_agents=4, undirected=True)
        >>> asked = Question(sir(0.5, 0.1, initial_infected=[0]), steps=5, groups=["all"])
        >>> found = sensitivity(asked, ring, seeds=range(20), parameters=["Infect.*", "Recover.*"])
        >>> found.parameters, found.groups, bool(found.elasticity[0, 0] > 0)
        (('Infect.transmission_rate', 'Recover.rate'), ('all',), True)
    """
    began, elements = time.perf_counter(), Elements.of(question.model, parameters, differentiable=True)
    if not seeds:
        raise DataError("a sensitivity needs a seed at least; give seeds=[1, 2, 3]")
    kind = estimator(gradient)
    if isinstance(kind, Score) and not kind.baseline:
        raise ConfigError(
            "the score function of a run alone has no control variate; use `gnabm gradients --estimators score`, which "
            "takes the mean of other seeds, or another estimator"
        )
    together = max(1, TOGETHER // population.num_agents)
    sums: list[Tensor] = []
    gradients: list[Tensor] = []
    for seed in seeds:
        leaves = elements.tensors()  # of this run: what the model holds gets no gradient
        made, outcomes = question.run(
            population, Variant(seed, leaves), gradient=gradient, checkpoint=checkpoint, gradient_horizon=horizon
        )
        sums.append(outcomes(made.observed))
        pulled = [
            pull_back(made.observed[question.outcome], part, list(leaves.values()))
            for part in torch.split(outcomes.cotangents(), together)
        ]
        gradients.append(elements.columns({n: torch.cat(g) for n, *g in zip(leaves, *pulled, strict=True)}))
    found = torch.stack(gradients)
    found[:, :, (found == 0).all(0).all(0)] = torch.nan
    return Sensitivity(
        elements.names, elements.values, outcomes.names, torch.stack(sums), found, time.perf_counter() - began,
        label(gradient),
    )  # fmt: skip
