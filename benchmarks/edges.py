"""`python -m benchmarks.edges`: edges per second of the message kernels, against random reads of the same machine."""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import page
from benchmarks.epidemic import uniform_random_graph
from benchmarks.machine import gather_rate
from gnabm import messages
from gnabm.random import use_torch_threads

SHARES = (0.001, 0.01, 0.05, 0.12, 0.5, 1.0)
COLUMNS = ("kernel", "sources that send", "edges visited", "ms", "million edges/s", "share of random reads")
LEGEND = """\
{agents:,} agents on a uniform random graph, {edges:,} directed edges without weights; best of {repeats}. The machine
reads {gather:.0f} million random values per second from a table of {table:.1f} MB, the size of a value for each agent
(measured in the same run, same threads). *Pull*: each target adds up what its sources send; *torch-scatter* is the
reference and the differentiable form, two passes over all edges with the values of the edges between them in memory.
*Push*: each source that sends adds to its targets. All give the same bits.

What bounds push: a push would read, change and write back a random value per edge, so each thread first deals its
messages, in order, into bins of targets that fit a core's cache, and each bin is then added up by one thread, run by
run: so the sum of a target keeps its one order without locks. The adds hit the cache; what is left is the dealing (a
stream of stores for each bin, about 2 ns per edge on one thread) and fetching the rows of those who send, which stand
far apart where few do. Against that, a push visits only the edges of those who send. Where they are few the time is
that of clearing the sums of all targets.
"""


@dataclass(frozen=True)
class Speed:
    """One kernel at one share of active sources; seconds are the best of the repeats."""

    kernel: str
    share: float
    edges: int
    seconds: float

    def cells(self, gather: float) -> list[str]:
        """One row of the table."""
        rate = self.edges / self.seconds
        return [
            self.kernel,
            f"{self.share:.1%}",
            f"{self.edges:,}",
            f"{1e3 * self.seconds:.2f}",
            f"{rate / 1e6:.0f}",
            f"{rate / gather:.0%}",
        ]


def best_of(repeats: int, call: Callable[[], object]) -> float:
    """Seconds of the fastest call, after one that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def measure(num_agents: int, repeats: int) -> list[Speed]:
    """Run every kernel on one graph, and check that they agree."""
    graph = uniform_random_graph(num_agents)
    indptr, source = torch.from_numpy(graph.indptr), torch.from_numpy(graph.source)
    out_indptr, target, _ = messages.transpose(indptr, source, num_agents, None)
    generator = torch.Generator().manual_seed(0)
    rows = []

    def push(active: Tensor, value: Tensor) -> Tensor:
        return messages.push_edges(active, value, out_indptr, target, None, num_agents)

    with torch.no_grad():  # the kernels of a forward run
        use_torch_threads()
        x = torch.rand(num_agents, generator=generator)
        for name, pull in (("pull", messages.gather_sum), ("pull, torch-scatter", messages.pull_edges)):
            seconds = best_of(repeats, lambda pull=pull: pull(x, indptr, source, None))  # type: ignore[misc]
            rows.append(Speed(name, 1.0, graph.num_edges, seconds))
        for share in SHARES:
            active = messages.nonzero_rows(torch.rand(num_agents, generator=generator) < share)
            value = x.index_select(0, active)
            edges = int((out_indptr[active + 1] - out_indptr[active]).sum())
            rows.append(Speed("push", share, edges, best_of(repeats, lambda a=active, v=value: push(a, v))))  # type: ignore[misc]
        everyone = torch.arange(num_agents)
        pulled = messages.pull_edges(x, indptr, source, None)
        for summed in (push(everyone, x), messages.gather_sum(x, indptr, source, None)):
            assert torch.equal(pulled, summed), "all forms give the same bits"
    return rows


def main() -> None:
    """Read the command line, measure, keep the section."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.edges", description=__doc__)
    parser.add_argument("--agents", type=int, default=5_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=page.RESULTS)
    asked = parser.parse_args()
    measured_on = page.measured_on(asked.threads)
    torch.set_num_threads(asked.threads)
    gather = gather_rate(asked.threads, table_size=asked.agents)
    rows = measure(asked.agents, asked.repeats)
    edges = max(row.edges for row in rows)
    legend = LEGEND.format(
        agents=asked.agents, edges=edges, repeats=asked.repeats, gather=gather / 1e6, table=4e-6 * asked.agents
    )
    tabled = page.table(COLUMNS, [row.cells(gather) for row in rows])
    page.keep(page.EDGES, "\n\n".join([measured_on, legend.strip(), tabled]), asked.out)


if __name__ == "__main__":
    main()
