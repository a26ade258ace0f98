import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.data import Data, HeteroData

import graphs
from cluster import run_local
from gnabm.errors import DataError, KindError, ShapeError, UnknownFieldError
from gnabm.models.epidemic import seir
from gnabm.population import Population

EDGES = pd.DataFrame(
    {"source": [7, 9, 7], "target": [9, 12, 12], "weight": [1.5, 2.0, 0.25], "layer": ["home", "work", "work"]}
)
AGENTS = pd.DataFrame({"key": [12, 7, 9, 40], "age": [34, 8, 91, 50], "region": ["North", "South", "North", "South"]})


def written(table, path):
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    return path


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_tables_become_a_population(tmp_path, ending):
    edges = graphs.read_edges(written(EDGES, tmp_path / f"edges.{ending}"))
    agents = graphs.read_agents(written(AGENTS, tmp_path / f"agents.{ending}"))
    population = graphs.from_tables(edges, agents)
    assert population.columns["key"].tolist() == [12, 7, 9, 40]
    assert population.columns["region"].tolist() == [0, 1, 0, 1]
    assert population.categories("region") == ("North", "South")
    assert population.columns["age_group"].tolist() == [3, 0, 8, 5]
    work = population.contacts["work"]
    assert work.indptr.tolist() == [0, 2, 2, 2, 2]
    assert work.source.tolist() == [1, 2]
    assert work.weight.tolist() == [0.25, 2.0]
    assert population.contacts["home"].source.tolist() == [1]


def test_edges_alone_number_agents_by_ascending_id():
    population = graphs.from_tables(EDGES[["source", "target"]])
    assert population.columns["key"].tolist() == [7, 9, 12]
    assert population.contacts["contacts"].source.tolist() == [0, 0, 1]
    assert population.contacts["contacts"].weight is None


def test_order_of_agents_only_renames_rows():
    one = graphs.from_tables(EDGES, AGENTS)
    other = graphs.from_tables(EDGES, AGENTS.iloc[::-1])

    def edges_by_key(population):
        layer, key = population.contacts["work"], population.columns["key"]
        target = np.repeat(np.arange(population.num_agents), np.diff(layer.indptr))
        return set(zip(key[layer.source].tolist(), key[target].tolist(), layer.weight.tolist(), strict=True))

    assert edges_by_key(one) == edges_by_key(other)


@pytest.mark.parametrize(
    ("column", "row", "value", "says"),
    [
        ("weight", 1, float("nan"), "row 1 .line 3., column 'weight': got nan.*0 or more"),
        ("weight", 2, -1.0, "row 2 .line 4., column 'weight': got -1.0"),
        ("weight", 0, float("inf"), "row 0 .line 2., column 'weight': got inf"),
        ("target", 0, 7, "row 0 .line 2., column 'target'.*drop self-loops"),
        ("target", 2, 99, "row 2 .line 4., column 'target': got 99.*no agent has this key"),
        ("source", 1, 1.5, "row 1 .line 3., column 'source': got 1.5.*whole number"),
        ("source", 0, "Ann", "row 0 .line 2., column 'source': got 'Ann'.*whole number"),
        ("layer", 1, " ", "row 1 .line 3., column 'layer'.*name the layer"),
    ],
)
def test_a_bad_edge_is_refused_by_file_row_and_column(tmp_path, column, row, value, says):
    table = EDGES.astype(object)
    table.loc[row, column] = value
    path = written(table, tmp_path / "edges.csv")
    with pytest.raises(DataError, match=says) as refused:
        graphs.from_tables(graphs.read_edges(path), AGENTS)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("column", "row", "value", "says"),
    [
        ("key", 1, 12, "row 1 .line 3., column 'key': got 12.*key of its own"),
        ("key", 0, None, "row 0 .line 2., column 'key': got .*whole number"),
        ("age", 2, -3, "row 2 .line 4., column 'age': got -3"),
        ("age", 2, 400, "row 2 .line 4., column 'age': got 400"),
        ("region", 3, None, "row 3 .line 5., column 'region'.*fill the gap"),
    ],
)
def test_a_bad_agent_is_refused_by_file_row_and_column(tmp_path, column, row, value, says):
    table = AGENTS.astype(object)
    table.loc[row, column] = value
    with pytest.raises(DataError, match=says):
        graphs.read_agents(written(table, tmp_path / "agents.csv"))


def test_a_repeated_edge_is_refused_within_a_layer_only(tmp_path):
    twice = pd.concat([EDGES, EDGES.iloc[:1]], ignore_index=True)
    with pytest.raises(DataError, match=r"row 3 .*stands above already"):
        graphs.read_edges(written(twice, tmp_path / "edges.csv"))
    twice.loc[3, "layer"] = "work"
    assert len(graphs.from_tables(twice).contacts.layers) == 2


def test_missing_and_misspelt_columns_are_refused(tmp_path):
    with pytest.raises(UnknownFieldError, match="column 'target' is missing"):
        graphs.read_edges(written(EDGES.rename(columns={"target": "to"}), tmp_path / "a.csv"))
    with pytest.raises(UnknownFieldError, match="column 'wieght' is unknown; did you mean 'weight'"):
        graphs.read_edges(written(EDGES.rename(columns={"weight": "wieght"}), tmp_path / "b.csv"))
    with pytest.raises(UnknownFieldError, match="column 'key' is missing"):
        graphs.read_agents(written(EDGES, tmp_path / "c.csv"))


def test_files_that_are_no_tables_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        graphs.read_edges(tmp_path / "edges.csv")
    with pytest.raises(DataError, match=r"must end in \.csv or \.parquet, got '\.txt'"):
        graphs.read_edges(tmp_path / "edges.txt")
    (tmp_path / "broken.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"broken\.parquet: cannot be read as parquet"):
        graphs.read_edges(tmp_path / "broken.parquet")
    with pytest.raises(KindError, match="read files with read_edges"):
        graphs.from_tables("edges.csv")
    with pytest.raises(DataError, match="at least one agent"):
        graphs.from_tables(EDGES.iloc[:0])


def test_agents_without_edges_are_a_population():
    population = graphs.from_tables(EDGES.iloc[:0], AGENTS)
    assert isinstance(population, Population)
    assert population.contacts["contacts"].num_edges == 0


def test_age_groups_as_text_stand_in_the_order_of_ages():
    table = AGENTS.drop(columns="age").assign(age_group=["80+", "5-9", "10-14", "under 5"])
    population = graphs.from_tables(EDGES, table)
    assert population.categories("age_group") == ("under 5", "5-9", "10-14", "80+")
    assert population.columns["age_group"].tolist() == [3, 1, 2, 0]


def test_other_text_is_ordered_as_text():
    table = AGENTS.drop(columns="age").assign(age_group=["old", "young", "10-14", "old"], band=["5-9", "10-14"] * 2)
    population = graphs.from_tables(EDGES, table)
    assert population.categories("age_group") == ("10-14", "old", "young")
    assert population.categories("band") == ("10-14", "5-9")


def test_a_small_graph_goes_over_several_shards():
    ring = np.arange(8)
    edges = pd.DataFrame({"source": np.r_[ring, ring], "target": np.r_[(ring + 1) % 8, (ring - 1) % 8]})
    population = graphs.from_tables(edges)
    model = seir(transmission_rate=0.9, latent_rate=0.5, recovery_rate=0.1, initial_infected=0.3)
    one, three = (run_local(model, population, shards=k, steps=10, seed=1, record=["stage"]) for k in (1, 3))
    assert (one.fields["stage"] == three.fields["stage"]).all()
    assert len(np.unique(one.fields["stage"])) > 1


def test_ages_of_a_torch_geometric_graph_give_age_groups():
    data = Data(edge_index=torch.tensor([[0], [1]]), age=torch.tensor([9.5, 80.0, 100.0]), num_nodes=3)
    population = graphs.from_pyg(data)
    assert population.columns["age"].tolist() == [9, 80, 100]
    assert population.columns["age_group"].tolist() == [0, 8, 8]
    assert population.categories("age_group") == graphs.from_tables(EDGES, AGENTS).categories("age_group")
    data.age = torch.tensor([0.1, -1.2, 0.4])
    with pytest.raises(DataError, match=r"data.age\[1\] is -1.2.*another name"):
        graphs.from_pyg(data)


def test_a_torch_geometric_graph_becomes_a_population():
    data = Data(
        edge_index=torch.tensor([[0, 1], [1, 2]]),
        edge_attr=torch.tensor([[2.0], [0.5]]),
        x=torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]),
        y=torch.tensor([1, 0, 1, 0]),
    )
    population = graphs.from_pyg(data)
    assert population.num_agents == 4
    assert set(population.columns) == {"x_0", "x_1", "y"}
    assert population.columns["x_1"].tolist() == [2.0, 4.0, 6.0, 8.0]
    layer = population.contacts["contacts"]
    assert layer.indptr.tolist() == [0, 0, 1, 2, 2]
    assert layer.weight.tolist() == [2.0, 0.5]


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (HeteroData(), KindError, "one homogeneous graph"),
        (Data(num_nodes=3), ShapeError, "edge_index must be"),
        (Data(edge_index=torch.tensor([[0], [1]])), KindError, "set data.num_nodes"),
        (Data(edge_index=torch.tensor([[1], [1]]), num_nodes=2), DataError, "self-loop"),
        (Data(edge_index=torch.tensor([[0], [5]]), num_nodes=2), DataError, "outside 0..1"),
        (
            Data(edge_index=torch.tensor([[0], [1]]), edge_attr=torch.ones(1, 3), num_nodes=2),
            ShapeError,
            "edge_weight",
        ),
    ],
)
def test_bad_torch_geometric_graphs_are_refused(data, error, says):
    with pytest.raises(error, match=says):
        graphs.from_pyg(data)
