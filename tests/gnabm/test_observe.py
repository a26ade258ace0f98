import pytest
import torch

from gnabm import Contacts, Model, Observable, SeedAtRandom, Stages, count_by_stage, simulate
from gnabm.errors import DataError, KindError

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
