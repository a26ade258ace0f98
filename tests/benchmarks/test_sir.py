import numpy as np
import pytest

from benchmarks.epidemic import Setting, geographic_graph, in_random_order, uniform_random_graph
from benchmarks.rivals import RIVALS
from benchmarks.sir import COLUMNS, as_markdown, bench


@pytest.fixture(scope="module")
def result():
    return bench(20_000, Setting(initial_infected=0.01), repeats=1, threads=1)


def test_all_rivals_simulate_the_same_epidemic(result):
    assert [row.rival for row in result.rows] == list(RIVALS)
    rates = [row.attack_rate for row in result.rows]
    assert 0.5 < min(rates) < max(rates) < 0.9
    assert result.agree, rates


def test_an_epidemic_of_another_rate_is_told_apart(result):
    other = RIVALS["kernel"](uniform_random_graph(20_000), Setting(0.02, initial_infected=0.01))(0)
    assert all(abs(other - row.attack_rate) > result.tolerance for row in result.rows)


def test_the_page_has_a_row_for_each_rival_and_says_what_it_was_measured_on(result):
    page = as_markdown([result], "- processor: two slow cores")
    assert "two slow cores" in page
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + len(RIVALS)
    assert {row.count("|") for row in rows} == {len(COLUMNS) + 1}


@pytest.mark.parametrize("draw", [uniform_random_graph, geographic_graph])
def test_a_graph_is_symmetric_without_self_loops_or_repeats(draw):
    graph = draw(1_000)
    forth = set(zip(graph.source.tolist(), graph.target.tolist(), strict=True))
    assert len(forth) == graph.num_edges
    assert {(target, source) for source, target in forth} == forth
    assert all(source != target for source, target in forth)
    assert graph.num_edges / 1_000 == pytest.approx(10, rel=0.25)
    assert np.all(np.diff(graph.indptr) >= 0)


def test_nine_contacts_in_ten_are_near_in_geographic_order_and_few_in_random_order():
    graph = geographic_graph(20_000)
    mixed = in_random_order(graph)

    def near(of):
        apart = np.abs(of.source - of.target)
        return np.mean(np.minimum(apart, of.num_agents - apart) <= of.num_agents // 100)

    assert near(graph) == pytest.approx(0.9 + 0.1 * 0.02, abs=0.01)
    assert near(mixed) == pytest.approx(0.02, abs=0.005)
    assert np.array_equal(np.sort(np.diff(graph.indptr)), np.sort(np.diff(mixed.indptr)))
