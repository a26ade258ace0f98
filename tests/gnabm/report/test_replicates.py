import math
import statistics

import numpy as np
import pandas as pd
import pytest

from gnabm.errors import ConfigError
from gnabm.report import Summary, open_run, write_report
from gnabm.report.page import render
from gnabm.report.replicates import Estimate, Replicates, interval, middle

SEEDS = (9, 5, 7)


@pytest.fixture(scope="module")
def three(tmp_path_factory, stored):
    folder = tmp_path_factory.mktemp("three")
    runs = [stored(folder / f"seed{seed}", seed=seed, infections=True) for seed in SEEDS]
    paths = [path for _, path in runs]
    return [run.to_xarray() for run, _ in runs], paths, write_report(paths)


def table(three, name):
    return pd.read_csv(three[2].parent / "report" / f"{name}.csv")


def test_the_standard_error_is_the_standard_deviation_over_the_root_of_n():
    numbers = [3.0, 5.0, 10.0]
    found = Estimate.of(numbers)
    assert found.mean == 6.0
    assert found.error == pytest.approx(statistics.stdev(numbers) / math.sqrt(3))
    assert Estimate.of([4.0]) == Estimate(4.0, None, 1)


def test_the_headline_is_the_mean_of_the_runs_with_its_error(three, parsed):
    data, _, page = three
    attack = [1 - int(one.stage_count.isel(time=-1, stage=0).sum()) / 400 for one in data]
    peaks = [int(one.incidence.sum(("region", "age_group")).max()) for one in data]
    found = table(three, "headline").set_index("figure")
    for name, values in (("attack_rate", attack), ("peak_infections", peaks)):
        assert found.loc[name, "mean"] == pytest.approx(statistics.mean(values))
        assert found.loc[name, "standard_error"] == pytest.approx(statistics.stdev(values) / math.sqrt(3))
        assert found.loc[name, "runs"] == 3
    text = parsed(page.read_text("utf-8")).words()
    error = statistics.stdev(attack) / math.sqrt(3)
    assert f"{100 * statistics.mean(attack):.2f} % ± {100 * error:.2f}" in text
    assert "seeds 5, 7, 9" in text


def test_curves_are_medians_within_their_interval_and_each_seed_is_kept(three):
    data, _, _ = three
    daily = np.stack([one.incidence.sum(("region", "age_group")).values for one in data])
    curve, each = table(three, "incidence"), table(three, "incidence_by_seed")
    np.testing.assert_allclose(curve.infections_median, np.median(daily, axis=0))
    np.testing.assert_allclose(curve.low_5, np.quantile(daily, 0.05, axis=0))
    np.testing.assert_allclose(curve.high_95, np.quantile(daily, 0.95, axis=0))
    for seed, values in zip(SEEDS, daily, strict=True):
        np.testing.assert_array_equal(each[each.seed == seed].infections, values)


def test_layers_and_groups_are_means_that_add_up(three):
    data, _, _ = three
    daily = np.mean([one.incidence.sum(("region", "age_group")).values for one in data], axis=0)
    np.testing.assert_allclose(table(three, "infections_by_layer").groupby("date").infections_mean.sum(), daily)
    region = table(three, "incidence_by_region_heat").set_index("region")
    both = region.loc["North <i>"].per_100k.to_numpy() * 100 + region.loc["South"].per_100k.to_numpy() * 300
    np.testing.assert_allclose(both / 1e5, daily)


def test_the_page_of_replicates_stands_beside_their_folders(three):
    _, paths, page = three
    assert page == paths[0].resolve().parent / "report.html"


def test_middle_and_interval_leave_gaps_where_a_run_has_none():
    values = np.array([[1.0, np.nan], [3.0, 4.0]])
    np.testing.assert_array_equal(middle(values), [2.0, np.nan])
    low, high = interval(values)
    assert np.isnan(low[1]) and np.isnan(high[1])
    assert (low[0], high[0]) == pytest.approx((1.1, 2.9))


def test_what_changes_no_bit_may_differ_between_replicates(three):
    runs = [Summary.of(open_run(path)) for path in three[1]]
    for number, run in enumerate(runs):
        run.attributes["config"]["run"] |= {"shards": number + 1, "threads": number}
        run.attributes["config"] |= {"record": {"fields": ["stage"] * number, "infections": number == 0}}
    assert Replicates.of(runs, ["a", "b", "c"]).seeds == (5, 7, 9)


@pytest.mark.parametrize(
    ("section", "key", "value", "named"),
    [
        ("parameters", "recovery_rate", 0.2, "parameters.recovery_rate"),
        ("population", "num_agents", 7, "population.num_agents"),
        ("run", "dt", 0.5, "run.dt"),
    ],
)
def test_runs_that_differ_in_more_than_the_seed_are_refused_by_the_key(three, section, key, value, named):
    runs = [Summary.of(open_run(path)) for path in three[1]]
    config = runs[1].attributes["config"]
    runs[1].attributes["config"] = config | {section: config[section] | {key: value}}
    with pytest.raises(ConfigError, match=f"second differs from first in {named}"):
        Replicates.of(runs, ["first", "second", "third"])


def test_a_run_given_twice_is_no_replicate(three):
    with pytest.raises(ConfigError, match="the seed 9 of another run"):
        write_report([three[1][0], three[1][0]])


def test_a_run_that_ended_early_is_no_replicate(tmp_path, stored, three):
    _, early = stored(tmp_path, seed=11, steps=12, config=three[0][0].attrs["config"])
    with pytest.raises(ConfigError, match="12 steps"):
        write_report([three[1][0], early], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_every_unfinished_run_is_named(three, parsed):
    runs = [Summary.of(open_run(path)) for path in three[1]]
    for run, status in zip(runs, ("interrupted", "complete", "failed"), strict=True):
        run.attributes["status"] = status
    text = parsed(render(Replicates.of(runs, list("abc")), [], name="x", folder="report", closing="")).words()
    assert "The run of seed 9 is interrupted : 30 of 30 steps" in text
    assert "The run of seed 7 is failed" in text and "seed 5 is" not in text


def test_tables_by_region_and_age_have_the_columns_of_one_run(three, severe):
    one = severe[1].parent / "report"
    for path in (three[2].parent / "report").glob("*_by_[ra]*.csv"):
        if not path.stem.startswith(("observables", "figures")):  # they have a column for each observable
            assert list(pd.read_csv(path).columns) == list(pd.read_csv(one / path.name).columns), path.stem


def test_the_peak_date_has_its_error(three):
    days = [int(one.incidence.sum(("region", "age_group")).values.argmax()) for one in three[0]]
    peak = table(three, "headline").set_index("figure").loc["peak_infections"]
    assert peak.when_error_days == pytest.approx(statistics.stdev(days) / math.sqrt(3))
    assert pd.Timestamp(peak.when) == three[0][0].time.values[round(statistics.mean(days))]
