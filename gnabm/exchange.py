"""What shards say to each other: the group interface, the exchange with its adjoint, exact totals.

A shard owns the contiguous rows [first, last) of the population. A `ShardGroup` connects the shards of one run; one
shard alone is `Solo`. The transports stand in the package `cluster`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from gnabm.errors import TotalOverflowError
from gnabm.linear import apply

FIXED_POINT = 2.0**30
"""Steps per unit in the total of a float: resolution 9.3e-10, range 4.3e9."""
_RANGE = 2.0**62
_COARSE = 2.0**40
_TOO_HEAVY = 1 << 30
_PIECE = 1 << 16


class Pending(Protocol):
    """An exchange under way: this shard's parts are handed over, those of the others have not come yet."""

    def wait(self) -> list[Tensor]:
        """What each rank sent here, in the order of ranks; called at most once."""
        ...


@dataclass(frozen=True, eq=False)
class Arrived:
    """An exchange that was over at once.

    Args:
        parts: What each rank sent here.
    """

    parts: list[Tensor]

    def wait(self) -> list[Tensor]:
        """Return the parts."""
        return self.parts


@dataclass
class Traffic:
    """What a shard has said to the others so far.

    Args:
        exchanges: Number of collectives, sums included.
        bytes: Bytes of the messages to other ranks.
        seconds: Wall-clock seconds in which the shard did nothing but wait for others.
    """

    exchanges: int = 0
    bytes: int = 0
    seconds: float = 0.0


@runtime_checkable
class ShardGroup(Protocol):
    """The shards of one run, as one of them sees the others."""

    rank: int
    size: int
    traffic: Traffic

    def start(self, parts: Sequence[Tensor]) -> Pending:
        """Begin to send `parts[r]` to rank r; what each rank sent here comes with `wait`, in the order of ranks.

        Parts may differ in their first dimension; dtype and further dimensions agree over ranks. They are not to be
        changed while the exchange is under way: until `wait` or the next collective. Every rank starts the same
        exchanges in the same order. Each may wait or not: what is not waited for is over, and raises its error, at the
        next collective.
        """
        ...

    def all_to_all(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """The same, waited for."""
        return self.start(parts).wait()

    def all_reduce(self, value: Tensor) -> Tensor:
        """Sum of an int64 tensor over the shards (exact, so without an order)."""
        ...


class Solo(ShardGroup):
    """The group of a run on one shard."""

    rank = 0
    size = 1

    def __init__(self) -> None:
        self.traffic = Traffic()

    def start(self, parts: Sequence[Tensor]) -> Pending:
        """Return the one part."""
        return Arrived(list(parts))

    def all_reduce(self, value: Tensor) -> Tensor:
        """Return the value."""
        return value


@dataclass(frozen=True, eq=False)
class Exchange:
    """A variable-size all-to-all as a linear map of the joined parts.

    Args:
        group: The shards.
        sent: Rows that go to each rank.
        received: Rows that come from each rank.
    """

    group: ShardGroup
    sent: list[int]
    received: list[int]

    @property
    def transposed(self) -> Exchange:
        """The way back."""
        return Exchange(self.group, self.received, self.sent)

    def __call__(self, x: Tensor) -> Tensor:
        """(sum of sent, ...) by receiver to (sum of received, ...) by sender."""
        return torch.cat(self.group.all_to_all(x.split(self.sent)))  # type: ignore[no-untyped-call]


def exchange(group: ShardGroup, parts: Sequence[Tensor]) -> list[Tensor]:
    """Variable-size all-to-all whose adjoint is the same exchange of the gradients, backwards.

    Args:
        group: The shards.
        parts: For each rank a tensor (n_r, ...).

    Returns:
        From each rank a tensor; differentiable in the parts when they are floats.
    """
    received = group.all_to_all([p.detach() for p in parts])  # `apply` below carries the gradient
    if not (torch.is_grad_enabled() and parts[0].is_floating_point()):
        return received
    x = torch.cat(list(parts))
    if not x.requires_grad:
        # Every rank must enter the same collectives in the backward pass, so in a differentiable run every rank
        # records the exchange, whether or not its own parts carry a gradient: the anchor always does.
        x = x + torch.zeros((), dtype=x.dtype, requires_grad=True)
    known, sizes = torch.cat(received), [len(r) for r in received]
    joined = apply(Exchange(group, [len(p) for p in parts], sizes), x, lambda _: known)
    return list(joined.split(sizes))  # type: ignore[no-untyped-call]


def exchange_columns(group: ShardGroup, parts: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """Send several columns of equal length in one message: its latency, not its bytes, is what small messages cost.

    Args:
        group: The shards.
        parts: For each rank columns (n_r,) or (n_r, F), of types of 4 or 8 bytes, the same types to every rank.

    Returns:
        From each rank its columns; without gradient.
    """
    packed = [torch.cat([_words(c) for c in columns], 1) for columns in parts]
    widths = [_words(c).shape[1] for c in parts[0]]
    return [
        [
            as_bits(words, c.dtype).reshape(-1, *c.shape[1:])
            for words, c in zip(message.split(widths, 1), parts[0], strict=True)  # type: ignore[no-untyped-call]
        ]
        for message in group.all_to_all(packed)
    ]


def _words(column: Tensor) -> Tensor:
    words = column.element_size() // 4
    for size in column.shape[1:]:
        words *= size
    return as_bits(column, torch.int32).reshape(column.shape[0], words)


def as_bits(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The memory of a tensor as a flat tensor of another type; without gradient, since bits have none."""
    flat = x.detach().contiguous().reshape(-1)
    offset = flat.storage_offset() * flat.element_size()
    # A single element counts as contiguous with any stride, and a row of a table may begin between two wider elements;
    # neither can be viewed.
    if flat.numel() < 2 or offset % dtype.itemsize:
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(dtype)


@dataclass(frozen=True, eq=False)
class Total:
    """Sums over the rows of all shards by bin, in floats: how gradients and tangents of a total travel.

    Args:
        group: The shards.
        index: (num_rows,) int32 or int64 bin of each row, or None for one bin.
        num_bins: Number of bins.
        num_rows: Number of rows of this shard.
        dtype: Type of the rows.
    """

    group: ShardGroup
    index: Tensor | None
    num_bins: int
    num_rows: int
    dtype: torch.dtype

    @property
    def transposed(self) -> Spread:
        """What each bin gives to its rows."""
        return Spread(self)

    def __call__(self, x: Tensor) -> Tensor:
        """(num_rows, ...) to (num_bins, ...) float64."""
        index = torch.zeros(self.num_rows, dtype=torch.int32) if self.index is None else self.index
        sums = torch.zeros(self.num_bins, *x.shape[1:], dtype=torch.float64)
        return _over_ranks(self.group, sums.index_add_(0, index, x.to(torch.float64)))


@dataclass(frozen=True, eq=False)
class Spread:
    """The transposed map of a total.

    Args:
        transposed: The total.
    """

    transposed: Total

    def __call__(self, x: Tensor) -> Tensor:
        """(num_bins, ...) float64 to (num_rows, ...) of the rows' type: the sum over ranks of what each bin holds."""
        rows = self.transposed
        summed = _over_ranks(rows.group, x).to(rows.dtype)  # the small table, not what is spread over all rows
        if rows.index is None:
            return summed.expand(rows.num_rows, *x.shape[1:])
        return summed.index_select(0, rows.index)


def _over_ranks(group: ShardGroup, x: Tensor) -> Tensor:
    """Sum of a float tensor over the shards, in the order of ranks: the same bits on each."""
    if group.size == 1:
        return x
    first, *others = group.all_to_all([x.contiguous()] * group.size)
    return sum(others, start=first)


def to_fixed(x: Tensor, index: Tensor | None = None, num_bins: int = 1) -> Tensor:
    """Sum rows into bins as int64, in fixed point for floats: adding in any order gives the same number.

    Args:
        x: (n,) bool, integer or float.
        index: (n,) int32 or int64 bin of each row, or None for one bin.
        num_bins: Number of bins.

    Returns:
        (num_bins + 1,) int64: the sums, and last what they weigh in coarse units. The weights of all shards add up
        too, so all of them see alike whether the range was left.
    """
    table = torch.zeros(num_bins + 1, dtype=torch.int64)
    weight = 0.0
    # In pieces that stay in the cache, and are never there as a whole in 8 bytes.
    for at, part in enumerate(torch.split(x.detach(), _PIECE)):  # a table of integers; `Total` carries the gradient
        if x.is_floating_point():
            wide = part.to(torch.float64) * FIXED_POINT
            weight += wide.abs().sum().item()
            fixed = wide.nan_to_num_().round_().to(torch.int64)
        else:
            fixed = part.to(torch.int64)
            weight += fixed.to(torch.float64).abs_().sum().item()
        if index is None:
            table[0] += fixed.sum()
        else:
            table.index_add_(0, index.narrow(0, at * _PIECE, part.shape[0]), fixed)
    weight /= _COARSE
    table[-1] = math.ceil(weight) if weight < _TOO_HEAVY else _TOO_HEAVY  # NaN is too heavy
    return table


def from_fixed(table: Tensor, like: Tensor) -> Tensor:
    """Convert reduced tables of `to_fixed` back: (num_bins,) float64 for floats, int64 otherwise.

    Raises:
        TotalOverflowError: A value is not finite or the sums leave the range.
    """
    unit = FIXED_POINT if like.is_floating_point() else 1.0
    if int(table[-1]) > _RANGE / _COARSE:
        raise TotalOverflowError(
            f"a total exceeds {_RANGE / unit:.3g} in absolute values or is not finite; scale the values down before "
            "they are summed, or look for NaN in the rule"
        )
    return table[:-1].to(torch.float64) / FIXED_POINT if like.is_floating_point() else table[:-1]


def total(group: ShardGroup, x: Tensor, index: Tensor | None = None, num_bins: int = 1) -> Tensor:
    """Sum over all agents of all shards, optionally by bin; the same bits on any number of shards.

    Args:
        group: The shards.
        x: (num_rows,) values of the rows of this shard.
        index: (num_rows,) int32 or int64 bin of each row, or None.
        num_bins: Number of bins.

    Returns:
        () or (num_bins,); int64 for bool and integers, float64 for floats. Differentiable in x: the gradient of a
        row is the sum over shards of the gradients of its total, so a loss that every shard computes alike must
        be counted on one of them.
    """

    def exact(x: Tensor) -> Tensor:
        return from_fixed(group.all_reduce(to_fixed(x, index, num_bins)), x)

    if x.is_floating_point() and torch.is_grad_enabled():
        sums = apply(Total(group, index, num_bins, x.shape[0], x.dtype), x, exact)
    else:
        sums = exact(x)
    return sums[0] if index is None else sums
