"""What changed while a run went on: a block of the page, marks in the curves, and until when a figure holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from html import escape
from typing import Any

import pandas as pd
import yaml

from gnabm.report.figure import Moment
from gnabm.report.summary import Summary

NUMBER, RATE = "reproduction_number", "parameters.transmission_rate"


@dataclass(frozen=True)
class Changed:
    """A key that takes another value.

    Args:
        step: The first step at which it holds.
        key: Dotted key of the config.
        value: The value from then on.
    """

    step: int
    key: str
    value: Any


def changes_of(summary: Summary) -> tuple[Changed, ...]:
    """The changes of a run's config, in order of time."""
    config = summary.attributes.get("config") or {}
    found = [
        Changed(_step(change, config, summary.dt), str(key), value)
        for change in config.get("changes") or ()
        for key, value in change["set"].items()
    ]
    return tuple(sorted(found, key=lambda change: change.step))


def _step(change: Mapping[str, Any], config: Mapping[str, Any], dt: float) -> int:
    day = change.get("day")
    if day is None:
        start = date.fromisoformat(str(config["run"]["start"]))
        day = (date.fromisoformat(str(change["date"])) - start).days
    return round(float(day) / dt)


def when(summary: Summary, change: Changed) -> str:
    """When a change begins, for people; a run that ended before says so."""
    if change.step < summary.steps:
        return summary.when(change.step)
    return f"day {change.step * summary.dt:g}, which the run did not reach"


def until(summary: Summary, keys: Sequence[str]) -> str:
    """`, until 3 Feb 2022` where one of some keys changes on the way; a key ending in a dot stands for all below it."""
    for change in changes_of(summary):
        if change.step < summary.steps and any(
            change.key == key or (key.endswith(".") and change.key.startswith(key)) for key in keys
        ):
            return f", until {summary.when(change.step)}"
    return ""


def changed_steps(summary: Summary) -> list[int]:
    """Steps of the run at which something changes."""
    return list(dict.fromkeys(change.step for change in changes_of(summary) if change.step < summary.steps))


def moments(summary: Summary) -> tuple[Moment, ...]:
    """A mark for each step at which something changes."""
    return tuple(Moment(summary.time[step]) for step in changed_steps(summary))


def changes_frame(summary: Summary) -> pd.DataFrame:
    """The changes as a table; empty where there are none."""
    days = [change.step * summary.dt for change in changes_of(summary)]
    rows = [
        {"day": day, "date": _date(summary, change.step), "key": change.key, "value": _plain(change.value)}
        for day, change in zip(days, changes_of(summary), strict=True)
    ]
    return pd.DataFrame(rows)


def _date(summary: Summary, step: int) -> str | None:
    at = summary.time[step] if step < summary.steps else None
    return at.isoformat() if isinstance(at, (date, datetime)) else None


def _plain(value: Any) -> str:  # noqa: ANN401
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
    return text.removesuffix("...\n").strip()


def changes_block(summary: Summary) -> str:
    """The changes on the page; empty where there are none."""
    found = changes_of(summary)
    if not found:
        return ""
    rows = "".join(
        f"<tr><td>{escape(when(summary, change))}</td><td class='num'>{change.step * summary.dt:g}</td>"
        f"<td>{escape(change.key)}</td><td>{escape(_plain(change.value))}</td></tr>"
        for change in found
    )
    return (
        '<div class="block"><h3>Changes on the way</h3><p class="note">A thin upright line marks them in the curves.'
        '</p><div class="scroll"><table class="narrow"><thead><tr><th>From</th><th class="num">Day</th>'
        f"<th>Key</th><th>Value</th></tr></thead><tbody>{rows}</tbody></table></div></div>"
    )
