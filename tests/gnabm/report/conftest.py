"""Small runs to report: an epidemic of each model on two islands, with its line list."""

import dataclasses
from datetime import date
from html.parser import HTMLParser

import numpy as np
import pytest

from gnabm import Contacts, Field, Population, simulate
from gnabm.models.epidemic import covid, sir
from gnabm.report import write_report

CONFIG = {
    "model": "epidemic.sir",
    "parameters": {"recovery_rate": 0.1},
    "population": {"country": "Nowhere & Co"},
    "run": {"steps": 30, "seed": 5},
}
ATTRIBUTES = {
    "name": "two_islands",
    "parameters": {"transmission_rate": 0.05},
    "reproduction_number": 2.5,
    "seconds": 2.5,
    "startup_seconds": 0.5,
    "peak_rss": [2**30],
    "versions": {"gnabm": "0.1.0", "torch": "2.13.0"},
    "machine": {"processor": "abacus", "cores": 2, "memory_bytes": 2**34},
    "population": {"layers": ["contacts"]},
    "tables": [
        {"name": "regions", "source": "Census <of> islands", "year": 2023, "licence": "CC BY 4.0", "assumed": False},
        {"name": "guesses", "source": "us", "year": None, "licence": "Apache-2.0", "assumed": True},
    ],
}
DECADES = ("0-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70-79", "80+")


def population(num_agents=400, grouped=True):
    rng = np.random.default_rng(1)
    pairs = np.unique(rng.integers(0, num_agents, (8 * num_agents, 2)), axis=0)
    source, target = pairs[pairs[:, 0] != pairs[:, 1]].T
    contacts = Contacts.from_edges(source, target, num_agents=num_agents)
    if not grouped:
        return Population.of(contacts)
    region = (np.arange(num_agents) >= num_agents // 4).astype(np.uint8)
    fields = {
        "region": Field("region", "island", categories=("North <i>", "South")),
        "age_group": Field("age_group", "age", categories=DECADES),
    }
    return Population(
        num_agents, {"region": region, "age_group": (np.arange(num_agents) % 9).astype(np.uint8)}, contacts, fields
    )


def store(
    path, *, grouped=True, start=date(2022, 1, 20), steps=30, dt=1.0, record=(), seed=5, infections=False, model=None,
    **attributes,
):  # fmt: skip
    """Simulate and save; the run and its folder."""
    model = sir(0.05, 0.1, initial_infected=0.02) if model is None else model
    run = simulate(
        model, population(grouped=grouped), steps=steps, seed=seed, dt=dt, start=start, record=record,
        infections=infections,
    )  # fmt: skip
    config = CONFIG | {"run": {"steps": steps, "seed": seed}}
    law = (
        {}
        if model.transmission is None
        else {"generation_interval": model.transmission.generation_interval(dt).tolist()}
    )
    said = {**ATTRIBUTES, **law, "config": config, "seed": seed, "dt_days": dt, "model_tables": list(model.sources)}
    run = dataclasses.replace(run, attributes={**run.attributes, **said, **attributes})
    run.save(path / "trajectory.zarr")
    return run, path


class Links(HTMLParser):
    """What a page would fetch by itself, what it links to, its ids and the text that it shows."""

    def __init__(self):
        super().__init__()
        self.fetched, self.linked, self.ids, self.text, self.tag = [], [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tag = tag
        for name, value in attrs:
            if tag == "a" and name == "href":
                self.linked.append(value)
            elif name in ("src", "href", "srcset", "data", "action", "poster"):
                self.fetched.append(value)
            elif name == "id":
                self.ids.append(value)

    def handle_data(self, data):
        if self.tag not in ("script", "style"):
            self.text.append(data)

    def words(self):
        return " ".join(" ".join(self.text).split())


def read(page):
    links = Links()
    links.feed(page)
    links.close()
    return links


@pytest.fixture(scope="session")
def stored():
    return store


@pytest.fixture(scope="session")
def parsed():
    return read


@pytest.fixture(scope="session")
def attributes():
    return ATTRIBUTES


@pytest.fixture(scope="session")
def reported(tmp_path_factory):
    """A run of the SIR with its page; no line list, no severe outcome."""
    run, path = store(tmp_path_factory.mktemp("sir"))
    return run, write_report(path)


@pytest.fixture(scope="session")
def severe(tmp_path_factory):
    """A run of covid with its line list, all infections severe, and its page."""
    path = tmp_path_factory.mktemp("covid")
    model = covid(
        0.4,
        initial_infected=0.05,
        seeding=[{"number": 3, "day": 5}],
        probabilities={"asymptomatic": [0.1] * 9, "severe": [0.6] * 9, "hospital": [0.8] * 9},
    )
    run, _ = store(path, steps=80, infections=True, model=model)
    return run, write_report(path)
