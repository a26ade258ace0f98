r"""When an intervention is active: on given days, or once an observable has crossed a threshold.

Both are relaxed between two days, so that days may be fractions and have a gradient. In a step of length :math:`h` that
begins on day t an intervention that holds from day s to day e has the activity

.. math:: a(t) = \max(0, \mathrm{clamp}((t + h - s) / h, 0, 1) + \mathrm{clamp}((e - t) / h, 0, 1) - 1),

the share of the step that lies between the two: with a start of 30.4 it is active at 0.6 on day 30. The plain run uses
the same definition, so value and gradient belong together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from gnabm.agents import Agents, Column
from gnabm.errors import ConfigError, UnknownFieldError, nearest
from gnabm.neighbours import Neighbours
from gnabm.parameters import Input
from gnabm.rule import Rule, Step

NEVER = 1e9
"""Day of what has not happened; finite, so that nothing made of it is NaN."""
PEOPLE = 100_000
"""Residents that relative numbers refer to."""
_DAY = Input("day since the start of the run", "day")


class _Ramp(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, below: float, above: float) -> Tensor:
        return x.clamp(0.0, 1.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float], output: Tensor) -> None:  # noqa: ANN401
        x, ctx.below, ctx.above = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (x,) = ctx.saved_tensors
        return grads[0] * _slope(x, ctx.below, ctx.above), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:  # noqa: ANN401
        assert tangents[0] is not None
        (x,) = ctx.saved_tensors
        return tangents[0] * _slope(x, ctx.below, ctx.above)


def _slope(x: Tensor, below: float, above: float) -> Tensor:
    inside = ((x > 0) & (x < 1)).to(x.dtype)
    return inside + below * (x == 0).to(x.dtype) + above * (x == 1).to(x.dtype)


def ramp(x: Tensor, *, of_chance: bool = False) -> Tensor:
    """Keep x within [0, 1], with a slope at the bounds too, where a whole number of days lies.

    Args:
        x: Any shape.
        of_chance: Whether the result multiplies a probability. Its slope is then that from within, 0 at 0 and 1 at 1:
            an event that cannot happen has no likelihood. Otherwise it is the mean of both sides, 1/2 at either bound,
            as a central difference is.

    Returns:
        The same shape; slope 1 inside, 0 outside.
    """
    below, above = (0.0, 1.0) if of_chance else (0.5, 0.5)
    result: Tensor = _Ramp.apply(x, below, above)  # type: ignore[no-untyped-call]
    return result


def window(start: Tensor, end: Tensor | None, step: Step, *, of_chance: bool = False) -> Tensor:
    """Activity within a step of what holds from one day to another.

    Args:
        start: Day, any shape.
        end: Day, or None for no end.
        step: Gives the time.
        of_chance: As in `ramp`.

    Returns:
        The shape of start; differentiable in both.
    """
    t, h = step.index * step.dt, step.dt
    active = ramp((t + h - start) / h, of_chance=of_chance)
    return active if end is None else (active + ramp((end - t) / h, of_chance=of_chance) - 1).clamp(min=0.0)


class Schedule(nn.Module):
    """From one day to another.

    Args:
        start: First day, a fraction allowed.
        end: Day on which it is over, or None for no end.
        key: Where a config says so, for messages.

    Raises:
        ConfigError: It ends before it begins.
    """

    inputs: ClassVar[Mapping[str, Input]] = {"start": _DAY, "end": _DAY}
    by_region: ClassVar[bool] = False
    """Whether it differs by region."""

    def __init__(self, start: float, end: float | None = None, key: str = "an intervention") -> None:
        super().__init__()
        for name, day in (("start", start), ("end", end)):
            if day is not None and not (math.isfinite(day) and day >= 0):
                raise ConfigError(f"{key}.{name}: expected a day >= 0 since the start of the run, got {day}")
        if end is not None and end < start:
            raise ConfigError(f"{key}: ends on day {end:g}, before it begins on day {start:g}; exchange the two")
        self.start = nn.Parameter(torch.tensor(float(start)))
        self.end = None if end is None else nn.Parameter(torch.tensor(float(end)))

    def active(self, agents: Agents, step: Step, *, of_chance: bool = False) -> Tensor:
        """() activity in the step; differentiable in start and end."""
        return window(self.start, self.end, step, of_chance=of_chance)

    def reached(self, agents: Agents, step: Step) -> Tensor:
        """() bool: whether it is active, or would be if its days moved a little."""
        t = step.index * step.dt
        begun = t + step.dt >= self.start
        return begun if self.end is None else begun & (t <= self.end)


class Triggered(nn.Module):
    """While a rule `Watch` says so.

    Args:
        column: State field that holds the activity.
        by_region: Whether it differs by region.
    """

    def __init__(self, column: str, *, by_region: bool) -> None:
        super().__init__()
        self.column, self.by_region = column, by_region

    def active(self, agents: Agents, step: Step, *, of_chance: bool = False) -> Tensor:
        """() activity in the step, or (num_rows,) by region; differentiable in what `Watch` is differentiable in."""
        if self.by_region:
            found: Tensor = getattr(agents, self.column)
            return found
        column = agents.columns[self.column]
        assert isinstance(column, Tensor)
        return column[0]  # the same for everybody, and no shard is without agents

    def reached(self, agents: Agents, step: Step) -> Tensor:
        """Bool of the same shape: whether it is active."""
        return self.active(agents, step) > 0


When = Schedule | Triggered
"""When an intervention is active."""


class Watch(Rule):
    r"""Start an intervention when an observable crosses a threshold from below.

    Between two days the observable is taken to be a straight line: with y at the ends of two steps it crosses c at

    .. math:: t - h + h (c - y_{t-h}) / (y_t - y_{t-h}),

    and some days later, for there is no acting on what is over, the intervention begins. It lasts a given time, is
    prolonged at once by the same time if the observable is above the threshold when it ends, and begins again at a
    later crossing. Where the observable goes up and down around the threshold the day of the crossing jumps, which has
    no gradient.

    Three fields of state, named after the rule: `NAME_level`, yesterday's value; `NAME_start`; and `NAME_active`, the
    activity. They are the same for all agents, or for all of a region.

    Args:
        name: Name of the rule.
        observable: Name of an observable that counts agents, not one of stages.
        above: c, in agents, or per 100,000 residents of the country or region.
        days: How long the intervention lasts.
        delay: Days from the crossing to the start, 1 at least and no less than a step.
        relative: Whether c is per 100,000 residents.
        by_region: Whether each region has a trigger of its own.
        key: Where a config says so, for messages.

    Raises:
        ConfigError: A number is out of range.
    """

    inputs: ClassVar[Mapping[str, Input]] = {
        "above": Input("threshold of the trigger", "agents, or per 100,000 residents"),
        "days": Input("how long the intervention lasts", "days"),
        "delay": Input("from the crossing to the start", "days", low=1.0),
    }
    reproducibility = "bit"

    def __init__(
        self,
        name: str,
        observable: str,
        above: float,
        days: float,
        *,
        delay: float = 1.0,
        relative: bool = False,
        by_region: bool = False,
        key: str = "when",
    ) -> None:
        super().__init__(name)
        for field, value, low in (("above", above, 0.0), ("days", days, 0.0), ("delay", delay, 1.0)):
            if not (math.isfinite(value) and value >= low):
                raise ConfigError(f"{key}.{field}: expected a number >= {low:g}, got {value}")
        self.observable, self.relative, self.by_region, self.key = observable, relative, by_region, key
        self.above = nn.Parameter(torch.tensor(float(above)))
        self.days = nn.Parameter(torch.tensor(float(days)))
        self.delay = nn.Parameter(torch.tensor(float(delay)))
        self.level, self.start, self.active = (f"{name}_{part}" for part in ("level", "start", "active"))
        self.writes = dict.fromkeys((self.level, self.start, self.active), "sole")  # type: ignore[misc]

    def forward(self, agents: Agents, contacts: Neighbours, step: Step) -> Mapping[str, Column]:
        """Note the level and whether it has crossed."""
        t, h = step.index * step.dt, step.dt
        if bool(self.delay < h):
            raise ConfigError(
                f"{self.key}.delay: {self.delay.item():g} days after a crossing may be over when a step of {h:g} days "
                f"begins; give delay: {h:g} or more, or shorter steps"
            )
        level = self._level(agents, step)
        # One number for each trigger, read where one agent keeps it, and shown to all at the end.
        region = agents.region if self.by_region else None
        someone = one_of_each(region, level.shape[0])
        before, started = (getattr(agents, name).index_select(0, someone) for name in (self.level, self.start))
        now = level.to(before.dtype)
        rising = (now > self.above) & (before <= self.above)
        rise = torch.where(rising, now - before, torch.ones_like(now))
        crossed = t - h + h * torch.where(rising, (self.above - before) / rise, torch.zeros_like(now))
        ended = started + self.days
        begins = (now > self.above) & (t + h > ended)
        start = torch.where(begins, torch.where(ended >= t, ended, crossed + self.delay), started)
        active = window(start, start + self.days, step)
        # What is left of the time before belongs to this step too.
        active = active + torch.where(begins, window(started, ended, step), torch.zeros_like(active))
        found = {self.level: now, self.start: start, self.active: active.clamp(max=1.0)}
        shown = {name: value.to(before.dtype) for name, value in found.items()}
        if region is None:
            return {name: value.expand(agents.num_agents) for name, value in shown.items()}
        return {name: value.index_select(0, region.to(torch.int32)) for name, value in shown.items()}

    def _level(self, agents: Agents, step: Step) -> Tensor:
        """(1,) float64 level, or (num_regions,)."""
        level = self._by_region(step).to(torch.float64)
        level = level.reshape(level.shape[0] if self.by_region else 1, -1).sum(1)
        if self.relative:
            level = level * PEOPLE / residents(agents, step, agents.region if self.by_region else None, level.shape[0])
        return level

    def _by_region(self, step: Step) -> Tensor:
        """The observable at the end of the step before, (num_regions, ...) if it is by region."""
        if self.observable not in step.observed:
            raise UnknownFieldError(
                f"{self.key}.observable: {self.observable} is none of the model's; "
                f"{nearest(self.observable, step.observed)}"
            )
        return step.observed[self.observable]


def one_of_each(index: Tensor | None, number: int) -> Tensor:
    """(number,) int64 row of some agent in each bin, 0 where there is none.

    Args:
        index: (num_agents,) integer bin of each, at least one; or None for one bin.
        number: Number of bins.
    """
    rows = np.zeros(number, dtype=np.int64)
    if index is not None:
        rows[index.numpy()] = np.arange(index.shape[0])
    return torch.from_numpy(rows)


def residents(agents: Agents, step: Step, index: Tensor | None = None, number: int = 1) -> Tensor:
    """How many there are, (number,) float64; 1 where nobody is, to divide by.

    Args:
        agents: Everyone.
        step: Counts over all shards.
        index: (num_agents,) integer bin of each, or None for one.
        number: Number of bins.
    """
    here = torch.tensor([agents.num_agents]) if index is None else torch.bincount(index, minlength=number)
    return step.group.all_reduce(here).clamp(min=1).to(torch.float64)
