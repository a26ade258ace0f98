from datetime import date
from functools import partial

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cluster import run_local
from gnabm import Contacts, Field, Population, simulate
from gnabm.agents import Stages
from gnabm.config import build_model, load
from gnabm.config.changes import alike, build_periods, step_at, stretches
from gnabm.config.schema import Run
from gnabm.errors import ConfigError, DataError, KindError, ShapeError
from gnabm.model import Model, State
from gnabm.models.epidemic import seir, sir
from gnabm.nextgen import Encounters
from gnabm.periods import Period, Snapshot, check_periods

SIR = {
    "model": "epidemic.sir",
    "parameters": {"transmission_rate": 0.3, "recovery_rate": 0.1},
    "population": {"edges": "edges.csv"},
    "run": {"steps": 40, "start": "2022-01-20"},
}


@pytest.fixture
def written(tmp_path):
    def write(changes, **more):
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump({**SIR, "changes": changes, **more}))
        return path

    return write


def problems(path):
    with pytest.raises(ConfigError) as caught:
        load(path)
    return [str(part) for part in caught.value.args]


# The config


def test_changes_hold_one_after_another_from_their_steps_on(written):
    late = {"date": "2022-02-09", "set": {"run.seed": 5, "parameters.recovery_rate": "1.4 per week"}}
    early = {"day": 10, "set": {"parameters.transmission_rate": 0.1}}
    config = load(written([late, early], run={"steps": 80, "start": "2022-01-20", "dt": "12 hours", "seed": 2}))
    first, second = stretches(config)
    assert (first.step, second.step) == (20, 40)
    assert first.config.parameters == {"transmission_rate": 0.1, "recovery_rate": 0.1}
    assert second.config.parameters == {"transmission_rate": 0.1, "recovery_rate": pytest.approx(0.2)}
    assert (first.config.run.seed, second.config.run.seed) == (2, 5)


def test_the_resolved_config_loads_again_to_the_same_changes(written, tmp_path):
    one = {"day": 3, "set": {"parameters.recovery_rate": "1.4 per week"}}
    config = load(written([one, {"date": "2022-02-01", "set": {"run.seed": 9}}]))
    assert config.changes[1].date == date(2022, 2, 1)
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(config.resolved()))
    assert load(path) == config
    assert config.resolved()["changes"][1] == {"date": "2022-02-01", "set": {"run.seed": 9}}


@pytest.mark.parametrize(
    ("changes", "cure"),
    [
        ([{"set": {"run.seed": 3}}], "changes[0]: say when: give one of day"),
        ([{"day": 3, "date": "2022-01-23", "set": {"run.seed": 3}}], "changes[0]: say when: give one of day"),
        ([{"day": 3}], "changes.0.set: missing"),
        ([{"day": 3, "set": {}}], "changes[0].set: is empty; give keys such as"),
        ([{"dya": 3, "set": {"run.seed": 3}}], "did you mean 'day'?"),
        ([{"day": -1, "set": {"run.seed": 3}}], "changes.0.day: expected 0.0 or more"),
        ([{"day": "ten", "set": {"run.seed": 3}}], "changes.0.day: expected a number"),
        ([{"day": 40, "set": {"run.seed": 3}}], "day 40 is outside the run, which has 40 steps"),
        ([{"date": "2022-01-19", "set": {"run.seed": 3}}], "date 2022-01-19 is outside the run"),
        ([{"day": 2.5, "set": {"run.seed": 3}}], "take day 2 or 3"),
        ([{"day": 3, "set": {"run.seed": 3}}, {"date": "2022-01-23", "set": {"run.seed": 4}}],
         "changes[0] and changes[1] hold from the same step; put their keys into one"),
        ([{"day": 3, "set": {"run.steps": 3}}], "changes[0].set.run.steps: cannot change while a run goes on"),
        ([{"day": 3, "set": {"recovery_rate": 3}}], "did you mean 'parameters.recovery_rate'?"),
        ([{"day": 3, "set": {"run.seed": -3}}], "changes[0].set.run.seed: expected 0 or more"),
        ([{"day": 3, "set": {"reproduction_number": "high"}}], "reproduction_number: expected a number"),
        ([{"day": 3, "set": {"parameters.recovery_rat": 1}}], "did you mean 'recovery_rate'?"),
        ([{"day": 3, "set": {"parameters.recovery_rate": -1}}], "changes[0].set.parameters: "),
        ([{"day": 3, "set": {"parameters.recovery_rate.x": 1}}], "parameters.recovery_rate is no mapping, it is 0.1"),
        ([{"day": 3, "set": {"parameters.initial_infected": 0.5}}], "acts only on the initial state"),
        ([{"day": 3, "set": {"parameters.initial_infected": 0.5, "parameters.recovery_rate": 1}}],
         "parameters.initial_infected: acts only on the initial state"),
        ([{"day": 3, "set": {"reproduction_number": 2, "parameters.transmission_rate": 1}}], "give one of the two"),
    ],
)  # fmt: skip
def test_a_change_that_makes_no_sense_is_named_with_the_cure(written, changes, cure):
    (problem,) = problems(written(changes))
    assert cure in problem


def test_a_number_cannot_be_taken_back_without_a_rate(written):
    path = written(
        [{"day": 3, "set": {"reproduction_number": None}}], reproduction_number=2, parameters={"recovery_rate": 0.1}
    )
    assert "parameters.transmission_rate: missing" in problems(path)[0]


def test_a_date_needs_a_calendar(written):
    assert (
        "give run.start, or a day"
        in problems(written([{"date": "2022-01-23", "set": {"run.seed": 3}}], run={"steps": 9}))[0]
    )


@given(st.integers(1, 10**6), st.integers(1, 48))
def test_every_step_is_found_by_its_day(step, parts):
    run = Run(steps=1, dt=1 / parts)
    assert step_at(run, step / parts) == step_at(run, step * run.dt) == step


@pytest.fixture
def aged():
    ages = np.repeat(np.arange(0, 90, 3, dtype=np.uint8), 4)
    number = np.arange(ages.size)
    fields = {"age": Field("age", "age", "years")}
    contacts = Contacts.from_edges(number, np.roll(number, 1), num_agents=ages.size, undirected=True, name="home")
    return Population(ages.size, {"age": ages}, contacts, fields)


def rates(models):
    return [float(model.rules()[0].transmission_rate.detach()) for model in models]


def test_a_transmission_rate_is_derived_where_a_number_is_stated_and_kept_when_others_change(written, aged):
    def encounters(population):
        return {"home": Encounters(np.full((16, 16, 1), 1 / 16), np.ones((16, 16, 1)), "drawn")}

    changes = [
        {"day": 3, "set": {"parameters.recovery_rate": 0.2}},
        {"day": 5, "set": {"reproduction_number": 6}},
        {"day": 7, "set": {"parameters.transmission_rate": 0.01}},
        {"day": 9, "set": {"run.seed": 4}},
    ]
    config = load(written(changes, reproduction_number=3, parameters={"recovery_rate": 0.1}))
    first = build_model(config, aged, encounters)
    (rate,) = rates([first])
    alone = load(written([], reproduction_number=6, parameters={"recovery_rate": 0.2}))
    (other,) = rates([build_model(alone, aged, encounters)])
    periods = build_periods(config, aged, {**config.parameters, "transmission_rate": rate}, encounters)
    assert rates([p.model for p in periods]) == pytest.approx([rate, other, 0.01, 0.01])
    assert [p.step for p in periods] == [3, 5, 7, 9]
    assert [p.seed for p in periods] == [0, 0, 0, 4]


def test_rules_are_alike_when_all_that_they_hold_is():
    given = {"transmission_rate": 0.3, "latent_rate": 0.1, "recovery_rate": 0.1, "layer_weights": {"home": 2.0}}
    assert alike(seir(**given).phases, seir(**given).phases)
    for other in ({"transmission_rate": 0.2}, {"layer_weights": {"home": 1.0}}, {"infectiousness": [1.0, 2.0]},
                  {"susceptibility": [1.0] * 9}):  # fmt: skip
        assert not alike(seir(**given).phases, seir(**{**given, **other}).phases)
    assert alike(np.arange(3), np.arange(3)) and not alike(np.arange(3), np.arange(4))
    assert not alike(np.zeros(2), torch.zeros(2))


def bound(rate, *, share=0.5, itself=False):
    def law(x, power=rate, *, scale=share):
        return law(x) if itself else x * rate * scale * power

    return law


def test_functions_are_alike_when_code_defaults_and_closure_are():
    assert alike(bound(0.3), bound(0.3)) and alike(bound(0.3, itself=True), bound(0.3, itself=True))
    for other in (bound(0.2), bound(0.3, share=0.4), bound(0.3, itself=True)):
        assert not alike(bound(0.3), other)
    one, other = bound(0.3), bound(0.3)
    other.__defaults__ = (0.4,)
    assert not alike(one, other)
    assert not alike(*((lambda x: x + 1), (lambda x: x + 2)))  # one qualified name
    assert alike(partial(bound, 1, share=2), partial(bound, 1, share=2))
    assert not alike(partial(bound, 1), partial(bound, 2)) and not alike(partial(bound, 1), partial(bound, 1, share=2))


def test_objects_that_hold_each_other_are_compared_to_an_end():
    def pair(value):
        one = SimpleLaw(value, None)
        one.other = SimpleLaw(value + 1, one)
        return one

    assert alike(pair(1), pair(1)) and not alike(pair(1), pair(2))


class SimpleLaw:
    """Holds a value and another law."""

    def __init__(self, value, other):
        self.value, self.other = value, other


# The loop


def ring(agents=60):
    one = np.arange(agents)
    return Population.of(Contacts.from_edges(one, (one + 1) % agents, num_agents=agents, undirected=True))


def test_nothing_changes_before_the_step_and_the_new_rates_hold_from_it_on():
    plain = simulate(sir(0.3, 0.1, 0.05), ring(2000), steps=30, seed=4).to_xarray()
    for step in (0, 1, 17, 29):
        changes = [Period(step, sir(0.0, 0.0, 0.9), 4)]
        changed = simulate(sir(0.3, 0.1, 0.05), ring(2000), steps=30, seed=4, changes=changes).to_xarray()
        assert changed.isel(time=slice(step)).equals(plain.isel(time=slice(step)))
        assert int(changed.incidence.isel(time=slice(step, None)).sum()) == 0
        assert (changed.stage_count.isel(time=slice(step, None)).diff("time") == 0).all()
    assert int(plain.incidence.isel(time=slice(29, None)).sum()) > 0


def test_a_seed_changes_the_draws_from_its_step_on_only():
    model = sir(0.3, 0.1, 0.2)
    one = simulate(model, ring(), steps=20, seed=4, record=["stage"])
    other = simulate(model, ring(), steps=20, seed=4, record=["stage"], changes=[Period(8, model, 5)])
    assert (one.fields["stage"][:8] == other.fields["stage"][:8]).all()
    assert (one.fields["stage"][8] != other.fields["stage"][8]).any()


@pytest.mark.parametrize("shards", [2, 3, 7])
def test_changes_give_the_same_bits_on_any_shards(shards):
    changes = [Period(12, sir(0.1, 0.2), 4), Period(5, sir(0.9, 0.1), 9)]
    given = {"steps": 20, "seed": 4, "record": ["stage"], "changes": changes}
    one = simulate(sir(0.3, 0.1, 0.2), ring(), **given)
    many = run_local(sir(0.3, 0.1, 0.2), ring(), shards=shards, **given)
    assert (one.fields["stage"] == many.fields["stage"]).all()
    assert all(torch.equal(one.observed[name], many.observed[name]) for name in one.observed)


def test_each_model_has_the_gradient_of_its_own_time():
    first, second = sir(0.3, 0.1, 0.2), sir(0.2, 0.1, 0.2)
    given = {"seed": 4, "gradient": "straight-through", "changes": [Period(4, second, 4)]}
    for steps, reached in ((4, False), (6, True)):
        for model in (first, second):
            model.zero_grad()
        simulate(first, ring(), steps=steps, **given).observed["incidence"].sum().backward()
        gradient = second.rules()[0].transmission_rate.grad
        assert first.rules()[0].transmission_rate.grad.abs() > 0
        assert (gradient is not None and bool(gradient.abs() > 0)) == reached


@pytest.mark.parametrize(
    ("periods", "error", "cure"),
    [
        ([Period(-1, sir(1, 1), 0)], DataError, "step 0 or later"),
        ([Period(True, sir(1, 1), 0)], KindError, "step of a period must be an integer"),
        ([Period(1, sir(1, 1), 0.5)], KindError, "seed of a period must be an integer"),
        ([Period(1, sir(1, 1), 0), Period(1, sir(1, 1), 0)], DataError, "put what changes there into one"),
        ([Period(1, seir(1, 1, 1), 0)], DataError, "the state 'stage' as Stages"),
        ([Period(1, Model([], state=sir(1, 1).state), 0)], DataError, r"the observables \['stage_count'\]"),
    ],
)
def test_a_period_of_another_kind_is_refused(periods, error, cure):
    with pytest.raises(error, match=cure):
        check_periods(sir(1, 1), periods)


def test_a_state_of_another_model_or_shard_is_refused():
    model = Model([], state={"stage": Stages("S", "I"), "load": State(0.0)})
    good = {"stage": torch.zeros(3, dtype=torch.uint8), "load": torch.zeros(3)}
    observed = {"stage_count": torch.zeros(2, dtype=torch.int64)}
    assert set(Snapshot(1, good, observed).restored(model, 3)) == {"stage", "load"}
    for columns, seen, error, cure in (
        ({"stage": good["stage"]}, observed, DataError, "take a state of its own"),
        (good | {"load": torch.zeros(3, dtype=torch.float64)}, observed, DataError, "take a state of its own"),
        (good | {"stage": torch.full((3,), 2, dtype=torch.uint8)}, observed, DataError, "only 2 stages"),
        (good | {"load": torch.zeros(4)}, observed, ShapeError, "its shard 3"),
        (good, {}, DataError, r"the observables \[\]"),
    ):
        with pytest.raises(error, match=cure):
            Snapshot(1, columns, seen).restored(model, 3)


def test_a_differentiable_run_cannot_begin_from_a_state():
    from gnabm.shard import cut
    from gnabm.simulation import Simulation

    snapshot = Snapshot(1, {"stage": torch.zeros(60, dtype=torch.uint8)}, {})
    with pytest.raises(DataError, match="begin at step 0"):
        Simulation(sir(1, 1), cut(ring()), seed=1, gradient="straight-through", snapshot=snapshot)
