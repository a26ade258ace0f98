"""Kernels that walk the agents find the rows that the plain rules find, with the same draws."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gnabm.columns import Keys
from gnabm.errors import DataError, TotalOverflowError
from gnabm.exchange import from_fixed, to_fixed
from gnabm.exposure import Part, candidates
from gnabm.random import bernoulli, uniform
from gnabm.scan import MOST_RISK, Named, chosen_rows, due_rows, event_rows, senders, weigh_groups

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
    label = Named("region", group) if grouped else None
    assert torch.equal(chosen_rows(seed, keys, codes, 1, label, by_group, risk), wanted)


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
    found = weigh_groups(codes, 2, Named("region", group), 5, Named("risk", risk))
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
        parts, codes, 0, state=seed, keys=keys, rate=rate, dt=dt, group=Named("age_group", group) if aged else None,
        by_group=by_group if aged else None, risk=risk if risky else None,
    )  # fmt: skip
    assert torch.equal(found, hazard[rows])
    p = torch.where(codes == 0, -torch.expm1(-hazard * dt), 0.0)
    wanted = bernoulli(seed, keys, p).nonzero().flatten()
    assert torch.isin(wanted, rows).all()
    assert torch.equal(rows[bernoulli(seed, keys, -torch.expm1(-found * dt), rows)], wanted)
    u = uniform(seed, keys.take(rows))
    assert bool((u < found.double() * dt * 1.0001).all()), "hardly anybody else is a candidate"


WIDTHS = st.sampled_from([torch.uint8, torch.int32, torch.int64])


@pytest.mark.parametrize("wrong", [-1e-12, -0.2, 1.5, float("nan"), float("inf")])
def test_an_event_whose_probability_is_none_is_refused_as_bernoulli_refuses_it(wrong):
    keys, codes, p = Keys(0, 9), torch.zeros(9, dtype=torch.uint8), torch.tensor(wrong)
    for rows in (None, torch.tensor([2, 5])):
        number = 9 if rows is None else 2
        with pytest.raises(DataError, match=rf"probability must lie in \[0, 1\].*\({number} such rows\); check"):
            event_rows(1, keys, codes, 0, p, rows)
    assert event_rows(1, keys, codes, 0, p, torch.empty(0, dtype=torch.int64)).numel() == 0, "nobody to draw for"


def hazards(size, *, wrong=None, at=42, source=0, group=None, by_group=None):
    """Candidates of a layer that brings 1 to each, one of whom has a wrong risk."""
    part, risk = Part(torch.ones(size), None, None, None, 1.0), torch.ones(size)
    risk[at] = 1.0 if wrong is None else wrong
    codes = torch.zeros(size, dtype=torch.uint8)
    codes[at] = 1
    return candidates(
        [part], codes, source, state=1, keys=Keys(0, size), rate=torch.tensor(1.0), dt=1.0, risk=risk,
        group=None if group is None else Named("age_group", group), by_group=by_group,
    )  # fmt: skip


@pytest.mark.parametrize("wrong", [-1.0, float("nan")])
def test_a_hazard_that_is_none_is_refused_only_of_those_who_have_it(wrong):
    size = 20_000
    with pytest.raises(DataError, match=rf"hazard must be a number >= 0, got {wrong:g} \(1 such rows\); check"):
        hazards(size, wrong=wrong, at=15_000, source=1)
    rows, hazard = hazards(size, wrong=wrong, at=15_000)
    assert torch.equal(rows, hazards(size, at=15_000)[0]) and bool((hazard == 1).all())


@settings(max_examples=20, deadline=None)
@given(SIZES, WIDTHS, st.sampled_from([3, 200, 2**31 - 1, 10**12, -1, -128, -(10**12)]), SEEDS)
def test_codes_of_a_label_outside_its_range_are_refused_in_any_width(size, width, wrong, seed):
    limits = torch.iinfo(width)
    wrong = wrong if limits.min <= wrong <= limits.max else limits.max
    group, at = torch.zeros(size, dtype=width), seed % size
    group[at] = wrong
    codes, label = torch.ones(size, dtype=torch.uint8), Named("region", group)
    told = rf"column '(region|age_group)' must hold codes from 0 to 2, got {wrong} \(1 such rows\)"
    with pytest.raises(DataError, match=told):
        weigh_groups(codes, 0, label, 3, None)
    with pytest.raises(DataError, match=told):
        chosen_rows(1, Keys(0, size), codes, 0, label, torch.zeros(3), None)
    with pytest.raises(DataError, match=told):
        hazards(size, at=0, group=group, by_group=torch.ones(3))
    group[at] = 2
    assert weigh_groups(codes, 0, label, 3, None)[0, 2] == 1
    assert hazards(size, at=0, group=group, by_group=torch.zeros(3))[0].numel() == 0


@pytest.mark.parametrize("wrong", [-1e-6, 2 * MOST_RISK, float("inf"), float("nan")])
def test_a_risk_that_cannot_be_added_up_is_refused_only_of_those_in_the_stage(wrong):
    risk, codes = torch.rand(20_000), torch.zeros(20_000, dtype=torch.uint8)
    risk[15_000], codes[15_000] = wrong, 1
    with pytest.raises(DataError, match=r"'risk' must be a relative risk >= 0, got .* \(1 such rows\); check"):
        weigh_groups(codes, 1, None, 1, Named("risk", risk))
    found = weigh_groups(codes, 0, None, 1, Named("risk", risk))
    assert torch.equal(found[1], to_fixed(torch.where(codes == 0, risk, 0.0))[:-1])


def test_coarse_weights_tell_when_the_fine_ones_leave_their_range():
    codes, risk = torch.zeros(20_000, dtype=torch.uint8), torch.full((20_000,), MOST_RISK)
    found = weigh_groups(codes, 0, None, 1, Named("risk", risk))
    assert int(found[2, 0]) == 20_000 * 2**30
    with pytest.raises(TotalOverflowError, match="exceeds"):
        from_fixed(torch.cat([found[1], found[2] >> 20]), risk)
