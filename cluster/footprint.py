"""Bytes of a shard: the arrays that it holds, what reading them takes besides, and what a step takes besides.

Counted array by array, as `gnabm.shard` cuts them and the kernels of a forward run with `messages="auto"` use them.
Constants are measured by `python -m benchmarks.memory`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from cluster.halo import Traffic
from cluster.sizes import is_undirected
from gnabm.agents import Stages
from gnabm.columns import coded
from gnabm.contacts import Edges, Layer, Mixing, Places
from gnabm.model import Model
from gnabm.models.infection import InfectByAge
from gnabm.population import Population
from gnabm.trajectory import TIME_CHUNK

ACTIVE_SHARE = 0.17
"""Share of the agents that send something at the peak of a strong epidemic."""
ACTIVE_BYTES = 60
"""Bytes per agent that sends, besides its contacts: rows and values of those who send, change stage or may be infected,
as they are found and side by side."""
CONTACT_BYTES = 8
"""Bytes per drawn contact: receiver and sender."""
TRAVEL_BYTES = 36
"""The same where there are other shards: sorted by owner, with its value, sent and received."""
SCAN_BYTES = 6
"""Bytes per row for the lists of a scan: as long as the shard, of which some pages are ever written."""
PLAIN_BYTES = 50
"""Bytes per row of a rule without a kernel of its own, in plain torch."""
PLAIN_INFECTION_BYTES = 100
"""The same for `InfectByAge`, besides 4 for each layer, whose weights differ by row."""
TRACED_BYTES = 24
"""Bytes per row of a run that records infections: records of the steps not yet written."""
LEFT_OVER = 0.4
"""Share of what reading took that the allocator keeps and a step finds no use for."""
_ROWS_PER_COUNT = 1 << 24
_SAMPLE = 1 << 20
_LEAST_BATCH = 1 << 22


@dataclass(frozen=True)
class Footprint:
    """Bytes of a shard, without those of its process.

    Args:
        layers: Layers, columns and border: what is there once the shard is cut.
        reading: Besides, while it is cut.
        state: State and recorded steps.
        step: Besides, in a step at the peak of an epidemic.
    """

    layers: int
    reading: int
    state: int
    step: int

    @property
    def held(self) -> int:
        """All through the run."""
        return self.layers + self.state

    @property
    def peak(self) -> int:
        """At the most."""
        return self.layers + max(self.reading, self.state + self.step + int(LEFT_OVER * self.reading))


def footprint(
    population: Population,
    model: Model,
    traffic: Mapping[str, Traffic],
    rank: int,
    rows: int,
    border: int,
    drawn: float,
    record: Sequence[str],
    infections: bool,
) -> Footprint:
    """Count the bytes of one shard.

    Args:
        population: In memory or on disk.
        model: The model.
        traffic: What the shards hold and need of each layer (`cluster.halo.measure`).
        rank: The shard.
        rows: Rows that it owns.
        border: Rows that it reads from others.
        drawn: Contacts that its agents draw in a day.
        record: Recorded fields.
        infections: Whether who infected whom is recorded.
    """
    used = names_in_code(model) | {name for o in model.observe for name in o.by}
    columns = sum(
        8 if name == "key" else array.dtype.itemsize
        for name, array in population.columns.items()
        if name == "key" or name in used
    )
    parts = [_layer(layer, traffic.get(name), rank, rows, border) for name, layer in population.contacts.layers.items()]
    reading = sum(part.raw for part in parts) + max((part.reading for part in parts), default=0)
    if border:
        reading += 8 * (rows + border)  # which row each source is
    state = sum(item_size(kind) for kind in model.state.values())
    buffered = TIME_CHUNK * sum(item_size(model.state[name]) for name in record)
    stages = sum(isinstance(kind, Stages) for kind in model.state.values())  # as they were before the step
    traced = TRACED_BYTES * infections
    contact = TRAVEL_BYTES if border else CONTACT_BYTES
    active = ACTIVE_SHARE * (ACTIVE_BYTES * (rows + border) + contact * drawn)
    plain = _plain(model, len(parts))
    kernels = SCAN_BYTES * rows + active + max((part.batch for part in parts), default=0)
    return Footprint(
        columns * rows + 8 * border + sum(part.kept for part in parts),
        reading,
        (state + buffered) * rows,
        int(stages * rows + sum(part.step for part in parts) + max(kernels, plain * rows) + traced * rows),
    )


def _plain(model: Model, layers: int) -> int:
    """Bytes per row that the greatest of the rules without a kernel takes, in a run of so many layers."""
    without = [rule for rule in (*model.initial, *model.rules()) if not rule.has_kernel]
    if any(isinstance(rule, InfectByAge) for rule in without):
        return PLAIN_INFECTION_BYTES + 4 * layers
    return PLAIN_BYTES if without else 0


@dataclass(frozen=True)
class _Part:
    """Bytes of a layer.

    Args:
        kept: All through the run.
        raw: Besides, as it was read, until all layers are cut.
        reading: Besides, while it is cut.
        step: Besides, while a step reads it.
        batch: Besides, while messages are dealt into bins; of one layer at a time.
    """

    kept: int
    raw: int
    reading: int
    step: int
    batch: int = 0


def _layer(layer: Layer, traffic: Traffic | None, rank: int, rows: int, border: int) -> _Part:
    sources = rows + border
    if isinstance(layer, Mixing):
        return _Part(5 * rows, 0, 8 * rows, 4 * rows)
    assert traffic is not None
    messages, places = int(traffic.held[rank]), int(traffic.places[rank])
    if isinstance(layer, Edges):
        one = 4 + (4 if layer.weight is not None else 0)
        kept = one * messages + 8 * (rows + 1)
        if border:  # by source too, apart from the edges that wait for others
            kept += one * messages + 4 * (rows + 1 + sources + 1)
        elif not is_undirected(layer):
            kept += one * messages + 4 * (sources + 1)
        return _Part(kept, 4 * messages if border else 0, 8 * (rows + 1), 4 * rows, _batch(rows, messages))
    weight = 4 * places if layer.contacts is not None else 0
    activity = 0 if layer.activity is None else _code_size(layer) * sources
    if border:
        raw, reading = 4 * (rows + messages) + 8 * places, 8 * messages
    else:
        raw, reading = 0, 12 * min(rows, _ROWS_PER_COUNT) + 40 * places if weight else 0
    return _Part(4 * sources + weight + activity, raw, reading, 4 * places + weight, _batch(places, messages))


def _batch(targets: int, messages: int) -> int:
    """Bytes of the messages that are dealt into bins at once."""
    return 8 * min(max(_LEAST_BATCH, targets // 8), int(ACTIVE_SHARE * messages))


def _code_size(layer: Places) -> int:
    """Bytes of the code of an agent's activity, by its first agents."""
    assert layer.activity is not None
    code, _ = coded(layer.activity, 0, min(int(layer.activity.shape[0]), _SAMPLE))
    return code.element_size()


def item_size(kind: Any) -> int:  # noqa: ANN401
    """Bytes per agent of a state field."""
    return 1 if isinstance(kind, Stages) else int(kind.dtype.itemsize)


def names_in_code(model: Model) -> set[str]:
    """Names in the code of the modules where the rules stand: a column of another name is never read."""
    modules = {kind.__module__ for rule in model.rules() for kind in type(rule).__mro__}
    found: set[str] = set()
    for name in modules - {"builtins"}:
        if not name.startswith("torch."):
            for value in vars(sys.modules[name]).values():
                found.update(_in_code(value))
    return found


def _in_code(value: Any, within: tuple[type, ...] = ()) -> Iterator[str]:  # noqa: ANN401
    if isinstance(value, type):
        for part in vars(value).values():
            # An autograd function and its backward name each other.
            if not any(part is outer for outer in within):
                yield from _in_code(part, (*within, value))
    elif isinstance(value, property):
        yield from _in_code(value.fget)
    elif isinstance(value, (staticmethod, classmethod)):
        yield from _in_code(value.__func__)
    elif isinstance(value, FunctionType):
        yield from _in_code(value.__code__)
    elif isinstance(value, CodeType):
        yield from value.co_names
        for constant in value.co_consts:
            if isinstance(constant, str):
                yield constant
            else:
                yield from _in_code(constant)
