"""The command line: `gnabm build | plan | run | inspect | report | explain | branch | gradients | sensitivity`.

The only place that puts gnabm, graphs and cluster together. Everything heavy is imported inside the commands, so that
`--help` answers at once. Exit codes: 0, 2 for bad input, 1 for a failure while running.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from gnabm.cli.failures import guarded

app = typer.Typer(
    help="Simulate whole populations as message passing over contact graphs.",
    epilog="Example: gnabm run sir_small --out runs/first, then gnabm report runs/first",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

ConfigFile = Annotated[
    str, typer.Argument(metavar="CONFIG", help="YAML file, or the name of a shipped config: new_zealand, sir_small.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a value, such as run.steps=30; repeatable."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse tables that are assumed rather than measured.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


@app.command(epilog="Example: gnabm build new_zealand --set population.num_agents=50000 --out nz.zarr")
@guarded
def build(
    config: ConfigFile,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the store; the cache if left out.")
    ] = None,
    overwrite: Overwrite = False,
    strict: Strict = False,
) -> None:
    """Build the population of a config and say which tables it comes from."""
    from gnabm.cli.populations import build_population

    build_population(config, overrides or [], out, overwrite=overwrite, strict=strict)


@app.command(epilog="Example: gnabm plan new_zealand --set run.shards=4")
@guarded
def plan(
    config: ConfigFile,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Run folder that the disk is checked for.")
    ] = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Say what a run needs before it runs: contacts, shards, memory, disk."""
    from gnabm.cli.running import plan_config

    plan_config(config, overrides or [], out, strict=strict, as_json=as_json)


@app.command(epilog="Example: gnabm run new_zealand --set run.shards=2 --set run.seed=8 --out runs/seed8")
@guarded
def run(
    config: ConfigFile,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Run folder; runs/NAME if left out.")] = None,
    overwrite: Overwrite = False,
    strict: Strict = False,
) -> None:
    """Simulate; leaves config.yaml and trajectory.zarr in the run folder."""
    from gnabm.cli.running import run_config

    run_config(config, overrides or [], out, overwrite=overwrite, strict=strict)


@app.command(epilog="Example: gnabm inspect --json runs/new_zealand")
@guarded
def inspect(
    path: Annotated[Path, typer.Argument(metavar="STORE_OR_RUN", help="Graph store, run folder or trajectory.")],
    as_json: AsJson = False,
) -> None:
    """Show what a graph store or a run holds."""
    from gnabm.cli.inspecting import inspect_path

    inspect_path(path, as_json=as_json)


@app.command(epilog="Example: gnabm report runs/seed7 runs/seed8 --out new_zealand.html")
@guarded
def report(
    paths: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folder, or several that differ in the seed only.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Page to write; report.html in or beside the runs if left out."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write one self-contained HTML page about a run, and a CSV and PNG of every figure beside it."""
    from gnabm.cli.reporting import write_report

    write_report(paths, out, overwrite=overwrite)


@app.command(epilog="Example: gnabm explain runs/new_zealand --agent 20231 --day 60")
@guarded
def explain(
    path: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    agent: Annotated[int, typer.Option("--agent", metavar="KEY", help="Key of the agent.")],
    day: Annotated[
        float | None, typer.Option("--day", metavar="D", help="Days since the start; -1 for the initial state.")
    ] = None,
    at: Annotated[
        datetime | None, typer.Option("--date", metavar="DATE", formats=["%Y-%m-%d"], help="Date instead of a day.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say why an agent did what it did on a day; the run is made again up to there."""
    from gnabm.cli.explaining import explain_run

    explain_run(path, agent, day, None if at is None else at.date(), as_json=as_json)


@app.command(
    epilog="Example: gnabm branch runs/new_zealand --day 60 --set parameters.recovery_rate=0.2 --out runs/faster"
)
@guarded
def branch(
    path: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    day: Annotated[float, typer.Option("--day", metavar="D", help="Days since the start; the first that may differ.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Run folder; with --scenarios each leaves DIR/NAME.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="What holds from that day on; repeatable."),
    ] = None,
    scenarios: Annotated[
        Path | None,
        typer.Option("--scenarios", metavar="FILE", help="YAML: name of a scenario to its keys and values."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Run scenarios from the state of a run on a day; the bits are those of running each whole."""
    from gnabm.cli.branching import branch_run

    branch_run(path, day, overrides or [], scenarios, out, overwrite=overwrite)


@app.command(epilog="Example: gnabm gradients sir_small --estimators smoothed --observables incidence")
@guarded
def gradients(
    config: ConfigFile,
    overrides: Overrides = None,
    chains: Annotated[
        bool, typer.Option("--audit", help="Say which parameter moves which outcome, and where a chain breaks.")
    ] = False,
    agents: Annotated[
        int | None,
        typer.Option("--agents", min=1, metavar="N", help="Agents of a country; at most 10,000 unless --set says."),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps; at most 60 if left out.")] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", min=2, help="Number of seeds; 10 if left out.")] = None,
    estimators: Annotated[
        list[str] | None,
        typer.Option(
            "--estimators", metavar="NAME", help="local-score, straight-through, gumbel(0.5), smoothed, score."
        ),
    ] = None,
    parameters: Annotated[
        list[str] | None, typer.Option("--parameters", metavar="PATTERN", help="Such as 'Infect.*'; repeatable.")
    ] = None,
    observables: Annotated[
        list[str] | None, typer.Option("--observables", metavar="NAME", help="Such as deaths; repeatable.")
    ] = None,
    width: Annotated[
        float | None, typer.Option("--width", help="Half the width of a difference, as a share; 0.1 if left out.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option("--budget", help="Seconds after which no other seed is begun; 300 if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set the gradients of a config's model beside finite differences of the same draws."""
    from gnabm.cli.gradients import Asked, audit_config, compare_config

    asked = Asked(agents, steps, seeds, estimators or [], parameters or ["*"], observables or None, width, budget)
    (audit_config if chains else compare_config)(config, overrides or [], asked, as_json=as_json)


@app.command(epilog="Example: gnabm sensitivity sir_small --by week --parameters 'Infect.*' --seeds 5 --check")
@guarded
def sensitivity(
    config: ConfigFile,
    overrides: Overrides = None,
    parameters: Annotated[
        list[str] | None, typer.Option("--parameters", metavar="PATTERN", help="Such as 'Infect.*'; repeatable.")
    ] = None,
    outcome: Annotated[str, typer.Option("--outcome", metavar="NAME", help="Observable to sum.")] = "incidence",
    by: Annotated[
        list[str] | None,
        typer.Option("--by", metavar="GROUP", help="age_group, region, week, all, or region:week; repeatable."),
    ] = None,
    window: Annotated[
        tuple[float, float] | None, typer.Option("--window", metavar="DAY DAY", help="First day, day after the last.")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Differentiable runs.")] = 5,
    check: Annotated[bool, typer.Option("--check", help="Compare with central differences.")] = False,
    check_seeds: Annotated[int, typer.Option("--check-seeds", min=2, help="Seeds of --check.")] = 30,
    factor: Annotated[float, typer.Option("--factor", help="Change of a parameter in --check.")] = 1.1,
    whole: Annotated[bool, typer.Option("--global", help="Add Sobol and Morris over ranges.")] = False,
    samples: Annotated[int, typer.Option("--samples", min=2, help="Base samples of --global, 2 ** n.")] = 16,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="HTML page with heat maps.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Say how outcomes change with parameters, from one differentiable run per seed."""
    from gnabm.cli.sensitivity import Asked, show_sensitivity

    asked = Asked(
        tuple(parameters or ["*"]), outcome, tuple(by or []), window, seeds, check_seeds if check else 0, factor,
        samples if whole else 0,
    )  # fmt: skip
    show_sensitivity(config, overrides or [], asked, out, as_json=as_json, overwrite=overwrite)


def main() -> None:
    """Entry point of the command `gnabm`."""
    app(prog_name="gnabm")
