"""The audit names the rule, line and operation where a chain of gradients breaks."""

import pytest
import torch
from torch import nn

import gnabm
from gnabm import Contacts, Mixing, Model, Rule, SeedAtRandom, State, count_by_stage
from gnabm.errors import KindError, UnknownFieldError
from gnabm.model import Observable
from gnabm.models.epidemic import SIR, Leave, seir, sir

SUSCEPTIBLE, INFECTIOUS, RECOVERED = SIR
SIZE = 400
POOL = Contacts({"pool": Mixing.uniform(SIZE, 10.0)}, SIZE)


class Catch(Rule):
    """Infection, with something done to the hazard on the way."""

    infects = True

    def __init__(self, spoil):
        super().__init__()
        self.rate, self.spoil = nn.Parameter(torch.tensor(0.02)), spoil

    def where(self, agents):
        return agents.stage.is_(SUSCEPTIBLE)

    def forward(self, agents, contacts, step):
        hazard = self.rate * contacts["pool"].sum_neighbours(agents.everyone.stage.is_(INFECTIOUS))
        p = -torch.expm1(-self.spoil(hazard))
        return {"stage": agents.stage.move(SUSCEPTIBLE, INFECTIOUS, step.bernoulli(p))}


def leave():
    return Leave(0.1, INFECTIOUS, RECOVERED, "Recover")


def model(spoil):
    return Model(
        [Catch(spoil), leave()], state={"stage": SIR}, initial=SeedAtRandom(SUSCEPTIBLE, INFECTIOUS, 0.02),
        observe=[count_by_stage],
    )  # fmt: skip


def no_grad(x):
    with torch.no_grad():
        return x * 2


def overwrite(x):
    x = x * 1
    x[:] = 0.05
    return x


def spoil_what_autograd_needs(x):
    y = torch.exp(x)
    y.mul_(y)
    return (y - 1) / 10


BREAKS = {
    "comparison": lambda x: 0.1 * (x > 0.05),
    ".detach()": lambda x: x.detach(),
    ".data": lambda x: x.data,
    "Python number (item)": lambda x: torch.full_like(x, x.mean().item()),
    "Python number (float)": lambda x: torch.full_like(x, float(x.mean())),
    "Python number (int)": lambda x: torch.full_like(x, int(x.mean() * 100) / 100),
    "Python number (tolist)": lambda x: torch.tensor(x.tolist()),
    "rounding": lambda x: torch.round(x * 10) / 10,
    "integer cast": lambda x: (x * 10).int() / 10,
    "in-place write (setitem)": overwrite,
    "torch.no_grad": no_grad,
}


@pytest.mark.parametrize("kind", BREAKS)
def test_a_chain_that_is_broken_in_a_rule_is_named(kind):
    rows = gnabm.audit(model(BREAKS[kind]), POOL, steps=6, observables=["stage_count.recovered"])
    found = {row.parameter: row for row in rows}
    broken = found["Catch.rate"]
    assert not broken.connected and broken.through_time is None
    line = BREAKS[kind].__code__.co_firstlineno
    assert kind in broken.broken_at and broken.served_by == "forward differences"
    assert broken.broken_at.startswith("Catch, test_audit.py:")
    assert abs(int(broken.broken_at.split(":")[1]) - line) <= 3
    assert found["Recover.rate"].connected


def test_a_write_into_what_autograd_needs_is_named():
    rows = gnabm.audit(model(spoil_what_autograd_needs), POOL, steps=3, observables=["stage_count.recovered"])
    assert not any(row.connected for row in rows)
    assert all("in-place write (mul)" in row.broken_at for row in rows)


def test_a_write_into_the_state_is_named():
    class Write(Rule):
        def forward(self, agents, contacts, step):
            agents.stage.codes[0] = 1
            return {}

    spoiled = Model([Write(), leave()], state={"stage": SIR}, initial=SeedAtRandom(SUSCEPTIBLE, INFECTIOUS, 0.02))
    (row,) = gnabm.audit(spoiled, POOL, steps=2, parameters=["Recover.rate"], observables=["stage_count.recovered"])
    assert not row.connected
    assert row.broken_at.startswith("Write, test_audit.py:") and "in-place write" in row.broken_at


def test_what_a_run_refuses_for_another_reason_is_raised():
    class Wrong(Rule):
        def forward(self, agents, contacts, step):
            return {"stage": torch.zeros(1)}

    with pytest.raises(KindError, match="expected a Stage"):
        gnabm.audit(Model([[Wrong()], [leave()]], state={"stage": SIR}), POOL, steps=2)


def test_a_whole_chain_has_no_break_and_its_share_through_time_is_told():
    rows = gnabm.audit(sir(0.02, 0.1, 0.02), POOL, steps=8)
    found = {(row.parameter, row.observable): row for row in rows}
    assert all(row.connected and row.broken_at is None and row.served_by == "local-score" for row in rows)
    assert found["SeedAtRandom.share", "stage_count.recovered"].through_time == 1
    assert 0 < found["Infect.transmission_rate", "incidence"].through_time < 1
    assert found["Recover.rate", "incidence"].through_time == 1
    assert set(rows[0].to_dict()) >= {"parameter", "observable", "connected", "through_time", "broken_at"}


class Drift(Rule):
    """A number that grows, with or without its gradient."""

    writes = {"level": "sole"}  # noqa: RUF012

    def __init__(self, keep):
        super().__init__()
        self.rate, self.keep = nn.Parameter(torch.tensor(0.5)), keep

    def forward(self, agents, contacts, step):
        before = agents.level if self.keep else agents.level.detach()
        return {"level": before * 0.9 + self.rate}


def drifting(keep):
    level = Observable("level", lambda before, after: after.level, by=())
    return Model([Drift(keep)], state={"level": State(1.0)}, observe=[level])


def test_a_chain_that_is_broken_in_time_alone_is_connected_but_not_through_time():
    (whole,) = gnabm.audit(drifting(True), POOL, steps=5)
    (cut,) = gnabm.audit(drifting(False), POOL, steps=5)
    # d level_t / d rate is (1 - 0.9^t) / 0.1, of which 1 is direct.
    total = sum((1 - 0.9**t) / 0.1 for t in range(1, 6))
    assert whole.through_time == pytest.approx(1 - 5 / total, abs=1e-5) and whole.broken_at is None
    assert cut.connected and cut.through_time == 0
    assert cut.broken_at.startswith("Drift, test_audit.py:") and ".detach()" in cut.broken_at


def test_why_nothing_gets_through_is_told_where_no_line_is_at_fault():
    nobody = gnabm.audit(sir(0.02, 0.1, [0]), POOL, steps=1, observables=["stage_count.recovered"], seed=3)
    assert {row.broken_at.partition(":")[0] for row in nobody} == {"nothing to count"}
    assert {row.served_by for row in nobody} == {"unknown in this run"}
    zero = gnabm.audit(sir(0.0, 0.1, 0.02), POOL, steps=4, observables=["stage_count.infectious"])
    assert "the value is 0" in next(row.broken_at for row in zero if row.parameter == "Infect.transmission_rate")


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        return grad * 2


def test_an_operation_with_a_gradient_of_its_own_breaks_nothing():
    rows = gnabm.audit(model(Doubled.apply), POOL, steps=6, observables=["stage_count.recovered"])
    assert all(row.connected and row.broken_at is None for row in rows)


def test_a_closure_of_strength_0_is_not_blamed_for_where_its_start_leads_nowhere():
    closed = seir(
        0.02, 0.5, 0.1, 0.02, interventions=[{"close": ["pool"], "strength": 0.0, "start": 2, "name": "Shut"}]
    )  # fmt: skip
    rows = gnabm.audit(closed, POOL, steps=6, parameters=["Infect.closures.*"], observables=["incidence"])
    found = {row.parameter.rpartition(".")[2]: row for row in rows}
    assert found["strength"].connected and found["strength"].served_by == "local-score"
    assert not found["start"].connected and found["start"].served_by == "unknown in this run"
    assert ".py" not in found["start"].broken_at


def test_names_that_are_unknown_are_refused():
    with pytest.raises(UnknownFieldError, match="no parameter matches"):
        gnabm.audit(sir(0.02, 0.1), POOL, steps=2, parameters=["Infekt.*"])
    with pytest.raises(UnknownFieldError, match="there is no outcome 'deaths'"):
        gnabm.audit(sir(0.02, 0.1), POOL, steps=2, observables=["deaths"])
