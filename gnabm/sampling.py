"""Draws of events, and the gradient that a differentiable run gives them.

An estimator returns the hard outcome of a keyed draw; they differ only in the backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from gnabm.errors import ConfigError, DataError, KindError, ShapeError, nearest
from gnabm.random import bernoulli, uniform


class Estimator(Protocol):
    """How a Bernoulli event is drawn and what gradient it passes on.

    The outcome is that of `gnabm.random.bernoulli`, which other kernels draw without asking the estimator. With `flags`
    stages are float flags, every rule sees all rows, and the draw itself carries the gradient. Without, rules run as in
    a forward run, and the gradient of a draw is noted as its log-likelihood, which weighs what its agent does (`local`)
    or, for a `Score`, the whole run.
    """

    @property
    def flags(self) -> bool:
        """Whether stages are float flags and the draw itself carries the gradient."""

    @property
    def local(self) -> bool:
        """Whether the likelihood of a draw weighs what its agent does, rather than the whole run."""

    def __call__(self, state: int, keys: Tensor, p: Tensor) -> Tensor:
        """Draw events with probability p (n,) keyed by keys (n,)."""
        ...


class Hard:
    """No gradient: (n,) bool."""

    flags: ClassVar[bool] = False
    local: ClassVar[bool] = True

    def __call__(self, state: int, keys: Tensor, p: Tensor) -> Tensor:
        """Draw (n,) bool."""
        return bernoulli(state, keys, p)


class StraightThrough:
    r"""The hard outcome forward, the identity in p backward.

    Unbiased where the outcome is linear in each draw, such as for agents that do not interact; elsewhere a draw that
    happened is treated as one that could happen again, and in small groups the gradient grows without bound.

    Reference: Bengio, Leonard and Courville (2013), arXiv 1308.3432.
    """

    flags: ClassVar[bool] = True
    local: ClassVar[bool] = True

    def __call__(self, state: int, keys: Tensor, p: Tensor) -> Tensor:
        """Draw (n,) float flags with d flag / d p = 1."""
        return _flag(p, bernoulli(state, keys, p), torch.ones_like(p))


class Gumbel:
    r"""The hard outcome forward, the slope of a relaxed one backward: Gumbel-softmax of two classes, straight-through.

    .. math:: s = \sigma((\mathrm{logit}\, p - \mathrm{logit}\, u) / \tau)

    u is the keyed uniform of the plain draw, so -logit(u) is logistic noise and s > 1/2 just where u < p: the outcome
    has the bits of a forward run. Never unbiased; the bias vanishes as the temperature does, while the variance grows
    as its inverse. No slope where p is 0 or 1, its limit for temperatures below 1. The relaxed outcome itself is not
    offered: it would spread an agent over several stages, which is another model.

    Args:
        temperature: tau > 0.

    References: Jang, Gu and Poole (2017), arXiv 1611.01144; Maddison, Mnih and Teh (2017), arXiv 1611.00712.
    """

    flags: ClassVar[bool] = True
    local: ClassVar[bool] = True

    def __init__(self, temperature: float = 0.5) -> None:
        if not 0 < temperature < math.inf:
            raise ConfigError(f"the temperature of gumbel must be a positive number, got {temperature}; 0.5 is usual")
        self.temperature = float(temperature)

    def __call__(self, state: int, keys: Tensor, p: Tensor) -> Tensor:
        """Draw (n,) float flags with d flag / d p = d s / d p."""
        inside = (p > 0) & (p < 1)
        chance = torch.where(inside, p, torch.full_like(p, 0.5)).detach().to(torch.float64)  # a slope, not a value
        noise = uniform(state, keys)
        odds = torch.log(chance) - torch.log1p(-chance) - (torch.log(noise) - torch.log1p(-noise))
        far = torch.exp(-torch.abs(odds) / self.temperature)  # s (1 - s) without overflow
        slope = far / (1 + far) / (1 + far) / (self.temperature * chance * (1 - chance))
        return _flag(p, bernoulli(state, keys, p), torch.where(inside, slope, torch.zeros_like(slope)))


class Smoothed:
    r"""The hard outcome forward, the mean of its jumps to the right and to the left backward.

    Raised p turns an event that did not happen into one, at the rate 1 / (1 - p); lowered p takes one away that did, at
    1 / p. Either alone has the right mean. A flag gets half of each: 1 / (2 (1 - p)) where nothing happened,
    1 / (2 p) where it did, as the trapezoid rule weighs both ends of a finite change. Where p is 0 or 1 only one of the
    two jumps exists and is taken whole.

    Unbiased where the outcome is linear in each draw; the jumps are collapsed into slopes, which elsewhere is biased.

    Reference: Arya, Schauer, Schaefer and Rackauckas (2022), NeurIPS 35, arXiv 2210.08572 (smoothing, section 2.5).
    """

    flags: ClassVar[bool] = True
    local: ClassVar[bool] = True

    def __call__(self, state: int, keys: Tensor, p: Tensor) -> Tensor:
        """Draw (n,) float flags whose mean slope is 1."""
        happened = bernoulli(state, keys, p)
        chance = p.detach()  # a slope, not a value
        slope = 0.5 / torch.where(happened, chance, 1 - chance)
        certain = (chance == 0) | (chance == 1)
        return _flag(p, happened, torch.where(certain, torch.ones_like(slope), slope))


class _Flag(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(p: Tensor, happened: Tensor, slope: Tensor) -> Tensor:
        return happened.to(p.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:  # noqa: ANN401
        ctx.save_for_backward(inputs[2])
        ctx.save_for_forward(inputs[2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return grads[0] * ctx.saved_tensors[0], None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:  # noqa: ANN401
        slope: Tensor = ctx.saved_tensors[0]
        return tangents[0] * slope


def _flag(p: Tensor, happened: Tensor, slope: Tensor) -> Tensor:
    """Flags (n,) of p's dtype: 1 where it happened, d flag / d p = slope."""
    result: Tensor = _Flag.apply(p, happened, slope.to(p.dtype))  # type: ignore[no-untyped-call]
    return result


class LocalScore(Hard):
    r"""The score function, with every draw left out that an outcome cannot depend on.

    A draw notes the gradient of its log-likelihood in the log-weight of the agent that drew; the weight multiplies
    what the agent sends and what it counts for. So an outcome is multiplied by the score of the agent's own draws and,
    through the messages, by those of its sources in proportion to what each sent.

    Exact in expectation for agents that do not interact, and for interactions through sums over many. Where few meet
    again and again a finite change of a hazard is taken at its slope; what an infection owes to its infector is given
    back (`gnabm.lineage`), the rest is a bias, measured in `docs/gradients.md`.
    References: Glynn (1990), Commun. ACM 33(10), 75-84; Schulman et al. (2015), arXiv 1506.05254, section 4.
    """


class Score(Hard):
    r"""The score function of the whole run, with a control variate.

    .. math:: \nabla E[Y] = E[(Y - b) \sum \nabla \log P(\text{draw})] + E[\nabla Y]

    The sum is over all draws of all agents up to the step of Y, the last term is the ordinary gradient of Y given the
    draws. Unbiased for every model and every b that does not depend on the draws of this run; the variance grows with
    the number of draws, so it serves small populations, short horizons, or as the reference of the others.

    Args:
        baseline: b by observable, a number or (T, ...) of the observable's shape; 0 where absent. The mean over runs of
            other seeds takes most of the variance away.

    Raises:
        DataError: A number of the baseline is not finite.

    References: Glynn (1990), Commun. ACM 33(10), 75-84; Williams (1992), Machine Learning 8, 229-256.
    """

    local: ClassVar[bool] = False

    def __init__(self, baseline: Mapping[str, Tensor | float] | None = None) -> None:
        self.baseline = {n: torch.as_tensor(b, dtype=torch.float64).detach() for n, b in (baseline or {}).items()}
        for name, value in self.baseline.items():
            if not bool(torch.isfinite(value).all()):
                raise DataError(f"the baseline of {name!r} must be finite; give the mean over runs of other seeds")

    def check(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Refuse a baseline that does not fit a run.

        Args:
            shapes: Shape (T, ...) of each observable of the run, by name.

        Raises:
            ConfigError: There is no observable of a name in the baseline.
            ShapeError: Its values are neither one number nor one for each of the observable.
        """
        for name, value in self.baseline.items():
            if name not in shapes:
                raise ConfigError(f"the baseline of the score names {name!r}; {nearest(name, shapes)} as observables")
            if value.dim() and tuple(value.shape) != tuple(shapes[name]):
                raise ShapeError(
                    f"the baseline of {name!r} must be one number or have shape {tuple(shapes[name])}, as the run has "
                    f"it, got {tuple(value.shape)}"
                )

    def residual(self, name: str, value: Tensor) -> Tensor:
        """Y - b, by which the likelihood of a run is multiplied.

        Args:
            name: Name of the observable.
            value: (T, ...) its values Y, of all steps.

        Returns:
            (T, ...) float64, without gradient.
        """
        # The score is multiplied by a number.
        return value.detach().to(torch.float64) - self.baseline.get(name, torch.zeros((), dtype=torch.float64))


class _LogLikelihood(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(p: Tensor, drawn: Tensor) -> Tensor:
        return torch.zeros_like(p)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ANN401
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        return grads[0] * _score(*ctx.saved_tensors), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:  # noqa: ANN401
        return tangents[0] * _score(*ctx.saved_tensors)


def _score(p: Tensor, drawn: Tensor) -> Tensor:
    # What is certain has no likelihood to change.
    slope = torch.where(drawn, 1 / p, 1 / (p - 1))
    return torch.where((p > 0) & (p < 1), slope, torch.zeros_like(slope))


def log_likelihood(p: Tensor, drawn: Tensor) -> Tensor:
    """0 in value, with the gradient of the log-likelihood of what was drawn.

    Args:
        p: (n,) probabilities.
        drawn: (n,) bool.

    Returns:
        (n,) zeros; no gradient where p is 0 or 1.
    """
    result: Tensor = _LogLikelihood.apply(p, drawn)  # type: ignore[no-untyped-call]
    return result


class _GradientOnly(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.zeros_like(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ANN401
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ANN401
        return grads[0]

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:  # noqa: ANN401
        return tangents[0].clone()  # an output's tangent must be its own


def gradient_only(x: Tensor) -> Tensor:
    """0 in value, whatever the value of x, infinite or NaN too; with the gradient of x (any shape)."""
    result: Tensor = _GradientOnly.apply(x)  # type: ignore[no-untyped-call]
    return result


_ESTIMATORS: Mapping[str, Callable[[], Estimator]] = {
    "local-score": LocalScore,
    "straight-through": StraightThrough,
    "gumbel": Gumbel,
    "smoothed": Smoothed,
    "score": Score,
}
ESTIMATORS = tuple(_ESTIMATORS)
"""Names of the estimators that a differentiable run can have."""


def estimator(name: str | Estimator | None) -> Estimator:
    """The estimator of a run by name (`gumbel(0.1)` with a temperature), or the one given; None for a forward run.

    Raises:
        ConfigError: There is none of that name, or the likelihood is to weigh the whole run without a `Score`.
        KindError: What was given is no estimator.
    """
    if name is None:
        return Hard()
    if not isinstance(name, str):
        _refuse_other(name)
        return name
    kind, _, argument = name.removesuffix(")").partition("(")
    if kind == "gumbel" and argument:
        try:
            return Gumbel(float(argument))
        except ValueError:
            raise ConfigError(f"expected gumbel with a temperature, such as gumbel(0.5), got {name!r}") from None
    if name not in _ESTIMATORS:
        raise ConfigError(f"unknown gradient estimator {name!r}; {nearest(name, _ESTIMATORS)}")
    return _ESTIMATORS[name]()


def _refuse_other(given: Estimator) -> None:
    """Refuse an object that a run would take for an estimator and get no gradient from."""
    kind = type(given).__name__
    said = all(isinstance(getattr(given, part, None), bool) for part in ("flags", "local"))
    if isinstance(given, type) or not callable(given) or not said:
        raise KindError(
            "an estimator is an object that is called with (state, keys, p) and says by flags and local, each True or "
            f"False, how its gradient is taken; got {given!r}; see gnabm.sampling.Estimator, or name one of "
            f"{', '.join(_ESTIMATORS)}"
        )
    if not given.flags and not given.local and not isinstance(given, Score):
        raise ConfigError(
            f"{kind} has neither flags nor a local likelihood: only Score weighs a whole run; make it a subclass of "
            "gnabm.sampling.Score, or set local = True"
        )


def weighed(x: Tensor, weights: Tensor) -> Tensor:
    """Numbers (n,) to be added up, times the weights (n,) of their agents; whole numbers stay exact, up to 2^53."""
    whole = not x.is_floating_point() and x.dtype != torch.bool
    return x.to(torch.float64) * weights if whole else x * weights


def zero_where(mask: Tensor, p: Tensor) -> Tensor:
    """Probabilities of a forward run set to 0 where an agent cannot have the event.

    Args:
        mask: (n,) bool or number.
        p: (n,).
    """
    return torch.where(mask != 0, p, torch.zeros_like(p))
