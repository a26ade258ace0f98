"""Memory of the process: buffers that the allocator should keep, and what a piece of work takes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_GIBIBYTE = 1 << 30
_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")

T = TypeVar("T")


@cache
def keep_heap() -> bool:
    """Let the C allocator keep freed buffers of up to 1 GiB in this process instead of returning them each time.

    Returning them costs a page fault per 4 KiB on the next use, which was more than the arithmetic of a step on five
    million agents. Only glibc has the setting; elsewhere nothing changes but speed.

    Returns:
        Whether the allocator took the setting.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _GIBIBYTE)) and bool(mallopt(_TRIM_THRESHOLD, 2 * _GIBIBYTE - 1))


def added_peak(work: Callable[[], T]) -> tuple[T, int | None]:
    """Do something and tell the most resident memory that it took on top of what was there.

    Args:
        work: What is done.

    Returns:
        What it returned, and the bytes; None where the system is not Linux or does not let a process ask.
    """
    try:
        # Freed pages that the heap kept would be taken again without being seen.
        ctypes.CDLL(None).malloc_trim(0)
        _FORGET.write_text("5")  # proc(5): the peak of resident memory begins anew
        before: int | None = _resident("VmRSS")
    except (OSError, AttributeError):
        before = None
    result = work()
    return result, None if before is None else max(_resident("VmHWM") - before, 0)


def _resident(name: str) -> int:
    """Bytes of an entry of this process's status."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {name}")
