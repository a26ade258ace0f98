"""Linear maps between agents, and the one autograd function that all of them share.

Sums over neighbours, exchanges between shards and totals are linear in what agents send. Each is a `LinearMap`: it acts
on plain tensors and knows its transposed map. `apply` makes it differentiable: in reverse mode a gradient goes through
the transposed map, in forward mode a tangent through the map itself, and a batch of either is one more dimension of
features, so that the graph is walked once for all of them.

A batch of gradients is taken by `gradients`, which is `torch.vmap` over `torch.autograd.grad`. (Its own
`is_grads_batched=True` is another mechanism, which does not ask a function how it is to be batched.)

Maps take `(n,)` or `(n, F)` floats. Each column is summed as if alone, in the order of the forward kernels, so that a
value has the same bits in every mode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from gnabm.messages import gather_sum, nonzero_rows, push_edges, push_places, read_places

MOST_SENDERS = 0.45
"""Share of the rows that send from which on walking the targets is quicker; measured."""

Rows = tuple[Tensor, Tensor, Tensor | None]
"""Edges by row: indptr (num_rows + 1,), other end (num_edges,) int32 ascending within a row, weight or None."""

Value = Callable[[Tensor], Tensor]
"""A value computed from a plain tensor."""


class LinearMap(Protocol):
    """A linear map of plain tensors, without gradient of its own."""

    def __call__(self, x: Tensor) -> Tensor:
        """Map (n,) or (n, F) float to (m,) or (m, F)."""
        ...

    @property
    def transposed(self) -> LinearMap:
        """The map of the transposed matrix, from m to n."""
        ...


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(linear: LinearMap, x: Tensor, value: Value | None) -> Tensor:
        # Detached: the gradients and tangents are those that the methods below define.
        return (value or linear)(x.detach())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401
        ctx.linear, ctx.dtype = inputs[0], inputs[1].dtype

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:  # noqa: ANN401
        return None, apply(ctx.linear.transposed, grads[0]).to(ctx.dtype), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:  # noqa: ANN401
        return apply(ctx.linear, tangents[1])

    @staticmethod
    def vmap(
        info: Any,  # noqa: ANN401
        in_dims: tuple[Any, ...], linear: LinearMap, x: Tensor, value: Value | None
    ) -> tuple[Tensor, int]:  # fmt: skip
        moved = x.movedim(in_dims[1], -1)
        flat = apply(linear, moved.flatten(1).contiguous())
        return flat.reshape(flat.shape[0], *moved.shape[1:]), moved.dim() - 1


def apply(linear: LinearMap, x: Tensor, value: Value | None = None) -> Tensor:
    r"""Value of a linear map, :math:`y = L x`, with its gradient :math:`L^T \bar y` and its tangent :math:`L \dot x`.

    Args:
        linear: The map L.
        x: (n,) or (n, F) float.
        value: How the value is made where it is more than L x, such as exactly rounded; None for L x.

    Returns:
        (m,) or (m, F); differentiable in x in reverse mode, also under `torch.vmap`, and in forward mode.
    """
    result: Tensor = _Apply.apply(linear, x, value)  # type: ignore[no-untyped-call]
    return result


def carries_gradient(x: Tensor) -> bool:
    """Whether a tensor is part of a graph of reverse mode, or has a tangent in forward mode."""
    return x.requires_grad or unpack_dual(x).tangent is not None  # type: ignore[no-untyped-call]


def gradients(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    cotangents: Sequence[Tensor],
    *,
    batched: bool = False,
    retain_graph: bool = False,
) -> list[Tensor | None]:
    """Gradients of the sum of outputs times cotangents.

    Args:
        outputs: Tensors with a graph.
        inputs: Tensors to differentiate in.
        cotangents: Of the shapes of the outputs; when batched with one more dimension (batch, ...) before these.
        batched: Walk the graph once for a batch of cotangents.
        retain_graph: Keep the graph to be walked again.

    Returns:
        For each input its gradient, (batch, ...) when batched; None where no output depends on it.
    """

    def back(*each: Tensor) -> dict[int, Tensor]:
        got = torch.autograd.grad(outputs, inputs, each, retain_graph, allow_unused=True)
        return {at: gradient for at, gradient in enumerate(got) if gradient is not None}

    found: dict[int, Tensor] = torch.vmap(back)(*cotangents) if batched else back(*cotangents)
    return [found.get(at) for at in range(len(inputs))]


def _spread(x: Tensor, rows: Tensor | None, num_rows: int) -> Tensor:
    """(num_rows, ...) values of all rows, 0 where none was given."""
    if rows is None:
        return x.contiguous()
    return x.new_zeros(num_rows, *x.shape[1:]).index_copy_(0, rows, x)


@dataclass(frozen=True, eq=False)
class EdgeSums:
    r"""Weighted sums along edges, :math:`y_i = \sum_{j \to i} w_{ji} x_j`, between all rows or some of them.

    Args:
        into: Edges by target; its other end is the source.
        out: The same edges by source.
        sources: (num_senders,) int64 the sources that x has values of, ascending; None for all.
        targets: (num_asked,) int64 the targets whose sums are asked for, ascending; None for all.
    """

    into: Rows
    out: Rows
    sources: Tensor | None = None
    targets: Tensor | None = None

    @property
    def transposed(self) -> EdgeSums:
        """From targets to sources, along the same edges."""
        return EdgeSums(self.out, self.into, self.targets, self.sources)

    def __call__(self, x: Tensor) -> Tensor:
        """Sums by the quicker of two kernels with the same bits: from those who send, or at those who are asked for."""
        num_sources, num_targets = self.out[0].shape[0] - 1, self.into[0].shape[0] - 1
        if x.dim() == 1:
            at = nonzero_rows(x)
            asked = num_targets if self.targets is None else self.targets.shape[0]
            if at.shape[0] * num_targets < MOST_SENDERS * num_sources * asked:
                senders = at if self.sources is None else self.sources.index_select(0, at)
                sums = push_edges(senders, x.index_select(0, at), *self.out, num_targets)
                return sums if self.targets is None else sums.index_select(0, self.targets)
        return gather_sum(_spread(x, self.sources, num_sources), *self.into, rows=self.targets)


@dataclass(frozen=True, eq=False)
class PlaceSums:
    r"""What members of a place receive from each other, :math:`y_i = a_i w_p (\sum_{j \in p} a_j x_j - a_i x_i)`.

    The matrix is symmetric; between some of the sources it is a part of it.

    Args:
        place: (num_sources,) int32 place of each source, -1 for none.
        num_places: Number of places.
        weight: (num_places,) contacts per day with each co-member, or None for 1.
        activity: (num_sources,) float a, or None for 1.
        sources: (num_senders,) int64 the sources that x has values of, ascending; None for all.
        targets: (num_asked,) int64 the sources whose sums are asked for; None for all.
    """

    place: Tensor
    num_places: int
    weight: Tensor | None
    activity: Tensor | None
    sources: Tensor | None = None
    targets: Tensor | None = None

    @property
    def transposed(self) -> PlaceSums:
        """The same between the same agents, backwards."""
        return PlaceSums(self.place, self.num_places, self.weight, self.activity, self.targets, self.sources)

    def __call__(self, x: Tensor) -> Tensor:
        """One sum per place, from those who send; then each who is asked for reads its place's less its own part."""
        if x.dim() == 1:
            return self._column(x.contiguous())
        out = x.new_empty((self.place if self.targets is None else self.targets).shape[0], x.shape[1])
        for f in range(x.shape[1]):
            out[:, f] = self._column(x[:, f].contiguous())
        return out

    def _column(self, x: Tensor) -> Tensor:
        active = nonzero_rows(x) if self.sources is None else self.sources
        value = x.index_select(0, active) if self.sources is None else x
        if self.activity is not None:
            value = value * self.activity.index_select(0, active).to(x.dtype)
        sums = push_places(active, value, self.place, self.num_places)
        own = _spread(x, self.sources, self.place.shape[0])
        return read_places(sums, own, self.place, self.weight, self.targets, self.activity)
