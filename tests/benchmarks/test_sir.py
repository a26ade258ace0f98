import numpy as np
import pytest

from benchmarks.epidemic import Setting, uniform_random_graph
from benchmarks.rivals import RIVALS
from benchmarks.sir import COLUMNS, as_markdown, bench


@pytest.fixture(scope="module")
def result():
    return bench(20_000, Setting(initial_infected=0.01), repeats=1)


def test_all_rivals_simulate_the_same_epidemic(result):
    assert [row.rival for row in result.rows] == list(RIVALS)
    rates = [row.attack_rate for row in result.rows]
    assert 0.5 < min(rates) < max(rates) < 0.9
    assert result.agree, rates


def test_an_epidemic_of_another_rate_is_told_apart(result):
    other = bench(20_000, Setting(0.02, initial_infected=0.01), repeats=1, rivals=["kernel"])
    assert all(abs(other.rows[0].attack_rate - row.attack_rate) > result.tolerance for row in result.rows)


def test_the_page_has_a_row_for_each_rival_and_says_what_it_was_measured_on(result):
    page = as_markdown([result], {"processor": "two slow cores"})
    assert "two slow cores" in page
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(RIVALS)
    assert {row.count("|") for row in rows} == {len(COLUMNS) + 1}


def test_the_graph_is_symmetric_without_self_loops_or_repeats():
    graph = uniform_random_graph(1_000)
    forth = set(zip(graph.source.tolist(), graph.target.tolist(), strict=True))
    assert len(forth) == graph.num_edges
    assert {(target, source) for source, target in forth} == forth
    assert all(source != target for source, target in forth)
    assert graph.num_edges / 1_000 == pytest.approx(10, abs=0.1)
    assert np.all(np.diff(graph.indptr) >= 0)
