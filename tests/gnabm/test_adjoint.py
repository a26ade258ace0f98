"""The reverse pass: the same bits however the run is kept, and gradients in what stands for parameters."""

import math

import numpy as np
import pytest
import torch

from gnabm import Contacts, Mixing, Model, Places, Rule, Stages, simulate
from gnabm.adjoint import pull_back
from gnabm.agents import Stage
from gnabm.errors import ConfigError, DataError, ShapeError, UnknownFieldError
from gnabm.model import Observable, State
from gnabm.models.epidemic import Leave, seir, sir
from gnabm.periods import Period
from gnabm.sampling import ESTIMATORS
from gnabm.tangent import jacobian

SIZE, STEPS = 3_000, 12


@pytest.fixture(scope="module")
def contacts():
    rng = np.random.default_rng(3)
    source, step = rng.integers(0, SIZE, 3 * SIZE), rng.integers(1, SIZE, 3 * SIZE)
    edges = Contacts.from_edges(source, (source + step) % SIZE, num_agents=SIZE, undirected=True, duplicates="sum")
    homes, pool = Places.of(np.arange(SIZE) // 3), Mixing.uniform(SIZE, 3.0)
    return Contacts({**edges.layers, "home": homes, "pool": pool}, SIZE)


def model():
    weights = {"contacts": 1.0, "home": 2.0, "pool": 0.5}
    return seir(0.05, 0.4, 0.15, 0.02, infectiousness=[0.0, 0.5, 1.0], layer_weights=weights)


def gradients(run, of):
    loss = run.observed["incidence"].sum() + run.observed["stage_count"][-1].square().sum() / SIZE
    return torch.autograd.grad(loss, list(of.parameters()), retain_graph=True)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_hard_estimators_have_the_history_of_a_forward_run(contacts, estimator):
    plain = simulate(model(), contacts, steps=STEPS, seed=4, record=["stage", "infected_on"])
    run = simulate(model(), contacts, steps=STEPS, seed=4, record=["stage", "infected_on"], gradient=estimator)
    assert plain.observed["incidence"].sum() > 200
    for name, value in plain.observed.items():
        assert torch.equal(run.observed[name], value.to(torch.float64)), name
    assert all((run.fields[n] == plain.fields[n]).all() for n in plain.fields)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("every", [1, 5, 100])
def test_gradients_have_the_same_bits_with_checkpoints(contacts, estimator, every):
    kept, again = model(), model()
    first = simulate(kept, contacts, steps=STEPS, seed=4, gradient=estimator, checkpoint=None)
    second = simulate(again, contacts, steps=STEPS, seed=4, gradient=estimator, checkpoint=every)
    assert torch.equal(first.observed["incidence"], second.observed["incidence"])
    for one, other in zip(gradients(first, kept), gradients(second, again), strict=True):
        assert torch.equal(one, other)
        assert bool(torch.isfinite(one).all())


def test_a_graph_can_be_walked_again(contacts):
    of = model()
    run = simulate(of, contacts, steps=STEPS, seed=4, gradient="local-score", checkpoint=5)
    assert all(torch.equal(a, b) for a, b in zip(gradients(run, of), gradients(run, of), strict=True))


def test_what_stands_for_a_parameter_gets_its_gradient(contacts):
    own = model()
    rate = own.rules()[0].transmission_rate
    plain = simulate(own, contacts, steps=STEPS, seed=4, gradient="local-score").observed["incidence"].sum()
    (expected,) = torch.autograd.grad(plain, rate)
    other = model()
    with torch.no_grad():
        other.rules()[0].transmission_rate.fill_(9.0)
    knob = torch.tensor(math.log(0.05), requires_grad=True)
    run = simulate(
        other,
        contacts,
        steps=STEPS,
        seed=4,
        gradient="local-score",
        parameters={"Infect.transmission_rate": knob.exp()},
    )
    run.observed["incidence"].sum().backward()
    assert torch.equal(run.observed["incidence"].sum(), plain)
    assert knob.grad.item() == pytest.approx(expected.item() * 0.05, rel=1e-5)
    assert other.rules()[0].transmission_rate.item() == 9.0


def test_a_forward_run_takes_tensors_for_parameters_too(contacts):
    values = {"Recover.rate": torch.tensor(0.3)}
    run = simulate(model(), contacts, steps=STEPS, seed=4, parameters=values)
    other = model()
    with torch.no_grad():
        other.rules()[2].rate.fill_(0.3)
    expected = simulate(other, contacts, steps=STEPS, seed=4)
    assert torch.equal(run.observed["stage_count"], expected.observed["stage_count"])


def test_a_horizon_of_one_step_leaves_what_the_step_itself_does(contacts):
    """Each step's infections are then those of a rate that changed in that step alone."""
    of = model()
    rate = of.rules()[0].transmission_rate
    cut = simulate(of, contacts, steps=STEPS, seed=4, gradient="local-score", gradient_horizon=1).observed["incidence"]
    whole = simulate(of, contacts, steps=STEPS, seed=4, gradient="local-score").observed["incidence"]
    for run in (cut, whole):
        (at_once,) = torch.autograd.grad(run[0].sum(), rate, retain_graph=True)
        assert at_once.item() == pytest.approx(float(run.detach()[0].sum()) / 0.05, rel=0.1)
    (short,) = torch.autograd.grad(cut.sum(), rate)
    (long,) = torch.autograd.grad(whole.sum(), rate)
    assert 0 < short.item() < 0.7 * long.item()


class Grow(Rule):
    """A float state that is no draw: x -> x * growth."""

    writes = {"x": "sole"}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.growth = torch.nn.Parameter(torch.tensor(1.1, dtype=torch.float64))

    def forward(self, agents, contacts, step):
        return {"x": agents.x * self.growth}


class Part(Grow):
    """The same for the agents of one half, who are the rows that it sees."""

    writes = {"x": "exclusive"}  # noqa: RUF012

    def __init__(self, name, upper):
        super().__init__()
        self.name, self.upper = name, upper

    def where(self, agents):
        return (agents.key >= 3) == self.upper


def test_float_columns_keep_their_gradient_under_where_in_both_modes():
    (a,) = Stages("A")
    observable = Observable("sum", lambda before, after: after.x, by=())
    state = {"stage": a.family, "x": State(1.0, torch.float64)}
    of = Model([Part("lower", False), Part("upper", True)], state=state, observe=[observable])
    nobody = Contacts.from_edges([], [], num_agents=5)
    total = simulate(of, nobody, steps=7, seed=0, gradient="local-score").observed["sum"][-1]
    found = torch.autograd.grad(total, [rule.growth for rule in of.rules()])
    exact = [3 * 7 * 1.1**6, 2 * 7 * 1.1**6]
    assert [g.item() for g in found] == pytest.approx(exact, rel=1e-9)
    forward = jacobian(of, nobody, ["lower.growth", "upper.growth"], steps=7, seed=0)["sum"][-1]
    assert forward.reshape(-1).tolist() == pytest.approx(exact, rel=1e-9)


def test_the_initial_state_belongs_to_the_first_steps_before_a_horizon(contacts):
    one, other = model(), model()
    whole = gradients(simulate(one, contacts, steps=STEPS, seed=4, gradient="local-score"), one)
    run = simulate(other, contacts, steps=STEPS, seed=4, gradient="local-score", gradient_horizon=STEPS)
    assert all(torch.equal(a, b) for a, b in zip(whole, gradients(run, other), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_several_sums_are_walked_back_together(contacts, dtype):
    """Also where one tensor stands for two parameters, and where it has another type than they have."""
    knob = torch.tensor(0.1, dtype=dtype, requires_grad=True)
    given = {"Recover.rate": knob, "BecomeInfectious.rate": knob}
    run = simulate(model(), contacts, steps=STEPS, seed=4, gradient="local-score", parameters=given, checkpoint=5)
    incidence = run.observed["incidence"]
    cotangents = torch.zeros(3, *incidence.shape, dtype=torch.float64)
    for number in range(3):
        cotangents[number, 4 * number : 4 * number + 4] = 1
    (together,) = pull_back(incidence, cotangents, [knob])
    for number in range(3):
        (alone,) = torch.autograd.grad((incidence * cotangents[number]).sum(), knob, retain_graph=True)
        assert together[number].item() == pytest.approx(alone.item(), rel=1e-4)
    with pytest.raises(DataError, match="not given these tensors"):
        pull_back(incidence, cotangents, [torch.tensor(0.1)])
    with pytest.raises(DataError, match="expected an observable"):
        pull_back(incidence.detach(), cotangents, [knob])


@pytest.mark.parametrize("every", [None, 3])
def test_float_columns_carry_the_gradient_of_their_arithmetic(every):
    (a,) = Stages("A")
    observable = Observable("sum", lambda before, after: after.x, by=())
    state = {"stage": a.family, "x": State(1.0, torch.float64)}
    of = Model([Grow()], state=state, observe=[observable])
    nobody = Contacts.from_edges([], [], num_agents=5)
    run = simulate(of, nobody, steps=7, seed=0, gradient="local-score", checkpoint=every)
    (found,) = torch.autograd.grad(run.observed["sum"][-1], of.rules()[0].growth)
    assert found.item() == pytest.approx(5 * 7 * 1.1**6, rel=1e-9)


def test_periods_have_gradients_of_their_own(contacts):
    first, later = model(), model()
    run = simulate(
        first, contacts, steps=STEPS, seed=4, gradient="local-score", changes=[Period(6, later, 4)], checkpoint=4
    )
    run.observed["incidence"].sum().backward()
    rates = [m.rules()[0].transmission_rate.grad for m in (first, later)]
    whole = model()
    simulate(whole, contacts, steps=STEPS, seed=4, gradient="local-score").observed["incidence"].sum().backward()
    assert sum(rates).item() == pytest.approx(whole.rules()[0].transmission_rate.grad.item(), rel=1e-5)
    assert all(rate.item() > 0 for rate in rates)


A, B, C = FAMILY = Stages("A", "B", "C")


@pytest.mark.parametrize("which", [0, 1])
def test_a_chain_of_stages_has_the_exact_gradient_of_its_rates(which):
    size, steps, rates = 10_000, 20, [0.02, 0.1]

    def expected(first, second):
        leave, done, (a, b, c) = 1 - math.exp(-first), 1 - math.exp(-second), (1.0, 0.0, 0.0)
        for _ in range(steps):
            a, b, c = a * (1 - leave), b * (1 - done) + a * leave, c + b * done
        return np.array([a, b, c])

    up, down = ([r + s * 1e-5 * (k == which) for k, r in enumerate(rates)] for s in (1, -1))
    exact = (expected(*up) - expected(*down)) / 2e-5
    of = Model([Leave(rates[0], A, B, "first"), Leave(rates[1], B, C, "second")], state={"stage": FAMILY})
    nobody = Contacts.from_edges([], [], num_agents=size)
    found = []
    for seed in range(12):
        run = simulate(of, nobody, steps=steps, seed=seed, gradient="local-score")
        last = run.observed["stage_count"][-1] / size
        found.append([torch.autograd.grad(x, of.rules()[which].rate, retain_graph=True)[0].item() for x in last])
    error = np.std(found, axis=0, ddof=1) / math.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - exact) <= 4 * error).all()


def test_what_is_no_number_of_steps_or_no_parameter_is_refused(contacts):
    how = {"steps": 2, "seed": 1}
    with pytest.raises(DataError, match="checkpoint must be a number of steps >= 1"):
        simulate(model(), contacts, gradient="local-score", checkpoint=0, **how)
    with pytest.raises(DataError, match="gradient_horizon must be"):
        simulate(model(), contacts, gradient="local-score", gradient_horizon=2.5, **how)
    with pytest.raises(ConfigError, match="gradient_horizon is for a differentiable run"):
        simulate(model(), contacts, gradient_horizon=2, **how)
    with pytest.raises(UnknownFieldError, match=r"Infect\.transmission_rate"):
        simulate(model(), contacts, parameters={"Infect.transmision_rate": torch.tensor(0.1)}, **how)
    with pytest.raises(ShapeError, match="shape"):
        simulate(model(), contacts, parameters={"Infect.transmission_rate": torch.ones(2)}, **how)
    with pytest.raises(ConfigError, match="models of the periods"):
        changes = [Period(1, model(), 1)]
        simulate(model(), contacts, parameters={"Recover.rate": torch.tensor(0.1)}, changes=changes, **how)


def test_agents_at_the_end_are_values_alone(contacts):
    run = simulate(sir(0.05, 0.1, 0.01), contacts, steps=3, seed=1, gradient="local-score")
    stage = run.agents.stage
    assert isinstance(stage, Stage)
    assert stage.flags is None
