"""Published figures of diseases and calendars; `sources.json` says where each table comes from."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from typing import IO, Any


def open_table(name: str) -> IO[str]:
    """Open a table as text.

    Args:
        name: File name without `.csv`.
    """
    return files("gnabm.models.tables").joinpath(f"{name}.csv").open("r", encoding="utf-8")


def digest() -> str:
    """A hash of all tables: of runs with other figures it is another."""
    tables = (entry for entry in files("gnabm.models.tables").iterdir() if entry.name.endswith(".csv"))
    content = {entry.name: hashlib.sha256(entry.read_bytes()).hexdigest() for entry in tables}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sources() -> dict[str, dict[str, Any]]:
    """Source, year, licence, `assumed` and note of each table, by its name."""
    found: dict[str, dict[str, Any]] = json.loads(
        files("gnabm.models.tables").joinpath("sources.json").read_text("utf-8")
    )
    return found
