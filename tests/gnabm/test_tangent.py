"""Forward mode agrees with reverse mode, with exact chains, and with finite differences of the same draws."""

import math

import pytest
import torch

from gnabm import Contacts, Mixing, Model, Observable, Stages, State, simulate
from gnabm.errors import ConfigError, UnknownFieldError
from gnabm.models.epidemic import Leave, sir
from gnabm.rule import Rule
from gnabm.tangent import jacobian
from gnabm.testing import awkward_population

POPULATION = awkward_population(300)
NAMES = ["Infect.transmission_rate", "Recover.rate", "SeedAtRandom.share"]
A, B = CHAIN = Stages("A", "B")


def reverse(model, names, **options):
    """The jacobian (steps, ..., P) of each observable, a reverse pass for each of its entries."""
    given = {n: p for rule in (*model.initial, *model.rules()) for n, p in
             ((f"{rule.name}.{path}", p) for path, p in rule.named_parameters())}  # fmt: skip
    run, found = simulate(model, POPULATION, **options), {}
    for name, value in run.observed.items():
        rows = [
            torch.cat([g.reshape(-1) for g in torch.autograd.grad(entry, [given[n] for n in names], retain_graph=True)])
            for entry in value.reshape(-1)
        ]
        found[name] = torch.stack(rows).reshape(*value.shape, -1)
    return found


@pytest.mark.parametrize("kind", ["local-score", "score", "straight-through", "smoothed"])
def test_forward_mode_is_reverse_mode(kind):
    model = sir(0.02, 0.2, 0.05).double()
    options = dict(steps=3, seed=5, gradient=kind)
    forwards, backwards = jacobian(model, POPULATION, NAMES, **options), reverse(model, NAMES, **options)
    assert forwards.keys() == backwards.keys()
    for name, expected in backwards.items():
        assert expected.abs().sum() > 0
        exact = 1e-10 if kind.endswith("score") else 1e-5  # flags are float32
        torch.testing.assert_close(forwards[name], expected, rtol=exact, atol=exact)


class Wane(Rule):
    """A level that falls at a rate, and what is left of it: no draws."""

    writes = {"level": "sole"}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.rate = torch.nn.Parameter(torch.tensor([0.1, 0.3], dtype=torch.float64))

    def forward(self, agents, contacts, step):
        """Fall."""
        return {"level": agents.level * torch.exp(-self.rate.sum() * step.dt)}


def test_a_level_without_draws_has_its_exact_derivative_in_each_entry_of_a_vector():
    model = Model(
        [Wane()], state={"level": State(1.0, dtype=torch.float64)},
        observe=[Observable("level", lambda before, after: after.level)],
    )  # fmt: skip
    found = jacobian(model, Contacts.from_edges([], [], num_agents=7), ["Wane.rate"], steps=4, seed=0)["level"]
    exact = [[-7 * t * math.exp(-0.4 * t)] * 2 for t in range(1, 5)]
    torch.testing.assert_close(found, torch.tensor(exact, dtype=torch.float64), rtol=1e-8, atol=1e-8)


def test_agents_that_do_not_interact_have_the_derivative_of_the_exact_chain():
    size, rate, steps = 40_000, 0.1, 20
    model = Model([Leave(rate, A, B, "Leave")], state={"stage": CHAIN})
    found = jacobian(model, Contacts.from_edges([], [], num_agents=size), ["Leave.rate"], steps=steps, seed=3)
    days = torch.arange(1, steps + 1, dtype=torch.float64)
    exact = days * torch.exp(-rate * days)  # of the share that has left
    error = found["stage_count"][:, 1, 0] / size - exact
    assert error.abs().max() < 4 * math.sqrt(steps / rate / size) * 5


def test_forward_mode_agrees_with_finite_differences_in_a_well_mixed_pool():
    contacts = Contacts({"pool": Mixing.uniform(20_000, 10.0)}, 20_000).with_expected_mixing()

    def last(rate):
        runs = [simulate(sir(rate, 0.1, 0.02), contacts, steps=15, seed=s).observed["stage_count"][-1] for s in (1, 2)]
        return torch.stack(runs).double().mean(0)

    difference = (last(0.022) - last(0.018)) / 0.004
    found = [
        jacobian(sir(0.02, 0.1, 0.02), contacts, ["Infect.transmission_rate"], steps=15, seed=s)["stage_count"][
            -1, :, 0
        ]
        for s in (1, 2)
    ]
    torch.testing.assert_close(torch.stack(found).mean(0), difference, rtol=0.15, atol=0.0)


def test_unknown_parameters_are_refused():
    with pytest.raises(UnknownFieldError, match=r"Infect\.transmission_rate"):
        jacobian(sir(0.1, 0.1), POPULATION, ["Infect.transmision_rate"], steps=1, seed=0)
    with pytest.raises(ConfigError, match="list of names"):
        jacobian(sir(0.1, 0.1), POPULATION, [], steps=1, seed=0)
