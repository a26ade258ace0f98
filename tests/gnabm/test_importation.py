"""Arrivals from outside and protection at the start: their local scores are the exact derivatives."""

import numpy as np
import pytest
import torch

from gnabm import Contacts, Field, Model, Population, Stages, simulate
from gnabm.errors import UnknownFieldError
from gnabm.models.epidemic import INFECTED_ON
from gnabm.models.immunity import RISKS, infect_before, vaccinate
from gnabm.models.importation import bring, seed
from gnabm.parameters import Parameters

S, E, R = FAMILY = Stages("S", "E", "R")
AGES = (*(f"{a}-{a + 9}" for a in range(0, 80, 10)), "80+")
SIZE, BATCHES, STEPS = 9_000, 8, 10
HALF = Field("region", categories=("North", "South"))


def population(num_agents=SIZE):
    """Nobody meets anybody; two thirds live in the North."""
    row = np.arange(num_agents)
    columns = {"age_group": (row % 9).astype(np.uint8), "region": (row % 3 == 0).astype(np.uint8)}
    fields = {"age_group": Field("age_group", categories=AGES), "region": HALF}
    return Population(num_agents, columns, Contacts({}, num_agents), fields)


def model(arrivals=(), immunity=()):
    state = {"stage": FAMILY, "infected_on": INFECTED_ON, **RISKS}
    return Model([[rule] for rule in arrivals], state=state, initial=list(immunity))


def score(made, stage, names, steps=1, seed=1):
    """Derivatives of the number of people in a stage at the end in the sum of each parameter's entries."""
    values = Parameters.of(made).values()
    run = simulate(made, population(), steps=steps, seed=seed, gradient="local-score", parameters=values)
    outcome = run.observed["stage_count"][-1, stage].sum()
    return [g.sum().item() for g in torch.autograd.grad(outcome, [values[name] for name in names])]


def immune(shares, **efficacy):
    return infect_before({"share": shares, **efficacy}, S, R)


def test_an_arrival_more_is_an_infection_more():
    entries = [{"per_day": 20, "to": 5}, {"per_day": 10, "from": 3, "region": "South"}]
    made = model([bring(entries, S, E, "infection_risk")], [immune(0.3, against_infection=0.5)])
    names = "Import.amount", "InfectBefore.share", "InfectBefore.against_infection"
    found = np.array([score(made, E, names, STEPS, run_seed) for run_seed in range(BATCHES)])
    mean, error = found.mean(0), found.std(0, ddof=1) / BATCHES**0.5
    # Six days of the first and seven of the second; whoever is protected, as many arrive.
    assert (np.abs(mean - [6 + 7, 0, 0]) <= 3 * error + 1e-9).all(), (mean, error)
    # Were those who are left not counted, the others would be off by 190 x 0.5 / 0.85 and 190 x 0.3 / 0.85.
    assert error[0] < 1 and error[1] < 30 and error[2] < 10


def test_seeds_relative_to_residents_have_their_gradient_in_that_unit():
    made = model([seed([{"per_100k": 2000, "region": "North"}], S, E)])
    (found,) = score(made, E, ["Seed.amount"])
    expected = SIZE * 2 / 3 / 100_000
    assert abs(found - expected) <= 3 * expected / (expected * 2000) ** 0.5


@pytest.mark.parametrize(
    ("shares", "shape"),
    [
        (0.3, ()),
        ([0.3] * 9, (9,)),
        ({"North": 0.3, "elsewhere": 0.3}, (2,)),
        ({"South": 0.3, "North": [0.3] * 9}, (2, 9)),
    ],
)
def test_a_share_of_people_more_protects_as_many_in_whatever_shape_it_is_given(shares, shape):
    made = model((), [immune(shares)])
    assert Parameters.of(made)["InfectBefore.share"].shape == shape
    (found,) = score(made, R, ["InfectBefore.share"])
    assert abs(found - SIZE) <= 3 * (SIZE * 0.7 / 0.3) ** 0.5


def test_protection_that_lets_people_start_recovered_is_no_parameter():
    made = model((), [immune(0.5, against_severe=0.5)])
    assert set(Parameters.of(made).names) == {"InfectBefore.share", "InfectBefore.against_severe"}
    agents = simulate(made, population(), steps=1, seed=1).agents
    assert torch.equal(agents.infection_risk == 0, agents.stage.is_(R))
    with pytest.raises(UnknownFieldError, match=r"no parameter 'InfectBefore\.against_infection'"):
        simulate(made, population(), steps=1, seed=1, parameters={"InfectBefore.against_infection": torch.tensor(0.5)})
    assert "InfectBefore.against_infection" in Parameters.of(model((), [immune(0.5, against_infection=0.99)]))


def test_nobody_is_nudged_at_a_share_of_nothing_or_everyone():
    made = model((), [immune([0.0, 1.0, *[0.5] * 7])])
    values = Parameters.of(made).values()
    run = simulate(made, population(), steps=1, seed=1, gradient="local-score", parameters=values)
    (found,) = torch.autograd.grad(run.observed["stage_count"][-1, R].sum(), [values["InfectBefore.share"]])
    assert (found[:2] == 0).all() and (found[2:] > 0).all()


def test_a_learned_amount_and_share_hold_in_a_plain_run():
    made = model([seed([{"number": 5}], S, E)], [vaccinate({"coverage": {"North": 0.5, "elsewhere": 0.1}}, S)])
    learned = {"Seed.amount": torch.tensor([1000.0]), "Vaccinate.share": torch.tensor([0.0, 1.0])}
    learned["Vaccinate.against_infection"] = torch.tensor(1.0)
    agents = simulate(made, population(), steps=1, seed=1, parameters=learned).agents
    assert int(agents.stage.is_(E).sum()) == pytest.approx(1000, abs=120)
    assert torch.equal(agents.infection_risk == 0, agents.region == 1)


@pytest.mark.parametrize("messages", ["auto", "pull"])
def test_arrivals_have_the_same_bits_with_a_gradient(messages):
    entries = [{"per_day": 20}, {"per_day_per_100k": 300, "region": "South"}]
    made = model([bring(entries, S, E, "infection_risk")], [immune(0.3, against_infection=0.7)])
    plain = simulate(made, population(), steps=STEPS, seed=3, messages=messages).observed["stage_count"]
    scored = simulate(made, population(), steps=STEPS, seed=3, gradient="local-score").observed["stage_count"]
    assert torch.equal(plain, scored.detach().to(torch.int64))
