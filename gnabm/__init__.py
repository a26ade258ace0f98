"""gnabm: distributed graph-neural agent-based models.

Write how agents interact as a rule in plain PyTorch; `simulate` runs it on a population as message passing over its
contact graph, on one shard or many, with the same bits.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gnabm import models
    from gnabm.agents import Agents, Field, Stage, Stages
    from gnabm.audit import audit
    from gnabm.contacts import Contacts, Edges, Mixing, Places
    from gnabm.model import Model, Observable, State, count_by_stage
    from gnabm.neighbours import Neighbours
    from gnabm.population import Population
    from gnabm.rule import Rule, SeedAgents, SeedAtRandom, Step
    from gnabm.simulate import simulate
    from gnabm.simulation import Simulation
    from gnabm.trajectory import Trajectory, open_trajectory

_HOME = {
    "agents": ("Agents", "Field", "Stage", "Stages"),
    "audit": ("audit",),
    "contacts": ("Contacts", "Edges", "Mixing", "Places"),
    "model": ("Model", "Observable", "State", "count_by_stage"),
    "neighbours": ("Neighbours",),
    "population": ("Population",),
    "rule": ("Rule", "SeedAgents", "SeedAtRandom", "Step"),
    "simulate": ("Simulation", "simulate"),
    "trajectory": ("Trajectory", "open_trajectory"),
}

__all__ = [
    "Agents", "Contacts", "Edges", "Field", "Mixing", "Model", "Neighbours", "Observable", "Places", "Population",
    "Rule", "SeedAgents", "SeedAtRandom", "Simulation", "Stage", "Stages", "State", "Step", "Trajectory",
    "audit", "count_by_stage", "models", "open_trajectory", "simulate",
]  # fmt: skip


class _Package(ModuleType):
    """Loads a name of the package when it is first asked for, so that `gnabm --help` need not wait for torch."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name == "models":
            import_module("gnabm.models.epidemic")
            return import_module("gnabm.models")
        for module, names in _HOME.items():
            if name in names:
                value = getattr(import_module(f"gnabm.{module}"), name)
                self.__dict__[name] = value
                return value
        raise AttributeError(f"module 'gnabm' has no attribute {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        # Importing the module gnabm.simulate would hide the function of that name.
        if not (name in _HOME.get(name, ()) and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
