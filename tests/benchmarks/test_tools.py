import sys

from benchmarks.tools import CITED, Row, cited, measure


def test_a_tool_that_the_interpreter_lacks_is_left_out():
    assert measure(sys.executable, "no_such_tool", 100, 10, 1, 1) is None


def test_agent_steps_and_the_ratio_follow_from_the_seconds():
    cells = Row("starsim", "3", 4.0, 1.0, 2**30, 0.7, 3).cells(100_000_000, 0.5)
    assert cells == ["starsim", "3", "4.00", "2.5e+07", "8.0 x", "0.7000", "1.00 GiB", "1.0", "3"]


def test_every_cited_figure_says_where_it_is_from():
    assert cited().count("\n") == 1 + len(CITED)
    assert all(source for _, source, _ in CITED)
