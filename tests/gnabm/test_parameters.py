"""Parameters: one name for each learnable tensor, scales and back, checks, and tensors that stand for them."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gnabm import Contacts, Model, Rule, Stages, simulate
from gnabm.errors import DataError, KindError, ShapeError, UnknownFieldError
from gnabm.models.epidemic import covid, seir, sir
from gnabm.parameters import Input, Parameters

A, B = Stages("A", "B")
NAMES = ["Infect.transmission_rate", "Recover.rate", "SeedAtRandom.share"]


class Odd(Rule):
    """A rule with a parameter of each kind."""

    inputs = {  # noqa: RUF012
        "chance": Input("a chance", high=1.0, axis="region"),
        "nested": Input("told of all within", "days", low=-2.0, high=3.0),
        "steps": Input("a table that is looked up", gradient="none"),
    }

    def __init__(self, shared=None, name=None):
        super().__init__(name)
        self.chance = nn.Parameter(torch.tensor([[0.0, 0.25], [0.5, 1.0]]))
        self.nested = nn.ParameterDict({"one": nn.Parameter(torch.tensor(1.0))})
        self.steps = nn.Parameter(torch.tensor([2, 3]), requires_grad=False)
        self.untold = shared if shared is not None else nn.Parameter(torch.tensor(-5.0))

    def forward(self, agents, contacts, step):
        return {}


def odd():
    first = Odd()
    return Model([first], state={"stage": A.family}, initial=[Odd(first.untold, "Start")])


# Names


def test_a_parameter_is_named_by_its_rule_and_listed_once():
    assert Parameters.of(sir(0.1, 0.2)).names == NAMES
    assert Parameters.of(odd()).names == [
        "Odd.chance", "Odd.steps", "Odd.untold", "Odd.nested.one", "Start.chance", "Start.steps", "Start.nested.one",
    ]  # fmt: skip
    assert "Infect.layer_weights.home" in Parameters.of(seir(0.1, 0.2, 0.3, layer_weights={"home": 2.0}))


def test_each_number_has_a_name():
    assert Parameters.of(odd()).select("Odd.*").element_names() == [
        "Odd.chance[0,0]", "Odd.chance[0,1]", "Odd.chance[1,0]", "Odd.chance[1,1]", "Odd.steps[0]", "Odd.steps[1]",
        "Odd.untold", "Odd.nested.one",
    ]  # fmt: skip


def test_what_is_said_of_a_container_holds_for_what_is_in_it():
    found = Parameters.of(odd())
    assert found["Odd.nested.one"].input.unit == "days"
    assert found["Odd.untold"].input.meaning == "" and found["Odd.untold"].input.scale == "identity"


def test_what_is_shipped_says_what_its_parameters_are():
    everything = covid(
        0.1, seeding=[{"number": 1}], importation=[{"per_day": 1}], vaccination={"coverage": 0.5},
        prior_infection={"share": {"North": 0.1, "elsewhere": [0.2] * 9}}, layer_weights={"home": 1.0},
    )  # fmt: skip
    for model in (sir(0.1, 0.2), seir(0.1, 0.2, 0.3), everything):
        assert [entry.name for entry in Parameters.of(model) if not entry.input.meaning] == []
    found = Parameters.of(everything)
    assert found["InfectBefore.share"].shape == (2, 9) and found["Vaccinate.share"].shape == ()
    assert found["Seed.amount"].shape == found["Import.amount"].shape == (1,)


def test_names_are_selected_by_pattern():
    found = Parameters.of(odd())
    assert found.select("Odd.n*", "*.steps").names == ["Odd.steps", "Odd.nested.one", "Start.steps"]
    with pytest.raises(UnknownFieldError, match=r"no parameter matches 'Od\.\*'"):
        found.select("Od.*")


def test_it_is_told_to_people_and_to_json():
    found = Parameters.of(odd())
    told = json.loads(json.dumps(found.to_dict()))
    assert told[0] == {
        "name": "Odd.chance", "value": [[0.0, 0.25], [0.5, 1.0]], "shape": [2, 2], "axis": "region", "unit": "",
        "meaning": "a chance", "low": 0.0, "high": 1.0, "prior": None, "transform": "logit", "differentiable": True,
        "gradient": "local-score",
    }  # fmt: skip
    assert [entry["differentiable"] for entry in told[:3]] == [True, False, True]
    line = repr(found).splitlines()[4]
    assert line.split("  ")[0] == "Odd.nested.one" and "[-2, 3]" in line and "told of all within" in line


# Scales


@given(st.floats(-10, 10), st.floats(0.1, 20), st.floats(0.001, 0.999), st.sampled_from(["identity", "log", "logit"]))
def test_a_value_comes_back_from_the_unbounded_scale(low, width, share, scale):
    told = Input("x", low=low, high=low + width, transform=scale)
    value = torch.tensor([low + width * share], dtype=torch.float64, requires_grad=True)
    back = told.bounded(told.unbounded(value))
    assert back.tolist() == pytest.approx(value.tolist(), abs=1e-9)
    assert float(torch.autograd.grad(back, value)[0]) == pytest.approx(1, abs=1e-6)


@given(st.lists(st.floats(-8, 8), min_size=9, max_size=9))
def test_numbers_on_the_unbounded_scale_are_within_the_bounds_and_come_back(numbers):
    parameters = Parameters.of(covid(0.1)).select("Infect.susceptibility")
    vector = torch.tensor(numbers, dtype=torch.float64, requires_grad=True)
    made = parameters.of_vector(vector)
    value = made["Infect.susceptibility"]
    assert value.dtype == torch.float32 and (value > 0).all()
    assert torch.equal(parameters["Infect.susceptibility"].check(value), value)
    assert value.log().tolist() == pytest.approx(numbers, abs=1e-5)
    assert torch.autograd.grad(value.sum(), vector)[0].tolist() == pytest.approx(np.exp(numbers), rel=1e-5)


def test_a_vector_of_a_model_gives_the_model_back():
    parameters = Parameters.of(odd()).select("*.chance", "*.untold", "*.one")
    made = parameters.of_vector(parameters.vector())
    for entry in parameters:
        assert torch.allclose(made[entry.name], entry.value)  # values on a bound too
    with pytest.raises(ShapeError, match=r"expected \(11,\) numbers"):
        parameters.of_vector(torch.zeros(3))


def test_a_scale_follows_from_the_bounds():
    assert [Input("x", low=a, high=b).scale for a, b in ((0, math.inf), (0, 1), (-math.inf, math.inf))] == [
        "log", "logit", "identity",
    ]  # fmt: skip
    with pytest.raises(DataError, match="scale 'logit' needs finite bounds"):
        Input("x", transform="logit")
    with pytest.raises(DataError, match="low must be less than high"):
        Input("x", low=1, high=1)


# Values


def test_values_are_leaves_apart_from_the_model():
    model = sir(0.1, 0.2)
    values = Parameters.of(model).values()
    assert all(value.is_leaf and value.requires_grad for value in values.values())
    with torch.no_grad():
        values["Recover.rate"] += 1
    assert model.rules()[1].rate.item() == pytest.approx(0.2)
    assert not Parameters.of(odd()).values()["Odd.steps"].requires_grad


def test_one_parameter_or_one_number_of_it_is_scaled():
    parameters = Parameters.of(odd())
    assert parameters.scaled("Odd.chance[0,1]", 2.0)["Odd.chance"].tolist() == [[0.0, 0.5], [0.5, 1.0]]
    assert parameters.scaled("Odd.chance", 0.5)["Odd.chance"].tolist() == [[0.0, 0.125], [0.25, 0.5]]
    with pytest.raises(DataError, match=r"Odd.chance must lie in \[0, 1\], got 1.5"):
        parameters.scaled("Odd.chance[1,1]", 1.5)
    with pytest.raises(UnknownFieldError, match=r"there is no number 'Odd.chance"):
        parameters.scaled("Odd.chance[7]", 2.0)
    with pytest.raises(UnknownFieldError, match=r"did you mean 'Odd.chance'"):
        parameters.scaled("Odd.chanc", 2.0)


def test_other_tensors_stand_for_parameters_in_a_run():
    model, ring = sir(0.1, 0.2, 0.5), Contacts.from_edges([0, 1], [1, 0], num_agents=2)
    given = {"SeedAtRandom.share": torch.tensor(1.0, dtype=torch.float64), "Recover.rate": torch.tensor(0.0)}
    run = simulate(model, ring, steps=3, seed=1, parameters=given)
    assert run.observed["stage_count"][-1].tolist() == [0, 2, 0]
    assert model.rules()[1].rate.item() == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("name", "value", "error", "words"),
    [
        ("Recover.rat", torch.tensor(0.1), UnknownFieldError, "did you mean 'Recover.rate'"),
        ("Recover.rate", torch.zeros(2), ShapeError, r"must have shape \(\), got \(2,\)"),
        ("Recover.rate", torch.tensor(1), KindError, "must be a floating-point tensor, got torch.int64"),
        ("Recover.rate", 0.1, KindError, "must be a floating-point tensor, got float"),
        ("Recover.rate", torch.tensor(-0.1), DataError, "must lie in .* got -0.1; learn it on the unbounded scale"),
        ("SeedAtRandom.share", torch.tensor(float("nan")), DataError, r"must lie in \[0, 1\], got nan"),
    ],
)
def test_what_cannot_stand_for_a_parameter_is_refused(name, value, error, words):
    with pytest.raises(error, match=words):
        Parameters.of(sir(0.1, 0.2))[name].check(value)
