"""`python -m benchmarks.tools --python PYTHON`: public tools for epidemics beside gnabm.

PYTHON is an interpreter that has starsim and covasim, such as that of an environment made by
`python -m venv tools && tools/bin/pip install starsim covasim`; gnabm needs neither.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import page
from benchmarks.epidemic import Setting
from benchmarks.machine import ROOT
from benchmarks.rivals import OURS, STRANGER
from benchmarks.sir import bench

TOOLS = ("starsim", "covasim")
COLUMNS = (
    "measured here", "version", "seconds", "agent-steps/s", "gnabm is faster by", "attack rate", "peak RSS",
    "start-up s", "runs",
)  # fmt: skip
CITED = (
    ("AgentTorch", "AgentTorch/AgentTorch, read at 6debb10", "0.17 to 0.26"),
    ("GradABM", "AdityaLab/GradABM, read at 03b0189", "0.57"),
    ("Covasim", "version not stated", "1.3 to 1.9"),
    ("GradABM-JUNE", "arnauqb/GradABM-JUNE, read at 693d320", "3.0"),
    ("Starsim", "version not stated", "6.0"),
)
"""Million agent-steps per second that were given to this project for 1M agents; not measured by these scripts."""
LEGEND = """\
{agents:,} agents, fixed random contacts of mean degree 10, {steps} steps of a day. *gnabm*: the shipped `sir`; *gnabm,
stranger*: rules in plain PyTorch. *starsim*: its SIR with the same rates. *covasim*: its own COVID-19, which has ages,
courses and severity, so that it does more per agent. Each run in a process of its own; peak RSS with start-up.
"""
NOT_MEASURED = """\
**Not measured in this run**, cited: throughput of public tools for 1M agents on two cores of the same size, as this
project was given it; network and disease of each are not known to be those above. Where a revision stands, its sources
were read at that revision; the revision that was measured is not known.
"""


@dataclass(frozen=True)
class Row:
    """What a tool took; seconds and bytes."""

    tool: str
    version: str
    seconds: float
    start_up: float
    peak: int
    attack_rate: float
    runs: int

    def cells(self, agent_steps: int, ours: float) -> list[str]:
        """One row of the table."""
        return [
            self.tool,
            self.version,
            f"{self.seconds:.2f}",
            f"{agent_steps / self.seconds:.3g}",
            f"{self.seconds / ours:.1f} x",
            f"{self.attack_rate:.4f}",
            page.gibibytes(self.peak),
            f"{self.start_up:.1f}",
            str(self.runs),
        ]


def measure(python: str, tool: str, num_agents: int, steps: int, threads: int, repeats: int) -> Row | None:
    """Medians of a tool, or None if the interpreter does not have it."""
    known = subprocess.run([python, "-c", f"import {tool}"], cwd="/", capture_output=True, check=False)
    if known.returncode:
        return None
    command = [python, str(ROOT / "benchmarks" / "outside.py"), tool, str(num_agents), str(steps)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
    runs = []
    for _ in range(repeats):
        done = subprocess.run(command, cwd="/", env=environment, stdout=subprocess.PIPE, text=True, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    middle = {name: median(run[name] for run in runs) for name in ("seconds", "start_up", "peak", "attack_rate")}
    return Row(
        tool, runs[0]["version"], middle["seconds"], middle["start_up"], int(middle["peak"]), middle["attack_rate"],
        repeats,
    )  # fmt: skip


def ours(num_agents: int, steps: int, threads: int, repeats: int) -> list[Row]:
    """The shipped model, and one in plain PyTorch."""
    found = bench(num_agents, Setting(steps=steps), rivals=[OURS, STRANGER], repeats=repeats, threads=threads)
    return [
        Row(r.rival, "this", r.seconds, r.start_up, max(r.run_peak, r.start_up_peak), r.attack_rate, r.runs)
        for r in found.rows
    ]


def cited() -> str:
    """The table of what was not measured."""
    return page.table(("cited", "source", "million agent-steps/s"), [list(row) for row in CITED])


def main() -> None:
    """Read the command line, measure, keep the section."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tools", description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the tools")
    parser.add_argument("--agents", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=page.RESULTS)
    asked = parser.parse_args()
    measured_on = page.measured_on(asked.threads)
    size = (asked.agents, asked.steps, asked.threads, asked.repeats)
    rows = ours(*size)
    for tool in TOOLS:
        row = measure(asked.python, tool, *size)
        if row is None:
            sys.stderr.write(f"{asked.python} has no {tool}: left out; give --python an interpreter that has it\n")
        else:
            rows.append(row)
    legend = LEGEND.format(agents=asked.agents, steps=asked.steps).strip()
    cells = [row.cells(asked.agents * asked.steps, rows[0].seconds) for row in rows]
    parts = [measured_on, legend, page.table(COLUMNS, cells), NOT_MEASURED.strip(), cited()]
    page.keep(page.TOOLS, "\n\n".join(parts), asked.out)


if __name__ == "__main__":
    main()
