"""The command line of gnabm in a process of its own, as one would type it: what it took."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from benchmarks import machine


@dataclass(frozen=True)
class Done:
    """A command that ended well.

    Args:
        out: What it printed as its result.
        told: What it printed on the way.
        seconds: Wall-clock seconds of the process.
        peak: Peak resident memory of the process in bytes, without those that it started.
    """

    out: str
    told: str
    seconds: float
    peak: int


@dataclass(frozen=True)
class Ran:
    """A run that ended well.

    Args:
        wall: Seconds of the whole command.
        seconds: Seconds from the first step to the end.
        startup: Seconds in which the shards were read, before the first step.
        peak: Peak resident memory of the process, and of its actors, in bytes.
        disk: Bytes of the trajectory and the line list.
        stages: (num_stages,) agents in each stage at the end.
    """

    wall: float
    seconds: float
    startup: float
    peak: tuple[int, ...]
    disk: int
    stages: tuple[int, ...]

    @property
    def num_agents(self) -> int:
        """Number of agents."""
        return sum(self.stages)

    @property
    def attack_rate(self) -> float:
        """Share of the agents that left the first stage, those infected at first included."""
        return 1 - self.stages[0] / self.num_agents


def gnabm(*arguments: str, root: Path = machine.ROOT) -> Done:
    """Run `gnabm` of the code under a folder.

    Raises:
        RuntimeError: It failed; with what it told.
    """
    command = [sys.executable, "-c", "from gnabm.cli import main; main()", *arguments]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as told:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=root, stdout=out, stderr=told)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for file in (out, told):
            file.seek(0)
            texts.append(file.read().decode())
    if process.returncode:
        raise RuntimeError(f"gnabm {' '.join(arguments)} failed ({process.returncode}): {texts[1][-2000:]}")
    return Done(texts[0], texts[1], seconds, used.ru_maxrss * 1024)


def run(config: str, overrides: Sequence[str], root: Path = machine.ROOT) -> Ran:
    """`gnabm run` of the code under a folder; what it leaves is deleted."""
    with tempfile.TemporaryDirectory() as folder:
        done = gnabm("run", config, *_set(overrides), "--out", folder, "--overwrite", root=root)
        left = zarr.open_group(f"{folder}/trajectory.zarr", mode="r", use_consolidated=False)
        said: dict[str, Any] = dict(left.attrs)
        counts = np.asarray(left["stage_count"][-1])  # type: ignore[index]
        startup, ranks = float(said["startup_seconds"]), said["peak_rss"]
        return Ran(
            done.seconds,
            float(said["seconds"]) - startup,
            startup,
            (done.peak, *(ranks if len(ranks) > 1 else ())),
            size(Path(folder)),
            tuple(int(stage.sum()) for stage in counts),
        )


def forecast(config: str, overrides: Sequence[str]) -> tuple[dict[str, Any], Done]:
    """What `gnabm plan` says of a run, and what saying so took."""
    done = gnabm("plan", config, *_set(overrides), "--json")
    return json.loads(done.out), done


def build(config: str, overrides: Sequence[str]) -> tuple[Path, Done, bool]:
    """`gnabm build`: the store, what the command took, and whether the store was not there before."""
    done = gnabm("build", config, *_set(overrides))
    found = re.search(r"^graph store: (.+)$", done.out, flags=re.MULTILINE)
    assert found is not None, "gnabm build names its store"
    return Path(found[1].strip()), done, "built once" in done.told


def size(folder: Path) -> int:
    """Bytes of the files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _set(overrides: Sequence[str]) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]
