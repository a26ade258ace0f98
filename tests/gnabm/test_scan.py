"""Kernels that walk the agents find the rows that the plain rules find, with the same draws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gnabm.columns import Keys
from gnabm.exchange import to_fixed
from gnabm.exposure import Part, candidates
from gnabm.random import bernoulli, uniform
from gnabm.scan import chosen_rows, due_rows, event_rows, senders, weigh_groups

SIZES = st.sampled_from([1, 7, 2047, 2048, 2049, 9001, 40_000])
SEEDS = st.integers(0, 2**32)


def agents(seed, size, given_keys=False):
    draw = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 4, (size,), generator=draw, dtype=torch.uint8)
    key = torch.randperm(3 * size, generator=draw)[:size] if given_keys else None
    return draw, codes, Keys(5, size, key)


@pytest.fixture(params=[1, 2, 3], autouse=True)
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@settings(max_examples=15, deadline=None)
@given(SEEDS, SIZES, st.booleans(), st.sampled_from([0.0, 1e-3, 0.3, 1.0]))
def test_events_of_one_probability_are_those_of_bernoulli(seed, size, given_keys, p):
    _, codes, keys = agents(seed, size, given_keys)
    chance = torch.where(codes == 2, torch.tensor(p), 0.0)
    wanted = bernoulli(seed, keys, chance).nonzero().flatten()
    assert torch.equal(event_rows(seed, keys, codes, 2, torch.tensor(p)), wanted)
    listed = (codes == 2).nonzero().flatten()
    assert torch.equal(event_rows(seed, keys, codes, 2, torch.tensor(p), listed), wanted)


@settings(max_examples=15, deadline=None)
@given(SEEDS, SIZES, st.booleans(), st.booleans(), st.booleans())
def test_chosen_rows_are_those_of_bernoulli(seed, size, given_keys, grouped, risky):
    draw, codes, keys = agents(seed, size, given_keys)
    group = torch.randint(0, 3, (size,), generator=draw, dtype=torch.uint8) if grouped else None
    by_group = torch.tensor([0.01, 0.5, 0.9]) if grouped else torch.tensor([0.2])
    risk = 2 * torch.rand(size, generator=draw) if risky else None
    p = by_group[group.long()] if grouped else by_group.expand(size)
    p = torch.where(codes == 1, (p if risk is None else p * risk).clamp(max=1.0), 0.0)
    wanted = bernoulli(seed, keys, p).nonzero().flatten()
    assert torch.equal(chosen_rows(seed, keys, codes, 1, group, by_group, risk), wanted)


@settings(max_examples=15, deadline=None)
@given(SEEDS, SIZES)
def test_senders_are_those_who_send_and_what_the_table_says(seed, size):
    draw, codes, _ = agents(seed, size)
    since = torch.randint(-1, 12, (size,), generator=draw, dtype=torch.int32)
    table = torch.rand(4, 6, generator=draw) * torch.tensor([[0.0], [1.0], [0.5], [0.0]])
    table[:, -1] = 0
    x = table[codes.long(), (9 - since).clamp(0, 5).long()]
    rows, values = senders(codes, since, 9, table)
    assert torch.equal(rows, x.nonzero().flatten()) and torch.equal(values, x[rows])


@settings(max_examples=15, deadline=None)
@given(SEEDS, SIZES)
def test_due_rows_are_those_whose_time_has_come_and_the_new(seed, size):
    draw, codes, _ = agents(seed, size)
    due = torch.randint(0, 5, (size,), generator=draw, dtype=torch.int32)
    wanted = ((due == 3) | ((codes == 1) & (due == 4))).nonzero().flatten()
    assert torch.equal(due_rows(codes, 1, due, 4, 3), wanted)


@settings(max_examples=15, deadline=None)
@given(SEEDS, SIZES, st.booleans())
def test_groups_are_weighed_as_totals_are(seed, size, sorted_groups):
    draw, codes, _ = agents(seed, size)
    group = torch.randint(0, 5, (size,), generator=draw, dtype=torch.uint8)
    group = group.sort().values if sorted_groups else group
    risk = torch.rand(size, generator=draw)
    found = weigh_groups(codes, 2, group, 5, risk)
    assert torch.equal(found[0], torch.bincount(group, minlength=5))
    wanted = to_fixed(torch.where(codes == 2, risk, 0.0), group.to(torch.int64), 5)[:-1]
    assert torch.equal(found[1], wanted)
    assert int(weigh_groups(codes, 2, None, 1, None)[1, 0]) == int((codes == 2).sum())


def parts_of_layers(draw, size, num_layers, wide):
    """Layers by row and by place, and what each brings to the rows as the plain kernels compute it."""
    parts, brought = [], []
    for number in range(num_layers):
        factor = [1.0, 0.25, 3.0][number % 3]
        if number % 3 == 2:
            table = torch.rand(size, generator=draw) * (torch.rand(size, generator=draw) < 0.3)
            parts.append(Part(table, None, None, None, factor))
            brought.append(table * factor)
            continue
        place = torch.randint(-1, 50, (size,), generator=draw, dtype=torch.int32)
        table = torch.cat([torch.zeros(1), torch.rand(50, generator=draw)])
        part = table[(place + 1).long()]
        code = activity = None
        if number % 2:
            activity = torch.rand(300 if wide else 16, generator=draw)
            code = torch.randint(0, activity.shape[0], (size,), generator=draw)
            part = part * activity[code]
            code = code.to(torch.int32 if wide else torch.uint8)
        parts.append(Part(table, place, code, activity, factor))
        brought.append(part * factor)
    return parts, brought


@settings(max_examples=20, deadline=None)
@given(SEEDS, SIZES, st.integers(1, 9), st.booleans(), st.booleans(), st.booleans())
def test_candidates_are_all_who_can_be_infected_with_the_hazards_of_the_plain_sum(
    seed, size, num_layers, wide, aged, risky
):
    draw, codes, keys = agents(seed, size, given_keys=risky)
    parts, brought = parts_of_layers(draw, size, num_layers, wide)
    group = torch.randint(0, 3, (size,), generator=draw, dtype=torch.uint8)
    by_group, risk = torch.tensor([0.2, 0.0, 2.0]), torch.rand(size, generator=draw)
    rate, dt = torch.tensor(0.3), 0.7
    hazard = brought[0]
    for part in brought[1:]:
        hazard = hazard + part
    hazard = rate * hazard
    hazard = hazard * by_group[group.long()] if aged else hazard
    hazard = hazard * risk if risky else hazard
    rows, found = candidates(
        parts, codes, 0, state=seed, keys=keys, rate=rate, dt=dt, group=group if aged else None,
        by_group=by_group if aged else None, risk=risk if risky else None,
    )  # fmt: skip
    assert torch.equal(found, hazard[rows])
    p = torch.where(codes == 0, -torch.expm1(-hazard * dt), 0.0)
    wanted = bernoulli(seed, keys, p).nonzero().flatten()
    assert torch.isin(wanted, rows).all()
    assert torch.equal(rows[bernoulli(seed, keys, -torch.expm1(-found * dt), rows)], wanted)
    u = uniform(seed, keys.take(rows))
    assert bool((u < found.double() * dt * 1.0001).all()), "hardly anybody else is a candidate"


@pytest.mark.parametrize("wrong", [-1.0, float("nan")])
def test_a_hazard_below_0_is_left_to_the_plain_rule_which_tells(wrong):
    part = Part(torch.ones(100), None, None, None, 1.0)
    some = torch.ones(100)
    some[42] = wrong
    codes = torch.zeros(100, dtype=torch.uint8)
    assert candidates([part], codes, 0, state=1, keys=Keys(0, 100), rate=torch.tensor(1.0), dt=1.0, risk=some) is None


def test_a_group_without_a_factor_is_left_to_the_plain_rule_which_tells():
    part, group = Part(torch.ones(100), None, None, None, 1.0), torch.full((100,), 3, dtype=torch.uint8)
    codes = torch.zeros(100, dtype=torch.uint8)
    how = {"state": 1, "keys": Keys(0, 100), "rate": torch.tensor(1.0), "dt": 1.0, "group": group}
    assert candidates([part], codes, 0, by_group=torch.ones(3), **how) is None
    assert np.array_equal(candidates([part], codes, 0, by_group=torch.zeros(4), **how)[0], [])
