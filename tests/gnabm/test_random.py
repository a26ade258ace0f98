"""Draws are a pure function of seed, step, stream and key, and look uniform and independent."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from gnabm.errors import DataError
from gnabm.random import bernoulli, bits_reference, salt, uniform

# Frozen: these words change only with a line `[changes results]` in the changelog.
KEYS = np.array([0, 1, 2, -1, 2**63 - 1, -(2**63), 12345678901], dtype=np.int64)
WORDS = [
    0xB58F0572C0EF41F7, 0x1F711C4E21DAFA16, 0xDBFA47F7741340C5, 0xCAE13C20E769A353, 0x9B156B67A62B5871,
    0x7CA6F4DAB86096F9, 0x9D2BBAB3065EE7D5,
]  # fmt: skip
SIZE = 1_000_000
KEY_RUN = torch.arange(SIZE)
INT64 = st.integers(-(2**63), 2**63 - 1)


def test_known_answers():
    assert salt(0, 0, "") == 1783795538082461487
    assert salt(7, -1, "Infect/bernoulli") == salt(2**64 + 7, -1, "Infect/bernoulli") == 16922698674982975024
    assert salt(-3, 100, "é") == 6623727268961702147
    assert salt(7, 3, "Infect/bernoulli") == 7755749086506289544
    assert bits_reference(7755749086506289544, KEYS).tolist() == WORDS


@given(hnp.arrays(np.int64, st.integers(0, 50), elements=INT64), st.integers(), INT64)
def test_kernel_equals_the_reference(keys, seed, step):
    state = salt(seed, step, "stream")
    expected = (bits_reference(state, keys) >> np.uint64(12)).astype(np.float64) * 2.0**-52 + 2.0**-53
    drawn = uniform(state, torch.from_numpy(keys))
    assert (drawn.numpy() == expected).all()
    assert ((drawn > 0) & (drawn < 1)).all()


def test_order_and_company_of_keys_do_not_matter():
    state = salt(1, 2, "s")
    whole = uniform(state, KEY_RUN)
    some = torch.randperm(SIZE, generator=torch.Generator().manual_seed(1))[:1001]
    assert torch.equal(uniform(state, KEY_RUN[some]), whole[some])
    assert torch.equal(uniform(state, KEY_RUN[::7]), whole[::7])


@pytest.mark.parametrize("stride", [1, 2, 1 << 20, 1 << 40])
def test_draws_are_uniform_whatever_the_pattern_of_keys(stride):
    drawn = uniform(salt(5, 1, "Recover/bernoulli"), KEY_RUN * stride).numpy()
    counts = np.bincount((drawn * 1000).astype(int), minlength=1000)
    assert stats.chisquare(counts).pvalue > 1e-4
    low = np.bincount((drawn * 2**40).astype(np.int64) & 255, minlength=256)
    assert stats.chisquare(low).pvalue > 1e-4


def test_draws_of_a_tiny_share_are_uniform():
    drawn = uniform(salt(3, 4, "rare"), torch.arange(4_000_000)).numpy()
    for p in (1e-5, 1e-4, 1 - 1e-4):
        assert stats.binomtest(int((drawn < p).sum()), drawn.size, p).pvalue > 1e-4


def correlation(a, b):
    """Correlation in units of its standard error under independence."""
    return abs(np.corrcoef(a, b)[0, 1]) * np.sqrt(a.size)


def test_neighbouring_keys_are_uncorrelated():
    drawn = uniform(salt(5, 1, "Recover/bernoulli"), KEY_RUN).numpy()
    for lag in (1, 2, 3, 64, 1000):
        assert correlation(drawn[:-lag], drawn[lag:]) < 4.5
    pairs = (drawn[:-1] * 32).astype(int) * 32 + (drawn[1:] * 32).astype(int)
    assert stats.chisquare(np.bincount(pairs[::2], minlength=1024)).pvalue > 1e-4


@pytest.mark.parametrize(
    "other",
    [(5, 2, "Infect/bernoulli"), (6, 1, "Infect/bernoulli"), (5, 1, "Infect/uniform"), (5, -1, "Infect/bernoulli"),
     (1, 5, "Infect/bernoulli")],
)  # fmt: skip
def test_seeds_steps_and_streams_are_independent(other):
    one = uniform(salt(5, 1, "Infect/bernoulli"), KEY_RUN).numpy()
    two = uniform(salt(*other), KEY_RUN).numpy()
    assert correlation(one, two) < 4.5
    assert (one == two).sum() == 0
    cells = (one * 32).astype(int) * 32 + (two * 32).astype(int)
    assert stats.chisquare(np.bincount(cells, minlength=1024)).pvalue > 1e-4
    shifted = (one[1:] * 32).astype(int) * 32 + (two[:-1] * 32).astype(int)
    assert stats.chisquare(np.bincount(shifted, minlength=1024)).pvalue > 1e-4


def test_one_agent_draws_independently_over_steps():
    key = torch.tensor([17])
    drawn = np.array([float(uniform(salt(1, step, "Recover/bernoulli"), key)) for step in range(5000)])
    assert stats.kstest(drawn, "uniform").pvalue > 1e-4
    assert correlation(drawn[:-1], drawn[1:]) < 4.5


@pytest.mark.parametrize("p", [1e-4, 0.1, 0.5, 0.97])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_events_are_as_frequent_as_their_probability(p, dtype):
    chance = torch.full((SIZE,), p, dtype=dtype)
    happened = bernoulli(salt(9, 0, "e"), KEY_RUN, chance)
    assert happened.dtype == torch.bool
    assert stats.binomtest(int(happened.sum()), SIZE, p).pvalue > 1e-4
    assert torch.equal(happened, uniform(salt(9, 0, "e"), KEY_RUN) < chance.to(torch.float64))


def test_certain_and_impossible_events():
    assert bernoulli(1, KEY_RUN, torch.ones(SIZE)).all()
    assert not bernoulli(1, KEY_RUN, torch.zeros(SIZE)).any()
    assert bernoulli(1, KEY_RUN[:0], torch.zeros(0)).shape == (0,)


@pytest.mark.parametrize("p", [-0.1, 1.0001, float("nan"), float("inf"), -float("inf")])
def test_a_probability_outside_0_and_1_is_refused(p):
    chance = torch.full((10,), 0.5)
    chance[3] = p
    with pytest.raises(DataError, match=r"must lie in \[0, 1\], got .*1 such rows"):
        bernoulli(1, KEY_RUN[:10], chance)
