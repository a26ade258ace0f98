"""Nobody appears, vanishes or is counted twice, whatever the layers."""

import numpy as np
import pytest

from gnabm import simulate
from gnabm.models.epidemic import seir, sir
from gnabm.testing import awkward_population

POPULATION = awkward_population(5_000)


@pytest.mark.parametrize("model", [sir(0.05, 0.2, 0.02), seir(0.1, 0.4, 0.2, 0.02)], ids=["sir", "seir"])
@pytest.mark.parametrize("gradient", [None, "straight-through"])
def test_compartments_are_conserved_in_every_region_and_age_group(model, gradient):
    run = simulate(model, POPULATION, steps=40, seed=5, gradient=gradient, record=["stage"])
    counts = run.observed["stage_count"].detach().numpy()
    region, age = POPULATION.columns["region"], POPULATION.columns["age_group"]
    there = np.zeros((3, 9))
    np.add.at(there, (region, age), 1)
    assert (counts.sum(1) == there).all()
    assert (np.diff(counts[:, 0], axis=0) <= 0).all() and (np.diff(counts[:, -1], axis=0) >= 0).all()
    incidence = run.observed["incidence"].detach().numpy()
    assert (np.diff(counts[:, 0], axis=0) == -incidence[1:]).all()
    assert incidence.sum() > 500, "an epidemic happened"
    stages = run.fields["stage"].astype(int)
    assert (np.diff(stages, axis=0) >= 0).all() and (np.diff(stages, axis=0) <= 1).all()
