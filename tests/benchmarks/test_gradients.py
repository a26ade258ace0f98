import pytest

from benchmarks.gradients import COLUMNS, FORWARD, GRAPH, PARAMETERS, Case, cells, model, population, work
from gnabm.parameters import Parameters


def test_forward_mode_is_measured_in_all_parameters_of_the_model():
    assert sorted(PARAMETERS) == sorted(Parameters.of(model()).names) and len(PARAMETERS) == 8


def test_everyone_has_a_home_and_a_site():
    layers = population(500).contacts.layers
    assert all((layers[name].place >= 0).all() for name in ("home", "site"))


def test_a_row_says_how_many_runs_without_gradient_it_took():
    found = {"run": 3.0, "back": 4.5, "peak": 2**30, "start": 2**29}
    row = dict(zip(COLUMNS, cells(Case(GRAPH, 10, 5, "local-score"), found, {(FORWARD, 5): 1.5}), strict=True))
    assert row["x forward"] == "5.00" and row["peak RSS"] == "1.00 GiB"
    assert row["x run"] == "-"


@pytest.mark.parametrize("mode", [FORWARD, GRAPH])
def test_each_mode_runs(mode):
    run, back = work(Case(mode, 500, 2, "local-score"), population(500))
    assert run > 0 and (back > 0) == (mode == GRAPH)
