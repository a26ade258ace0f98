"""`python -m benchmarks.sir`: one SIR on a uniform random graph, by gnabm and its rivals."""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import machine, page
from benchmarks.epidemic import Setting, uniform_random_graph
from benchmarks.rivals import CSR, KERNEL, MESSAGE_PASSING, RIVALS

COLUMNS = (
    "rival",
    "seconds",
    "agent-steps/s",
    "edges/s",
    "x MessagePassing",
    "x torch CSR",
    "x kernel",
    "attack rate",
    "peak RSS, run",
    "peak RSS, start-up",
    "start-up s",
    "runs",
)
LEGEND = """\
- *gnabm*: `gnabm.models.epidemic.sir` advanced by `gnabm.Simulation`, the loop of `gnabm.simulate`.
- *gnabm, stranger*: the same loop with two rules in plain PyTorch, as README shows them (`benchmarks/stranger.py`).
- *kernel*: numba, by hand for this model: the infectious push hazards along their contacts, one scan draws.
- *kernel, tuned*: the same with prefetching, rows split between threads, and few exponentials.
- *kernel, draws*: numba, by hand: a draw for each contact and no hazards; only for a model without weights.
- *torch CSR*, *scipy CSR*: contacts as a sparse matrix; scipy uses one thread.
- *MessagePassing*: torch_geometric, `edge_index` sorted by target.

Seconds: median of the runs, each of all steps with its initial state and its result. Start-up (imports,
reading the graph, the rival's own form of it, compilation) stands apart. Agent-steps/s: agents x steps /
seconds. Edges/s: directed edges x steps / seconds, for every rival alike, also where only the edges of the
infectious are visited. x MessagePassing, x torch CSR (int32), x kernel: how many times as fast as these; 1.25
is 0.8 of their seconds. Peak RSS: of the rival's own process, with everything that it holds.
"""


@dataclass(frozen=True)
class Row:
    """What one rival took; seconds and bytes."""

    rival: str
    seconds: float
    runs: int
    start_up: float
    run_peak: int
    start_up_peak: int
    attack_rate: float


@dataclass(frozen=True)
class Bench:
    """All rivals on one graph."""

    num_agents: int
    num_edges: int
    setting: Setting
    rows: tuple[Row, ...]

    @property
    def tolerance(self) -> float:
        """Largest difference of attack rates that chance explains.

        One run was measured to vary by a standard deviation of 1.1 num_agents ** -0.5 (40 seeds each at
        20,000, 50,000 and 200,000 agents), whichever the rival.
        """
        return 6.0 / math.sqrt(self.num_agents)

    @property
    def agree(self) -> bool:
        """Whether all rivals simulated the same epidemic."""
        rates = [row.attack_rate for row in self.rows]
        return max(rates) - min(rates) <= self.tolerance

    def cells(self) -> list[list[str]]:
        """The table, one list of strings per rival, in the order of COLUMNS."""
        seconds = {row.rival: row.seconds for row in self.rows}

        def ratio(numerator: float | None, denominator: float | None) -> str:
            return f"{numerator / denominator:.2f}" if numerator and denominator else "-"

        return [
            [
                row.rival,
                f"{row.seconds:.2f}",
                f"{self.num_agents * self.setting.steps / row.seconds:.3g}",
                f"{self.num_edges * self.setting.steps / row.seconds:.3g}",
                ratio(seconds.get(MESSAGE_PASSING), row.seconds),
                ratio(seconds.get(CSR), row.seconds),
                ratio(seconds.get(KERNEL), row.seconds),
                f"{row.attack_rate:.4f}",
                f"{row.run_peak / 2**30:.2f} GiB",
                f"{row.start_up_peak / 2**30:.2f} GiB",
                f"{row.start_up:.1f}",
                str(row.runs),
            ]
            for row in self.rows
        ]


def bench(
    num_agents: int, setting: Setting, *, rivals: list[str] | None = None, repeats: int = 3, threads: int = 2
) -> Bench:
    """Draw one graph and run each rival on it in a process of its own.

    Raises:
        subprocess.CalledProcessError: a rival failed; its own error stands on standard error.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        graph = uniform_random_graph(num_agents)
        graph.save(Path(folder))
        num_edges = graph.num_edges
        del graph
        rows = []
        for rival in rivals or list(RIVALS):
            command = [sys.executable, "-m", "benchmarks.measure"]
            command += [rival, folder, json.dumps(asdict(setting)), str(repeats)]
            done = subprocess.run(
                command, cwd=machine.ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
            )
            rows.append(Row(**json.loads(done.stdout.splitlines()[-1])))
    return Bench(num_agents, num_edges, setting, tuple(rows))


def title(result: Bench) -> str:
    """One line that says what was run."""
    s = result.setting
    return (
        f"{result.num_agents:,} agents, {result.num_edges:,} directed edges, {s.steps} steps, "
        f"transmission rate {s.transmission_rate:g} per contact, "
        f"recovery rate {s.recovery_rate:.4g} per day, "
        f"{s.initial_infected:.2%} infected at first"
    )


def as_markdown(results: list[Bench], measured_on: str) -> str:
    """The section of the page."""
    lines = [measured_on, "", LEGEND]
    for result in results:
        lines += [f"### {result.num_agents:,} agents", "", title(result) + ".", ""]
        spread = "agree" if result.agree else "DO NOT agree"
        lines += [page.table(COLUMNS, result.cells()), "", f"Attack rates {spread} within {result.tolerance:.4f}.", ""]
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sir", description=__doc__)
    parser.add_argument("--agents", type=int, nargs="+", default=[1_000_000, 5_000_000])
    parser.add_argument("--steps", type=int, default=Setting.steps)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rivals", nargs="+", choices=list(RIVALS), metavar="RIVAL", help=", ".join(RIVALS))
    parser.add_argument("--small", action="store_true", help="50,000 agents, and nothing written")
    parser.add_argument("--out", type=Path, default=page.RESULTS)
    return parser.parse_args()


def main() -> int:
    """Run, show the tables, keep them; 1 if the rivals do not agree."""
    asked = arguments()
    measured_on, setting = page.measured_on(asked.threads), Setting(steps=asked.steps)
    results = [
        bench(num_agents, setting, rivals=asked.rivals, repeats=asked.repeats, threads=asked.threads)
        for num_agents in ([50_000] if asked.small else asked.agents)
    ]
    page.keep(page.SIR, as_markdown(results, measured_on), None if asked.small else asked.out)
    return int(not all(result.agree for result in results))


if __name__ == "__main__":
    raise SystemExit(main())
