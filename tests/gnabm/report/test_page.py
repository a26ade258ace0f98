import dataclasses
import json
import re
from datetime import date

import numpy as np
import pandas as pd
import pytest

from gnabm import open_trajectory
from gnabm.errors import StoreError
from gnabm.models.epidemic import covid, sir
from gnabm.report import Summary, write_report
from gnabm.report.page import render
from gnabm.report.provenance import provenance
from gnabm.report.replicates import Replicates
from gnabm.trajectory import INITIAL


def page_of(reported):
    return reported[1].read_text("utf-8")


@pytest.mark.parametrize("which", ["reported", "severe"])
def test_the_page_fetches_nothing_and_links_to_files_that_exist(which, request, parsed):
    _, path = request.getfixturevalue(which)
    page = path.read_text("utf-8")
    links = parsed(page)
    assert links.fetched and all(address.startswith("data:") for address in links.fetched)
    assert links.linked and all((path.parent / address).is_file() for address in links.linked)
    assert page.count("Plotly.newPlot(id") == 1
    css = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in css and "@import" not in css


def test_every_chart_of_the_data_has_its_place_on_the_page(severe, parsed):
    page = page_of(severe)
    data = page[page.rindex("const charts = ") :]
    keys = set(re.findall(r'"([a-z0-9_-]+)":\{"data":', data))
    assert keys == set(parsed(page).ids)
    assert "NaN" not in data and "Infinity" not in data


def test_the_page_shows_the_figures_of_the_run(reported, parsed):
    run, _ = reported
    data = run.to_xarray()
    daily = data.incidence.sum(("region", "age_group")).values
    susceptible = int(data.stage_count.isel(time=-1, stage=0).sum())
    text = parsed(page_of(reported)).words()
    assert f"{100 * (400 - susceptible) / 400:.1f} %" in text
    assert f"{daily.max():,}" in text
    assert f"{daily.sum():,}" in text
    peak = data.time.values[daily.argmax()].astype("datetime64[D]").item()
    assert f"new infections on the peak day, {peak.day} {peak:%b %Y}" in text
    for shown in (
        "Two Islands",
        "2.5",
        "abacus",
        "20 Jan 2022 to 18 Feb 2022",
        "2.0 s, after 0.5 s",
        "torch",
        "1.00 GiB",
    ):
        assert shown in text


def test_a_run_with_severe_outcomes_says_how_many_and_when(severe, parsed):
    run, _ = severe
    data, text = run.to_xarray(), parsed(page_of(severe)).words()
    assert f"{int(data.deaths.sum()):,} deaths" in text
    for name, said in (("hospital_occupancy", "in hospital"), ("icu_occupancy", "in intensive care")):
        curve = data[name].sum(("region", "age_group")).values
        assert curve.max() > 0
        assert f"{int(curve.max()):,} {said} at the peak" in text


def test_eleven_stages_are_shown_by_family_and_kept_in_the_file(severe, parsed):
    run, path = severe
    page = page_of(severe)
    for family in ("susceptible", "infected", "recovered"):
        assert f'"name":"{family}"' in page
    for outcome in ("in hospital", "in intensive care", "dead"):  # they have figures of their own
        assert f'"name":"{outcome}"' not in page
    assert "Infected: asymptomatic, presymptomatic mild" in parsed(page).words()
    kept = (path.parent / "report" / "stages.csv").read_text().splitlines()
    assert len(kept) == 1 + 11 * run.steps


def test_tables_are_listed_with_what_is_assumed_and_what_is_not_stated(reported, severe, parsed):
    text = parsed(page_of(reported)).words()
    assert "Census <of> islands" in text  # escaped in the page, so it is text again here
    assert "measured" in text and "assumed" in text and "not stated" in text
    assert "Tables behind the disease" not in text
    assert "Tables behind the disease" in parsed(page_of(severe)).words()


def test_labels_cannot_inject_markup(reported):
    page = page_of(reported)
    assert "North <i>" not in page
    assert "North &lt;i&gt;" in page[: page.index("<script>")]


def test_the_script_data_cannot_close_its_own_tag(reported):
    data = page_of(reported)
    assert len(re.findall(r"</script>", data[data.rindex("const charts = ") :])) == 1


def test_rates_by_region_divide_by_the_region(reported):
    data = reported[0].to_xarray()
    summary = Summary.of(data)
    region = summary.groups["region"]
    assert region.people.tolist() == [100, 300]
    np.testing.assert_allclose(region.per_100k[:, 1], data.incidence.sum("age_group").values[:, 1] / 300 * 1e5)
    assert region.infected.sum() == summary.infected


@pytest.mark.parametrize("start", [date(2022, 1, 20), None])
def test_a_run_without_regions_ages_or_calendar_has_its_curves(tmp_path, start, stored, parsed):
    _, path = stored(tmp_path, grouped=False, start=start)
    links = parsed(write_report(path).read_text("utf-8"))
    assert {"incidence", "stages"} <= set(links.ids)
    assert not any("region" in key or "age" in key for key in links.ids if key != "stages")
    assert ("step 0 to step 29" in links.words()) == (start is None)


@pytest.mark.parametrize(
    ("dt", "second", "last"), [(0.5, "12:00", "3 Feb 2022 12:00"), (1 / 3, "08:00", "29 Jan 2022 16:00")]
)
def test_steps_of_less_than_a_day_keep_the_time_of_day(tmp_path, dt, second, last, stored, parsed):
    _, path = stored(tmp_path, dt=dt, grouped=False)
    summary = Summary.of(open_trajectory(path))
    assert [at.isoformat() for at in summary.time[:2]] == ["2022-01-20T00:00:00", f"2022-01-20T{second}:00"]
    assert len(set(summary.time)) == 30
    assert summary.when(-1) == last
    assert summary.headline()["peak_date"] == summary.time[summary.peak].isoformat()
    assert f"20 Jan 2022 00:00 to {last}" in parsed(write_report(path).read_text("utf-8")).words()


def test_a_run_that_recorded_stages_has_its_summary(tmp_path, stored):
    run, path = stored(tmp_path, record=["stage"])
    summary = Summary.of(open_trajectory(path))
    assert summary.stages == ("susceptible", "infectious", "recovered")
    assert summary.stage_count.tolist() == run.to_xarray().stage_count.sum(("region", "age_group")).values.tolist()


def test_an_unfinished_run_says_so(reported, parsed):
    summary = Summary.of(reported[0].to_xarray())
    summary = dataclasses.replace(summary, attributes={**summary.attributes, "status": "interrupted"})
    page = render(Replicates((summary,)), [], name="x", folder="report", closing="")
    assert "30 of 30 steps" in parsed(page).words()
    assert 'class="banner"' in page


def test_a_branch_says_what_it_branched_from(reported, parsed):
    summary = Summary.of(reported[0].to_xarray())
    said = {"branched_from": "/runs/<base>", "day": 12.0}
    summary = dataclasses.replace(summary, attributes={**summary.attributes, **said})
    assert "/runs/<base>, day 12" in parsed(provenance(Replicates((summary,)))).words()


def test_a_run_of_no_step_is_refused_and_leaves_nothing(tmp_path, stored):
    _, path = stored(tmp_path, steps=0)
    with pytest.raises(StoreError, match="before its first step"):
        write_report(path)
    assert [entry.name for entry in path.iterdir()] == ["trajectory.zarr"]


def test_a_run_in_which_nothing_happens_has_a_page(tmp_path, stored, parsed):
    _, path = stored(tmp_path, grouped=False, infections=True, model=sir(0.0, 0.1, initial_infected=0.0))
    text = parsed(write_report(path).read_text("utf-8")).words()
    assert "0.0 %" in text


def test_a_folder_without_a_trajectory_is_refused(tmp_path):
    with pytest.raises(StoreError, match="gnabm run"):
        write_report(tmp_path)


def test_the_attack_rate_is_that_of_the_line_list_and_leaves_out_earlier_immunity(tmp_path, stored):
    model = covid(0.3, initial_infected=0.03, prior_infection={"share": 0.4})
    run, path = stored(tmp_path, steps=40, infections=True, model=model)
    found, listed = Summary.of(open_trajectory(path)), run.infections
    assert found.infected == len(listed) and (listed.step < 0).any()
    assert found.stage_count[0][found.stages.index("recovered")] > 100
    for dim in ("region", "age_group"):
        data = run.to_xarray()
        of = {name: number for number, name in enumerate(found.groups[dim].names)}
        if dim in listed:
            counts = np.bincount([of[str(name)] for name in listed[dim]], minlength=len(of))
            np.testing.assert_array_equal(found.groups[dim].infected, counts)
        assert found.groups[dim].infected.sum() == found.infected
    earlier = data.assign_attrs({k: v for k, v in open_trajectory(path).attrs.items() if k != INITIAL})
    earlier.attrs["config"] = {"parameters": {"prior_infection": {"share": 0.4}}}
    assert Summary.of(earlier).infected == found.infected  # nobody recovers within a day of infection


def test_changes_on_the_way_are_listed_marked_and_bound_what_was_stated(tmp_path, stored, parsed):
    changes = [
        {"date": "2022-02-08", "day": None, "set": {"parameters.recovery_rate": 0.3}},
        {"day": 12, "date": None, "set": {"reproduction_number": 1.1, "run.seed": 4}},
        {"day": 99, "date": None, "set": {"parameters.recovery_rate": 0.2}},
    ]
    config = {"run": {"start": "2022-01-20", "steps": 30}, "changes": changes}
    _, path = stored(tmp_path, config=config, infections=True)
    page = write_report(path)
    text = parsed(page.read_text("utf-8")).words()
    assert "Changes on the way" in text
    assert (
        "1 Feb 2022 12 reproduction_number 1.1 1 Feb 2022 12 run.seed 4 8 Feb 2022 19 parameters.recovery_rate" in text
    )
    assert "day 99, which the run did not reach" in text
    assert "R0 stated, until 1 Feb 2022" in text and "per contact, until 1 Feb 2022" in text
    data = page.read_text("utf-8")
    data = json.loads(data[data.rindex("const charts = ") + 15 : data.rindex(";\nfor (const")])
    for name in ("incidence", "stages", "infections_by_layer", "incidence_by_age"):
        assert [shape["x0"] for shape in data[name]["layout"]["shapes"]] == ["2022-02-01", "2022-02-08"], name
    assert len(pd.read_csv(page.parent / "report" / "changes.csv")) == 4
