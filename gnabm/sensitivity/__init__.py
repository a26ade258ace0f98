"""Sensitivity of outcomes to parameters: from one run, by brute force, over ranges; and what to close by gradient."""

from gnabm.sensitivity.allocation import allocate, project, refine
from gnabm.sensitivity.brute import Agreement, agreement, differences
from gnabm.sensitivity.elements import Elements
from gnabm.sensitivity.oneshot import Sensitivity, sensitivity
from gnabm.sensitivity.outcomes import Outcomes
from gnabm.sensitivity.question import Campaign, Question, Variant, in_process
from gnabm.sensitivity.ranges import Global, over_ranges

__all__ = [
    "Agreement",
    "Campaign",
    "Elements",
    "Global",
    "Outcomes",
    "Question",
    "Sensitivity",
    "Variant",
    "agreement",
    "allocate",
    "differences",
    "in_process",
    "over_ranges",
    "project",
    "refine",
    "sensitivity",
]
