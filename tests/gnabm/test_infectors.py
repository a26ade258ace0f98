"""Only the infected and the senders are walked; who is named does not depend on how the shards are cut."""

import numpy as np
import pytest
import torch

from gnabm import Contacts, Places, Population
from gnabm.infectors import SourceKeys
from gnabm.local import LocalThreads
from gnabm.shard import cut


@pytest.mark.parametrize("given", [True, False])
def test_sources_of_every_shard_have_the_keys_of_their_rows(given):
    rng = np.random.default_rng(3)
    agents, bounds = 60, (0, 11, 40, 60)
    rooms = Places.of(np.arange(agents) % 9)
    columns = {"key": rng.permutation(agents) * 3 - 7} if given else {}
    population = Population(agents, columns, Contacts({"room": rooms}, agents))
    key = columns.get("key", np.arange(agents))

    def sources(group):
        shard = cut(population, group, bounds)
        order = torch.from_numpy(rng.permutation(shard.num_sources))
        return order.numpy(), SourceKeys(shard).take(order).numpy()

    with LocalThreads(3) as threads:
        told = threads.each(sources)
    for order, keys in told:  # every room has members in each shard, so all agents are sources of each
        assert (keys == key[order]).all()
