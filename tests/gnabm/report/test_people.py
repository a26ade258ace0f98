import json
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest

from gnabm.models.epidemic import covid
from gnabm.report import write_report
from gnabm.report.figure import Citation
from gnabm.report.people import fidelity_frame, population_section
from gnabm.report.provenance import citations

CENSUS = {"name": "census", "source": "Office <for> counting", "year": 2020, "licence": "CC BY 4.0", "assumed": False}


def record(achieved, source, labels=None, **more):
    return {
        "name": "people by age", "unit": "people", "labels": labels, "achieved": achieved, "source": source,
        "error": 0.01, "measure": "largest difference", "tolerance": 0.1, "within": True, "citation": CENSUS, **more,
    }  # fmt: skip


RECORDS = {
    "ages": record([3.0, 4.0], [3.5, 3.5], ["0-4", "5-9"]),
    "contacts_home": record(
        [[1.0, 2.0], [2.0, 3.0]], [[1.0, 1.0], [1.0, 1.0]], ["0-4", "5+"], tolerance=None, within=None
    ),
    "share": record(0.36, 0.37, name="homes with <children>", error=0.2, within=False),
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory, stored):
    _, path = stored(tmp_path_factory.mktemp("people"), grouped=False, steps=3)
    return write_report(path, population=RECORDS)


def test_each_figure_has_what_was_achieved_beside_what_was_published(shown):
    ages = pd.read_csv(shown.parent / "report" / "population_ages.csv")
    assert ages.achieved.tolist() == [3, 4] and ages.source.tolist() == [3.5, 3.5]
    home = pd.read_csv(shown.parent / "report" / "population_contacts_home.csv")
    assert home.pivot(index="participant", columns="contact", values="achieved").to_numpy().tolist() == [[1, 2], [2, 3]]
    for name in ("population_ages", "population_contacts_home"):
        assert (shown.parent / "report" / f"{name}.png").is_file()


def test_what_is_missed_is_said_and_names_are_escaped(shown, parsed):
    page = shown.read_text("utf-8")
    assert '<span class="flag missed">missed</span>' in page
    assert "homes with &lt;children&gt; (0.36, published 0.37)" in page
    assert "Source: Office <for> counting, 2020, CC BY 4.0." in parsed(page).words()


def test_the_table_of_errors_keeps_every_record(shown):
    table = pd.read_csv(shown.parent / "report" / "population_fidelity.csv")
    assert table.figure.tolist() == [one["name"] for one in RECORDS.values()]
    assert table.year.tolist() == [2020] * 3
    assert fidelity_frame(RECORDS).within.tolist() == [True, None, False]


def test_a_population_that_cannot_be_shown_is_said_to_be_so(tmp_path, stored, parsed):
    _, path = stored(tmp_path, grouped=False, steps=3)
    page = write_report(path, population_note="The graph store <x> is gone.").read_text("utf-8")
    assert "The graph store <x> is gone." in parsed(page).words()


def test_a_citation_says_what_is_not_stated():
    whole = Citation.of(CENSUS)
    assert whole.complete and str(whole) == "Office <for> counting, 2020, CC BY 4.0"
    for key, said in (("source", "source not stated"), ("year", "year not stated"), ("licence", "licence not stated")):
        part = Citation.of({**CENSUS, key: None})
        assert not part.complete and said in str(part)
    assert str(Citation.of({**CENSUS, "assumed": True})).startswith("assumed: ")


def test_every_figure_of_new_zealand_beside_a_source_says_source_year_and_licence():
    from graphs.sources import load_country

    records = {
        table["name"]: record([1.0], [1.0], ["a"], citation=dict(table)) for table in load_country("New Zealand").tables
    }
    shown = [figure for figure in population_section(records).figures if figure.citations]
    assert len(shown) == len(records)
    incomplete = {cited.name for figure in shown for cited in figure.citations if not cited.complete}
    assert incomplete == set(), "give these source, year and licence in sources.json"


def test_every_table_of_a_disease_says_source_year_and_licence(severe):
    from gnabm.report import Summary

    assert covid(0.1).sources
    shipped = json.loads(files("gnabm.models.tables").joinpath("sources.json").read_text("utf-8"))
    assert {entry["name"] for entry in covid(0.1).sources} <= set(shipped)
    assert all(Citation.of({"name": name, **entry}).complete for name, entry in shipped.items())
    used = {one["name"] for one in severe[0].attributes["model_tables"]}
    assert used & set(shipped)
    assert {one.name for one in citations(Summary.of(severe[0].to_xarray()))} >= used
    table = pd.read_csv(severe[1].parent / "report" / "sources.csv")
    assert np.isin(list(used), table.name).all()


def test_a_figure_says_whether_the_population_was_fitted_to_it():
    told = {"a": record([1.0], [1.0], ["0-4"], fitted=True), "b": record([1.0], [1.0], ["0-4"], fitted=False)}
    first, second = (figure.note for figure in population_section(told).figures)
    assert first.endswith("; fitted.") and second.endswith("; not fitted.")
    assert "fitted" not in population_section(RECORDS).figures[0].note


def test_those_who_stay_within_a_region_are_in_the_file_but_not_in_the_picture():
    flow = record([[0.9, 0.1], [0.2, 0.8]], [[0.9, 0.1], [0.2, 0.8]], ["North", "South"])
    (figure,) = population_section({"commuting": flow}).figures
    shown = figure.panels[0].marks[0]
    np.testing.assert_array_equal(shown.z, [[np.nan, 0.1], [0.2, np.nan]])
    assert shown.top == 0.2 and figure.table.achieved.tolist() == [0.9, 0.1, 0.2, 0.8]
