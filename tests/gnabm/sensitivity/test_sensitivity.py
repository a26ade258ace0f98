import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnabm import Contacts, Model, SeedAtRandom, simulate
from gnabm.adjoint import pull_back
from gnabm.errors import ConfigError, DataError, UnknownFieldError
from gnabm.models.epidemic import SIR, sir
from gnabm.parameters import Input
from gnabm.sensitivity import (
    Elements,
    Question,
    Sensitivity,
    Variant,
    agreement,
    differences,
    in_process,
    over_ranges,
    sensitivity,
)  # fmt: skip

STEPS = 12
SUSCEPTIBLE, INFECTIOUS, _ = SIR


@pytest.fixture(scope="module")
def question(model):
    return Question(model, STEPS, groups=("region:week", "age_group"))


@pytest.fixture(scope="module")
def found(question, population):
    return sensitivity(question, population, seeds=[1, 2, 3])


@pytest.mark.parametrize("checkpoint", [None, 5])
def test_walking_all_groups_back_together_gives_what_one_at_a_time_gives(question, population, checkpoint):
    leaves = Elements.of(question.model).tensors()
    how = {"gradient": "local-score", "checkpoint": checkpoint}
    made, outcomes = question.run(population, Variant(3, leaves), **how)
    cotangents, output = outcomes.cotangents(), made.observed["incidence"]
    together = pull_back(output, cotangents, list(leaves.values()))
    for at, cotangent in enumerate(cotangents):
        alone = torch.autograd.grad(output, list(leaves.values()), cotangent, retain_graph=True)
        for one, batch in zip(alone, together, strict=True):
            torch.testing.assert_close(batch[at].to(one.dtype), one, rtol=1e-5, atol=1e-5)


def test_the_run_is_the_plain_run_and_the_model_gets_no_gradient(question, population, found):
    plain = [question(population, Variant(seed, {})) for seed in (1, 2, 3)]
    assert torch.equal(found.outcomes, torch.stack(plain))
    assert all(p.grad is None for p in question.model.parameters())


def test_groups_that_make_up_the_whole_have_derivatives_that_add_up(question, population):
    both = Question(question.model, STEPS, groups=("week", "region", "all"))
    gradients = sensitivity(both, population, seeds=[1]).gradients[0]
    torch.testing.assert_close(gradients[:2].sum(0), gradients[-1], rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(gradients[2:4].sum(0), gradients[-1], rtol=1e-5, atol=1e-3)


def test_agents_without_contacts_recover_with_the_elasticity_of_the_closed_form():
    rate, share, steps, number = 0.2, 0.5, 6, 20_000
    alone = Contacts.from_edges([0], [1], num_agents=number)
    asked = Question(sir(0.0, rate, share), steps, "stage_count", ("stage",), (steps - 1, steps))
    found = sensitivity(asked, alone, seeds=range(4), parameters=["Recover.rate", "SeedAtRandom.share"])
    still = number * share * math.exp(-rate * steps)
    exact = torch.tensor([[0.0, -1.0], [-rate * steps, 1.0], [rate * steps * still / (number * share - still), 1.0]])
    error = (found.elasticity - exact).abs()
    assert bool((error[1:] < 4 * found.se[1:] + 1e-6).all())
    assert found.groups[1] == "stage infectious"


def test_an_elasticity_is_a_ratio_of_means_with_the_error_of_one():
    outcomes = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    gradients = torch.tensor([[[2.0]], [[8.0]]], dtype=torch.float64)
    found = Sensitivity(("p",), torch.tensor([0.5], dtype=torch.float64), ("g",), outcomes, gradients, 1.0, "made")
    assert found.elasticity.item() == pytest.approx(0.5 * 5 / 2)
    assert found.se.item() == pytest.approx(np.std([1 - 1.25 * 1, 4 - 1.25 * 3], ddof=1) / math.sqrt(2) / 2)


def test_one_seed_has_no_error_and_an_outcome_of_zero_no_elasticity(question, population):
    nobody = Question(sir(0.05, 0.1, [0]), 2, groups=("age_group",))
    found = sensitivity(nobody, population, seeds=[1]).to_dict()
    assert found["se"][0][0] is None
    assert [row[0] for row, size in zip(found["elasticity"], found["outcome"], strict=True) if size == 0] != []
    assert all(row[0] is None for row, size in zip(found["elasticity"], found["outcome"], strict=True) if size == 0)


def test_differences_of_a_share_without_contacts_are_exact_for_the_mean():
    alone = Contacts.from_edges([0], [1], num_agents=20_000)
    asked = Question(sir(0.0, 0.2, 0.3), 1, "stage_count", ("all", "stage"))
    found = differences(asked, alone, seeds=range(4), parameters=["SeedAtRandom.share"], factor=1.2)
    assert found.elasticity[0, 0].item() == 0
    assert found.elasticity[2, 0].item() == pytest.approx(1.0, abs=4 * found.se[2, 0].item())


def test_a_number_that_is_zero_or_on_a_bound_is_moved_as_far_as_it_can_be(population):
    asked = Question(sir(0.0, 0.2, 1.0), 1, "stage_count", ("stage",))
    assert Elements.of(asked.model).around(2, 1.1) == (pytest.approx(1 / 1.1), 1.0)
    found = differences(asked, population, seeds=[1])
    assert bool(found.elasticity[:, 0].isnan().all())  # a transmission rate of 0 has no logarithm


def test_a_derivative_of_0_everywhere_is_no_answer(population):
    alone = sensitivity(Question(sir(0.0, 0.2, 0.3), 3, "stage_count", ("stage",)), population, seeds=[1, 2])
    assert alone.unreached == ("Infect.transmission_rate",)
    assert bool(alone.elasticity[:, 0].isnan().all()) and bool(alone.elasticity[1:, 1:].isfinite().all())
    assert alone.to_dict()["absolute"][1][0] is None


def test_walking_groups_back_in_parts_gives_the_same(question, population, found, monkeypatch):
    monkeypatch.setattr("gnabm.sensitivity.oneshot.TOGETHER", 2 * population.num_agents)
    parts = sensitivity(question, population, seeds=[1, 2, 3], checkpoint=4)
    assert len(parts.groups) > 4
    torch.testing.assert_close(parts.gradients, found.gradients, rtol=1e-5, atol=1e-4, equal_nan=True)


class Fixed(SeedAtRandom):
    """Seeds, in a number that no gradient reaches."""

    inputs = {"share": Input("share", "1", low=0, high=1, gradient="none")}  # noqa: RUF012


def test_brute_force_needs_no_gradient(population):
    model = sir(0.05, 0.1, 0.05)
    model = Model(model.phases, state=model.state, initial=Fixed(SUSCEPTIBLE, INFECTIOUS, 0.05), observe=model.observe)
    asked = Question(model, 4, groups=("week",))
    found, brute = sensitivity(asked, population, seeds=[1]), differences(asked, population, seeds=[1])
    assert "Fixed.share" not in found.parameters
    assert brute.elasticity[0, brute.parameters.index("Fixed.share")] > 0
    assert agreement(found, brute).parameters == found.parameters
    with pytest.raises(DataError, match="which need no gradient"):
        sensitivity(asked, population, seeds=[1], parameters=["Fixed.share"])


def test_numbers_without_a_range_are_left_out_by_name(population):
    asked = Question(sir(0.0, 0.2, 0.3), 1, "stage_count", ("stage",))
    elements = Elements.of(asked.model)
    run, names = in_process(asked, population), asked.names(population)
    whole = over_ranges(elements, run, names, samples=2, seed=1, method="morris")
    assert whole.left_out == ("Infect.transmission_rate",)
    assert whole.parameters == ("Recover.rate", "SeedAtRandom.share")
    more = over_ranges(elements, run, names, samples=2, seed=1, ranges={"Infect.transmission_rate": (0.0, 0.1)})
    with pytest.raises(DataError, match=r"within the ranges: .*narrower"):
        over_ranges(elements, run, names, samples=2, seed=1, ranges={"Recover.rate": (-0.9, -0.1)})
    assert more.left_out == () and more.to_dict()["ranges"][0] == [0.0, 0.1]


def test_a_sensitivity_agrees_with_itself(found):
    agreed = agreement(found, found)
    assert all(rank is None or rank == pytest.approx(1) for rank in agreed.rank)
    assert agreed.all_signs == 1
    assert agreed.cost == 1
    assert all(ratio is None or ratio == pytest.approx(1) for ratio in agreed.ratio)


@given(st.lists(st.floats(0.5, 2), min_size=3, max_size=3))
def test_replaced_numbers_are_those_of_the_parameters(factors):
    elements = Elements.of(sir(0.05, 0.1, 0.05))
    values = [v.item() * f for v, f in zip(elements.values, factors, strict=True)]
    new = elements.replaced(dict(enumerate(values)))
    assert [new[name].item() for name in elements.names] == pytest.approx(values)


def test_indices_over_ranges_find_the_only_parameter_that_matters(population):
    asked = Question(sir(0.0, 0.2, 0.3), 1, "stage_count", ("stage",))
    elements = Elements.of(asked.model, ["Recover.rate", "SeedAtRandom.share"])
    names = asked.names(population)
    for method, index in (("sobol", "ST"), ("morris", "mu_star")):
        whole = over_ranges(elements, in_process(asked, population), names, samples=16, seed=1, method=method)
        assert whole.runs == 16 * (4 if method == "sobol" else 3)
        assert whole.indices[index][0, 0] == pytest.approx(0, abs=1e-9)  # the susceptible never were infected
        assert whole.indices[index][0, 1] > 0
        assert whole.to_dict()["ranges"][1] == pytest.approx([0.15, 0.6])


def test_what_cannot_be_asked_is_refused_with_the_cure(question, population):
    with pytest.raises(UnknownFieldError, match="did you mean"):
        sensitivity(question, population, seeds=[1], parameters=["Infect.transmision_rate"])
    with pytest.raises(DataError, match="seed"):
        sensitivity(question, population, seeds=[])
    with pytest.raises(DataError, match="greater than 1"):
        differences(question, population, seeds=[1], factor=1.0)
    with pytest.raises(DataError, match=r"none of Infect\.transmission_rate has a value above 0"):
        differences(Question(sir(0.0, 0.2, 0.3), 1), population, seeds=[1], parameters=["Infect.*"])
    with pytest.raises(ConfigError, match="gnabm gradients"):
        sensitivity(question, population, seeds=[1], gradient="score")
    with pytest.raises(UnknownFieldError, match="--by stage"):
        Question(question.model, 2, "stage_count.infectious").names(population)
    with pytest.raises(DataError, match="power of 2"):
        over_ranges(Elements.of(question.model), in_process(question, population), ["g"], samples=3, seed=1)
    with pytest.raises(DataError, match="differentiable run"):
        pull_back(simulate(question.model, population, steps=2, seed=1).observed["incidence"], torch.ones(1), [])
