"""An explanation is what the run did: the same hazard, draw, outcome and infector, found again by other means."""

import json
import math
from datetime import date, datetime

import numpy as np
import pytest
import torch

from gnabm import Contacts, Mixing, Model, Places, Population, Rule, SeedAgents, Stages, State, simulate
from gnabm.agents import Field
from gnabm.errors import DataError, KindError
from gnabm.exchange import Solo
from gnabm.explain import explain
from gnabm.mixing import MixingTables, drawn_contacts
from gnabm.models.durations import Duration
from gnabm.models.epidemic import seir
from gnabm.models.progression import STATE, Figures, Progress, Transition
from gnabm.periods import Period
from gnabm.random import bits_reference, salt
from gnabm.shard import cut
from gnabm.testing.watch import num_threads

KEYS = np.array([10, 11, 13, 12, 25, 17])
ACTIVITY = np.array([0.5, 1.0, 2.0, 1.5, 0.0, 1.0], dtype=np.float32)
EDGES = {(0, 1): 2.0, (1, 2): 0.5, (2, 1): 0.25, (4, 5): 1.0, (3, 1): 3.0}
CLUB = np.array([0, 0, 0, 1, 1, -1])
SENT = np.array([0.8, 0.0, 1.5, 0.4, 1.0, 0.3], dtype=np.float32)
FACTORS = {"club": 0.7, "mixing": 2.0}
RATE = 0.2
A, B = Stages("well", "ill")


@pytest.fixture(autouse=True)
def one_thread():
    """Six agents: threads would only wait for each other."""
    with num_threads(1):
        yield


class Catch(Rule):
    """Infection from all layers; agents send what `strength` says, whatever their stage."""

    writes = {"stage": "exclusive", "since": "sole"}  # noqa: RUF012
    infects = True

    def __init__(self):
        super().__init__()
        self.factors = FACTORS

    def where(self, agents):
        return agents.stage.is_(A)

    def forward(self, agents, contacts, step):
        hazard = RATE * contacts.sum_neighbours(agents.everyone.strength, self.factors)
        caught = step.bernoulli(-torch.expm1(-hazard * step.dt))
        since = torch.where(caught, step.index, agents.since).to(torch.int32)
        return {"stage": agents.stage.move(A, B, caught), "since": since}


class Tire(Rule):
    """Fatigue from the club, and a number drawn for everyone."""

    writes = {"fatigue": "adds"}  # noqa: RUF012

    def forward(self, agents, contacts, step):
        return {"fatigue": contacts["club"].sum_neighbours(agents.strength) + (step.uniform() < 0.5)}


def club():
    """Two places of six agents, with activities."""
    places = Places.of(CLUB, contacts=1.5)
    return Places(places.place, places.indptr, places.member, 1.5, activity=ACTIVITY)


def six(expected=False):
    """Six agents in all kinds of layers."""
    source, target = np.array(list(EDGES)).T
    edges = Contacts.from_edges(source, target, np.array(list(EDGES.values())), num_agents=6)["contacts"]
    mixing = Mixing(
        np.array([0, 1, 0, 1, 0, 1], dtype=np.uint8), np.array([[2.0, 1.0], [0.5, 2.5]]), np.array([0, 3, 6]),
        np.array([0, 1]), np.array([[2, 1], [1, 2]]), (0.5, 0.2, 0.3), 0.9, expected,
    )  # fmt: skip
    contacts = Contacts({"friends": edges, "club": club(), "mixing": mixing}, 6)
    columns = {
        "key": KEYS,
        "strength": SENT,
        "age": np.array([3, 40, 7, 62, 81, 15]),
        "sex": np.array([0, 1, 1, 0, 0, 1]),
    }
    fields = {"age": Field("age", unit="years"), "sex": Field("sex", categories=("f", "m"))}
    return Population(6, columns, contacts, fields)


def model():
    """Catch and tire; one agent is ill at the start."""
    state = {"stage": A.family, "since": State(-1, torch.int32), "fatigue": State(0)}
    return Model([Catch(), Tire()], state=state, initial=SeedAgents(A, B, [25]))


def drawn(population, step, seed, dt):
    """(6, 6) how often each agent (row) drew each other in a step."""
    shard, rows = cut(population), torch.arange(6)
    tables = MixingTables.of(population.contacts["mixing"], dt)
    state = salt(seed, step, "contacts/mixing")
    found = drawn_contacts(shard.layers["mixing"], tables, Solo(), shard.keys, rows, rows, state)
    times = np.zeros((6, 6))
    np.add.at(times, (found.value.numpy(), found.target.numpy()), 1)
    return times / dt


def weights(population, step, seed, dt):
    """(6, 6) contacts per day by layer, from sender (row) to receiver."""
    edges = np.zeros((6, 6))
    for (source, target), weight in EDGES.items():
        edges[source, target] = weight
    shared = (CLUB[:, None] == CLUB[None, :]) & (CLUB[:, None] >= 0)
    np.fill_diagonal(shared, False)
    others = np.maximum(shared.sum(0), 1)
    places = shared * np.minimum(1.5, others) / others * np.outer(ACTIVITY, ACTIVITY)
    return {"friends": edges, "club": places, "mixing": drawn(population, step, seed, dt)}


def unit(seed, step, stream, key):
    """The uniform number of a draw, in NumPy."""
    bits = bits_reference(salt(seed, step, stream), np.array([key]))[0]
    return float(bits >> np.uint64(12)) * 2.0**-52 + 2.0**-53


@pytest.mark.parametrize("dt", [1.0, 0.5])
@pytest.mark.parametrize("messages", ["auto", "push", "pull"])
def test_hazards_sources_and_probability_are_those_of_a_dense_recomputation(dt, messages):
    population, told_any = six(), 0
    for row, step in [(r, s) for r in range(6) for s in range(4)]:
        told = explain(
            model(), population, agent=int(KEYS[row]), step=step, seed=5, dt=dt, messages=messages, most_sources=99
        )
        catch = told.rules[0]
        assert catch.concerned == (told.before["stage"] == "well")
        if not catch.concerned:
            assert catch.sums == () and catch.draws == ()
            continue
        told_any += 1
        w = weights(population, step, 5, dt)
        by_layer = {name: FACTORS.get(name, 1.0) * m[:, row] * SENT for name, m in w.items()}
        total = sum(part.sum() for part in by_layer.values())
        (summed,) = catch.sums
        assert summed.received == pytest.approx(total, rel=1e-6)
        for part in summed.layers:
            assert part.received == pytest.approx(by_layer[part.layer].sum(), rel=1e-6, abs=1e-7)
            met = rest_of(row) if part.layer == "club" else np.flatnonzero(w[part.layer][:, row])
            assert part.contacts == len(met)
            assert part.contacts - part.silent == int((by_layer[part.layer] > 0).sum())
            assert part.share == pytest.approx(by_layer[part.layer].sum() / total if total else 0, rel=1e-6, abs=1e-7)
            listed = sum(s.received for s in summed.sources if s.layer == part.layer)
            assert listed == pytest.approx(part.received, rel=1e-6, abs=1e-7)
        for source in summed.sources:
            sender = int(np.flatnonzero(source.agent == KEYS)[0])
            assert source.received == pytest.approx(by_layer[source.layer][sender], rel=1e-6)
            assert source.sent == SENT[sender]
            assert source.age == population.columns["age"][sender]
        (draw,) = catch.draws
        assert draw.probability == pytest.approx(1 - math.exp(-RATE * total * dt), rel=1e-5)
        if total:
            assert catch.hazard == pytest.approx(RATE * total, rel=1e-4)
        assert draw.uniform == unit(5, step, "Catch/bernoulli", KEYS[row])
        assert draw.happened == (draw.uniform < draw.probability)
    assert told_any > 6


def rest_of(row):
    """Rows of the others in one's club."""
    return [] if CLUB[row] < 0 else [r for r in range(6) if r != row and CLUB[r] == CLUB[row]]


@pytest.mark.parametrize("dt", [1.0, 0.5])
def test_every_explanation_agrees_with_the_run_and_its_line_list(dt):
    population = six()
    run = simulate(model(), population, steps=5, seed=8, dt=dt, record=["stage", "since", "fatigue"], infections=True)
    told = {
        (row, step): explain(model(), population, agent=int(KEYS[row]), step=step, seed=8, dt=dt)
        for row in range(6)
        for step in range(-1, 5)
    }
    listed = {(r.agent, r.step): r for r in run.infections.itertuples()}
    assert len(listed) > 2
    for (row, step), one in told.items():
        assert step < 1 or one.before == told[row, step - 1].after
        if step >= 0:
            recorded = {name: values[step, row] for name, values in run.fields.items()}
            assert one.after == recorded | {"stage": A.family.names[recorded["stage"]]}
        infected = [a for a in one.rules if a.infected_through is not None]
        assert bool(infected) == ((int(KEYS[row]), step) in listed)
        for account in infected:
            record = listed[int(KEYS[row]), step]
            assert account.infected_through == record.layer
            assert account.infected_by == (None if record.infector == -1 else record.infector)
            if account.sums:
                check_race(account, one, population, row, dt)
                assert record.infector in {s.agent for s in account.sums[0].sources if s.layer == record.layer}


def check_race(account, told, population, row, dt):
    """The layer's number lies within its share, and the infector has the least exponential time."""
    race, u = account.race, unit(8, told.step, "Catch/layer", KEYS[row])
    names = [part.layer for part in account.sums[0].layers]
    upto = np.cumsum([part.share for part in account.sums[0].layers])
    assert race.layer.uniform == u
    assert names[int(np.flatnonzero(u < upto)[0])] == account.infected_through
    w = weights(population, told.step, 8, dt)[account.infected_through][:, row] * SENT
    times = {int(KEYS[j]): -math.log(pair(told.step, KEYS[row], KEYS[j])) / w[j] for j in np.flatnonzero(w)}
    ordered = sorted(times, key=times.get)
    assert (account.infected_by, race.runners) == (ordered[0], len(times))
    assert race.time == pytest.approx(times[ordered[0]], rel=1e-6)
    assert race.infector.uniform == pair(told.step, KEYS[row], ordered[0])
    assert race.next_agent == (ordered[1] if len(times) > 1 else None)
    assert race.next_time == (None if len(times) == 1 else pytest.approx(times[ordered[1]], rel=1e-6))


def pair(step, target, sender):
    """The uniform number of a pair, in NumPy: a stream of the target's own, keyed by the sender."""
    own = int(bits_reference(salt(8, step, "Catch/infector"), np.array([target]))[0])
    bits = bits_reference(own, np.array([sender]))[0]
    return float(bits >> np.uint64(12)) * 2.0**-52 + 2.0**-53


@pytest.mark.parametrize("seed", range(3, 9))
def test_draws_that_made_no_difference_are_marked(seed):
    for step in range(9):
        told = explain(covid_progress(), aged(), agent=12, step=step, seed=seed)
        account, after = told.rules[-1], told.after["stage"]
        if not account.concerned:
            continue
        used = [draw.used for draw in account.draws]
        left = bool(account.changes)
        # The outcome counts on leaving E, the way on entering P, which alone has two, the wait unless it is R for good.
        assert used == [told.before["stage"] == "E", left and after == "P", left and after != "R"]
        assert str(told).count("unused: it made no difference") == used.count(False)


def aged():
    """Six agents with age groups."""
    plain, names = six(), (*(f"{a}-{a + 9}" for a in range(0, 80, 10)), "80+")
    columns = {**plain.columns, "age_group": (plain.columns["age"] // 10).clip(max=8).astype(np.uint8)}
    return Population(6, columns, plain.contacts, {**plain.fields, "age_group": Field("age_group", categories=names)})


def covid_progress():
    """Infected at the start; a progression with two outcomes, of which one has two ways on."""
    s, e, p, a, b, r = Stages("S", "E", "P", "A", "B", "R")
    figures = Figures({"even": [0.5] * 9}, {"wait": Duration(3.0, 1.0)})
    ways = [Transition(p, a, "wait", "even"), Transition(p, b, "wait"), *(Transition(x, r, "wait") for x in (a, b))]
    rule = Progress(e, [(p, None), (a, "even")], ways, figures)
    return Model([rule], state={"stage": s.family, **STATE}, initial=SeedAgents(s, e, [12]))


def test_other_draws_and_increments_are_told():
    population = six()
    told = explain(model(), population, agent=12, step=2, seed=8)
    tire = told.rules[1]
    (summed,) = tire.sums
    assert [part.layer for part in summed.layers] == ["club"]
    assert summed.layers[0].hazard is None
    (draw,) = tire.draws
    assert draw.uniform == unit(8, 2, "Tire/uniform", 12)
    assert draw.probability is None
    assert told.after["fatigue"] - told.before["fatigue"] == pytest.approx(summed.received + (draw.uniform < 0.5))
    assert tire.changes["fatigue"] == (told.before["fatigue"], told.after["fatigue"])


def test_who_an_agent_is_and_what_it_is_part_of():
    told = explain(model(), six(), agent=13, step=0, seed=1, dt=0.5, start=date(2022, 1, 20))
    assert told.about == {"strength": 1.5, "age": 7, "sex": "m"}
    assert told.units["age"] == "years"
    assert told.surroundings["friends"] == {"kind": "edges", "contacts": 1}
    assert told.surroundings["club"] == {"kind": "places", "place": 0, "members": 3, "activity": 2.0}
    assert told.surroundings["mixing"] == {"kind": "mixing", "area": 0, "group": 0, "mean_contacts_per_day": 3.0}
    assert told.date == datetime(2022, 1, 20)
    assert explain(model(), six(), agent=17, step=3, seed=1).surroundings["club"] == {"kind": "places", "members": 0}


def test_a_mean_field_has_a_hazard_but_no_sources():
    told = explain(model(), six(expected=True), agent=10, step=0, seed=5)
    summed = told.rules[0].sums[0]
    (field,) = (part for part in summed.layers if part.layer == "mixing")
    assert field.received > 0
    assert field.contacts is None
    assert {source.layer for source in summed.sources} == {"friends", "club"} - {
        s for s in ("friends",) if s not in EDGES
    }


def test_changes_on_the_way_hold_in_what_is_told():
    told = explain(model(), six(), agent=10, step=3, seed=5, changes=[Period(2, model(), 77)])
    assert told.seed == 77
    assert told.rules[1].draws[0].uniform == unit(77, 3, "Tire/uniform", 10)


def test_nothing_comes_from_a_layer_whose_factor_is_0():
    closed = model()
    closed.rules()[0].factors = {"club": 0.0}
    told = explain(closed, six(), agent=11, step=0, seed=5)
    (summed,) = told.rules[0].sums
    (part,) = (part for part in summed.layers if part.layer == "club")
    assert (part.contacts, part.silent, part.received) == (2, 0, 0.0)
    assert {source.layer for source in summed.sources} == {"friends", "mixing"}


def test_what_is_left_out_of_the_list_is_summed():
    contacts = Contacts({"hall": Places.of(np.zeros(40, dtype=int))}, 40)
    ill = seir(0.0001, 0.3, 0.001, initial_infected=list(range(1, 31)))
    told = explain(ill, contacts, agent=0, step=9, seed=2, most_sources=5)
    summed = told.rules[0].sums[0]
    assert len(summed.sources) == 5
    assert summed.rest + sum(s.received for s in summed.sources) == pytest.approx(summed.received)
    assert summed.layers[0].silent == 39 - summed.senders


def test_the_story_is_the_record_in_words_and_json_holds_it():
    told = explain(model(), six(), agent=10, step=1, seed=5, start=date(2022, 1, 20))
    story = str(told)
    assert story.startswith("Agent 10, step 1, day 1, Friday 2022-01-21 (seed 5, steps of 1 day)")
    assert "Catch" in story
    assert all(len(line) <= 120 and line == line.rstrip() for line in story.splitlines())
    plain = json.loads(json.dumps(told.to_dict(), allow_nan=False))
    assert plain["rules"][0]["sums"][0]["received"] == told.rules[0].sums[0].received
    assert plain["date"] == "2022-01-21T00:00:00"


def test_impossible_questions_are_refused_with_the_cure():
    with pytest.raises(DataError, match=r"no agent 99: the 6 keys lie within 10\.\.25"):
        explain(model(), six(), agent=99, step=0, seed=1)
    with pytest.raises(DataError, match="-1 for the initial state"):
        explain(model(), six(), agent=10, step=-2, seed=1)
    with pytest.raises(KindError, match="step must be an integer"):
        explain(model(), six(), agent=10, step=1.5, seed=1)
