"""People who stay away from others outside their home: the symptomatic, of themselves or after a positive test.

A rule of these writes a state field of its own, `NAME_outside`: the factor on all contacts outside the home, of what
its agent sends and of what it receives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from gnabm.agents import Agents, Column, StageName
from gnabm.errors import ConfigError
from gnabm.intervention import NEVER, Schedule, When, window
from gnabm.model import State
from gnabm.models.infectiousness import as_rate
from gnabm.neighbours import Neighbours
from gnabm.parameters import Input
from gnabm.rule import Rule, Step

_UNASKED = -1.0
_STRENGTH = Input("share of the contacts outside the home that fall away", high=1.0)
_DAYS = {f"when.{name}": told for name, told in Schedule.inputs.items()}


def share(value: float, key: str) -> nn.Parameter:
    """A share that can be learned.

    Raises:
        ConfigError: It is none.
    """
    if not 0 <= value <= 1:
        raise ConfigError(f"{key} must lie in [0, 1], got {value}; it is a share, so write 0.9 for 90 %")
    return nn.Parameter(torch.tensor(float(value)))


def in_stages(agents: Agents, stages: Sequence[StageName]) -> Tensor:
    """(n,) bool of those in one of some stages; which stage that is has no gradient of its own."""
    codes = agents.stage.codes
    found: Tensor = codes == int(stages[0])
    for stage in stages[1:]:
        found = found | (codes == int(stage))
    return found


class Isolate(Rule):
    """The symptomatic stay away from others while they are symptomatic.

    Who complies is drawn once, when an agent is first symptomatic while the intervention is active.

    Args:
        name: Name of the rule.
        stages: The symptomatic stages.
        compliance: Probability that an agent complies.
        strength: Share of its contacts outside the home that fall away.
        when: When it holds.

    Raises:
        ConfigError: A number is no share.
    """

    inputs: ClassVar[Mapping[str, Input]] = {
        "compliance": Input("probability that somebody symptomatic complies", high=1.0),
        "strength": _STRENGTH,
        **_DAYS,
    }
    reproducibility = "bit"

    def __init__(self, name: str, stages: Sequence[StageName], compliance: float, strength: float, when: When) -> None:
        super().__init__(name)
        self.stages, self.when = tuple(stages), when
        self.compliance, self.strength = share(compliance, f"{name}.compliance"), share(strength, f"{name}.strength")
        self.complies, self.outside = f"{name}_complies", f"{name}_outside"
        self.writes = {self.complies: "sole", self.outside: "sole"}  # type: ignore[misc]

    @property
    def state(self) -> dict[str, State]:
        """The fields that it writes."""
        return {
            self.complies: State(_UNASKED, torch.float32, "1 for those who comply, 0 for the others, -1 before"),
            self.outside: State(1.0, torch.float32, "factor on contacts outside the home"),
        }

    def where(self, agents: Agents) -> Tensor:
        """The symptomatic, and those who were until now."""
        before: Tensor = getattr(agents, self.outside)
        return in_stages(agents, self.stages) | (before != 1)

    def forward(self, agents: Agents, contacts: Neighbours, step: Step) -> Mapping[str, Column]:
        """Ask those who have not been asked, and isolate those who comply."""
        before, sick = getattr(agents, self.complies), in_stages(agents, self.stages)
        asked = sick & (before == _UNASKED) & self.when.reached(agents, step)
        drawn = step.bernoulli(self.compliance, where=asked)
        complies = torch.where(asked, drawn.to(before.dtype), before)
        lost = self.strength * self.when.active(agents, step) * torch.where(sick, complies.clamp(min=0), 0.0)
        return {self.complies: complies, self.outside: (1 - lost).to(before.dtype)}


class Test(Rule):
    """The symptomatic are tested day by day, and isolate when the result is positive.

    Nobody is tested who has a positive result, known or not; a test of somebody who is ill is negative with the
    probability of 1 less the sensitivity, and may be followed by another on the next day.

    Args:
        name: Name of the rule.
        stages: The symptomatic stages.
        probability: Of a test, per day.
        sensitivity: Probability that the test of somebody ill is positive.
        delay: Days from the test to the result, from which on the agent isolates.
        days: How long it does.
        strength: Share of its contacts outside the home that fall away.
        when: When there are tests.

    Raises:
        ConfigError: A number is no share.
        DataError: A number of days is below 0.
    """

    __test__ = False  # not a test of a test runner
    inputs: ClassVar[Mapping[str, Input]] = {
        "probability": Input("probability that somebody symptomatic is tested", "per day", high=1.0),
        "sensitivity": Input("probability that a test of somebody ill is positive", high=1.0),
        "delay": Input("from the test to its result", "days"),
        "days": Input("how long somebody tested positive isolates", "days"),
        "strength": _STRENGTH,
        **_DAYS,
    }
    reproducibility = "bit"

    def __init__(
        self, name: str, stages: Sequence[StageName], probability: float, sensitivity: float, *, delay: float,
        days: float, strength: float, when: When,
    ) -> None:  # fmt: skip
        super().__init__(name)
        self.stages, self.when = tuple(stages), when
        self.probability, self.strength = share(probability, f"{name}.probability"), share(strength, f"{name}.strength")
        self.sensitivity = share(sensitivity, f"{name}.sensitivity")
        self.delay, self.days = as_rate(delay, f"{name}.delay"), as_rate(days, f"{name}.days")
        self.positive, self.since, self.outside = (f"{name}_{part}" for part in ("positive", "since", "outside"))
        self.writes = dict.fromkeys((self.positive, self.since, self.outside), "sole")  # type: ignore[misc]

    @property
    def state(self) -> dict[str, State]:
        """The fields that it writes."""
        return {
            self.positive: State(0.0, torch.float32, "1 for those with a positive test, known or not yet"),
            self.since: State(NEVER, torch.float32, "day of its result", "day"),
            self.outside: State(1.0, torch.float32, "factor on contacts outside the home"),
        }

    def where(self, agents: Agents) -> Tensor:
        """The symptomatic, and those with a positive test."""
        since: Tensor = getattr(agents, self.since)
        return in_stages(agents, self.stages) | (since != NEVER)

    def forward(self, agents: Agents, contacts: Neighbours, step: Step) -> Mapping[str, Column]:
        """Test, and isolate those whose result is there."""
        flag, since, t = getattr(agents, self.positive), getattr(agents, self.since), step.index * step.dt
        over = (since != NEVER) & (t >= since + self.days)
        # The time that ends just now is 0 in value, but not in its slope.
        lost = torch.where(over, flag * window(since, since + self.days, step), 0.0)
        flag = torch.where(over, 0.0, flag)
        since = torch.where(over, NEVER, since)
        due = in_stages(agents, self.stages) & (since == NEVER)
        chance = self._in_step(step.dt) * self.when.active(agents, step, of_chance=True)
        tested = step.bernoulli(chance, where=due, name="test")
        found = step.bernoulli(self.sensitivity, where=tested, name="result")
        flag = flag + torch.where(due, found.to(flag.dtype), 0.0)
        since = torch.where(found != 0, t + self.delay, since)
        lost = self.strength * (lost + flag * window(since, since + self.days, step))
        return {self.positive: flag, self.since: since.to(flag.dtype), self.outside: (1 - lost).to(flag.dtype)}

    def _in_step(self, dt: float) -> Tensor:
        """() probability of a test in a step of dt days."""
        daily = self.probability
        if dt == 1:
            return daily
        # Where a test is certain the logarithm is infinite, and its slope would be NaN.
        certain = daily >= 1
        return torch.where(certain, daily, -torch.expm1(dt * torch.log1p(-torch.where(certain, 0.0, daily))))
