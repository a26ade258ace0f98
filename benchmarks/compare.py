"""`python -m benchmarks.compare REVISION`: this working tree against another revision, in turns.

Each measurement is a process of its own: the revision, the tree, the revision, ... so that a machine that slows down
slows both. The ratio is the median over the pairs; below 1 the tree is faster.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks import command, page
from benchmarks.epidemic import Setting, uniform_random_graph
from benchmarks.machine import ROOT

KEPT = ROOT / ".cache" / "revisions"
"""Where the files of other revisions stand; kernels that were compiled for one are found again."""
MOST_KEPT = 4
COLUMNS = ("case", "revision s", "tree s", "tree / revision", "pairs from", "to", "start-up ratio", "result")


class Unmeasured(Exception):
    """A revision that cannot be measured, with the reason."""


@dataclass(frozen=True)
class Once:
    """One measurement: seconds of the steps, of the start-up, and what came out."""

    seconds: float
    start_up: float
    result: object


@dataclass(frozen=True)
class Compared:
    """A case measured in turns: (revision, tree) per pair."""

    case: str
    pairs: tuple[tuple[Once, Once], ...]

    @property
    def ratios(self) -> list[float]:
        """Tree over revision of each pair, ascending."""
        return sorted(tree.seconds / revision.seconds for revision, tree in self.pairs)

    @property
    def same(self) -> bool:
        """Whether all runs came to the same result."""
        return all(once.result == self.pairs[0][0].result for pair in self.pairs for once in pair)

    def cells(self) -> list[str]:
        """One row of the table."""
        revision, tree = ([pair[side] for pair in self.pairs] for side in (0, 1))
        # The first of each may compile, or build what is missing: the fastest did neither.
        start_up = min(once.start_up for once in tree) / min(once.start_up for once in revision)
        return [
            self.case,
            f"{median(once.seconds for once in revision):.2f}",
            f"{median(once.seconds for once in tree):.2f}",
            f"{median(self.ratios):.2f}",
            f"{self.ratios[0]:.2f}",
            f"{self.ratios[-1]:.2f}",
            f"{start_up:.2f}",
            "same" if self.same else "differs",
        ]


def files_of(revision: str) -> tuple[str, Path]:
    """Short name of a revision, and a folder with its files.

    Raises:
        Unmeasured: There is no such revision here.
    """
    asked = ["git", "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"]
    found = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode:
        raise Unmeasured(f"there is no revision {revision!r} here; give one that `git log` shows")
    name = found.stdout.strip()[:12]
    folder = KEPT / name
    if not folder.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        for old in sorted(KEPT.iterdir(), key=lambda path: path.stat().st_mtime)[: 1 - MOST_KEPT]:
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory(dir=KEPT) as partial:
            archive = subprocess.run(["git", "archive", name], cwd=ROOT, stdout=subprocess.PIPE, check=True)
            files = Path(partial) / "files"
            files.mkdir()
            subprocess.run(["tar", "--extract", "--directory", files], input=archive.stdout, check=True)
            files.rename(folder)
    where = [sys.executable, "-c", "import gnabm; print(gnabm.__file__)"]
    imported = subprocess.run(where, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
    assert imported.startswith(str(folder)), f"{folder} is measured, not {imported}"
    return name, folder


def sir(num_agents: int, steps: int, folder: Path) -> Callable[[Path], Once]:
    """The shipped `sir` on a uniform random graph, made once."""
    graph = uniform_random_graph(num_agents)
    graph.save(folder)

    def once(root: Path) -> Once:
        asked = ["gnabm", str(folder), json.dumps(asdict(Setting(steps=steps))), "1"]
        measure = [sys.executable, "-m", "benchmarks.measure", *asked]
        done = subprocess.run(measure, cwd=root, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unmeasured(f"{root}: benchmarks.measure failed: {done.stderr[-1000:]}")
        found = json.loads(done.stdout.splitlines()[-1])
        return Once(found["seconds"], found["start_up"], found["attack_rate"])

    return once


def configured(config: str, overrides: list[str]) -> Callable[[Path], Once]:
    """A config of this tree, by the command line."""

    def once(root: Path) -> Once:
        try:
            ran = command.run(str(ROOT / "configs" / f"{config}.yaml"), overrides, root)
        except RuntimeError as error:
            raise Unmeasured(f"{root}: {error}") from error
        return Once(ran.seconds, ran.wall - ran.seconds, ran.stages)

    return once


def compare(case: str, once: Callable[[Path], Once], folder: Path, pairs: int) -> Compared:
    """Measure in turns."""
    return Compared(case, tuple((once(folder), once(ROOT)) for _ in range(pairs)))


def main() -> None:
    """Read the command line, measure, print; never fails on time."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("revision", nargs="?", default="HEAD", help="such as HEAD, HEAD~3 or a tag")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="one small case, two pairs")
    asked = parser.parse_args()
    lines = [page.measured_on(), ""]
    try:
        name, folder = files_of(asked.revision)
        lines.append(f"revision {name}, {2 if asked.small else asked.pairs} pairs\n")
        with tempfile.TemporaryDirectory() as graph:
            if asked.small:
                cases = {"sir, 100,000 agents": sir(100_000, 100, Path(graph))}
            else:
                size = ["population.num_agents=500000", "run.shards=1"]
                cases = {
                    "sir, 1M agents": sir(1_000_000, 100, Path(graph)),
                    "seir, New Zealand, 500k": configured("nation", size),
                    "covid, New Zealand, 500k": configured("new_zealand", [*size, "record.infections=false"]),
                }
            rows = [
                compare(case, once, folder, 2 if asked.small else asked.pairs).cells() for case, once in cases.items()
            ]
        lines.append(page.table(COLUMNS, rows))
    except Unmeasured as reason:
        lines.append(f"not compared: {re.sub(chr(10), ' ', str(reason))}")
    page.keep("The working tree against another revision", "\n".join(lines), None)


if __name__ == "__main__":
    main()
