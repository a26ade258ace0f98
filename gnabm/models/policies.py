"""Interventions as a config and a call of a model say them, and the rules that follow from them."""

from __future__ import annotations

import keyword
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

import torch
from torch import nn

from gnabm.agents import StageName
from gnabm.errors import ConfigError, GnabmError, nearest
from gnabm.intervention import NEVER, Schedule, Triggered, Watch, When
from gnabm.model import Observable, State
from gnabm.models.campaign import CAMPAIGN, Remember, Vaccinate
from gnabm.models.entries import refuse_types
from gnabm.models.immunity import AGE_GROUPS
from gnabm.models.infection import Closure
from gnabm.models.isolation import Isolate, Test
from gnabm.rule import Rule


class Trigger(TypedDict):
    """When an observable crosses a threshold.

    Attributes:
        observable: Name of an observable of the model.
        above: Threshold in agents.
        above_per_100k: The same, per 100,000 residents of the country or region; exactly one of the two.
        days: How long the intervention lasts.
        delay: Days from the crossing to the start, 1 or more; 1 when left out.
        by_region: Whether each region has a trigger of its own.
    """

    observable: str
    above: NotRequired[float]
    above_per_100k: NotRequired[float]
    days: float
    delay: NotRequired[float]
    by_region: NotRequired[bool]


class Timing(TypedDict):
    """What all interventions have.

    Attributes:
        name: Name of its rule, or of the closure; made of the kind when left out.
        start: Day since the start of the run, a fraction allowed; a config may give a date. 0 when left out.
        end: The same for the day on which it is over; never when left out.
        when: A trigger instead of days.
    """

    name: NotRequired[str]
    start: NotRequired[float | str]
    end: NotRequired[float | str]
    when: NotRequired[Trigger]


class CloseKeys(Timing):
    """Fewer contacts in some layers.

    Attributes:
        close: Names of the layers.
        strength: Share of the contacts that fall away; 1 when left out.
        regions: Whose residents it concerns; all when left out.
    """

    close: Sequence[str]
    strength: NotRequired[float]
    regions: NotRequired[Sequence[str]]


class IsolateKeys(Timing):
    """The symptomatic stay away from others outside their home.

    Attributes:
        isolate: `symptomatic`.
        compliance: Probability that one of them complies.
        strength: Share of the contacts outside the home that fall away; 1 when left out.
    """

    isolate: str
    compliance: float
    strength: NotRequired[float]


class TestKeys(Timing):
    """The symptomatic are tested, and isolate when the result is positive.

    Attributes:
        test: `symptomatic`.
        probability: Of a test per day of symptoms.
        sensitivity: Probability that a test of somebody ill is positive; 1 when left out.
        delay: Days from the test to its result; 1 when left out.
        days: How long they isolate; 7 when left out.
        strength: Share of the contacts outside the home that fall away; 1 when left out.
    """

    test: str
    probability: float
    sensitivity: NotRequired[float]
    delay: NotRequired[float]
    days: NotRequired[float]
    strength: NotRequired[float]


class VaccinateKeys(Timing):
    """Vaccination while the run goes on.

    Attributes:
        vaccinate: Bands of ten-year age groups, such as `[[80+], [60-69, 70-79]]`, the first served first.
        per_day: Doses per day.
        per_day_per_100k: The same, per 100,000 residents; exactly one of the two.
        against_infection: Efficacy: share by which the hazard of infection is lower; 0 when left out.
        against_severe: Efficacy: share by which the probability of severe disease of the infected is lower; 0 when
            left out.
        delay: Days from the dose to protection; 14 when left out.
        waning_rate: Decline of the protection per day; 0 when left out.
    """

    vaccinate: Sequence[Sequence[str]]
    per_day: NotRequired[float]
    per_day_per_100k: NotRequired[float]
    against_infection: NotRequired[float]
    against_severe: NotRequired[float]
    delay: NotRequired[float]
    waning_rate: NotRequired[float]


Intervention = CloseKeys | IsolateKeys | TestKeys | VaccinateKeys
"""An intervention; which kind it is follows from its first key of its own."""
KINDS: dict[str, type] = {
    "close": CloseKeys, "isolate": IsolateKeys, "test": TestKeys, "vaccinate": VaccinateKeys,
}  # fmt: skip
"""Keys of each kind of intervention, by the one that tells them apart."""
_NAMES = {"close": "Close", "isolate": "Isolate", "test": "Test", "vaccinate": "Campaign"}


def kind_of(entry: object, key: str) -> str:
    """Which of `KINDS` an intervention is.

    Args:
        entry: As a config or a call gives it.
        key: Where it stands, for messages.

    Raises:
        ConfigError: It is none, or more than one.
    """
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{key}: expected a mapping with one of {', '.join(KINDS)}, got {entry!r}")
    kinds = [kind for kind in KINDS if kind in entry]
    if len(kinds) != 1:
        hints = [nearest(str(name), KINDS) for name in entry if not kinds]
        close = [hint for hint in hints if hint.startswith("did you mean")]
        raise ConfigError(
            f"{key}: expected exactly one of {', '.join(KINDS)}, got {' and '.join(kinds) or 'neither'}; "
            f"{(*close, 'write each intervention as an entry of its own')[0]}"
        )
    return kinds[0]


@dataclass(frozen=True)
class Policies:
    """What follows from the interventions of a model.

    Args:
        closures: By name, for the rule that infects.
        outside: State fields of those who isolate, for the same.
        phases: Rules that come before all others in a step, one phase after the other.
        initial: Rules that come last in making the initial state.
        state: Fields that these rules write, those of immunity left out.
        vaccinates: Whether there is a campaign, so that the model needs the fields of immunity.
    """

    closures: dict[str, Closure] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)
    phases: list[list[Rule]] = field(default_factory=list)
    initial: list[Rule] = field(default_factory=list)
    state: dict[str, State] = field(default_factory=dict)
    vaccinates: bool = False

    @staticmethod
    def of(
        entries: Sequence[Intervention],
        symptomatic: Sequence[StageName],
        eligible: Sequence[StageName],
        observables: Sequence[Observable],
    ) -> Policies:
        """The rules of some interventions.

        Args:
            entries: As a config or a call gives them.
            symptomatic: Stages of the symptomatic.
            eligible: Stages in which somebody is vaccinated.
            observables: Those of the model, which triggers can watch.

        Raises:
            ConfigError: A key is missing, unknown or contradicts another, or a value is out of range.
        """
        made = _Making(symptomatic, eligible, observables)
        for number, entry in enumerate(entries):
            key = f"interventions[{number}]"
            try:
                made.add(entry, key)
            except GnabmError as error:
                raise ConfigError(str(error) if str(error).startswith(key) else f"{key}: {error}") from error
        return Policies(
            made.closures, made.outside, [[rule] for rule in (*made.watches, *made.rules)],
            [Remember()] if made.vaccinates else [], made.state, made.vaccinates,
        )  # fmt: skip


class _Making:
    def __init__(
        self, symptomatic: Sequence[StageName], eligible: Sequence[StageName], observables: Sequence[Observable]
    ) -> None:
        self.symptomatic, self.eligible = symptomatic, eligible
        self.observables = {o.name: o for o in observables if o.counts is None}
        self.closures: dict[str, Closure] = {}
        self.watches: list[Rule] = []
        self.rules: list[Rule] = []
        self.outside: list[str] = []
        self.state: dict[str, State] = {}
        self.names: set[str] = set()
        self.vaccinates = False

    def add(self, entry: Mapping[str, Any], key: str) -> None:
        kind = kind_of(entry, key)
        refuse_types(entry, KINDS[kind], key)
        name = self._name(entry.get("name"), kind, key)
        when = self._when(entry, name, key)
        if kind == "close":
            self.closures[name] = _close(entry, when, key)
        elif kind == "vaccinate":
            if self.vaccinates:
                raise ConfigError(f"{key}: there is one campaign already; put all bands of ages into its list")
            self.vaccinates = True
            self.state.update(CAMPAIGN)
            self.rules.append(_vaccinate(entry, name, self.eligible, when, key))
        else:
            self._isolate(entry, kind, name, when, key)

    def _name(self, given: str | None, kind: str, key: str) -> str:
        name, number = _NAMES[kind] if given is None else given, 1
        while given is None and name in self.names:
            number += 1
            name = f"{_NAMES[kind]}{number}"
        # Closures are modules by these names, and those that torch's own attributes have are not free.
        free = name not in self.names and not hasattr(nn.ModuleDict(), name)
        if not free or not name.isidentifier() or keyword.iskeyword(name):
            raise ConfigError(
                f"{key}.name: {name!r} {'is no name' if free else 'is taken'}; give one of its own, of letters, digits "
                "and _"
            )
        self.names.add(name)
        return name

    def _isolate(self, entry: Mapping[str, Any], kind: str, name: str, when: When, key: str) -> None:
        if entry[kind] != "symptomatic":
            raise ConfigError(f"{key}.{kind}: expected `symptomatic`, got {entry[kind]!r}; nobody else is known yet")
        rule: Isolate | Test
        if kind == "isolate":
            rule = Isolate(name, self.symptomatic, entry["compliance"], entry.get("strength", 1.0), when)
        else:
            rule = Test(
                name, self.symptomatic, entry["probability"], entry.get("sensitivity", 1.0),
                delay=entry.get("delay", 1.0), days=entry.get("days", 7.0), strength=entry.get("strength", 1.0),
                when=when,
            )  # fmt: skip
        self.rules.append(rule)
        self.outside.append(rule.outside)
        self.state.update(rule.state)

    def _when(self, entry: Mapping[str, Any], name: str, key: str) -> When:
        trigger = entry.get("when")
        if trigger is None:
            end = entry.get("end")
            return Schedule(
                _day(entry.get("start", 0.0), f"{key}.start"), None if end is None else _day(end, f"{key}.end"), key
            )
        given = [word for word in ("start", "end") if word in entry]
        if given:
            raise ConfigError(f"{key}: {given[0]} and when exclude each other; a trigger has `days` and a `delay`")
        at = f"{key}.when"
        if trigger["observable"] not in self.observables:
            raise ConfigError(
                f"{at}.observable: {trigger['observable']!r} is none that counts agents; "
                f"{nearest(trigger['observable'], self.observables)}"
            )
        by_region = trigger.get("by_region", False)
        if by_region and self.observables[trigger["observable"]].by[:1] != ("region",):
            raise ConfigError(f"{at}.by_region: {trigger['observable']} is not counted by region; leave by_region out")
        above, relative = amount(trigger, "above", "above_per_100k", at, "agents")
        watch = Watch(
            f"Watch{name}", trigger["observable"], above, trigger["days"], delay=trigger.get("delay", 1.0),
            relative=relative, by_region=by_region, key=at,
        )  # fmt: skip
        self.watches.append(watch)
        self.state.update(
            {
                watch.level: State(0.0, torch.float32, f"{watch.observable} at the end of the step before"),
                watch.start: State(-NEVER, torch.float32, f"day on which {name} last began", "day"),
                watch.active: State(0.0, torch.float32, f"activity of {name}"),
            }
        )
        return Triggered(watch.active, by_region=by_region)


def _close(entry: Mapping[str, Any], when: When, key: str) -> Closure:
    if not entry["close"]:
        raise ConfigError(f"{key}.close: is empty; name layers, such as [class, school]")
    if "regions" in entry and not entry["regions"]:
        raise ConfigError(f"{key}.regions: is empty; name regions, or leave the key out for all of them")
    strength = entry.get("strength", 1.0)
    if not 0 <= strength <= 1:
        raise ConfigError(f"{key}.strength must lie in [0, 1], got {strength}; 1 leaves no contacts")
    return Closure(entry["close"], strength, when, entry.get("regions"))


def _vaccinate(entry: Mapping[str, Any], name: str, eligible: Sequence[StageName], when: When, key: str) -> Vaccinate:
    bands = []
    if not entry["vaccinate"] or not all(entry["vaccinate"]):
        raise ConfigError(f"{key}.vaccinate: a list is empty; give bands of ages, such as [[80+, 70-79], [60-69]]")
    for band in entry["vaccinate"]:
        for group in band:
            if group not in AGE_GROUPS:
                raise ConfigError(
                    f"{key}.vaccinate: there is no age group {group!r}; {nearest(str(group), AGE_GROUPS)}"
                )
        bands.append([AGE_GROUPS.index(group) for group in band])
    supply, relative = amount(entry, "per_day", "per_day_per_100k", key, "doses")
    return Vaccinate(
        name, bands, supply, relative=relative, against_infection=entry.get("against_infection", 0.0),
        against_severe=entry.get("against_severe", 0.0), delay=entry.get("delay", 14.0),
        waning_rate=entry.get("waning_rate", 0.0), stages=eligible, when=when,
    )  # fmt: skip


def amount(entry: Mapping[str, Any], absolute: str, relative: str, key: str, unit: str) -> tuple[float, bool]:
    """The number that an entry gives, and whether it is per 100,000 residents.

    Raises:
        ConfigError: It gives both or neither.
    """
    given = [word for word in (absolute, relative) if word in entry]
    if len(given) != 1:
        raise ConfigError(
            f"{key}: expected exactly one of {absolute} ({unit}) and {relative} (per 100,000 residents), got "
            f"{'both' if given else 'neither'}"
        )
    return float(entry[given[0]]), given[0] == relative


def _day(value: float | str, key: str) -> float:
    if isinstance(value, str):
        raise ConfigError(
            f"{key}: {value!r} is no number of days; outside of a config give days since the start of the run"
        )
    return float(value)
