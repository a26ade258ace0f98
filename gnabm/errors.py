"""Errors, named by situation; each also inherits the builtin that fits, and each message names the cure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GnabmError(Exception):
    """Base of every error that gnabm raises on purpose."""

    def __str__(self) -> str:
        """Return the plain message (KeyError would quote it)."""
        return "; ".join(str(part) for part in self.args)


class ShapeError(GnabmError, ValueError):
    """A tensor has not the shape that its meaning needs."""


class DataError(GnabmError, ValueError):
    """A value is outside what is allowed: NaN, negative, out of range, a self-loop."""


class KindError(GnabmError, TypeError):
    """An argument has the wrong type."""


class UnknownFieldError(GnabmError, KeyError, AttributeError):
    """A field, layer or stage that does not exist was asked for."""


class ConflictError(GnabmError, ValueError):
    """Two rules write one field of one agent, or two draws share one stream."""


class ConfigError(GnabmError, ValueError):
    """A config is malformed or names something unknown."""


class StoreError(GnabmError, ValueError):
    """A store on disk is incomplete, of another schema or not a gnabm store."""


class OutputExistsError(GnabmError, FileExistsError):
    """The output folder holds something already."""


class MissingDependencyError(GnabmError, ImportError):
    """A package that gnabm needs is not installed."""


class TotalOverflowError(GnabmError, OverflowError):
    """A total left the range of its fixed-point representation."""


class CapacityError(GnabmError, MemoryError):
    """A run would not fit the memory or disk at hand."""


class RunError(GnabmError, RuntimeError):
    """A run failed while it was running."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the nearest of the known names and lists them.

    Args:
        name: What was asked for.
        known: What exists.
    """
    known = [str(k) for k in known]
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    listing = ", ".join(known) if known else "nothing"
    return (f"did you mean {close[0]!r}? " if close else "") + f"known: {listing}"
