"""What the numbers were measured on: the machine, its memory, the versions, the commit."""

import importlib.metadata
import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import numba
import numpy as np
import psutil
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
LIBRARIES = ("numpy", "numba", "torch", "torch-scatter", "torch-geometric", "scipy")


@numba.njit(parallel=True)
def _gather(table: NDArray[np.float32], index: NDArray[np.int32]) -> float:
    total = 0.0
    for k in numba.prange(len(index)):
        total += table[index[k]]
    return total


def gather_rate(threads: int, table_size: int = 5_000_000, num_reads: int = 50_000_000) -> float:
    """Random reads per second from a table of float32, best of five."""
    numba.set_num_threads(threads)
    rng = np.random.default_rng(0)
    table = rng.random(table_size, dtype=np.float32)
    index = rng.integers(table_size, size=num_reads, dtype=np.int32)
    _gather(table, index[:10])
    times = []
    for _ in range(5):
        began = time.perf_counter()
        _gather(table, index)
        times.append(time.perf_counter() - began)
    return num_reads / min(times)


def describe() -> dict[str, str]:
    """One line per fact about the machine and the code."""
    versions: dict[str, Any] = {"Python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": platform.system() + " " + platform.machine(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "commit": commit(),
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", information.read_text()) if information.exists() else None
    return found[1] if found else platform.processor() or "unknown processor"


def commit() -> str:
    """The revision that is checked out, and whether the files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    revision = git("rev-parse", "--short=12", "HEAD")
    if not revision:
        return "not in a repository"
    return revision + (" with uncommitted changes" if git("status", "--porcelain") else "")
