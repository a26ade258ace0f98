import dataclasses

import numpy as np
import pandas as pd
import pytest

from gnabm.infections import open_infections
from gnabm.report import Summary
from gnabm.report.replicates import Replicates
from gnabm.report.spread import Spread, generation_figure, reproduction, secondary_figure, spread_section


def line_list(rows):
    """Rows of agent, step, infector, layer."""
    table = pd.DataFrame(rows, columns=["agent", "step", "infector", "layer"])
    return table.assign(layer=pd.Categorical(table.layer, categories=["home", "work", "Import"]))


# 0 is there at the start and infects 1 and 2; 1 infects 3; 4 is brought in and infects nobody.
CHAIN = [(0, -1, -1, "home"), (1, 1, 0, "home"), (2, 2, 0, "work"), (3, 3, 1, "home"), (4, 3, -1, "Import")]


@pytest.fixture
def summary(reported):
    found = Summary.of(reported[0].to_xarray())
    incidence = np.zeros(30, np.int64)
    incidence[[1, 2, 3]] = 1, 1, 2
    attributes = {**found.attributes, "generation_interval": [0.0, 0.5, 0.5]}
    return dataclasses.replace(found, incidence=incidence, attributes=attributes)


def test_a_chain_of_infections_has_the_figures_that_one_counts(summary):
    spread = Spread.of(line_list(CHAIN), summary)
    assert spread.recorded == 4
    assert spread.layers == {"home": 0.5, "work": 0.25, "Import": 0.25}
    assert spread.generations.tolist() == [0, 0, 2, 1]  # 0 to 1 and 1 to 3 in two steps, 0 to 2 in three
    assert spread.secondary.tolist() == [3, 1, 1]
    np.testing.assert_array_equal(spread.cohort[:5], [np.nan, 1, 0, 0, np.nan])
    assert spread.local.tolist()[:5] == [0, 1, 1, 1, 0]
    assert sum(values.sum() for values in spread.by_layer.values()) == 4


def test_days_whose_cases_are_not_all_in_are_left_out(summary):
    late = line_list([(number, number, -1, "home") for number in range(30)])
    spread = Spread.of(late, summary)
    assert spread.horizon == 3
    assert np.isfinite(spread.cohort[:27]).all() and np.isnan(spread.cohort[27:]).all()
    assert spread.secondary.sum() == 27


def test_infections_from_outside_are_taken_out_of_the_renewal_estimate(summary):
    both = Replicates((summary,))
    plain = reproduction(both, []).table.set_index("date").reproduction_number
    known = reproduction(both, [Spread.of(line_list(CHAIN), summary)]).table
    known = known[known.estimate == "renewal"].reproduction_number if "estimate" in known else None
    # Step 3 has two infections, one brought in; step 1 sends half of its own into step 3.
    assert np.isnan(plain.iloc[:3]).all()
    assert plain.iloc[3] == pytest.approx(2 / 0.5)
    assert known.iloc[3] == pytest.approx(1 / 0.5)


def test_without_line_list_or_generation_interval_there_is_no_section(reported):
    bare = Summary.of(reported[0].to_xarray())
    bare.attributes.pop("generation_interval", None)
    assert spread_section(Replicates((bare,)), []) is None


def test_without_a_line_list_the_page_has_the_renewal_estimate_alone(summary):
    section = spread_section(Replicates((summary,)), [])
    assert [figure.name for figure in section.figures] == ["reproduction_number"]
    assert "record.infections" in section.note


def test_the_generation_interval_stands_beside_that_of_the_model(summary):
    table = generation_figure(Replicates((summary,)), [Spread.of(line_list(CHAIN), summary)]).table
    assert table.days.tolist() == [0, 1, 2, 3]
    assert table.pairs.tolist() == [0, 0, 2, 1]
    assert table.intrinsic.tolist() == [0, 0, 0.5, 0.5]


def test_the_few_who_make_most_cases_are_counted_exactly(summary):
    spread = dataclasses.replace(Spread.of(line_list(CHAIN), summary), secondary=np.array([90.0, 0, 10]))
    assert "Mean 0.20; 8 % of the infected made 80 %" in secondary_figure([spread]).note


def test_the_figures_of_a_run_are_those_of_its_line_list(severe):
    run, page = severe
    found = open_infections(page.parent)
    folder = page.parent / "report"
    shares = pd.read_csv(folder / "share_by_layer.csv").set_index("layer").share
    later = found[found.step >= 0]
    for layer, share in (later.layer.value_counts() / len(later)).items():
        assert shares.get(layer, 0.0) == pytest.approx(share)
    secondary = pd.read_csv(folder / "secondary_cases.csv")
    assert secondary.share.sum() == pytest.approx(1)
    pairs = pd.read_csv(folder / "generation_interval.csv").pairs
    assert pairs.sum() == int((found.infector >= 0).sum())
    assert len(later) == int(run.to_xarray().incidence.sum())
