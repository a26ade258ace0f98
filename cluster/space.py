"""No space left: an error that says so, where, and the cure."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gnabm.errors import RunError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def telling_of_space(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn an operating system's `no space left` into an error with the cure.

    Args:
        path: What is written.
        needed: Bytes that the whole of it may take, if known.

    Raises:
        RunError: The device or the quota is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise RunError(no_space(path, needed)) from error


def no_space(path: Path, needed: int | None = None) -> str:
    """Message for a full device.

    Args:
        path: What was being written.
        needed: Bytes that the whole of it may take, if known.
    """
    known = "" if needed is None else f"; the run writes up to {amount(needed)}, uncompressed"
    return (
        f"no space left on the device of {path} ({amount(free_bytes(path))} free){known}. Free some, choose a folder "
        "on another device with --out, or record fewer fields. What is there is marked as not complete"
    )


def free_bytes(path: Path) -> int:
    """Free bytes of the device that holds a path or would hold it."""
    folder = path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def amount(number: float) -> str:
    """A number of bytes for people.

    Example:
        >>> amount(3 * 2**20)
        '3.0 MiB'
    """
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
