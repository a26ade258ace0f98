"""`python -m benchmarks.shards`: one process with two threads against two shards with one thread each.

Both run through `cluster.run` on the same graph, once with its agents in geographic order and once in random order.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks import machine, page
from benchmarks.epidemic import Graph, Setting, geographic_graph, in_random_order

NEAR, FAR = "geographic, 90 % near", "random"
ORDERS: dict[str, Callable[[int], Graph]] = {
    "geographic, 99 % near": lambda num_agents: geographic_graph(num_agents, local=0.99),
    NEAR: geographic_graph,
    FAR: lambda num_agents: in_random_order(geographic_graph(num_agents)),
}
COLUMNS = (
    "order of the agents",
    "shards x threads",
    "seconds",
    "x one process",
    "cut",
    "halo per shard",
    "sent per step and shard",
    "exchanges per step",
    "waiting, ms per step",
    "step of a shard, ms",
    "attack rate",
    "start-up s",
    "peak RSS per shard",
)
LEGEND = """\
{agents:,} agents, mean degree 10, {steps} steps of the shipped `sir`. In geographic order 90 or 99 % of the contacts
lie within {reach:,} rows; *random* is the graph of 90 % with its agents in random rows. Shards are Ray actors joined by
gloo. Seconds: median of the runs from the first step to the last, as the driver sees them. Cut: share of the edges that
a shard reads whose source another shard owns. Halo: agents that it reads from others. Sent: bytes to the other shard,
mean over the steps. Waiting: time in which a shard does nothing but wait for the other, mean over steps and shards; the
rest of its step is arithmetic and packing.
"""


@dataclass(frozen=True)
class Sharded:
    """What one way to run took: medians over the runs, means over steps and shards; seconds and bytes."""

    order: str
    shards: int
    threads: int
    seconds: float
    startup: float
    step: float
    exchanges: float
    waiting: float
    sent: float
    halo: int
    cut: float
    peak: int
    attack_rate: float

    def cells(self, alone: float) -> list[str]:
        """One row of the table, beside the seconds of one process."""
        across = self.shards > 1
        return [
            self.order,
            f"{self.shards} x {self.threads}",
            f"{self.seconds:.2f}",
            f"{self.seconds / alone:.2f}",
            f"{self.cut:.1%}" if across else "-",
            f"{self.halo:,}" if across else "-",
            f"{self.sent / 1e3:,.1f} kB" if across else "-",
            f"{self.exchanges:.1f}" if across else "-",
            f"{1e3 * self.waiting:.1f}" if across else "-",
            f"{1e3 * self.step:.1f}",
            f"{self.attack_rate:.4f}",
            f"{self.startup:.1f}",
            page.gibibytes(self.peak),
        ]


def measure(order: str, folder: Path, setting: Setting, shards: int, threads: int, repeats: int) -> Sharded:
    """Run on shards in this process and those that it starts."""
    from cluster import plan, run
    from gnabm import Contacts, Population
    from gnabm.models import epidemic

    graph = Graph.load(folder)
    population = Population.of(Contacts.from_edges(graph.source, graph.target, num_agents=graph.num_agents))
    model = epidemic.sir(setting.transmission_rate, setting.recovery_rate, setting.initial_infected)
    cut = plan(population, model, shards=shards, steps=setting.steps).layers
    susceptible: list[int] = []
    runs = [
        run(
            model, population, shards=shards, steps=setting.steps, seed=seed, threads=threads,
            on_step=lambda step, observed: susceptible.append(int(observed["stage_count"][0])),
        )
        for seed in range(repeats)
    ]  # fmt: skip
    last = susceptible[setting.steps - 1 :: setting.steps]
    ranks = [rank for one in runs for rank in one.ranks]
    each = len(ranks) * setting.steps
    return Sharded(
        order, shards, threads,
        seconds=median(one.seconds - one.startup_seconds for one in runs),
        startup=median(one.startup_seconds for one in runs),
        step=sum(rank.seconds["step"] for rank in ranks) / each,
        exchanges=sum(rank.exchanges for rank in ranks) / each,
        waiting=sum(rank.seconds["exchange"] for rank in ranks) / each,
        sent=sum(rank.exchange_bytes for rank in ranks) / each,
        halo=max(rank.num_halo for rank in ranks),
        cut=max(layer.cut for layer in cut.values()),
        peak=max(rank.peak_rss for rank in ranks),
        attack_rate=1 - median(last) / graph.num_agents,
    )  # fmt: skip


def bench(num_agents: int, setting: Setting, repeats: int) -> list[Sharded]:
    """All orders, each by one process and by two shards, each in processes of its own.

    Raises:
        subprocess.CalledProcessError: One failed; its own error stands on standard error.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for order, draw in ORDERS.items():
            draw(num_agents).save(Path(folder))
            for shards, threads in ((1, 2), (2, 1)):
                asked = [order, folder, json.dumps(asdict(setting)), str(shards), str(threads), str(repeats)]
                environment = os.environ | {"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2"}
                done = subprocess.run(
                    [sys.executable, "-m", "benchmarks.shards", "--one", *asked],
                    cwd=machine.ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True,
                )  # fmt: skip
                rows.append(Sharded(**json.loads(done.stdout.splitlines()[-1])))
    return rows


def as_markdown(rows: list[Sharded]) -> str:
    """The table."""
    alone = {row.order: row.seconds for row in rows if row.shards == 1}
    near, far = (next(row for row in rows if row.order == order and row.shards > 1) for order in (NEAR, FAR))
    ratios = (
        f"Random against geographic order (90 % near) on {near.shards} shards: {far.seconds / near.seconds:.2f} x the "
        f"seconds, {far.cut / near.cut:.1f} x the cut, {far.sent / near.sent:.1f} x the bytes, "
        f"{far.waiting / near.waiting:.1f} x the waiting."
    )
    return f"{page.table(COLUMNS, [row.cells(alone[row.order]) for row in rows])}\n\n{ratios}"


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shards", description=__doc__)
    parser.add_argument("--agents", type=int, default=5_000_000)
    parser.add_argument("--steps", type=int, default=Setting.steps)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=page.RESULTS)
    parser.add_argument("--one", nargs=6, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        order, folder, setting, *numbers = asked.one
        shards, threads, repeats = map(int, numbers)
        row = measure(order, Path(folder), Setting(**json.loads(setting)), shards, threads, repeats)
        sys.stdout.write(f"\n{json.dumps(asdict(row))}\n")
        return
    measured_on = page.measured_on(threads=2)
    rows = bench(asked.agents, Setting(steps=asked.steps), asked.repeats)
    legend = LEGEND.format(agents=asked.agents, steps=asked.steps, reach=asked.agents // 100)
    page.keep(page.SHARDS, "\n\n".join([measured_on, legend.strip(), as_markdown(rows)]), asked.out)


if __name__ == "__main__":
    main()
