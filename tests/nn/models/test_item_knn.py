import numpy as np
import pytest
import torch

from tvdiff_pyg.evaluation import evaluate
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn import ItemKNN
from tvdiff_pyg.nn.models import item_knn
from tvdiff_pyg.testing import check_model, planted_blocks


def brute_force(x, num_neighbors, shrinkage):
    """Cosine with shrinkage, sorted column by column in plain loops; scores are X S."""
    num_items = x.shape[1]
    s = np.zeros((num_items, num_items))
    for j in range(num_items):
        found = []
        for i in range(num_items):
            common = (x[:, i] * x[:, j]).sum()
            if i != j and common > 0:
                found.append((-common / (np.sqrt(x[:, i].sum() * x[:, j].sum()) + shrinkage), i))
        for negative, i in sorted(found)[:num_neighbors]:
            s[i, j] = -negative
    return x @ s


@pytest.mark.parametrize('num_users, num_items', [(12, 9), (6, 17), (1, 5), (5, 1), (40, 30)])
@pytest.mark.parametrize('num_neighbors, shrinkage', [(1, 0.0), (3, 2.5), (100, 0.0), (100, 10.0)])
@pytest.mark.parametrize('block', [4, 128])
def test_against_brute_force(num_users, num_items, num_neighbors, shrinkage, block, monkeypatch, random_rows, matrix):
    monkeypatch.setattr(item_knn, 'BLOCK', block)
    x = random_rows(num_users, num_items)
    score = ItemKNN(matrix(x), num_neighbors, shrinkage).scorer()
    expected = torch.from_numpy(brute_force(x, num_neighbors, shrinkage))
    torch.testing.assert_close(score(torch.arange(num_users)), expected)
    users = torch.tensor([num_users - 1, 0, 0])
    torch.testing.assert_close(score(users), expected[users])


def test_of_equal_neighbors_those_of_the_lowest_index_are_kept():
    """Items 1 to 200 are each seen by one user who also saw item 0: all are equally near to it."""
    edge_index = torch.stack([torch.arange(200).repeat(2), torch.cat([torch.zeros(200).long(), torch.arange(1, 201)])])
    s = ItemKNN(InteractionMatrix(edge_index, 200, 201), 7)
    scores = s.scorer()(torch.arange(200))
    assert scores[:, 0].nonzero().view(-1).tolist() == list(range(7))  # only neighbours 1..7 of item 0 lead to it
    torch.testing.assert_close(scores[:7, 0], torch.full((7,), 200 ** -0.5))


def test_no_neighbors_at_all():
    none = ItemKNN(InteractionMatrix(torch.empty(2, 0, dtype=torch.long), 3, 4))
    assert torch.equal(none.scorer()(torch.arange(3)), torch.zeros(3, 4))


def test_memory_is_a_block_not_the_catalogue(random_rows, matrix):
    """Similarities are kept for the neighbours alone, and none of 0."""
    for density, least in ((0.5, 4 * 49), (0.01, 0)):  # the item without users has no neighbours
        rowptr, col, value = ItemKNN(matrix(random_rows(60, 50, density)), 4)._similarities()
        assert least <= col.numel() == value.numel() == rowptr[-1] <= 4 * 49
        assert (value > 0).all()


def test_contract():
    check_model(ItemKNN)
    check_model(lambda interactions: ItemKNN(interactions, 3, 1.0), personalized=False)


def test_planted_blocks():
    data = planted_blocks(3, 9, 6, generator=torch.Generator().manual_seed(0))
    interactions = InteractionMatrix(*data[:3])
    user = torch.arange(data.num_users)
    held_out = InteractionMatrix(torch.stack([user, data.held_out.view(-1)]), *data[1:3])
    assert evaluate(ItemKNN(interactions, 5), held_out, [interactions], [1]).mean['recall@1'] == 1


@pytest.mark.parametrize('options, message', [
    (dict(num_neighbors=0), "'num_neighbors' must be at least 1, got 0"),
    (dict(shrinkage=-1.0), "'shrinkage' must be a finite number >= 0, got -1.0"),
    (dict(shrinkage=float('nan')), "'shrinkage' must be a finite number >= 0, got nan")])
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        ItemKNN(InteractionMatrix(torch.tensor([[0], [0]]), 1, 1), **options)
