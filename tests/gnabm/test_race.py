"""The race between senders: its winner by definition, its sums, repeats of a sender."""

import numpy as np
import pytest
import torch

from gnabm.race import NOBODY, Senders
from gnabm.random import bits_reference
from gnabm.testing.watch import num_threads


def reference(state, target, keys, weights):
    """The winner by its definition."""
    own = int(bits_reference(state, np.array([target]))[0])
    u = ((bits_reference(own, np.array(keys)) >> np.uint64(12)) + 0.5) * 2.0**-52
    times = [-np.log(x) / w if w > 0 else np.inf for x, w in zip(u, weights, strict=True)]
    return keys[int(np.argmin(times))] if np.isfinite(min(times)) else NOBODY


def messages(rng, targets=60, senders=40):
    """Messages in ascending order of senders, none to some targets; what each sends, and who it is."""
    sender = np.sort(rng.integers(0, senders, 200))
    target = rng.integers(0, targets, 200).astype(np.int32)
    weight = np.where(rng.random(200) < 0.4, 0, rng.gamma(1, 1, 200)).astype(np.float32)
    return [torch.from_numpy(a) for a in (target, (rng.permutation(senders) * 3 + 5)[sender], weight)]


@pytest.mark.parametrize("but_itself", [False, True])
def test_the_winner_of_a_race_is_that_of_its_definition(but_itself):
    rng = np.random.default_rng(0)
    target, key, weight = messages(rng)
    targets = torch.from_numpy(rng.permutation(120)[:60])  # some of them are senders too
    race = Senders.of(target, 60, key, weight)
    got = race.winners(99, targets, but_itself=but_itself).tolist()
    for k in range(60):
        sums = {}
        for one, w in zip(key[target == k].tolist(), weight[target == k].double().tolist(), strict=True):
            sums[one] = sums.get(one, 0.0) + (0.0 if but_itself and one == targets[k] else w)
        assert got[k] == (reference(99, int(targets[k]), list(sums), list(sums.values())) if sums else NOBODY)
    some = torch.tensor([7, 3, 50])
    assert race.take(some).winners(99, targets[some], but_itself=but_itself).tolist() == [got[7], got[3], got[50]]


def test_threads_do_not_change_the_winners():
    target, key, weight = messages(np.random.default_rng(2))
    race, targets = Senders.of(target, 60, key, weight), torch.arange(60)
    with num_threads(1):
        one = race.winners(4, targets)
    with num_threads(2):
        assert torch.equal(race.winners(4, targets), one)


def test_a_sender_that_occurs_twice_runs_once_with_both_weights():
    draws = 4000
    target = torch.arange(draws, dtype=torch.int32).repeat(3)
    key = torch.tensor([8, 8, 4]).repeat_interleave(draws)
    race = Senders.of(target, draws, key, torch.ones(3 * draws))
    share = (race.winners(1, torch.arange(draws)) == 8).double().mean()
    assert abs(share - 2 / 3) < 4 * np.sqrt(2 / 9 / draws)


def test_targets_that_share_entries_have_races_of_their_own():
    race = Senders.of(torch.zeros(500, dtype=torch.int32), 1, torch.arange(500), torch.ones(500))
    winners = race.take(torch.zeros(200, dtype=torch.int64)).winners(3, torch.arange(1000, 1200))
    assert len(set(winners.tolist())) > 100
