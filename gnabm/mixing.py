"""The arithmetic of a mixing layer: tables, drawn contacts, and the mean field of the same matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import special
from torch import Tensor

from gnabm.columns import Keys
from gnabm.contacts import Mixing
from gnabm.drawing import Inverse, Messages, Pools, add_in_order, draw_contacts
from gnabm.exchange import ShardGroup, exchange, exchange_columns, total
from gnabm.linear import apply
from gnabm.shard import MixingShard

_TAIL = 1e-12


@dataclass(frozen=True, eq=False)
class MixingTables:
    """What a draw of contacts looks up.

    Args:
        number: By group, the number of contacts in one step.
        partner: By group, the contact's group.
        level_cdf: (3,) of the level: own area, own region, country.
        range_first: (3, num_areas, num_groups) int64 position of a pool's first member within its group.
        range_count: (3, num_areas, num_groups) int64 members of the pool; an empty pool stands for the next level.
        region: (num_areas,) int64.
    """

    number: Inverse
    partner: Inverse
    level_cdf: Tensor
    range_first: Tensor
    range_count: Tensor
    region: Tensor

    @staticmethod
    def of(layer: Mixing, dt: float) -> MixingTables:
        """Tables of a layer for steps of dt days."""
        matrix = np.asarray(layer.matrix, dtype=np.float64)
        mean = matrix.sum(1) * dt
        k = layer.dispersion
        cdf = _number_cdf(mean, k)
        groups = np.cumsum(matrix, 1)
        groups = np.divide(groups, groups[:, -1:], out=np.ones_like(groups), where=groups[:, -1:] > 0)
        first, count, region = _ranges(layer)
        level = np.cumsum(layer.shares)
        level[level >= level[-1]] = 1.0
        pools = (torch.from_numpy(np.ascontiguousarray(a)) for a in (level, first, count, region))
        return MixingTables(Inverse.of(cdf), Inverse.of(groups), *pools)


def _number_cdf(mean: np.ndarray, dispersion: float) -> np.ndarray:
    """Distribution of the number of contacts of each group, up to where the tail is below 1e-12."""
    size = 16
    while True:
        number = np.arange(size)[None, :]
        if np.isinf(dispersion):
            cdf = special.pdtr(number, mean[:, None])
        else:
            cdf = special.betainc(dispersion, number + 1.0, (dispersion / (dispersion + mean))[:, None])
        short = np.flatnonzero((cdf >= 1 - _TAIL).all(0))
        if short.size:
            return np.asarray(cdf[:, : short[0] + 1])
        size *= 2


def _ranges(layer: Mixing) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    counts = np.asarray(layer.counts, dtype=np.int64)
    _, region = np.unique(np.asarray(layer.area_region), return_inverse=True)
    before = np.cumsum(counts, 0) - counts
    start = np.searchsorted(region, np.arange(region[-1] + 1))
    per_region = np.add.reduceat(counts, start, axis=0)
    first = np.stack([before, before[start][region], np.zeros_like(counts)])
    count = np.stack([counts, per_region[region], np.broadcast_to(counts.sum(0), counts.shape)])
    for level in (1, 0):
        empty = count[level] == 0
        first[level][empty], count[level][empty] = first[level + 1][empty], count[level + 1][empty]
    return first, count, region.astype(np.int64)


@dataclass(frozen=True, eq=False)
class Drawn:
    """The contacts that the owned agents received in one step; those of a target in the order of who made them.

    Args:
        target: (num_contacts,) int32 owned row of who received it.
        values: (num_values,) or (num_values, F) what was sent; differentiable in what was sent.
        by: (num_contacts,) int32 which value a contact carries, or None where each has its own.
        keys: (num_values,) int64 key of who sent each value, or None when it was not asked for.
    """

    target: Tensor
    values: Tensor
    by: Tensor | None
    keys: Tensor | None

    @property
    def value(self) -> Tensor:
        """(num_contacts,) or (num_contacts, F) what each contact brings."""
        return self.values if self.by is None else self.values.index_select(0, self.by)

    def summed(self, num_targets: int) -> Tensor:
        """(num_targets,) or (num_targets, F) what each owned agent received, in the order of the contacts."""
        if not torch.is_grad_enabled():
            return add_in_order(self.target, self.values, num_targets, self.by)
        by = torch.arange(self.target.shape[0], dtype=torch.int32) if self.by is None else self.by
        return apply(Messages(self.target, by, num_targets, self.values.shape[0]), self.values)


def drawn_contacts(
    shard: MixingShard,
    tables: MixingTables,
    group: ShardGroup,
    keys: Keys,
    senders: Tensor,
    values: Tensor,
    state: int,
    *,
    name_senders: bool = False,
) -> Drawn:
    """Draw the contacts of a step and bring each to the owner of its target.

    Args:
        shard: Owned part of the layer.
        tables: Tables of the layer.
        group: The shards.
        keys: Keys of the owned agents.
        senders: (num_senders,) int64 owned rows that send something, ascending; all of them in the pull form.
        values: (num_senders,) or (num_senders, F) what they send, of a type of 4 or 8 bytes.
        state: Salt of the layer at this step.
        name_senders: Bring the senders' keys too; in a forward run only.
    """
    pools = Pools(
        shard.area_start, tables.level_cdf.numpy(), tables.range_first.numpy(), tables.range_count.numpy(),
        shard.first.numpy(), shard.members.numpy(), group.rank,
    )  # fmt: skip
    seat, by, number = draw_contacts(state, keys, senders, shard.group, tables.number, tables.partner, pools)
    named = keys.take(senders) if name_senders else None
    if group.size == 1:
        return Drawn(seat, values, by, named)
    # Contacts travel in the order of senders; ranks own ascending rows, so joined by rank they stay in order.
    parts, by_rank = [[s] for s in seat.split(number)], by.split(number)  # type: ignore[no-untyped-call]
    differentiable = torch.is_grad_enabled()
    for columns, some in zip(parts, by_rank, strict=True):
        columns += [x.index_select(0, some) for x in (None if differentiable else values, named) if x is not None]
    got = [torch.cat(column) for column in zip(*exchange_columns(group, parts), strict=True)]
    if differentiable:
        got.insert(1, torch.cat(exchange(group, [values.index_select(0, some) for some in by_rank])))
    return Drawn(shard.members.index_select(0, got[0]), got[1], None, got[2] if name_senders else None)


def expected_sum(shard: MixingShard, tables: MixingTables, group: ShardGroup, x: Tensor) -> Tensor:
    r"""Mean of what `drawn_contacts` brings, over the draws: the mean field of the contact matrix.

    .. math:: h_{q b} = \sum_{a, l, p} X_{p a} C_{a b} s_l [q \in P_l(p, b)] / |P_l(p, b)|

    with X the sum of x in area p and group a, C the matrix, s the shares and P the pool of a level.

    Args:
        shard: Owned part of the layer.
        tables: Tables of the layer.
        group: The shards.
        x: (num_owned,) or (num_owned, F) what each agent sends.

    Returns:
        Like x; differentiable in x.
    """
    if x.dim() > 1:  # each feature as if alone, so that it has the same bits
        columns = [expected_sum(shard, tables, group, column.contiguous()) for column in x.unbind(1)]
        return torch.stack(columns, 1) if columns else torch.zeros_like(x)
    num_areas, num_groups = shard.layer.counts.shape
    code = shard.cells
    sent = total(group, x, code, num_areas * num_groups).reshape(num_areas, num_groups).to(torch.float64)
    matrix = torch.from_numpy(np.asarray(shard.layer.matrix, dtype=np.float64))
    made = torch.zeros_like(sent)
    for a in range(num_groups):  # one order of sums; a matrix product's would vary with threads
        made = made + sent[:, a : a + 1] * matrix[a]
    per_member = made.unsqueeze(0) * torch.tensor(shard.layer.shares, dtype=torch.float64).view(3, 1, 1)
    per_member = per_member / tables.range_count.clamp(min=1)
    # A pool that stands for the next level is filled there, so each part goes to the level whose members it counts.
    region_total = tables.range_count[1]
    country_total = tables.range_count[2]
    own = torch.from_numpy(np.asarray(shard.layer.counts)) > 0
    in_region = _region_counts(shard.layer, tables) > 0
    field = torch.where(own, per_member[0], 0.0)
    up = torch.where(own, 0.0, made * shard.layer.shares[0] / region_total.clamp(min=1))
    regional = torch.where(in_region, per_member[1] + up, 0.0)
    num_regions = int(tables.region[-1]) + 1
    by_region = torch.zeros(num_regions, num_groups, dtype=torch.float64).index_add(0, tables.region, regional)
    share = torch.where(own, 0.0, torch.full_like(made, shard.layer.shares[0])) + shard.layer.shares[1]
    national = torch.where(in_region, 0.0, made * share / country_total.clamp(min=1)) + per_member[2]
    everywhere = torch.zeros(1, num_groups, dtype=torch.float64).index_add(
        0, torch.zeros(num_areas, dtype=torch.int64), national
    )
    field = field + by_region.index_select(0, tables.region) + everywhere
    return field.reshape(-1).index_select(0, code).to(x.dtype)


def _region_counts(layer: Mixing, tables: MixingTables) -> Tensor:
    counts = torch.from_numpy(np.asarray(layer.counts, dtype=np.int64))
    num_regions = int(tables.region[-1]) + 1
    by_region = torch.zeros(num_regions, counts.shape[1], dtype=torch.int64).index_add(0, tables.region, counts)
    return by_region.index_select(0, tables.region)
