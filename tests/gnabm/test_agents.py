"""Agents are a frozen record; stages move without changing what was there."""

import pickle

import pytest
import torch

from gnabm import Agents, Stage, Stages
from gnabm.errors import DataError, KindError, ShapeError, UnknownFieldError

FAMILY = Stages("s", "i", "r")
S, I, R = FAMILY  # noqa: E741
CODES = torch.tensor([0, 1, 2, 0], dtype=torch.uint8)


def test_is_gives_bytes_in_a_forward_run_and_flags_in_a_differentiable_one():
    stage = Stage(FAMILY, CODES)
    assert stage.is_(I).tolist() == [False, True, False, False]
    assert stage.is_(I) is stage.is_(I)  # messages of one field share one exchange
    flags = stage.with_flags(torch.float64)
    assert flags.is_(I).tolist() == [0.0, 1.0, 0.0, 0.0]
    assert flags.is_(I).dtype == torch.float64


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float64])
def test_move_moves_only_those_of_the_source_stage(dtype):
    stage = Stage(FAMILY, CODES) if dtype is None else Stage(FAMILY, CODES).with_flags(dtype)
    moving = torch.tensor([True, True, True, False])
    moved = stage.move(S, I, moving if dtype is None else moving.to(dtype))
    assert moved.codes.tolist() == [1, 1, 2, 0]
    assert stage.codes.tolist() == [0, 1, 2, 0]
    if dtype is not None:
        assert torch.equal(moved.flags, Stage(FAMILY, moved.codes).with_flags(dtype).flags)


def test_the_gradient_of_a_move_takes_from_the_source_and_gives_to_the_target():
    moving = torch.tensor([1.0, 1.0, 0.0, 0.0], requires_grad=True)
    flags = Stage(FAMILY, CODES).with_flags(torch.float32)
    moved = flags.move(S, I, moving)
    (to_i,) = torch.autograd.grad(moved.is_(I).sum(), moving, retain_graph=True)
    (to_s,) = torch.autograd.grad(moved.is_(S).sum(), moving)
    assert to_i.tolist() == [1.0, 0.0, 0.0, 1.0]  # only the susceptible could move
    assert to_s.tolist() == [-1.0, 0.0, 0.0, -1.0]


def test_a_stage_of_another_family_is_refused():
    other, *_ = Stages("s", "i")
    with pytest.raises(UnknownFieldError, match="no stage of"):
        Stage(FAMILY, CODES).is_(other)
    with pytest.raises(UnknownFieldError):
        Stage(FAMILY, CODES).is_(1)
    with pytest.raises(ShapeError, match=r"\(4,\), got \(3,\)"):
        Stage(FAMILY, CODES).move(S, I, torch.ones(3, dtype=torch.bool))


@pytest.mark.parametrize("names", [(), ("a", "a"), tuple(map(str, range(256)))])
def test_between_1_and_255_different_stages(names):
    with pytest.raises(DataError, match="between 1 and 255"):
        Stages(*names)


def test_stages_survive_pickling():
    again = pickle.loads(pickle.dumps(I))
    assert again == I and again.name == "i" and again.family == FAMILY
    assert Stage(FAMILY, CODES).is_(again).tolist() == [False, True, False, False]


def make():
    columns = {"key": torch.arange(4) * 10, "age": torch.tensor([5, 6, 7, 8]), "stage": Stage(FAMILY, CODES)}
    return Agents(columns)


def test_agents_are_frozen():
    with pytest.raises(KindError, match=r"return {'age': ...} from the rule"):
        make().age = torch.zeros(4)


def test_an_unknown_field_names_its_neighbour():
    with pytest.raises(UnknownFieldError, match="no field 'agee'; did you mean 'age'"):
        _ = make().agee
    assert not hasattr(make(), "nothing")


def test_only_shows_some_rows_and_everyone_all():
    some = make().only(torch.tensor([1, 3]))
    assert len(some) == some.num_agents == 2
    assert some.age.tolist() == [6, 8] and some.key.tolist() == [10, 30]
    assert some.stage.codes.tolist() == [1, 0]
    assert some.everyone.age.tolist() == [5, 6, 7, 8]
    assert len(some.stage) == 2


def test_columns_of_different_lengths_and_agents_without_keys_are_refused():
    with pytest.raises(ShapeError, match="one row per agent"):
        Agents({"key": torch.arange(3), "age": torch.zeros(2)})
    with pytest.raises(UnknownFieldError, match="need a column `key`"):
        Agents({"age": torch.zeros(2)})


def test_replace_leaves_the_old_record():
    before = make()
    after = before.replace({"age": torch.zeros(4)})
    assert before.age.tolist() == [5, 6, 7, 8] and after.age.tolist() == [0, 0, 0, 0]
