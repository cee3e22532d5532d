"""AR-GSP: acceptance-rejection Gumbel-softmax pooling of hard negatives (view III; SPEC 5)."""
from __future__ import annotations

import math
from typing import List, Optional, Tuple

import torch
from torch import Tensor

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.sampling.base import NegativeSampler, gumbel, top_per_row
from tvdiff_pyg.typing import Pairs, ScoreItems

WEIGHTS = ('flat', 'score')
POOL_GROWTH = 4
MAX_SCORES = 2 ** 25  # scores at a time


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
        pool_size: rank a random pool of so many items, shared by the batch, instead of the whole catalogue (SPEC 7f).
            A row that finds too few accepted unobserved items in it gets a pool four times as large, and so on up to
            the catalogue. ``None`` ranks the catalogue: exact, at B x N scores.

    Raises:
        ValueError: an unknown option, or a number out of its range; in a call, missing scores or steps.

    Cost: the scores, one mask and one partial sort (two where rows must be filled up) of B x N or B x ``pool_size``, in
    blocks of at most 2^25 scores.

    Source: arXiv 2511.20122.
    """

    def __init__(self, gamma: float = 0.05, weights: str = 'score', lam: float = 3.0,
                 pool_size: Optional[int] = None) -> None:
        super().__init__()
        if not 0 < gamma <= 1:
            raise ValueError(f"'gamma' must lie in (0, 1], got {gamma}")
        if weights not in WEIGHTS:
            raise ValueError(f"'weights' must be one of {', '.join(WEIGHTS)}; got '{weights}'")
        if not 0 <= lam < math.inf:
            raise ValueError(f"'lam' must be a finite number >= 0, got {lam}")
        if pool_size is not None and pool_size < 1:
            raise ValueError(f"'pool_size' must be at least 1, got {pool_size}")
        self.gamma, self.weights, self.lam, self.pool_size = gamma, weights, lam, pool_size

    def forward(
        self,
        interactions: InteractionMatrix,
        users: Tensor,
        num_negatives: Tensor,
        scores: Optional[ScoreItems] = None,
        t: Optional[Tensor] = None,
        num_steps: int = 1,
        generator: Optional[torch.Generator] = None,
    ) -> Pairs:
        if scores is None or t is None:
            raise ValueError("'scores' and 't' are needed: AR-GSP ranks the items by the model's present scores")
        num_items = interactions.num_items
        want = torch.minimum(num_negatives, num_items - interactions.user_degree[users])  # [B]
        theta = torch.exp(-self.lam * (1 - t.double() / num_steps))  # [B]
        size = min(self.pool_size or num_items, num_items)
        waiting = want.nonzero().view(-1)
        found: List[Pairs] = []
        while waiting.numel():
            pool, worth_trying = None, torch.ones_like(waiting, dtype=torch.bool)
            if size < num_items:
                pool = torch.randperm(num_items, generator=generator, device=users.device)[:size]
                worth_trying = want[waiting] <= self._num_accepted(size)
            served = torch.zeros_like(worth_trying)
            for part in worth_trying.nonzero().view(-1).split(max(1, MAX_SCORES // size)):
                if part.numel() == 0:
                    continue
                rows = waiting[part]
                pairs, enough = self._draw(interactions, users[rows], want[rows], theta[rows], scores(rows, pool), pool,
                                           generator)
                found.append((rows[pairs[0]], pairs[1]))
                served[part] = enough
            waiting = waiting[~served]
            size = min(size * POOL_GROWTH, num_items)
        if not found:
            return want.new_empty(0), want.new_empty(0)
        row, item = torch.cat([row for row, _ in found]), torch.cat([item for _, item in found])
        order = row.argsort(stable=True)
        return row[order], item[order]

    def _num_accepted(self, size: int) -> int:
        return math.ceil(self.gamma * size * (1 - 1e-12))  # 0.07 * 100 is above 7 in binary

    def _draw(self, interactions: InteractionMatrix, users: Tensor, want: Tensor, theta: Tensor, scores: Tensor,
              pool: Optional[Tensor], generator: Optional[torch.Generator]) -> Tuple[Pairs, Tensor]:
        """Draw for some rows from the top of a pool, and tell which rows found enough in it.

        Rows that did not are left out; with the whole catalogue for a pool, what is missing is taken from the
        next-ranked unobserved items, so there are none.
        """
        row, item = interactions.rows(users)
        observed = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)  # [B, C]
        if pool is None:
            observed[row, item] = True
        else:
            column = torch.full((interactions.num_items,), -1, device=pool.device)
            column[pool] = torch.arange(pool.numel(), device=pool.device)
            column = column[item]
            observed[row[column >= 0], column[column >= 0]] = True
        num_accepted = self._num_accepted(scores.size(1))
        top_score, top = scores.topk(num_accepted, dim=1)  # [B, accepted]
        usable = ~observed.gather(1, top)
        num_usable = usable.sum(1)
        enough = num_usable >= want
        if pool is None and not bool(enough.all()):  # the next-ranked unobserved items fill up
            num_usable, enough = torch.maximum(num_usable, want), torch.ones_like(enough)
            finite = scores.clamp(min=torch.finfo(scores.dtype).min)  # or an unobserved -inf ties with observed ones
            top_score, top = finite.masked_fill(observed, -torch.inf).topk(int(num_usable.max()), dim=1)
            usable = torch.arange(top.size(1), device=top.device) < num_usable.unsqueeze(1)

        key = gumbel(top.shape, generator, top.device)
        if self.weights == 'score':
            key += top_score.double().clamp(min=-1e300)  # likewise
        # theta times the key of the equation: finite for every theta
        key += theta.unsqueeze(1) * gumbel(top.shape, generator, top.device)
        row, position = top_per_row(key.masked_fill_(~usable, -torch.inf), want * enough)
        item = top[row, position]
        return (row, item if pool is None else pool[item]), enough

    def extra_repr(self) -> str:
        return f'gamma={self.gamma}, weights={self.weights}, lam={self.lam}, pool_size={self.pool_size}'
