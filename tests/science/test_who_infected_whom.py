"""Infectors have the shares of the hazard that they made; reproduction numbers and generation intervals come back."""

from collections import Counter, defaultdict
from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats

from cluster.join import run_local
from gnabm import Contacts, Mixing, Model, Places, Population, Rule, simulate
from gnabm.agents import Stages
from gnabm.exchange import Solo
from gnabm.infections import (
    cohort_reproduction,
    generation_intervals,
    horizon,
    renewal_reproduction,
    secondary_cases,
    share_by_layer,
)
from gnabm.mixing import MixingTables, drawn_contacts
from gnabm.models.epidemic import sir
from gnabm.random import salt
from gnabm.shard import cut
from gnabm.testing.watch import num_threads

S, I = SI = Stages("S", "I")  # noqa: E741
KEYS = np.array([40, 7, 12, 33, 5, 21])
POWER = np.array([1.0, 2.5, 0.5, 0, 0, 0], dtype=np.float32)  # what each agent sends; the last three are susceptible
WEIGHT = {"friends": 0.5, "home": 2.0, "pool": 0.7}
EDGES = {(0, 3): 0.3, (1, 3): 0.2, (2, 3): 1.5, (0, 4): 0.5, (2, 4): 0.5, (1, 5): 0.4, (3, 4): 9.0}
PLACE, CONTACTS = np.array([0, 0, 1, 0, 1, 0]), 1.5
ACTIVITY = np.array([0.5, 2.0, 1.0, 1.5, 0.7, 0.0], dtype=np.float32)
AREAS = np.array([0, 2, 6])
MATRIX = np.array([[1.2, 0.6], [0.9, 1.5]])
GROUP = np.array([0, 1, 0, 1, 0, 1], dtype=np.uint8)


class InfectByPower(Rule):
    """Infection of the last three by the first three, with a probability that leaves room for both outcomes."""

    infects = True

    def where(self, agents):
        return (agents.power == 0) & agents.stage.is_(S)

    def forward(self, agents, contacts, step):
        hazard = 0.3 * contacts.sum_neighbours(agents.everyone.power, WEIGHT)
        return {"stage": agents.stage.move(S, I, step.bernoulli(-torch.expm1(-hazard * step.dt)))}


class Forget(Rule):
    """Everyone is susceptible again, so that each step is another draw of the same situation."""

    def forward(self, agents, contacts, step):
        return {"stage": agents.stage.move(I, S, agents.stage.is_(I))}


def six_agents():
    """Six agents who meet as friends, at home and in a pool."""
    pairs = np.array(list(EDGES))
    friends = Contacts.from_edges(pairs[:, 0], pairs[:, 1], list(EDGES.values()), 6, name="friends").layers
    counts = np.array([[(GROUP[a:b] == g).sum() for g in (0, 1)] for a, b in ((0, 2), (2, 6))])
    home = Places.of(PLACE, CONTACTS)
    home = Places(home.place, home.indptr, home.member, CONTACTS, activity=ACTIVITY)
    pool = Mixing(GROUP, MATRIX, AREAS, np.zeros(2, dtype=np.int64), counts, (0.6, 0.4, 0.0), 0.7)
    return Population(6, {"key": KEYS, "power": POWER}, Contacts({**friends, "home": home, "pool": pool}, 6))


def drawn_counts(population, seed, steps, dt):
    """(steps, sender, target) contacts drawn in the pool, read off a sum in which each sender has its own digit."""
    shard = cut(population)
    layer, tables = shard.layers["pool"], MixingTables.of(population.contacts["pool"], dt)
    senders, x = torch.arange(3), torch.tensor([1.0, 2.0**16, 2.0**32], dtype=torch.float64)
    with torch.no_grad():
        sums = torch.stack([
            drawn_contacts(layer, tables, Solo(), shard.keys, senders, x, salt(seed, step, "contacts/pool")).summed(6)
            for step in range(steps)
        ])  # fmt: skip
    digits = sums.to(torch.int64).numpy()
    return np.stack([digits >> (16 * sender) & 0xFFFF for sender in range(3)], 1)


def shares(target, drawn, dt):
    """Exact probability of each layer and sender, given that the target was infected and whom the pool brought it."""
    found = {}
    for sender in range(3):
        found["friends", sender] = WEIGHT["friends"] * EDGES.get((sender, target), 0.0)
        size = np.count_nonzero(PLACE[target] == PLACE)
        meets = min(CONTACTS, size - 1) / (size - 1) if PLACE[sender] == PLACE[target] else 0.0
        found["home", sender] = WEIGHT["home"] * meets * ACTIVITY[sender] * ACTIVITY[target]
        found["pool", sender] = WEIGHT["pool"] * drawn[sender] / dt
    hazard = {cell: value * POWER[cell[1]] for cell, value in found.items()}
    total = sum(hazard.values())
    return {cell: value / total for cell, value in hazard.items() if value > 0}


@pytest.mark.parametrize("dt", [1.0, 0.5])
def test_infectors_have_the_exact_conditional_probabilities(dt):
    population = six_agents()
    model = Model([[InfectByPower()], [Forget()]], state={"stage": SI})
    steps, seen = 1000, defaultdict(Counter)
    for seed in (1, 2):
        with num_threads(1):  # six agents: threads would only wait for each other
            line_list = simulate(model, population, steps=steps, seed=seed, dt=dt, infections=True).infections
            drawn = drawn_counts(population, seed, steps, dt)
        row = {key: at for at, key in enumerate(KEYS)}
        for agent, step, infector, layer in zip(
            line_list.agent, line_list.step, line_list.infector, line_list.layer, strict=True
        ):
            target = row[agent]
            seen[target, tuple(drawn[step, :, target])][layer, row[infector]] += 1
    statistic, freedom, cells = 0.0, 0, set()
    for (target, brought), counts in seen.items():
        expected = shares(target, brought, dt)
        assert set(counts) <= set(expected)
        cells |= {(target, *cell) for cell in counts}
        n = sum(counts.values())
        rare = {cell for cell, p in expected.items() if n * p < 5}
        pooled = [(counts[c], n * p) for c, p in expected.items() if c not in rare]
        if sum(n * expected[c] for c in rare) >= 5:
            pooled.append((sum(counts[c] for c in rare), sum(n * expected[c] for c in rare)))
        elif pooled and rare:
            pooled[-1] = tuple(np.add(pooled[-1], (sum(counts[c] for c in rare), sum(n * expected[c] for c in rare))))
        if len(pooled) > 1:
            statistic += sum((got - want) ** 2 / want for got, want in pooled)
            freedom += len(pooled) - 1
    assert freedom > 15
    assert stats.chi2.sf(statistic, freedom) > 1e-3
    assert stats.chi2.cdf(statistic, freedom) > 1e-3  # nor nearer to the law than chance allows
    possible = {(t, *cell) for t, drawn in product((3, 4, 5), ((1, 1, 1),)) for cell in shares(t, drawn, dt)}
    assert cells == possible
    assert (5, "home", 0) not in cells  # agent 5 is at home with 0 and 1, but meets nobody there


STEPS = 30


@pytest.fixture(scope="module")
def growth():
    """The growth of an epidemic in one well-mixed pool."""
    population = Contacts({"pool": Mixing.uniform(200_000, 8.0)}, 200_000)
    return simulate(sir(0.05, 0.25, 0.002), population, steps=STEPS, seed=11, infections=True)


@pytest.mark.parametrize("shards", [2, 3])
def test_the_six_agents_have_the_same_infectors_on_any_shards(shards):
    model = Model([[InfectByPower()], [Forget()]], state={"stage": SI})
    with num_threads(1):
        alone = simulate(model, six_agents(), steps=40, seed=4, infections=True).infections
        cut = run_local(model, six_agents(), shards=shards, steps=40, seed=4, infections=True).infections
    assert set(alone.layer) == set(WEIGHT)
    assert cut.equals(alone)


RECOVERY, DAYS = np.exp(-0.25), 1 / (1 - np.exp(-0.25))  # of being infectious a day longer; mean infectious days
INTERVAL = RECOVERY ** np.arange(100) / (RECOVERY ** np.arange(100)).sum()


def test_cohort_and_renewal_reproduction_agree(growth):
    """The renewal number is that of the day; a cohort has that of the days on which it infects."""
    records, incidence = growth.infections, growth.observed["incidence"].numpy()
    assert np.array_equal(np.bincount(records.step[records.step >= 0], minlength=STEPS), incidence)
    seeds = (records.step == -1).sum()
    renewal = renewal_reproduction([seeds, *incidence], INTERVAL)[1:]
    # A contact infects with probability 1 - exp(-0.05), if its target is susceptible at the start of the step.
    susceptible = growth.observed["stage_count"][:, 0].numpy() + incidence
    first = 8 * -np.expm1(-0.05) * DAYS
    expected = first * susceptible / 200_000
    infectors = incidence / renewal
    assert abs(incidence.sum() / (infectors * expected).sum() - 1) < 4 / np.sqrt(incidence.sum()) + 0.01
    late = horizon(INTERVAL, 0.98)
    cohort = cohort_reproduction(records, STEPS, late)
    known = np.flatnonzero(~np.isnan(cohort))
    assert known[-1] == STEPS - late - 1
    ahead = [(INTERVAL[: STEPS - t - 1] * renewal[t + 1 :]).sum() for t in known]
    assert abs(np.average(cohort[known] / ahead, weights=incidence[known]) - 1) < 0.02
    spread = np.sqrt((first + first**2) / incidence[known])  # of a cohort's mean: cases infect for geometric times
    assert (np.abs(cohort[known] - ahead) < 4 * spread).all()


def test_generation_intervals_of_early_cases_are_the_geometric_ones_of_the_model(growth):
    records = growth.infections
    early = records.agent[records.step <= 2]
    counts = generation_intervals(records[(records.step <= 2) | records.infector.isin(early)])[1:]
    longest = STEPS - 3  # the latest of them was followed so long
    expected = INTERVAL[:longest] / INTERVAL[:longest].sum() * counts[:longest].sum()
    assert stats.chisquare(counts[:12], expected[:12] * counts[:12].sum() / expected[:12].sum()).pvalue > 1e-3


def test_secondary_cases_of_early_cases_are_geometric(growth):
    counts = secondary_cases(growth.infections, -1)  # the seeds, followed to the end
    mean = (counts * np.arange(counts.size)).sum() / counts.sum()
    stay = RECOVERY
    rate = 8 * -np.expm1(-0.05)  # infections a day, Poisson; days geometric: a compound law with this variance
    expected, variance = rate * DAYS, rate * DAYS + rate**2 * stay / (1 - stay) ** 2
    assert abs(mean - expected) < 4 * np.sqrt(variance / counts.sum()) + 0.02 * expected
    spread = (counts * (np.arange(counts.size) - mean) ** 2).sum() / counts.sum()
    assert spread == pytest.approx(variance, rel=0.35)
    assert share_by_layer(growth.infections) == {"pool": 1.0}
