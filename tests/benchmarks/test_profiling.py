import cProfile
import time

import torch

from benchmarks.profiling import Clock, as_markdown, held, own_seconds, profile
from gnabm import Contacts, Mixing, Stage, Stages
from gnabm.messages import weigh


def test_time_outside_counts_for_the_function_of_this_repository_that_calls():
    profiler = cProfile.Profile()
    x = torch.rand(1_000_000)
    with profiler:
        for _ in range(5):
            weigh(x, x)
    name, seconds = own_seconds(profiler)[0]
    assert name.startswith("gnabm/messages.py") and name.endswith(" weigh")
    total = sum(seconds for _, seconds in own_seconds(profiler))
    assert seconds > 0.9 * total


def test_a_clock_adds_up_calls_and_passes_on_what_they_return():
    clock = Clock()
    wait = clock.around("wait", lambda seconds: time.sleep(seconds) or "done")
    assert [wait(0.01), wait(0.01)] == ["done", "done"]
    assert 0.02 <= clock.seconds["wait"] < 1


def test_an_array_that_two_parts_share_is_held_once():
    codes = torch.zeros(1000, dtype=torch.uint8)
    stage = Stage(Stages("a", "b"), codes)
    found = held({"stage": stage, "again": {"view": codes[:10]}, "mixing": Mixing.uniform(1000, contacts=2.0)})
    assert found["stage"] == 1000
    assert found["again"] == 0
    assert found["mixing"] >= 1000


def test_edges_are_held_with_their_indices():
    contacts = Contacts.from_edges([0, 1, 2], [1, 2, 3], num_agents=4)
    assert held({"edges": contacts})["edges"] > 3 * 4


def test_a_profile_accounts_for_the_whole_step_and_names_every_rule():
    found = profile("sir on edges", 2_000, 3)
    assert {"Infect", "Recover", "observables", "the rest"} == set(found["parts"])
    assert abs(sum(found["parts"].values()) - 1e3 * found["seconds"] / 3) < 1e-6
    text = as_markdown(found)
    assert "2,000 agents, 3 steps" in text and "| Infect |" in text
