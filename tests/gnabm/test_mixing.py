"""Drawn contacts have the mean, the spread and the reciprocity of their matrix; the expected form is their mean."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from gnabm import Contacts, Mixing, Population
from gnabm.exchange import Solo
from gnabm.mixing import MixingTables, drawn_contacts, expected_sum
from gnabm.random import salt
from gnabm.shard import cut
from gnabm.testing.watch import num_threads

SIZES = np.array([[30, 0, 12], [8, 25, 0], [0, 0, 20], [14, 6, 9]])  # areas x groups: empty pools at every level
REGION = np.array([0, 0, 1, 2])
MATRIX = np.array([[2.0, 1.0, 0.5], [0.7, 3.0, 0.0], [0.1, 0.4, 1.5]])


def layer(**changed):
    """A pool of four areas in three regions; region 1 has only the last group."""
    rng = np.random.default_rng(0)
    group = np.concatenate([rng.permutation(np.repeat(np.arange(3), row)) for row in SIZES]).astype(np.uint8)
    start = np.concatenate([[0], np.cumsum(SIZES.sum(1))])
    arguments = dict(shares=(0.5, 0.3, 0.2), dispersion=0.8) | changed
    return Mixing(group, MATRIX, start, REGION, SIZES, **arguments)


def parts(mixing, dt=1.0):
    """Shard, tables and keys of a layer."""
    num_agents = mixing.group.shape[0]
    shard = cut(Population(num_agents, {}, Contacts({"pool": mixing}, num_agents)))
    return shard.layers["pool"], MixingTables.of(mixing, dt), shard.keys


def draws(mixing, x, repeats, dt=1.0):
    """(repeats, num_agents) drawn sums of independent steps."""
    shard, tables, keys = parts(mixing, dt)
    rows = torch.arange(x.shape[0])
    with torch.no_grad(), num_threads(1):  # small arrays: threads would only wait for each other
        return torch.stack(
            [
                drawn_contacts(shard, tables, Solo(), keys, rows, x, salt(3, step, "contacts/pool")).summed(x.shape[0])
                for step in range(repeats)
            ]
        ).double()


def pool_means(mixing, x):
    """The mean field by its definition, agent by agent: (num_agents,)."""
    area = np.searchsorted(mixing.area_start, np.arange(x.size), side="right") - 1
    region, result = REGION[area], np.zeros(x.size)
    for sender in np.flatnonzero(x):
        levels = [area == area[sender], region == region[sender], np.ones(x.size, dtype=bool)]
        for group in range(3):
            pools = [level & (mixing.group == group) for level in levels]
            for level, share in enumerate(mixing.shares):
                pool = next(p for p in pools[level:] if p.any())
                result[pool] += x[sender] * MATRIX[mixing.group[sender], group] * share / pool.sum()
    return result


@pytest.mark.parametrize(
    "shares", [(0.5, 0.3, 0.2), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.7, 0.0, 0.3)]
)
def test_expected_is_the_mean_field_with_empty_pools_passed_upwards(shares):
    mixing = layer(shares=shares)
    x = np.random.default_rng(1).random(mixing.group.size)
    shard, tables, _ = parts(mixing)
    result = expected_sum(shard, tables, Solo(), torch.from_numpy(x))
    np.testing.assert_allclose(result.numpy(), pool_means(mixing, x), rtol=1e-6)


@pytest.mark.parametrize("shares", [(0.5, 0.3, 0.2), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)])
def test_the_mean_of_the_draws_is_the_expected_form(shares):
    mixing = layer(shares=shares)
    x = torch.from_numpy((np.random.default_rng(2).random(mixing.group.size) < 0.3).astype(np.float32))
    shard, tables, _ = parts(mixing)
    expected = expected_sum(shard, tables, Solo(), x.double())
    drawn = draws(mixing, x, 20_000)
    error = drawn.std(0) / np.sqrt(drawn.shape[0])
    z = ((drawn.mean(0) - expected) / error.clamp(min=1e-12))[expected > 0]
    assert z.abs().max() < 4.5
    assert 0.8 < z.std() < 1.2
    assert (drawn[:, expected == 0] == 0).all()


def number_of_contacts(mixing, repeats, dt=1.0):
    """(repeats, num_agents) numbers of contacts made."""
    shard, tables, keys = parts(mixing, dt)
    rows = torch.arange(mixing.group.shape[0])
    with num_threads(1):
        return torch.stack([
            drawn_contacts(shard, tables, Solo(), keys, rows, rows, salt(5, step, "contacts/pool"))
            .value.bincount(minlength=rows.shape[0])
            for step in range(repeats)
        ])  # fmt: skip


@pytest.mark.parametrize("k", [0.3, 0.8, 5.0, float("inf")])
@pytest.mark.parametrize("dt", [1.0, 0.25])
def test_the_number_of_contacts_is_negative_binomial(k, dt):
    mixing = layer(dispersion=k)
    number = number_of_contacts(mixing, 3000, dt).numpy()
    for group, mean in enumerate(MATRIX.sum(1) * dt):
        drawn = number[:, mixing.group == group].ravel()
        variance = mean + (0 if np.isinf(k) else mean**2 / k)
        assert abs(drawn.mean() - mean) < 4.5 * np.sqrt(variance / drawn.size)
        law = stats.poisson(mean) if np.isinf(k) else stats.nbinom(k, k / (k + mean))
        values = np.arange(int(law.ppf(0.999)) + 1)
        expected = np.append(law.pmf(values), law.sf(values[-1])) * drawn.size
        counts = np.bincount(np.minimum(drawn, values.size), minlength=values.size + 1)
        assert stats.chisquare(counts, expected).pvalue > 1e-4


def test_numbers_of_contacts_of_an_agent_are_independent_over_days():
    number = number_of_contacts(layer(), 4000)[:, :20].double()
    correlation = np.corrcoef(number.numpy().T)  # between agents
    assert np.abs(correlation[np.triu_indices(20, 1)]).max() * np.sqrt(4000) < 5
    lagged = [np.corrcoef(n[1:], n[:-1])[0, 1] for n in number.numpy().T]
    assert np.abs(lagged).max() * np.sqrt(4000) < 5


def test_a_reciprocal_matrix_gives_as_many_contacts_one_way_as_the_other():
    together = SIZES.sum(0)
    matrix = MATRIX + (MATRIX * together[:, None]).T / together[:, None]  # contacts a to b = contacts b to a
    mixing = replace(layer(shares=(0.0, 0.0, 1.0)), matrix=matrix)
    received = np.zeros((3, 3))
    for group in range(3):
        flags = torch.from_numpy((mixing.group == group).astype(np.float32))
        by_agent = draws(mixing, flags, 2000).mean(0).numpy()
        received[group] = [by_agent[mixing.group == other].sum() for other in range(3)]
    np.testing.assert_allclose(received, matrix * together[:, None], rtol=0.04)
    np.testing.assert_allclose(received, received.T, rtol=0.05)


def test_contacts_per_day_do_not_depend_on_the_length_of_the_step():
    mixing = layer()
    x = torch.ones(mixing.group.size)
    for dt in (0.25, 1.0, 2.0):
        per_step = draws(mixing, x, 800, dt).mean(0).sum()
        assert float(per_step) / dt == pytest.approx(MATRIX.sum(1)[mixing.group].sum(), rel=0.02)


def test_drawing_for_everyone_gives_the_bits_of_drawing_for_those_who_send():
    mixing = layer()
    shard, tables, keys = parts(mixing)
    rows = torch.arange(keys.number)
    x = torch.rand(keys.number, generator=torch.Generator().manual_seed(1)) * (rows % 3 == 0)
    with torch.no_grad():
        results = [
            drawn_contacts(shard, tables, Solo(), keys, some, x[some], 99).summed(x.shape[0])
            for some in (rows, x.nonzero().squeeze(1))
        ]
    assert torch.equal(*results) and results[0].sum() > 0


def test_gradients_travel_along_the_contacts():
    mixing = layer()
    shard, tables, keys = parts(mixing)
    rows, x = torch.arange(keys.number), torch.rand(keys.number, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda v: drawn_contacts(shard, tables, Solo(), keys, rows, v, 99).summed(v.shape[0]), x
    )
    found = torch.autograd.grad(expected_sum(shard, tables, Solo(), x).sum(), x)[0]
    np.testing.assert_allclose(found, MATRIX.sum(1)[mixing.group], rtol=1e-9)


def test_one_well_mixed_pool():
    mixing = Mixing.uniform(1000, 3.0)
    assert draws(mixing, torch.ones(1000), 200).mean().item() == pytest.approx(3.0, rel=0.02)
    shard, tables, _ = parts(mixing)
    np.testing.assert_allclose(expected_sum(shard, tables, Solo(), torch.ones(1000)), 3.0)
