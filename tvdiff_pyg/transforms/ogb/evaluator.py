"""OGB's link evaluator on our scores."""
from __future__ import annotations

from typing import Callable, Dict, Mapping, Optional, Sequence

import torch
from torch import Tensor

from tvdiff_pyg.retrieval import user_blocks
from tvdiff_pyg.transforms.ogb.loading import ogb_module
from tvdiff_pyg.typing import Scorer

PairScorer = Callable[[Tensor], Tensor]
"""``score(pairs)``: pairs of nodes ``[2, Q]`` to scores ``[Q]``; higher is better."""


@torch.no_grad()
def evaluate_ogb(score: PairScorer, part: Mapping[str, Tensor], ks: Sequence[int] = (10, 50, 100),
                 batch_size: int = 65536) -> Dict[str, float]:
    r"""Measure scores of pairs with ``ogb.linkproppred.Evaluator``.

    Hits@K is the share of edges that score above the K-th best of all ``edge_neg``. MRR is the mean of 1 / rank of
    each target among its own ``target_node_neg``, ties counting half. Neither knows of observed pairs: what
    :mod:`tvdiff_pyg.evaluation` computes ranks every unseen item and is another figure.

    Args:
        score: gives scores of pairs: ``lambda pairs: conv.correlate(z, h, pairs)``, or :func:`pair_scorer` of a
            recommender.
        part: valid or test of a split, with ``edge [Q, 2]`` and ``edge_neg [P, 2]``, or with ``source_node [Q]``,
            ``target_node [Q]`` and ``target_node_neg [Q, n]``.
        ks: the K of Hits@K, each in 1..P; without use for MRR, where OGB fixes 1, 3 and 10.
        batch_size: pairs to score at once.

    Returns:
        ``hits@K`` for every K, or ``mrr``, ``hits@1``, ``hits@3`` and ``hits@10``.

    Raises:
        ValueError: ``part`` has no negatives or no edges, a K is out of range, or a score is NaN.
        ImportError: ogb is not installed.
    """
    evaluator_type = ogb_module('linkproppred').Evaluator

    def scores(pairs: Tensor) -> Tensor:
        out = torch.cat([score(batch) for batch in pairs.split(batch_size, dim=1)])
        if out.size() != (pairs.size(1),):
            raise ValueError(f"'score' must return one score a pair, [{pairs.size(1)}]; got {list(out.shape)}")
        if bool(out.isnan().any()):
            raise ValueError("'score' gives NaN: the model's weights are broken, train it anew")
        return out

    if {'edge', 'edge_neg'} <= set(part) and len(part['edge']):
        size = len(part['edge_neg'])
        if not ks or not 1 <= min(ks) <= max(ks) <= size:  # ogb would give 1.0 where K is above the pool
            raise ValueError(f"'ks' must lie in 1..{size}, the number of negative edges; got {list(ks)}")
        inputs = {'y_pred_pos': scores(part['edge'].t()), 'y_pred_neg': scores(part['edge_neg'].t())}
        evaluator = evaluator_type('ogbl-collab')
        values: Dict[str, float] = {}
        for k in ks:
            evaluator.K = k
            values[f'hits@{k}'] = float(evaluator.eval(inputs)[f'hits@{k}'])
        return values
    if {'source_node', 'target_node', 'target_node_neg'} <= set(part) and len(part['source_node']):
        rows = max(1, batch_size // max(1, part['target_node_neg'].size(1)))
        blocks = zip(part['source_node'].split(rows), part['target_node_neg'].split(rows))
        negative = [scores(torch.stack([source.repeat_interleave(items.size(1)), items.reshape(-1)])).view(items.size())
                    for source, items in blocks]
        inputs = {'y_pred_pos': scores(torch.stack([part['source_node'], part['target_node']])),
                  'y_pred_neg': torch.cat(negative)}
        lists = evaluator_type('ogbl-citation2').eval(inputs)
        return {name: float(lists[f'{name}_list'].double().mean()) for name in ('mrr', 'hits@1', 'hits@3', 'hits@10')}
    raise ValueError(f"'part' must be the valid or test part of a split, with edges and their negatives; it holds "
                     f"{', '.join(f'{name} {list(value.shape)}' for name, value in part.items()) or 'nothing'}")


def pair_scorer(scorer: Scorer) -> PairScorer:
    """Return the function that scores pairs with a recommender, in its blocks of users.

    Args:
        scorer: ``model.scorer()``: user indices to scores over all items. One block of them is in memory at a time.
    """
    def score(pairs: Tensor) -> Tensor:
        users, row = pairs[0].unique(return_inverse=True)
        order = row.argsort(stable=True)
        end = torch.bincount(row, minlength=users.numel()).cumsum(0).tolist()
        out: Optional[Tensor] = None
        first = 0
        for block, count in user_blocks(users):
            index = order[end[first - 1] if first else 0:end[first + count - 1]]
            values = scorer(block)[row[index] - first, pairs[1][index]]
            out = values.new_empty(pairs.size(1)) if out is None else out
            out[index] = values
            first += count
        return torch.empty(0) if out is None else out

    return score
