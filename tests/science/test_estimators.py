"""What each estimator of gradients is worth where the derivative of the expectation is known exactly."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from gnabm import Contacts, Mixing, Model, Rule, Stages, State, simulate
from gnabm.gradients import compare
from gnabm.model import Observable
from gnabm.models.epidemic import Leave, sir
from gnabm.sampling import ESTIMATORS, Gumbel, Score
from tests.science.test_markov_chain import EDGES, STATES, chain

UNBIASED = ("local-score", "straight-through", "smoothed")
A, B, C = FAMILY = Stages("A", "B", "C")
NOBODY = Contacts.from_edges([], [], num_agents=2000)
ALONE = Contacts.from_edges([], [], num_agents=1)


def mean_and_error(gradients):
    """Mean over runs and its standard error."""
    values = torch.tensor(gradients, dtype=torch.float64)
    return values.mean(0), values.std(0) / math.sqrt(values.shape[0])


class Walk(Rule):
    """A step up with probability theta, else one down."""

    writes = {"position": "adds"}  # noqa: RUF012

    def __init__(self, theta):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(theta))

    def forward(self, agents, contacts, step):
        return {"position": 2.0 * step.bernoulli(self.theta) - 1}


POSITION = Observable("position", lambda before, after: after.position, by=())


def walk(contacts, steps, gradient, seeds):
    """d E[x_T] / d theta of one walker."""
    model = Model([Walk(0.3)], state={"position": State(10.0)}, observe=[POSITION])
    found = []
    for seed in seeds:
        run = simulate(model, contacts, steps=steps, seed=seed, gradient=gradient)
        last = run.observed["position"][-1].sum() / contacts.num_agents
        found.append(torch.autograd.grad(last, model.rules()[0].theta)[0].item())
    return mean_and_error(found)


@pytest.mark.parametrize("kind", UNBIASED)
def test_of_a_random_walk_the_derivative_is_2_steps(kind):
    mean, error = walk(NOBODY, 20, kind, range(8))
    assert abs(mean - 40) <= 3 * error + 1e-4
    assert error < 1


def test_of_a_random_walk_gumbel_is_biased_the_more_the_warmer_it_is():
    means = [walk(NOBODY, 20, Gumbel(t), range(3))[0] for t in (0.1, 0.5, 1.0)]
    assert means[0] == pytest.approx(40, rel=0.03)
    assert means[1] == pytest.approx(36.3, rel=0.03)
    assert means[2] == pytest.approx(29.6, rel=0.03)


@pytest.mark.slow
def test_of_a_random_walk_the_score_of_the_run_is_exact_and_a_baseline_makes_it_quieter():
    steps, expected = 5, 10 - 0.4 * torch.arange(1.0, 6.0)
    mean, error = walk(ALONE, steps, "score", range(300))
    better, less = walk(ALONE, steps, Score({"position": expected}), range(300))
    assert abs(mean - 2 * steps) <= 3 * error
    assert abs(better - 2 * steps) <= 3 * less
    assert less < error / 2


def shares(first, second, steps):
    """Shares in A, B, C after some steps of a chain with these rates."""
    leave, done = 1 - math.exp(-first), 1 - math.exp(-second)
    a, b, c = 1.0, 0.0, 0.0
    for _ in range(steps):
        a, b, c = a * (1 - leave), b * (1 - done) + a * leave, c + b * done
    return np.array([a, b, c])


@pytest.mark.parametrize("kind", UNBIASED)
def test_of_agents_that_do_not_interact_the_derivative_is_exact(kind):
    rules = [Leave(0.05, A, B, "first"), Leave(0.1, B, C, "second")]
    model, steps = Model(rules, state={"stage": FAMILY}), 10
    found = []
    for seed in range(8):
        last = simulate(model, NOBODY, steps=steps, seed=seed, gradient=kind).observed["stage_count"][-1] / 2000
        rates = [rule.rate for rule in rules]
        found.append([[g.item() for g in torch.autograd.grad(x, rates, retain_graph=True)] for x in last])
    mean, error = mean_and_error(found)
    for number, (up, down) in enumerate((((0.0501, 0.1), (0.0499, 0.1)), ((0.05, 0.1001), (0.05, 0.0999)))):
        exact = (shares(*up, steps) - shares(*down, steps)) / 0.0002
        assert (abs(mean[:, number].numpy() - exact) <= 3.5 * error[:, number].numpy() + 1e-3).all()


def infected(which, step=1e-6):
    """d E[ever infected after 8 days] / d rate of four agents, from the exact chain of 81 states."""
    ends = []
    for sign in (1, -1):
        start = np.zeros(len(STATES))
        start[STATES.index((1, 0, 0, 0))] = 1
        rates = 0.35 + sign * step * (which == 0), 0.3 + sign * step * (which == 1)
        share = start @ np.linalg.matrix_power(chain(*rates, 1.0), 8)
        ends.append(share @ [sum(stage > 0 for stage in state) for state in STATES])
    return (ends[0] - ends[1]) / (2 * step)


def four_agents(copies, gradient, seeds):
    """The same derivatives, by an estimator on many copies of the four."""
    source, target, weight = (np.array(column) for column in zip(*EDGES, strict=True))
    shift = 4 * np.arange(copies)[:, None]
    contacts = Contacts.from_edges(
        (source + shift).ravel(), (target + shift).ravel(), np.tile(weight, copies), num_agents=4 * copies
    )
    model = sir(0.35, 0.3, initial_infected=range(0, 4 * copies, 4))
    rates = [model.rules()[0].transmission_rate, model.rules()[1].rate]
    found = []
    for seed in seeds:
        last = simulate(model, contacts, steps=8, seed=seed, gradient=gradient).observed["stage_count"][-1, 1:].sum()
        found.append([g.item() / copies for g in torch.autograd.grad(last, rates)])
    return mean_and_error(found)


@pytest.mark.parametrize(
    ("kind", "ratios"),
    [
        ("local-score", (0.90, 1.26)),
        ("straight-through", (1.82, 1.40)),
        ("smoothed", (1.40, 1.93)),
        (Gumbel(0.5), (0.67, 0.25)),
    ],
    ids=["local-score", "straight-through", "smoothed", "gumbel"],
)
def test_of_four_agents_who_infect_each_other_the_bias_is_as_stated(kind, ratios):
    mean, error = four_agents(1000, kind, range(4))
    for number, ratio in enumerate(ratios):
        exact = infected(number)
        assert abs(mean[number] / exact - ratio) <= 4 * error[number] / abs(exact) + 0.04


@pytest.mark.slow
def test_of_four_agents_who_infect_each_other_the_score_of_the_run_is_exact():
    mean, error = four_agents(1, "score", range(1500))
    for number in range(2):
        assert abs(mean[number] - infected(number)) <= 3 * error[number]
        assert error[number] < 0.3 * abs(infected(number))


@pytest.mark.parametrize("kind", [*ESTIMATORS, Gumbel(0.1)])
def test_every_estimator_has_the_forward_bits_of_the_plain_run(kind):
    contacts = Contacts.from_edges(
        torch.arange(2000), (torch.arange(2000) * 7 + 1) % 2000, num_agents=2000, undirected=True
    )
    model = sir(0.2, 0.1, 0.02)
    plain = simulate(model, contacts, steps=10, seed=4, record=["stage"])
    run = simulate(model, contacts, steps=10, seed=4, record=["stage"], gradient=kind)
    assert (run.fields["stage"] == plain.fields["stage"]).all()
    for name, value in plain.observed.items():
        assert torch.equal(run.observed[name].detach(), value.to(torch.float64))


@pytest.mark.slow
def test_of_an_epidemic_that_mixes_at_large_three_estimators_agree_with_differences():
    contacts = Contacts({"pool": Mixing.uniform(10_000, 10.0)}, 10_000).with_expected_mixing()
    rows = compare(
        sir(0.02, 0.1, 0.01), contacts, steps=25, seeds=range(12), estimators=UNBIASED, observables=["incidence"],
        parameters=["Infect.*", "Recover.*"],
    )  # fmt: skip
    for row in rows:
        assert abs(row.bias_percent) <= 3 * row.bias_se + 3
