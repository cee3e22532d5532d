"""Metrics against a loop written from SPEC 12."""
from __future__ import annotations

import math
from typing import Dict, Iterator, List

import pytest
import torch
from torch import Tensor

from tvdiff_pyg.evaluation import RankingEvaluator, evaluate, holm, paired_test
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn import Popularity
from tvdiff_pyg.retrieval import BLOCK_SIZE

NUM_USERS, NUM_ITEMS, KS = 300, 40, [1, 5, 40]  # more users than two blocks, and a list of the whole catalogue


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(default)


def _parts() -> List[InteractionMatrix]:
    generator = torch.Generator().manual_seed(3)
    part = torch.randint(0, 12, (NUM_USERS, NUM_ITEMS), generator=generator)  # 0: train, 1: validation, 2: test
    part[5][part[5] == 2] = 7  # nothing held out
    part[6] = 0
    part[6, 3] = 2  # all but one seen: a short list
    return [InteractionMatrix((part == p).nonzero().t(), NUM_USERS, NUM_ITEMS) for p in range(3)]


def _brute_force(scores: Tensor, test: InteractionMatrix, seen: List[InteractionMatrix], k: int) -> Dict[str, float]:
    sums: Dict[str, float] = {}
    count, listed = 0, set()
    masked = {(u, i) for part in seen for u, i in part.edge_index.t().tolist()}
    for u in range(NUM_USERS):
        held_out = {i for v, i in test.edge_index.t().tolist() if v == u}
        if not held_out:
            continue
        count += 1
        ranked = sorted((i for i in range(NUM_ITEMS) if (u, i) not in masked), key=lambda i: -float(scores[u, i]))[:k]
        listed.update(ranked)
        hits = [i in held_out for i in ranked]
        ideal = min(k, len(held_out))
        values = {
            'recall': sum(hits) / len(held_out),
            'precision': sum(hits) / k,
            'hit_ratio': float(any(hits)),
            'ndcg': sum(1 / math.log2(r + 2) for r, hit in enumerate(hits) if hit)
            / sum(1 / math.log2(r + 2) for r in range(ideal)),
            'mrr': next((1 / (r + 1) for r, hit in enumerate(hits) if hit), 0.0),
            'map': sum(sum(hits[:r + 1]) / (r + 1) for r, hit in enumerate(hits) if hit) / ideal,
        }
        for name, value in values.items():
            sums[name] = sums.get(name, 0) + value
    return {**{f'{name}@{k}': value / count for name, value in sums.items()}, f'coverage@{k}': len(listed) / NUM_ITEMS}


def test_metrics_equal_a_brute_force_loop() -> None:
    train, validation, test = _parts()
    scores = torch.rand(NUM_USERS, NUM_ITEMS, generator=torch.Generator().manual_seed(0))
    got = RankingEvaluator(test, [train, validation], KS)(lambda users: scores[users])
    assert 5 not in got.users.tolist() and 6 in got.users.tolist()
    expected: Dict[str, float] = {}
    for k in KS:
        expected.update(_brute_force(scores, test, [train, validation], k))
    assert set(got.mean) == set(expected)
    for name, value in expected.items():
        assert got.mean[name] == pytest.approx(value, rel=1e-12), name


def test_per_user_values_belong_to_the_users_named() -> None:
    train, validation, test = _parts()
    perfect = test.dense(torch.arange(NUM_USERS))
    got = RankingEvaluator(test, [train, validation], [40])(lambda users: perfect[users])
    assert got.per_user['recall@40'].eq(1).all()
    torch.testing.assert_close(got.per_user['ndcg@40'], torch.ones(len(got.users)))
    torch.testing.assert_close(got.per_user['precision@40'], test.user_degree[got.users] / 40)


def test_result_does_not_depend_on_the_number_of_blocks() -> None:
    assert NUM_USERS > 2 * BLOCK_SIZE
    train, validation, test = _parts()
    weight = torch.rand(NUM_ITEMS, NUM_ITEMS, generator=torch.Generator().manual_seed(0)).float()

    def scorer(users: Tensor) -> Tensor:
        assert users.shape == (BLOCK_SIZE,)
        return train.dense(users, torch.float32) @ weight

    whole = RankingEvaluator(test, [train, validation], [10])(scorer)
    assert len(whole.per_user['recall@10']) == len(whole.users) == int((test.user_degree > 0).sum())


def test_errors_name_the_argument() -> None:
    train, validation, test = _parts()
    with pytest.raises(ValueError, match=r"'k' must lie in 1\.\.40.*got 41"):
        RankingEvaluator(test, [train], [41])
    with pytest.raises(ValueError, match="'ks' must hold"):
        RankingEvaluator(test, [train], [])
    with pytest.raises(ValueError, match="'held_out' is empty"):
        RankingEvaluator(InteractionMatrix(torch.empty(2, 0, dtype=torch.long), 3, 40), [], [5])
    with pytest.raises(ValueError, match=r'could never be ranked'):
        RankingEvaluator(test, [test], [5])
    for width in (NUM_ITEMS + 1, NUM_ITEMS - 1):
        with pytest.raises(ValueError, match=f"'scorer' scores {width} items, but 'held_out' is of 40"):
            RankingEvaluator(test, [], [5])(lambda users: torch.rand(users.numel(), width))
    with pytest.raises(ValueError, match='NaN'):
        RankingEvaluator(test, [train], [5])(lambda users: torch.full((users.numel(), NUM_ITEMS), torch.nan))


def test_popularity_recommends_one_list_to_all_who_saw_nothing_of_it() -> None:
    train = InteractionMatrix(torch.tensor([[0, 1, 2, 2], [0, 0, 0, 1]]), 4, 5)
    held_out = InteractionMatrix(torch.tensor([[3, 0], [0, 1]]), 4, 5)
    got = evaluate(Popularity(train), held_out, [train], [1])
    assert got.mean['recall@1'] == 1.0  # user 3 gets item 0, user 0 the next most popular, item 1
    assert got.mean['coverage@1'] == pytest.approx(2 / 5)


def test_places_that_no_item_is_left_for_count_as_nothing() -> None:
    seen = InteractionMatrix(torch.tensor([[0, 0, 0, 0], [0, 1, 2, 3]]), 1, 6)
    held_out = InteractionMatrix(torch.tensor([[0], [4]]), 1, 6)
    evaluator = RankingEvaluator(held_out, [seen], [1, 4])
    got = evaluator(lambda users: torch.arange(6.0).expand(users.numel(), 6))
    assert got.mean['coverage@4'] == pytest.approx(2 / 6)  # items 4 and 5, for two of four places
    assert got.mean['coverage@1'] == pytest.approx(1 / 6) and got.mean['recall@4'] == 1
    assert not evaluator.state_dict() and not evaluator.distributed


def test_the_paired_test_is_of_float64() -> None:
    stats = pytest.importorskip('scipy.stats')
    a, b = torch.rand(2, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float32) * 1e-3 + 1e4
    exact = stats.ttest_rel(a.double().numpy(), b.double().numpy()).pvalue
    assert paired_test(a, b.double()) == paired_test(a.double(), b) == paired_test(a, b) == pytest.approx(exact)
    assert 0 < paired_test([0.0, 1.0], [0.0, 0.0]) < 1  # two users are enough


def test_paired_test_and_holm() -> None:
    stats = pytest.importorskip('scipy.stats')
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(50, generator=generator)
    b = a + 0.1 * torch.randn(50, generator=generator) + 0.02
    assert paired_test(a, b) == pytest.approx(stats.ttest_rel(a.double().numpy(), b.double().numpy()).pvalue)
    assert paired_test(a, a) == 1.0 and paired_test([0.0, 1.0, 1.0], [0.0, 0.0, 1.0]) > 0.3
    for wrong in ((a, b[:-1]), ([1.0], [0.0])):
        with pytest.raises(ValueError, match='the same users, two or more; got'):
            paired_test(*wrong)
    # by hand: 3 * .01, then 2 * .03, then the largest so far
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_an_evaluation_prints_in_one_line() -> None:
    held_out = InteractionMatrix(torch.tensor([[0, 1], [0, 2]]), 3, 4)
    result = RankingEvaluator(held_out, [], [1])(lambda users: torch.eye(3, 4)[users])
    assert repr(result).startswith('Evaluation(2 users: recall@1 0.5000, ndcg@1 0.5000, ') and '\n' not in repr(result)
