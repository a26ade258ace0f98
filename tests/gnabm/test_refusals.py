"""What a rule may not do is refused when it happens, with the rule's name and the cure."""

import pytest
import torch

from gnabm import Contacts, Model, Rule, SeedAtRandom, Stages, State, simulate
from gnabm.errors import ConflictError, DataError, KindError, ShapeError, TotalOverflowError
from gnabm.exchange import total
from gnabm.local import on_shards
from gnabm.models.epidemic import sir

S, I = FAMILY = Stages("S", "I")  # noqa: E741
NOBODY = Contacts.from_edges([], [], num_agents=10)


def run(rule, **how):
    state = {"stage": FAMILY, "x": State(0.0)}
    return simulate(Model([rule], state=state, observe=()), NOBODY, steps=1, seed=1, **how)


class OwnField(Rule):
    writes = {"x": "sole"}  # noqa: RUF012


class WritesView(OwnField):
    def where(self, agents):
        return agents.stage.is_(S)

    def forward(self, agents, contacts, step):
        x = agents.x
        x += 1
        return {"x": x}


class WritesMask(OwnField):
    def forward(self, agents, contacts, step):
        mask = agents.stage.is_(S)
        mask &= agents.key < 5
        return {"x": mask.float()}


class WritesState(OwnField):
    def forward(self, agents, contacts, step):
        agents.x.add_(1)
        return {"x": agents.x}


@pytest.mark.parametrize("rule", [WritesView, WritesMask, WritesState])
def test_writing_in_place_is_refused(rule):
    with pytest.raises(KindError, match="wrote in place"):
        run(rule())


class WhereIs(OwnField):
    def __init__(self, flags):
        super().__init__()
        self.flags = flags

    def where(self, agents):
        return self.flags

    def forward(self, agents, contacts, step):
        return {"x": agents.x + 1}


@pytest.mark.parametrize("flags", [torch.tensor([0, 5]), torch.tensor([True, True]), torch.zeros(10, dtype=torch.long)])
def test_a_where_that_is_no_mask_is_refused(flags):
    with pytest.raises(ShapeError, match="mask over all agents"):
        run(WhereIs(flags))


@pytest.mark.parametrize("shards", [1, 3, 7])
@pytest.mark.parametrize(
    "x", [torch.full((7000,), 3e6), torch.full((7000,), 2**51), torch.tensor([float("nan")] * 7000)]
)
def test_a_total_out_of_range_is_an_error_on_any_number_of_shards(x, shards):
    with pytest.raises(TotalOverflowError):
        on_shards(shards, lambda group: total(group, x.tensor_split(group.size)[group.rank]))


@pytest.mark.parametrize("writes", [{"x": "add"}, {"stage": "adds"}])
def test_an_unknown_way_to_write_is_refused_when_the_model_is_built(writes):
    rule = OwnField()
    rule.writes = writes
    with pytest.raises(DataError, match="expected one of"):
        Model([rule], state={"stage": FAMILY, "x": State(0.0)})


@pytest.mark.parametrize("name", ["contacts", "a/b"])
def test_a_name_that_would_share_draws_is_refused(name):
    with pytest.raises(ConflictError, match="name="):
        Model([OwnField(name)], state={"stage": FAMILY, "x": State(0.0)})


def test_seeding_twice_needs_another_name():
    first, second = SeedAtRandom(S, I, 0.5), SeedAtRandom(S, I, 0.5, name="again")
    count = simulate(Model([], state={"stage": FAMILY}, initial=[first, second]), NOBODY, steps=1, seed=1)
    assert count.observed["stage_count"].sum() == 10


def test_a_subclass_does_not_inherit_what_was_found_of_its_parent():
    model = sir(0.1, 0.1)
    assert model.reproducibility == "bit"

    class Mine(type(model.rules()[0])):
        pass

    assert Model([Mine(0.1, *list(model.state["stage"])[:2], I)], state=model.state).reproducibility == "unchecked"


@pytest.mark.parametrize("seed", [1.9, True, "1"])
def test_a_seed_that_is_no_integer_is_refused(seed):
    with pytest.raises(KindError, match="seed"):
        simulate(sir(0.1, 0.1), NOBODY, steps=1, seed=seed)
