"""Population: agents and their contacts, in memory or on disk, cut into blocks of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnabm.agents import Field
from gnabm.contacts import Array, Contacts
from gnabm.errors import DataError, ShapeError


@dataclass(frozen=True, eq=False)
class Population:
    """Agents and contacts.

    Args:
        num_agents: Number of agents.
        columns: Attribute columns, each (num_agents,); `key` (int64) may be absent when the row is the identity.
        fields: What the columns mean; a column with categories can group observables.
        contacts: The contact graph.
        block: Rows per block; a shard is a run of whole blocks.
        attributes: Provenance: tables, config, as the store holds them.
    """

    num_agents: int
    columns: Mapping[str, Array]
    contacts: Contacts
    fields: Mapping[str, Field] = field(default_factory=dict)
    block: int = 1
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that every column has a row per agent; keys of a store are trusted, its builder made them distinct."""
        if self.num_agents < 1:
            raise DataError(f"a population needs at least one agent, got {self.num_agents}")
        if self.contacts.num_agents != self.num_agents:
            raise ShapeError(f"contacts have {self.contacts.num_agents} agents, the population {self.num_agents}")
        for name, column in self.columns.items():
            if column.shape[0] != self.num_agents:
                raise ShapeError(f"column {name!r} has {column.shape[0]} rows for {self.num_agents} agents")
        if "key" in self.columns:
            key = self.columns["key"]
            if np.dtype(key.dtype).kind not in "iu" or (isinstance(key, np.ndarray) and not _distinct(key)):
                raise DataError(
                    "column 'key' must hold a different integer for each agent; drop or renumber the repeats, or leave "
                    "the column out to take row numbers"
                )

    @staticmethod
    def of(population: Population | Contacts) -> Population:
        """A population; bare contacts become one without attributes."""
        if isinstance(population, Population):
            return population
        return Population(population.num_agents, {}, population)

    def categories(self, name: str) -> tuple[str, ...] | None:
        """Names of the codes of a column, or None when there is no such labelled column."""
        if name not in self.columns or name not in self.fields:
            return None
        return self.fields[name].categories


def _distinct(key: NDArray[np.integer[Any]]) -> bool:
    return bool((key[1:] > key[:-1]).all()) or np.unique(key).size == key.size
