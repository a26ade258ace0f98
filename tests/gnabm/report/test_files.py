import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from gnabm.cli.reporting import write_report as ask
from gnabm.errors import OutputExistsError
from gnabm.report import write_report
from gnabm.report.files import MANIFEST, check_folder, folder_of


def csv(severe, name):
    return pd.read_csv(severe[1].parent / "report" / f"{name}.csv")


def test_every_figure_of_the_page_has_an_image_and_a_table(severe):
    files = {entry.name for entry in (severe[1].parent / "report").iterdir()}
    images = {name for name in files if name.endswith(".png")}
    assert len(images) >= 20
    assert {name.replace(".png", ".csv") for name in images} <= files
    for name in images:
        pixels = imread(severe[1].parent / "report" / name)
        assert pixels.shape[1] == 1350 and 300 < pixels.shape[0] < 2500, name
        inside = pixels[60:-20, :, :3]
        assert (inside.min(axis=2) < 0.9).mean() > 0.002, f"{name} shows nothing"


def test_every_table_is_tidy(severe):
    for path in (severe[1].parent / "report").glob("*.csv"):
        table = pd.read_csv(path)
        assert len(table), path
        assert not [column for column in table.columns if column.startswith("Unnamed")], path
        keys = [c for c in table.columns if c in ("date", "step", "stage", "region", "age_group", "layer", "estimate")]
        if keys and path.stem != "sources":
            assert not table.duplicated(keys).any(), path


@pytest.mark.parametrize("dims", [(), ("region",), ("age_group",)])
def test_the_tables_of_observables_add_up_to_the_trajectory(severe, dims):
    data = severe[0].to_xarray()
    table = csv(severe, "_by_".join(["observables", *dims]))
    for name in ("incidence", "deaths", "hospital_admissions", "hospital_occupancy", "icu_occupancy"):
        wanted = data[name].sum([d for d in ("region", "age_group") if d not in dims]).transpose("time", *dims).values
        column = table["infections" if name == "incidence" else name]
        found = column.to_numpy().reshape(*(len(data[d]) for d in dims), len(data.time)).T
        np.testing.assert_array_equal(found, wanted)
    assert pd.to_datetime(table.date).iloc[0] == data.time.values[0]


def test_curves_stages_and_layers_add_up_to_the_trajectory(severe):
    data = severe[0].to_xarray()
    daily = data.incidence.sum(("region", "age_group")).values
    np.testing.assert_array_equal(csv(severe, "incidence").infections, daily)
    np.testing.assert_array_equal(csv(severe, "incidence_by_region").groupby("date")["count"].sum(), daily)
    np.testing.assert_array_equal(csv(severe, "infections_by_layer").groupby("date").infections.sum(), daily)
    stages = csv(severe, "stages")
    assert (stages.groupby("date").agents.sum() == 400).all()
    dead = data.stage_count.sel(stage="dead").sum(("region", "age_group")).values
    np.testing.assert_array_equal(stages[stages.stage == "dead"].agents, dead)
    np.testing.assert_array_equal(csv(severe, "cumulative_deaths").deaths, dead)


def test_rates_of_rare_outcomes_are_those_of_the_last_seven_days(severe):
    deaths = severe[0].to_xarray().deaths.sum("age_group").values
    table = csv(severe, "deaths_by_region_heat").set_index("region").loc["South"].per_100k.to_numpy()
    wanted = [deaths[max(day - 6, 0) : day + 1, 1].sum() / 300 * 1e5 for day in range(len(deaths))]
    np.testing.assert_allclose(table, wanted)


def test_the_attack_rates_by_group_are_those_of_the_stages(severe):
    table = csv(severe, "attack_rate_by_region")
    assert table.infected.sum() == round(csv(severe, "headline").set_index("figure").loc["attack_rate", "mean"] * 400)
    np.testing.assert_allclose(table.attack_rate, table.infected / table.agents)


def test_the_folder_of_a_page_bears_its_name(tmp_path):
    assert folder_of(tmp_path / "report.html").name == "report"
    assert folder_of(tmp_path / "new_zealand.html").name == "new_zealand_report"
    assert folder_of(tmp_path / "first_report.html").name == "first_report"


def test_a_page_elsewhere_has_its_files_beside_it(tmp_path, stored, parsed):
    _, run = stored(tmp_path / "run", grouped=False, steps=3)
    page = write_report(run, tmp_path / "elsewhere" / "a page.html")
    links = parsed(page.read_text("utf-8")).linked
    assert "a%20page_report/incidence.png" in links
    assert (page.parent / "a page_report" / "incidence.png").is_file()
    assert not (run / "report").exists()


def test_a_report_replaces_an_earlier_one_as_a_whole(tmp_path, stored):
    _, run = stored(tmp_path, grouped=False, steps=3)
    write_report(run)
    manifest = run / "report" / MANIFEST
    said = json.loads(manifest.read_text())
    assert set(said["files"]) | {MANIFEST} == {entry.name for entry in (run / "report").iterdir()}
    (run / "report" / "of_an_earlier_version.csv").write_text("a\n1\n")
    manifest.write_text(json.dumps(said | {"files": [*said["files"], "of_an_earlier_version.csv"]}))
    write_report(run)
    assert not (run / "report" / "of_an_earlier_version.csv").exists()
    assert sorted(entry.name for entry in run.iterdir()) == ["report", "report.html", "trajectory.zarr"]


@pytest.mark.parametrize("what", ["file", "foreign", "link", "tables", "beside", "unreadable"])
def test_a_folder_that_no_report_wrote_is_left_alone(tmp_path, stored, what):
    _, run = stored(tmp_path / "run", grouped=False, steps=3)
    folder = run / "report"
    if what == "file":
        folder.write_text("mine")
    elif what == "link":
        (tmp_path / "mine").mkdir()
        folder.symlink_to(tmp_path / "mine")
    else:
        folder.mkdir()
        name = {"foreign": "thesis.tex", "unreadable": MANIFEST}.get(what, "measured.csv")
        (folder / name).write_text("mine")
        if what == "beside":
            (folder / MANIFEST).write_text('{"files": ["incidence.csv"]}')
    with pytest.raises(OutputExistsError, match="--out"):
        check_folder(folder)
    with pytest.raises(OutputExistsError):
        write_report(run)
    assert not (run / "report.html").exists()
    assert what in ("file", "link") or (folder / name).read_text() == "mine"


@pytest.mark.parametrize("broken", ["draw", "replace"])
def test_a_report_that_fails_leaves_the_earlier_page_and_files(tmp_path, stored, monkeypatch, broken):
    _, run = stored(tmp_path, grouped=False, steps=3)
    page = write_report(run)
    before = {path: path.read_bytes() for path in tmp_path.glob("report*/*")} | {page: page.read_bytes()}
    _, _ = stored(tmp_path / "other", grouped=False, steps=4)

    def fail(*_):
        raise OSError("no space left on device")

    if broken == "draw":
        monkeypatch.setattr("gnabm.report.files.draw", fail)
    else:
        monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_report(tmp_path / "other", page)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["other", "report", "report.html", "trajectory.zarr"]


def test_the_figures_by_region_are_those_of_the_trajectory(severe):
    data = severe[0].to_xarray()
    table = csv(severe, "figures_by_region")
    daily = data.incidence.sum("age_group").values
    np.testing.assert_array_equal(table.infections, daily.sum(axis=0))
    np.testing.assert_allclose(table.peak_per_100k, daily.max(axis=0) / table.agents * 1e5)
    assert pd.to_datetime(table.peak_when).tolist() == list(data.time.values[daily.argmax(axis=0)])
    np.testing.assert_array_equal(table.deaths, data.deaths.sum(("time", "age_group")))
    assert table.deaths_error.isna().all()
    headline = csv(severe, "headline").set_index("figure").loc["peak_infections", "when"]
    assert pd.Timestamp(headline) == data.time.values[daily.sum(axis=1).argmax()]


def test_the_page_of_several_runs_is_not_replaced_unasked(tmp_path, stored, capsys):
    runs = [stored(tmp_path / f"seed{seed}", grouped=False, steps=3, seed=seed, population={})[1] for seed in (1, 2)]
    page = tmp_path / "report.html"
    page.write_text("mine")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        ask(runs, None, overwrite=False)
    assert page.read_text() == "mine"
    ask(runs, None, overwrite=True)
    assert capsys.readouterr().out.strip() == str(page) and page.read_text() != "mine"
    ask(runs[:1], None, overwrite=False)
    ask(runs[:1], None, overwrite=False)  # the page of one run is remade at will
