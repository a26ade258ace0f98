"""What everyone sends in a phase, exchanged once for all layers and rules."""

from __future__ import annotations

import torch
from torch import Tensor

from gnabm.errors import DataError, ShapeError
from gnabm.linear import carries_gradient
from gnabm.messages import nonzero_rows
from gnabm.mixing import Drawn
from gnabm.shard import Shard


class Sent:
    """One field sent by everyone, exchanged once for all layers and rules of a phase.

    Args:
        shard: The shard.
        x: (num_owned,) or (num_owned, F) float; or None, where rows and values say who sends what.
        push: From the senders, by kernels without gradient; otherwise to every target.
        rows: (num_senders,) int64 owned rows that send something, ascending. In a differentiable run nobody else has a
            gradient either.
        values: (num_senders,) or (num_senders, F) what they send.
    """

    def __init__(
        self, shard: Shard, x: Tensor | None, push: bool, rows: Tensor | None = None, values: Tensor | None = None
    ) -> None:
        self.shard, self.push, self._x = shard, push, x
        self.place_sums: dict[str, Tensor] = {}
        self.row_sums: dict[str, Tensor] = {}  # of layers without places, kept while sums are noted
        self.drawn: dict[str, Drawn] = {}
        # Kept by hand: a cached_property holds one lock per class before Python 3.12, and a shard that waits in an
        # exchange inside one would lock out the other shards of its process.
        self._dense: Tensor | None = None
        self._active: tuple[Tensor, Tensor] | None = None
        self._senders: Tensor | None = None
        self.by_rows = rows is not None
        self._own = None if rows is None or values is None else (rows, values)
        # What crosses the border is under way while what stays within is summed.
        self._pending = shard.halo.start(shard.group, *self.own) if push and shard.group.size > 1 else None

    @staticmethod
    def of(shard: Shard, x: Tensor, push: bool, weights: Tensor | None, senders: Tensor | None) -> Sent:
        """What a rule sends.

        Args:
            shard: The shard.
            x: (num_owned,) or (num_owned, F) bool or number.
            push: From the senders, by kernels without gradient.
            weights: (num_owned,) that x is multiplied by, 1 in value, or None.
            senders: (num_owned,) flags of those who can send something, or None where nothing is known.

        Raises:
            DataError: Somebody sends who is no sender.
            ShapeError: x has not one row per agent.
        """
        if x.shape[:1] != (shard.num_owned,):
            raise ShapeError(
                f"messages are sent by everyone: expected ({shard.num_owned},) values, got {tuple(x.shape)}; in a rule "
                "with `where` send agents.everyone.FIELD"
            )
        value = x if x.is_floating_point() else x.to(torch.float32)
        if weights is None:
            return Sent(shard, value.contiguous(), push)
        some = value.detach() != 0  # who sends is no differentiable question
        if some.dim() > 1:
            some = some.any(1)
        if senders is not None:
            if bool((some & (senders == 0)).any()):
                raise DataError(
                    "an agent sends something but is not among `senders`; flag all who can, or leave it out"
                )
            some = senders != 0
        elif carries_gradient(x):
            return Sent(shard, value * _beside(weights, x), push)
        rows = nonzero_rows(some)
        return Sent(shard, None, False, rows, value.index_select(0, rows) * _beside(weights.index_select(0, rows), x))

    @property
    def x(self) -> Tensor:
        """(num_owned,) or (num_owned, F) what each owned agent sends."""
        if self._x is None:
            rows, values = self.own
            self._x = values.new_zeros(self.shard.num_owned, *values.shape[1:]).index_copy_(0, rows, values)
        return self._x

    @property
    def dim(self) -> int:
        """1, or 2 where several features are sent."""
        return self.own[1].dim() if self._x is None else self._x.dim()

    @property
    def own(self) -> tuple[Tensor, Tensor]:
        """Owned rows that send something, ascending, and their values; all rows in the pull form."""
        if self._own is None:
            x = self.x
            rows = nonzero_rows(x) if self.push else torch.arange(x.shape[0])
            self._own = rows, x.index_select(0, rows) if self.push else x
        return self._own

    @property
    def dense(self) -> Tensor:
        """(num_sources, ...) values of all sources."""
        if self._dense is None:
            if self._pending is None:
                self._dense = self.shard.halo.dense(self.shard.group, self.x)
            else:
                sources, values = self.active
                self._dense = torch.zeros(self.shard.num_sources, dtype=values.dtype)
                self._dense.index_copy_(0, sources, values)
        return self._dense

    @property
    def differentiable(self) -> tuple[Tensor | None, Tensor]:
        """Sources that can have a gradient, ascending, or None for all of them; and their values."""
        if not self.by_rows:
            return None, self.dense
        if not self.shard.halo.crosses:
            return self.own
        if self._senders is None:
            flags = torch.zeros(self.shard.num_owned).index_fill_(0, self.own[0], 1.0)
            with torch.no_grad():  # a value of 0 may have a gradient, so who sends is said apart
                self._senders = nonzero_rows(self.shard.halo.dense(self.shard.group, flags))
        return self._senders, self.dense.index_select(0, self._senders)

    @property
    def active(self) -> tuple[Tensor, Tensor]:
        """Sources that send something, ascending, and their values."""
        if self._active is None:
            self._active = self.own if self._pending is None else self._pending.wait()
        return self._active


def _beside(weights: Tensor, x: Tensor) -> Tensor:
    """Weights (n,) that x (n,) or (n, F) can be multiplied by."""
    return weights if x.dim() == 1 else weights.unsqueeze(1)
