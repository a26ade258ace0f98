"""Random numbers that belong to an entity, not to a moment.

Each task of a build makes its own counter-based generator from (seed, stream, entity), so that no task sees
what another has drawn and the result does not depend on the order in which they run.
"""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, stream: str, entity: int = 0) -> np.random.Generator:
    """Philox generator of one entity in one stream.

    Args:
        seed: Seed of the population.
        stream: What is drawn, such as `schools/order`.
        entity: Which region or area it is drawn for.

    Reference:
        Salmon et al. (2011), Parallel random numbers: as easy as 1, 2, 3, SC11.
    """
    name = f"{seed}|{stream}|{entity}".encode()
    key = int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))
