"""Audit of gradients: which parameter moves which outcome, how much of it comes through time, where a chain breaks.

A gradient that is exactly 0 looks like an answer. It is one where a parameter has no part in an outcome, and a fault
where a rule lost it on the way: in a comparison, a `.detach()`, a number of Python, a cast, a write in place.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import torch
from torch import Tensor

from gnabm.binding import Bound
from gnabm.contacts import Contacts
from gnabm.errors import KindError
from gnabm.gradients import label
from gnabm.model import Model
from gnabm.outcome import Outcome, outcomes
from gnabm.parameters import Parameter, Parameters
from gnabm.periods import Period
from gnabm.population import Population
from gnabm.sampling import Estimator
from gnabm.severed import COMPARISON, IN_PLACE, Cut, Watch
from gnabm.shard import cut
from gnabm.simulate import simulate
from gnabm.simulation import Simulation

_MOST_CUTS = 3
DIFFERENCES, UNKNOWN = "forward differences", "unknown in this run"
"""What serves where a chain is broken, and where the run had nothing to judge it by."""


@dataclass(frozen=True)
class Connection:
    """Whether the gradient of one outcome reaches one parameter.

    Args:
        parameter: Name of the parameter.
        observable: Name of the outcome.
        connected: Whether the gradient exists and is not 0 throughout.
        through_time: Share of the gradient that comes through earlier steps, within [0, 1]; 1 of a parameter of the
            initial state alone, None without a gradient.
        broken_at: Rule, file and line, and operation where the chain breaks, several with a semicolon between; or that
            the run had nothing to count; None where there is nothing to say. Lines of gnabm's own rules, and
            comparisons, are named only where nothing gets through.
        served_by: What gives the derivative: the estimator where it is connected, `forward differences` (of runs with
            common draws) where a line breaks the chain or no draw has it, `unknown in this run` where nothing happened.
    """

    parameter: str
    observable: str
    connected: bool
    through_time: float | None
    broken_at: str | None
    served_by: str

    def to_dict(self) -> dict[str, Any]:
        """In plain types, for JSON."""
        return asdict(self)


def audit(
    model: Model,
    population: Population | Contacts,
    *,
    steps: int = 30,
    seed: int = 0,
    parameters: Sequence[str] = ("*",),
    observables: Sequence[str] | None = None,
    gradient: str | Estimator = "local-score",
    dt: float = 1.0,
    start: date | None = None,
    changes: Sequence[Period] = (),
) -> list[Connection]:
    """Follow the gradient of each outcome to each parameter, in three runs of one seed.

    Args:
        model: The model.
        population: Agents and contacts.
        steps: Number of steps; a chain that has no event in them cannot be judged, and the audit says so.
        seed: Seed.
        parameters: Patterns of names (`Infect.*`).
        observables: Names of observables or outcomes (`stage_count.recovered`); None for all.
        gradient: The estimator.
        dt: Days per step.
        start: Date of step 0, or None.
        changes: From which steps on another model and seed hold.

    Returns:
        A row for each parameter and outcome.

    Raises:
        GnabmError: A name is unknown, or what `simulate` refuses other than a write in place.
    """
    people, known = Population.of(population), Parameters.of(model).select(*parameters)
    names = [entry.name for entry in known if entry.value.is_floating_point()]
    wanted = outcomes(model, None if observables is None else tuple(observables))
    options: dict[str, Any] = {"seed": seed, "gradient": gradient, "dt": dt, "start": start, "changes": changes}

    def leaves() -> dict[str, Tensor]:
        return {name: known[name].value.detach().clone().requires_grad_() for name in names}  # of one run alone

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Converting a tensor with requires_grad")  # the audit names the line
        watch, written = _watched(model, people, steps, leaves(), options)
        whole, now = _Gradients(written), _Gradients(written)
        for horizon, found in ((None, whole), (1, now)):
            if not written:
                given = leaves()
                run = simulate(model, people, steps=steps, parameters=given, gradient_horizon=horizon, **options)
                found.take(run.observed, wanted, given, watch)
    # The first step reads what the initial rules made, so a run without gradient through time has theirs.
    later = {id(parameter) for rule in model.rules() for parameter in rule.parameters()}
    rows = []
    for name in names:
        initial = id(known[name].value) not in later
        for outcome in wanted:
            connected = whole.connects(name, outcome)
            share = (1.0 if initial else whole.through_time(now, name, outcome)) if connected else None
            broken_at, at_a_line = _broken_at(whole, watch, known[name], outcome)
            broken = at_a_line or not known[name].differentiable
            served_by = label(gradient) if connected else DIFFERENCES if broken else UNKNOWN
            rows.append(Connection(name, outcome.name, connected, share, broken_at, served_by))
    return rows


def _watched(
    model: Model, population: Population, steps: int, leaves: Mapping[str, Tensor], options: Mapping[str, Any]
) -> tuple[Watch, list[Cut]]:
    """A run that is listened to, and the writes in place that ended it, if any did."""
    bound = Bound.of(model, options["changes"], leaves)
    at = {id(given): leaf for given, leaf in zip(bound.inputs, bound.leaves, strict=True)}
    watch = Watch({name: at[id(leaf)] for name, leaf in leaves.items() if id(leaf) in at})
    try:
        with watch, bound.standing():
            run = Simulation(model, cut(population), **options)
            for _ in range(steps):
                before = run.carried()
                watch.hand_on(before, run.take_over())
                run.advance()
    except (KindError, RuntimeError) as error:
        # Refused by the run, or by autograd: the last write in place before it is the one.
        if not watch.writes or not any(word in str(error) for word in ("in place", "in-place")):
            raise
        return watch, watch.writes[-1:]
    return watch, []


class _Gradients:
    """Gradients of outcomes in parameters.

    Args:
        written: Writes in place that made them impossible.
    """

    def __init__(self, written: Sequence[Cut]) -> None:
        self.written = list(written)
        self.values: dict[str, float] = {}
        self.found: dict[tuple[str, str], Tensor] = {}

    def take(
        self, observed: Mapping[str, Tensor], wanted: Sequence[Outcome], leaves: Mapping[str, Tensor], watch: Watch
    ) -> None:
        """Walk back from each outcome of a run."""
        for outcome in wanted:
            value = outcome(observed)
            self.values[outcome.name] = value.item()
            if not value.requires_grad:
                continue
            try:
                got = torch.autograd.grad(value, list(leaves.values()), retain_graph=True, allow_unused=True)
            except RuntimeError as error:  # autograd's word for a tensor that it needs and that was written over
                if "inplace" not in str(error) or not watch.writes:
                    raise
                self.written = [write for write in watch.writes if write.parameters] or watch.writes
                return
            self.found |= {(n, outcome.name): g for n, g in zip(leaves, got, strict=True) if g is not None}

    def connects(self, name: str, outcome: Outcome) -> bool:
        """Whether there is one, and it is not 0 throughout."""
        gradient = self.found.get((name, outcome.name))
        return not self.written and gradient is not None and bool((gradient != 0).any())

    def reaches(self, name: str) -> bool:
        """Whether a parameter moves any outcome."""
        return any(bool((g != 0).any()) for (parameter, _), g in self.found.items() if parameter == name)

    def through_time(self, now: _Gradients, name: str, outcome: Outcome) -> float:
        """Share of it that comes through earlier steps, when `now` has what does not."""
        all_of_it = self.found[name, outcome.name]
        direct = now.found.get((name, outcome.name), torch.zeros_like(all_of_it))
        earlier = float((all_of_it - direct).norm())
        return earlier / (earlier + float(direct.norm()))


def _broken_at(found: _Gradients, watch: Watch, parameter: Parameter, outcome: Outcome) -> tuple[str | None, bool]:
    """Where the chain breaks, or what else there is to say; and whether it is a line that breaks it."""
    connected = found.connects(parameter.name, outcome)
    cuts = [c for c in watch.cuts.values() if parameter.name in c.parameters]
    theirs = [c for c in cuts if not c.shipped]
    shown = theirs
    if found.written:
        shown = found.written
    elif connected:
        shown = [c for c in theirs if c.kind not in (COMPARISON, IN_PLACE)]  # the gradient may go another way
    elif not theirs:
        return _quiet(found, cuts, parameter, outcome)
    return _told(shown) or None, bool(shown)


def _quiet(found: _Gradients, shipped: Sequence[Cut], parameter: Parameter, outcome: Outcome) -> tuple[str, bool]:
    """Why nothing gets through although no rule of the modeller's own stops it, and whether a shipped line may."""
    if found.values[outcome.name] == 0:
        return f"nothing to count: {outcome.name} is 0 in this run; audit more agents or steps", False
    told = "no event of this run led from one to the other"
    if not parameter.value.any():
        return f"{told}; the value is 0, where a draw has no likelihood to change", False
    if shipped and not found.reaches(parameter.name):
        return f"{told}, or it stops at {_told(shipped)}", True
    return told, False


def _told(cuts: Sequence[Cut]) -> str:
    return "; ".join(dict.fromkeys(map(str, cuts[:_MOST_CUTS])))
