"""The calendar of the layers: weekdays and school holidays.

The contacts of a layer are those of an average day. A layer that meets on five days of the week meets 7/5 times as
often on those, so that a week in term has as many contacts as without a calendar.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import NotRequired, TypedDict

from gnabm.errors import ConfigError, UnknownFieldError, nearest
from gnabm.models.tables import open_table
from gnabm.rule import Step

_WEEK = 7
_NO_DATES = (
    "calendar: this run has no dates; give run.start in the config or simulate(..., start=...), "
    "or leave the calendar out"
)


class CalendarKeys(TypedDict):
    """What a config says of a calendar.

    Attributes:
        weekly: By name of layer, seven numbers >= 0 from Monday to Sunday: how much of its contacts a day has relative
            to the others. A layer that is absent meets alike every day.
        closed_in_holidays: Layers without contacts outside of school terms.
        school_terms: Country whose school terms hold.
        average_day: Whether the weekly numbers are scaled to a mean of 1 (the default) or used as they are.
    """

    weekly: NotRequired[Mapping[str, Sequence[float]]]
    closed_in_holidays: NotRequired[Sequence[str]]
    school_terms: NotRequired[str]
    average_day: NotRequired[bool]


@dataclass(frozen=True)
class Calendar:
    """Factors on the contacts of layers by date.

    Args:
        weekly: By layer, the factor of each day of the week, Monday first.
        closed: Layers without contacts outside of terms.
        country: Whose terms, for messages.
        terms: First and last day of each term, ascending.
    """

    weekly: Mapping[str, tuple[float, ...]]
    closed: tuple[str, ...] = ()
    country: str = ""
    terms: tuple[tuple[date, date], ...] = ()

    @staticmethod
    def of(keys: CalendarKeys) -> Calendar:
        """A calendar from its keys.

        Raises:
            ConfigError: A week has not seven numbers >= 0 of which one is positive, layers close in holidays of no
                country, or the country's terms are unknown.
        """
        weekly = {}
        for name, given in (keys.get("weekly") or {}).items():
            days = [float(v) for v in given]
            total = sum(days)
            if len(days) != _WEEK or not all(math.isfinite(v) and v >= 0 for v in days) or total == 0:
                raise ConfigError(
                    f"calendar.weekly.{name}: expected seven numbers >= 0 from Monday to Sunday, such as "
                    f"[1, 1, 1, 1, 1, 0, 0], got {list(given)}"
                )
            scale = _WEEK / total if keys.get("average_day", True) else 1.0
            weekly[name] = tuple(v * scale for v in days)
        closed, country = tuple(keys.get("closed_in_holidays") or ()), keys.get("school_terms")
        if bool(closed) != (country is not None):
            raise ConfigError(
                "calendar: closed_in_holidays says which layers close and school_terms of which country; give both or "
                "neither"
            )
        return Calendar(weekly, closed, country or "", () if country is None else school_terms(country))

    def factors(self, step: Step, layers: Sequence[str]) -> dict[str, float]:
        """Factor of each layer that the calendar names, averaged over the days of the step.

        Args:
            step: Gives the date.
            layers: Layers of the contact graph.

        Raises:
            ConfigError: The run has no dates, or runs beyond the terms that are known.
            UnknownFieldError: There is no such layer.
        """
        self.refuse_unknown(layers)
        days = _days_of(step)
        return {
            name: sum(share * self._on(name, day) for day, share in days)
            for name in sorted({*self.weekly, *self.closed})
        }

    def refuse_unknown(self, layers: Sequence[str]) -> None:
        """Refuse layers that the contact graph has not.

        Args:
            layers: Layers of the contact graph.

        Raises:
            UnknownFieldError: There is no such layer.
        """
        for key, names in (("weekly.", self.weekly), ("closed_in_holidays: ", self.closed)):
            for name in names:
                if name not in layers:
                    raise UnknownFieldError(f"calendar.{key}{name}: there is no such layer; {nearest(name, layers)}")

    def refuse_dates(self, start: date | None, days: float) -> None:
        """Refuse a run without dates, or beyond the terms that are known.

        Args:
            start: Date of the first step.
            days: Length of the run.

        Raises:
            ConfigError: It is such a run.
        """
        if start is None:
            raise ConfigError(_NO_DATES)
        if self.closed:
            for day in (start, start + timedelta(days=math.ceil(days) - 1)):
                self.in_term(day)

    def _on(self, name: str, day: date) -> float:
        factor = self.weekly[name][day.weekday()] if name in self.weekly else 1.0
        if name in self.closed and not self.in_term(day):
            return 0.0
        return factor

    def in_term(self, day: date) -> bool:
        """Whether a day lies in a school term.

        Raises:
            ConfigError: The terms of its year are not known.
        """
        years = [first.year for first, _ in self.terms]
        if day.year not in years:
            raise ConfigError(
                f"calendar.school_terms: the terms of {self.country} are known for {min(years)} to {max(years)}, not "
                f"for {day}; change run.start or run.steps, or leave closed_in_holidays and school_terms out"
            )
        return any(first <= day <= last for first, last in self.terms)


def _days_of(step: Step) -> list[tuple[date, float]]:
    """Days that a step covers and the share of the step on each."""
    if step.start is None:
        raise ConfigError(_NO_DATES)
    begin, end = round(step.index * step.dt, 9), round((step.index + 1) * step.dt, 9)
    days = range(math.floor(begin), math.ceil(end))
    first = step.start.date()
    return [(first + timedelta(days=d), (min(end, d + 1) - max(begin, d)) / (end - begin)) for d in days]


@lru_cache
def school_terms(country: str) -> tuple[tuple[date, date], ...]:
    """First and last day of each school term of a country, ascending.

    Raises:
        ConfigError: No terms of that country are shipped.
    """
    with open_table("school_terms") as file:
        rows = list(csv.DictReader(file))
    known: Iterable[str] = dict.fromkeys(row["country"] for row in rows)
    terms = [(row["first"], row["last"]) for row in rows if row["country"] == country]
    if not terms:
        raise ConfigError(f"calendar.school_terms: no school terms of {country!r} are known; {nearest(country, known)}")
    return tuple(sorted((date.fromisoformat(first), date.fromisoformat(last)) for first, last in terms))
