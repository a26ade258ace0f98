"""The tables of docs/gradients.md: each estimator beside finite differences, on the shipped models.

`python -m benchmarks.estimators` writes them anew, within eight minutes on two quiet cores. What was measured is kept
in docs/gradients.json under a hash of what was asked and of all of gnabm. A case of the same hash is not measured
again, unless `--anew`.
"""

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.page import table
from gnabm.cli.populations import prepare
from gnabm.config import load
from gnabm.gradients import compare

ROOT = Path(__file__).parents[1]
PAGE, KEPT = ROOT / "docs" / "gradients.md", ROOT / "docs" / "gradients.json"
HEADING = "## Measured on the shipped models\n"
"""Of the page's last section, which is written anew."""
COLUMNS = (
    "parameter", "outcome", "estimator", "gradient", "difference", "bias, %", "standard deviation", "seconds", "MiB",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One table.

    Args:
        title: Its heading.
        config: Config.
        overrides: As `key=value`.
        parameters: Patterns of names.
        observables: Names of outcomes.
        estimators: Names.
    """

    title: str
    config: str
    overrides: tuple[str, ...]
    parameters: tuple[str, ...]
    observables: tuple[str, ...]
    estimators: tuple[str, ...]


def cases(agents: int, steps: int) -> list[Case]:
    """The tables of a size."""
    size = (f"population.num_agents={agents}", f"run.steps={steps}")
    every = ("local-score", "straight-through", "gumbel(0.5)", "smoothed", "score")
    return [
        Case(
            f"sir, {agents:,} agents, {steps} days", "sir_small", (*size, "parameters.initial_infected=0.005"),
            ("*",), ("incidence", "stage_count.infectious"), every,
        ),
        Case(
            # Enough infected and severe cases that admissions can be compared
            f"covid, {agents:,} agents, {steps} days", "new_zealand",
            (*size, "parameters.seeding=[{per_100k: 500}]", "parameters.severity=2"),
            ("Infect.transmission_rate", "Infect.layer_weights.*", "Progress.severity", "Progress.mean_days.pre*"),
            ("incidence", "hospital_admissions"), ("local-score", "straight-through"),
        ),
    ]  # fmt: skip


def measured(case: Case, seeds: int, budget: float, kept: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of a case, new unless what is kept has its hash."""
    config = load(case.config, list(case.overrides))
    told = hashlib.sha256(json.dumps([config.resolved(), vars(case), seeds, budget], default=str).encode())
    for path in sorted((ROOT / "gnabm").rglob("*.py")):
        told.update(path.read_bytes())
    if kept.get("hash") == told.hexdigest():
        return dict(kept)
    ready, run = prepare(config, strict=False), config.run
    rows = compare(
        ready.model, ready.population, steps=run.steps, seeds=range(seeds), parameters=case.parameters,
        estimators=case.estimators, observables=case.observables, budget=budget, dt=run.dt, start=run.start,
        changes=ready.changes,
    )  # fmt: skip
    asked = {"config": case.config, "overrides": list(case.overrides), "seeds": seeds, "budget": budget}
    return {"hash": told.hexdigest(), "asked": asked, "rows": [row.to_dict() for row in rows]}


def shown(title: str, found: Mapping[str, Any]) -> str:
    """A section of the page."""
    cells, asked, rows = [], found["asked"], found["rows"]
    for row in rows:
        bias = "" if row["bias_percent"] is None else f"{row['bias_percent']:+.0f} ± {row['bias_se']:.0f}"
        memory = "" if row["bytes"] is None else f"{row['bytes'] / 2**20:.0f}"
        mean, spread = "none", ""
        if row["mean"] is not None:
            mean, spread = f"{row['mean']:.4g} ± {row['se']:.2g}", f"{row['variance'] ** 0.5:.3g}"
        difference = f"{row['fd']:.4g} ± {row['fd_se']:.2g}"
        cells.append([
            row["parameter"], row["observable"], row["estimator"], mean, difference, bias, spread,
            f"{row['seconds']:.2f}", memory,
        ])  # fmt: skip
    how = " ".join([asked["config"], *(f"--set '{override}'" for override in asked["overrides"])])
    return (
        f"### {title}\n\n`{how}`; {rows[0]['seeds']} seeds of {asked['seeds']}, as many as a budget of "
        f"{asked['budget']:g} s allowed. The standard deviation is of one seed.\n\n{table(COLUMNS, cells)}\n"
    )


def written(text: str, sections: Sequence[str]) -> str:
    """The page with its tables replaced.

    Args:
        text: The page.
        sections: The tables.

    Raises:
        ValueError: It has no heading for them.
    """
    if text.count(f"\n{HEADING}") != 1:
        raise ValueError(f"expected one heading {HEADING.strip()!r} on {PAGE.name}, as its last section; put it there")
    return text.partition(HEADING)[0] + HEADING + "\n" + "\n".join(sections)


def main() -> None:
    """Measure what is not kept, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budget", type=float, default=200.0, help="seconds for each table")
    parser.add_argument("--anew", action="store_true", help="measure what is kept too")
    given = parser.parse_args()
    written(PAGE.read_text(), [])  # refused before anything is measured
    kept = json.loads(KEPT.read_text()) if KEPT.exists() and not given.anew else {}
    sections = []
    for case in cases(given.agents, given.steps):
        kept[case.title] = measured(case, given.seeds, given.budget, kept.get(case.title, {}))
        KEPT.write_text(json.dumps(kept, indent=1) + "\n")
        sections.append(shown(case.title, kept[case.title]))
    PAGE.write_text(written(PAGE.read_text(), sections))


if __name__ == "__main__":
    main()
