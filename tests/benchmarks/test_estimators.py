"""The page of estimators: what was asked stands above each table, and a page without the heading is refused."""

import pytest

from benchmarks.estimators import HEADING, PAGE, shown, written

ROW = {
    "parameter": "Infect.rate", "observable": "deaths", "estimator": "smoothed", "mean": None, "se": None, "fd": 2.0,
    "fd_se": 0.5, "bias_percent": None, "bias_se": None, "variance": None, "seeds": 7, "seconds": 1.0, "bytes": None,
}  # fmt: skip
ASKED = {"config": "sir_small", "overrides": ["run.steps=3"], "seeds": 20, "budget": 200.0}


def test_a_table_says_what_was_asked_and_where_there_is_no_gradient():
    text = shown("sir", {"asked": ASKED, "rows": [ROW]})
    assert "`sir_small --set 'run.steps=3'`; 7 seeds of 20, as many as a budget of 200 s allowed" in text
    assert "| smoothed | none | 2 ± 0.5 |" in text


def test_the_tables_replace_those_of_the_page():
    page = f"# Title\n\n{HEADING}\nold\n"
    assert written(page, ["new\n"]) == f"# Title\n\n{HEADING}\nnew\n"
    assert written(PAGE.read_text(), []).startswith("# Gradients")


def test_a_page_without_the_heading_is_refused():
    with pytest.raises(ValueError, match="one heading"):
        written("# Title\n", [])
