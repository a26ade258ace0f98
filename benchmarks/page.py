"""The page of results: every benchmark replaces its own section, so that one can be measured again alone."""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine

RESULTS = Path(__file__).with_name("RESULTS.md")
HEAD = """\
# Measured

Every section is written by the command that it names, on the machine and commit that it names; `make bench` writes all
but *Scale*, which takes hours and is written by `make bench-ladder`. Start-up is not part of any number of seconds
unless a column says so. Nothing is extrapolated.
"""
SIR, SHARDS, EDGES, COUNTRY, PROFILE, SCALE, MEMORY, GRADIENTS, SENSITIVITY, TOOLS = SECTIONS = (
    "SIR on a uniform random graph",
    "Two shards against one process",
    "Edges per second",
    "New Zealand",
    "Where time and bytes go",
    "Scale",
    "Memory: forecast and measured",
    "Gradients",
    "Sensitivity from one run",
    "Public tools",
)
"""Titles in their order on the page."""


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, the first column to the left and numbers to the right."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def measured_on(threads: int | None = None) -> str:
    """Where and how a section is being measured, as a list; call it before the measuring.

    Args:
        threads: Threads, or None for all cores.
    """
    facts = machine.describe()
    module = getattr(sys.modules["__main__"].__spec__, "name", "benchmarks")
    facts["load before"] = f"{os.getloadavg()[0]:.2f}"
    facts["threads"] = str(threads or len(os.sched_getaffinity(0)))
    facts["command"] = f"`{shlex.join(['python', '-m', module, *sys.argv[1:]])}`"
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


def section(text: str, title: str) -> str:
    """The body of a section of a page; empty if it has none of that title."""
    return _sections(text).get(title, "")


def replaced(text: str, title: str, body: str) -> str:
    """A page with one section replaced or added."""
    parts = {**_sections(text), title: body.strip()}
    order = [*(known for known in SECTIONS if known in parts), *(other for other in parts if other not in SECTIONS)]
    return "\n".join([HEAD, *(f"## {name}\n\n{parts[name]}\n" for name in order)])


def keep(title: str, body: str, path: Path | None) -> None:
    """Print a section, and put it on the page unless path is None."""
    sys.stdout.write(f"\n## {title}\n\n{body.strip()}\n")
    if path is None:
        return
    text = path.read_text("utf-8") if path.exists() else ""
    path.write_text(replaced(text, title, body), "utf-8")
    sys.stdout.write(f"\nwritten to {path}\n")


def _sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return {title: body.strip() for title, body in zip(parts[1::2], parts[2::2], strict=True)}


def gibibytes(number: float) -> str:
    """Bytes as GiB."""
    return f"{number / 2**30:.2f} GiB"
