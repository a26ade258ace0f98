"""The table of honesty: gradients beside finite differences, where both are known."""

import json
import math
from pathlib import Path

import pytest
import torch

from gnabm import Contacts, Mixing, Model, Rule, State, simulate
from gnabm.config import load
from gnabm.config.build import model_parameters
from gnabm.config.parameters import model_function
from gnabm.errors import ConfigError, DataError, UnknownFieldError
from gnabm.gradients import _moves, compare, label
from gnabm.memory import added_peak
from gnabm.model import Observable, count_by_stage
from gnabm.models.epidemic import SIR, Leave, sir
from gnabm.outcome import outcomes
from gnabm.parameters import Input, Parameters
from gnabm.population import Population
from gnabm.sampling import Gumbel, LocalScore, Score

SIZE = 2000
NOBODY = Contacts.from_edges([], [], num_agents=SIZE)
SUSCEPTIBLE, INFECTIOUS, RECOVERED = SIR


class Grow(Rule):
    """A number that grows by a product of two parameters: nothing is drawn."""

    writes = {"level": "adds"}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor([1.0, 3.0, 0.0]))
        self.scale = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, agents, contacts, step):
        return {"level": (self.slope[0] + self.slope[1]) * self.scale * torch.ones(agents.num_agents)}


def growing():
    level = Observable("level", lambda before, after: after.level, by=())
    return Model([Grow()], state={"level": State(0.0)}, observe=[level])


def leaving(rate=0.1):
    rule = Leave(rate, SUSCEPTIBLE, INFECTIOUS, "Leave")
    return Model([rule], state={"stage": SIR}, observe=[count_by_stage])


def test_without_draws_the_gradient_is_the_difference():
    rows = compare(growing(), NOBODY, steps=3, seeds=[1, 2], parameters=["Grow.scale", "Grow.slope[1]"])
    found = {row.parameter: row for row in rows}
    days = 1 + 2 + 3  # the outcome adds up the level of three days
    assert found["Grow.scale"].mean == pytest.approx(4 * days * SIZE)
    assert found["Grow.slope[1]"].mean == pytest.approx(0.5 * days * SIZE)
    for row in rows:
        assert row.fd == pytest.approx(row.mean, rel=1e-4)
        assert row.se == 0 and abs(row.bias_percent) < 0.01 and row.variance == 0 and row.seeds == 2


def test_a_horizon_takes_away_what_comes_through_time():
    (row,) = compare(growing(), NOBODY, steps=3, seeds=[1, 2], parameters=["Grow.scale"], gradient_horizon=1)
    assert row.mean == pytest.approx(4 * 3 * SIZE) and row.bias_percent == pytest.approx(-50, abs=0.1)


def test_a_vector_is_moved_in_proportion_to_its_values_and_numbers_that_are_0_are_left_out():
    rows = compare(growing(), NOBODY, steps=1, seeds=[1, 2])
    assert [row.parameter for row in rows] == ["Grow.slope", "Grow.scale"]
    # By the mean m of (1, 3, 0): the sum of the first two is 3 m.
    assert rows[0].mean == pytest.approx(3 * 0.5 * SIZE) and rows[0].fd == pytest.approx(rows[0].mean, rel=1e-4)
    with pytest.raises(ConfigError, match="has a value other than 0"):
        compare(growing(), NOBODY, steps=1, seeds=[1, 2], parameters=["Grow.slope[2]"])


def test_the_difference_has_the_derivative_of_the_expectation():
    rows = compare(
        leaving(), NOBODY, steps=5, seeds=range(8), estimators=["local-score", "smoothed", Gumbel(0.1)],
        observables=["stage_count.infectious"], width=0.2,
    )  # fmt: skip
    exact = 5 * SIZE * math.exp(-0.5)  # d (1 - exp(-5 r)) / d r
    assert [row.estimator for row in rows] == ["local-score", "smoothed", "gumbel(0.1)"]
    for row in rows:
        assert row.fd == pytest.approx(exact, abs=4 * row.fd_se + 0.01 * exact)
        assert row.variance == pytest.approx(8 * row.se**2)
        assert row.bias_percent == pytest.approx(100 * (row.mean / row.fd - 1))
    assert rows[0].mean == pytest.approx(exact, abs=4 * rows[0].se)
    assert len({row.fd for row in rows}) == 1
    json.dumps([row.to_dict() for row in rows], allow_nan=False)


class Shifted(Rule):
    """A number that grows by parameters on their lower bounds, of either sign."""

    writes = {"level": "adds"}  # noqa: RUF012
    inputs = {"late": Input("days", low=1.0), "less": Input("loss", low=-2.0, high=0.0)}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.late, self.less = torch.nn.Parameter(torch.tensor(1.0)), torch.nn.Parameter(torch.tensor([-2.0, -1.0]))

    def forward(self, agents, contacts, step):
        return {"level": (3 * self.late + self.less.sum()) * torch.ones(agents.num_agents)}


def test_values_at_their_lower_bounds_are_moved_away_from_them():
    level = Observable("level", lambda before, after: after.level, by=())
    rows = compare(
        Model([Shifted()], state={"level": State(0.0)}, observe=[level]), NOBODY, steps=1, seeds=[1, 2]
    )  # fmt: skip
    assert [(row.parameter, row.fd) for row in rows] == [
        ("Shifted.late", pytest.approx(3 * SIZE, rel=1e-4)), ("Shifted.less", pytest.approx(2 * SIZE, rel=1e-4)),
    ]  # fmt: skip


@pytest.mark.parametrize("name", [p.stem for p in sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))])
def test_every_parameter_of_a_shipped_config_can_be_compared(name):
    config = load(name, ["reproduction_number=null", "parameters.transmission_rate=0.05"])
    layers = ("home", "class", "school", "team", "site", "community")
    people = Population.of(Contacts({n: Mixing.uniform(10, 1.0) for n in layers}, 10))
    model = model_function(config.model)(**model_parameters(config, people))
    known, moves = Parameters.of(model), _moves(model, ("*",), 0.1)
    assert len(moves) >= 3
    for move in moves:
        entry = move.tensor
        known[entry].check(move.up[entry])
        known[entry].check(move.down[entry])
        apart = (move.up[entry].double() - move.down[entry].double() - move.distance * move.direction).abs().max()
        assert apart < 1e-4 * (1 + move.up[entry].abs().max())


def test_a_gradient_of_a_broken_chain_is_none_rather_than_0():
    class Cut(Grow):
        def forward(self, agents, contacts, step):
            return {"level": self.scale.detach() * torch.ones(agents.num_agents)}

    level = Observable("level", lambda before, after: after.level, by=())
    model = Model([Cut()], state={"level": State(0.0)}, observe=[level])
    (row,) = compare(model, NOBODY, steps=1, seeds=[1, 2], parameters=["Cut.scale"])
    assert row.fd == pytest.approx(SIZE, rel=1e-4)
    assert (row.mean, row.se, row.variance, row.bias_percent, row.bias_se) == (None,) * 5
    json.dumps(row.to_dict(), allow_nan=False)


def test_an_estimator_has_one_name():
    assert [label(kind) for kind in ("gumbel", Gumbel(0.5), "gumbel(0.25)", Score(), LocalScore())] == [
        "gumbel(0.5)", "gumbel(0.5)", "gumbel(0.25)", "score", "local-score",
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"two estimators are called gumbel\(0.5\)"):
        compare(leaving(), NOBODY, steps=1, seeds=[1, 2], estimators=["gumbel", Gumbel(0.5)])


def test_a_value_at_its_bound_has_a_one_sided_difference():
    model = sir(0.1, 0.1, initial_infected=1.0)
    (row,) = compare(
        model, NOBODY, steps=1, seeds=range(4), parameters=["SeedAtRandom.share"],
        observables=["stage_count.susceptible"], estimators=["straight-through"],
    )  # fmt: skip
    assert row.fd == pytest.approx(-SIZE, abs=4 * row.fd_se)
    assert row.mean == pytest.approx(-SIZE)


def test_the_budget_ends_the_comparison_after_two_seeds():
    rows = compare(leaving(), NOBODY, steps=1, seeds=range(50), budget=0.0)
    assert {row.seeds for row in rows} == {2}


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(DataError, match="two or more different seeds, got \\[1\\]"):
        compare(leaving(), NOBODY, steps=1, seeds=[1])
    with pytest.raises(DataError, match="a step at least, got steps=0"):
        compare(leaving(), NOBODY, steps=0, seeds=[1, 2])
    with pytest.raises(DataError, match="width must be a share"):
        compare(leaving(), NOBODY, steps=1, seeds=[1, 2], width=2.0)
    with pytest.raises(UnknownFieldError, match="no parameter matches"):
        compare(leaving(), NOBODY, steps=1, seeds=[1, 2], parameters=["Leaf.rate"])


def test_outcomes_are_sums_over_the_run_and_stages_at_its_end():
    model = sir(0.1, 0.1)
    assert [outcome.name for outcome in outcomes(model)] == [
        "stage_count.susceptible", "stage_count.infectious", "stage_count.recovered", "incidence",
    ]  # fmt: skip
    observed = {"incidence": torch.arange(6.0).reshape(3, 2), "stage_count": torch.arange(18.0).reshape(3, 3, 2)}
    recovered, incidence = outcomes(model, ("stage_count.recovered", "incidence"))
    assert float(recovered(observed)) == 16 + 17 and float(incidence(observed)) == 15
    with pytest.raises(UnknownFieldError, match="did you mean 'incidence'"):
        outcomes(model, ("incidense",))


def test_the_added_peak_is_what_a_piece_of_work_took():
    size = 64 << 20
    result, most = added_peak(lambda: torch.ones(size // 4).sum().item())
    assert result == size // 4
    assert most is None or 0.9 * size < most < 2 * size


def test_the_score_of_a_run_has_the_same_bits_with_checkpoints():
    contacts, found = Contacts({"pool": Mixing.uniform(100, 10.0)}, 100), []
    for checkpoint in (None, 3):
        model = sir(0.02, 0.1, 0.1)
        run = simulate(model, contacts, steps=7, seed=1, gradient="score", checkpoint=checkpoint)
        run.observed["incidence"].sum().backward()
        found.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert all(gradient.any() for gradient in found[0])
