"""How the command line fails: one screen that says what, where and the cure, and the exit code that scripts rely on."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable, Iterator
from typing import ParamSpec

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from gnabm.errors import CapacityError, GnabmError, RunError, TotalOverflowError

FAILED = 1
"""Exit code of a failure while running."""
BAD_INPUT = 2
"""Exit code of bad input; nothing was run."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MOST_PROBLEMS = 8
_MOST_CHARACTERS = 700

P = ParamSpec("P")


class Interrupted(Exception):
    """Ctrl-C, with what it left behind."""


class Started(Exception):
    """Wraps an error that was raised after the first step: a failure while running, whatever its kind."""


def console() -> Console:
    """Where progress and errors go: standard output holds results only."""
    return Console(stderr=True, highlight=False)


def results() -> Console:
    """Where results go; a file or a pipe has room for long lines."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 140)
    return console


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn errors of a command into a message and an exit code."""

    @functools.wraps(command)
    def inner(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except typer.Exit:
            raise
        except (Exception, KeyboardInterrupt) as error:
            if os.environ.get("GNABM_TRACEBACK") == "1":
                raise
            raise typer.Exit(fail(error)) from None

    return inner


def fail(error: BaseException) -> int:
    """Print one screen about an error.

    Returns:
        The exit code.
    """
    screen = console()
    started = isinstance(error, Started)
    if started and error.__cause__ is not None:
        error = error.__cause__
    full = out_of_space(error)
    title, problems, code = "bad input", [str(part) for part in error.args] or [str(error)], BAD_INPUT
    if isinstance(error, (KeyboardInterrupt, Interrupted)):
        title, code = "interrupted", FAILED
        problems = [str(error) or "stopped by Ctrl-C before the first step; nothing was written"]
    elif full is not None:
        from gnabm.writers import settle

        settle()
        title, code = "no space left", FAILED
        if not isinstance(error, GnabmError):  # those say it already, with what would be needed
            where = f" {full.filename}" if full.filename else ""
            problems = [f"no space left on the device while writing{where}; free some, or write elsewhere with --out"]
    elif started or isinstance(error, (RunError, TotalOverflowError)):
        title, code = "the run failed", FAILED
    elif isinstance(error, CapacityError):
        title = "this does not fit"
    elif not isinstance(error, GnabmError):
        title, code = f"failed with an unexpected {type(error).__name__}", FAILED
        problems = [str(error) or "no message", "set GNABM_TRACEBACK=1 to see where it comes from, and report it"]
    screen.print(Text(f"gnabm: {title}", style="bold red"))
    for problem in problems[:_MOST_PROBLEMS]:
        text = problem if len(problem) <= _MOST_CHARACTERS else f"{problem[:_MOST_CHARACTERS]} ..."
        if screen.is_terminal:
            screen.print(Padding(Text(text), (0, 0, 0, 2)))
        else:
            screen.print(Text(f"  {text}"), soft_wrap=True)
    if len(problems) > _MOST_PROBLEMS:
        screen.print(f"  ... and {len(problems) - _MOST_PROBLEMS} more")
    return code


def out_of_space(error: BaseException) -> OSError | None:
    """The error of a full device, a quota or a file limit, if that is what lies behind an error."""
    return next((e for e in _causes(error) if isinstance(e, OSError) and e.errno in _NO_SPACE), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
