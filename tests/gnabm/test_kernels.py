"""The three forms of a forward run tell one history, whatever the shards and the length of a step."""

import numpy as np
import pytest
import torch

from gnabm import Model, Population, Rule, State
from gnabm.contacts import Contacts
from gnabm.errors import DataError
from gnabm.local import on_shards
from gnabm.models.epidemic import INFECTED_ON, SIR, covid, seir, sir
from gnabm.models.infection import InfectByAge
from gnabm.models.infectiousness import DailyProfile
from gnabm.rule import SeedAtRandom
from gnabm.shard import cut
from gnabm.simulate import as_numpy
from gnabm.simulation import Simulation
from gnabm.testing import awkward_population

STEPS = 5
WHOLE, CUT = (0, 400), (0, 1, 250, 400)
MODELS = {
    "sir": lambda: sir(0.05, 0.2, 0.03),
    "seir": lambda: seir(
        0.6, 1.5, 0.2, 0.1, susceptibility=[0.2 + 0.1 * k for k in range(9)],
        infectiousness=[0.4, 0.2, 1.0, 0.7, 0.3, 0.05], layer_weights={"home": 2.0, "site": 0.0, "friends": 0.3},
    ),
    "covid": lambda: covid(
        0.1, initial_infected=0.05, importation=[{"per_day": 5.0}, {"per_day": 9.0, "region": "north"}],
        vaccination={"coverage": 0.5, "against_infection": 0.3, "against_severe": 0.8},
        prior_infection={"share": 0.1, "against_infection": 0.8, "against_severe": 0.9},
    ),
}  # fmt: skip


def drawn_population():
    """Layers of edges, places and drawn mixing; a layer of expected mixing would give everyone a hazard."""
    whole = awkward_population(400)
    layers = {name: layer for name, layer in whole.contacts.layers.items() if name != "field"}
    return Population(400, whole.columns, Contacts(layers, 400), whole.fields)


POPULATION = drawn_population()


def history(model, form, bounds, dt):
    """All states, observables and infections, in the order of the whole."""

    def work(group):
        run = Simulation(model(), cut(POPULATION, group, bounds), seed=5, messages=form, dt=dt, infections=True)
        states, observed = [], []
        for _ in range(STEPS):
            observed.append({name: value.numpy().copy() for name, value in run.advance().items()})
            states.append({name: as_numpy(run.agents.columns[name]).copy() for name in run.model.state})
        return states, observed, run.tracer.take(STEPS)

    shards = on_shards(len(bounds) - 1, work)
    found = {
        f"{name} after step {step}": np.concatenate([states[step][name] for states, _, _ in shards])
        for step in range(STEPS)
        for name in shards[0][0][step]
    }
    for step, observed in enumerate(shards[0][1]):
        found |= {f"{name} of step {step}": value for name, value in observed.items()}
    infections = {name: np.concatenate([taken[name] for _, _, taken in shards]) for name in shards[0][2]}
    order = np.lexsort((infections["agent"], infections["step"]))
    return found | {f"{name} of infections": infections[name][order] for name in ("agent", "step", "infector", "layer")}


@pytest.mark.parametrize("dt", [0.7, 1 / 3])
@pytest.mark.parametrize("name", MODELS)
def test_forms_and_shards_tell_one_history(name, dt):
    plain = history(MODELS[name], "pull", WHOLE, dt)
    happened = plain["step of infections"]
    assert (happened >= 0).sum() > 5, "a history in which nothing happens proves nothing"
    for form, bounds in (("auto", WHOLE), ("push", WHOLE), ("auto", CUT), ("pull", CUT)):
        other = history(MODELS[name], form, bounds, dt)
        assert other.keys() == plain.keys()
        for what, value in plain.items():
            assert other[what].dtype == value.dtype, (form, bounds, what)
            assert np.array_equal(other[what], value), (form, bounds, what)


FORMS = pytest.mark.parametrize("form", ["auto", "push", "pull"])
SUSCEPTIBLE, INFECTIOUS, _ = SIR


class SetRisk(Rule):
    """Sets the relative risk of everyone in a stage."""

    writes = {"risk": "sole"}  # noqa: RUF012

    def __init__(self, stage, value):
        super().__init__()
        self.stage, self.value = stage, value

    def forward(self, agents, contacts, step):
        return {"risk": torch.where(agents.stage.is_(self.stage), self.value, agents.risk)}


def risky(stage, value):
    """Half of the agents infectious, and everyone in a stage with some relative risk."""
    infect = InfectByAge(
        0.05, None, DailyProfile([1.0]), {}, source=SUSCEPTIBLE, target=INFECTIOUS, infectious=INFECTIOUS, risk="risk"
    )
    return Model(
        [infect], state={"stage": SIR, "infected_on": INFECTED_ON, "risk": State(1.0)},
        initial=[SeedAtRandom(SUSCEPTIBLE, INFECTIOUS, 0.5), SetRisk(stage, value)], observe=(),
    )  # fmt: skip


def with_parameter(model, name, value):
    """The model with a learned number that has left its range."""
    (parameter,) = (p for n, p in model.named_parameters() if n.endswith(name))
    parameter.data.fill_(value)
    return model


@FORMS
@pytest.mark.parametrize("bounds", [WHOLE, CUT])
@pytest.mark.parametrize("value", [float("nan"), -0.5])
@pytest.mark.parametrize(
    "model",
    [
        lambda value: with_parameter(MODELS["sir"](), "transmission_rate", value),
        lambda value: with_parameter(MODELS["sir"](), ".rate", value),
        lambda value: with_parameter(MODELS["sir"](), "share", value),
        lambda value: with_parameter(MODELS["seir"](), "susceptibility", value),
        lambda value: risky(SUSCEPTIBLE, value),
    ],
    ids=["transmission rate", "leaving rate", "initial share", "susceptibility", "risk"],
)
def test_what_gives_no_probability_is_refused_in_every_form(model, value, bounds, form):
    with pytest.raises(DataError, match=r"must be|must lie|\[0, 1\]"):
        history(lambda: model(value), form, bounds, 1.0)


@FORMS
def test_the_risk_of_those_who_cannot_be_infected_does_not_matter(form):
    plain = history(lambda: risky(INFECTIOUS, 1.0), "pull", WHOLE, 1.0)
    other = history(lambda: risky(INFECTIOUS, float("nan")), form, CUT, 1.0)
    assert (plain["step of infections"] >= 0).sum() > 5
    for what in plain:
        assert what.startswith("risk") or np.array_equal(other[what], plain[what]), what


@FORMS
@pytest.mark.parametrize("bounds", [WHOLE, CUT])
def test_an_age_group_without_a_susceptibility_is_refused_in_every_form(bounds, form):
    model = seir(0.06, 0.5, 0.2, 0.02, susceptibility=[0.5, 0.7, 1.0])
    # The kernel, which nothing else would stop, names the column; torch stops the plain rule.
    named = (DataError,) if form == "auto" else (DataError, IndexError)
    with pytest.raises(named, match="age_group" if form == "auto" else "age_group|out of range"):
        history(lambda: model, form, bounds, 1.0)
