"""Which line of a rule called into torch."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import torch

_ROOT = Path(__file__).parent
_TORCH = str(Path(torch.__file__).parent)
_RULES = ("intervention",)
_CORE = tuple(str(p) for p in [*_ROOT.glob("*.py"), _ROOT / "testing"] if p.stem not in _RULES)
"""The core; rules that are shipped are explained like anybody's."""


def caller(depth: int = 1) -> FrameType | None:
    """The frame that called into torch, or None when gnabm's own kernels did.

    Args:
        depth: Frames above this function's caller that are left out, such as that of the mode that listens.
    """
    frame: FrameType | None = sys._getframe(depth + 1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_CORE):
            return None
        if not name.startswith((_TORCH, "<")):
            return frame
        frame = frame.f_back
    return None


def is_shipped(frame: FrameType) -> bool:
    """Whether the line is gnabm's own."""
    return frame.f_code.co_filename.startswith(str(_ROOT))


def place(frame: FrameType) -> str:
    """File and line."""
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
