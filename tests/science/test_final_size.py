"""The final size of an SIR epidemic on a random graph is that of percolation with its transmissibility."""

import numpy as np
import pytest
from scipy.optimize import brentq

from gnabm import Contacts, simulate
from gnabm.models.epidemic import sir


def random_graph(num_agents, mean_degree, seed):
    """An undirected random graph with Poisson degrees."""
    rng = np.random.default_rng(seed)
    ends = rng.integers(0, num_agents, (2, int(num_agents * mean_degree / 2)))
    low, high = ends.min(0), ends.max(0)
    code = np.unique((low * num_agents + high)[low != high])
    return Contacts.from_edges(*np.divmod(code, num_agents), num_agents=num_agents, undirected=True)


def final_size(mean_degree, transmission_rate, recovery_rate, initial, dt):
    r"""Share ever infected: Newman (2002), Phys. Rev. E 66, 016128, with an initial share.

    T = 1 - E[exp(-beta L)], L the geometric time from infection to recovery in whole steps. A neighbour does not
    transmit with probability u = 1 - T + T (1 - initial) exp(c (u - 1)).
    """
    leaves = 1 - np.exp(-recovery_rate * dt)
    escapes = np.exp(-transmission_rate * dt)
    transmissibility = 1 - leaves * escapes / (1 - (1 - leaves) * escapes)

    def balance(u):
        return 1 - transmissibility + transmissibility * (1 - initial) * np.exp(mean_degree * (u - 1)) - u

    u = brentq(balance, 0, 1 - 1e-12)
    return 1 - (1 - initial) * np.exp(mean_degree * (u - 1))


@pytest.mark.parametrize(
    ("mean_degree", "transmission_rate", "recovery_rate", "dt"),
    [
        (8.0, 0.06, 0.2, 1.0), (5.0, 0.15, 0.25, 1.0), (20.0, 0.015, 0.1, 2.0), (10.0, 0.3, 0.9, 1.0),
        (4.0, 0.02, 0.2, 1.0),
    ],
)  # fmt: skip
def test_final_size_is_within_one_point(mean_degree, transmission_rate, recovery_rate, dt):
    initial = 0.01
    contacts = random_graph(50_000, mean_degree, seed=1)
    run = simulate(sir(transmission_rate, recovery_rate, initial), contacts, steps=150, seed=2, dt=dt)
    counts = run.observed["stage_count"][-1]
    assert int(counts[1]) <= 5, "the epidemic is over"
    expected = final_size(mean_degree, transmission_rate, recovery_rate, initial, dt)
    assert 1 - int(counts[0]) / 50_000 == pytest.approx(expected, abs=0.01)
