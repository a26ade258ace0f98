"""A population has a row per agent in every column and a key per agent."""

import numpy as np
import pytest

from gnabm import Contacts, Field, Population
from gnabm.errors import DataError, ShapeError

EMPTY = Contacts.from_edges([], [], num_agents=3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, {}, Contacts({}, 0)), DataError, "at least one agent"),
        ((4, {}, EMPTY), ShapeError, "contacts have 3 agents, the population 4"),
        ((3, {"age": np.zeros(2)}, EMPTY), ShapeError, "column 'age' has 2 rows for 3 agents"),
        ((3, {"key": np.array([1, 2, 1])}, EMPTY), DataError, "a different integer for each agent"),
        ((3, {"key": np.array([1.0, 2.0, 3.0])}, EMPTY), DataError, "a different integer for each agent"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Population(*arguments)


class Unread:
    """Keys on disk that nobody may read."""

    def __init__(self, dtype):
        self.shape, self.dtype = (3,), np.dtype(dtype)


def test_keys_on_disk_are_not_read():
    assert Population(3, {"key": Unread(np.int64)}, EMPTY).num_agents == 3
    with pytest.raises(DataError, match="a different integer"):
        Population(3, {"key": Unread(np.float64)}, EMPTY)


def test_keys_need_not_ascend():
    assert Population(3, {"key": np.array([5, -1, 3])}, EMPTY).num_agents == 3


def test_bare_contacts_become_a_population():
    population = Population.of(EMPTY)
    assert population.num_agents == 3 and not population.columns
    assert Population.of(population) is population


def test_only_a_labelled_column_has_categories():
    fields = {"region": Field("region", categories=("n", "s")), "age": Field("age")}
    population = Population(3, {"region": np.zeros(3), "age": np.zeros(3)}, EMPTY, fields)
    assert population.categories("region") == ("n", "s")
    assert population.categories("age") is None and population.categories("area") is None
