"""`python -m benchmarks.country`: New Zealand with `epidemic.covid`, by what is recorded, as one command each."""

import argparse
from pathlib import Path

from benchmarks import command, page

COLUMNS = (
    "recorded", "shards", "seconds", "start-up s", "whole command s", "agent-steps/s", "peak RSS", "of shards", "disk",
    "attack rate",
)  # fmt: skip
CASES: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    ("aggregates", 1, ("record.infections=false",)),
    ("aggregates", 2, ("record.infections=false",)),
    ("the stage of every agent", 1, ("record.infections=false", "record.fields=[stage]")),
    ("who infected whom", 1, ()),
    ("who infected whom", 2, ()),
)
LEGEND = """\
`gnabm run configs/new_zealand.yaml` with what is recorded and the number of shards set, {steps} days, from a graph that
is built; one run each. Seconds: from the first step to the end, with all that is written. Start-up: reading the shards
and starting Ray for two. The whole command also loads the libraries and derives the transmission rate. Disk:
trajectory and line list. Attack rate: with those infected at first.
"""


def main() -> None:
    """Read the command line, run all cases, keep the section."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.country", description=__doc__)
    parser.add_argument("--agents", type=int, help="all residents if left out")
    parser.add_argument("--steps", type=int, default=180)
    parser.add_argument("--out", type=Path, default=page.RESULTS)
    asked = parser.parse_args()
    measured_on = page.measured_on()
    size = [f"population.num_agents={asked.agents}"] if asked.agents else []
    _, built, new = command.build("new_zealand", size)
    rows = []
    for recorded, shards, overrides in CASES:
        ran = command.run("new_zealand", [*size, *overrides, f"run.steps={asked.steps}", f"run.shards={shards}"])
        rows.append(
            [
                recorded,
                str(shards),
                f"{ran.seconds:.1f}",
                f"{ran.startup:.1f}",
                f"{ran.wall:.1f}",
                f"{ran.num_agents * asked.steps / ran.seconds:.3g}",
                page.gibibytes(ran.peak[0]),
                ", ".join(map(page.gibibytes, ran.peak[1:])) or "-",
                f"{ran.disk / 1e6:,.0f} MB",
                f"{ran.attack_rate:.4f}",
            ]
        )
    lines = [f"The graph was built in {built.seconds:.1f} s, {page.gibibytes(built.peak)} at the peak."] if new else []
    legend = LEGEND.format(steps=asked.steps).strip()
    page.keep(page.COUNTRY, "\n\n".join([measured_on, legend, *lines, page.table(COLUMNS, rows)]), asked.out)


if __name__ == "__main__":
    main()
