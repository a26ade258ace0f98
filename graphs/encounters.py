"""Who meets whom and how often, by age: what the reproduction number of a model on a population follows from."""

from __future__ import annotations

import numpy as np

from gnabm.contacts import Layer, Mixing
from gnabm.errors import UnknownFieldError
from gnabm.nextgen import Encounters
from gnabm.population import Population
from graphs.meetings import Codes, Floats, codes, mean_by_group, meetings, pairs
from graphs.mixing import NUM_GROUPS, activity_group


def encounters(population: Population) -> dict[str, Encounters]:
    """Encounters of one agent of each five-year age, by layer.

    Args:
        population: A population with a column `age` in years.

    Raises:
        UnknownFieldError: the population has no ages.
        DataError: an age is negative or not a number.
    """
    if "age" not in population.columns:
        raise UnknownFieldError("encounters by age need a column 'age' in years; add it to the agent table")
    group = codes("age", population.columns["age"], NUM_GROUPS, activity_group)
    people = np.maximum(np.bincount(group, minlength=NUM_GROUPS), 1).astype(np.float64)
    return {name: _of_layer(layer, group, people) for name, layer in population.contacts.layers.items()}


def _of_layer(layer: Layer, group: Codes, people: Floats) -> Encounters:
    if isinstance(layer, Mixing):
        contacts = mean_by_group(meetings(layer, group, NUM_GROUPS), group)[:, :, None]
        return Encounters(contacts, np.ones_like(contacts), "expected" if layer.expected else "drawn")
    number, total = pairs(layer, group, NUM_GROUPS)
    weight = np.divide(total, number, out=np.zeros_like(total), where=number > 0)
    return Encounters(number / people[:, None, None], weight, "pairs")
