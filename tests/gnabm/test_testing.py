"""The conformance classes pass what is right and catch what is not, naming the cause."""

import pytest
import torch
from torch import nn

from gnabm import Rule, Stages, State
from gnabm.models.epidemic import seir, sir
from gnabm.testing import ConformanceError, ModelConformance, RuleConformance, awkward_population


class TestSir(ModelConformance):
    def model(self):
        return sir(0.05, 0.2, initial_infected=0.05)


class TestSirOnWholeWeights(ModelConformance):
    def model(self):
        return sir(0.05, 0.2, initial_infected=0.05)

    def population(self, num_agents):
        return awkward_population(num_agents, integer_weights=True)


class TestSeir(ModelConformance):
    def model(self):
        return seir(
            0.05, 0.5, 0.2, initial_infected=0.05, susceptibility=[0.5 + 0.1 * k for k in range(9)],
            infectiousness=[0.1, 0.7, 1.0, 0.3], layer_weights={"home": 2.0, "community": 0.5},
        )  # fmt: skip
