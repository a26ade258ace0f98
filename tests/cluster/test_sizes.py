import numpy as np
import pytest

from cluster import sizes
from cluster.cost import Load
from cluster.footprint import names_in_code
from cluster.sizes import edge_contacts, is_undirected, place_contacts
from gnabm import Contacts, Places
from gnabm.models.epidemic import covid, sir


def test_a_sample_of_a_large_layer_tells_its_contacts_within_percents(monkeypatch):
    rng = np.random.default_rng(1)
    place = rng.integers(-1, 20_000, 200_000)
    layer = Places.of(place, 5.0, activity=rng.gamma(2.0, 0.5, 200_000))
    counted = place_contacts(layer)
    edges = Contacts.from_edges(
        rng.integers(0, 1000, 60_000), rng.integers(1000, 2000, 60_000), rng.random(60_000), 2000, duplicates="sum"
    )["contacts"]
    exact = edge_contacts(edges)
    assert exact == pytest.approx(edges.weight.sum(dtype=float))
    monkeypatch.setattr(sizes, "_MOST_ENTRIES", 1 << 14)
    monkeypatch.setattr(sizes, "_ROWS_PER_READ", 1 << 12)
    assert place_contacts(layer) == pytest.approx(counted, rel=0.05)
    assert place_contacts(layer) != counted
    assert edge_contacts(edges) == pytest.approx(exact, rel=0.05)


def test_places_without_members_make_no_contacts():
    assert place_contacts(Places.of([-1, -1], 3.0, num_places=4)) == 0.0


@pytest.mark.parametrize("weighted", [False, True])
def test_an_undirected_graph_is_known_by_its_first_edges(monkeypatch, weighted):
    rng = np.random.default_rng(2)
    pairs = np.unique(np.sort(rng.integers(0, 300, (2, 2000)), axis=0), axis=1)
    low, high = pairs[:, pairs[0] != pairs[1]]
    weight = rng.random(low.size) if weighted else None
    there = Contacts.from_edges(low, high, weight, 300)["contacts"]
    both = Contacts.from_edges(low, high, weight, 300, undirected=True)["contacts"]
    for most in (1 << 9, 1 << 20):
        monkeypatch.setattr(sizes, "_MOST_ENTRIES", most)
        assert is_undirected(both) and not is_undirected(there)
    if weighted:
        both.weight[0] *= 2
        assert not is_undirected(both)
    assert not is_undirected(Contacts.from_edges([], [], num_agents=3)["contacts"])


def test_only_columns_that_the_rules_name_count_as_read():
    assert not {"age", "area"} & (names_in_code(sir(0.1, 0.1)) | names_in_code(covid(0.1)))
    assert "age_group" in names_in_code(covid(0.1))
    campaign = {"vaccinate": [["80+"]], "per_day": 10}
    assert "vaccinated" in names_in_code(covid(0.1, interventions=[campaign]))


def test_a_step_takes_longer_with_more_of_everything_and_shorter_with_threads():
    load = Load(rows=10**6, layers=6, links=2.4, drawn=4.5, border=10**6, shards=1)
    assert load.seconds(0.1, 2) == load.seconds(0.1, 1) / 2
    assert load.seconds(0.2, 1) > load.seconds(0.1, 1) > load.seconds(0.0, 1) > 0
    several = Load(rows=10**6, layers=6, links=2.4, drawn=4.5, border=10**6, shards=4)
    assert several.seconds(0.1, 1) > load.seconds(0.1, 1)
