"""When an intervention is active: schedules between two days, and triggers that watch an observable."""

from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from gnabm import Contacts, Model, Observable, Stages, State, count_by_stage, simulate
from gnabm.errors import ConfigError, UnknownFieldError
from gnabm.intervention import NEVER, Schedule, Watch, ramp
from gnabm.rule import Rule, Step
from gnabm.sampling import Hard
from gnabm.testing import RuleConformance

NOBODY = Contacts.from_edges([], [], num_agents=10)


def at(day, dt=1.0):
    return Step(round(day / dt), dt, 0, {}, None, "r", SimpleNamespace(), Hard(), None)


def activity(schedule, day, dt=1.0, **keys):
    return schedule.active(None, at(day, dt), **keys)


def test_a_fraction_of_a_day_is_a_fraction_of_the_activity():
    schedule = Schedule(30.4, 33.25)
    assert [activity(schedule, d).item() for d in range(29, 35)] == pytest.approx([0, 0.6, 1, 1, 0.25, 0])


@pytest.mark.parametrize("dt", [0.25, 0.5, 2.0])
def test_an_intervention_lasts_as_long_whatever_the_step(dt):
    schedule = Schedule(4.0, 10.5)
    active = sum(activity(schedule, step * dt, dt).item() * dt for step in range(round(20 / dt)))
    assert active == pytest.approx(6.5)


def test_within_one_step_the_activity_is_the_time_between_start_and_end():
    found = [activity(Schedule(30.5, end), 30).item() for end in (30.5, 30.75, 31.0, 31.5)]
    assert found == pytest.approx([0, 0.25, 0.5, 0.5])
    schedule = Schedule(30.25, 30.75)
    slopes = torch.autograd.grad(activity(schedule, 30), [schedule.start, schedule.end])
    assert [slope.item() for slope in slopes] == [-1, 1]


@pytest.mark.parametrize("start", [3.0, 3.4])
def test_the_slope_in_a_day_is_the_central_difference(start):
    for day in range(7):
        schedule = Schedule(start, 5.0)
        (slope,) = torch.autograd.grad(activity(schedule, day), schedule.start)
        step = 0.125
        up, down = (activity(Schedule(start + s * step, 5.0), day).item() for s in (1, -1))
        assert slope.item() == pytest.approx((up - down) / (2 * step), abs=1e-5)


def test_the_slope_of_a_chance_is_that_from_within():
    x = torch.tensor([-0.5, 0.0, 0.5, 1.0, 1.5], requires_grad=True)
    assert torch.autograd.grad(ramp(x, of_chance=True).sum(), x)[0].tolist() == [0, 0, 1, 1, 0]
    assert torch.autograd.grad(ramp(x).sum(), x)[0].tolist() == [0, 0.5, 1, 0.5, 0]


def test_a_ramp_has_forward_mode_and_batches():
    x = torch.tensor([0.25, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ramp, (x,), check_forward_ad=True, check_batched_grad=True)


def test_a_schedule_is_reached_where_its_slope_is():
    schedule = Schedule(3.0, 5.0)
    reached = [bool(schedule.reached(None, at(d))) for d in range(8)]
    assert reached == [d in (2, 3, 4, 5) for d in range(8)]


@pytest.mark.parametrize("days", [(-1.0, None), (5.0, 3.0), (float("nan"), None)])
def test_days_that_make_no_schedule_are_refused(days):
    with pytest.raises(ConfigError, match="day"):
        Schedule(*days)


# Triggers

(ONLY,) = FAMILY = Stages("only")


class Height(Rule):
    """A level that follows a given curve: the observable that a trigger watches."""

    writes: ClassVar = {"height": "sole"}

    def __init__(self, curve):
        super().__init__()
        self.curve = torch.nn.Parameter(torch.tensor(curve))

    def forward(self, agents, contacts, step):
        level = self.curve[min(step.index, len(self.curve) - 1)] / 10  # of each of ten agents
        return {"height": level.expand(agents.num_agents)}


def watched(curve, steps=None, dt=1.0, **keys):
    """Activity of a trigger day by day."""
    watch = Watch("Watch", "height", keys.pop("above"), keys.pop("days"), **keys)
    state = {"stage": FAMILY, "height": State(0.0), watch.level: State(0.0), watch.start: State(-NEVER)}
    observe = [
        count_by_stage,
        Observable("height", lambda before, after: after.height, by=()),
        Observable("active", lambda before, after: after.Watch_active / 10, by=()),
    ]
    model = Model([[watch], [Height(curve)]], state={**state, watch.active: State(0.0)}, observe=observe)
    return model, watch, simulate(model, NOBODY, steps=steps or len(curve), seed=1, dt=dt, gradient="local-score")


def test_a_trigger_starts_between_two_days_and_ends():
    # At the end of day 2 the level is 40, at the end of day 3 it is 60: it crosses 45 at 3.25, and 4.25 is the start.
    _, _, run = watched([0.0, 20.0, 40.0, 60.0, 60.0, 0.0, 0.0, 0.0, 0.0], above=45.0, days=2.5)
    assert run.observed["active"].tolist() == pytest.approx([0, 0, 0, 0, 0.75, 1, 0.75, 0, 0], abs=1e-5)


def test_the_slopes_of_a_trigger_are_those_of_the_line_through_two_days():
    curve = [0.0, 20.0, 40.0, 60.0, 60.0, 0.0, 0.0]
    model, watch, run = watched(curve, above=45.0, days=50.0)
    active = run.observed["active"].sum()
    rates = torch.autograd.grad(active, [watch.above, watch.delay, model.rules()[1].curve])
    assert [r.sum().item() for r in rates[:2]] == pytest.approx([-1 / 20, -1.0], abs=1e-5)
    # d start / d y_before = (c - y_now) / rise^2, d start / d y_now = -(c - y_before) / rise^2
    assert rates[2].tolist() == pytest.approx([0, 0, 15 / 400, 5 / 400, 0, 0, 0], abs=1e-5)


def test_a_trigger_is_prolonged_while_the_level_stays_above():
    _, watch, run = watched([50.0] * 6 + [0.0] * 6, above=45.0, days=3.0)
    # The crossing lies 0.9 of the first day in, so it begins at 1.9 and would end at 4.9; then it ends at 7.9.
    assert run.observed["active"].tolist() == pytest.approx([0, 0.1, 1, 1, 1, 1, 1, 0.9, 0, 0, 0, 0], abs=1e-5)
    slopes = torch.autograd.grad(run.observed["active"].sum(), [watch.days, watch.above])
    assert [slope.item() for slope in slopes] == pytest.approx([2, 0], abs=1e-5)


def test_a_trigger_is_prolonged_at_once_whatever_its_delay():
    # It crosses at 0.9, begins at 3.9, would end at 6.2, at 8.5, ... and ends at 13.1, after the level has fallen.
    _, _, run = watched([50.0] * 10 + [0.0] * 6, above=45.0, days=2.3, delay=3.0)
    expected = [0, 0, 0, 0.1, *[1] * 9, 0.1, 0, 0]
    found = run.observed["active"].tolist()
    assert found == pytest.approx(expected, abs=1e-5) and max(found) < 1 + 5e-8  # 1, as ten float32


def test_a_trigger_starts_between_two_steps_of_a_week():
    # At day 21 the level is 40, at day 28 it is 60: it crosses 45 at 22.75, and is active from 29.75 to 39.75.
    curve = [0.0, 20.0, 40.0, 60.0, 0.0, 0.0, 0.0]
    _, watch, run = watched(curve, dt=7.0, above=45.0, days=10.0, delay=7.0)
    assert run.observed["active"].tolist() == pytest.approx([0, 0, 0, 0, 0.75, 4.75 / 7, 0], abs=1e-5)
    slope = torch.autograd.grad(run.observed["active"].sum(), watch.days)[0].item()
    assert slope == pytest.approx(1 / 7)


def test_a_delay_shorter_than_a_step_is_refused():
    with pytest.raises(ConfigError, match=r"when\.delay: 1 days .* step of 7 days begins; give delay: 7 or more"):
        watched([0.0], dt=7.0, above=45.0, days=10.0)


def test_a_trigger_begins_again_at_a_later_crossing():
    _, _, run = watched([50.0, 50.0, 0.0, 0.0, 0.0, 50.0, 50.0, 50.0, 0.0, 0.0, 0.0], above=25.0, days=2.0)
    assert run.observed["active"].tolist() == pytest.approx([0, 0.5, 1, 0.5, 0, 0, 0.5, 1, 1, 1, 0.5], abs=1e-5)


def test_a_level_that_never_passes_triggers_nothing():
    _, _, run = watched([45.0] * 5, above=45.0, days=3.0)
    assert run.observed["active"].tolist() == [0] * 5


def test_a_threshold_can_be_per_100_000_residents():
    _, _, run = watched([0.0, 1.0, 1.0, 1.0], above=5_000.0, days=9.0, relative=True)  # half a resident of ten
    assert run.observed["active"].tolist() == pytest.approx([0, 0, 0.5, 1], abs=1e-5)


def test_what_cannot_be_watched_is_refused():
    with pytest.raises(ConfigError, match=r"when\.delay: expected a number >= 1, got 0"):
        Watch("Watch", "height", 1.0, 3.0, delay=0.0)
    state = {"stage": FAMILY, "W_level": State(0.0), "W_start": State(-NEVER), "W_active": State(0.0)}
    with pytest.raises(UnknownFieldError, match="hight is none of the model's"):
        simulate(Model([Watch("W", "hight", 1.0, 3.0)], state=state), NOBODY, steps=1, seed=1)


class TestWatchConformance(RuleConformance):
    """A trigger of each region is the same in all forms of a run."""

    small = 1_000
    large = 20_000
    gradient = "local-score"
    state: ClassVar = {
        "stage": FAMILY, "W_level": State(0.0), "W_start": State(-NEVER), "W_active": State(0.0),
    }  # fmt: skip

    def rule(self):
        return Watch("W", "children", 100.0, 3.0, by_region=True)

    def model(self):
        children = Observable("children", lambda before, after: after.age_group == 0, by=("region",))
        return Model([self.rule()], state=self.state, observe=[count_by_stage, children])
