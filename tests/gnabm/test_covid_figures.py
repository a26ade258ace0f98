"""The published figures of the covid model, and which tables a model cites."""

import csv

import pytest

from gnabm.models.covid import Disease, published_susceptibility
from gnabm.models.epidemic import covid
from gnabm.models.tables import open_table, sources


def disease():
    return Disease.of({}, {}, {}, 1.0)


def test_every_table_has_source_year_licence_and_says_whether_it_is_assumed():
    for name, said in sources().items():
        assert said["source"] and said["licence"] and said["year"] > 1900 and said["assumed"] in (True, False), name
        with open_table(name) as file:
            assert len(list(csv.DictReader(file))) > 1


def test_the_figures_are_those_of_the_first_public_implementation():
    # Chopra et al. 2021 publish the ways out of hospital multiplied out; here they follow from Hinch et al. 2021.
    assert published_susceptibility() == (0.35, 0.69, 1.03, 1.03, 1.03, 1.03, 1.27, 1.52, 1.52)
    assert disease().probabilities == {
        "asymptomatic": (0.456, 0.412, 0.370, 0.332, 0.296, 0.265, 0.238, 0.214, 0.192),
        "severe": (0.011, 0.019, 0.033, 0.054, 0.088, 0.133, 0.191, 0.263, 0.347),
        "hospital": (0.001, 0.006, 0.015, 0.069, 0.219, 0.279, 0.370, 0.391, 0.379),
        "icu": (0.05, 0.05, 0.045, 0.045, 0.0504, 0.0976, 0.1096, 0.1728, 0.03545),
        "dead_on_ward": (0, 0, 0.005, 0.005, 0.0126, 0.0244, 0.1644, 0.2592, 0.67355),
        "dead_in_icu": (0.33, 0.25, 0.5, 0.5, 0.5, 0.69, 0.65, 0.88, 1.0),
    }
    mild = [1 - a - s for a, s in zip(*(disease().probabilities[n] for n in ("asymptomatic", "severe")), strict=True)]
    assert mild == pytest.approx([0.533, 0.569, 0.597, 0.614, 0.616, 0.602, 0.571, 0.523, 0.461])
    assert {name: (d.mean, d.sd) for name, d in disease().durations.items()} == {
        "asymptomatic": (15, 5), "presymptomatic": (5.42, 2.7), "mild": (12, 5),
        "severe_to_hospital": (5.14, None), "severe_to_recovered": (12, 5),
        "hospital_to_icu": (2.27, None), "hospital_to_dead": (2.27, None), "hospital_to_recovered": (8.75, 8.75),
        "icu_to_dead": (11.74, 8.79), "icu_to_recovering": (18.8, 12.21), "recovering": (8.75, 8.75),
    }  # fmt: skip
    # By code of the stage: asymptomatic, presymptomatic mild and severe, mild, severe.
    assert {int(stage): factor for stage, factor in disease().infectious().items()} == {
        1: 0.33, 2: 0.05, 3: 0.05, 4: 0.72, 5: 1.0,
    }  # fmt: skip
    assert (disease().profile.mean, disease().profile.sd) == (5.5, 2.14)


def tables_of(**parameters):
    return {entry["name"]: entry["note"] for entry in covid(0.1, **parameters).sources}


def test_a_model_cites_the_tables_of_which_it_uses_a_figure():
    calendar = {"closed_in_holidays": ["class"], "school_terms": "New Zealand"}
    assert set(tables_of(calendar=calendar)) == set(sources())
    assert set(tables_of()) == set(tables_of(calendar={"weekly": {"a": [1] * 7}})) == {*sources()} - {"school_terms"}
    assert not any("replaced" in note for note in tables_of().values())
    notes = tables_of(durations={"mild": [9, 3], "asymptomatic": [8]}, susceptibility=[1.0] * 9)
    assert notes["covid_durations"].endswith("; replaced: mild, asymptomatic")
    assert notes["covid_by_age"].endswith("; replaced: susceptibility")
    chances = {name: list(values) for name, values in disease().probabilities.items()}
    assert "covid_by_age" in tables_of(probabilities=chances)  # its susceptibility is used
    own = {"probabilities": chances, "susceptibility": [1.0] * 9, "durations": {n: [5] for n in disease().durations},
           "infectiousness": {"asymptomatic": 1, "presymptomatic": 1, "mild": 1, "severe": 1, "profile_mean": 5,
                              "profile_sd": 2}}  # fmt: skip
    assert tables_of(**own) == {}
