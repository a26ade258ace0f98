"""What the machine has: memory that is free, disk that is free, its description for the record."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import Any

import psutil

_CGROUP = Path("/sys/fs/cgroup")
_GROUPS = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Folder, limit, use and reclaimable cache in control groups of version 2 and 1."""


def available_memory() -> int:
    """Bytes of memory that this process can still take: of the machine, or of its container if that is less."""
    free = int(psutil.virtual_memory().available)
    for folder, limit, used, cache in _GROUPS:
        try:
            most = int((_CGROUP / folder / limit).read_text())
            taken = int((_CGROUP / folder / used).read_text())
            stat = dict(line.split() for line in (_CGROUP / folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # no container of this version, or one without a limit ("max")
            continue
        # The cache of files counts as used, but the kernel gives it up before anything is refused.
        free = min(free, max(0, most - taken + int(stat.get(cache, 0))))
    return free


def available_disk(folder: Path) -> int:
    """Bytes that can be written under a folder, which need not exist yet."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def describe() -> dict[str, Any]:
    """The machine as a run records it."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    return {
        "processor": model,
        "cores": cores(),
        "memory_bytes": int(psutil.virtual_memory().total),
        "system": f"{platform.system()} {platform.release()}",
    }


def in_bytes(number: float) -> str:
    """Bytes for people: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(number) < 1024 or unit == "PiB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"
        number /= 1024
    raise AssertionError
