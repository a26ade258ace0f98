"""An awkward population, its model, and the session's Ray cluster (from tests/conftest.py)."""

import numpy as np
import pytest

from gnabm import Contacts, Edges, Field, Mixing, Places, Population
from gnabm.models.epidemic import seir
from graphs.store import write_store

AGENTS = 3000


def edges(rng, agents):
    """Weighted edges with a hub, isolated agents and weights over many decades."""
    target, source = rng.integers(0, agents, (2, 4 * agents))
    target[:600] = 7  # a hub that everyone's chunk feeds
    ok = (target != source) & (target % 11 != 3)  # some agents have no in-edge
    weight = np.exp(rng.normal(-2, 2, 4 * agents)).astype(np.float32)
    return Contacts.from_edges(source[ok], target[ok], weight[ok], agents, duplicates="sum", name="friends")


def mixing(age, area_start, area_region, expected):
    """Drawn or expected mixing over three levels with groups that some areas lack."""
    group = np.minimum(age // 20, 3).astype(np.uint8)
    area = np.repeat(np.arange(len(area_region)), np.diff(area_start))
    counts = np.zeros((len(area_region), 4), dtype=np.int64)
    np.add.at(counts, (area, group), 1)
    matrix = np.array([[3.0, 1.0, 0.5, 0.2], [1, 2, 1, 0.3], [0.5, 1, 2, 0.5], [0.2, 0.3, 0.5, 1]])
    return Mixing(group, matrix, area_start, area_region, counts, (0.6, 0.3, 0.1), 0.5, expected)


def make_population(agents=AGENTS, seed=5):
    """Households straddle every border, half of all sites are empty, one agent in five meets nobody at work."""
    rng = np.random.default_rng(seed)
    age = rng.integers(0, 90, agents).astype(np.uint8)
    home = np.repeat(np.arange(agents), rng.integers(1, 9, agents))[:agents]
    site = np.where(rng.random(agents) < 0.2, -1, 2 * rng.integers(0, 40, agents))
    area_start = np.array([0, 3, agents // 4, agents // 2 + 1, agents], dtype=np.int64)
    area_region = np.array([0, 0, 1, 1], dtype=np.int64)
    region = np.repeat(area_region, np.diff(area_start)).astype(np.uint8)
    age[:3] = 5  # an area without adults: its pools pass their share on
    layers = {
        "home": Places.of(home, setting="home"),
        **edges(rng, agents).layers,
        "site": Places.of(site, 6.0, "work", num_places=80, activity=rng.gamma(2.0, 0.5, agents)),
        "drawn": mixing(age, area_start, area_region, expected=False),
        "expected": mixing(age, area_start, area_region, expected=True),
    }
    band = np.minimum(age // 10, 8).astype(np.uint8)
    columns = {"age": age, "age_group": band, "region": region, "key": rng.permutation(agents) + 10**9}
    fields = {
        "age_group": Field("age_group", "age", "years", tuple(f"{10 * i}-" for i in range(9))),
        "region": Field("region", "region", "", ("north", "south")),
    }
    return Population(agents, columns, Contacts(layers, agents), fields)


def make_model(**changes):
    """SEIR with ages, an infectiousness profile and layer weights, fast enough to infect most within weeks."""
    settings = {
        "transmission_rate": 0.04,
        "latent_rate": 0.4,
        "recovery_rate": 0.2,
        "initial_infected": 0.02,
        "susceptibility": [0.35, 0.69, 1.03, 1.03, 1.03, 1.03, 1.27, 1.52, 1.52],
        "infectiousness": [0.1, 0.8, 1.3, 0.9, 0.4],
        "layer_weights": {"home": 2.0, "drawn": 0.5},
    }
    return seir(**(settings | changes))


def ring(agents=8):
    """Everyone has two neighbours; rows in a circle."""
    one = np.arange(agents)
    return Population.of(Contacts.from_edges(one, (one + 1) % agents, num_agents=agents, undirected=True))


@pytest.fixture(scope="session")
def population():
    return make_population()


@pytest.fixture(scope="session")
def small_population():
    """The same in small, for gradients."""
    return make_population(400)


@pytest.fixture
def model():
    return make_model()


@pytest.fixture(scope="session")
def ring_of_eight():
    return ring()


@pytest.fixture(scope="session")
def model_of_session():
    """For references that many tests share; nothing may change its parameters."""
    return make_model()


def _arrays(layer):
    names = {Edges: ("indptr", "source", "weight"), Places: ("place", "indptr", "member")}
    mixing = ("group", "matrix", "area_start", "area_region", "counts")
    arrays = {name: np.asarray(getattr(layer, name)) for name in names.get(type(layer), mixing)}
    active = getattr(layer, "activity", None)
    return arrays if active is None else {**arrays, "activity": active}


@pytest.fixture(scope="session")
def stored(population, tmp_path_factory):
    """The population as a graph store in blocks of 64 rows, without the expected form, which no store holds."""
    layers = {n: v for n, v in population.contacts.layers.items() if n != "expected"}
    records = [
        {"name": n, "kind": type(v).__name__.lower(), "setting": v.setting}
        | ({"contacts": v.contacts} if isinstance(v, Places) else {})
        | ({"shares": v.shares, "dispersion": v.dispersion} if isinstance(v, Mixing) else {})
        for n, v in layers.items()
    ]
    fields = [
        {"name": f.name, "meaning": f.meaning, "unit": f.unit, "categories": f.categories}
        for f in population.fields.values()
    ]
    path = tmp_path_factory.mktemp("graph") / "graph.zarr"
    attributes = {"num_agents": population.num_agents, "block": 64, "layers": records, "fields": fields}
    write_store(path, population.columns, {n: _arrays(v) for n, v in layers.items()}, attributes)
    return path
