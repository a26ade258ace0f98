"""from_edges builds what was said and refuses what cannot be meant."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnabm import Contacts, Edges, Mixing, Places
from gnabm.errors import DataError, KindError, ShapeError, UnknownFieldError


def dense(contacts, name="contacts"):
    """The adjacency matrix of a layer of edges, row = target."""
    layer = contacts[name]
    matrix = np.zeros((contacts.num_agents, contacts.num_agents))
    target = np.repeat(np.arange(contacts.num_agents), np.diff(layer.indptr))
    weight = np.ones(layer.num_edges) if layer.weight is None else layer.weight
    np.add.at(matrix, (target, layer.source), weight)
    return matrix


@st.composite
def edges(draw):
    num_agents = draw(st.integers(2, 12))
    ids = st.integers(0, num_agents - 1)
    pairs = draw(st.lists(st.tuples(ids, ids).filter(lambda e: e[0] != e[1]), max_size=40))
    source, target = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    weight = np.array(draw(st.lists(st.integers(0, 8), min_size=len(pairs), max_size=len(pairs))), dtype=float) / 4
    return num_agents, source, target, weight


@given(edges(), st.booleans(), st.booleans())
def test_the_graph_is_the_sum_of_its_edges(drawn, undirected, weighted):
    num_agents, source, target, weight = drawn
    contacts = Contacts.from_edges(
        source, target, weight if weighted else None, num_agents, undirected=undirected, duplicates="sum"
    )
    expected = np.zeros((num_agents, num_agents))
    np.add.at(expected, (target, source), weight if weighted else 1.0)
    assert (dense(contacts) == (expected + expected.T if undirected else expected)).all()
    layer = contacts["contacts"]
    for row in range(num_agents):  # every sum runs over ascending sources, each of them once
        assert (np.diff(layer.source[layer.indptr[row] : layer.indptr[row + 1]]) > 0).all()


@given(edges(), st.randoms())
def test_the_order_of_edges_does_not_matter(drawn, rng):
    num_agents, source, target, weight = drawn
    order = list(range(source.size))
    rng.shuffle(order)
    order = np.array(order, dtype=int)
    one = Contacts.from_edges(source, target, weight, num_agents, duplicates="sum")["contacts"]
    two = Contacts.from_edges(source[order], target[order], weight[order], num_agents, duplicates="sum")["contacts"]
    assert (one.indptr == two.indptr).all() and (one.source == two.source).all() and (one.weight == two.weight).all()


def test_lists_tensors_and_arrays_are_the_same():
    graphs = [
        Contacts.from_edges(kind([0, 1]), kind([1, 2]), num_agents=3)
        for kind in (
            list,
            torch.tensor,
            lambda v: np.array(v, dtype=np.uint8),
            lambda v: torch.tensor(v).to(torch.int32),
        )
    ]
    assert all((dense(g) == dense(graphs[0])).all() for g in graphs)


@pytest.mark.parametrize("num_agents", [0, 1, 5])
def test_a_graph_without_edges_is_a_graph(num_agents):
    contacts = Contacts.from_edges([], [], num_agents=num_agents)
    assert contacts["contacts"].num_edges == 0
    assert contacts["contacts"].indptr.shape == (num_agents + 1,)


def test_duplicates_are_refused_unless_summed():
    with pytest.raises(DataError, match=r"edge 0 -> 1 occurs more than once.*duplicates='sum'"):
        Contacts.from_edges([0, 2, 0], [1, 1, 1], num_agents=3)
    assert dense(Contacts.from_edges([0, 2, 0], [1, 1, 1], [1.0, 2.0, 0.5], 3, duplicates="sum")).tolist() == [
        [0, 0, 0], [1.5, 0, 2.0], [0, 0, 0],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(source=[0], target=[0]), DataError, "edge 0 is a self-loop of agent 0"),
        (dict(source=[0], target=[3]), DataError, r"target\[0\] is 3, outside 0..2"),
        (dict(source=[-1], target=[1]), DataError, r"source\[0\] is -1, outside"),
        (dict(source=[0, 1], target=[1]), ShapeError, "one entry per edge"),
        (dict(source=[0], target=[1], weight=[1.0, 2.0]), ShapeError, "one entry per edge"),
        (dict(source=[[0]], target=[[1]]), ShapeError, "one-dimensional"),
        (dict(source=[0], target=[1], weight=[float("nan")]), DataError, r"weight\[0\] is nan"),
        (dict(source=[0], target=[1], weight=[float("inf")]), DataError, r"weight\[0\] is inf"),
        (dict(source=[0], target=[1], weight=[1e300]), DataError, r"weight\[0\] is "),
        (dict(source=[0], target=[1], weight=[-1.0]), DataError, r"weight\[0\] is -1"),
        (dict(source=[0], target=[1], weight=["a"]), KindError, "weight must hold numbers"),
        (dict(source=[0], target=[1], weight=[1j]), KindError, "weight must hold numbers"),
        (dict(source=[0], target=[1], weight=torch.ones(1, requires_grad=True)), KindError, "layer_weights"),
        (dict(source=[0, 0], target=[1, 1], weight=[3e38, 3e38], duplicates="sum"), DataError, "more than float32"),
        (dict(source=[0.0], target=[1]), KindError, "source must hold integer ids"),
        (dict(source=["a"], target=[1]), KindError, "source must hold integer ids"),
        (dict(source=[True], target=[1]), KindError, "source must hold integer ids"),
        (dict(source=[0], target=[1], num_agents=None), KindError, "num_agents is needed"),
        (dict(source=[0], target=[1], num_agents=3.0), KindError, "num_agents must be an integer"),
        (dict(source=[0], target=[1], num_agents=True), KindError, "num_agents must be an integer"),
        (dict(source=[], target=[], num_agents=-1), DataError, "num_agents must not be negative"),
        (dict(source=[0], target=[1], duplicates="keep"), DataError, "'error' or 'sum'"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Contacts.from_edges(**{"num_agents": 3, **arguments})


def test_an_unknown_layer_names_its_neighbour():
    with pytest.raises(UnknownFieldError, match="did you mean 'contacts'"):
        Contacts.from_edges([], [], num_agents=1)["contact"]


def test_layers_are_joined_under_different_names():
    home = Contacts.from_edges([0], [1], num_agents=2, name="home")
    work = Contacts.from_edges([1], [0], num_agents=2, name="work")
    assert list(home | work) == ["home", "work"]
    with pytest.raises(DataError, match="rename one"):
        home | home
    with pytest.raises(ShapeError, match="has 3 rows"):
        work | Contacts.from_edges([], [], num_agents=3, name="other")


def test_a_layer_has_a_row_per_agent():
    with pytest.raises(ShapeError, match="layer 'home' has 2 rows, the graph 3 agents"):
        Contacts({"home": Places(np.array([0, 0]), np.array([0, 2]), np.array([0, 1]))}, 3)
    with pytest.raises(KindError, match="must be Edges, Places or Mixing"):
        Contacts({"home": [1, 2]}, 2)


def test_a_visit_meets_so_many_co_members():
    assert Places(np.zeros(1), np.zeros(2), np.zeros(1)).weights(np.array([1, 2, 9])).tolist() == [1, 1, 1]
    weights = Places(np.zeros(1), np.zeros(2), np.zeros(1), contacts=4.0).weights(np.array([1, 2, 5, 9]))
    assert weights.tolist() == [1, 1, 1, 0.5]  # 4 of 8 co-members


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(matrix=np.array([[np.nan]])), "finite"), (dict(matrix=np.array([[-1.0]])), "not negative"),
        (dict(shares=(0.5, 0.2, 0.2)), "sum to 1"), (dict(shares=(1.5, -0.5, 0.0)), ">= 0"),
        (dict(dispersion=0.0), "dispersion must be positive"), (dict(counts=np.array([[1, 2]])), "counts must be"),
        (dict(counts=np.array([[0]])), "group that has no agent"),
        (dict(area_start=np.array([0, 3])), "from 0 to the number of agents, 4, got 0 to 3"),
        (dict(area_start=np.array([1, 4])), "order the agents by area"),
        (dict(area_start=np.array([0, 5, 4]), area_region=np.zeros(2), counts=np.array([[2], [2]])), "must ascend"),
        (dict(area_start=np.array([0, 2, 4]), area_region=np.array([1, 0]), counts=np.array([[2], [2]])), "by region"),
    ],
)  # fmt: skip
def test_a_mixing_layer_is_checked(changed, message):
    good = Mixing.uniform(4, 2.0)
    arguments = {n: getattr(good, n) for n in ("group", "matrix", "area_start", "area_region", "counts")}
    with pytest.raises((DataError, ShapeError), match=message):
        Mixing(**{**arguments, **changed})


def edge_layer(**changed):
    """0 -> 1, 2 -> 1, 1 -> 2 of three agents."""
    good = dict(indptr=np.array([0, 0, 2, 3]), source=np.array([0, 2, 1], dtype=np.int32), weight=np.ones(3))
    return Edges(**(good | changed))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (dict(source=np.array([0, 3, 1])), DataError, r"layer 'home': source\[1\] is 3, outside 0..2"),
        (dict(source=np.array([-1, 2, 1])), DataError, r"source\[0\] is -1, outside"),
        (dict(source=np.array([2, 0, 1])), DataError, r"source\[1\] is 0 after 2.*from_edges"),
        (dict(source=np.array([0, 0, 1])), DataError, "without repeats"),
        (dict(source=np.array([0, 1, 1])), DataError, r"source\[1\] is a self-loop of agent 1"),
        (dict(source=np.array([0.0, 2.0, 1.0])), KindError, "source must hold integers"),
        (dict(source=torch.tensor([0, 2, 1])), KindError, "source must be a NumPy or Zarr array, got Tensor"),
        (dict(source=[0, 2, 1]), KindError, "got list"),
        (dict(source=np.array([[0, 2, 1]])), ShapeError, "one-dimensional"),
        (dict(indptr=np.array([0, 0, 2, 4])), DataError, "from 0 to the number of edges, 3, got 0 to 4"),
        (dict(indptr=np.array([0, 3, 2, 3])), DataError, "indptr must ascend"),
        (dict(indptr=np.array([1, 1, 2, 3])), DataError, "indptr must ascend"),
        (dict(indptr=np.array([0.0, 0, 2, 3])), KindError, "indptr must hold integers"),
        (dict(weight=np.array([1.0, -1.0, 1.0])), DataError, r"weight\[1\] is -1"),
        (dict(weight=np.array([1.0, 1.0, np.nan])), DataError, r"weight\[2\] is nan"),
        (dict(weight=np.array([1e300, 1.0, 1.0])), DataError, r"weight\[0\] is 1e\+300"),
        (dict(weight=np.array(["a", "b", "c"])), KindError, "weight must hold numbers"),
        (dict(weight=np.ones(2)), ShapeError, "2 entries for 3 edges"),
    ],
)  # fmt: skip
def test_edges_in_memory_are_checked(changed, error, message):
    Contacts({"home": edge_layer()}, 3)
    with pytest.raises(error, match=message):
        Contacts({"home": edge_layer(**changed)}, 3)


def place_layer(**changed):
    """Agents 0 and 3 in place 0, agent 2 in place 2, agent 1 nowhere, nobody in place 1."""
    good = dict(place=np.array([0, -1, 2, 0]), indptr=np.array([0, 2, 2, 3]), member=np.array([0, 3, 2]))
    return Places(**(good | changed))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (dict(place=np.array([0, -1, 3, 0])), DataError, r"place\[2\] is 3, outside -1..2"),
        (dict(place=np.array([0, -2, 2, 0])), DataError, r"place\[1\] is -2, outside"),
        (dict(place=np.array([0, -1, 1, 0])), DataError, "agent 2 is listed as a member of place 2, but its"),
        (dict(place=np.array([0, 1, 2, 0])), DataError, "4 agents have a place, but only 3 are members"),
        (dict(place=np.array([0, -1, -1, 0])), DataError, "its place is -1.*Places.of"),
        (dict(place=np.array([0, -1.0, 2, 0])), KindError, "place must hold integers"),
        (dict(member=np.array([3, 0, 2])), DataError, r"member\[1\] is 0 after 3 within one place"),
        (dict(member=np.array([0, 0, 2])), DataError, "without repeats"),
        (dict(member=np.array([0, 4, 2])), DataError, r"member\[1\] is 4, outside 0..3"),
        (dict(indptr=np.array([0, 2, 3])), DataError, r"place\[2\] is 2, outside -1..1"),
        (dict(indptr=np.array([0, 2, 2, 2])), DataError, "number of members, 3, got 0 to 2"),
        (dict(indptr=np.array([], dtype=int)), ShapeError, "indptr is empty"),
        (dict(contacts=-1.0), DataError, "contacts must be finite"),
        (dict(contacts=float("nan")), DataError, "contacts must be finite"),
    ],
)  # fmt: skip
def test_places_in_memory_are_checked(changed, error, message):
    Contacts({"home": place_layer()}, 4)
    with pytest.raises(error, match=message):
        Contacts({"home": place_layer(**changed)}, 4)


@given(st.lists(st.integers(-1, 6), max_size=30), st.integers(0, 3))
def test_the_members_of_places_are_who_is_there(place, num_empty):
    layer = Places.of(place, 2.5, "work", num_places=max(place, default=-1) + 1 + num_empty)
    Contacts({"site": layer}, len(place))
    assert (layer.contacts, layer.setting) == (2.5, "work")
    for code in range(layer.num_places):
        there = layer.member[layer.indptr[code] : layer.indptr[code + 1]]
        assert there.tolist() == [row for row, at in enumerate(place) if at == code]


@pytest.mark.parametrize(
    ("place", "number", "error", "message"),
    [([0, -2], None, DataError, r"place\[1\] is -2"), ([0, 3], 3, DataError, "raise num_places"),
     ([0.5], None, KindError, "must hold integers")],
)  # fmt: skip
def test_places_that_do_not_exist_are_refused(place, number, error, message):
    with pytest.raises(error, match=message):
        Places.of(place, num_places=number)


@pytest.mark.parametrize(
    ("group", "message"), [([0, 1, 1, 2], "outside 0..1"), ([1, 0, 0, 1], "area 0 has 1 agents of group 0, counts")]
)  # fmt: skip
def test_groups_in_memory_match_the_counts_of_each_area(group, message):
    def contacts(codes):
        counts = np.array([[2, 0], [0, 2]])
        layer = Mixing(np.array(codes, np.uint8), np.ones((2, 2)), np.array([0, 2, 4]), np.zeros(2), counts)
        return Contacts({"pool": layer}, 4)

    contacts([0, 0, 1, 1])
    with pytest.raises(DataError, match=message):
        contacts(group)


class Unread:
    """An array on disk that nobody may read."""

    def __init__(self, array):
        self.shape, self.dtype = array.shape, array.dtype


def test_layers_on_disk_are_not_read():
    good, mixing = edge_layer(), Mixing.uniform(3, 1.0)
    layers = {
        "edges": Edges(Unread(good.indptr), Unread(good.source), Unread(good.weight)),
        "places": Places(*(Unread(np.zeros(n, dtype=np.int32)) for n in (3, 2, 3))),
        "mixing": Mixing(Unread(mixing.group), mixing.matrix, mixing.area_start, mixing.area_region, mixing.counts),
    }
    assert list(Contacts(layers, 3)) == list(layers)


def test_activities_are_checked():
    with pytest.raises(ShapeError, match="one value per agent"):
        Contacts({"site": Places.of([0, 0], activity=[1.0])}, 2)
    with pytest.raises(DataError, match=r"activity\[1\] is -1"):
        Contacts({"site": Places.of([0, 0], activity=[1.0, -1.0])}, 2)
    with pytest.raises(KindError, match="must hold floats"):
        place = Places.of([0, 0])
        Contacts({"site": Places(place.place, place.indptr, place.member, activity=np.array([1, 1]))}, 2)
    with pytest.raises(KindError, match="activity must hold numbers"):
        Places.of([0, 0], activity=["a", "b"])
