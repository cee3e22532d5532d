"""Top-k lists: masking, order, blocks."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tvdiff_pyg.diffusion import GaussianDiffusion, NoiseSchedule
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn import (
    EASE,
    GFCF,
    AnisotropicDenoiser,
    DiffRec,
    HelmholtzFreeEnergy,
    ItemKNN,
    LightGCN,
    Popularity,
    TVDiff,
)
from tvdiff_pyg.retrieval import BLOCK_SIZE, fold_in, largest, recommend, top_k, user_blocks


def _train() -> InteractionMatrix:
    generator = torch.Generator().manual_seed(0)
    return InteractionMatrix((torch.rand(200, 60, generator=generator) < 0.2).nonzero().t(), 200, 60)


def test_lists_are_the_sorted_unseen_items() -> None:
    train = _train()
    scores = torch.rand(200, 60, generator=torch.Generator().manual_seed(1))
    users = torch.tensor([7, 199, 0])
    got = top_k(lambda block: scores[block], users, 5, [train])
    for row, user in enumerate(users.tolist()):
        seen = set(train.col[train.rowptr[user]:train.rowptr[user + 1]].tolist())
        expected = sorted(set(range(60)) - seen, key=lambda item: -float(scores[user, item]))[:5]
        assert got.items[row].tolist() == expected
        torch.testing.assert_close(got.scores[row], scores[user, expected])


def test_scores_of_the_model_are_not_overwritten() -> None:
    train = _train()
    scores = torch.rand(BLOCK_SIZE, 60)
    before = scores.clone()
    top_k(lambda users: scores, torch.arange(BLOCK_SIZE), 3, [train])
    assert torch.equal(scores, before)


@pytest.mark.parametrize('number', [1, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1])
def test_blocks_have_one_shape_and_cover_everybody_once(number: int) -> None:
    users = torch.arange(number) + 5
    blocks = list(user_blocks(users))
    assert all(block.shape == (BLOCK_SIZE,) for block, _ in blocks)
    assert torch.equal(torch.cat([block[:count] for block, count in blocks]), users)


def test_a_list_does_not_depend_on_who_else_is_asked_for() -> None:
    train = _train()
    model = EASE(train, 10.0)
    everybody = recommend(model, torch.arange(200), 10, [train])
    for user in (0, 63, 130, 199):
        alone = recommend(model, torch.tensor([user]), 10, [train])
        assert torch.equal(alone.items[0], everybody.items[user])
        assert torch.equal(alone.scores[0], everybody.scores[user])


def test_a_user_with_few_unseen_items_gets_minus_infinity_in_the_rest() -> None:
    train = InteractionMatrix(torch.tensor([[0, 0], [0, 1]]), 1, 3)
    got = recommend(Popularity(train), torch.tensor([0]), 3, [train])
    assert got.items[0, 0] == 2 and got.scores[0].isinf().tolist() == [False, True, True]


def test_no_users_no_lists() -> None:
    got = recommend(Popularity(_train()), torch.empty(0, dtype=torch.long), 4)
    assert got.items.shape == (0, 4) and got.scores.shape == (0, 4)
    with pytest.raises(ValueError, match="'k' must lie in 1"):
        top_k(lambda users: users, torch.empty(0, dtype=torch.long), 0)


def test_errors_name_the_argument() -> None:
    model = Popularity(_train())
    user: Tensor = torch.tensor([0])
    for k in (0, 61):
        with pytest.raises(ValueError, match=rf"'k' must lie in 1\.\.60, the number of items; got {k}"):
            recommend(model, user, k)
    for bad in (-1, 200):
        with pytest.raises(ValueError, match=r"'users' must lie in 0\.\.199"):
            recommend(model, torch.tensor([bad]), 5)
    for allowed, got in ((torch.tensor([3, 5]), r'int64 of shape \[2\]'), (torch.ones(60, dtype=torch.long), 'int64'),
                         (torch.ones(59, dtype=torch.bool), r'bool of shape \[59\]')):
        with pytest.raises(ValueError, match=rf"'allowed' must be boolean, of shape \[60\], got .*{got}.*torch.isin"):
            recommend(model, user, 5, allowed=allowed)
    other = InteractionMatrix(torch.tensor([[0], [3]]), 200, 50)
    with pytest.raises(ValueError, match=r"'seen\[1\]' is of 50 items, the scores are of 60"):
        recommend(model, user, 5, [_train(), other])


def test_equal_scores_come_in_the_order_of_the_items() -> None:
    generator = torch.Generator().manual_seed(3)
    for case in range(200):
        scores = torch.randint(0, 4, (5, 12), generator=generator).float()
        scores[scores == 0] = -torch.inf
        k = int(torch.randint(1, 13, (1,), generator=generator))
        got = largest(scores, k)
        for row in range(5):
            expected = sorted(range(12), key=lambda item: (-float(scores[row, item]), item))[:k]
            assert got.items[row].tolist() == expected, case
            assert torch.equal(got.scores[row], scores[row, expected])


def test_only_allowed_items_are_listed() -> None:
    train = _train()
    scores = torch.rand(200, 60, generator=torch.Generator().manual_seed(1))
    allowed = torch.arange(60) % 3 == 0
    got = top_k(lambda users: scores[users], torch.arange(200), 30, [train], allowed)
    listed = got.items[got.scores > -torch.inf]
    assert bool(allowed[listed].all())
    free = (train.dense(torch.arange(200)) == 0) & allowed
    assert torch.equal((got.scores > -torch.inf).sum(1), free.sum(1))


def _tvdiff(train: InteractionMatrix, engine: str = 'factored', prediction: str = 'x0') -> TVDiff:
    torch.manual_seed(0)
    return TVDiff(train, AnisotropicDenoiser(200, 60, 8, 8), GaussianDiffusion(NoiseSchedule(num_steps=3), prediction),
                  HelmholtzFreeEnergy('nll', 1.0), engine=engine)


MODELS = {
    'tv-diff': _tvdiff, 'dense': lambda train: _tvdiff(train, 'dense'),
    'eps': lambda train: _tvdiff(train, prediction='eps'),
    'diffrec': lambda train: DiffRec(train, GaussianDiffusion(NoiseSchedule(num_steps=3)), 8),
    'ease': lambda train: EASE(train, 10.0), 'gf-cf': lambda train: GFCF(train, 8),
    'item-knn': lambda train: ItemKNN(train, 5), 'popularity': Popularity}


@pytest.mark.parametrize('name', list(MODELS))
def test_folding_in_a_user_s_own_items_gives_that_user_s_list(name: str) -> None:
    """To the bit: the same rows take the same way, whoever stands beside them."""
    train = _train()
    model = MODELS[name](train).eval()
    users = torch.tensor([150, 3, 77])
    row, item = train.rows(users)
    shuffled = torch.randperm(row.numel(), generator=torch.Generator().manual_seed(0))
    histories = InteractionMatrix(torch.stack([row, item])[:, shuffled], 3, 60)
    expected, got = recommend(model, users, 10, [train]), fold_in(model, histories, 10)
    assert torch.equal(got.items, expected.items) and torch.equal(got.scores, expected.scores)


def test_folding_into_ease_where_users_are_few() -> None:
    generator = torch.Generator().manual_seed(0)
    train, other = (InteractionMatrix((torch.rand(m, 60, generator=generator) < 0.3).nonzero().t(), m, 60)
                    for m in (30, 4))
    model = EASE(train, 10.0)
    everybody = torch.arange(30)
    torch.testing.assert_close(model.history_scorer()(train, everybody), model.scorer()(everybody))
    x = train.dense(everybody, torch.float64)
    p = torch.linalg.inv(x.t() @ x + 10.0 * torch.eye(60, dtype=torch.float64))
    b = -p / p.diagonal()
    b.fill_diagonal_(0)
    torch.testing.assert_close(model.history_scorer()(other, torch.arange(4)).double(),
                               other.dense(torch.arange(4), torch.float64) @ b, atol=1e-6, rtol=1e-5)


def test_what_cannot_be_folded_in() -> None:
    train = _train()
    histories = InteractionMatrix(torch.tensor([[0], [1]]), 1, 60)
    with pytest.raises(ValueError, match='LightGCN knows only the users that it was trained on'):
        fold_in(LightGCN(train, 4), histories, 5)
    with pytest.raises(ValueError, match="'histories' are of 61 items, the model has 60"):
        fold_in(Popularity(train), InteractionMatrix(torch.tensor([[0], [1]]), 1, 61), 5)
    with pytest.raises(ValueError, match="'k' must lie in"):
        fold_in(Popularity(train), histories, 61)


def test_a_shared_scorer_and_smaller_blocks_give_the_same_within_rounding() -> None:
    train = _train()
    model = _tvdiff(train).eval()
    blocks = []
    score = model.history_scorer()

    def watched(histories: InteractionMatrix, rows: Tensor) -> Tensor:
        blocks.append(rows.numel())
        return score(histories, rows)

    got = fold_in(model, train, 10, scorer=watched, block_size=3)
    assert set(blocks) == {3} and len(blocks) == 67
    torch.testing.assert_close(got.scores, fold_in(model, train, 10).scores)
