"""Tests of OGB's evaluator on our scores."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict

import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from tvdiff_pyg.nn import TVDiffConv
from tvdiff_pyg.transforms import RATES
from tvdiff_pyg.transforms.ogb import evaluate_ogb, load_ogb, pair_scorer, to_ogb


def test_pair_scorer_is_the_scorers_entries() -> None:
    scores = torch.randn(300, 7, generator=torch.Generator().manual_seed(0))
    blocks = []

    def scorer(users: Tensor) -> Tensor:
        blocks.append(users.numel())
        return scores[users]

    pairs = torch.stack([torch.randint(300, (2000,), generator=torch.Generator().manual_seed(1)),
                         torch.randint(7, (2000,), generator=torch.Generator().manual_seed(2))])
    assert torch.equal(pair_scorer(scorer)(pairs), scores[pairs[0], pairs[1]])
    assert blocks == [128, 128, 128]
    assert torch.equal(pair_scorer(scorer)(pairs[:, :1]), scores[pairs[0, :1], pairs[1, :1]])
    assert pair_scorer(scorer)(pairs[:, :0]).numel() == 0


def table(scores: Dict[tuple, float]) -> Any:
    return lambda pairs: torch.tensor([scores[pair] for pair in map(tuple, pairs.t().tolist())])


def test_hits_by_hand(ogb: Any) -> None:
    part = {'edge': torch.tensor([[0, 1], [0, 2], [0, 3], [0, 4]]), 'edge_neg': torch.tensor([[1, 1], [1, 2], [1, 3]])}
    score = table({(0, 1): 5.0, (0, 2): 3.0, (0, 3): 2.5, (0, 4): 0.5, (1, 1): 3.0, (1, 2): 2.0, (1, 3): 1.0})
    # Best negative 3: above it 5 alone, the tie at 3 does not count; second 2: 5, 3, 2.5; third 1: the same.
    assert evaluate_ogb(score, part, ks=[1, 2, 3]) == {'hits@1': 0.25, 'hits@2': 0.75, 'hits@3': 0.75}
    assert evaluate_ogb(score, part, ks=[2], batch_size=2) == {'hits@2': 0.75}


def test_mrr_by_hand(ogb: Any) -> None:
    part = {'source_node': torch.tensor([0, 1]), 'target_node': torch.tensor([9, 8]),
            'target_node_neg': torch.tensor([[1, 2, 3], [4, 5, 6]])}
    score = table({(0, 9): 2.0, (0, 1): 3.0, (0, 2): 1.0, (0, 3): 2.0,  # rank 2 or 3, by the tie: 2.5
                   (1, 8): 9.0, (1, 4): 1.0, (1, 5): 2.0, (1, 6): 3.0})  # rank 1
    want = {'mrr': (1 / 2.5 + 1) / 2, 'hits@1': 0.5, 'hits@3': 1.0, 'hits@10': 1.0}
    for batch_size in (65536, 4):
        assert evaluate_ogb(score, part, batch_size=batch_size) == pytest.approx(want, abs=1e-7)


def test_scores_of_the_layer_and_of_a_recommender(ogb: Any, split_graph: Callable[[], HeteroData],
                                                  tmp_path: Path) -> None:
    data = split_graph()
    to_ogb(data, 'ogbl-hits', tmp_path, eval_metric='hits@5', num_negatives=20)
    part = load_ogb('ogbl-hits', tmp_path).get_edge_split()['test']
    conv = TVDiffConv(12, 8)
    code = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        items = conv((None, None), data[RATES].edge_index, size=(12, 30))
    dense = code @ items.t()
    positive, negative = (dense[pairs[:, 0], pairs[:, 1]] for pairs in (part['edge'], part['edge_neg']))
    want = {f'hits@{k}': float((positive > negative.sort(descending=True).values[k - 1]).double().mean())
            for k in (1, 5, 20)}
    assert 0 < want['hits@20'] and len(set(want.values())) > 1
    assert evaluate_ogb(lambda pairs: conv.correlate(code, items, pairs), part, ks=[1, 5, 20]) == want
    assert evaluate_ogb(pair_scorer(lambda users: dense[users]), part, ks=[1, 5, 20]) == want


def test_what_the_evaluator_refuses(ogb: Any) -> None:
    part = {'edge': torch.tensor([[0, 1]]), 'edge_neg': torch.tensor([[1, 1], [1, 2]])}

    def one(pairs: Tensor) -> Tensor:
        return torch.ones(pairs.size(1))

    for ks in ([3], [0], []):  # ogb itself gives 1.0 for K = 3
        with pytest.raises(ValueError, match="'ks' must lie in 1..2, the number of negative edges"):
            evaluate_ogb(one, part, ks)
    with pytest.raises(ValueError, match="'score' gives NaN"):
        evaluate_ogb(lambda pairs: one(pairs) * torch.nan, part, [1])
    with pytest.raises(ValueError, match=r"'score' must return one score a pair, \[1\]; got \[1, 1\]"):
        evaluate_ogb(lambda pairs: one(pairs).view(-1, 1), part, [1])
    for wrong in ({'edge': part['edge']}, {'edge_neg': part['edge']}, {**part, 'edge': part['edge'][:0]}, {}):
        with pytest.raises(ValueError, match="'part' must be the valid or test part of a split"):
            evaluate_ogb(one, wrong, [1])
