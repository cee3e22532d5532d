"""Ranking metrics of a model on held-out interactions (SPEC 12)."""
from __future__ import annotations

from typing import Callable, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch_geometric import metrics

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


class RankingEvaluator(torch.nn.Module):
    r"""Ranks the unseen items of every user who has held-out items, and compares.

    Recall@K divides the hits by the number of held-out items; NDCG@K by the ideal DCG of min(K, held-out) hits;
    precision@K by K; the hit ratio is the share of users with at least one hit; MRR the mean of 1 / rank of the
    first hit within K, or 0; MAP@K the mean over min(K, held-out) of the precision at each hit.

    Args:
        held_out: what to find.
        seen: interactions to mask: training, and validation when testing.
        ks: lengths of the lists.

    Raises:
        ValueError: no ``ks``, a K above the number of items, nothing held out, or held-out pairs that are masked.
    """

    users: Tensor

    def __init__(self, held_out: InteractionMatrix, seen: Sequence[InteractionMatrix],
                 ks: Sequence[int] = DEFAULT_KS) -> None:
        super().__init__()
        self.ks = sorted(set(ks))
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
        """Evaluate a scoring function."""
        num_items = self.held_out.num_items
        coverage = {k: metrics.LinkPredCoverage(k, num_items).to(self.users.device) for k in self.ks}
        values: Dict[str, list] = {name: [] for name in self.metrics}
        for users in self.users.split(BLOCK_SIZE):
            best = top_k(scorer, users, self.ks[-1], list(self.seen))  # type: ignore[arg-type]
            label = torch.stack(self.held_out.rows(users))
            data = metrics.link_pred.LinkPredMetricData(best.items, label)
            for name, metric in self.metrics.items():
                compute: Callable[..., Tensor] = metric._compute  # type: ignore[assignment]
                values[name].append(compute(data))  # the hook that PyG's metrics override: one value a row
            # Masked places of a short list must not count as recommended: name the first item again.
            listed = torch.where(best.scores == -torch.inf, best.items[:, :1], best.items)
            for metric in coverage.values():
                metric.update(listed, label)
        per_user = {name: torch.cat(value) for name, value in values.items()}
        mean = {name: float(value.double().mean()) for name, value in per_user.items()}
        mean.update({f'coverage@{k}': float(metric.compute()) for k, metric in coverage.items()})
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
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        out[i] = largest
    return out
