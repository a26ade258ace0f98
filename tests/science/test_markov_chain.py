"""The state of a small SIR has exactly the distribution of its Markov chain."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from gnabm import Contacts, simulate
from gnabm.models.epidemic import sir

COPIES = 100_000
STATES = list(product(range(3), repeat=4))  # 81 states of four agents, each susceptible, infectious or recovered
# Four agents in a ring with a chord and one direction only, with unequal weights.
EDGES = [(0, 1, 1.0), (1, 0, 1.0), (1, 2, 2.0), (2, 1, 0.5), (2, 3, 1.0), (3, 0, 1.5), (0, 2, 0.25)]


def chain(transmission_rate, recovery_rate, dt):
    """(81, 81) probabilities of one step: agents change independently given the state at its start."""
    weight = np.zeros((4, 4))
    for source, target, w in EDGES:
        weight[target, source] = w
    matrix = np.zeros((len(STATES), len(STATES)))
    for row, state in enumerate(STATES):
        hazard = transmission_rate * weight @ (np.array(state) == 1)
        changes = np.where(np.array(state) == 0, 1 - np.exp(-hazard * dt), 1 - np.exp(-recovery_rate * dt))
        changes[np.array(state) == 2] = 0
        for column, after in enumerate(STATES):
            step = np.array(after) - np.array(state)
            if ((step == 0) | (step == 1)).all():
                matrix[row, column] = np.where(step == 1, changes, 1 - changes).prod()
    return matrix


@pytest.mark.parametrize("dt", [1.0, 0.5])
def test_all_81_states_are_as_frequent_as_in_the_exact_chain(dt):
    source, target, weight = (np.array(column) for column in zip(*EDGES, strict=True))
    shift = 4 * np.arange(COPIES)[:, None]
    contacts = Contacts.from_edges(
        (source + shift).ravel(), (target + shift).ravel(), np.tile(weight, COPIES), num_agents=4 * COPIES
    )
    run = simulate(
        sir(0.35, 0.3, initial_infected=range(0, 4 * COPIES, 4)), contacts, steps=8, seed=11, dt=dt, record=["stage"]
    )
    matrix = chain(0.35, 0.3, dt)
    np.testing.assert_allclose(matrix.sum(1), 1)
    start = np.zeros(len(STATES))
    start[STATES.index((1, 0, 0, 0))] = 1
    for steps in (1, 2, 4, 8):
        expected = COPIES * start @ np.linalg.matrix_power(matrix, steps)
        code = run.fields["stage"][steps - 1].reshape(COPIES, 4).astype(int) @ [27, 9, 3, 1]
        counts = np.bincount(code, minlength=81)
        assert counts[expected == 0].sum() == 0
        often = expected >= 5
        rest = [expected[~often].sum()] if expected[~often].sum() > 0 else []
        seen = [counts[~often].sum()] if rest else []
        test = stats.chisquare([*counts[often], *seen], [*expected[often], *rest])
        assert test.pvalue > 1e-3, f"{steps} steps: chi-square {test.statistic:.1f} of {often.sum()} states"
