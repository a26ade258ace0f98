import pytest
import torch

from cluster.campaign import campaign
from gnabm import Contacts
from gnabm.errors import DataError, StoreError
from gnabm.models.epidemic import sir
from gnabm.sensitivity import Question, Variant, in_process

RING = Contacts.from_edges(range(50), [*range(1, 50), 0], num_agents=50, undirected=True)


@pytest.mark.ray
def test_tasks_give_what_one_process_gives_in_the_same_order(ray_cluster):
    question = Question(sir(0.5, 0.1, 0.1), 10, groups=("week",))
    variants = [
        Variant(seed, {"Infect.transmission_rate": torch.tensor(rate)}) for seed in (1, 2) for rate in (0.1, 0.5, 0.9)
    ]
    with campaign(question, RING, at_once=2) as run:
        found = run(variants)
        assert torch.equal(torch.stack(found), torch.stack(list(in_process(question, RING)(variants))))
        with pytest.raises(DataError, match=r"Infect\.transmission_rate"):
            run([Variant(1, {"Infect.transmission_rate": torch.tensor(-1.0)})])
        assert torch.equal(run(variants[:1])[0], found[0])


@pytest.mark.ray
def test_a_population_that_cannot_be_opened_is_refused_in_gnabm_s_words(ray_cluster, tmp_path):
    question = Question(sir(0.5, 0.1, 0.1), 3, groups=("week",))
    with pytest.raises(StoreError, match="nowhere"), campaign(question, tmp_path / "nowhere.zarr", at_once=1):
        raise AssertionError("opened")
