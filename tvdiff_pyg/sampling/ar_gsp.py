"""AR-GSP: acceptance-rejection Gumbel-softmax pooling of hard negatives (view III; SPEC 5)."""
from __future__ import annotations

import math
from typing import Optional

import torch
from torch import Tensor

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.sampling.base import NegativeSampler, gumbel, top_per_row
from tvdiff_pyg.typing import Pairs

WEIGHTS = ('flat', 'score')


class ARGumbelSampler(NegativeSampler):
    r"""Hard negatives from the top of the model's own ranking.

    An item is accepted for user ``u`` iff it ranks in the top :math:`\lceil \gamma N \rceil` of
    :math:`\hat R_u`; observed items have log-weight :math:`-\infty`. With two independent standard Gumbels,
    the negatives are the top :math:`n` of

    .. math::
        (l_j + g_j) / \theta_t + g'_j, \qquad \theta_t = \exp(-\lambda (1 - t / T))

    which draws them without replacement in proportion to the Gumbel-softmax weights
    :math:`w_j = \exp((l_j + g_j) / \theta_t)` without ever taking the exponential. ``flat`` weights have
    :math:`l_j = 0`, so that :math:`\theta_t` cannot matter; ``score`` weights have :math:`l_j` the log-softmax of the
    score over the accepted items (up to a constant of the row, which cancels). Where fewer than :math:`n` accepted
    items are unobserved, the next-ranked unobserved ones fill up.

    Args:
        gamma: accepted share of the catalogue, in (0, 1]. Too small a share samples false negatives.
        weights: ``score`` or ``flat``.
        lam: :math:`\lambda \ge 0`.

    Raises:
        ValueError: an unknown option, or a number out of its range; in a call, missing scores or steps.

    Cost: one B x N mask and two partial sorts of it; the arrays after that are B x :math:`\lceil \gamma N \rceil`.

    Source: arXiv 2511.20122.
    """

    needs_scores = True

    def __init__(self, gamma: float = 0.05, weights: str = 'score', lam: float = 3.0) -> None:
        super().__init__()
        if not 0 < gamma <= 1:
            raise ValueError(f"'gamma' must lie in (0, 1], got {gamma}")
        if weights not in WEIGHTS:
            raise ValueError(f"'weights' must be one of {', '.join(WEIGHTS)}; got '{weights}'")
        if not 0 <= lam < math.inf:
            raise ValueError(f"'lam' must be a finite number >= 0, got {lam}")
        self.gamma, self.weights, self.lam = gamma, weights, lam

    def forward(
        self,
        interactions: InteractionMatrix,
        users: Tensor,
        num_negatives: Tensor,
        scores: Optional[Tensor] = None,
        t: Optional[Tensor] = None,
        num_steps: int = 1,
        generator: Optional[torch.Generator] = None,
    ) -> Pairs:
        if scores is None or t is None:
            raise ValueError("'scores' and 't' are needed: AR-GSP ranks the items by the model's present scores")
        num_items = interactions.num_items
        num_accepted = math.ceil(self.gamma * num_items * (1 - 1e-12))  # 0.07 * 100 is above 7 in binary
        row, item = interactions.rows(users)
        want = torch.minimum(num_negatives, num_items - interactions.user_degree[users])  # [B]

        observed = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
        observed[row, item] = True
        accepted = scores.topk(num_accepted, dim=1).indices
        num_pool = num_accepted - observed.gather(1, accepted).sum(1)  # accepted and unobserved, [B]
        num_pool = torch.maximum(num_pool, want)
        width = int(num_pool.max()) if num_pool.numel() else 0
        pool_score, pool = scores.masked_fill(observed, -torch.inf).topk(width, dim=1)  # [B, width], descending

        key = gumbel(pool.shape, generator, pool.device)
        if self.weights == 'score':
            key += pool_score.double()
        theta = torch.exp(-self.lam * (1 - t.double() / num_steps)).unsqueeze(1)  # [B, 1]
        key += theta * gumbel(pool.shape, generator, pool.device)  # theta times the key above: finite for every theta
        outside = torch.arange(width, device=pool.device) >= num_pool.unsqueeze(1)
        row, position = top_per_row(key.masked_fill_(outside, -torch.inf), want)
        return row, pool[row, position]

    def extra_repr(self) -> str:
        return f'gamma={self.gamma}, weights={self.weights}, lam={self.lam}'
