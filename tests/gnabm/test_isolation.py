"""Who isolates, from which day on, and whose contacts become fewer by it."""

from typing import ClassVar

import numpy as np
import pytest
import torch

from gnabm import Contacts, Observable, Population, Stages, simulate
from gnabm.errors import ConfigError
from gnabm.intervention import Schedule
from gnabm.models.epidemic import seir
from gnabm.models.isolation import Isolate, Test
from gnabm.parameters import Parameters
from gnabm.testing import RuleConformance

SIZE = 20_000
WELL, SICK, OVER = FAMILY = Stages("well", "sick", "over")
ALWAYS = Schedule(0.0)


def ill(*interventions, steps=10, size=SIZE, recovery=0.0, record=(), dt=1.0, gradient=None, model=None):
    """Everybody is infected at the start, falls ill on day 0 and recovers at a rate; nobody meets anybody."""
    model = model or seir(0.0, 1e9, recovery, initial_infected=1.0, interventions=interventions)
    nobody = Contacts.from_edges([], [], num_agents=size)
    return simulate(model, nobody, steps=steps, seed=3, dt=dt, record=record, gradient=gradient)


def test_those_who_comply_isolate_while_they_are_ill():
    rule = {"isolate": "symptomatic", "compliance": 0.3, "strength": 0.8, "start": 3, "end": 7}
    run = ill(rule, record=["Isolate_outside", "Isolate_complies", "stage"], recovery=0.2)
    outside, complies, stage = (run.fields[name] for name in ("Isolate_outside", "Isolate_complies", "stage"))
    asked = complies[-1] >= 0
    assert complies[-1][asked].mean() == pytest.approx(0.3, abs=0.02)
    # On day 2 they are asked: a start a little earlier would have them isolate on that day.
    assert (complies[1] == -1).all() and (complies[2] >= 0).any() and (outside[:3] == 1).all()
    for day in range(1, 10):
        sick = stage[day - 1] == 2
        expected = np.where(sick & (complies[day] == 1) & (3 <= day < 7), np.float32(1 - 0.8), 1)
        assert outside[day] == pytest.approx(expected)


def test_an_agent_is_asked_once():
    run = ill({"isolate": "symptomatic", "compliance": 0.5}, record=["Isolate_complies"])
    complies = run.fields["Isolate_complies"]
    assert (complies[1:] == complies[1]).all() and set(np.unique(complies[1])) == {0.0, 1.0}


@pytest.mark.parametrize("dt", [1.0, 0.5])
def test_tests_find_the_ill_at_their_rate_and_sensitivity(dt):
    rule = {"test": "symptomatic", "probability": 0.2, "sensitivity": 0.5, "delay": 0.0, "days": 100}
    run = ill(rule, steps=round(11 / dt), record=["Test_positive"], dt=dt)
    found = run.fields["Test_positive"].mean(1)
    in_step = 0.5 * (1 - 0.8**dt)
    assert found == pytest.approx(1 - (1 - in_step) ** np.arange(len(found)), abs=0.015)


def test_a_result_comes_after_its_delay_and_isolation_ends():
    rule = {"test": "symptomatic", "probability": 1.0, "delay": 1.5, "days": 3, "strength": 0.5, "end": 2}
    run = ill(rule, steps=9, record=["Test_outside", "Test_positive"])
    # Tested on day 1, known at 2.5, over at 5.5.
    assert run.fields["Test_outside"][:, 0].tolist() == [1, 1, 0.75, 0.5, 0.5, 0.75, 1, 1, 1]
    assert run.fields["Test_positive"][:, 0].tolist() == [0, 1, 1, 1, 1, 1, 0, 0, 0]


def test_nobody_well_is_tested():
    model = seir(0.0, 0.0, 0.0, initial_infected=0.0, interventions=[{"test": "symptomatic", "probability": 1.0}])
    assert (ill(model=model, record=["Test_positive"]).fields["Test_positive"] == 0).all()


def test_isolation_leaves_the_home_as_it_was_and_reduces_both_sides_elsewhere():
    # Pairs (0, 1) at home and (2, 3) elsewhere; the first of each is ill. No latent or infectious days end.
    home, work = (Contacts.from_edges([k], [k + 1], num_agents=4, undirected=True).layers for k in (0, 2))
    contacts = Contacts({"home": next(iter(home.values())), "work": next(iter(work.values()))}, 4)
    everyone = Population.of(contacts)

    def infected(strength, seed):
        rule = {"isolate": "symptomatic", "compliance": 1.0, "strength": strength}
        model = seir(0.5, 1e9, 0.0, initial_infected=[0, 2], interventions=[rule])
        run = simulate(model, everyone, steps=6, seed=seed, record=["stage"])
        return run.fields["stage"][-1] != 0

    found = np.stack([infected(1.0, seed) for seed in range(30)])
    assert found[:, 1].mean() > 0.7 and not found[:, 3].any()


def test_infectors_of_those_who_isolate_are_traced_by_what_they_send():
    homes = Contacts.from_edges([0, 1], [2, 2], num_agents=3).layers
    work = Contacts.from_edges([0, 1], [2, 2], weight=[3.0, 3.0], num_agents=3).layers
    contacts = Contacts({"home": next(iter(homes.values())), "work": next(iter(work.values()))}, 3)
    rule = {"isolate": "symptomatic", "compliance": 1.0, "strength": 1.0, "start": 1}
    model = seir(1.0, 1e9, 0.0, initial_infected=[0, 1], interventions=[rule])
    layers = [
        simulate(model, contacts, steps=6, seed=seed, infections=True).infections.query("agent == 2")["layer"]
        for seed in range(20)
    ]
    assert {str(layer) for found in layers for layer in found} == {"home"}


def test_what_is_no_share_is_refused():
    with pytest.raises(ConfigError, match=r"interventions\[0\]: Isolate.compliance must lie in \[0, 1\], got 1.5"):
        seir(0.1, 0.1, 0.1, interventions=[{"isolate": "symptomatic", "compliance": 1.5}])


def test_the_share_in_isolation_has_the_exact_gradient_in_what_it_follows_from():
    rules = [
        {"isolate": "symptomatic", "compliance": 0.4, "strength": 0.8, "start": 2.5},
        {"test": "symptomatic", "probability": 0.3, "sensitivity": 0.6, "delay": 0.5, "days": 50, "strength": 0.5},
    ]
    model = seir(0.0, 1e9, 0.0, initial_infected=1.0, interventions=rules)
    fields = {"isolated": "Isolate_outside", "tested": "Test_outside"}
    model.observe = tuple(
        Observable(name, lambda before, after, field=field: 1 - getattr(after, field), by=())
        for name, field in fields.items()
    )
    run = ill(model=model, steps=3, gradient="local-score")
    values = {entry.name: entry.value for entry in Parameters.of(model)}

    def slopes(observable, *names):
        grads = torch.autograd.grad(run.observed[observable][-1] / SIZE, [values[n] for n in names], retain_graph=True)
        return [g.item() for g in grads]

    # On day 2 half of the day is left: 0.5 x 0.8 x 0.4.
    names = ("Isolate.compliance", "Isolate.strength", "Isolate.when.start")
    assert slopes("isolated", *names) == pytest.approx([0.4, 0.2, -0.32], rel=0.05)
    # Tested on day 1 with 0.18, on day 2 with 0.82 x 0.18, of which half of the day is left.
    p = 0.18
    expected = [0.5 * (1 + 0.5 * (1 - 2 * p)) * q for q in (0.6, 0.3)] + [-0.5 * p * (1 - p)]
    assert slopes("tested", "Test.probability", "Test.sensitivity", "Test.delay") == pytest.approx(expected, rel=0.06)


def isolated(steps, dt=1.0, **keys):
    """Parameters of a test, and the days that an agent isolates."""
    entry = {"test": "symptomatic", "sensitivity": 0.9, "strength": 0.5, **keys}
    model = seir(0.0, 1e9, 0.0, initial_infected=1.0, interventions=[entry])
    model.observe = (Observable("isolated", lambda before, after: 1 - after.Test_outside, by=()),)
    run = ill(model=model, steps=steps, dt=dt, gradient="local-score")
    return {entry.name: entry.value for entry in Parameters.of(model)}, run.observed["isolated"].sum() * dt / SIZE


@pytest.mark.parametrize("days", [3.0, 2.6])
def test_isolation_of_whole_days_has_the_slopes_of_fractions(days):
    values, total = isolated(12, probability=1.0, days=days, delay=1.0, end=3.0)
    assert total.item() == pytest.approx(0.99 * 0.5 * days, rel=0.01)  # tested on days 1 and 2
    slopes = torch.autograd.grad(total, [values["Test.days"], values["Test.delay"]])
    assert [slope.item() for slope in slopes] == pytest.approx([0.99 * 0.5, 0.0], abs=0.005)


def test_a_certain_test_has_a_gradient_that_is_a_number_whatever_the_step():
    values, total = isolated(12, dt=0.5, probability=1.0, days=2.0, end=2.25)
    grads = torch.autograd.grad(total, list(values.values()), allow_unused=True)
    assert all(bool(torch.isfinite(grad).all()) for grad in grads if grad is not None)


class _Isolation(RuleConformance):
    small = 1_000
    large = 20_000
    gradient = "local-score"

    def start(self, agents, step):
        return {"stage": super().start(agents, step)["stage"]}


class TestIsolateConformance(_Isolation):
    """Isolation is the same in all forms of a run."""

    state: ClassVar = {"stage": FAMILY, **Isolate("I", [SICK], 0.5, 0.5, ALWAYS).state}

    def rule(self):
        return Isolate("I", [SICK], 0.5, 0.6, Schedule(1.3))


class TestTestConformance(_Isolation):
    """Testing is the same in all forms of a run."""

    state: ClassVar = {
        "stage": FAMILY, **Test("T", [SICK], 0.5, 0.5, delay=1.0, days=3.0, strength=0.5, when=ALWAYS).state,
    }  # fmt: skip

    def rule(self):
        return Test("T", [SICK, OVER], 0.4, 0.7, delay=1.25, days=2.5, strength=0.8, when=Schedule(1.3, 4.5))
