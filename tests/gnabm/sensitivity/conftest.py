"""A small population of ages and regions, and a disease."""

import numpy as np
import pytest

from gnabm import Contacts, Field, Population
from gnabm.models.epidemic import sir


@pytest.fixture(scope="session")
def population():
    n = 600
    rng = np.random.default_rng(5)
    pairs = np.unique(np.sort(rng.integers(0, n, (3 * n, 2)), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    contacts = Contacts.from_edges(pairs[:, 0], pairs[:, 1], num_agents=n, undirected=True)
    columns = {"region": (np.arange(n) % 2).astype(np.uint8), "age_group": (np.arange(n) % 3).astype(np.uint8)}
    fields = {
        "region": Field("region", "where", categories=("north", "south")),
        "age_group": Field("age_group", "how old", categories=("young", "grown", "old")),
    }
    return Population(n, columns, contacts, fields)


@pytest.fixture(scope="session")
def model():
    return sir(0.05, 0.1, 0.05)
