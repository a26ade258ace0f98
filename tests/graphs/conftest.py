import warnings
from pathlib import Path

import pytest

import graphs

with warnings.catch_warnings():
    # torch_geometric scripts a class as it is imported, which torch 2.13 deprecates.
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=DeprecationWarning)
    import torch_geometric.data  # noqa: F401

NUM_AGENTS = 50_000


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Path:
    """New Zealand at 50,000 agents, built once for all tests of this folder."""
    path = tmp_path_factory.mktemp("graphs") / "new_zealand.zarr"
    return graphs.build({"country": "New Zealand", "num_agents": NUM_AGENTS, "seed": 0}, path)


@pytest.fixture(scope="session")
def population(store):
    return graphs.open_graph(store)


@pytest.fixture(scope="session")
def summary(store):
    return graphs.summarise(store)
