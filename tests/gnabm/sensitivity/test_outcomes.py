import pytest
import torch

from gnabm import simulate
from gnabm.errors import ConfigError, UnknownFieldError
from gnabm.sensitivity import Outcomes

STEPS = 16


@pytest.fixture(scope="module")
def made(model, population):
    return simulate(model, population, steps=STEPS, seed=2)


def outcomes(made, *groups, observable="incidence", window=None):
    return Outcomes.of(made.schema, STEPS, observable, groups, window)


def test_groups_are_sums_of_the_observable_along_all_other_dims(made):
    incidence = made.observed["incidence"].double()  # (time, region, age_group)
    assert outcomes(made, "region")(made.observed).tolist() == incidence.sum((0, 2)).tolist()
    assert outcomes(made, "age_group")(made.observed).tolist() == incidence.sum((0, 1)).tolist()
    assert outcomes(made, "all")(made.observed).tolist() == [incidence.sum().item()]


def test_crossed_groups_have_one_number_for_each_pair(made):
    found = outcomes(made, "region:age_group")
    assert found.names[:2] == ("region north, age_group young", "region north, age_group grown")
    assert found(made.observed).reshape(2, 3).tolist() == made.observed["incidence"].double().sum(0).tolist()


def test_weeks_are_seven_days_and_the_last_may_be_short(made):
    found = outcomes(made, "week")
    assert found.names == ("week 0", "week 1", "week 2")
    by_day = made.observed["incidence"].double().sum((1, 2))
    assert found(made.observed).tolist() == [by_day[:7].sum(), by_day[7:14].sum(), by_day[14:].sum()]


def test_a_window_leaves_out_other_days_and_names_weeks_of_the_run(made):
    found = outcomes(made, "week", "all", window=(8, 15))
    assert found.names == ("week 1", "week 2", "all")
    by_day = made.observed["incidence"].double().sum((1, 2))
    assert found(made.observed).tolist() == [by_day[8:14].sum(), by_day[14:15].sum(), by_day[8:15].sum()]


def test_stages_are_groups_of_the_count_by_stage(made):
    found = outcomes(made, "stage", observable="stage_count", window=(STEPS - 1, STEPS))
    assert found.names == ("stage susceptible", "stage infectious", "stage recovered")
    assert found(made.observed).tolist() == made.observed["stage_count"][-1].double().sum((1, 2)).tolist()


def test_the_sums_are_the_cotangents_times_the_observable(made):
    found = outcomes(made, "region:week", "age_group", window=(3, 12))
    values = made.observed["incidence"].double()
    dotted = torch.einsum("gtra,tra->g", found.cotangents(), values)
    assert dotted.tolist() == found(made.observed).tolist()


def test_unknown_names_and_empty_windows_are_refused(made):
    with pytest.raises(UnknownFieldError, match="did you mean 'region'"):
        outcomes(made, "regoin")
    with pytest.raises(UnknownFieldError, match="did you mean 'incidence'"):
        outcomes(made, "all", observable="incidents")
    with pytest.raises(ConfigError, match="none of the 16 steps"):
        outcomes(made, "all", window=(20, 30))
