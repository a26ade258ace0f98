import json
import re

import pandas as pd
import pytest
import torch

from gnabm.errors import OutputExistsError
from gnabm.report.interactive import drawing
from gnabm.report.sensitivities import elasticity_map, write_sensitivity
from gnabm.sensitivity import Sensitivity


@pytest.fixture
def found():
    gradients = torch.tensor([[[2.0, -1.0], [4.0, 0.0]], [[2.0, -3.0], [4.0, 0.0]]], dtype=torch.float64)
    outcomes = torch.tensor([[10.0, 0.0], [10.0, 0.0]], dtype=torch.float64)
    return Sensitivity(
        ("rate", "weight <x>"), torch.ones(2, dtype=torch.float64), ("young", "old"), outcomes, gradients, 2.0,
        "local-score",
    )  # fmt: skip


def test_colours_go_both_ways_from_zero_and_an_unknown_cell_is_empty(found):
    heat = drawing(elasticity_map(found, "e", "Elasticities").panels[0])["data"][0]
    assert heat["zmin"] == -heat["zmax"] < 0
    assert heat["z"] == [[0.2, -0.2], [None, None]]


def test_a_page_has_a_table_of_every_cell_beside_it(found, tmp_path):
    page = write_sensitivity(found, tmp_path / "s.html", name="Here & there", brute=found)
    text = page.read_text()
    assert "Here &amp; there" in text
    assert set(json.loads(re.search(r"const charts = (.*);\n", text)[1])) == {"elasticity", "elasticity_brute"}
    table = pd.read_csv(tmp_path / "s_report" / "elasticity.csv")
    assert table[["group", "parameter"]].values.tolist() == [
        ["young", "rate"], ["young", "weight <x>"], ["old", "rate"], ["old", "weight <x>"],
    ]  # fmt: skip
    assert table["absolute"].tolist() == [2, -2, 4, 0]
    assert (tmp_path / "s_report" / "elasticity.png").stat().st_size > 1000


def test_a_folder_of_somebody_else_is_left_alone(found, tmp_path):
    (tmp_path / "s_report").mkdir()
    (tmp_path / "s_report" / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="no report wrote"):
        write_sensitivity(found, tmp_path / "s.html", name="s")
