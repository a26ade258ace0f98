"""What is asked of runs: a model, how long it runs, and which sums of its observables are the outcomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from torch import Tensor

from gnabm.contacts import Contacts
from gnabm.model import Model
from gnabm.periods import Period
from gnabm.population import Population
from gnabm.sensitivity.outcomes import Outcomes
from gnabm.simulate import simulate
from gnabm.trajectory import Trajectory


@dataclass(frozen=True, eq=False)
class Variant:
    """One run of a campaign.

    Args:
        seed: Seed of its draws.
        parameters: Tensors that stand for the model's own, by name.
    """

    seed: int
    parameters: Mapping[str, Tensor]


Campaign = Callable[[Sequence[Variant]], Sequence[Tensor]]
"""Makes many plain runs; returns the (num_groups,) outcomes of each. `cluster.campaign` makes them as Ray tasks."""


@dataclass(frozen=True, eq=False)
class Question:
    """Runs of a model and their outcomes.

    Args:
        model: The model.
        steps: Number of steps.
        outcome: Observable that is summed.
        groups: Groupings of the sums: dims of the observable, `week`, `day`, `all`, or several as `region:week`.
        window: First day and the day after the last; None for the whole run.
        dt: Length of a step in days.
        start: Date of the first step.
        changes: From which steps on another model and seed hold.
    """

    model: Model
    steps: int
    outcome: str = "incidence"
    groups: Sequence[str] = ("age_group", "region")
    window: tuple[float, float] | None = None
    dt: float = 1.0
    start: date | None = None
    changes: Sequence[Period] = ()

    def run(self, population: Population | Contacts, variant: Variant, **how: Any) -> tuple[Trajectory, Outcomes]:  # noqa: ANN401
        """Make one run.

        Args:
            population: Who it is run on.
            variant: Seed and parameters.
            how: `gradient`, `checkpoint` and `gradient_horizon` of a differentiable run.
        """
        made = simulate(
            self.model, population, steps=self.steps, seed=variant.seed, dt=self.dt, start=self.start,
            parameters=variant.parameters, changes=self.changes, **how,
        )  # fmt: skip
        return made, self._outcomes(made)

    def __call__(self, population: Population | Contacts, variant: Variant) -> Tensor:
        """(num_groups,) float64 outcomes of one plain run.

        Args:
            population: Who it is run on.
            variant: Seed and parameters.
        """
        made, outcomes = self.run(population, variant)
        return outcomes(made.observed)

    def names(self, population: Population | Contacts) -> tuple[str, ...]:
        """Names of the groups."""
        return self._outcomes(simulate(self.model, population, steps=0, seed=0, dt=self.dt, start=self.start)).names

    def _outcomes(self, made: Trajectory) -> Outcomes:
        return Outcomes.of(made.schema, self.steps, self.outcome, self.groups, self.window)


def in_process(question: Question, population: Population | Contacts) -> Campaign:
    """A campaign that makes one run after the other here.

    Args:
        question: The run.
        population: Who it is run on.
    """
    return lambda variants: [question(population, variant) for variant in variants]
