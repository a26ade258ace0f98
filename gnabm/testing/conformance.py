"""The conformance classes: what a test of a model or of a rule inherits."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import ClassVar
from unittest import SkipTest

import numpy as np
import torch
from torch import Tensor

from gnabm.agents import Agents, Column, Stage, Stages
from gnabm.model import Model, State
from gnabm.neighbours import Form, Neighbours
from gnabm.population import Population
from gnabm.random import salt, uniform
from gnabm.rule import Merge, Rule, Step
from gnabm.shard import cut
from gnabm.testing.awkward import awkward_population, permuted, single_groups_expected
from gnabm.testing.causes import likely_causes
from gnabm.testing.watch import (
    ConformanceError,
    Note,
    Watched,
    any_per_row,
    bits_differ,
    first_difference,
    num_threads,
    watch,
)

_THREADS = (1, 2, 3, 7)
_TOLERANCE = 1e-6


class ModelConformance:
    """Tests of a model; a subclass named `Test...` says which model and, if need be, on which population.

    Attributes:
        small: Agents in the checks that run often.
        large: Agents in the checks of threads: enough that torch and the kernels do split the work.
        steps: Steps of a run on the small population; a few are run on the large one.
        seed: Seed of the runs.
        gradient: Estimator of the differentiable runs, or None for a model that is not differentiable.
    """

    small: ClassVar[int] = 1_500
    large: ClassVar[int] = 100_000
    steps: ClassVar[int] = 6
    seed: ClassVar[int] = 7
    gradient: ClassVar[str | None] = "straight-through"

    def model(self) -> Model:
        """The model to test, a new one at each call."""
        raise NotImplementedError(f"{type(self).__name__}.model must return the Model to test")

    def population(self, num_agents: int) -> Population:
        """Agents and contacts of about that size; the default has every kind of layer, ages and regions."""
        return awkward_population(num_agents)

    def test_permuting_rows_permutes_the_trajectory(self) -> None:
        """Who an agent is hangs on its key: bits for messages of whole numbers, 1e-6 where sums are rounded."""
        model, population = self.model(), self.population(self.small)
        kept = single_groups_expected(population.contacts)
        population = Population(population.num_agents, population.columns, kept, population.fields)
        with num_threads(1):
            one = Watched(model, cut(population), seed=self.seed)
            other = Watched(model, cut(permuted(population)), seed=self.seed)
            for _ in range(self.steps):
                self._compare_permuted(one, other)
                _continue_from(one, other)
                one.advance()
                other.advance()
            self._compare_permuted(one, other)

    def test_shards_give_the_same_bits(self) -> None:
        """One history on 1, 2, 3 and 7 unequal shards, by the plain rules and by their kernels."""
        population = self.population(self.small)
        for form, words in self._forms().items():
            whole = self._watch(population, messages=form)
            for size in (2, 3, 7):
                parts = self._watch(population, messages=form, bounds=_bounds(population.num_agents, size))
                self._same(whole, parts, (f"on 1 shard{words}", f"on {size} shards{words}"))

    def test_every_row_gives_the_same_bits_wherever_it_stands(self) -> None:
        """The rules evaluated on short runs of rows, at odd offsets, compute what they compute on all rows."""
        population = self.population(self.small)
        whole = self._watch(population, steps=2)
        parts = self._watch(population, steps=2, bounds=_bounds(population.num_agents, 60))
        self._same(whole, parts, ("among all rows", "in a short run of rows"))

    def test_push_and_pull_give_the_same_bits(self) -> None:
        """The messages go out from active sources, or every target reads its own."""
        population = self.population(self.small)
        push = self._watch(population, messages="push")
        self._same(push, self._watch(population, messages="pull"), ("in push form", "in pull form"))

    def test_a_kernel_gives_the_same_bits(self) -> None:
        """Rules that have a kernel of their own (`Rule.fused`) change the same agents as their plain form."""
        population = self.population(self.small)
        plain = [n for n in self._watch(population, messages="push") if not n.field.startswith("probability")]
        self._same(plain, self._watch(population, messages="auto"), ("as plain torch", "by its kernel"))

    def test_threads_give_the_same_bits(self) -> None:
        """One history on 1, 2, 3 and 7 threads, by the plain rules and by their kernels, of many agents."""
        population = self.population(self.large)
        for form, words in self._forms().items():
            runs = []
            for threads in _THREADS:
                runs.append(self._watch(population, steps=3, threads=threads, messages=form))
                self._same(runs[0], runs[-1], (f"on 1 thread{words}", f"on {threads} threads{words}"))

    def test_a_differentiable_run_has_the_same_bits(self) -> None:
        """Estimators differ in the backward pass only."""
        self._needs_gradient()
        population = self.population(self.small)
        forward, flags = self._watch(population), self._watch(population, gradient=self.gradient)
        counts = [n.value.is_floating_point() for n in flags]
        flags = [
            Note(b.step, b.rule, b.field, b.key, b.value.to(a.value.dtype)) if a.rule == "observables" and c else b
            for a, b, c in zip(forward, flags, counts, strict=True)
        ]
        self._same(forward, flags, ("in a forward run", "in a differentiable run"))

    def test_gradients_have_the_same_bits_on_any_number_of_threads(self) -> None:
        """Of the state after some steps with respect to the state before them; parameters agree to 1e-3."""
        self._needs_gradient()
        shard = cut(self.population(self.large))
        first: dict[str, Tensor] = {}
        for threads in _THREADS:
            with num_threads(threads):
                found = self._gradients(
                    self._leaves(Watched(self.model(), shard, seed=self.seed, gradient=self.gradient))
                )
            first = first or found
            for name, mine in first.items():
                per_agent = mine.shape[:1] == shard.columns["key"].shape
                differ = bits_differ if per_agent else _far
                key = shard.columns["key"] if per_agent else torch.arange(mine.numel())
                a, b = (
                    Note(0, "backward", f"gradient with respect to {name}", key, g if per_agent else g.reshape(-1))
                    for g in (mine, found[name])
                )
                self._refuse(first_difference([a], [b], differ, ("on 1 thread", f"on {threads} threads")))

    def test_stages_are_conserved(self) -> None:
        """Every agent is in exactly one stage, and none appears or vanishes."""
        population, model = self.population(self.small), self.model()
        for gradient in {None, self.gradient}:
            run = Watched(model, cut(population), seed=self.seed, gradient=gradient)
            for step in range(self.steps + 1):
                for name, family in model.state.items():
                    if isinstance(family, Stages):
                        _refuse_lost(run.agents, name, family, step)
                if step < self.steps:
                    run.advance()

    def test_rules_leave_the_state_that_they_read_unchanged(self) -> None:
        """A rule returns its changes; it writes nothing in place."""
        for gradient in {None, self.gradient}:
            self._watch(self.population(self.small), gradient=gradient)

    def test_draws_are_keyed(self) -> None:
        """Global generators neither move nor matter."""
        population = self.population(self.small)
        runs = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            np.random.seed(seed)  # the generators that a rule must not use
            random.seed(seed)
            before = _generators()
            runs.append(self._watch(population))
            if _generators() != before:
                raise ConformanceError(f"a global generator was used; {self._causes()}")
        self._same(runs[0], runs[1], ("with the global generators seeded by 1", "seeded by 2"))

    def _watch(
        self,
        population: Population,
        *,
        steps: int | None = None,
        bounds: Sequence[int] | None = None,
        messages: Form | None = None,
        gradient: str | None = None,
        threads: int = 1,
    ) -> list[Note]:
        steps = self.steps if steps is None else steps
        if messages is None:  # the plain rules, whose probabilities are noted
            messages = "pull" if gradient is not None else "push"
        with num_threads(threads):
            return watch(
                self.model(), population, steps=steps, seed=self.seed, bounds=bounds, messages=messages,
                gradient=gradient,
            )  # fmt: skip

    def _forms(self) -> dict[Form, str]:
        """The forms of a run whose rules compute in different ways, and how errors call them."""
        model = self.model()
        if any(rule.has_kernel for rule in (*model.initial, *model.rules())):
            return {"push": "", "auto": " by the kernels of the rules"}
        return {"push": ""}

    def _same(self, one: Sequence[Note], other: Sequence[Note], labels: tuple[str, str]) -> None:
        self._refuse(first_difference(one, other, bits_differ, labels))

    def _refuse(self, difference: tuple[Note, str] | None) -> None:
        if difference is not None:
            raise ConformanceError(f"{difference[1]}; {self._causes()}")

    def _causes(self) -> str:
        population = self.population(self.small)
        return likely_causes(lambda: self._watch(population, steps=2, gradient=self.gradient))

    def _needs_gradient(self) -> None:
        if self.gradient is None:
            raise SkipTest("this model is not differentiable")

    def _compare_permuted(self, one: Watched, other: Watched) -> None:
        labels = ("in the stored order of rows", "in a permuted order")
        if one.integer_messages and other.integer_messages:
            self._same(one.notes, other.notes, labels)
        flipped = _flipped(one.notes, other.notes)

        def differ(a: Note, b: Note) -> Tensor:
            if a.rule == "observables":
                return torch.zeros(a.key.shape[0], dtype=torch.bool)  # sums of what was compared agent by agent
            if a.value.is_floating_point():
                return _far(a, b, _TOLERANCE) & ~torch.isin(a.key, flipped)
            return bits_differ(a, b) & ~torch.isin(a.key, flipped)

        self._refuse(first_difference(one.notes, other.notes, differ, labels))
        one.notes.clear()
        other.notes.clear()

    def _leaves(self, run: Watched) -> tuple[Watched, dict[str, Tensor]]:
        leaves: dict[str, Tensor] = {}
        changed: dict[str, Column] = {}
        for name in run.model.state:
            column = run.agents.columns[name]
            if isinstance(column, Stage) and column.flags is not None:
                leaves[name] = column.flags.detach().clone().requires_grad_()  # a leaf: what came before is not asked
                changed[name] = Stage(column.family, column.codes, leaves[name])
            elif isinstance(column, Tensor) and column.is_floating_point():
                leaves[name] = changed[name] = column.detach().clone().requires_grad_()  # likewise
        run.agents = run.agents.replace(changed)
        return run, leaves

    def _gradients(self, prepared: tuple[Watched, dict[str, Tensor]]) -> dict[str, Tensor]:
        run, leaves = prepared
        for _ in range(2):
            run.advance()
        key: Tensor = run.agents.key
        outputs = [_floats(run.agents.columns[name]) for name in leaves]
        outputs = [o for o in outputs if o.requires_grad]
        parameters = {n: p for n, p in run.model.named_parameters() if p.requires_grad}
        inputs = {
            **{f"field {n!r}": x for n, x in leaves.items()},
            **{f"parameter {n!r}": p for n, p in parameters.items()},
        }
        if not outputs or not inputs:
            raise SkipTest("nothing that this model returns carries a gradient")
        weight = uniform(salt(self.seed, 0, "conformance"), key).to(torch.float32)
        columns = torch.arange(1, 256, dtype=torch.float32)
        wanted = [
            (weight if o.dim() == 1 else weight.unsqueeze(1) * columns[: o.shape[1]]).to(o.dtype) for o in outputs
        ]
        found = torch.autograd.grad(outputs, list(inputs.values()), wanted, allow_unused=True)
        return {name: g for name, g in zip(inputs, found, strict=True) if g is not None}


class RuleConformance(ModelConformance):
    """Tests of one rule.

    Attributes:
        state: The fields that the rule reads and writes.
    """

    state: ClassVar[Mapping[str, Stages | State]] = {}

    def rule(self) -> Rule:
        """The rule to test, a new one at each call."""
        raise NotImplementedError(f"{type(self).__name__}.rule must return the Rule to test")

    def start(self, agents: Agents, step: Step) -> Mapping[str, Column]:
        """The state that the rule meets first: any stage, floats in (0, 1), integers 0 to 9, unless overridden.

        Args:
            agents: All agents, in the state that `state` declares.
            step: Keyed draws.
        """
        return {name: _anything(name, agents.columns[name], step) for name in self.state}

    def model(self) -> Model:
        """A model of that rule alone."""
        writes: dict[str, Merge] = dict.fromkeys(self.state, "sole")
        return Model([self.rule()], state=self.state, initial=_Start(self, writes), observe=())


class _Start(Rule):
    def __init__(self, owner: RuleConformance, writes: Mapping[str, Merge]) -> None:
        super().__init__("the start of the conformance test")
        self.owner, self.writes = owner, writes  # type: ignore[misc]

    def forward(self, agents: Agents, contacts: Neighbours, step: Step) -> Mapping[str, Column]:
        return self.owner.start(agents, step)


def _generators() -> list[object]:
    """State of the global generators."""
    return [torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()]


def _anything(name: str, column: Column, step: Step) -> Column:
    u = step.uniform(name)
    if isinstance(column, Tensor):
        if column.dtype == torch.bool:
            return u < 0.5
        return u.to(column.dtype) if column.is_floating_point() else (u * 10).to(column.dtype)
    first, *others = column.family
    code = (u * len(column.family)).to(torch.uint8)
    for stage in others:
        column = column.move(first, stage, code == int(stage))
    return column


def _bounds(num_agents: int, size: int) -> tuple[int, ...]:
    """Unequal shards: short ones in front, the last has the rest."""
    rng = np.random.default_rng(size)
    inner = np.unique(rng.integers(1, max(num_agents * 3 // 4, 2), 4 * size))
    inner = np.sort(rng.permutation(inner)[: size - 1])
    return (0, *inner.tolist(), num_agents)


def _floats(column: Column) -> Tensor:
    if isinstance(column, Tensor):
        return column
    assert column.flags is not None
    return column.flags


def _far(one: Note, other: Note, tolerance: float = 1e-3) -> Tensor:
    a, b = one.value.to(torch.float64), other.value.to(torch.float64)
    far = ~((a - b).abs() <= tolerance * torch.maximum(a.abs(), torch.ones_like(a))) & ~(a.isnan() & b.isnan())
    return any_per_row(far)


def _flipped(one: Sequence[Note], other: Sequence[Note]) -> Tensor:
    """Keys of the agents with a number between two probabilities that agree to the tolerance."""
    keys = [torch.empty(0, dtype=torch.int64)]
    for a, b in zip(one, other, strict=True):
        if a.uniform is not None and b.uniform is not None and a.key.shape == b.key.shape:
            a, b = a.by_key(), b.by_key()
            keys.append(a.key[(a.uniform < a.value) != (b.uniform < b.value)])  # type: ignore[operator]
    return torch.cat(keys)


def _continue_from(one: Watched, other: Watched) -> None:
    """Set the permuted run to the state of the other, so that rounding in one step does not grow over the next."""
    key, theirs = one.agents.key, other.agents.key
    order = torch.argsort(key)[torch.searchsorted(torch.sort(key).values, theirs)]
    changed: dict[str, Column] = {}
    for name in one.model.state:
        column = one.agents.columns[name]
        changed[name] = column.take(order) if isinstance(column, Stage) else column.index_select(0, order)
    other.agents = other.agents.replace(changed)
    other.observed = one.observed


def _refuse_lost(agents: Agents, name: str, family: Stages, step: int) -> None:
    stage = agents.columns[name]
    assert isinstance(stage, Stage)
    key: Tensor = agents.key
    bad = stage.codes >= len(family)
    if stage.flags is not None:
        total = stage.flags.detach().sum(1)  # compared, never differentiated
        own = stage.flags.detach().gather(1, stage.codes.clamp(max=len(family) - 1).long().unsqueeze(1)).squeeze(1)
        bad |= (total != 1) | (own != 1)
    rows = bad.nonzero().squeeze(1)
    if rows.numel():
        at = int(rows[0])
        flags = "" if stage.flags is None else f" with flags {stage.flags[at].tolist()}"
        raise ConformanceError(
            f"after step {step - 1}, agent {int(key[at])} (row {at}) is in stage {int(stage.codes[at])} of "
            f"{family}{flags}; {rows.numel()} such agents. Make stages with agents.{name}.move(source, target, flags) "
            "and flags of 0 and 1"
        )
