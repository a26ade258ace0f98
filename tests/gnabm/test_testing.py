"""The conformance classes pass what is right and catch what is not, naming the cause."""

from unittest import SkipTest

import pytest
import torch

from gnabm import Rule, Stages, State
from gnabm.errors import KindError, RunError
from gnabm.exchange import Solo, total
from gnabm.models.epidemic import seir, sir
from gnabm.testing import ConformanceError, ModelConformance, RuleConformance, awkward_population


class TestSir(ModelConformance):
    def model(self):
        return sir(0.05, 0.2, initial_infected=0.05)


class TestSirOnWholeWeights(ModelConformance):
    def model(self):
        return sir(0.05, 0.2, initial_infected=0.05)

    def population(self, num_agents):
        return awkward_population(num_agents, integer_weights=True)


class TestSeir(ModelConformance):
    def model(self):
        return seir(
            0.05, 0.5, 0.2, initial_infected=0.05, susceptibility=[0.5 + 0.1 * k for k in range(9)],
            infectiousness=[0.1, 0.7, 1.0, 0.3], layer_weights={"home": 2.0, "community": 0.5},
        )  # fmt: skip


FACTORS = State(1.0, meaning="a float that a rule moves")


class Own(Rule):
    """A rule with a float field of everyone; what it does with it is `new`."""

    writes = {"x": "sole"}  # noqa: RUF012

    def __init__(self, new):
        super().__init__("Own")
        self.new = new

    def forward(self, agents, contacts, step):
        return {"x": self.new(agents, contacts, step)}


def conformance(new, **attributes):
    """The conformance tests of a rule that sets x to new(agents, contacts, step)."""

    class Conformance(RuleConformance):
        state = {"x": FACTORS}  # noqa: RUF012

        def rule(self):
            return Own(new)

    for name, value in attributes.items():
        setattr(Conformance, name, value)
    return Conformance()


def broken(tests):
    """Names of the conformance tests that fail."""
    found = []
    for name in sorted(n for n in dir(tests) if n.startswith("test_")):
        try:
            getattr(tests, name)()
        except ConformanceError:
            found.append(name)
        except SkipTest:
            continue
    return found


class TestDecay(RuleConformance):
    """Arithmetic inside the reproducible class, with a gradient through messages."""

    state = {"x": FACTORS}  # noqa: RUF012

    def rule(self):
        return Own(
            lambda agents, contacts, step: torch.tanh(
                0.9 * agents.x + torch.log1p(contacts.sum_neighbours(agents.x * agents.x))
            ) * torch.exp(-step.dt * torch.sqrt(agents.x + 1)) / (1 + agents.x)
        )  # fmt: skip


def walk_edges(agents, contacts, step):
    """Messages as a stranger writes them: its own edge list, and x[source]."""
    size = len(agents)
    generator = torch.Generator().manual_seed(1)
    source = (size * torch.rand(20 * size, generator=generator) ** 4).long()
    target = torch.randint(size, (20 * size,), generator=generator).sort().values
    return agents.x / (1 + torch.zeros_like(agents.x).index_add(0, target, agents.x[source]))


def test_indexing_whose_backward_depends_on_threads_is_caught_and_explained():
    tests = conformance(walk_edges)
    with pytest.raises(
        ConformanceError, match=r"index at test_testing.py:\d+.*use x.index_select\(0, index\)"
    ) as caught:
        tests.test_gradients_have_the_same_bits_on_any_number_of_threads()
    assert "gradient with respect to field 'x' of agent" in str(caught.value)
    tests.test_threads_give_the_same_bits()


def test_pow_is_caught_and_explained():
    tests = conformance(lambda agents, contacts, step: agents.x**1.7)
    with pytest.raises(ConformanceError, match=r"field 'x' of agent \d+ \(row \d+\).*pow at test_testing.py") as caught:
        tests.test_every_row_gives_the_same_bits_wherever_it_stands()
    assert "torch.exp(a * torch.log(x))" in str(caught.value)


def test_sigmoid_is_caught_and_explained():
    tests = conformance(lambda agents, contacts, step: torch.sigmoid(4 * agents.x - 2))
    with pytest.raises(ConformanceError, match=r"sigmoid at test_testing.py.*torch.exp\(-x\)"):
        tests.test_every_row_gives_the_same_bits_wherever_it_stands()


def test_a_power_hidden_in_a_probability_is_caught_without_a_flipped_draw():
    def new(agents, contacts, step):
        event = step.bernoulli(1e-9 * agents.x**1.7)
        return agents.x + event.to(torch.float32)

    with pytest.raises(ConformanceError, match="probability 1 of agent"):
        conformance(new).test_every_row_gives_the_same_bits_wherever_it_stands()


def test_a_float_sum_over_rows_is_caught_and_explained():
    tests = conformance(lambda agents, contacts, step: agents.x / agents.x.sum())
    with pytest.raises(ConformanceError, match=r"sum at test_testing.py:\d+.*use step.total"):
        tests.test_shards_give_the_same_bits()


def test_a_rule_that_reads_its_row_is_caught_and_explained():
    tests = conformance(lambda agents, contacts, step: torch.arange(len(agents)) / 1000)
    assert {
        "test_permuting_rows_permutes_the_trajectory",
        "test_shards_give_the_same_bits",
        "test_every_row_gives_the_same_bits_wherever_it_stands",
    } <= set(broken(tests))
    with pytest.raises(ConformanceError, match=r"arange at test_testing.py.*agents.key"):
        tests.test_shards_give_the_same_bits()


def test_a_draw_from_a_global_generator_is_caught_and_explained():
    tests = conformance(lambda agents, contacts, step: torch.rand(len(agents)))
    with pytest.raises(ConformanceError, match=r"rand at test_testing.py.*step.uniform"):
        tests.test_draws_are_keyed()


def test_a_write_in_place_is_refused_by_the_run_itself_naming_rule_field_and_cure():
    def new(agents, contacts, step):
        agents.x[agents.key > 100] += 1.0
        return agents.x

    with pytest.raises(KindError, match=r"'Own' wrote in place into 'x'.*make a new tensor"):
        conformance(new, gradient=None).test_rules_leave_the_state_that_they_read_unchanged()


def test_a_write_through_numpy_is_caught():
    def new(agents, contacts, step):
        agents.x.numpy()[7] = 3.0
        return agents.x.clone()

    with pytest.raises(ConformanceError, match=r"\(row 7\) in place"):
        conformance(new, gradient=None).test_rules_leave_the_state_that_they_read_unchanged()


def test_messages_that_differ_between_forms_are_caught():
    def new(agents, contacts, step):
        return agents.x + (0.5 if contacts.form == "pull" and not torch.is_grad_enabled() else 0.0)

    assert broken(conformance(new)) == ["test_push_and_pull_give_the_same_bits"]


class Add(Own):
    """Adds 1 to those whose key divides by 3, plainly and by a kernel: what the kernel's rows are is `rows`."""

    def __init__(self, rows):
        super().__init__(lambda agents, contacts, step: agents.x + (agents.key % 3 == 0))
        self.rows = rows

    def fused(self, agents, contacts, step):
        rows = self.rows(agents, (agents.key % 3 == 0).nonzero().squeeze(1))
        return rows, {"x": agents.x[rows] + 1}


def adding(rows):
    class Conformance(RuleConformance):
        state, large, gradient = {"x": FACTORS}, 2_000, None

        def rule(self):
            return Add(rows)

    return Conformance()


def test_a_right_kernel_passes():
    assert broken(adding(lambda agents, rows: rows)) == []


def test_a_kernel_that_differs_from_the_plain_rule_is_caught():
    with pytest.raises(ConformanceError, match=r"field 'x' of agent.*as plain torch.*by its kernel"):
        adding(lambda agents, rows: rows[1:]).test_a_kernel_gives_the_same_bits()


def test_a_kernel_that_loses_a_row_on_several_threads_is_caught():
    tests = adding(lambda agents, rows: rows if torch.get_num_threads() == 1 else rows[:-1])
    assert broken(tests) == ["test_threads_give_the_same_bits"]
    with pytest.raises(ConformanceError, match="on 2 threads by the kernels of the rules"):
        tests.test_threads_give_the_same_bits()


def test_a_kernel_that_sums_over_its_own_shard_is_caught():
    class Share(Own):
        def __init__(self):
            super().__init__(lambda agents, contacts, step: agents.x / step.total(agents.x).to(torch.float32))

        def fused(self, agents, contacts, step):
            own = total(Solo(), agents.x).to(torch.float32)
            return torch.arange(len(agents)), {"x": agents.x / own}

    class Conformance(RuleConformance):
        state, large, gradient = {"x": FACTORS}, 2_000, None

        def rule(self):
            return Share()

    assert broken(Conformance()) == ["test_shards_give_the_same_bits"]
    with pytest.raises(ConformanceError, match="on 2 shards by the kernels of the rules"):
        Conformance().test_shards_give_the_same_bits()


A, B = Stages("a", "b")


class HalfMove(Rule):
    """Moves half an agent, which no byte can hold."""

    def forward(self, agents, contacts, step):
        moving = agents.stage.is_(A) * 0.5
        return {"stage": agents.stage.move(A, B, moving)}


def test_half_an_agent_in_a_stage_is_caught():
    class Tests(RuleConformance):
        state = {"stage": A.family}  # noqa: RUF012

        def rule(self):
            return HalfMove()

    with pytest.raises(ConformanceError, match=r"Make stages with agents.stage.move"):
        Tests().test_stages_are_conserved()


def test_a_shard_that_leaves_out_a_collective_is_named_instead_of_hanging():
    def new(agents, contacts, step):
        if int(agents.key.min()) < 10:
            step.total(agents.x)
        return agents.x * 1.0

    with pytest.raises(RunError, match=r"rank \d waits in .*rank \d has ended"):
        conformance(new).test_shards_give_the_same_bits()


def test_what_a_class_does_not_say_is_asked_for():
    with pytest.raises(NotImplementedError, match="must return the Model to test"):
        ModelConformance().test_draws_are_keyed()
    with pytest.raises(NotImplementedError, match="must return the Rule to test"):
        RuleConformance().test_draws_are_keyed()
