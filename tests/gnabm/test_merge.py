"""What rules return becomes the next state, or is refused naming rule and agent."""

import pytest
import torch

from gnabm import Contacts, Model, Rule, Stage, Stages, State, simulate
from gnabm.errors import ConflictError, DataError, KindError, ShapeError

A, B, C = Stages("a", "b", "c")
EMPTY = Contacts.from_edges([], [], num_agents=6)


class Sets(Rule):
    """Returns `new(agents)` for `field`, for the rows where `key % modulus == 0` if asked."""

    def __init__(self, name, field, how, new, modulus=None):
        super().__init__(name)
        self.writes = {field: how}
        self.field, self.new, self.modulus = field, new, modulus

    def where(self, agents):
        return None if self.modulus is None else agents.key % self.modulus == 0

    def forward(self, agents, contacts, step):
        return {self.field: self.new(agents)}


def run(*rules, gradient=None, state=None):
    """The agents after one step of one phase."""
    declared = state or {"stage": A.family, "x": State(1.0), "n": State(1, torch.int64)}
    model = Model(rules, state=declared, observe=())
    return simulate(model, EMPTY, steps=1, seed=0, gradient=gradient, checkpoint=None).agents


GRADIENT = pytest.mark.parametrize("gradient", [None, "straight-through"])


@GRADIENT
def test_increments_add_up_over_rows(gradient):
    after = run(
        Sets("one", "x", "adds", lambda a: a.key * 1.0),
        Sets("two", "x", "adds", lambda a: torch.full((len(a),), 100.0), modulus=2),
        Sets("three", "n", "adds", lambda a: a.key * 10, modulus=3),
        gradient=gradient,
    )
    assert after.x.tolist() == [101, 2, 103, 4, 105, 6]
    assert after.n.tolist() == [1, 1, 1, 31, 1, 1]


@GRADIENT
def test_new_values_replace_only_the_rows_of_the_rule(gradient):
    after = run(
        Sets("one", "x", "sole", lambda a: a.key + 0.5, modulus=2), Sets("two", "n", "sole", lambda a: -a.key),
        gradient=gradient,
    )  # fmt: skip
    assert after.x.tolist() == [0.5, 1, 2.5, 1, 4.5, 1]
    assert after.n.tolist() == [0, -1, -2, -3, -4, -5]


@GRADIENT
def test_exclusive_moves_of_different_agents_merge(gradient):
    after = run(
        Sets("even", "stage", "exclusive", lambda a: a.stage.move(A, B, a.key % 2 == 0)),
        Sets("five", "stage", "exclusive", lambda a: a.stage.move(A, C, a.key == 5), modulus=5),
        Sets("x even", "x", "exclusive", lambda a: torch.where(a.key % 2 == 0, 7.0, a.x)),
        Sets("x five", "x", "exclusive", lambda a: torch.where(a.key == 5, 9.0, a.x), modulus=5),
        gradient=gradient,
    )
    assert after.stage.codes.tolist() == [1, 0, 1, 0, 1, 2]
    assert after.x.tolist() == [7, 1, 7, 1, 7, 9]
    if gradient:
        assert torch.equal(after.stage.flags, torch.nn.functional.one_hot(after.stage.codes.long(), 3).float())


@GRADIENT
@pytest.mark.parametrize("modulus", [None, 4])
def test_two_rules_that_change_one_agent_are_refused_naming_it(gradient, modulus):
    with pytest.raises(
        ConflictError, match=r"rules 'even' and 'four' both change 'stage' of agent 4 in one step.*exclusive"
    ):
        run(
            Sets("even", "stage", "exclusive", lambda a: a.stage.move(A, B, a.key == 4)),
            Sets("four", "stage", "exclusive", lambda a: a.stage.move(A, C, a.key == 4), modulus),
            gradient=gradient,
        )


def test_an_undeclared_field_is_refused():
    rule = Sets("r", "x", "sole", lambda a: a.x)
    rule.field = "n"
    with pytest.raises(DataError, match=r"rule 'r' returned 'n' but declares writes = {'x': 'sole'}"):
        run(rule)


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("x", lambda a: a.x.double(), KindError, "as torch.float64, expected torch.float32"),
        ("x", lambda a: a.stage, KindError, "as Stage, expected torch.float32"),
        ("stage", lambda a: a.stage.codes, KindError, r"expected a Stage \(agents.stage.move"),
        ("x", lambda a: a.x[:3], ShapeError, r"with shape \(3,\), expected \(6,\)"),
        ("x", lambda a: None, KindError, "as NoneType, expected torch.float32"),
        ("x", lambda a: [1.0] * 6, KindError, "as list, expected torch.float32"),
        ("x", lambda a: a.x.unsqueeze(1), ShapeError, r"with shape \(6, 1\), expected \(6,\)"),
        ("stage", lambda a: a.stage.take(torch.arange(2)), ShapeError, r"with shape \(2,\), expected \(6,\)"),
        (
            "stage",
            lambda a: Stage(a.stage.family, a.stage.codes.unsqueeze(1)),
            ShapeError,
            r"with shape \(6, 1\), expected \(6,\)",
        ),
        (
            "stage",
            lambda a: Stage(a.stage.family, a.stage.codes.long()),
            KindError,
            r"codes of torch.int64, expected torch.uint8.*move",
        ),
        (
            "stage",
            lambda a: Stage(Stages("u", "v"), a.stage.codes),
            KindError,
            r"of Stages\('u', 'v'\), expected Stages",
        ),
    ],
)
def test_values_of_another_kind_or_length_are_refused(field, value, error, message):
    with pytest.raises(error, match=message):
        run(Sets("r", field, "sole", value))


@pytest.mark.parametrize("modulus", [None, 4])
@pytest.mark.parametrize("messages", ["auto", "push", "pull"])
@pytest.mark.parametrize("code", [3, 255])
def test_a_code_outside_the_family_is_refused_naming_rule_and_field(messages, code, modulus):
    def bad(agents):
        codes = agents.stage.codes.clone()
        codes[-1] = code
        return Stage(agents.stage.family, codes)

    with pytest.raises(DataError, match=rf"rule 'bad' returned 'stage' with code {code}.*codes 0 to 2.*move"):
        simulate(
            Model([Sets("bad", "stage", "sole", bad, modulus)], state={"stage": A.family}), EMPTY, steps=1, seed=0,
            messages=messages,
        )  # fmt: skip


FORMS = pytest.mark.parametrize(
    "form", [{}, {"messages": "push"}, {"messages": "pull"}, {"gradient": "straight-through"}], ids=str
)
GROW = Sets("grow", "x", "sole", lambda a: a.x + 1, modulus=1)


@FORMS
@pytest.mark.parametrize("order", ["one phase", "one phase, other way", "before", "after"])
@pytest.mark.parametrize(
    "same",
    [lambda a: a.x, lambda a: a.everyone.x.view(-1, 1)[:, 0], lambda a: torch.from_numpy(a.x.detach().numpy())],
    ids=["column", "view", "numpy"],
)
@pytest.mark.parametrize("modulus", [None, 1])
def test_a_field_that_was_set_to_another_stays_when_the_other_changes(form, order, same, modulus):
    remember = Sets("remember", "y", "sole", same, modulus)
    phases = {"one phase": [GROW, remember], "one phase, other way": [remember, GROW],
              "before": [[remember], [GROW]], "after": [[GROW], [remember]]}[order]  # fmt: skip
    model = Model(phases, state={"x": State(0.0), "y": State(-1.0)}, observe=())
    ran = simulate(model, EMPTY, steps=4, seed=1, record=["x", "y"], **form)
    late = order != "after"
    assert ran.fields["x"][:, 0].tolist() == [1, 2, 3, 4]
    assert ran.fields["y"][:, 0].tolist() == ([0, 1, 2, 3] if late else [1, 2, 3, 4])
    assert ran.agents.y.tolist() == [3.0 if late else 4.0] * 6


@FORMS
def test_a_stage_that_was_set_to_another_stays_when_the_other_changes(form):
    def ahead(agents):
        return agents.stage.move(B, C, agents.key >= 0).move(A, B, agents.key >= 0)

    remember = Sets("remember", "was", "sole", lambda a: a.stage)
    state = {"stage": A.family, "was": A.family}
    model = Model([[remember], [Sets("ahead", "stage", "sole", ahead, modulus=1)]], state=state, observe=())
    ran = simulate(model, EMPTY, steps=3, seed=1, record=["stage", "was"], **form)
    assert ran.fields["stage"][:, 0].tolist() == [1, 2, 2]
    assert ran.fields["was"][:, 0].tolist() == [0, 1, 2]


@FORMS
def test_two_fields_that_were_set_to_one_tensor_go_their_own_ways(form):
    class Both(Sets):
        def forward(self, agents, contacts, step):
            both = agents.x + agents.y
            return {"x": both, "y": both}

    both = Both("both", "x", "sole", None)
    both.writes = {"x": "sole", "y": "sole"}
    model = Model([[both], [GROW]], state={"x": State(1.0), "y": State(1.0)}, observe=())
    ran = simulate(model, EMPTY, steps=2, seed=1, **form).agents
    assert (ran.x[0].item(), ran.y[0].item()) == (6, 5)


def test_a_stage_without_the_flags_of_a_differentiable_run_is_refused():
    rule = Sets("r", "stage", "sole", lambda a: Stage(a.stage.family, a.stage.codes))
    run(rule)
    with pytest.raises(KindError, match=r"without the flags of a differentiable run.*move"):
        run(rule, gradient="straight-through")


def test_a_rule_returns_a_dict():
    rule = Sets("r", "x", "sole", lambda a: a.x)
    rule.forward = lambda agents, contacts, step: agents.x
    with pytest.raises(KindError, match="rule 'r' must return a dict of fields, got Tensor"):
        run(rule)


def test_phases_run_in_order_and_rules_of_a_phase_read_the_same_state():
    double = Sets("double", "x", "sole", lambda a: a.x * 2)
    count = Sets("count", "n", "sole", lambda a: a.x.to(torch.int64))
    state = {"x": State(1.0), "n": State(0, torch.int64)}
    together = simulate(Model([double, count], state=state, observe=()), EMPTY, steps=1, seed=0).agents
    apart = simulate(Model([[double], [count]], state=state, observe=()), EMPTY, steps=1, seed=0).agents
    assert together.n.tolist() == [1] * 6 and apart.n.tolist() == [2] * 6
