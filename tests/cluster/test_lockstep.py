from typing import ClassVar

import pytest
import torch

from cluster import lockstep
from gnabm import Model, Observable, Rule
from gnabm.agents import Stages
from gnabm.model import State

S, I = SI = Stages("S", "I")  # noqa: E741


class ByRow(Rule):
    """Moves the agents in every hundredth row: rows are no property of agents."""

    def forward(self, agents, contacts, step):
        row = torch.arange(len(agents)) if step.index == 3 else torch.zeros(len(agents))
        return {"stage": agents.stage.move(S, I, row % 1100 == 1099)}


class FloatSum(Rule):
    """Uses a sum of floats over the rows of the shard instead of step.total."""

    writes: ClassVar = {"share": "sole"}

    def forward(self, agents, contacts, step):
        return {"share": torch.full((len(agents),), float(agents.age.sum()))}


@pytest.mark.parametrize("shards", [(1, 3), (2, 7)])
def test_a_model_of_this_library_never_differs(population, model, shards):
    assert lockstep(model, population, steps=10, seed=3, shards=shards) is None


def test_differentiable_runs_do_not_differ_either(small_population, model):
    assert lockstep(model, small_population, steps=4, seed=3, gradient="straight-through") is None


def test_the_first_step_rule_field_and_agent_that_differ_are_named(population):
    found = lockstep(Model([ByRow()], state={"stage": SI}), population, steps=6, seed=1, shards=(1, 3))
    assert (found.step, found.rule, found.field) == (3, "ByRow", "stage")
    assert found.key == int(population.columns["key"][1099])
    assert found.values == ("I", "S")
    assert f"agent {found.key}" in str(found) and "on 1 shards and S on 3" in str(found)


def test_a_sum_over_the_rows_of_a_shard_is_found(population):
    model = Model([FloatSum()], state={"share": State(0.0)}, observe=[])
    found = lockstep(model, population, steps=2, seed=1)
    assert (found.step, found.rule, found.field, found.num_agents) == (0, "FloatSum", "share", 3000)


def test_an_observable_that_depends_on_rows_is_found(population):
    rows = Observable("rows", lambda before, after: torch.arange(len(after)), by=())
    found = lockstep(Model([], state={"stage": SI}, observe=[rows]), population, steps=2, seed=1)
    assert (found.step, found.rule, found.field, found.key) == (-1, "observables", "rows", None)
