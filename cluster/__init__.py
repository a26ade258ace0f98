"""Runs on shards: where to cut, two transports, the trajectory on disk, and what a run will need.

`run` is the one entry; `branch` runs scenarios from one state; `plan` says what a run needs before it starts;
`run_local` and `lockstep` are for tests and for finding where two runs part. Ray is imported only when a run uses the
`actors` transport.
"""

from cluster.bounds import split
from cluster.branch import Trunk, branch
from cluster.join import run_local
from cluster.lockstep import Difference, lockstep
from cluster.plan import Plan, plan, refuse_if_too_large
from cluster.run import RunResult, run

__all__ = [
    "Difference",
    "Plan",
    "RunResult",
    "Trunk",
    "branch",
    "lockstep",
    "plan",
    "refuse_if_too_large",
    "run",
    "run_local",
    "split",
]
