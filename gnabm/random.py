"""Keyed draws: a uniform number is a pure function of (seed, step, stream, key).

There is no generator state: any shard, thread or restart computes the same number for the same agent. The
function is two rounds of the splitmix64 finaliser (Steele, Lea and Flood 2014, OOPSLA) over the key, salted before
each round by a 64-bit state that is derived from seed, step and stream.

`bits_reference` is the NumPy definition; the compiled kernels return the same bits.
"""

from __future__ import annotations

import hashlib

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnabm.columns import Keys
from gnabm.errors import DataError

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_U = np.uint64
_G, _A, _B = _U(_GOLDEN), _U(0xBF58476D1CE4E5B9), _U(0x94D049BB133111EB)
_S30, _S27, _S31, _S32, _S12 = _U(30), _U(27), _U(31), _U(32), _U(12)
_HALF = 2.0**-53
_UNIT = 2.0**-52
_NO_ROWS = np.empty(0, dtype=np.int64)


def _mix_int(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def salt(seed: int, step: int, stream: str) -> int:
    """64-bit state of one stream at one step.

    Args:
        seed: Seed of the run, any integer.
        step: Index of the step; -1 while the initial state is drawn.
        stream: Rule and call, such as `Infect/bernoulli`.
    """
    name = int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "little")
    return _mix_int((_mix_int((_mix_int(seed & _MASK) + name) & _MASK) + (step & _MASK) * _GOLDEN) & _MASK)


def bits_reference(state: int, keys: NDArray[np.int64]) -> NDArray[np.uint64]:
    """64 random bits per key in NumPy: the definition that every kernel must equal.

    Args:
        state: A salt.
        keys: (n,) int64.
    """

    def mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
        z = (z ^ (z >> _S30)) * _A
        z = (z ^ (z >> _S27)) * _B
        return z ^ (z >> _S31)

    with np.errstate(over="ignore"):
        first = mix(np.asarray(keys).astype(np.uint64) * _G + _U(state))
        return mix(first + _U(_mix_int(state)))


@numba.njit(inline="always")
def mix(z):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, D103
    z = (z ^ (z >> _S30)) * _A
    z = (z ^ (z >> _S27)) * _B
    return z ^ (z >> _S31)


@numba.njit(inline="always")
def key_bits(state, second, key):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """64 bits of one key inside a kernel; `second` is `second_salt(state)`."""
    return mix(mix(_U(key) * _G + state) + second)


@numba.njit(inline="always")
def unit_interval(bits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Map 64 bits to an open-interval uniform with 52 bits."""
    return float(bits >> _S12) * _UNIT + _HALF


def salts(state: int) -> tuple[np.uint64, np.uint64]:
    """The two words that a kernel needs for one stream."""
    return _U(state), _U(_mix_int(state))


@numba.njit(parallel=True, cache=True, nogil=True)
def _uniform(state, second, keys, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for i in numba.prange(keys.size):
        out[i] = unit_interval(key_bits(state, second, keys[i]))


@numba.njit(inline="always")
def key_at(first, keys, i):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Key of row i inside a kernel; `first` and `keys` are `Keys.words`."""
    return keys[i] if keys.size else np.int64(first + i)


@numba.njit(parallel=True, cache=True, nogil=True)
def _bernoulli(state, second, first, keys, rows, some, p, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    bad = 0
    for k in numba.prange(p.size):
        if p[k] > 0.0 and p[k] <= 1.0:
            # The hash is computed only where the event is possible.
            i = rows[k] if some else np.int64(k)
            out[k] = unit_interval(key_bits(state, second, key_at(first, keys, i))) < p[k]
        else:
            out[k] = False
            if p[k] != 0.0:
                bad += 1
    return bad


def use_torch_threads() -> int:
    """Let compiled kernels use as many threads as torch does; returns that number."""
    threads: int = torch.get_num_threads()
    numba.set_num_threads(max(1, min(threads, numba.config.NUMBA_NUM_THREADS)))  # type: ignore[attr-defined]
    if torch.get_num_threads() != threads:
        # The first launch of numba's pool sets the OpenMP threads that it shares with torch to all cores.
        torch.set_num_threads(threads)
    return threads


def uniform(state: int, keys: Tensor) -> Tensor:
    """Uniform numbers in the open interval (0, 1).

    Args:
        state: A salt.
        keys: (n,) int64.

    Returns:
        (n,) float64, multiples of 2^-52 plus 2^-53.
    """
    use_torch_threads()
    out = torch.empty(keys.shape[0], dtype=torch.float64)
    _uniform(*salts(state), keys.contiguous().numpy(), out.numpy())
    return out


def bernoulli(state: int, keys: Tensor | Keys, p: Tensor, rows: Tensor | None = None) -> Tensor:
    """Whether an event of probability p happens: uniform < p.

    Args:
        state: A salt.
        keys: (n,) int64 keys, or those of all rows.
        p: (n,) float32 or float64 probabilities; values of 0 cost no hash.
        rows: (n,) int64 rows of the draws among `keys`, or None for all.

    Returns:
        (n,) bool.

    Raises:
        DataError: A probability is NaN or outside [0, 1].
    """
    use_torch_threads()
    out = torch.empty(p.shape[0], dtype=torch.bool)
    chance = p.detach().contiguous()  # a draw has no gradient; estimators in sampling.py add theirs
    first, words = keys.words if isinstance(keys, Keys) else (0, keys.contiguous().numpy())
    at = _NO_ROWS if rows is None else rows.numpy()
    bad = _bernoulli(*salts(state), first, words, at, rows is not None, chance.numpy(), out.numpy())
    if bad:
        wrong = chance[~((chance >= 0) & (chance <= 1))][0].item()
        raise DataError(f"a probability must lie in [0, 1], got {wrong} ({bad} such rows); check the rule's rates")
    return out
