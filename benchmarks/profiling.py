"""`python -m benchmarks.profiling`: where the time of a step goes, and who holds the memory.

Each case runs once in a process of its own under cProfile, whose cost is a few hundred calls per step. Time inside a
compiled kernel or an operator of torch counts for the Python function that calls it.
"""

import argparse
import cProfile
import json
import pstats
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import machine, page
from benchmarks.epidemic import Setting, uniform_random_graph
from benchmarks.measure import forget_peak, peak_rss
from gnabm import Contacts, Model, Population, Simulation
from gnabm.observe import Observer
from gnabm.shard import cut

LISTED = 14
LEAST = 1e-6
"""Seconds that are not followed any further up."""
START = date(2022, 1, 20)
LEGEND = """\
One process with two threads, aggregates only, one run each. *By rule*: the whole of what a rule does in a step: who can
change, its hazards or draws, what it returns; *observables* are the counts of the step; *the rest* chooses rows, joins
changes and keeps the state. *By function*: milliseconds per step in a function itself, with the compiled kernels and
operators of torch that it calls, the largest {listed}. *Held*: arrays that the shard and the state keep at the end.
"""


@dataclass
class Clock:
    """Seconds by name, of calls that it wraps.

    Args:
        seconds: What was measured so far.
    """

    seconds: dict[str, float] = field(default_factory=dict)

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, measured."""

        @wraps(call)
        def measured(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
            began = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

        return measured


def sir(num_agents: int) -> tuple[Model, Population, int]:
    """The shipped `sir` on a uniform random graph."""
    from gnabm.models import epidemic

    setting, graph = Setting(), uniform_random_graph(num_agents)
    model = epidemic.sir(setting.transmission_rate, setting.recovery_rate, setting.initial_infected)
    contacts = Contacts.from_edges(graph.source, graph.target, num_agents=num_agents)
    return model, Population.of(contacts), setting.steps


def plain_sir(num_agents: int) -> tuple[Model, Population, int]:
    """The same by rules in plain PyTorch."""
    from benchmarks.stranger import model

    return model(Setting()), *sir(num_agents)[1:]


def covid(num_agents: int) -> tuple[Model, Population, int]:
    """The shipped config of New Zealand, without its line list."""
    from gnabm.cli.populations import prepare
    from gnabm.config import load

    config = load("new_zealand", [f"population.num_agents={num_agents}"])
    ready = prepare(config, strict=False)
    return ready.model, ready.population, config.run.steps


CASES: dict[str, tuple[Callable[[int], tuple[Model, Population, int]], int]] = {
    "sir on edges": (sir, 5_000_000),
    "sir on edges, a stranger's rules": (plain_sir, 5_000_000),
    "covid in New Zealand": (covid, 5_174_700),
}


def profile(case: str, num_agents: int, most_steps: int) -> dict[str, Any]:
    """Run a case and say where its time went; milliseconds per step, bytes per agent."""
    model, population, steps = CASES[case][0](num_agents)
    shard = cut(population)
    steps = min(steps, most_steps)
    clock, profiler = Clock(), cProfile.Profile()
    Simulation(model, shard, seed=7, start=START).advance()  # compiles
    simulation = Simulation(model, shard, seed=7, start=START)
    forget_peak()
    for rule in model.rules():
        for name in ("where", "forward", "fused"):
            if hasattr(rule, name):
                setattr(rule, name, clock.around(rule.name, getattr(rule, name)))
    observe: Any = Observer.__call__
    Observer.__call__ = clock.around("observables", observe)  # type: ignore[method-assign]
    began = time.perf_counter()
    with profiler:
        for _ in range(steps):
            simulation.advance()
    seconds = time.perf_counter() - began
    parts = {**clock.seconds, "the rest": seconds - sum(clock.seconds.values())}
    return {
        "case": case,
        "agents": num_agents,
        "steps": steps,
        "seconds": seconds,
        "parts": {name: 1e3 * part / steps for name, part in sorted(parts.items(), key=lambda item: -item[1])},
        "functions": {name: 1e3 * own / steps for name, own in own_seconds(profiler)[:LISTED]},
        "held": {
            name: size / num_agents
            for name, size in held({**shard.layers, "columns": shard.columns, "state": simulation.agents}).items()
        },
        "peak": peak_rss(),
    }


def own_seconds(profiler: cProfile.Profile) -> list[tuple[str, float]]:
    """Seconds in each Python function of this repository, with what it calls elsewhere, largest first."""
    measured: Mapping[Any, Any] = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    root = f"{machine.ROOT}/"
    charged: dict[str, float] = {}

    def charge(function: Any, seconds: float, depth: int) -> None:  # noqa: ANN401
        """To the function if it is ours, else to its callers in proportion to what they spent in it."""
        path, line, name = function
        callers = measured[function][4] if function in measured else {}
        ours = path.startswith(root) and "/.venv/" not in path and "/benchmarks/" not in path
        total = sum(called[3] for called in callers.values())
        if ours or depth == 0 or seconds < LEAST or not total:
            label = f"{path.removeprefix(root)}:{line} {name}" if ours else "elsewhere"
            charged[label] = charged.get(label, 0.0) + seconds
            return
        for caller, called in callers.items():
            charge(caller, seconds * called[3] / total, depth - 1)

    for function, (_, _, own, _, _) in measured.items():
        charge(function, own, depth=40)
    return sorted(charged.items(), key=lambda item: -item[1])


def held(parts: Mapping[str, Any]) -> dict[str, int]:
    """Bytes of the arrays under each part, largest first; an array that several share counts for the first."""
    seen: set[int] = set()
    sizes = {name: sum(_arrays(part, seen)) for name, part in parts.items()}
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def _arrays(part: Any, seen: set[int]) -> Iterator[int]:  # noqa: ANN401
    """Bytes of each array under a part; those seen before, and whatever is no part of gnabm, are left out."""
    if isinstance(part, torch.Tensor):
        storage = part.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            yield storage.nbytes()
    elif isinstance(part, np.ndarray):
        start = part.__array_interface__["data"][0]
        if start not in seen:
            seen.add(start)
            yield part.nbytes
    elif id(part) not in seen:
        inside: Any = part if isinstance(part, (tuple, list)) else ()
        if isinstance(part, Mapping):
            inside = part.values()
        elif type(part).__module__.startswith("gnabm."):
            inside = getattr(part, "__dict__", {}).values()
        seen.add(id(part))
        for one in inside:
            yield from _arrays(one, seen)


def as_markdown(found: Mapping[str, Any]) -> str:
    """The tables of one case."""
    ours = 1e3 * found["seconds"] / found["steps"]
    head = (
        f"### {found['case']}: {found['agents']:,} agents, {found['steps']} steps\n\n{found['seconds']:.2f} s, "
        f"{ours:.1f} ms per step; {page.gibibytes(found['peak'])} resident at the peak of the steps."
    )
    parts = [[name, f"{part:.2f}", f"{part / ours:.0%}"] for name, part in found["parts"].items()]
    functions = [[f"`{name}`", f"{own:.2f}", f"{own / ours:.0%}"] for name, own in found["functions"].items()]
    bytes_held = [[name, f"{size:.1f}"] for name, size in found["held"].items() if size >= 0.05]
    return "\n\n".join(
        [
            head,
            page.table(("by rule", "ms per step", "share"), parts),
            page.table(("by function", "ms per step", "share"), functions),
            page.table(("held", "bytes per agent"), bytes_held),
        ]
    )


def main() -> None:
    """Read the command line, profile each case in a process of its own, keep the section."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profiling", description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), metavar="CASE")
    parser.add_argument("--agents", type=int, help="instead of the size of each case")
    parser.add_argument("--steps", type=int, default=1000, help="at most")
    parser.add_argument("--out", type=Path, default=page.RESULTS)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        case, num_agents, steps = asked.one
        sys.stdout.write(f"\n{json.dumps(profile(case, int(num_agents), int(steps)))}\n")
        return
    texts = [page.measured_on(), LEGEND.format(listed=LISTED).strip()]
    for case in asked.cases:
        size = asked.agents or CASES[case][1]
        command = [sys.executable, "-m", "benchmarks.profiling", "--one", case, str(size), str(asked.steps)]
        done = subprocess.run(command, cwd=machine.ROOT, stdout=subprocess.PIPE, text=True, check=True)
        texts.append(as_markdown(json.loads(done.stdout.splitlines()[-1])))
    page.keep(page.PROFILE, "\n\n".join(texts), asked.out)


if __name__ == "__main__":
    main()
