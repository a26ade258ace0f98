import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from cluster import plan, refuse_if_too_large
from cluster.bounds import row_work
from cluster.footprint import footprint
from cluster.halo import measure
from cluster.plan import ACTOR_BYTES, PROCESS_BYTES
from gnabm import Contacts, Mixing, Population
from gnabm.errors import CapacityError, ConfigError
from gnabm.local import LocalThreads
from gnabm.shard import EdgeShard, MixingShard, PlaceShard, cut
from gnabm.simulation import Simulation


@pytest.fixture(scope="module", params=[1, 3, 7])
def planned(request, population, model_of_session):
    found = plan(population, model_of_session, shards=request.param, steps=10, record=["stage", "infected_on"])
    bounds = (*(s.first_row for s in found.shards), population.num_agents)
    with LocalThreads(request.param) as threads:
        shards = threads.each(lambda group: cut(population, group, bounds))
    return found, bounds, shards


def test_halo_and_sizes_are_those_of_the_shards_of_a_run(planned):
    found, _, shards = planned
    assert [s.halo_rows for s in found.shards] == [sum(s.halo.receive) for s in shards]
    assert [s.num_agents for s in found.shards] == [s.num_owned for s in shards]


def test_what_a_shard_reads_of_each_layer_is_counted_exactly(planned, population):
    _, bounds, shards = planned
    _, traffic = measure(population, bounds)
    for rank, shard in enumerate(shards):
        low = shard.halo.first[rank] if len(shards) > 1 else 0
        for name, layer in shard.layers.items():
            match layer:
                case EdgeShard():
                    sources = layer.source
                case PlaceShard():
                    _, sources = layer.members
                    assert traffic[name].places[rank] == layer.num_places
                case MixingShard():
                    continue
            remote = (sources < low) | (sources >= low + shard.num_owned)
            assert traffic[name].held[rank] == sources.numel()
            assert traffic[name].remote[rank] == int(remote.sum())


def test_the_arrays_of_a_run_are_counted_one_by_one(planned, population, model_of_session):
    found, bounds, shards = planned
    _, traffic = measure(population, bounds)

    def run(group):
        simulation = Simulation(model_of_session, cut(population, group, bounds), seed=1)
        simulation.advance()
        shard = simulation.shard
        layers = sum(tensor.nbytes for layer in shard.layers.values() for tensor in tensors(layer))
        columns = sum(column.nbytes for column in shard.columns.in_memory.values())
        state = sum(getattr(column, "codes", column).nbytes for column in simulation.agents.state.values())
        border = sum(
            rows.nbytes + needed.bits.nbytes + needed.before.nbytes
            for rows, needed in zip(shard.halo.send, shard.halo.needed, strict=True)
        )
        return layers + columns + shard.keys.given.nbytes + border, state

    with LocalThreads(len(shards)) as threads:
        held = threads.each(run)
        for rank, (layers, state) in enumerate(held):
            sizes = found.shards[rank]
            counted = footprint(
                population, model_of_session, traffic, rank, sizes.num_agents, sizes.halo_rows, 0.0, (), False
            )
            assert counted.state == state
            assert 0.97 * layers <= counted.layers <= 1.05 * layers + 4096
            assert sizes.peak_memory - PROCESS_BYTES >= counted.held


def tensors(layer):
    """The tensors that a layer holds, one that stands in two places once; not those that only the plain forms make."""
    values = [v for name, v in vars(layer).items() if name not in ("members", "activity")]
    flat = [w for v in values for w in (v if isinstance(v, tuple) else (v,))]
    flat = [w for v in flat for w in (v if isinstance(v, tuple) else (v,))]
    return list({id(v): v for v in flat if isinstance(v, torch.Tensor)}.values())


def test_one_shard_has_no_border(population, model):
    found = plan(population, model, shards=1, steps=10)
    assert found.balance == 1
    assert [layer.cut for layer in found.layers.values()] == [0.0] * 5
    assert found.shards[0].halo_rows == found.shards[0].halo_bytes == 0


def test_contacts_per_agent_are_those_of_the_layers(population, model):
    layers, found = population.contacts.layers, plan(population, model, steps=1).layers
    site = layers["site"]
    together = (site.place[:, None] == site.place) & (site.place >= 0)[:, None] & ~np.eye(3000, dtype=bool)
    pairs = together * np.outer(site.activity, site.activity) * site.weights(np.diff(site.indptr))[site.place]
    assert found["site"].per_agent == pytest.approx(pairs.sum() / 3000)
    size = np.diff(layers["home"].indptr)
    assert found["home"].per_agent == pytest.approx((size * (size - 1)).sum() / 3000)
    assert found["friends"].per_agent == pytest.approx(layers["friends"].weight.sum(dtype=float) / 3000)
    assert found["friends"].size == layers["friends"].num_edges
    group = layers["drawn"].group
    assert found["drawn"].per_agent == pytest.approx(layers["drawn"].matrix.sum(1)[group].mean())


def test_balance_is_the_largest_work_over_the_mean(population, model):
    found = plan(population, model, shards=3, steps=1)
    bounds = [*(s.first_row for s in found.shards), 3000]
    work = [int(row_work(population, a, b).sum()) for a, b in pairwise(bounds)]
    assert [s.work for s in found.shards] == work
    assert found.balance == pytest.approx(max(work) / np.mean(work))


def test_drawn_contacts_cross_as_often_as_two_halves_meet(model):
    whole = Population.of(Contacts({"all": Mixing.uniform(1000, 4.0)}, 1000))
    found = plan(whole, model, shards=2, steps=1)
    assert found.layers["all"].cut == pytest.approx(0.5)
    assert found.shards[0].halo_bytes == pytest.approx(12 * 4 * 1000 * 0.5 / 2)


def test_processes_are_counted_once_each_and_the_driver_of_actors_besides(population, model):
    actors = plan(population, model, shards=3, steps=1)
    local = plan(population, model, shards=3, steps=1, transport="local")
    assert actors == plan(population, model, shards=3, steps=1, transport="actors")
    assert actors.memory == actors.driver + sum(s.peak_memory for s in actors.shards)
    assert actors.driver > PROCESS_BYTES and local.driver == PROCESS_BYTES
    assert local.memory - PROCESS_BYTES == actors.memory - actors.driver - 3 * ACTOR_BYTES
    alone = plan(population, model, steps=1)
    assert alone.driver == 0 and alone.memory == alone.shards[0].peak_memory > PROCESS_BYTES
    assert plan(population, model, steps=1, transport="actors").driver > PROCESS_BYTES
    with pytest.raises(ConfigError, match="transport must be"):
        plan(population, model, steps=1, transport="threads")


def test_a_plan_is_plain_data(population, model):
    plain = plan(population, model, shards=3, steps=10, record=["stage"]).to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert {"num_agents", "layers", "shards", "balance", "memory", "disk"} <= set(plain)


def test_the_disk_bound_covers_the_fields(population, model):
    assert plan(population, model, steps=10, record=["stage", "infected_on"]).disk > 10 * 3000 * 5
    assert plan(population, model, steps=10).disk < 200_000


def test_what_will_not_fit_is_refused_by_how_much(population, model):
    found = plan(population, model, shards=2, steps=1000, record=["stage"])
    refuse_if_too_large(found)
    refuse_if_too_large(found, memory_available=found.memory, disk_available=found.disk)
    with pytest.raises(CapacityError, match=r"of memory, .* available: 256\.0 MiB too little"):
        refuse_if_too_large(found, memory_available=found.memory - 2**28)
    with pytest.raises(
        CapacityError, match=r"of disk are free: 1\.0 MiB too little; record fewer fields \(stage now\)"
    ):
        refuse_if_too_large(found, disk_available=found.disk - 2**20)
