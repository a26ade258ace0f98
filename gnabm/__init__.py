"""gnabm: distributed graph-neural agent-based models.

Write how agents interact as a rule in plain PyTorch; `simulate` runs it on a population as message passing over its
contact graph, on one shard or many, with the same bits.
"""

from gnabm import models
from gnabm.agents import Agents, Field, Stage, Stages
from gnabm.contacts import Contacts, Edges, Mixing, Places
from gnabm.model import Model, Observable, State, count_by_stage
from gnabm.models import epidemic as _epidemic
from gnabm.neighbours import Neighbours
from gnabm.population import Population
from gnabm.rule import Rule, SeedAgents, SeedAtRandom, Step
from gnabm.simulate import Simulation, simulate
from gnabm.trajectory import Trajectory, open_trajectory

del _epidemic

__all__ = [
    "Agents", "Contacts", "Edges", "Field", "Mixing", "Model", "Neighbours", "Observable", "Places", "Population",
    "Rule", "SeedAgents", "SeedAtRandom", "Simulation", "Stage", "Stages", "State", "Step", "Trajectory",
    "count_by_stage", "models", "open_trajectory", "simulate",
]  # fmt: skip
