"""Observables: what is refused, how groups are named, and that those who moved tell what a look at everyone would."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gnabm import Agents, Contacts, Model, Observable, SeedAtRandom, Stages, count_by_stage, simulate
from gnabm.agents import Stage
from gnabm.errors import DataError, KindError, ShapeError, UnknownFieldError
from gnabm.local import on_shards
from gnabm.model import Leavers, StageCount
from gnabm.models.covid import Entered, Within
from gnabm.models.epidemic import covid
from gnabm.observe import Observer
from gnabm.shard import cut
from gnabm.testing import awkward_population

S, I = FAMILY = Stages("S", "I")  # noqa: E741
NOBODY = Contacts.from_edges([], [], num_agents=40)


def model(*observe):
    return Model([], state={"stage": FAMILY}, initial=SeedAtRandom(S, I, 0.5), observe=observe)


def test_stages_are_counted_under_any_name():
    again = Observable("again", count_by_stage.value, counts="stage")
    run = simulate(model(count_by_stage, again), NOBODY, steps=2, seed=1).to_xarray()
    assert run.again.dims == ("time", "stage")
    assert (run.again.values == run.stage_count.values).all()
    assert run.again.isel(time=0).sum() == 40


def test_a_stage_without_counts_is_refused():
    with pytest.raises(KindError, match="counts=None"):
        simulate(model(Observable("again", count_by_stage.value)), NOBODY, steps=1, seed=1)


def test_counting_what_is_no_stage_is_refused_when_the_model_is_built():
    with pytest.raises(DataError, match="no stage of the model"):
        model(Observable("again", count_by_stage.value, counts="age"))


def test_a_value_per_agent_is_summed_exactly():
    tenth = Observable("tenth", lambda before, after: torch.full((after.num_agents,), 0.125), unit="litres")
    assert simulate(model(tenth), NOBODY, steps=1, seed=1).observed["tenth"].item() == 5.0


def tenth(by):
    return Observable("tenth", lambda before, after: torch.full((after.num_agents,), 0.125), by=by)


def test_an_unknown_label_that_is_named_is_refused_with_the_nearest():
    with pytest.raises(UnknownFieldError, match=r"'regoin'.*did you mean 'region'.*known: age_group, region"):
        simulate(model(tenth(("regoin",))), awkward_population(60), steps=1, seed=1)
    with pytest.raises(UnknownFieldError, match=r"'area'.*with categories"):
        simulate(model(tenth(("area",))), awkward_population(60), steps=1, seed=1)
    with pytest.raises(UnknownFieldError, match=r"'region'.*known: nothing"):
        simulate(model(tenth(("region",))), NOBODY, steps=1, seed=1)


def test_labels_as_one_string_are_refused():
    with pytest.raises(KindError, match=r"write \('region',\)"):
        simulate(model(tenth("region")), awkward_population(60), steps=1, seed=1)


def test_only_the_default_labels_are_left_out_where_a_population_lacks_them():
    run = simulate(model(count_by_stage, tenth(())), NOBODY, steps=1, seed=1).to_xarray()
    assert run.stage_count.dims == ("time", "stage") and run.tenth.dims == ("time",)
    run = simulate(model(tenth(("age_group", "region"))), awkward_population(60), steps=1, seed=1).to_xarray()
    assert run.tenth.dims == ("time", "age_group", "region") and run.tenth.sum() == 60 * 0.125


# Those who moved

COURSE = U, E, C, D = Stages("U", "E", "C", "D")
MOOD = Stages("calm", "afraid", "bored")
PEOPLE = awkward_population(203)
GROUPINGS = st.sampled_from([("region", "age_group"), ("age_group",), ()])


def shipped(by=("region", "age_group")):
    values = {
        "left": Leavers(U),
        "entered": Entered(D),
        "again": Entered(U),
        "within": Within(E, C, C),
        "dead": Within(D),
    }
    return [
        Observable("courses", StageCount("stage"), by, counts="stage"),
        Observable("moods", StageCount("mood"), by, counts="mood"),
        *(Observable(name, value, by) for name, value in values.items()),
    ]


def history(shard, steps, share, seed):
    """The agents of a shard after each step, in which a share of all take any stage and mood."""
    rng = np.random.default_rng(seed)
    codes = {}
    for _ in range(steps + 1):
        for name, family in (("stage", COURSE), ("mood", MOOD)):
            drawn = rng.integers(0, len(family), PEOPLE.num_agents).astype(np.uint8)
            codes[name] = np.where(rng.random(PEOPLE.num_agents) < share, drawn, codes.get(name, drawn))
        mine = {n: torch.from_numpy(c[shard.first_row : shard.first_row + shard.num_owned]) for n, c in codes.items()}
        columns = {"stage": Stage(COURSE, mine["stage"]), "mood": Stage(MOOD, mine["mood"])}
        yield Agents({"key": torch.arange(shard.num_owned), **columns})


def observed(shard, observables, *, steps=3, share=0.3, seed=0, plain=False, begin=0):
    """Observables of each step from `begin` on; step 0 is the initial state, compared with itself."""
    observer = Observer(observables, shard, plain=plain)
    agents = list(history(shard, steps, share, seed))
    with torch.no_grad():
        return [observer(agents[max(step - 1, 0)], agents[step]) for step in range(begin, steps + 1)]


def same(one, other):
    assert len(one) == len(other)
    for here, there in zip(one, other, strict=True):
        assert list(here) == list(there)
        for name in here:
            assert here[name].dtype == there[name].dtype == torch.int64
            assert here[name].shape == there[name].shape and torch.equal(here[name], there[name]), name


@settings(max_examples=40)
@given(GROUPINGS, st.sampled_from([0, 0.01, 0.3, 1]), st.integers(0, 99))
def test_those_who_moved_tell_what_a_look_at_everyone_would(by, share, seed):
    shard = cut(PEOPLE)
    expected = observed(shard, shipped(by), share=share, seed=seed, plain=True)
    assert int(expected[-1]["courses"].sum()) == PEOPLE.num_agents
    same(observed(shard, shipped(by), share=share, seed=seed), expected)
    # An observer of a new period, or of a run that goes on from a state, has not seen what came before.
    same(observed(shard, shipped(by), share=share, seed=seed, begin=2), expected[2:])


@pytest.mark.parametrize("bounds", [(0, 100, 203), (0, 1, 2, 203), (0, 7, 50, 51, 99, 120, 160, 203)])
def test_the_moves_of_shards_add_up(bounds):
    expected = observed(cut(PEOPLE), shipped(), plain=True)
    for found in on_shards(len(bounds) - 1, lambda group: observed(cut(PEOPLE, group, bounds), shipped())):
        same(found, expected)


def test_differently_grouped_and_plain_observables_stand_side_by_side():
    mixed = [
        *shipped(), Observable("all", StageCount("stage"), (), counts="stage"),
        Observable("gone", Leavers(U), ("region",)),
        Observable("any", lambda before, after: before.stage.codes != after.stage.codes, ("age_group",)),
        Observable("codes", lambda before, after: after.mood.codes.to(torch.int64)),
    ]  # fmt: skip
    shard = cut(PEOPLE)
    same(observed(shard, mixed), observed(shard, mixed, plain=True))
    assert Observer(mixed, shard).needs_before and Observer(shipped(), shard, plain=True).needs_before
    assert not Observer(shipped(), shard).needs_before and not Observer([], shard).needs_before


class LeftAndCold(Leavers):
    def __call__(self, before, after):
        return super().__call__(before, after) & (after.mood.codes == 0)


class Weighed(Leavers):
    def __call__(self, before, after):
        return super().__call__(before, after) * 0.5

    def of_moves(self, counts, moves):
        return super().of_moves(counts, moves)


class Flat(Leavers):
    def of_moves(self, counts, moves):
        return super().of_moves(counts, moves).sum()


def test_a_subclass_that_is_called_otherwise_is_asked_of_everyone():
    shard, cold = cut(PEOPLE), [Observable("cold", LeftAndCold(U))]
    assert Observer(cold, shard).needs_before
    same(observed(shard, cold), observed(shard, cold, plain=True))
    assert int(observed(shard, cold)[-1]["cold"].sum()) < int(observed(shard, shipped())[-1]["left"].sum())


def test_what_does_not_count_agents_has_no_moves():
    shard = cut(PEOPLE)
    with pytest.raises(KindError, match=r"'half' has of_moves.*float32"):
        observed(shard, [Observable("half", Weighed(U))])
    with pytest.raises(ShapeError, match=r"'flat' must return \(27,\) int64, got \(\)"):
        observed(shard, [Observable("flat", Flat(U))])
    with pytest.raises(UnknownFieldError, match="no stage of"):
        observed(shard, [Observable("other", Leavers(S))])


def test_an_observable_and_its_value_look_at_one_field():
    for observable in (Observable("mood", StageCount("stage"), counts="mood"), Observable("mood", StageCount("moood"))):
        with pytest.raises(DataError, match="name one field in both"):
            Model([], state={"stage": COURSE, "mood": MOOD}, observe=[observable])


def test_covid_counts_alike_in_all_forms_of_a_run():
    people = awkward_population(3000)
    model = covid(0.3, initial_infected=0.05)
    runs = [simulate(model, people, steps=25, seed=3, messages=form).observed for form in ("auto", "push", "pull")]
    assert int(runs[0]["incidence"].sum()) > 500 and int(runs[0]["hospital_admissions"].sum()) > 0
    for other in runs[1:]:
        assert all(torch.equal(other[name], value) for name, value in runs[0].items())
