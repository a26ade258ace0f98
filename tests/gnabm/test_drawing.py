"""Drawn contacts are those of the law, agent by agent; what they bring is added in order, on any threads."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnabm import Contacts, Mixing, Population
from gnabm.drawing import Inverse, add_in_order
from gnabm.exchange import Solo
from gnabm.local import on_shards
from gnabm.mixing import MixingTables, drawn_contacts
from gnabm.random import bits_reference, salt
from gnabm.shard import cut
from gnabm.testing.watch import num_threads

MASK = (1 << 64) - 1
THREADS = (1, 2, 3)
SHARDS = {1: (0, 5000), 2: (0, 1234, 5000), 3: (0, 1, 4000, 5000), 7: (0, 3, 40, 900, 901, 2500, 4990, 5000)}


def population(num_agents=5000, keys=None):
    """Agents of five groups in forty areas of six regions, most of them without some of the groups."""
    rng = np.random.default_rng(5)
    start = np.concatenate([[0], np.sort(rng.integers(0, num_agents, 39)), [num_agents]])
    area = np.repeat(np.arange(40), np.diff(start))
    region = np.sort(rng.integers(0, 6, 40))
    group = (rng.integers(0, 2, num_agents) + np.where(area % 7 == 0, 3, region[area] % 3)).astype(np.uint8)
    counts = np.stack([np.bincount(group[a:b], minlength=5) for a, b in itertools.pairwise(start)])
    matrix = rng.random((5, 5)) * 2
    matrix[:, 4] = 0
    mixing = Mixing(group, matrix, start, region, counts, (0.5, 0.3, 0.2), 0.5)
    columns = {} if keys is None else {"key": keys}
    return Population(num_agents, columns, Contacts({"pool": mixing}, num_agents))


def finalise(z):
    """The splitmix64 finaliser on integers of Python."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def unit(bits):
    """The number of the open unit interval that 64 bits stand for."""
    return (bits >> 12) * 2.0**-52 + 2.0**-53


def by_definition(mixing, keys, senders, state):
    """(sender, target) rows of every contact of a step, one pool after another."""
    tables = MixingTables.of(mixing, 1.0)
    rows = np.arange(mixing.group.shape[0])
    area = np.repeat(np.arange(40), np.diff(mixing.area_start))
    region = mixing.area_region[area]
    number = bits_reference(state, keys)
    words = bits_reference(state ^ 0x5851F42D4C957F2D, keys)
    found = []
    for i in senders:
        group, level_cdf = mixing.group[i], tables.level_cdf.numpy()
        count = np.searchsorted(tables.number.cdf[group], unit(int(number[i])), side="right")
        for k in range(count):
            draws = [unit(finalise((int(words[i]) + 3 * k + j) & MASK)) for j in (1, 2, 3)]
            other = np.searchsorted(tables.partner.cdf[group], draws[0], side="right")
            level = np.searchsorted(level_cdf, draws[1], side="right")
            levels = [area == area[i], region == region[i], rows >= 0]
            pool = next(p for p in (rows[near & (mixing.group == other)] for near in levels[level:]) if p.size)
            found.append((i, pool[min(math.floor(draws[2] * pool.size), pool.size - 1)]))
    return found


@pytest.mark.parametrize("given_keys", [False, True])
def test_contacts_are_those_of_the_law(given_keys):
    keys = np.random.default_rng(1).permutation(5000) * 3 - 7 if given_keys else None
    people = population(keys=keys)
    shard, mixing = cut(people), people.contacts["pool"]
    senders, state = torch.arange(0, 5000, 7), salt(1, 2, "contacts/pool")
    tables = MixingTables.of(mixing, 1.0)
    drawn = drawn_contacts(shard.layers["pool"], tables, Solo(), shard.keys, senders, senders, state, name_senders=True)
    expected = by_definition(mixing, shard.keys.all().numpy(), senders.tolist(), state)
    assert list(zip(drawn.value.tolist(), drawn.target.tolist(), strict=True)) == expected
    assert torch.equal(drawn.keys[drawn.by], shard.keys.take(drawn.value)) and len(expected) > 1000


@pytest.mark.parametrize("number", [2, 3, 7])
def test_every_target_hears_the_same_in_the_same_order_on_any_shards(number):
    people, bounds = population(), SHARDS[number]
    tables = MixingTables.of(people.contacts["pool"], 1.0)
    senders = torch.arange(0, 5000, 2)
    values = torch.from_numpy((10 ** np.random.default_rng(2).uniform(-3, 3, 5000)).astype(np.float32))

    def work(group):
        low, high = (bounds if group.size > 1 else (0, 5000))[group.rank :][:2]
        own = senders[(senders >= low) & (senders < high)]
        shard = cut(people, group, bounds if group.size > 1 else None)
        with torch.no_grad():
            drawn = drawn_contacts(
                shard.layers["pool"], tables, group, shard.keys, own - low, values[own], 3, name_senders=True
            )
            order = torch.argsort(drawn.target, stable=True)
            sender = drawn.keys if drawn.by is None else drawn.keys[drawn.by]
            heard = torch.stack([drawn.target[order] + low, sender[order]], 1)
            return heard, drawn.value[order], drawn.summed(high - low)

    (whole,) = on_shards(1, work)
    parts = [torch.cat(part) for part in zip(*on_shards(number, work), strict=True)]
    assert all(torch.equal(part, expected) for part, expected in zip(parts, whole, strict=True))


@pytest.mark.parametrize("share", [0.0, 0.001, 1.0])
def test_contacts_have_the_same_bits_on_any_threads(share):
    people = population()
    shard, tables = cut(people), MixingTables.of(people.contacts["pool"], 1.0)
    senders = torch.arange(0, 5000, round(1 / share)) if share else torch.arange(0)
    values = torch.rand(senders.shape[0], generator=torch.Generator().manual_seed(1))
    results = []
    for threads in THREADS:
        with num_threads(threads), torch.no_grad():
            drawn = drawn_contacts(shard.layers["pool"], tables, Solo(), shard.keys, senders, values, 3)
            results.append((drawn.target, drawn.value, drawn.summed(5000)))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))
    assert (results[0][0].numel() > 0) == (share > 0)


def test_contacts_depend_on_the_sender_alone():
    people = population()
    shard, tables = cut(people), MixingTables.of(people.contacts["pool"], 1.0)
    everyone, some = torch.arange(5000), torch.arange(3, 5000, 11)
    all_drawn, drawn = (
        drawn_contacts(shard.layers["pool"], tables, Solo(), shard.keys, rows, rows, 77) for rows in (everyone, some)
    )
    kept = torch.isin(all_drawn.value, some)
    assert torch.equal(all_drawn.target[kept], drawn.target) and torch.equal(all_drawn.value[kept], drawn.value)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(0, MASK))
def test_an_outcome_is_how_many_cumulative_probabilities_are_not_above_the_number(cdf, bits):
    law, u = Inverse.of(np.sort(cdf)[None, :]), unit(bits)
    begin = int(law.guide[0, bits >> 56])
    outcome = int(np.searchsorted(law.cdf[0], u, side="right"))
    assert begin <= outcome
    assert (law.cdf[0, begin:outcome] <= u).all() and (law.cdf[0, outcome:] > u).all()


def test_messages_are_added_in_the_order_given_on_any_threads():
    rng = np.random.default_rng(3)
    target = torch.from_numpy((500 * rng.random(300_000) ** 3).astype(np.int32))
    value = torch.from_numpy((10 ** rng.uniform(-3, 3, 1000)).astype(np.float32))
    by = torch.from_numpy(np.sort(rng.integers(0, 1000, 300_000)).astype(np.int32))
    expected = np.zeros(500, dtype=np.float32)
    np.add.at(expected, target.numpy(), value[by].numpy())  # one by one, in order
    for threads in THREADS:
        with num_threads(threads):
            with torch.no_grad():
                kernel = add_in_order(target, value, 500, by)
                assert torch.equal(add_in_order(target, value[by], 500), kernel)
            assert torch.equal(kernel, torch.from_numpy(expected))
            assert torch.equal(add_in_order(target, value, 500, by), kernel)
            assert torch.equal(add_in_order(target, value[:, None], 500, by)[:, 0], kernel)
