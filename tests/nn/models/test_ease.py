import numpy as np
import pytest
import torch

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn import EASE
from tvdiff_pyg.testing import planted_blocks


def direct(x, regularization):
    """B from numpy's inverse: B_ij = -P_ij / P_jj off the diagonal, 0 on it; scores are X B."""
    p = np.linalg.inv(x.T @ x + regularization * np.eye(x.shape[1]))
    b = -p / np.diag(p)
    np.fill_diagonal(b, 0)
    return x @ b


@pytest.mark.parametrize('num_users, num_items', [(12, 7), (7, 12), (9, 9)], ids=['primal', 'dual', 'square'])
@pytest.mark.parametrize('regularization', [0.5, 20.0, 500.0])
def test_against_a_direct_inverse(num_users, num_items, regularization):
    dense = torch.rand(num_users, num_items, generator=torch.Generator().manual_seed(0)) < 0.4
    dense[2], dense[:, 3] = False, False  # an empty row, an item nobody saw
    dense[4, :3] = True
    model = EASE(InteractionMatrix(dense.nonzero().t(), num_users, num_items), regularization)
    assert (model.num_users, model.num_items) == (num_users, num_items)
    expected = torch.from_numpy(direct(dense.double().numpy(), regularization))
    users = torch.tensor([3, 0, 2, 3, num_users - 1])
    score = model.scorer()
    torch.testing.assert_close(score(users), expected[users])
    torch.testing.assert_close(score(torch.arange(num_users)), expected)


def test_primal_and_dual_are_one_model():
    """Users without interactions change nothing but the side on which the inverse is taken."""
    edge_index = torch.tensor([[0, 0, 1, 1, 2], [0, 1, 1, 2, 3]])
    few = EASE(InteractionMatrix(edge_index, 3, 4), 2.0).scorer()
    many = EASE(InteractionMatrix(edge_index, 9, 4), 2.0).scorer()
    torch.testing.assert_close(few(torch.arange(3)), many(torch.arange(3)))


@pytest.mark.parametrize('num_users, num_items', [(3, 2), (2, 3)])
def test_no_interactions(num_users, num_items):
    model = EASE(InteractionMatrix(torch.empty(2, 0, dtype=torch.long), num_users, num_items))
    assert torch.equal(model.scorer()(torch.arange(num_users)), torch.zeros(num_users, num_items))


@pytest.mark.parametrize('users_per_block, items_per_block', [(9, 6), (6, 9)], ids=['primal', 'dual'])
def test_planted_blocks(users_per_block, items_per_block):
    data = planted_blocks(3, users_per_block, items_per_block, generator=torch.Generator().manual_seed(0))
    matrix = InteractionMatrix(*data[:3])
    users = torch.arange(data.num_users)
    scores = EASE(matrix, 1.0).scorer()(users).masked_fill(matrix.dense(users).bool(), -torch.inf)
    assert torch.equal(scores.argmax(1), data.held_out.view(-1))


@pytest.mark.parametrize('regularization', [0.0, -1.0, float('nan'), float('inf')])
def test_errors(regularization):
    with pytest.raises(ValueError, match="'regularization' must be a finite number > 0"):
        EASE(InteractionMatrix(torch.tensor([[0], [0]]), 1, 1), regularization)


@pytest.mark.parametrize('num_items', [3, 9])
def test_a_regularisation_that_is_too_small_to_solve_is_named(num_items):
    """Five people with the same items: the Gram matrix has rank 1, on either side."""
    pairs = torch.cartesian_prod(torch.arange(5), torch.arange(3)).t()
    with pytest.raises(ValueError, match="'regularization' must be larger for these interactions: at 1e-20"):
        EASE(InteractionMatrix(pairs, 5, num_items), 1e-20).scorer()
