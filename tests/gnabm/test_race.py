"""The race between senders: its winner by definition, its sums, repeats of a sender."""

import numpy as np
import torch

from gnabm.messages import pull_edges
from gnabm.race import NOBODY, Senders, entries_of
from gnabm.random import bits_reference


def reference(state, target, keys, weights):
    """The winner by its definition."""
    own = int(bits_reference(state, np.array([target]))[0])
    u = ((bits_reference(own, np.array(keys)) >> np.uint64(12)) + 0.5) * 2.0**-52
    times = [-np.log(x) / w if w > 0 else np.inf for x, w in zip(u, weights, strict=True)]
    return keys[int(np.argmin(times))] if np.isfinite(min(times)) else NOBODY


def random_senders(rng, targets=60, senders=40):
    size = rng.integers(0, 9, targets)
    ends = np.cumsum(size)
    entries = np.concatenate([np.sort(rng.choice(senders, n, replace=False)) for n in size]).astype(np.int32)
    value = np.where(rng.random(senders) < 0.4, 0, rng.gamma(1, 1, senders)).astype(np.float32)
    arrays = ends - size, ends, entries, value, rng.permutation(senders) * 3 + 5
    return [torch.from_numpy(np.asarray(a)) for a in arrays], size


def test_the_winner_of_a_race_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    (first, last, sender, value, key), _ = random_senders(rng)
    entry = torch.from_numpy(rng.gamma(1, 1, sender.shape[0]).astype(np.float32))
    own = torch.from_numpy(rng.gamma(1, 1, 40).astype(np.float32))
    itself = torch.from_numpy(rng.integers(-1, 40, 60))
    targets = torch.from_numpy(rng.integers(0, 10**12, 60))
    for weights in ({}, {"entry_weight": entry}, {"sender_weight": own}, {"sender_weight": own, "itself": itself}):
        senders = Senders(first, last, sender, value, key, **weights)
        got = senders.winners(99, targets).tolist()
        for k in range(60):
            at = sender[first[k] : last[k]].long()
            weight = value[at]
            weight = weight * entry[first[k] : last[k]] if "entry_weight" in weights else weight
            weight = weight * own[at] if "sender_weight" in weights else weight
            if "itself" in weights:
                weight = torch.where(at == itself[k], 0.0, weight)
            want = reference(99, int(targets[k]), key[at].tolist(), weight.double().tolist()) if len(at) else NOBODY
            assert got[k] == want
        some = torch.tensor([7, 3, 50])
        assert senders.take(some).winners(99, targets[some]).tolist() == [got[7], got[3], got[50]]


def test_sums_are_those_of_the_message_kernel():
    rng = np.random.default_rng(1)
    (first, last, sender, value, key), size = random_senders(rng)
    weight = torch.from_numpy(rng.gamma(1, 1, sender.shape[0]).astype(np.float32))
    indptr = torch.from_numpy(np.concatenate([[0], np.cumsum(size)]))
    for w in (None, weight):
        sums = Senders(first, last, sender, value, key, entry_weight=w).sums()
        assert torch.equal(sums, pull_edges(value, indptr, sender, w))


def test_a_sender_that_occurs_twice_runs_once_with_both_weights():
    draws = 4000
    ends = 3 * torch.arange(1, draws + 1)
    sender = torch.tensor([0, 1, 2] * draws, dtype=torch.int32)
    senders = Senders(ends - 3, ends, sender, torch.ones(3), torch.tensor([8, 8, 4]))
    share = (senders.winners(1, torch.arange(draws)) == 8).double().mean()
    assert abs(share - 2 / 3) < 4 * np.sqrt(2 / 9 / draws)


def test_entries_keep_their_order_and_leave_out_what_sent_nothing():
    target = torch.tensor([3, 1, 3, 0, 1, 3])
    value = torch.tensor([1.0, 2.0, 0.0, 4.0, 5.0, 6.0])
    first, at = entries_of(torch.tensor([3, 2, 1]), target, value, 4)
    assert first.tolist() == [0, 2, 2, 4]
    assert at.tolist() == [0, 5, 1, 4]
