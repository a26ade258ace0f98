"""What a rule sees of the graph: sums over layers, weighted, of one or several features, in either form."""

import numpy as np
import pytest
import torch

from gnabm import Contacts, Population
from gnabm.errors import ShapeError, UnknownFieldError
from gnabm.local import on_shards
from gnabm.mixing import MixingTables
from gnabm.neighbours import Neighbours
from gnabm.shard import MixingShard, cut
from gnabm.testing import awkward_population

POPULATION = awkward_population(700)


def neighbours(group=None, bounds=None, form="auto", rows=None):
    """The graph of one step."""
    shard = cut(POPULATION, group, bounds)
    tables = {n: MixingTables.of(v.layer, 1.0) for n, v in shard.layers.items() if isinstance(v, MixingShard)}
    return Neighbours(shard, seed=1, step=3, dt=1.0, form=form, tables=tables, rows=rows)


def sends(shape=(700,), share=0.1):
    """Values over decades, of some agents."""
    rng = np.random.default_rng(1)
    x = 10 ** rng.uniform(-3, 3, shape) * (rng.random((700,) + (1,) * (len(shape) - 1)) < share)
    return torch.from_numpy(x.astype(np.float32))


@pytest.mark.parametrize("name", list(POPULATION.contacts))
@pytest.mark.parametrize("share", [0.0, 0.02, 1.0])
def test_every_layer_has_the_same_bits_in_every_form_and_on_shards(name, share):
    x, bounds = sends(share=share), (0, 99, 100, 700)
    with torch.no_grad():
        expected = neighbours(form="pull")[name].sum_neighbours(x)
        assert torch.equal(neighbours(form="push")[name].sum_neighbours(x), expected)
    assert torch.equal(neighbours()[name].sum_neighbours(x), expected)  # with gradients enabled

    def work(group):
        with torch.no_grad():
            return neighbours(group, bounds)[name].sum_neighbours(x[bounds[group.rank] : bounds[group.rank + 1]])

    assert torch.equal(torch.cat(on_shards(3, work)), expected)


@pytest.mark.parametrize("name", list(POPULATION.contacts))
def test_each_feature_is_summed_as_if_alone(name):
    x = sends((700, 4))
    together = neighbours()[name].sum_neighbours(x)
    assert together.shape == (700, 4)
    for column in range(4):
        assert torch.equal(together[:, column], neighbours()[name].sum_neighbours(x[:, column]))
    bounds = (0, 99, 700)
    parts = on_shards(2, lambda g: neighbours(g, bounds)[name].sum_neighbours(x[bounds[g.rank] : bounds[g.rank + 1]]))
    assert torch.equal(torch.cat(parts), together)
    assert neighbours()[name].sum_neighbours(torch.zeros(700, 0)).shape == (700, 0)


def test_rows_that_can_change_get_the_bits_of_all():
    rows, x = torch.arange(5, 700, 9), sends()
    with torch.no_grad():
        assert torch.equal(neighbours(rows=rows).sum_neighbours(x), neighbours().sum_neighbours(x)[rows])


def test_layers_are_added_with_their_weights():
    x, weights = sends(), {"home": 2.0, "community": torch.tensor(0.25)}
    graph = neighbours()
    parts = {name: graph[name].sum_neighbours(x) for name in graph}
    expected = sum(part * weights.get(name, 1.0) for name, part in parts.items())
    torch.testing.assert_close(graph.sum_neighbours(x, weights), expected)


def test_activity_multiplies_what_both_ends_of_a_contact_do():
    site, x = POPULATION.contacts["site"], sends(share=1.0).double()
    size = np.bincount(site.place[site.place >= 0], minlength=site.num_places)
    together = (site.place[:, None] == site.place) & (site.place >= 0) & ~np.eye(700, dtype=bool)
    weight = together * site.weights(size)[site.place] * np.outer(site.activity, site.activity)
    torch.testing.assert_close(neighbours()["site"].sum_neighbours(x), torch.from_numpy(weight @ x.numpy()))


def test_one_field_is_sent_once():
    graph, x = neighbours(), sends()
    assert graph.send(x) is graph.only(torch.arange(3)).send(x)
    assert graph.send(x.clone()) is not graph.send(x)


def test_flags_count_as_0_and_1():
    x = sends() > 0
    assert torch.equal(neighbours()["friends"].sum_neighbours(x), neighbours()["friends"].sum_neighbours(x.float()))


def test_what_does_not_exist_is_refused():
    with pytest.raises(UnknownFieldError, match="no layer 'hom'; did you mean 'home'"):
        neighbours()["hom"]
    with pytest.raises(UnknownFieldError, match="no layer 'hom'"):
        neighbours().sum_neighbours(sends(), {"hom": 1.0})
    with pytest.raises(ShapeError, match=r"expected \(700,\) values, got \(3,\)"):
        neighbours()["home"].sum_neighbours(torch.ones(3))


@pytest.mark.parametrize("share", [0.1, 0.44, 0.46, 1.0])
def test_however_many_send_the_sums_have_the_same_bits(share):
    draw = np.random.default_rng(3)
    pairs = np.unique(draw.integers(0, 400, (3000, 2)), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    contacts = Contacts.from_edges(*pairs.T, draw.random(len(pairs)), num_agents=400)
    shard = cut(Population.of(contacts))
    x = torch.rand(400, generator=torch.Generator().manual_seed(1)) * (torch.arange(400) < share * 400)
    sums = [Neighbours(shard, 1, 0, 1.0, form, {}).sum_neighbours(x) for form in ("auto", "push", "pull")]
    assert torch.equal(sums[0], sums[2]) and torch.equal(sums[1], sums[2])
