import pytest
import torch

from gnabm import Contacts, Model, Observable, SeedAtRandom, Stages, count_by_stage, simulate
from gnabm.errors import DataError, KindError, UnknownFieldError
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
