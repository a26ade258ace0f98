r"""Who was infected by whom, and what the score of an infection owes to it.

The local score takes the change that a source brings at its slope. For one pair that is too little: let source j have
sent i the hazard b in earlier steps, and infect it now. The slope of the likelihood in the weight of j is then 1 - b,
since without j the agent would also have escaped those earlier exposures with more ease. But without j there is no
infection at all, however the earlier exposures went: the change is 1. So an agent that is infected gets back what it
received before from the one who infects it, in the proportion in which its sources send,

.. math:: \sum_j \frac{w_{ij} x_j}{h_i} \, b_{ij} \, d\ell_j, \qquad b_{ij} = k_i w_{ij} \sum_{u < t} x_j(u),

where :math:`\ell_j` is the log-weight of j, h the sum over neighbours and k h the hazard. With several independent
sources the result is exact to second order in b, but for the slope within the one step, half its hazard; in groups
whose members infect each other it is still biased.
Contacts that are drawn anew do not meet again, so they owe nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gnabm.merge import Change, changed_rows
from gnabm.neighbours import Neighbours, Summed
from gnabm.rule import Step
from gnabm.sent import Sent


class Lineage:
    """What every agent has sent so far, in a run under the local score.

    Args:
        sent: (num_owned,) float32 sums of what each agent sent in the steps before.
    """

    def __init__(self, sent: Tensor) -> None:
        self.sent = sent

    def note(self, contacts: Neighbours) -> None:
        """Add what was sent in a step; of a field by layer, what was sent through the first."""
        if contacts.summed is not None:
            rows, values = _first(contacts.summed).own
            self.sent.index_add_(0, rows, values.detach().to(self.sent.dtype))  # a number, not a chain of gradients

    def score(self, contacts: Neighbours, step: Step, change: Change) -> None:
        """Give the infections of a step what they get back; before `note`.

        Args:
            contacts: The graph as the rule saw it.
            step: The step as the rule saw it.
            change: The stages that it changed.
        """
        summed, chance = contacts.summed, step.chance
        if summed is None or summed.sums is None or chance is None or step.weights is None:
            return  # no infection was drawn from a sum
        at, rows = changed_rows(change)
        first = _first(summed)
        who, values = first.own
        past = values.detach() * self.sent.index_select(0, who) * step.weights.index_select(0, who)  # of weights alone
        again = Sent(contacts.shard, None, False, who, past)
        graph = contacts.only(rows)
        total = torch.zeros(rows.shape, dtype=past.dtype)
        for name in graph:
            part = graph[name].squared(again)
            if part is not None:
                weight = torch.as_tensor(summed.weights.get(name, 1.0)).detach()  # a factor of the pair's past
                weight = weight.index_select(0, at) if weight.dim() else weight
                total = total + part * weight.square()
        hazard = -torch.log1p(-chance.index_select(0, at))
        received = summed.sums.detach().index_select(0, at)  # the hazard is a number here
        share = torch.where(received > 0, hazard / received.square(), torch.zeros_like(received))
        step.weigh(total * share, at)


def _first(summed: Summed) -> Sent:
    return next(iter(summed.sent.values()))
