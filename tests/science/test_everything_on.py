"""One seed, one history, with everything on: covid in a small New Zealand, its calendar, arrivals from outside,
immunity, changes on the way, who infected whom, and hindsight by `explain`."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from cluster import run
from gnabm import open_trajectory
from gnabm.cli.populations import prepare
from gnabm.config import load
from gnabm.explain import explain

FIELDS = ("stage", "infected_on", "due", "next_stage")
SETTINGS = [
    "population.num_agents=20000",
    "run.steps=32",
    # far more than per 100,000 of the shipped config, so that every way of infection happens within the run
    "parameters.seeding=[{region: Auckland, number: 2000}, {region: Nelson, number: 20}, {number: 1000}]",
    "parameters.prior_infection={share: 0.1, against_infection: 0.5, against_severe: 0.8}",
    "parameters.importation=[{from: 2, to: 20, per_day: 10, region: Otago}, {from: 2022-01-30, per_day: 3}]",
    # where a step is a day, schools open within the run as well
    "changes=[{day: 5, set: {reproduction_number: 2}}, "
    "{date: 2022-02-01, set: {parameters.layer_weights.home: 1, run.seed: 99}}]",
]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", params=["1 day", "0.5 days"])
def ready(request, cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNABM_CACHE", str(cache))
        return prepare(load("new_zealand", [*SETTINGS, f"run.dt={request.param}"]), strict=False)


def made(ready, folder, **how):
    """Folder of a run."""
    config = ready.config.run
    run(
        ready.model, ready.store, steps=config.steps, seed=config.seed, dt=config.dt, start=config.start, record=FIELDS,
        changes=ready.changes, infections=True, out=folder, **how,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def whole(ready, tmp_path_factory):
    return made(ready, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    ("shards", "messages", "threads"),
    [
        (1, "push", 2), (1, "pull", 1), (2, "auto", 1), (2, "push", 2), (2, "pull", 1), (3, "auto", 2), (3, "push", 1),
        (3, "pull", 2), (7, "auto", 1), (7, "push", 2), (7, "pull", 1),
    ],
)  # fmt: skip
def test_shards_forms_and_threads_give_the_same_bits(ready, whole, tmp_path, shards, messages, threads):
    other = made(ready, tmp_path, shards=shards, transport="local", messages=messages, threads=threads)
    for group in (None, "infections"):
        found, wanted = (
            xr.open_zarr(folder / "trajectory.zarr", group=group, consolidated=group is None).load()
            for folder in (other, whole)
        )
        xr.testing.assert_identical(found.drop_attrs(deep=False), wanted.drop_attrs(deep=False))
    listed = [pd.read_parquet(folder / "infections.parquet") for folder in (other, whole)]
    pd.testing.assert_frame_equal(*listed)


def test_everything_is_on(ready, whole):
    dataset = open_trajectory(whole)
    listed = pd.read_parquet(whole / "infections.parquet")
    layers = set(listed.layer)
    assert {*ready.population.contacts.layers, "Seed", "Import"} <= layers, "some way of infection never happened"
    assert int(dataset.incidence.sum()) + int((listed.step == -1).sum()) == len(listed)
    assert int(dataset.hospital_admissions.sum()) > 0
    assert [period.step * ready.config.run.dt for period in ready.changes] == [5, 12]


def test_hindsight_agrees_with_the_line_list(ready, whole):
    config, dataset = ready.config.run, open_trajectory(whole)
    listed = pd.read_parquet(whole / "infections.parquet")
    stages = ready.model.state["stage"].names
    for _, cases in listed[listed.step > 8].groupby("layer", observed=True):
        case = cases.iloc[len(cases) // 2]
        told = explain(
            ready.model, ready.population, agent=int(case.agent), step=int(case.step), seed=config.seed, dt=config.dt,
            start=config.start, changes=ready.changes, most_sources=10**6,
        )  # fmt: skip
        (infected,) = (account for account in told.rules if account.infected_through is not None)
        assert infected.infected_through == case.layer
        assert infected.infected_by == (None if case.infector == -1 else case.infector)
        recorded = dataset.isel(time=int(case.step)).sel(agent=case.agent)
        assert told.after["stage"] == stages[int(recorded.stage)]
        assert [told.after[name] for name in FIELDS[1:]] == [int(recorded[name]) for name in FIELDS[1:]]
        assert told.date == pd.Timestamp(case.date)
        assert told.about["region"] == case.region
        for summed in infected.sums:
            assert np.isclose(sum(s.received for s in summed.sources), summed.received, rtol=1e-4)
            assert case.infector in {s.agent for s in summed.sources if s.layer == case.layer}
            assert infected.draws[0].uniform < infected.draws[0].probability
