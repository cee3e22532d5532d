"""Ranking metrics of a model on held-out interactions (SPEC 12)."""
from __future__ import annotations

from typing import Callable, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch_geometric import metrics

from tvdiff_pyg.distributed import rank, sum_over_processes, world_size
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.retrieval import BLOCK_SIZE, check_k, top_k
from tvdiff_pyg.typing import Recommender, Scorer

METRICS: Dict[str, Callable[[int], metrics.link_pred.LinkPredMetric]] = {
    'recall': metrics.LinkPredRecall,
    'ndcg': metrics.LinkPredNDCG,
    'precision': metrics.LinkPredPrecision,
    'hit_ratio': metrics.LinkPredHitRatio,
    'mrr': metrics.LinkPredMRR,
    'map': metrics.LinkPredMAP,
}
"""House names of the metrics; the definitions are those of :mod:`torch_geometric.metrics`."""

DEFAULT_KS: Tuple[int, ...] = (10, 20, 50)


class Evaluation(NamedTuple):
    """Metrics of one model on one held-out set.

    Attributes:
        mean: ``recall@20`` and so on, averaged over the users with at least one held-out item, and
            ``coverage@20``, the share of the catalogue that occurs in anybody's list.
        per_user: the same values user by user, ``[U]`` each (no coverage).
        users: those users' indices ``[U]``.
    """

    mean: Dict[str, float]
    per_user: Dict[str, Tensor]
    users: Tensor

    def __repr__(self) -> str:
        mean = ', '.join(f'{name} {value:.4f}' for name, value in self.mean.items())
        return f'Evaluation({self.users.numel()} users: {mean})'


class RankingEvaluator(torch.nn.Module):
    r"""Ranks the unseen items of every user who has held-out items, and compares.

    Recall@K divides the hits by the number of held-out items; NDCG@K by the ideal DCG of min(K, held-out) hits;
    precision@K by K; the hit ratio is the share of users with at least one hit; MRR the mean of 1 / rank of the
    first hit within K, or 0; MAP@K the mean over min(K, held-out) of the precision at each hit.

    Args:
        held_out: what to find.
        seen: interactions to mask: training, and validation when testing.
        ks: lengths of the lists.
        distributed: whether the processes of ``torch.distributed`` share the users out, in the same blocks whatever
            their number; all of them must then call this, and all get the whole result.

    Raises:
        ValueError: no ``ks``, a K above the number of items, nothing held out, or held-out pairs that are masked.
    """

    users: Tensor

    def __init__(self, held_out: InteractionMatrix, seen: Sequence[InteractionMatrix],
                 ks: Sequence[int] = DEFAULT_KS, distributed: bool = False) -> None:
        super().__init__()
        self.ks, self.distributed = sorted(set(ks)), distributed
        if not self.ks:
            raise ValueError("'ks' must hold at least one list length")
        for k in (self.ks[0], self.ks[-1]):
            check_k(k, held_out.num_items)
        user, item = held_out.edge_index
        if user.numel() == 0:
            raise ValueError("'held_out' is empty: there is nothing to evaluate on")
        for interactions in seen:
            overlap = int(interactions.contains(user, item).sum())
            if overlap:
                raise ValueError(f"{overlap} pairs of 'held_out' are also in 'seen' and could never be ranked")
        self.held_out, self.seen = held_out, torch.nn.ModuleList(seen)
        self.register_buffer('users', held_out.user_degree.nonzero().view(-1), persistent=False)
        self.metrics = torch.nn.ModuleDict(
            {f'{name}@{k}': cls(k) for name, cls in METRICS.items() for k in self.ks}).to(user.device)

    def forward(self, scorer: Scorer) -> Evaluation:
        """Evaluate a scoring function.

        Raises:
            ValueError: it scores another number of items than ``held_out`` has, or gives NaN.
        """
        def scores_of(users: Tensor) -> Tensor:
            scores = scorer(users)
            if scores.size(1) != self.held_out.num_items:
                raise ValueError(f"'scorer' scores {scores.size(1)} items, but 'held_out' is of "
                                 f"{self.held_out.num_items}: take both from one data set")
            return scores

        own, every = (rank(), world_size()) if self.distributed else (0, 1)
        per_user = {name: torch.zeros(self.users.numel(), device=self.users.device) for name in self.metrics}
        listed = torch.zeros(len(self.ks), self.held_out.num_items, dtype=torch.long, device=self.users.device)
        for start in range(own * BLOCK_SIZE, self.users.numel(), every * BLOCK_SIZE):
            users = self.users[start:start + BLOCK_SIZE]
            best = top_k(scores_of, users, self.ks[-1], list(self.seen))  # type: ignore[arg-type]
            data = metrics.link_pred.LinkPredMetricData(best.items, torch.stack(self.held_out.rows(users)))
            for name, metric in self.metrics.items():
                compute: Callable[..., Tensor] = metric._compute  # type: ignore[assignment]
                # the hook that PyG's metrics override: one value a row
                per_user[name][start:start + BLOCK_SIZE] = compute(data)
            # Masked places of a short list must not count as recommended: name the first item again.
            items = torch.where(best.scores == -torch.inf, best.items[:, :1], best.items)
            for mark, k in zip(listed, self.ks):
                mark[items[:, :k].flatten()] = 1
        if self.distributed:
            sum_over_processes(*per_user.values(), listed)
        mean = {name: float(value.double().mean()) for name, value in per_user.items()}
        mean.update({f'coverage@{k}': float((mark > 0).float().mean()) for mark, k in zip(listed, self.ks)})
        return Evaluation(mean, per_user, self.users)


def evaluate(model: Recommender, held_out: InteractionMatrix, seen: Sequence[InteractionMatrix],
             ks: Sequence[int] = DEFAULT_KS) -> Evaluation:
    """Evaluate a model; see :class:`RankingEvaluator`."""
    return RankingEvaluator(held_out, seen, ks)(model.scorer())


def paired_test(a: ArrayLike, b: ArrayLike) -> float:
    """Return the two-sided p-value of the paired t-test that two models are equally good, user by user.

    Args:
        a: one model's values of a metric, :attr:`Evaluation.per_user`, ``[U]``.
        b: another's, of the same users in the same order.

    Raises:
        ValueError: different numbers of users, or fewer than two.
        ImportError: without scipy.
    """
    try:
        from scipy.stats import ttest_1samp
    except ImportError as error:
        raise ImportError(f'the paired test needs scipy ({error}): pip install "tvdiff-pyg[baselines]"') from error
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.size < 2:
        raise ValueError(f"'a' and 'b' must hold the values of the same users, two or more; got {first.size} and "
                         f"{second.size}")
    difference = first - second
    return float(ttest_1samp(difference, 0.0).pvalue) if difference.any() else 1.0


def holm(p_values: Sequence[float]) -> List[float]:
    """Return p-values corrected for their number: Holm's step-down, which bounds the chance of any false finding.

    Args:
        p_values: of m tests, ``[m]``.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    out, largest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        out[i] = largest
    return out
