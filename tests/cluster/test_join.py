import pytest
import torch

from cluster import run_local
from gnabm import Model, Rule, simulate
from gnabm.agents import Stages
from gnabm.errors import ConfigError, DataError, RunError
from gnabm.models.epidemic import sir

STEPS = 20


@pytest.fixture(scope="module")
def whole(population, model_of_session):
    return simulate(model_of_session, population, steps=STEPS, seed=3, record=["stage", "infected_on"])


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def same_bits(run, other):
    assert all(torch.equal(run.observed[n], other.observed[n]) for n in other.observed)
    assert all((run.fields[n] == other.fields[n]).all() for n in other.fields)
    for name, column in other.agents.columns.items():
        mine = run.agents.columns[name]
        assert torch.equal(getattr(mine, "codes", mine), getattr(column, "codes", column)), name


def test_the_epidemic_of_these_tests_touches_everything(whole):
    stages = whole.observed["stage_count"].sum((2, 3))
    assert (stages[-1] > 200).all()
    assert whole.observed["incidence"].sum((1, 2)).max() > 50


@pytest.mark.parametrize("messages", ["push", "pull", "auto"])
@pytest.mark.parametrize("shards", [1, 2, 3, 7])
def test_shards_forms_and_threads_give_the_same_bits(population, model, whole, shards, messages, threads):
    run = run_local(
        model, population, shards=shards, steps=STEPS, seed=3, record=["stage", "infected_on"], messages=messages
    )
    same_bits(run, whole)


def test_shards_of_any_sizes_give_the_same_bits(population, model, whole):
    bounds = (0, 1, 5, 2900, 2901, 3000)
    run = run_local(model, population, shards=5, steps=STEPS, seed=3, record=["stage", "infected_on"], bounds=bounds)
    same_bits(run, whole)


@pytest.mark.parametrize("shards", [8, 7, 3])
def test_an_infection_runs_round_a_ring_over_every_border(ring_of_eight, shards):
    model = sir(0.7, 0.05, initial_infected=[0])
    one = simulate(model, ring_of_eight, steps=15, seed=2, record=["stage"])
    cut = run_local(model, ring_of_eight, shards=shards, steps=15, seed=2, record=["stage"])
    same_bits(cut, one)
    assert (cut.fields["stage"][-1] > 0).all()


def loss_of(observed):
    weight = torch.linspace(-1, 1, observed["incidence"].numel(), dtype=torch.float64)
    return (observed["incidence"].reshape(-1) * weight).sum() + observed["stage_count"][-1, 2].sum() ** 2 / 400


def gradients(model, population, shards):
    for parameter in model.parameters():
        parameter.grad = None
    run = run_local(model, population, shards=shards, steps=5, seed=4, gradient="straight-through", loss=loss_of)
    return run, {name: p.grad.clone() for name, p in model.named_parameters()}


def test_gradients_of_parameters_cross_shards(small_population, model):
    hard = simulate(model, small_population, steps=5, seed=4)
    one_run, one = gradients(model, small_population, 1)
    assert all(bool(torch.isfinite(g).all()) and bool((g != 0).any()) for g in one.values())
    for shards in (2, 3):
        run, cut = gradients(model, small_population, shards)
        assert run.attributes["loss"] == one_run.attributes["loss"]
        for name, observed in hard.observed.items():
            assert torch.equal(run.observed[name], observed.to(torch.float64))
        for name, grad in one.items():
            torch.testing.assert_close(cut[name], grad, rtol=1e-4, atol=1e-5 * float(grad.abs().max()))


def test_one_shard_has_the_gradient_of_a_plain_backward_pass(small_population, model):
    _, one = gradients(model, small_population, 1)
    model.zero_grad()
    plain = simulate(model, small_population, steps=5, seed=4, gradient="straight-through")
    loss_of(plain.observed).backward()
    assert all(torch.equal(p.grad, one[name]) for name, p in model.named_parameters())


def test_a_loss_needs_a_differentiable_run(small_population, model):
    with pytest.raises(ConfigError, match="gradient='local-score'"):
        run_local(model, small_population, shards=2, steps=1, seed=1, loss=loss_of)


S, I = SI = Stages("S", "I")  # noqa: E741


class Odd(Rule):
    """A rule that goes wrong on the shard of agent 0, at step 2."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, agents, contacts, step):
        if step.index == 2 and bool((agents.key == 0).any()):
            if self.how == "raise":
                raise DataError("agent 0 is not amused")
            step.total(agents.key == 0)
        contacts.sum_neighbours(agents.stage.is_(I))
        return {}


def test_an_error_in_a_rule_on_one_shard_is_the_error_of_the_run(ring_of_eight):
    with pytest.raises(DataError, match="agent 0 is not amused"):
        run_local(Model([Odd("raise")], state={"stage": SI}), ring_of_eight, shards=3, steps=5, seed=1)


def test_a_rule_that_totals_on_some_shards_only_is_named(ring_of_eight):
    with pytest.raises(RunError, match=r"rank 0 calls all_reduce .*rank 1 calls all_to_all.*same exchanges"):
        run_local(Model([Odd("total")], state={"stage": SI}), ring_of_eight, shards=3, steps=5, seed=1)


def test_no_steps_leave_the_initial_state(population, model):
    run = run_local(model, population, shards=2, steps=0, seed=3, record=["stage"])
    assert run.fields["stage"].shape == (0, 3000)
    assert run.agents.num_agents == 3000
    assert run.observed["incidence"].shape == (0, 2, 9)
