"""What happened to one agent in one step, and why: the record that `explain` makes, and the story it tells.

Nothing here is a log: every number is recomputed from the seed, the population and the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

Value = str | int | float | bool
_NEVER = 2**31 - 1
"""The last int32, which in fields that hold a step stands for none."""


@dataclass(frozen=True)
class Source:
    """A contact from whom something came.

    Args:
        agent: Its key.
        layer: Layer of the contact.
        stage: Its stage at the start of the phase, or None in a model without stages.
        age: Its age in years, or None in a population without ages.
        contacts: Contacts per day with it, w.
        sent: What it sent, x: 1 for a typical infectious agent.
        received: What came of it here, v w x, per day; v is the factor of the layer.
        share: Part of all that was received, over all layers; of an infection the probability that it came from here.
    """

    agent: int
    layer: str
    stage: str | None
    age: float | None
    contacts: float
    sent: float
    received: float
    share: float


@dataclass(frozen=True)
class Received:
    """What came through one layer.

    Args:
        layer: Its name.
        factor: Factor v of the layer.
        contacts: Agents that this one was in contact with, or None for a mean field, which has none.
        silent: Of these, how many sent nothing.
        received: v times the sum over contacts of w x, per day, as the step computed it.
        share: Part of what came through all layers.
        hazard: Its part of the hazard of infection, per day; None where the rule does not infect.
    """

    layer: str
    factor: float
    contacts: int | None
    silent: int | None
    received: float
    share: float
    hazard: float | None


@dataclass(frozen=True)
class Sum:
    """One sum over contacts.

    Args:
        received: Its total, per day.
        layers: Its parts.
        sources: The strongest contacts from whom something came, strongest first.
        senders: From how many something came.
        rest: What came of those that are not among `sources`, per day.
    """

    received: float
    layers: tuple[Received, ...]
    sources: tuple[Source, ...]
    senders: int
    rest: float


@dataclass(frozen=True)
class Draw:
    """One keyed draw.

    Args:
        stream: Name of the stream, rule and call; with seed, step and key it fixes the number.
        uniform: The number, in (0, 1).
        probability: Of the event; None for a draw of a number.
        happened: Whether uniform < probability; None for a draw of a number.
        used: Whether another outcome (for a number: the least or the largest) had changed what the rule did.
    """

    stream: str
    uniform: float
    probability: float | None = None
    happened: bool | None = None
    used: bool = True


@dataclass(frozen=True)
class Race:
    """How layer and infector of an infection were drawn: the layer by its share, the infector by a race in it.

    Args:
        layer: Stream and number of the draw of the layer.
        infector: Stream and number of the pair of the two, which is the winner's.
        sent: w x of the winner, per day: its speed.
        time: -log(number) / sent, the least of all in the layer.
        runners: How many ran.
        next_agent: Key of the second, or None.
        next_time: Its time, or None.
    """

    layer: Draw
    infector: Draw
    sent: float
    time: float
    runners: int
    next_agent: int | None
    next_time: float | None


@dataclass(frozen=True)
class Account:
    """What one rule did.

    Args:
        rule: Its name.
        phase: Its phase, 0, 1, ...; -1 for a rule that makes the initial state.
        concerned: Whether the agent was one of those that the rule can change.
        parameters: Its parameters that are single numbers.
        sums: Its sums over contacts.
        draws: Its draws.
        changes: Fields that it changed, before and after.
        hazard: Hazard of infection, per day: -log(1 - probability) / dt; None for other rules.
        infected_by: Key of the infector, or None.
        infected_through: Layer of the infection, or the rule itself when it came from outside; None without one.
        race: How layer and infector were drawn; None where nobody infected it.
        untraced: Why the infector of an infection cannot be named, or None.
    """

    rule: str
    phase: int
    concerned: bool
    parameters: Mapping[str, float]
    sums: tuple[Sum, ...] = ()
    draws: tuple[Draw, ...] = ()
    changes: Mapping[str, tuple[Value, Value]] | None = None
    hazard: float | None = None
    infected_by: int | None = None
    infected_through: str | None = None
    race: Race | None = None
    untraced: str | None = None


@dataclass(frozen=True)
class Explanation:
    """One agent in one step; `print` tells it as a story, `to_dict` gives plain types.

    Args:
        agent: Key of the agent.
        step: The step; -1 is the making of the initial state.
        dt: Length of a step in days.
        seed: Seed of the run.
        date: Date and time at the start of the step, or None without a calendar.
        about: Attributes of the agent.
        units: Units of attributes and state fields, where they have one.
        surroundings: What it is part of in each layer.
        before: State fields at the start of the step.
        rules: What each rule did, in order.
        after: State fields at the end of the step.
    """

    agent: int
    step: int
    dt: float
    seed: int
    date: datetime | None
    about: Mapping[str, Value]
    units: Mapping[str, str]
    surroundings: Mapping[str, Mapping[str, Value]]
    before: Mapping[str, Value]
    rules: tuple[Account, ...]
    after: Mapping[str, Value]

    def to_dict(self) -> dict[str, Any]:
        """Plain types, as JSON holds them."""
        values = asdict(self)
        values["date"] = None if self.date is None else self.date.isoformat()
        return values

    def __str__(self) -> str:
        """The story."""
        return "\n".join(_story(self))


def _story(told: Explanation) -> Iterator[str]:
    when = f"step {told.step}" if told.step >= 0 else "the initial state"
    if told.step >= 0:
        when += f", day {told.step * told.dt:g}"
        when += "" if told.date is None else f", {told.date:%A} {_moment(told.date)}"
    yield f"Agent {told.agent}, {when} (seed {told.seed}, steps of {_days(told.dt)})"
    yield ""
    yield from _wrapped("Who", [_named(name, value, told.units) for name, value in told.about.items()])
    yield from _wrapped("Contacts", [_place(name, what) for name, what in told.surroundings.items()])
    yield from _wrapped("Before", [_named(name, value, told.units) for name, value in told.before.items()])
    for account in told.rules:
        yield ""
        yield from _tell(account, told)
    yield ""
    changed = [name for name in told.after if told.after[name] != told.before[name]]
    after = [_named(name, told.after[name], told.units) for name in told.after]
    yield from _wrapped("After", after)
    yield f"{'':10}{'changed: ' + ', '.join(changed) if changed else 'as before'}"


def _tell(account: Account, told: Explanation) -> Iterator[str]:
    title = account.rule + ("" if account.phase < 1 else f", phase {account.phase}")
    if not account.concerned:
        yield f"{title}: does not concern it (where does not hold)"
        return
    # The factors of layers stand in the table of what came through them.
    values = ", ".join(f"{name} {value:.6g}" for name, value in account.parameters.items() if "." not in name)
    title += f" ({values})" if values else ""
    if not (account.sums or account.draws or account.changes):
        yield f"{title}: changes nothing"
        return
    yield title
    for summed in account.sums:
        yield from (f"  {line}" for line in _tell_sum(summed, account))
    for draw in account.draws:
        if account.hazard is not None and draw is chance_of(account.draws):
            yield (
                f"  hazard {account.hazard:.6g} per day, so the probability in {_days(told.dt)} is "
                f"1 - exp(-hazard x {told.dt:g}) = {draw.probability:.6g}"
            )
        yield f"  {_tell_draw(draw)}"
    if account.infected_through is not None:
        if account.infected_by is None:
            yield f"  infected by nobody in the population: {account.infected_through} brought it"
        else:
            yield f"  infected by agent {account.infected_by}, through {account.infected_through}"
            yield from (f"    {line}" for line in _tell_race(account))
    if account.untraced is not None:
        yield f"  infected, but by whom cannot be told: {account.untraced}"
    if account.changes:
        moves = (
            f"{name} {_shown(old)} -> {_shown(new)}{_unit(name, told.units)}"
            for name, (old, new) in account.changes.items()
        )
        yield f"  changes {', '.join(moves)}"
    else:
        yield "  changes nothing"


def chance_of(draws: Sequence[Draw]) -> Draw | None:
    """The first draw of an event, which in a rule that infects is the infection."""
    return next((draw for draw in draws if draw.probability is not None), None)


def _tell_race(account: Account) -> Iterator[str]:
    race = account.race
    if race is None:
        return
    upto = 0.0
    for part in account.sums[0].layers:
        if part.layer == account.infected_through:
            yield (
                f"the layer draws {race.layer.uniform:.6g} ({race.layer.stream}): {part.layer} has the shares "
                f"{upto:.6g} to {upto + part.share:.6g}"
            )
        upto += part.share
    first = f"{_agents(race.runners)} raced, time -log(u) / (contacts per day x sent): the winner drew"
    yield f"{first} {race.infector.uniform:.6g} ({race.infector.stream}), time {race.time:.6g}"
    if race.next_agent is not None:
        yield f"the next, agent {race.next_agent}, had time {race.next_time:.6g}"


def _agents(number: int) -> str:
    return "1 agent" if number == 1 else f"{number:,} agents"


def _tell_draw(draw: Draw) -> str:
    unused = "" if draw.used else ", unused: it made no difference"
    if draw.probability is None:
        return f"draws {draw.uniform:.6g} ({draw.stream}){unused}"
    if draw.probability == 0:
        return f"cannot happen: the probability is 0 ({draw.stream})"
    order = "<" if draw.happened else ">="
    outcome = "happens" if draw.happened else "does not happen"
    return f"draws {draw.uniform:.6g} {order} {draw.probability:.6g}: it {outcome} ({draw.stream}){unused}"


def _tell_sum(summed: Sum, account: Account) -> Iterator[str]:
    yield f"from its contacts: {summed.received:.6g} per day (contacts per day x factor of the layer x what they sent)"
    hazards = account.hazard is not None
    rows = [["layer", "contacts", "sent nothing", "factor", "received", "share", *["hazard/day"] * hazards]]
    for part in summed.layers:
        met, silent = ("mean field", "-") if part.contacts is None else (f"{part.contacts:,}", f"{part.silent:,}")
        rows.append(
            [part.layer, met, silent, f"{part.factor:.4g}", f"{part.received:.6g}", _percent(part.share)]
            + ([] if part.hazard is None else [f"{part.hazard:.6g}"])
        )
    yield from (f"  {line}" for line in _table(rows, left=1))
    if not summed.sources:
        return
    yield f"from whom most of it came, {len(summed.sources):,} of {summed.senders:,}:"
    ages = any(source.age is not None for source in summed.sources)
    rows = [["agent", "layer", "stage", *["age"] * ages, "contacts/day", "sent", "received", "share"]]
    for s in summed.sources:
        age = ["-" if s.age is None else f"{s.age:g}"] * ages
        figures = [f"{s.contacts:.4g}", f"{s.sent:.4g}", f"{s.received:.6g}", _percent(s.share)]
        rows.append([str(s.agent), s.layer, s.stage or "-", *age, *figures])
    if summed.senders > len(summed.sources):
        left = ["", "", *[""] * ages, "", ""]
        share = _percent(summed.rest / summed.received if summed.received else 0.0)
        rows.append([f"{summed.senders - len(summed.sources):,} more", *left, f"{summed.rest:.6g}", share])
    yield from (f"  {line}" for line in _table(rows, left=3))


def _table(rows: Sequence[Sequence[str]], left: int) -> Iterator[str]:
    """Aligned columns, the first `left` of them to the left."""
    width = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = (c.ljust(width[i]) if i < left else c.rjust(width[i]) for i, c in enumerate(row))
        yield "  ".join(cells).rstrip()


def _place(name: str, what: Mapping[str, Value]) -> str:
    """What an agent is part of in a layer, in words."""
    if what["kind"] == "edges":
        return f"{name}: {what['contacts']} edges"
    if what["kind"] == "mixing":
        return f"{name}: meets {what['mean_contacts_per_day']:.4g} a day from area {what['area']}"
    if "place" not in what:
        return f"{name}: none"
    activity = f" with activity {what['activity']:.3g}" if "activity" in what else ""
    return f"{name}: place {what['place']}, one of {what['members']}{activity}"


def _wrapped(title: str, parts: Sequence[str], width: int = 110) -> Iterator[str]:
    """A title and its parts, in lines of at most `width` characters where the parts allow it."""
    line = f"{title:10}"
    for i, part in enumerate(parts):
        piece = part + (", " if i + 1 < len(parts) else "")
        if len(line) > 10 and len(line) + len(piece) > width:
            yield line.rstrip()
            line = " " * 10
        line += piece
    if parts:
        yield line.rstrip()


def _named(name: str, value: Value, units: Mapping[str, str]) -> str:
    return f"{name} {_shown(value)}{_unit(name, units)}"


def _unit(name: str, units: Mapping[str, str]) -> str:
    return f" ({units[name]})" if units.get(name) else ""


def _shown(value: Value) -> str:
    if isinstance(value, int) and value == _NEVER:
        return "never"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _days(dt: float) -> str:
    return "1 day" if dt == 1 else f"{dt:g} days"


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d}" if (at.hour, at.minute, at.second) == (0, 0, 0) else f"{at:%Y-%m-%d %H:%M}"
