"""A stated R0 is what typical index cases infect in New Zealand, with all layers and the courses of COVID-19."""

import numpy as np
import pytest

import graphs
from gnabm import Model, Rule, SeedAgents, simulate
from gnabm.models.covid import ASYMPTOMATIC, COVID, RECOVERED, SUSCEPTIBLE
from gnabm.models.epidemic import covid
from gnabm.nextgen import next_generation_matrix, reproduction_number, transmission_rate_for

AGENTS, TARGET, SEEDS, REPEATS = 100_000, 3.0, 300, 20
pytestmark = pytest.mark.slow


class PassNothingOn(Rule):
    """Those infected in the run recover at once, so that every infection is by an index case."""

    def where(self, agents):
        return agents.infected_on >= 0

    def forward(self, agents, contacts, step):
        stage = agents.stage
        for source in COVID:
            if source not in (SUSCEPTIBLE, RECOVERED):
                stage = stage.move(source, RECOVERED, stage.is_(source))
        return {"stage": stage}


def test_index_cases_infect_as_many_as_the_stated_reproduction_number(tmp_path):
    people = graphs.open_graph(graphs.ensure({"country": "New Zealand", "num_agents": AGENTS}, tmp_path))
    met = graphs.encounters(people)
    unit = covid(1.0).transmission
    rate = transmission_rate_for(TARGET, met, unit, 1.0)
    matrix = next_generation_matrix(met, unit, rate, 1.0)
    assert reproduction_number(matrix) == pytest.approx(TARGET)
    values, vectors = np.linalg.eig(matrix.T)
    typical = np.abs(vectors[:, np.abs(values).argmax()].real)
    typical /= typical.sum()

    group = np.minimum(np.asarray(people.columns["age"][:]) // 5, 15)
    chance = (typical / np.bincount(group, minlength=16))[group]
    caused = []
    for repeat in range(REPEATS):
        seeds = np.random.default_rng(repeat).choice(AGENTS, SEEDS, replace=False, p=chance)
        whole = covid(rate)
        model = Model(
            [*whole.phases, [PassNothingOn()]],
            state=whole.state,
            initial=[SeedAgents(SUSCEPTIBLE, ASYMPTOMATIC, seeds.tolist()), *whole.initial[1:]],
            observe=whole.observe,
        )
        run = simulate(model, people, steps=40, seed=repeat, infections=True)
        by = run.infections.infector
        caused.append(by[by >= 0].value_counts().reindex(seeds, fill_value=0).to_numpy())
    number = np.concatenate(caused)
    error = number.std(ddof=1) / np.sqrt(number.size)
    # 0.3 % of the population are index cases, so that few compete for the same people.
    assert error < 0.045
    assert abs(number.mean() - TARGET) < 4 * error, (number.mean(), error)
