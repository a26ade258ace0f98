"""COVID-19 in eleven stages: its figures, the courses of an infection, what is observed. The model is `epidemic.covid`.

.. code-block:: text

    susceptible -> asymptomatic -----------------------------------------------> recovered
                -> presymptomatic_mild -> mild ---------------------------------> recovered
                -> presymptomatic_severe -> severe -----------------------------> recovered
                                                   -> hospital -----------------> recovered
                                                               -> dead
                                                               -> icu -> dead
                                                                      -> hospital_recovering -> recovered

References: Hinch et al. (2021), PLoS Comput. Biol. 17(7) e1009146 (OpenABM-Covid19); Chopra et al. (2021), arXiv
2110.04421 (DeepABM-COVID), whose stages these are. Waiting times have the published means and standard deviations.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from gnabm.agents import Agents, Stage, StageName, Stages
from gnabm.errors import ConfigError, nearest
from gnabm.model import Leavers, Observable, count_by_stage
from gnabm.models.calendar import CalendarKeys
from gnabm.models.durations import Duration, one_stage, two_stages
from gnabm.models.immunity import NUM_AGE_GROUPS
from gnabm.models.infectiousness import GammaProfile
from gnabm.models.progression import Figures, Transition
from gnabm.models.tables import open_table, sources
from gnabm.nextgen import by_five_years
from gnabm.transmission import Courses, Floats

COVID = Stages(
    "susceptible", "asymptomatic", "presymptomatic_mild", "presymptomatic_severe", "mild", "severe", "hospital", "icu",
    "dead", "hospital_recovering", "recovered",
)  # fmt: skip
(SUSCEPTIBLE, ASYMPTOMATIC, PRESYMPTOMATIC_MILD, PRESYMPTOMATIC_SEVERE, MILD, SEVERE, HOSPITAL, ICU, DEAD, RECOVERING,
 RECOVERED) = COVID  # fmt: skip

Value = TypeVar("Value")


@dataclass(frozen=True)
class Disease:
    """Figures of the disease.

    Args:
        probabilities: By ten-year age (9,): `asymptomatic` and `severe` of the infected, `hospital` of the severe,
            `icu` and `dead_on_ward` of those in hospital, `dead_in_icu` of those in intensive care.
        durations: By name, as in the table covid_durations.
        factors: Infectiousness `asymptomatic`, `presymptomatic`, `mild`, `severe`, relative to each other.
        profile: Infectiousness over the time since infection.
        severity: Factor on the probability `severe`.
    """

    probabilities: Mapping[str, tuple[float, ...]]
    durations: Mapping[str, Duration]
    factors: Mapping[str, float]
    profile: GammaProfile
    severity: float

    @staticmethod
    def of(
        probabilities: Mapping[str, Sequence[float]],
        durations: Mapping[str, Sequence[float]],
        infectiousness: Mapping[str, float],
        severity: float,
    ) -> Disease:
        """The published figures, with some replaced.

        Args:
            probabilities: By name and ten-year age.
            durations: By name, mean[, sd] in days.
            infectiousness: Factors by stage, `profile_mean`, `profile_sd`.
            severity: Factor on the probability of severe disease.

        Raises:
            ConfigError: A name is unknown, or a value is not what it must be.
        """
        published = _published_probabilities()
        chances = {**published, **_replaced(probabilities, published, "probabilities")}
        for name, values in chances.items():
            if len(values) != NUM_AGE_GROUPS or not all(0 <= v <= 1 for v in values):
                raise ConfigError(
                    f"probabilities.{name}: expected {NUM_AGE_GROUPS} numbers in [0, 1], for the ages 0-9, ..., "
                    f"70-79, 80+, got {list(values)}"
                )
        if not severity >= 0:
            raise ConfigError(f"severity must be a number >= 0, got {severity}")
        met = {**chances, "severe": [v * severity for v in chances["severe"]]}
        for first, second, of in (("asymptomatic", "severe", "infected"), ("icu", "dead_on_ward", "hospitalised")):
            for age, both in enumerate(zip(met[first], met[second], strict=True)):
                if sum(both) > 1 + 1e-9:
                    raise ConfigError(
                        f"probabilities.{first} and .{second} of the {of} of age group {age} add up to {sum(both):g}, "
                        "more than 1; lower one of them, or severity"
                    )
        return Disease(
            {name: tuple(values) for name, values in chances.items()},
            {**_published_durations(), **_given_durations(durations)},
            *_infectiousness(infectiousness),
            severity,
        )

    def figures(self) -> Figures:
        """What a progression can learn."""
        return Figures(self.probabilities, self.durations, self.severity)

    @staticmethod
    def outcomes() -> list[tuple[StageName, str | None]]:
        """First stages of an infection with their probabilities; the last is the one that protection lowers."""
        return [(ASYMPTOMATIC, "asymptomatic"), (PRESYMPTOMATIC_MILD, None), (PRESYMPTOMATIC_SEVERE, "severe")]

    @staticmethod
    def transitions() -> list[Transition]:
        """Ways out of each stage, with the names of durations and probabilities."""
        return [
            Transition(ASYMPTOMATIC, RECOVERED, "asymptomatic"),
            Transition(PRESYMPTOMATIC_MILD, MILD, "presymptomatic"),
            Transition(PRESYMPTOMATIC_SEVERE, SEVERE, "presymptomatic"),
            Transition(MILD, RECOVERED, "mild"),
            Transition(SEVERE, HOSPITAL, "severe_to_hospital", "hospital"),
            Transition(SEVERE, RECOVERED, "severe_to_recovered"),
            Transition(HOSPITAL, ICU, "hospital_to_icu", "icu"),
            Transition(HOSPITAL, DEAD, "hospital_to_dead", "dead_on_ward"),
            Transition(HOSPITAL, RECOVERED, "hospital_to_recovered"),
            Transition(ICU, DEAD, "icu_to_dead", "dead_in_icu"),
            Transition(ICU, RECOVERING, "icu_to_recovering"),
            Transition(RECOVERING, RECOVERED, "recovering"),
        ]

    def infectious(self) -> dict[StageName, float]:
        """Factor of each stage that transmits."""
        before = self.factors["presymptomatic"]
        return {
            ASYMPTOMATIC: self.factors["asymptomatic"], PRESYMPTOMATIC_MILD: before, PRESYMPTOMATIC_SEVERE: before,
            MILD: self.factors["mild"], SEVERE: self.factors["severe"],
        }  # fmt: skip

    def courses(self, dt: float) -> Courses:
        """Courses of an infection of somebody without protection, in steps of dt days."""
        steps = self.profile.length(dt)
        days = {name: duration.pmf(dt) for name, duration in self.durations.items()}
        factors, before = self.factors, self.factors["presymptomatic"]
        p, inside = one_stage(days["asymptomatic"], steps)
        chances, sent = [np.outer(self._by_age("asymptomatic"), p)], [factors["asymptomatic"] * inside]
        severe, hospital = self._by_age("severe"), self._by_age("hospital")
        mild = np.maximum(1 - self._by_age("asymptomatic") - severe, 0.0)
        for share, stage, duration in (
            (mild, "mild", "mild"),
            (severe * hospital, "severe", "severe_to_hospital"),
            (severe * (1 - hospital), "severe", "severe_to_recovered"),
        ):
            p, first, second = two_stages(days["presymptomatic"], days[duration], steps)
            chances.append(np.outer(share, p))
            sent.append(before * first + factors[stage] * second)
        return Courses(np.concatenate(chances, 1), np.concatenate(sent) * self.profile.by_steps(steps, dt))

    def _by_age(self, name: str) -> Floats:
        factor = self.severity if name == "severe" else 1.0
        return by_five_years([p * factor for p in self.probabilities[name]])


# Figures


def _rows(table: str) -> list[dict[str, str]]:
    with open_table(table) as file:
        return list(csv.DictReader(file))


@lru_cache
def _by_age_columns() -> dict[str, tuple[float, ...]]:
    rows = _rows("covid_by_age")
    return {name: tuple(float(row[name]) for row in rows) for name in rows[0] if name != "age"}


def published_susceptibility() -> tuple[float, ...]:
    """Relative susceptibility by ten-year age (9,)."""
    return _by_age_columns()["susceptibility"]


def _published_probabilities() -> dict[str, Sequence[float]]:
    table = {name: np.array(values) for name, values in _by_age_columns().items()}
    critical, in_icu = table["critical"], table["critical_in_icu"]
    found = {
        "asymptomatic": table["asymptomatic"],
        "severe": 1 - table["asymptomatic"] - table["mild"],
        "hospital": table["hospital"],
        "icu": critical * in_icu,
        "dead_on_ward": critical * (1 - in_icu),
        "dead_in_icu": table["death_in_icu"],
    }
    return {name: [round(float(v), 9) for v in values] for name, values in found.items()}


def _published_durations() -> dict[str, Duration]:
    rows = _rows("covid_durations")
    return {row["name"]: Duration(float(row["mean"]), float(row["sd"]) if row["sd"] else None) for row in rows}


def _given_durations(given: Mapping[str, Sequence[float]]) -> dict[str, Duration]:
    found = {}
    for name, values in _replaced(given, _published_durations(), "durations").items():
        if len(values) not in (1, 2) or not all(np.isfinite(v) and v > 0 for v in values):
            raise ConfigError(
                f"durations.{name}: expected [mean] or [mean, standard deviation] in days, both positive, got "
                f"{list(values)}"
            )
        found[name] = Duration(*map(float, values))
    return found


def _infectiousness(given: Mapping[str, float]) -> tuple[dict[str, float], GammaProfile]:
    published = {row["name"]: float(row["value"]) for row in _rows("covid_infectiousness")}
    values = {**published, **_replaced(given, published, "infectiousness")}
    for name, value in values.items():
        if not (np.isfinite(value) and value >= 0):
            raise ConfigError(f"infectiousness.{name}: expected a finite number >= 0, got {value}")
    profile = GammaProfile(values.pop("profile_mean"), values.pop("profile_sd"))
    return values, profile


def _replaced(given: Mapping[str, Value], known: Mapping[str, object], key: str) -> Mapping[str, Value]:
    for name in given:
        if name not in known:
            raise ConfigError(f"{key}.{name}: no such key; {nearest(name, known)}")
    return given


def tables_in_use(
    susceptibility: Sequence[float] | None,
    probabilities: Mapping[str, Sequence[float]],
    durations: Mapping[str, Sequence[float]],
    infectiousness: Mapping[str, float],
    calendar: CalendarKeys | None,
) -> list[dict[str, Any]]:
    """Name, source, year, licence and note of each shipped table of which a figure is used; replaced ones are named.

    Args:
        susceptibility: As given to the model, and so are the others.
        probabilities: Replaced, by name.
        durations: Replaced, by name.
        infectiousness: Replaced, by name.
        calendar: Weekdays and school terms.
    """
    by_age = [*(["susceptibility"] if susceptibility is not None else []), *probabilities]
    figures = {
        "covid_by_age": (by_age, 1 + len(_published_probabilities())),
        "covid_durations": (list(durations), len(_published_durations())),
        "covid_infectiousness": (list(infectiousness), len(_rows("covid_infectiousness"))),
        "school_terms": ([], 1 if calendar is not None and calendar.get("school_terms") else 0),
    }
    said = sources()
    used = []
    for name, (replaced, size) in figures.items():
        if len(replaced) < size:
            note = "; ".join([said[name]["note"], *([f"replaced: {', '.join(replaced)}"] if replaced else [])])
            used.append({"name": name, **said[name], "note": note})
    return used


# Observables


class Entered:
    """Value of an observable: agents that entered a stage in the step.

    Args:
        target: The stage.
    """

    field = "stage"

    def __init__(self, target: StageName) -> None:
        self.target = target

    def __call__(self, before: Agents, after: Agents) -> Tensor:
        """(num_agents,) flags."""
        was: Tensor = before.stage.is_(self.target)
        now: Tensor = after.stage.is_(self.target)
        # The difference has the gradient of what enters; a product would count a flag that stays once per step.
        return (now - was).clamp(min=0) if now.is_floating_point() else now & ~was

    def of_moves(self, counts: Tensor, moves: Tensor) -> Tensor:
        """(num_groups,) agents."""
        return moves[:, self.target].sum(0)


class Within:
    """Value of an observable: agents in one of some stages at the end of the step.

    Args:
        stages: The stages.
    """

    field = "stage"

    def __init__(self, *stages: StageName) -> None:
        self.stages = stages

    def __call__(self, before: Agents, after: Agents) -> Tensor:
        """(num_agents,) flags."""
        stage: Stage = after.stage
        flags = stage.is_(self.stages[0])
        for other in self.stages[1:]:
            flags = flags + stage.is_(other) if flags.is_floating_point() else torch.logical_or(flags, stage.is_(other))
        return flags

    def of_moves(self, counts: Tensor, moves: Tensor) -> Tensor:
        """(num_groups,) agents."""
        return counts[sorted(set(self.stages))].sum(0)


OBSERVABLES = (
    count_by_stage,
    Observable("incidence", Leavers(SUSCEPTIBLE), meaning="new infections in the step, initial ones excluded"),
    Observable("deaths", Entered(DEAD), meaning="deaths in the step"),
    Observable("hospital_admissions", Entered(HOSPITAL), meaning="admissions to hospital in the step"),
    Observable(
        "hospital_occupancy", Within(HOSPITAL, ICU, RECOVERING),
        meaning="agents in hospital at the end of the step, intensive care included",
    ),
    Observable("icu_occupancy", Within(ICU), meaning="agents in intensive care at the end of the step"),
)  # fmt: skip
