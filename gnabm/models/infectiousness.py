"""What the infected send: infectiousness over the time since infection and by stage; and rates that can be learned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gnabm.agents import Stage, StageName, Stages
from gnabm.errors import DataError
from gnabm.models.durations import gamma_cdf

Floats = NDArray[np.float64]
_TAIL = 1e-9


def as_rate(value: float, name: str) -> nn.Parameter:
    """A number >= 0 that can be learned."""
    number = torch.tensor(float(value))
    if not bool(torch.isfinite(number)) or number < 0:
        raise DataError(f"{name} must be a finite number >= 0, got {value}")
    return nn.Parameter(number)


def as_rates(values: Sequence[float], name: str) -> nn.Parameter:
    """Numbers >= 0 that can be learned."""
    tensor = torch.tensor([float(v) for v in values])
    if tensor.numel() == 0 or not bool((torch.isfinite(tensor) & (tensor >= 0)).all()):
        raise DataError(f"{name} must be a list of finite numbers >= 0, got {list(values)}")
    return nn.Parameter(tensor)


class DailyProfile(nn.Module):
    """Infectiousness by whole days since infection, whatever the length of a step; the last value holds from there on.

    Args:
        values: (num_days,) learned.
    """

    def __init__(self, values: Sequence[float]) -> None:
        super().__init__()
        self.values = as_rates(values, "infectiousness")

    def forward(self, steps: Tensor, dt: float) -> Tensor:
        """Infectiousness (n,) a number of steps (n,) int32 after infection."""
        return self.values.index_select(0, whole_days(steps, dt, self.values.shape[0] - 1))

    def table(self, dt: float) -> Tensor:
        """(K,) infectiousness 0, 1, ... steps after infection; the last value holds from there on."""
        last = self.values.shape[0] - 1
        values: Tensor = self(torch.arange(math.ceil(last / dt) + 2, dtype=torch.int32), dt)
        return values

    def by_steps(self, length: int, dt: float) -> Floats:
        """(length,) infectiousness 1, ..., length steps after infection."""
        with torch.no_grad():  # a table of numbers for the next-generation matrix
            values: Tensor = self(torch.arange(1, length + 1, dtype=torch.int32), dt)
        return np.asarray(values.numpy(), dtype=np.float64)


def whole_days(steps: Tensor, dt: float, last: int) -> Tensor:
    """Whole days within [0, last] in a number of steps (n,) int32."""
    if dt == 1:
        return steps.clamp(0, last)
    # Rounded before the floor: ten steps of 0.7 days are 7 days, though their product is just below.
    days = torch.round(steps.to(torch.float64) * dt, decimals=9).floor()
    return days.clamp(0, last).to(torch.int32)


class GammaProfile(nn.Module):
    r"""Infectiousness as the density of a Gamma distribution, averaged over each step.

    .. math:: g_k = (F(k \, dt) - F((k - 1) \, dt)) / dt

    k steps after infection, per day, so that it adds up to 1 over all days.

    Args:
        mean: Days.
        sd: Days.

    Reference:
        Hinch et al. (2021), PLoS Comput. Biol. 17(7) e1009146, eq. 1.
    """

    def __init__(self, mean: float, sd: float) -> None:
        super().__init__()
        for name, value in (("profile_mean", mean), ("profile_sd", sd)):
            if not (math.isfinite(value) and value > 0):
                raise DataError(f"infectiousness.{name} must be a positive number of days, got {value}")
        self.mean, self.sd = float(mean), float(sd)
        self._tables: dict[float, Tensor] = {}

    def length(self, dt: float) -> int:
        """Steps after which less than 1e-9 of the infectiousness is left."""
        size = 16
        while gamma_cdf(np.array([size * dt]), self.mean, self.sd)[0] < 1 - _TAIL:
            size *= 2
        cdf = gamma_cdf(np.arange(1, size + 1) * dt, self.mean, self.sd)
        return int(np.searchsorted(cdf, 1 - _TAIL)) + 1

    def by_steps(self, length: int, dt: float) -> Floats:
        """(length,) infectiousness 1, ..., length steps after infection, per day."""
        return np.asarray(np.diff(gamma_cdf(np.arange(length + 1) * dt, self.mean, self.sd)) / dt)

    def table(self, dt: float) -> Tensor:
        """(K,) infectiousness 0, 1, ... steps after infection; the last value, 0, holds from there on."""
        if dt not in self._tables:
            values = np.concatenate([[0.0], self.by_steps(self.length(dt), dt), [0.0]])
            self._tables[dt] = torch.from_numpy(values.astype(np.float32))
        return self._tables[dt]

    def forward(self, steps: Tensor, dt: float) -> Tensor:
        """Infectiousness (n,) a number of steps (n,) int32 after infection; 0 for less than one."""
        table = self.table(dt)
        return table.index_select(0, steps.clamp(0, table.shape[0] - 1))


Profile = DailyProfile | GammaProfile


class StageFactors(nn.Module):
    """Infectiousness relative to other stages.

    Args:
        factors: By stage; the other stages send nothing. Learned.
    """

    def __init__(self, factors: Mapping[StageName, float]) -> None:
        super().__init__()
        self.stages = tuple(factors)
        self.factors = as_rates(list(factors.values()), "infectiousness")

    def table(self, family: Stages) -> Tensor:
        """(num_stages,) factor of each stage; differentiable in the factors."""
        codes = torch.tensor([int(s) for s in self.stages])
        return self.factors.new_zeros(len(family)).index_copy(0, codes, self.factors)

    def forward(self, stage: Stage) -> Tensor:
        """Factor (n,) of each agent; differentiable in the factors and in the stages."""
        table = self.table(stage.family)
        if stage.flags is None:
            return table.index_select(0, stage.codes.to(torch.int32))
        result = self.factors.new_zeros(len(stage))
        for name in self.stages:
            result = result + table[int(name)] * stage.is_(name)
        return result
