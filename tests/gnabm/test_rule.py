"""Rules and their steps: when a kernel stands for its rule, and what draws note of their likelihood."""

import pytest
import torch

from gnabm import Contacts, Model, Rule, SeedAtRandom, Stages, simulate
from gnabm.errors import ShapeError
from gnabm.models.epidemic import INFECTED_ON, SIR, Leave, seir, sir
from gnabm.models.infection import InfectByAge
from gnabm.models.infectiousness import DailyProfile, GammaProfile, StageFactors
from gnabm.random import bernoulli
from gnabm.sampling import LocalScore
from gnabm.tangent import jacobian
from gnabm.testing import awkward_population

S, I, R = SIR  # noqa: E741
POPULATION = awkward_population(800)


def infect(kind=InfectByAge, profile=None, factors=None):
    return kind(0.5, None, profile or DailyProfile((1.0,)), {}, source=S, target=I, infectious=factors or I)


def histories(make):
    """Stages of every agent and step in each form."""
    made = []
    for form in ("auto", "push", "pull"):
        model = Model(
            [make(), Leave(0.2, I, R, "Recover")], state={"stage": SIR, "infected_on": INFECTED_ON},
            initial=SeedAtRandom(S, I, 0.1), observe=(),
        )  # fmt: skip
        made.append(simulate(model, POPULATION, steps=4, seed=1, messages=form, record=["stage"]).fields["stage"])
    return made


class Faster(Leave):
    """A constant and arguments of its own."""

    reproducibility = "unchecked"

    def __init__(self, rate):
        super().__init__(2 * rate, I, R, "Faster")


class HalfSent(InfectByAge):
    def _sent(self, everyone, step, senders=None):
        return super()._sent(everyone, step, senders) * 0


class Mixin:
    """Stands before the rule and changes what `forward` calls."""

    def _weights(self, agents, contacts, step):
        return {name: 0.0 for name in contacts}


class Mixed(Mixin, InfectByAge):
    pass


class Untouched:
    """Brings nothing."""


class Marked(Untouched, Leave):
    pass


class Own(Rule):
    def forward(self, agents, contacts, step):
        return {}

    def fused(self, agents, contacts, step):
        return torch.empty(0, dtype=torch.int64), {}


class Below(Own):
    def where(self, agents):
        return agents.stage.is_(I)


class Again(Below):
    def fused(self, agents, contacts, step):
        return super().fused(agents, contacts, step)


class Late(DailyProfile):
    def forward(self, steps, dt):
        return super().forward(steps, dt) * (steps > 1)


class LateDensity(GammaProfile):
    def forward(self, steps, dt):
        return super().forward(steps, dt) * (steps > 1)


class LateBoth(DailyProfile):
    def forward(self, steps, dt):
        return super().forward(steps, dt) * (steps > 1)

    def table(self, dt):
        return self(torch.arange(4, dtype=torch.int32), dt)


class Twice(StageFactors):
    def forward(self, stage):
        return 2 * super().forward(stage)


class Untabled(torch.nn.Module):
    def forward(self, steps, dt):
        return (steps > 1).to(torch.float32)


def test_shipped_rules_have_kernels():
    for model in (sir(0.5, 0.1, 0.1), seir(0.5, 0.1, 0.1, 0.1)):
        assert all(rule.has_kernel for rule in (*model.initial, *model.rules()))


@pytest.mark.parametrize(
    ("rule", "has"),
    [
        (Faster(0.1), True), (Marked(0.1, I, R, "Marked"), True), (Own(), True), (Below(), False), (Again(), True),
        (Rule(), False), (infect(HalfSent), False), (infect(Mixed), False), (infect(profile=Late((1.0,))), False),
        (infect(profile=LateDensity(5, 2)), False), (infect(profile=LateBoth((1.0,))), True),
        (infect(profile=Untabled()), False), (infect(profile=GammaProfile(5, 2), factors={I: 1.0}), True),
    ],
    ids=lambda x: type(x).__name__,
)  # fmt: skip
def test_a_kernel_stands_until_a_method_is_overridden(rule, has):
    assert rule.has_kernel is has


@pytest.mark.parametrize(
    "make",
    [
        lambda: infect(HalfSent),
        lambda: infect(Mixed),
        lambda: infect(profile=Late((1.0,))),
        lambda: infect(profile=LateDensity(5, 2)),
        lambda: infect(profile=LateBoth((1.0,))),
        lambda: infect(profile=Untabled()),
        lambda: with_factors(Twice({I: 1.0})),
    ],
)
def test_what_a_subclass_overrides_holds_in_every_form(make):
    auto, push, pull = histories(make)
    assert (auto == push).all() and (auto == pull).all()
    assert (auto != histories(infect)[0]).any()


def with_factors(factors):
    rule = infect()
    rule.infectious = factors
    return rule


def test_a_method_that_was_set_on_the_rule_is_called():
    rule = Leave(0.5, I, R, "Leave")
    rule.forward = lambda agents, contacts, step: {}
    assert not rule.has_kernel


@pytest.mark.parametrize("pick", [lambda rule: rule, lambda rule: rule.profile])
def test_hooks_hear_a_rule_and_its_parts(pick):
    heard = []

    def make():
        rule = infect()
        pick(rule).register_forward_hook(lambda *_: heard.append(1))
        return rule

    assert (histories(make)[0] == histories(infect)[0]).all()
    assert len(heard) == 12


A, B = CHAIN = Stages("A", "B")
NOBODY = Contacts.from_edges([], [], num_agents=500)


class Toss(Rule):
    """A tenth of A goes to B, by a stream of the rule's own; its likelihood is noted as `noted` says."""

    def __init__(self, noted, some=False):
        super().__init__()
        self.chance = torch.nn.Parameter(torch.tensor(0.1))
        self.noted, self.some = noted, some

    def where(self, agents):
        return agents.stage.is_(A)

    def forward(self, agents, contacts, step):
        happened = step.uniform() < self.chance.detach()
        likelihood = torch.where(happened, self.chance, 1 - self.chance).log()
        if self.some:
            at = happened.nonzero().squeeze(1)
            step.weigh(self.noted(likelihood[at]), rows=at)
        else:
            step.weigh(self.noted(likelihood))
        return {"stage": agents.stage.move(A, B, happened)}


def toss(noted, **options):
    """Derivative of the number in B after three steps, backwards and forwards."""
    model, common = Model([Toss(noted, **options)], state={"stage": CHAIN}), dict(steps=3, seed=1)
    run = simulate(model, NOBODY, gradient="local-score", **common)
    run.observed["stage_count"][-1, B].backward()
    forwards = jacobian(model, NOBODY, ["Toss.chance"], **common)["stage_count"][-1, B, 0]
    assert forwards.item() == pytest.approx(model.rules()[0].chance.grad.item(), rel=1e-5)
    return forwards.item()


@pytest.mark.parametrize("value", [7.0, float("-inf"), float("nan")])
def test_the_value_of_a_noted_likelihood_is_ignored(value):
    exact = 500 * 3 * 0.9**2  # of 1 - 0.9**3
    expected = toss(lambda likelihood: likelihood)
    assert abs(expected - exact) < 4 * (500 * 3 / 0.09) ** 0.5
    assert toss(lambda likelihood: likelihood + value) == expected


@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("noted", [torch.Tensor.sum, lambda likelihood: likelihood[:1], lambda x: x.unsqueeze(1)])
def test_a_noted_likelihood_has_one_number_for_each_row(noted, some):
    with pytest.raises(ShapeError, match=r"Toss: step.weigh expected \(\d+,\) log-likelihoods"):
        toss(noted, some=some)


class Own:
    """An estimator that is none of ours, without flags."""

    flags, local = False, True

    def __call__(self, state, keys, p):
        assert not p.requires_grad
        return bernoulli(state, keys, p)


@pytest.mark.parametrize("checkpoint", [None, 2])
def test_draws_note_their_likelihood_under_any_estimator_without_flags(checkpoint):
    found = []
    for kind in (LocalScore(), Own()):
        model = sir(0.05, 0.1, 0.02)
        run = simulate(model, POPULATION, steps=4, seed=3, gradient=kind, checkpoint=checkpoint)
        found.append(torch.autograd.grad(run.observed["incidence"].sum(), list(model.parameters())))
    assert all(torch.equal(one, other) and one.abs() > 0 for one, other in zip(*found, strict=True))
