"""About how long a step takes: what it does, times what that was measured to cost. A rough figure.

Core time was measured on one thread of a server of 2023 (2.x GHz, AVX-512, 2 MiB of cache per core), `sir` on edges and
`seir` and `covid` on New Zealand's layers, five million agents each: 3.4 and 13 ns per agent in the quiet, 137 and 185
ns more per agent that sends. Threads are taken to share it evenly.
"""

from __future__ import annotations

from dataclasses import dataclass

ROW_SECONDS = 3.4e-9
"""Core time per agent: stages and times are walked, moves are counted."""
LAYER_SECONDS = 1.6e-9
"""Core time per agent and layer: what it receives is read."""
ACTIVE_SECONDS = 30e-9
"""Core time per agent that sends: listed, and what its coming and going costs."""
LINK_SECONDS = 10e-9
"""Core time per edge or membership of an agent that sends."""
DRAW_SECONDS = 25e-9
"""Core time per contact that is drawn, and added up."""
EXCHANGE_SECONDS = 1e-3
"""Per exchange between shards: latency, and waiting for the slowest. A step makes about three."""
BANDWIDTH = 1e9
"""Bytes per second between shards."""
_EXCHANGES = 3
BUSY_SHARE = 0.1
"""Share of the agents that send in a step that is called busy."""


@dataclass(frozen=True)
class Load:
    """What the largest shard has to do.

    Args:
        rows: Agents.
        layers: Number of layers.
        links: Edges and memberships per agent, over all layers.
        drawn: Contacts drawn per agent and day, over all layers.
        border: Bytes that arrive in a step if everyone sends.
        shards: Number of shards.
    """

    rows: int
    layers: int
    links: float
    drawn: float
    border: int
    shards: int

    def seconds(self, share: float, threads: int) -> float:
        """Seconds of a step.

        Args:
            share: Share of the agents that send.
            threads: Threads of the shard.
        """
        quiet = ROW_SECONDS + LAYER_SECONDS * self.layers
        sending = share * (ACTIVE_SECONDS + self.links * LINK_SECONDS + self.drawn * DRAW_SECONDS)
        between = (_EXCHANGES * EXCHANGE_SECONDS + share * self.border / BANDWIDTH) if self.shards > 1 else 0.0
        return self.rows * (quiet + sending) / threads + between
