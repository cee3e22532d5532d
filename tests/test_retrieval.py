"""Top-k lists: masking, order, blocks."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn import EASE, Popularity
from tvdiff_pyg.retrieval import BLOCK_SIZE, recommend, top_k, user_blocks


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


def test_errors_name_the_argument() -> None:
    model = Popularity(_train())
    user: Tensor = torch.tensor([0])
    for k in (0, 61):
        with pytest.raises(ValueError, match=rf"'k' must lie in 1\.\.60, the number of items; got {k}"):
            recommend(model, user, k)
    for bad in (-1, 200):
        with pytest.raises(ValueError, match=r"'users' must lie in 0\.\.199"):
            recommend(model, torch.tensor([bad]), 5)
