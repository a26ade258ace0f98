"""A wheel runs outside the checkout, with its configs and tables inside."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command, cwd, **environment):
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_wheel_runs_a_shipped_config_outside_the_checkout(tmp_path):
    source, site, work = tmp_path / "source", tmp_path / "site", tmp_path / "work"
    work.mkdir()
    run("git", "clone", "--quiet", str(ROOT), str(source), cwd=tmp_path)
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"))
    run(*build, cwd=source)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel), cwd=work)
    where = {"PYTHONPATH": str(site), "GNABM_CACHE": str(tmp_path / "cache")}
    named = "import gnabm, graphs, cluster; print(gnabm.__file__, graphs.__file__, cluster.__file__)"
    assert run(sys.executable, "-c", named, cwd=work, **where).count(str(site)) == 3
    program = "import sys; from gnabm.cli import main; sys.argv[0] = 'gnabm'; main()"
    arguments = ("run", "sir_small", "--set", "run.steps=3", "--set", "population.num_agents=2000")
    assert "attack rate" in run(sys.executable, "-c", program, *arguments, cwd=work, **where)
    assert (work / "runs" / "sir_small" / "trajectory.zarr" / "zarr.json").is_file()
    small = ("--set", "run.steps=3", "--set", "population.num_agents=2000", "--set", "run.shards=1")
    assert "attack rate" in run(sys.executable, "-c", program, "run", "new_zealand", *small, cwd=work, **where)
    assert (work / "runs" / "new_zealand" / "infections.parquet").is_file()
