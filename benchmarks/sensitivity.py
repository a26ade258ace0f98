"""`python -m benchmarks.sensitivity`: one-shot sensitivities of New Zealand's covid beside central differences.

Compared are elasticities of new infections by age and week, in cells that the differences tell from 0 by three standard
errors. Both are made from the same seeds on; differences as Ray tasks on all cores, the one-shot runs one at a time.
*Of halves* is the rank correlation of the differences of one half of their seeds with those of the other: what their
own noise leaves of 1.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import page
from cluster.campaign import campaign
from gnabm.cli.populations import prepare
from gnabm.config import load
from gnabm.report.sensitivities import write_sensitivity
from gnabm.sensitivity import Agreement, Question, Sensitivity, agreement, differences, sensitivity

PARAMETERS = (
    "Infect.transmission_rate", "Infect.layer_weights.*", "Infect.susceptibility", "Infect.infectious.factors",
    "Seed.amount", "Progress.mean_days.mild", "Progress.mean_days.presymptomatic", "Vaccinate.against_infection",
)  # fmt: skip
GROUPS = ("age_group", "week")
COLUMNS = (
    "parameter",
    "sure cells",
    "rank correlation",
    "of halves of the differences",
    "same sign",
    "one-shot / difference",
)
RANK, SIGNS = 0.9, 0.95
"""What is asked of every parameter with enough cells, and of all cells."""
ENOUGH = 8
"""Sure cells from which on a rank correlation says something."""


def measure(agents: int, steps: int, asked: argparse.Namespace) -> tuple[Sensitivity, Sensitivity]:
    """One-shot sensitivity and differences.

    Args:
        agents: Agents of New Zealand.
        steps: Days.
        asked: Seeds of both, patterns of parameters, groups, factor, checkpoint.
    """
    ready = prepare(load("new_zealand", [f"population.num_agents={agents}", f"run.steps={steps}"]), strict=False)
    run = ready.config.run
    question = Question(ready.model, steps, asked.outcome, tuple(asked.by), None, run.dt, run.start)
    found = sensitivity(
        question, ready.population, seeds=range(asked.seeds), parameters=asked.parameters, checkpoint=asked.checkpoint
    )
    assert ready.store is not None, "a country has a store"
    with campaign(question, ready.store) as plain:
        brute = differences(
            question, ready.population, seeds=range(asked.check_seeds), parameters=asked.parameters,
            factor=asked.factor, campaign=plain,
        )  # fmt: skip
    return found, brute


def rows(agreed: Agreement) -> list[list[str]]:
    """The table of a comparison."""
    columns = zip(
        agreed.parameters, agreed.cells, agreed.rank, agreed.halves, agreed.signs, agreed.ratio, strict=True
    )  # fmt: skip
    return [[name, str(cells), *(_known(v) for v in values)] for name, cells, *values in columns]


def _known(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def missed(agreed: Agreement) -> list[str]:
    """What is below what was asked, in words."""
    low = [
        f"{name}: rank correlation {rank:.2f} over {cells} cells"
        for name, cells, rank in zip(agreed.parameters, agreed.cells, agreed.rank, strict=True)
        if rank is not None and cells >= ENOUGH and rank < RANK
    ]
    signs = agreed.all_signs
    return low + ([f"same sign in {signs:.1%} of cells"] if signs is not None and signs < SIGNS else [])


def summary(found: Sensitivity, brute: Sensitivity, agreed: Agreement, agents: int, steps: int) -> str:
    """What was compared and what it cost, as a list."""
    seeds, checked = found.outcomes.shape[0], brute.outcomes.shape[0]
    runs = 2 * checked * int(brute.elasticity.isfinite().any(0).sum())
    signs = "no sure cell" if agreed.all_signs is None else f"{agreed.all_signs:.1%}"
    error = "?" if agreed.per_error is None else f"{agreed.per_error:.0f}"
    facts = {
        "compared": f"{len(found.parameters)} parameters x {len(found.groups)} groups, {agents:,} agents, {steps} days",
        "one-shot": f"{seeds} seeds, {found.seconds:.1f} s, one at a time",
        "differences": f"{checked} seeds, {runs:,} runs, {brute.seconds:.1f} s on all cores",
        "cost": f"{agreed.cost:.1f} times as long for all, {agreed.per_seed:.1f} times for one seed, "
        f"{error} times for the same standard error",
        "same sign": signs,
    }
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sensitivity", description=__doc__)
    parser.add_argument("--agents", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=10, help="differentiable runs")
    parser.add_argument("--check-seeds", type=int, default=30, help="seeds of the differences")
    parser.add_argument("--parameters", nargs="+", default=list(PARAMETERS), metavar="PATTERN")
    parser.add_argument("--outcome", default="incidence")
    parser.add_argument("--by", nargs="+", default=list(GROUPS))
    parser.add_argument("--factor", type=float, default=1.1)
    parser.add_argument("--checkpoint", type=int, default=10)
    parser.add_argument("--out", type=Path, help=f"page to keep the section on, such as {page.RESULTS.name}")
    parser.add_argument("--html", type=Path, help="page with heat maps")
    parser.add_argument("--json", type=Path, help="file to write all that was measured to")
    return parser.parse_args(arguments)


def main() -> int:
    """Measure, keep the section; 1 if the agreement is below what is asked."""
    asked = options()
    measured_on = page.measured_on(threads=len(os.sched_getaffinity(0)))
    found, brute = measure(asked.agents, asked.steps, asked)
    agreed = agreement(found, brute)
    said = summary(found, brute, agreed, asked.agents, asked.steps)
    page.keep(page.SENSITIVITY, "\n\n".join([measured_on, said, page.table(COLUMNS, rows(agreed))]), asked.out)
    if asked.html:
        write_sensitivity(found, asked.html, name="New Zealand, covid", brute=brute)
    if asked.json:
        told: dict[str, Any] = {"one_shot": found.to_dict(), "differences": brute.to_dict(), "check": agreed.to_dict()}
        asked.json.write_text(json.dumps(told), "utf-8")
    below = missed(agreed)
    for line in below:
        sys.stdout.write(f"below what is asked: {line}\n")
    return int(bool(below))


if __name__ == "__main__":
    raise SystemExit(main())
