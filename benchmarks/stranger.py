"""The SIR that someone writes who has read the README and nothing else: two rules in plain PyTorch."""

import torch
from torch import Tensor, nn

from benchmarks.epidemic import Setting
from gnabm import Agents, Model, Neighbours, Rule, SeedAtRandom, Stage, Stages, Step, count_by_stage

S, I, R = STAGES = Stages("susceptible", "infectious", "recovered")  # noqa: E741  # the names of the field


class Meet(Rule):
    """Infection by infectious contacts.

    Args:
        transmission_rate: Infections per contact.
    """

    def __init__(self, transmission_rate: float) -> None:
        super().__init__()
        self.log_rate = nn.Parameter(torch.tensor(transmission_rate).log())

    def forward(self, agents: Agents, contacts: Neighbours, step: Step) -> dict[str, Stage]:
        """Move the newly infected."""
        hazard = self.log_rate.exp() * contacts.sum_neighbours(agents.stage.is_(I))
        newly = step.bernoulli(-torch.expm1(-hazard * step.dt), where=agents.stage.is_(S))
        return {"stage": agents.stage.move(S, I, newly)}


class Heal(Rule):
    """Recovery at a constant rate.

    Args:
        probability: Of recovering in a step.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = torch.tensor(probability)

    def forward(self, agents: Agents, contacts: Neighbours, step: Step) -> dict[str, Stage]:
        """Move those who recover."""
        healed: Tensor = step.bernoulli(self.probability, where=agents.stage.is_(I))
        return {"stage": agents.stage.move(I, R, healed)}


def model(setting: Setting) -> Model:
    """The same epidemic as that of the shipped model."""
    rules = [Meet(setting.transmission_rate), Heal(setting.recovery_probability)]
    seeds = SeedAtRandom(S, I, setting.initial_infected)
    return Model(rules, state={"stage": STAGES}, initial=seeds, observe=[count_by_stage])
