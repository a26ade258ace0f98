"""What every rival simulates: one SIR on one uniform random graph.

Hazard of a susceptible agent = transmission_rate x number of its infectious contacts; it is infected with
probability 1 - exp(-hazard), an infectious agent recovers with probability 1 - exp(-recovery_rate), both from
the state at the start of the step. The graph is undirected: the row of an agent names those it meets, whether
it sends or receives.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SUSCEPTIBLE, INFECTIOUS, RECOVERED = 0, 1, 2


@dataclass(frozen=True)
class Setting:
    """Parameters of the epidemic; rates per contact and per day, a step is one day."""

    transmission_rate: float = 0.028
    recovery_rate: float = 1 / 7
    initial_infected: float = 0.001
    steps: int = 100

    @property
    def recovery_probability(self) -> float:
        """Probability that an infectious agent recovers in a step."""
        return float(-np.expm1(-self.recovery_rate))


@dataclass(frozen=True)
class Graph:
    """Compressed rows of a symmetric graph.

    Attributes:
        indptr: (num_agents + 1,) int64, where the row of each agent begins.
        source: (num_edges,) int32, the agents that each agent meets, ascending within a row.
    """

    indptr: NDArray[np.int64]
    source: NDArray[np.int32]

    @property
    def num_agents(self) -> int:
        """Number of rows."""
        return len(self.indptr) - 1

    @property
    def num_edges(self) -> int:
        """Number of directed edges: each contact counts twice."""
        return len(self.source)

    @property
    def target(self) -> NDArray[np.int32]:
        """(num_edges,) int32, the row of each edge, ascending."""
        return np.repeat(np.arange(self.num_agents, dtype=np.int32), np.diff(self.indptr))

    def save(self, folder: Path) -> None:
        """Write both arrays to a folder."""
        np.save(folder / "indptr.npy", self.indptr)
        np.save(folder / "source.npy", self.source)

    @classmethod
    def load(cls, folder: Path) -> "Graph":
        """Read what `save` wrote."""
        return cls(np.load(folder / "indptr.npy"), np.load(folder / "source.npy"))


def uniform_random_graph(num_agents: int, mean_degree: float = 10.0, seed: int = 0) -> Graph:
    """Draw num_agents * mean_degree / 2 pairs uniformly; self-loops and repeated pairs are dropped."""
    rng = np.random.default_rng(seed)
    pairs = rng.integers(num_agents, size=(2, round(num_agents * mean_degree / 2)), dtype=np.int64)
    return _symmetric(num_agents, *pairs)


def geographic_graph(num_agents: int, mean_degree: float = 10.0, local: float = 0.9, seed: int = 0) -> Graph:
    """Draw pairs of which a share `local` lie within num_agents / 100 rows of each other and the rest anywhere.

    Rows stand in geographic order: near rows are near places, and the ends are neighbours.
    """
    rng = np.random.default_rng(seed)
    num_pairs, reach = round(num_agents * mean_degree / 2), num_agents // 100
    one = rng.integers(num_agents, size=num_pairs, dtype=np.int64)
    near = (one + rng.integers(-reach, reach + 1, size=num_pairs)) % num_agents
    other = np.where(rng.random(num_pairs) < local, near, rng.integers(num_agents, size=num_pairs))
    return _symmetric(num_agents, one, other)


def in_random_order(graph: Graph, seed: int = 0) -> Graph:
    """The same graph with its agents in random rows."""
    row = np.random.default_rng(seed).permutation(graph.num_agents)
    one, other = row[graph.target], row[graph.source]
    return _symmetric(graph.num_agents, one[one < other], other[one < other])


def _symmetric(num_agents: int, one: NDArray[np.int64], other: NDArray[np.int64]) -> Graph:
    """Compress pairs of agents, each once in either order."""
    low, high = np.minimum(one, other), np.maximum(one, other)
    key = np.unique((low * num_agents + high)[low != high])
    low, high = np.divmod(key, num_agents)
    key = np.concatenate([key, high * num_agents + low])
    key.sort()
    row, source = np.divmod(key, num_agents)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=num_agents))])
    return Graph(indptr.astype(np.int64), source.astype(np.int32))
