import os
import signal
import sys
import threading
import time

import numba
import pytest
import torch
import xarray as xr

from cluster import run
from cluster.actors import _ahead, started_ahead
from cluster.rank import GlooGroup, Rank
from gnabm import Model, Rule, open_trajectory
from gnabm.agents import Stages
from gnabm.errors import CapacityError, DataError, RunError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
S, I = SI = Stages("S", "I")  # noqa: E741


@pytest.fixture(autouse=True, scope="module")
def _rules_of_this_file_travel_by_value(ray_cluster):
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


class Odd(Rule):
    """Goes wrong on the shard of agent 7 at step 3."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, agents, contacts, step):
        contacts.sum_neighbours(agents.stage.is_(I))
        if step.index == 3 and bool((agents.key == 7).any()):
            if self.how == "raise":
                raise DataError("agent 7 is not amused")
            os.kill(os.getpid(), signal.SIGKILL)
        return {}


class Probe(Rank):
    """An actor that only exchanges."""

    def exchange(self, sizes, dtype, row):
        group = GlooGroup(self.rank, self.size)
        parts = [(torch.arange(n * row) + 10 * self.rank + to).reshape(n, row).to(dtype) for to, n in enumerate(sizes)]
        return group.all_to_all([p.squeeze(1) if row == 1 else p for p in parts])

    def overlap(self, sizes):
        """A started exchange, other collectives while it is under way, and what all of them brought."""
        group = GlooGroup(self.rank, self.size)
        pending = group.start([torch.full((n,), 10.0 * self.rank + to) for to, n in enumerate(sizes)])
        summed = group.all_reduce(torch.tensor([self.rank + 1]))
        between = group.all_to_all([torch.tensor([self.rank])] * 2)
        return pending.wait(), summed.tolist(), [p.tolist() for p in between], group.traffic

    def threads(self):
        return torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS


@pytest.fixture(scope="module")
def probes(ray_cluster):
    import ray

    actors = [ray.remote(num_cpus=0)(Probe).remote(rank, 2, 1) for rank in range(2)]
    where = ray.get(actors[0].host.remote())
    ray.get([actor.connect.remote(*where) for actor in actors])
    yield actors
    for actor in actors:
        ray.kill(actor)


def test_messages_of_any_length_and_type_arrive_whole_and_others_are_refused(probes):
    import ray

    for dtype, row in [(torch.int64, 1), (torch.bool, 1), (torch.float32, 3), (torch.uint8, 1)]:
        for sizes in ([[0, 0], [0, 0]], [[2, 1], [0, 5]], [[1, 90_000], [3, 2]], [[0, 70_001], [80_000, 9]]):
            received = ray.get([p.exchange.remote(s, dtype, row) for p, s in zip(probes, sizes, strict=True)])
            for rank in range(2):
                for sender, part in enumerate(received[rank]):
                    n = sizes[sender][rank]
                    wanted = (torch.arange(n * row) + 10 * sender + rank).reshape(n, row).to(dtype)
                    assert part.dtype == dtype
                    assert torch.equal(part, wanted.squeeze(1) if row == 1 else wanted)
    with pytest.raises(ray.exceptions.RayTaskError, match="shards make different exchanges"):
        ray.get([probes[0].exchange.remote([1, 1], torch.int64, 1), probes[1].exchange.remote([1, 1], torch.int32, 1)])


def test_a_started_exchange_goes_on_beside_others_and_is_counted(probes):
    import ray

    sizes = [[3, 100_000], [70_000, 0]]
    for rank, told in enumerate(ray.get([p.overlap.remote(s) for p, s in zip(probes, sizes, strict=True)])):
        parts, summed, between, traffic = told
        assert summed == [3] and between == [[0], [1]]
        for sender, part in enumerate(parts):
            assert torch.equal(part, torch.full((sizes[sender][rank],), 10.0 * sender + rank))
        assert traffic.exchanges == 3 and traffic.bytes == 4 * sizes[rank][1 - rank] + 8
        assert traffic.seconds > 0


def test_a_rank_has_no_more_threads_than_it_was_given(probes):
    import ray

    assert ray.get([p.threads.remote() for p in probes]) == [(1, 1)] * 2


def test_ranks_started_ahead_are_those_of_the_run_and_end_when_no_run_comes(population, model):
    with started_ahead(2, 1):
        assert run(model, population, shards=2, threads=1, steps=2, seed=3).steps_done == 2
        assert not _ahead
    with started_ahead(2, 1), pytest.raises(DataError):
        raise DataError("the plan was refused")
    assert not _ahead and all(thread.name != "ranks" for thread in threading.enumerate())


@pytest.mark.parametrize("shards", [2, 3])
def test_actors_give_the_bits_of_one_shard(population, stored, model, tmp_path, shards):
    settings = {"steps": 40, "seed": 3, "record": ["stage", "infected_on"]}
    who = stored if shards == 2 else population
    run(model, who, out=tmp_path / "one", **settings)
    result = run(model, who, shards=shards, out=tmp_path / "actors", **settings)
    one, actors = (xr.open_zarr(tmp_path / name / "trajectory.zarr", consolidated=False) for name in ("one", "actors"))
    assert actors.load().equals(one.load())
    assert sum(r.num_owned for r in result.ranks) == 3000
    assert all(r.num_halo > 0 for r in result.ranks)
    assert all(r.exchanges >= 40 and r.exchange_bytes > 0 for r in result.ranks)
    assert all(0 < r.seconds["exchange"] < r.seconds["step"] for r in result.ranks)
    assert actors.attrs["shards"] == shards and actors.attrs["status"] == "complete"


def test_an_error_of_a_rule_comes_out_as_it_was_raised(ring_of_eight, tmp_path):
    with pytest.raises(DataError, match=r"^agent 7 is not amused$"):
        run(Model([Odd("raise")], state={"stage": SI}), ring_of_eight, shards=2, steps=9, seed=1, out=tmp_path)
    assert open_trajectory(tmp_path).attrs["status"] == "failed"


def test_a_killed_actor_is_named_quickly(ring_of_eight, tmp_path):
    steps = []
    began = 0.0

    def on_step(step, observed):
        nonlocal began
        steps.append(step)
        began = time.monotonic()

    with pytest.raises(RunError, match="shard 1 of 2 died at step 3"):
        run(
            Model([Odd("kill")], state={"stage": SI}),
            ring_of_eight,
            shards=2,
            steps=9,
            seed=1,
            out=tmp_path,
            on_step=on_step,
        )
    assert time.monotonic() - began < 15
    assert steps == [0, 1, 2]
    assert open_trajectory(tmp_path).attrs["status"] == "failed"


def test_more_shards_than_the_cluster_has_cpus_are_refused(population, model):
    with pytest.raises(CapacityError, match="50 shards need 50 CPUs, the Ray cluster has"):
        run(model, population, shards=50, steps=1, seed=1)
