"""The command line: `gnabm build | plan | run | inspect | report`.

The only place that puts gnabm, graphs and cluster together. Everything heavy is imported inside the commands, so that
`--help` answers at once. Exit codes: 0, 2 for bad input, 1 for a failure while running.
"""

from __future__ import annotations

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


@app.command(epilog="Example: gnabm report runs/new_zealand --out new_zealand.html")
@guarded
def report(
    path: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Page to write; RUN/report.html if left out.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write one self-contained HTML page about a run."""
    from gnabm.cli.inspecting import write_report

    write_report(path, out, overwrite=overwrite)


def main() -> None:
    """Entry point of the command `gnabm`."""
    app(prog_name="gnabm")
