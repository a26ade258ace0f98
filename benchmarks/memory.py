"""`python -m benchmarks.memory`: the forecast of `gnabm plan` beside the peak that a run then has.

Each case is prepared, planned and run in a process of its own, as `gnabm run` does it. Measured is the peak resident
memory of that process and of all that it starts (ranks, Ray), each at its own peak.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks import command, page
from benchmarks.machine import ROOT
from benchmarks.measure import forget_peak, peak_rss

LEAST, MOST = 0.95, 1.15
"""Forecast over measured: what the forecast promises."""
COLUMNS = (
    "case", "agents", "shards", "recorded", "forecast", "measured", "forecast / measured", "start", "steps",
    "s per step", "forecast s", "plan", "plan s",
)  # fmt: skip
LEGEND = """\
- *forecast*, *measured*: peak resident memory of all processes of the run; the forecast may lie 15 % over the
  measured peak and 5 % under it.
- *start*, *steps*: of these, the first process alone until the first step and from there on. *plan*: its peak once the
  population is open, the model made and the run planned.
- *s per step*, *forecast s*: mean over all steps, and what `gnabm plan` says of them.
"""


@dataclass(frozen=True)
class Case:
    """One run: a model on a population of a size.

    Args:
        model: `sir` on ten random contacts per agent, `seir` or `covid` on New Zealand's layers.
        agents: Number of agents.
        shards: Number of shards; more than one are actors.
        stage: Whether every agent's stage is recorded.
        infections: Whether who infected whom is recorded.
        steps: Number of steps; enough for the peak of the epidemic.
    """

    model: str
    agents: int
    shards: int = 1
    stage: bool = False
    infections: bool = False
    steps: int = 60

    def config(self, folder: Path) -> dict[str, Any]:
        """The config of this run; an edge list is drawn and stored in the folder."""
        found: dict[str, Any] = yaml.safe_load((ROOT / "configs" / f"{CONFIGS[self.model]}.yaml").read_text("utf-8"))
        found["run"] |= {"steps": self.steps, "shards": self.shards}
        found["record"] = {"fields": ["stage"] if self.stage else [], "infections": self.infections}
        if self.model == "sir":
            found |= {"model": "epidemic.sir", "population": {"graph": str(_edges(folder, self.agents))}}
            found |= {"parameters": {"transmission_rate": 0.028, "recovery_rate": 1 / 7, "initial_infected": 0.01}}
            found.pop("reproduction_number")
        else:
            found["population"]["num_agents"] = self.agents
        if self.model == "seir":
            found["parameters"]["initial_infected"] = 0.003
        return found


CONFIGS = {"sir": "nation", "seir": "nation", "covid": "new_zealand"}
"""Config that each model is run with; `sir` takes only its settings of the run."""
SMALL = tuple(
    Case(model, 200_000, shards, recorded, recorded)
    for model in ("sir", "seir", "covid")
    for shards in (1, 2)
    for recorded in (False, True)
)
FULL = (
    *(Case("sir", agents, shards) for agents in (1_000_000, 5_000_000) for shards in (1, 2)),
    *(
        Case(model, agents, shards, *recorded)
        for model in ("seir", "covid")
        for agents in (1_000_000, 5_174_700)
        for shards, recorded in ((1, ()), (2, ()), (1, (True,)), (1, (False, True)), (2, (True, True)))
    ),
)


def _edges(folder: Path, num_agents: int) -> Path:
    """A graph store of ten random contacts per agent, drawn in a process that leaves no memory behind."""
    path = folder / "edges.zarr"
    code = (
        "import sys; from pathlib import Path; from benchmarks.epidemic import uniform_random_graph as draw\n"
        "from graphs.store import block_size, write_store\n"
        "n = int(sys.argv[2]); graph = draw(n)\n"
        "layers = {'contacts': {'indptr': graph.indptr, 'source': graph.source}}\n"
        "said = {'num_agents': n, 'block': block_size(n), 'layers': [{'name': 'contacts', 'kind': 'edges'}]}\n"
        "write_store(Path(sys.argv[1]), {}, layers, said)"
    )
    subprocess.run([sys.executable, "-c", code, str(path), str(num_agents)], cwd=ROOT, check=True)
    return path


def children_peak() -> int:
    """Sum of the peaks of all processes that this one has started and that live, in bytes."""
    total = 0
    for child in psutil.Process().children(recursive=True):
        try:
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{child.pid}/status").read_text())
        except OSError:  # it ended meanwhile
            continue
        total += int(found[1]) * 1024 if found else 0
    return total


def measure(config_path: str, folder: str) -> dict[str, Any]:
    """Prepare, plan and run a config in this process.

    Args:
        config_path: Config.
        folder: Where the run is left.
    """
    from cluster.plan import plan
    from cluster.run import run
    from gnabm.cli.populations import prepare
    from gnabm.config import load

    config = load(config_path, [])
    ready = prepare(config, strict=False)
    began = time.perf_counter()
    settings: dict[str, Any] = {
        "shards": config.run.shards, "steps": config.run.steps, "record": config.record.fields,
        "infections": config.record.infections,
    }  # fmt: skip
    found = plan(ready.population, ready.model, **settings)
    seconds, planned, peaks = time.perf_counter() - began, peak_rss(), {"start": 0, "children": 0}

    def on_step(step: int, observed: Mapping[str, Any]) -> None:
        if step == 0:
            peaks["start"] = peak_rss()
            forget_peak()
        if step == config.run.steps - 1:
            peaks["children"] = children_peak()

    assert ready.store is not None, "every case has a store"
    result = run(
        ready.model, ready.store, seed=config.run.seed, start=config.run.start, out=folder, on_step=on_step, **settings
    )
    stepping = peak_rss()
    return {
        "plan": found.to_dict(),
        "plan_seconds": seconds,
        "plan_peak": planned,
        "start_peak": peaks["start"],
        "step_peak": stepping,
        "ranks": result.peak_rss,
        "measured": max(peaks["start"], stepping) + peaks["children"],
        "seconds_per_step": (result.seconds - result.startup_seconds) / config.run.steps,
        "phases": [dict(rank.seconds) for rank in result.ranks],
    }


def run_case(case: Case) -> dict[str, Any]:
    """Measure a case in a fresh process.

    Raises:
        subprocess.CalledProcessError: The run failed; its own error stands on standard error.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(yaml.safe_dump(case.config(Path(folder))), "utf-8")
        if case.model != "sir":
            command.build(str(path), [])  # in a process of its own: a build takes memory too
        measuring = [sys.executable, "-m", "benchmarks.memory", "--measure", str(path), f"{folder}/run"]
        done = subprocess.run(measuring, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def ratio(found: Mapping[str, Any]) -> float:
    """Forecast over measured."""
    return float(found["plan"]["memory"] / found["measured"])


def cells(case: Case, found: Mapping[str, Any]) -> list[str]:
    """One row of the table."""
    recorded = ["stage"] * case.stage + ["infections"] * case.infections
    amounts = [f"{found[name] / 2**20:,.0f} MiB" for name in ("measured", "start_peak", "step_peak", "plan_peak")]
    quiet, busy = found["plan"]["seconds"]
    return [
        case.model, f"{case.agents:,}", str(case.shards), ", ".join(recorded) or "-",
        f"{found['plan']['memory'] / 2**20:,.0f} MiB", amounts[0], f"{ratio(found):.3f}", *amounts[1:3],
        f"{found['seconds_per_step']:.3f}", f"{quiet:.3f} to {busy:.3f}", amounts[3], f"{found['plan_seconds']:.1f}",
    ]  # fmt: skip


def asked_cases(asked: argparse.Namespace) -> Sequence[Case]:
    """The cases that the command line names."""
    if not asked.agents:
        return FULL if asked.full else SMALL
    return [
        Case(model, agents, shards, asked.stage, asked.infections, asked.steps)
        for model in asked.models
        for agents in asked.agents
        for shards in asked.shards
    ]


def main() -> int:
    """Measure, keep the section; 1 if a forecast is off."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--full", action="store_true", help="up to 5.17 million agents instead of 200,000")
    parser.add_argument("--agents", type=int, nargs="+", help="these sizes instead")
    parser.add_argument("--models", nargs="+", choices=tuple(CONFIGS), default=["seir"])
    parser.add_argument("--shards", type=int, nargs="+", default=[1])
    parser.add_argument("--steps", type=int, default=Case.steps)
    parser.add_argument("--stage", action="store_true", help="record every agent's stage")
    parser.add_argument("--infections", action="store_true", help="record who infected whom")
    parser.add_argument("--out", type=Path, help=f"page to keep the section on, such as {page.RESULTS.name}")
    parser.add_argument("--json", type=Path, help="file to append all that was measured to, a line for each case")
    parser.add_argument("--measure", nargs=2, metavar=("CONFIG", "FOLDER"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        sys.stdout.write(f"\n{json.dumps(measure(*asked.measure))}\n")
        return 0
    measured_on, rows, off = page.measured_on(threads=len(os.sched_getaffinity(0))), [], 0
    for case in asked_cases(asked):
        found = run_case(case)
        rows.append(cells(case, found))
        off += not LEAST <= ratio(found) <= MOST
        sys.stdout.write(" | ".join(rows[-1]) + "\n")
        sys.stdout.flush()
        if asked.json:
            with asked.json.open("a") as file:
                file.write(json.dumps({"case": asdict(case), **found}) + "\n")
    page.keep(page.MEMORY, "\n\n".join([measured_on, LEGEND.strip(), page.table(COLUMNS, rows)]), asked.out)
    if off:
        sys.stdout.write(f"{off} forecasts lie outside {LEAST} to {MOST} of the measured peak\n")
    return int(bool(off))


if __name__ == "__main__":
    raise SystemExit(main())
