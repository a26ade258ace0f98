"""`python -m benchmarks.gradients`: what gradients cost, backwards and forwards, on edges and places.

SEIR on a uniform random graph with a home and a site for everyone; every row in a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks import machine, page
from benchmarks.epidemic import uniform_random_graph
from benchmarks.measure import forget_peak, peak_rss
from gnabm import Contacts, Model, Places, Population, simulate
from gnabm.contacts import Edges, Layer
from gnabm.models.epidemic import seir
from gnabm.tangent import jacobian

FORWARD, GRAPH, CHECKPOINT, TANGENT = "forward", "reverse", "reverse, checkpoints", "forward mode"
LAYERS = {"friends": 1.0, "home": 1.0, "site": 0.05}
PARAMETERS = (
    "Infect.transmission_rate", "Infect.layer_weights.friends", "Infect.layer_weights.home",
    "Infect.layer_weights.site", "Infect.profile.values", "BecomeInfectious.rate", "Recover.rate", "SeedAtRandom.share",
)  # fmt: skip
COLUMNS = (
    "mode", "estimator", "agents", "steps", "allocator", "run s", "backward s", "x forward", "x run", "peak RSS",
    "start-up RSS",
)  # fmt: skip
LEGEND = """\
`epidemic.seir` on a uniform random graph of mean degree 10, homes of 2.7 and sites of 30 on average, 0.1 % infectious
at first. *forward*: a run without gradient. *reverse*: the graph of every step is kept, then walked back from the
number infected at the end to all parameters. *checkpoints*: the state of every tenth step is kept and steps are made
again. *forward mode*: dual numbers, all observables in 8 parameters, one after the other. Run: seconds of all steps;
x forward: over those of the row *forward* of as many steps; x run: run and backward over the run of the row *reverse*.
Peak RSS: of the process while it ran; start-up RSS: with libraries and graph. Allocator: what gnabm sets, or the
threshold in bytes from which glibc maps memory for a buffer and returns it (MALLOC_MMAP_THRESHOLD_).
"""


@dataclass(frozen=True)
class Case:
    """One row."""

    mode: str
    agents: int
    steps: int
    estimator: str
    threshold: int | None = None


def population(num_agents: int, seed: int = 0) -> Population:
    """Edges, homes in runs of rows, and sites anywhere."""
    rng = np.random.default_rng(seed)
    graph = uniform_random_graph(num_agents, seed=seed)
    home = np.cumsum(rng.random(num_agents) < 1 / 2.7).astype(np.int32)
    site = rng.integers(0, num_agents // 30 + 1, num_agents).astype(np.int32)
    layers: dict[str, Layer] = {
        "friends": Edges(graph.indptr, graph.source, None),
        "home": Places.of(home, num_places=int(home[-1]) + 1),
        "site": Places.of(site, num_places=num_agents // 30 + 1),
    }
    return Population(num_agents, {}, Contacts(layers, num_agents))


def model() -> Model:
    """A wave that passes within 100 days."""
    return seir(0.02, 0.3, 0.2, 0.001, layer_weights=LAYERS)


def work(case: Case, people: Population) -> tuple[float, float]:
    """Seconds of the run and of the way back."""
    made, began = model(), time.perf_counter()
    if case.mode == TANGENT:
        jacobian(made, people, PARAMETERS, steps=case.steps, seed=1, gradient=case.estimator)
        return time.perf_counter() - began, 0.0
    gradient = None if case.mode == FORWARD else case.estimator
    every = 10 if case.mode == CHECKPOINT else None
    run = simulate(made, people, steps=case.steps, seed=1, gradient=gradient, checkpoint=every)
    seconds = time.perf_counter() - began
    if gradient is None:
        return seconds, 0.0
    began = time.perf_counter()
    torch.autograd.backward(run.observed["stage_count"][-1, 0].sum())
    found = [p.grad for p in made.parameters()]
    if not any(g is not None and bool(torch.isfinite(g).all()) and bool((g != 0).any()) for g in found):
        raise RuntimeError(f"no gradient came back: {found}")
    return seconds, time.perf_counter() - began


def measure(case: Case) -> dict[str, float]:
    """What one case takes in this process; kernels are compiled on a small population first."""
    work(replace(case, steps=2), population(3_000))
    people = population(case.agents)
    start = peak_rss()
    forget_peak()
    run, back = work(case, people)
    return {"run": run, "back": back, "peak": peak_rss(), "start": start}


def run_case(case: Case, threads: int) -> dict[str, float]:
    """Measure a case in a fresh process.

    Raises:
        subprocess.CalledProcessError: It failed; its own error stands on standard error.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
    if case.threshold is not None:
        environment["MALLOC_MMAP_THRESHOLD_"] = str(case.threshold)
    command = [sys.executable, "-m", "benchmarks.gradients", "--measure", json.dumps(asdict(case))]
    done = subprocess.run(command, cwd=machine.ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def cells(case: Case, found: dict[str, float], before: dict[tuple[str, int], float]) -> list[str]:
    """One row of the table; `before` has the seconds of earlier runs by mode and steps."""

    def over(seconds: float, mode: str) -> str:
        base = before.get((mode, case.steps))
        return f"{seconds / base:.2f}" if base else "-"

    both = found["run"] + found["back"]
    return [
        case.mode, "-" if case.mode == FORWARD else case.estimator, f"{case.agents:,}", str(case.steps),
        "gnabm's" if case.threshold is None else f"{case.threshold:,}", f"{found['run']:.1f}",
        f"{found['back']:.1f}" if found["back"] else "-", over(both, FORWARD), over(both, GRAPH),
        page.gibibytes(found["peak"]), page.gibibytes(found["start"]),
    ]  # fmt: skip


def main() -> None:
    """Measure each case, show the table and keep it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gradients", description=__doc__)
    parser.add_argument("--agents", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=100, help="forward mode also takes four times as many")
    parser.add_argument("--estimator", default="local-score")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--modes", nargs="+", choices=(FORWARD, GRAPH, CHECKPOINT, TANGENT), metavar="MODE")
    parser.add_argument("--thresholds", type=int, nargs="*", default=[], help="MALLOC_MMAP_THRESHOLD_ to compare")
    parser.add_argument("--out", type=Path, help=f"page to keep the section on, such as {page.RESULTS.name}")
    parser.add_argument("--measure", metavar="CASE", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        sys.stdout.write(f"\n{json.dumps(measure(Case(**json.loads(asked.measure))))}\n")
        return
    measured_on, rows = page.measured_on(asked.threads), []
    before: dict[tuple[str, int], float] = {}
    for mode in asked.modes or (FORWARD, GRAPH, CHECKPOINT, TANGENT):
        for steps in (asked.steps, 4 * asked.steps) if mode == TANGENT else (asked.steps,):
            for threshold in (None, *(asked.thresholds if mode != FORWARD else ())):
                case = Case(mode, asked.agents, steps, asked.estimator, threshold)
                found = run_case(case, asked.threads)
                before.setdefault((mode, steps), found["run"])
                rows.append(cells(case, found, before))
                sys.stdout.write(" | ".join(rows[-1]) + "\n")
                sys.stdout.flush()
    page.keep(page.GRADIENTS, "\n\n".join([measured_on, LEGEND.strip(), page.table(COLUMNS, rows)]), asked.out)


if __name__ == "__main__":
    main()
