"""`python -m benchmarks.ladder`: the same epidemic from one million agents to hundreds of millions.

`configs/nation.yaml` at each size: built if it is not, planned, run; every command in a process of its own.
"""

import argparse
from pathlib import Path

from benchmarks import command, machine, page

CONFIG = "nation"
STEPS = {1_000_000: 120, 5_000_000: 120, 17_000_000: 120, 67_000_000: 120, 330_000_000: 60}
"""Sizes and how many days each is simulated for."""
COLUMNS = (
    "agents", "steps", "build s", "build, peak RSS", "store", "start-up s", "seconds", "s per step", "whole command s",
    "agent-steps/s", "peak RSS", "forecast", "forecast / measured", "plan s", "attack rate", "commit",
)  # fmt: skip
NOT_BUILT = "-"
LEGEND = """\
`gnabm run configs/nation.yaml` at each size: SEIR over homes, classes, schools, teams, sites and mixing of New
Zealand's tables, one process, aggregates recorded, one run each. Seconds: from the first step to the end. Start-up:
reading the shard. The whole command also loads the libraries and derives the transmission rate. Forecast: memory by
`gnabm plan`. Build: only measured where there was no store; the others keep what an earlier measurement says. The list
above is that of the last measurement; the commit of each row stands in it.
"""


def climb(num_agents: int, steps: int) -> list[str]:
    """Build, plan and run one size; the row of the table."""
    overrides = [f"population.num_agents={num_agents}", f"run.steps={steps}"]
    store, built, new = command.build(CONFIG, overrides)
    forecast, planned = command.forecast(CONFIG, overrides)
    ran = command.run(CONFIG, overrides)
    return [
        f"{num_agents:,}",
        str(steps),
        f"{built.seconds:.0f}" if new else NOT_BUILT,
        page.gibibytes(built.peak) if new else NOT_BUILT,
        page.gibibytes(command.size(store)),
        f"{ran.startup:.1f}",
        f"{ran.seconds:.1f}",
        f"{ran.seconds / steps:.3f}",
        f"{ran.wall:.1f}",
        f"{num_agents * steps / ran.seconds:.3g}",
        page.gibibytes(ran.peak[0]),
        page.gibibytes(forecast["memory"]),
        f"{forecast['memory'] / ran.peak[0]:.2f}",
        f"{planned.seconds:.1f}",
        f"{ran.attack_rate:.4f}",
        machine.commit(),
    ]


def together(body: str, row: list[str]) -> list[list[str]]:
    """The rows of an earlier section with this one among them, by size."""
    rows = {}
    for line in body.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if len(cells) == len(COLUMNS) and cells[0].replace(",", "").isdigit():
            rows[int(cells[0].replace(",", ""))] = cells
    size = int(row[0].replace(",", ""))
    for at, name in enumerate(COLUMNS):
        if name.startswith("build") and row[at] == NOT_BUILT and size in rows:
            row = [*row[:at], rows[size][at], *row[at + 1 :]]
    rows[size] = row
    return [rows[key] for key in sorted(rows)]


def main() -> None:
    """Read the command line, measure each size, keep the section after each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ladder", description=__doc__)
    parser.add_argument("--agents", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--steps", type=int, help="120, and 60 for more than 100 million agents, if left out")
    parser.add_argument("--out", type=Path, default=page.RESULTS)
    asked = parser.parse_args()
    measured_on = page.measured_on()
    for num_agents in asked.agents:
        row = climb(num_agents, asked.steps or STEPS.get(num_agents, 120 if num_agents < 100_000_000 else 60))
        text = asked.out.read_text("utf-8") if asked.out.exists() else ""
        rows = together(page.section(text, page.SCALE), row)
        page.keep(page.SCALE, "\n\n".join([measured_on, LEGEND.strip(), page.table(COLUMNS, rows)]), asked.out)


if __name__ == "__main__":
    main()
