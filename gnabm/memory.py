"""The allocator: a forward run frees and takes the same large buffers each step, and should keep their pages."""

from __future__ import annotations

import ctypes
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_GIBIBYTE = 1 << 30


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
