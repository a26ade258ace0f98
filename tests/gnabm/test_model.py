"""What a model refuses when it is built, and what it says about itself."""

import pytest
import torch

from gnabm import Model, Rule, Stages, State, count_by_stage
from gnabm.errors import ConflictError, DataError, KindError
from gnabm.models.epidemic import sir
from gnabm.rule import SeedAtRandom

S, I = Stages("s", "i")  # noqa: E741
STATE = {"stage": S.family, "x": State(0.0), "n": State(3, torch.int32, "a count", "visits")}


def rule(name, **writes):
    """A rule of that name that says what it writes."""
    made = Rule(name)
    made.writes = writes
    return made


@pytest.mark.parametrize(
    "hows", [("sole", "sole"), ("sole", "adds"), ("adds", "exclusive"), ("sole", "exclusive"), ("adds", "adds", "sole")]
)
def test_two_writers_of_a_field_that_do_not_say_how_are_refused(hows):
    rules = [rule(f"r{k}", x=how) for k, how in enumerate(hows)]
    with pytest.raises(ConflictError, match=r"r0, r1.* all write 'x'.*different phases"):
        Model(rules, state=STATE)
    Model([[r] for r in rules], state=STATE)  # in different phases they may


@pytest.mark.parametrize("how", ["adds", "exclusive"])
def test_two_writers_that_say_how_are_accepted(how):
    assert len(Model([rule("a", x=how), rule("b", x=how)], state=STATE).rules()) == 2


def test_a_field_that_is_not_declared_is_refused():
    with pytest.raises(DataError, match="rule 'a' writes 'y', which the model does not declare"):
        Model([rule("a", y="sole")], state=STATE)
    with pytest.raises(DataError, match="writes 'y'"):
        Model([], initial=rule("a", y="sole"), state=STATE)


def test_rules_of_one_name_would_share_draws():
    with pytest.raises(ConflictError, match="two rules are named 'a'"):
        Model([[rule("a", x="sole")], [rule("a", n="sole")]], state=STATE)
    with pytest.raises(ConflictError, match="two rules are named 'a'"):
        Model([rule("a", x="sole")], initial=rule("a", n="sole"), state=STATE)


def test_observables_of_one_name_are_refused():
    with pytest.raises(ConflictError, match="different names"):
        Model([], state=STATE, observe=[count_by_stage, count_by_stage])


def test_what_is_no_rule_is_refused():
    with pytest.raises(KindError, match="made of Rule objects, got function"):
        Model([lambda agents: {}], state=STATE)


def test_a_flat_list_is_one_phase_and_a_nested_one_several():
    a, b = rule("a", x="sole"), rule("b", n="sole")
    assert [len(p) for p in Model([a, b], state=STATE).phases] == [2]
    assert [len(p) for p in Model([[a], [b]], state=STATE).phases] == [1, 1]


def test_a_model_shows_its_phases():
    shown = repr(sir(0.1, 0.2))
    assert "phase 0: Infect writes stage (exclusive)" in shown
    assert "initial: SeedAtRandom" in shown and "observes stage_count, incidence" in shown


def test_parameters_are_those_of_the_rules():
    assert {n.split(".")[-1] for n, _ in sir(0.1, 0.2).named_parameters()} == {"transmission_rate", "rate", "share"}


def test_the_state_starts_as_declared():
    columns = Model([], state=STATE).columns(4)
    assert columns["x"].tolist() == [0.0] * 4 and columns["n"].tolist() == [3] * 4
    assert columns["n"].dtype == torch.int32 and columns["stage"].codes.tolist() == [0] * 4
    fields = Model([], state=STATE).fields()
    assert fields["stage"].categories == ("s", "i") and fields["n"].unit == "visits"


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_an_initial_share_outside_0_and_1_is_refused(share):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        SeedAtRandom(S, I, share)
