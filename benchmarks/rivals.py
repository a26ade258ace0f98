"""The same epidemic with gnabm and with general tools; a rival is prepared once, then run for a seed."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.epidemic import INFECTIOUS, SUSCEPTIBLE, Graph, Setting

if TYPE_CHECKING:
    import torch

    from benchmarks.kernel import Form
    from gnabm import Model

Run = Callable[[int], float]


def shipped(graph: Graph, setting: Setting) -> Run:
    """The model that gnabm ships, on contacts made from an edge list."""
    from gnabm.models import epidemic

    model = epidemic.sir(setting.transmission_rate, setting.recovery_rate, setting.initial_infected)
    return _with_gnabm(graph, setting, model)


def stranger(graph: Graph, setting: Setting) -> Run:
    """Rules in plain PyTorch, see `benchmarks.stranger`."""
    from benchmarks.stranger import model

    return _with_gnabm(graph, setting, model(setting))


def _with_gnabm(graph: Graph, setting: Setting, model: "Model") -> Run:
    from gnabm import Contacts, Population, Simulation
    from gnabm.shard import cut

    contacts = Contacts.from_edges(graph.source, graph.target, num_agents=graph.num_agents)
    shard = cut(Population.of(contacts))  # both orders of the edges, as a matrix is made ready for its rival

    def run(seed: int, steps: int = setting.steps) -> float:
        simulation = Simulation(model, shard, seed=seed)
        for _ in range(steps):
            simulation.advance()
        return 1.0 - int(simulation.observed["stage_count"][0]) / graph.num_agents

    run(0, steps=2)
    return run


def hand_written(graph: Graph, setting: Setting, form: "Form") -> Run:
    """A kernel for this one model, see `benchmarks.kernel`."""
    from benchmarks.kernel import prepare

    return prepare(graph, setting, form)


def torch_csr(graph: Graph, setting: Setting, bits: int) -> Run:
    """Contacts as a sparse matrix in torch, with indices of 32 or 64 bits."""
    import torch

    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    dtype = {32: torch.int32, 64: torch.int64}[bits]
    matrix = torch.sparse_csr_tensor(
        torch.from_numpy(graph.indptr).to(dtype),
        torch.from_numpy(graph.source).to(dtype),
        torch.ones(graph.num_edges),
        (graph.num_agents, graph.num_agents),
        check_invariants=True,
    )
    return _in_torch(lambda x: matrix @ x, graph.num_agents, setting)


def message_passing(graph: Graph, setting: Setting) -> Run:
    """Contacts as messages of torch_geometric, over edges sorted by target."""
    import torch
    from torch_geometric.nn import MessagePassing

    edges = torch.stack([torch.from_numpy(graph.source).long(), torch.from_numpy(graph.target).long()])

    class Sum(MessagePassing):  # type: ignore[misc]  # torch_geometric is not typed
        def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
            total: torch.Tensor = self.propagate(edge_index, x=x)
            return total

        def message(self, x_j: torch.Tensor) -> torch.Tensor:
            return x_j

    layer = Sum(aggr="sum")
    return _in_torch(lambda x: layer(x[:, None], edges).squeeze(1), graph.num_agents, setting)


def _in_torch(sum_contacts: "Callable[[torch.Tensor], torch.Tensor]", num_agents: int, setting: Setting) -> Run:
    """The step in dense torch, around any way to sum over contacts."""
    import torch

    @torch.inference_mode()
    def run(seed: int, steps: int = setting.steps) -> float:
        generator = torch.Generator().manual_seed(seed)
        stage = (torch.rand(num_agents, generator=generator) < setting.initial_infected).to(torch.uint8)
        for _ in range(steps):
            hazard = setting.transmission_rate * sum_contacts((stage == INFECTIOUS).float())
            leave = torch.where(stage == SUSCEPTIBLE, -torch.expm1(-hazard), 0.0)
            leave[stage == INFECTIOUS] = setting.recovery_probability
            stage += torch.rand(num_agents, generator=generator) < leave
        return float((stage != SUSCEPTIBLE).float().mean())

    run(0, steps=1)
    return run


def scipy_csr(graph: Graph, setting: Setting) -> Run:
    """Contacts as a sparse matrix in scipy, which uses one thread."""
    from scipy.sparse import csr_matrix

    ones = np.ones(graph.num_edges, np.float32)
    matrix = csr_matrix((ones, graph.source, graph.indptr), shape=(graph.num_agents, graph.num_agents))

    def run(seed: int) -> float:
        rng = np.random.default_rng(seed)
        stage = (rng.random(graph.num_agents) < setting.initial_infected).astype(np.uint8)
        for _ in range(setting.steps):
            hazard = setting.transmission_rate * (matrix @ (stage == INFECTIOUS).astype(np.float32))
            leave = np.where(stage == SUSCEPTIBLE, -np.expm1(-hazard), 0)
            leave[stage == INFECTIOUS] = setting.recovery_probability
            stage += rng.random(graph.num_agents, dtype=np.float32) < leave
        return float(np.mean(stage != SUSCEPTIBLE))

    return run


OURS, STRANGER, KERNEL, CSR, MESSAGE_PASSING = "gnabm", "gnabm, stranger", "kernel", "torch CSR int32", "MessagePassing"
RIVALS: dict[str, Callable[[Graph, Setting], Run]] = {
    OURS: shipped,
    STRANGER: stranger,
    KERNEL: partial(hand_written, form="hazards"),
    "kernel, tuned": partial(hand_written, form="tuned"),
    "kernel, draws": partial(hand_written, form="draws"),
    CSR: partial(torch_csr, bits=32),
    "torch CSR int64": partial(torch_csr, bits=64),
    "scipy CSR": scipy_csr,
    MESSAGE_PASSING: message_passing,
}
