"""Conformance: does a rule or a model keep what gnabm promises, and if not, which line breaks it?

A test inherits `ModelConformance` or `RuleConformance`, says what it tests, and gets one test per promise:

    class TestWaning(RuleConformance):
        state = {"immunity": State(1.0)}

        def rule(self):
            return Waning(rate=0.1)

Each check runs the rule twice in ways that must not matter (rows in another order, other shards, other threads,
other kernels) and compares everything that it computed, probabilities included, bit by bit. A difference that would
flip one draw in a million is so found in seconds. A failure names step, rule, field and agent, and the operation that
is the likely cause, with the cure.
"""

from gnabm.testing.awkward import awkward_population, permuted
from gnabm.testing.conformance import ModelConformance, RuleConformance
from gnabm.testing.watch import ConformanceError, Note, Watched, first_difference, watch

__all__ = [
    "ConformanceError",
    "ModelConformance",
    "Note",
    "RuleConformance",
    "Watched",
    "awkward_population",
    "first_difference",
    "permuted",
    "watch",
]
