import dataclasses
import re
from datetime import date
from html.parser import HTMLParser

import numpy as np
import pytest

from gnabm import Contacts, Field, Population, open_trajectory, simulate
from gnabm.errors import StoreError
from gnabm.models.epidemic import sir
from gnabm.report import Summary, render, write_report

CONFIG = {
    "model": "epidemic.sir",
    "parameters": {"recovery_rate": 0.1},
    "population": {"country": "Nowhere & Co"},
    "run": {"steps": 30, "seed": 5},
}
ATTRIBUTES = {
    "name": "two_islands",
    "config": CONFIG,
    "parameters": {"transmission_rate": 0.05},
    "reproduction_number": 2.5,
    "seed": 5,
    "dt_days": 1.0,
    "seconds": 2.5,
    "startup_seconds": 0.5,
    "versions": {"gnabm": "0.1.0", "torch": "2.13.0"},
    "machine": {"processor": "abacus", "cores": 2, "memory_bytes": 2**34},
    "tables": [
        {"name": "regions", "source": "Census <of> islands", "year": 2023, "licence": "CC BY 4.0", "assumed": False},
        {"name": "guesses", "source": "us", "year": None, "licence": "Apache-2.0", "assumed": True},
    ],
}


def population(num_agents=400, grouped=True):
    rng = np.random.default_rng(1)
    pairs = np.unique(rng.integers(0, num_agents, (8 * num_agents, 2)), axis=0)
    source, target = pairs[pairs[:, 0] != pairs[:, 1]].T
    contacts = Contacts.from_edges(source, target, num_agents=num_agents)
    if not grouped:
        return Population.of(contacts)
    region = (np.arange(num_agents) >= num_agents // 4).astype(np.uint8)
    age_group = (np.arange(num_agents) % 3).astype(np.uint8)
    fields = {
        "region": Field("region", "island", categories=("North <i>", "South")),
        "age_group": Field("age_group", "age", categories=("young", "grown", "old")),
    }
    return Population(num_agents, {"region": region, "age_group": age_group}, contacts, fields)


def stored(path, *, grouped=True, start=date(2022, 1, 20), steps=30, dt=1.0, record=(), **attributes):
    run = simulate(
        sir(0.05, 0.1, initial_infected=0.02),
        population(grouped=grouped), steps=steps, seed=5, dt=dt, start=start, record=record,
    )  # fmt: skip
    run = dataclasses.replace(run, attributes={**ATTRIBUTES, "dt_days": dt, **attributes})
    run.save(path / "trajectory.zarr")
    return run, path


class Links(HTMLParser):
    """Every address that a page would fetch, and the text that it shows."""

    def __init__(self):
        super().__init__()
        self.addresses, self.ids, self.text, self.tag = [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tag = tag
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_data(self, data):
        if self.tag not in ("script", "style"):
            self.text.append(data)


def read(page):
    links = Links()
    links.feed(page)
    links.close()
    return links


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    run, path = stored(tmp_path_factory.mktemp("run"))
    return run, write_report(path).read_text("utf-8")


def test_the_page_fetches_nothing(reported):
    _, page = reported
    assert all(address.startswith("data:") for address in read(page).addresses)
    assert page.count("Plotly.newPlot(id") == 1
    css = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in css and "@import" not in css


def test_the_page_shows_the_figures_of_the_run(reported):
    run, page = reported
    data = run.to_xarray()
    daily = data.incidence.sum(("region", "age_group")).values
    susceptible = int(data.stage_count.isel(time=-1, stage=0).sum())
    text = " ".join("".join(read(page).text).split())
    assert f"{100 * (400 - susceptible) / 400:.1f} %" in text
    assert f"{daily.max():,}" in text
    assert f"{daily.sum():,}" in text
    peak = data.time.values[daily.argmax()].astype("datetime64[D]").item()
    assert f"new infections at the peak, {peak.day} {peak:%b %Y}" in text
    for shown in ("Two Islands", "2.5", "abacus", "20 Jan 2022 to 18 Feb 2022", "2.0 s, after 0.5 s", "torch"):
        assert shown in text


def test_tables_are_listed_with_what_is_assumed(reported):
    _, page = reported
    text = "".join(read(page).text)
    assert "Census <of> islands" in text  # escaped in the page, so it is text again here
    assert text.count("assumed") >= 1
    assert "measured" in text


def test_labels_cannot_inject_markup(reported):
    _, page = reported
    body = page[: page.index("<script>")]
    assert "North <i>" not in page
    assert "North &lt;i&gt;" in body


def test_rates_by_region_divide_by_the_region(reported):
    run, _ = reported
    data = run.to_xarray()
    summary = Summary.of(data)
    region = summary.groups["region"]
    assert region.people.tolist() == [100, 300]
    np.testing.assert_allclose(region.per_100k[:, 1], data.incidence.sum("age_group").values[:, 1] / 300 * 1e5)
    assert region.infected.sum() == summary.infected


@pytest.mark.parametrize("start", [date(2022, 1, 20), None])
def test_a_run_without_regions_ages_or_calendar_has_its_curves(tmp_path, start):
    _, path = stored(tmp_path, grouped=False, start=start)
    links = read(write_report(path).read_text("utf-8"))
    assert {"incidence", "stages"} <= set(links.ids)
    assert not {"heat", "age-curves"} & set(links.ids)
    assert ("step 0 to step 29" in "".join(links.text)) == (start is None)


@pytest.mark.parametrize(
    ("dt", "second", "last"), [(0.5, "12:00", "3 Feb 2022 12:00"), (1 / 3, "08:00", "29 Jan 2022 16:00")]
)
def test_steps_of_less_than_a_day_keep_the_time_of_day(tmp_path, dt, second, last):
    _, path = stored(tmp_path, dt=dt)
    summary = Summary.of(open_trajectory(path))
    assert [at.isoformat() for at in summary.time[:2]] == ["2022-01-20T00:00:00", f"2022-01-20T{second}:00"]
    assert len(set(summary.time)) == 30
    assert summary.when(-1) == last
    assert summary.headline()["peak_date"] == summary.time[summary.peak].isoformat()
    assert f"20 Jan 2022 00:00 to {last}" in "".join(read(write_report(path).read_text("utf-8")).text)


def test_a_run_that_recorded_stages_has_its_summary(tmp_path):
    run, path = stored(tmp_path, record=["stage"])
    summary = Summary.of(open_trajectory(path))
    assert summary.stages == ("susceptible", "infectious", "recovered")
    assert summary.stage_count.tolist() == run.to_xarray().stage_count.sum(("region", "age_group")).values.tolist()


def test_an_unfinished_run_says_so(reported):
    run, _ = reported
    summary = dataclasses.replace(Summary.of(run.to_xarray()), attributes={"status": "interrupted", "config": CONFIG})
    assert "30 of 30 steps" in "".join(read(render(summary, name="x")).text)
    assert 'class="banner"' in render(summary, name="x")


def test_a_run_of_no_step_is_refused(tmp_path):
    _, path = stored(tmp_path, steps=0)
    with pytest.raises(StoreError, match="before its first step"):
        write_report(path)
    assert not list(path.glob("*.html"))


def test_a_folder_without_a_trajectory_is_refused(tmp_path):
    with pytest.raises(StoreError, match="gnabm run"):
        write_report(tmp_path)


def test_the_script_data_cannot_close_its_own_tag(reported):
    _, page = reported
    data = page[page.rindex("const charts = ") :]
    assert len(re.findall(r"</script>", data)) == 1
