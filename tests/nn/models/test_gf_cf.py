import numpy as np
import pytest
import torch

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn import GFCF
from tvdiff_pyg.nn.models import gf_cf
from tvdiff_pyg.testing import check_model, planted_blocks


def brute_force(x, rank, alpha):
    """The dense formula, with numpy's full singular value decomposition."""
    def power(degree, exponent):
        return np.diag([d ** exponent if d > 0 else 0.0 for d in degree])

    by_item = x.sum(0)
    r = power(x.sum(1), -0.5) @ x @ power(by_item, -0.5)
    _, s, v_t = np.linalg.svd(r)
    v = v_t[:min(rank, int((s > 1e-6).sum()))].T
    return x @ (r.T @ r + alpha * power(by_item, -0.5) @ v @ v.T @ power(by_item, 0.5))


@pytest.mark.parametrize('num_users, num_items', [(12, 9), (9, 12), (11, 11), (1, 5), (5, 1), (30, 40)])
@pytest.mark.parametrize('rank, alpha', [(1, 0.3), (3, 2.0), (256, 0.3), (256, 0.0)])
def test_against_the_dense_formula(num_users, num_items, rank, alpha, random_rows, matrix):
    x = random_rows(num_users, num_items)
    expected = torch.from_numpy(brute_force(x, rank, alpha))
    score = GFCF(matrix(x), rank, alpha).scorer()
    torch.testing.assert_close(score(torch.arange(num_users)), expected)
    users = torch.tensor([num_users - 1, 0, 0])
    torch.testing.assert_close(score(users), expected[users])


@pytest.mark.parametrize('copies', [1, 4])
def test_a_rank_above_that_of_the_matrix(copies, random_rows, matrix):
    """Users who saw the same make a matrix of rank 3: whatever the null space's vectors are, they must not count."""
    x = np.tile(random_rows(3, 20, 0.5), (copies, 1))
    x[:, 1] = 0
    expected = torch.from_numpy(brute_force(x, 10, 1.0))
    torch.testing.assert_close(GFCF(matrix(x), 10, 1.0).scorer()(torch.arange(3 * copies)), expected)


@pytest.mark.parametrize('num_users, num_items', [(90, 60), (60, 90)])
@pytest.mark.parametrize('rank', [1, 7, 20])
def test_lanczos_and_the_dense_way_agree(num_users, num_items, rank, monkeypatch, random_rows, matrix):
    x = random_rows(num_users, num_items, 0.1)
    expected = torch.from_numpy(brute_force(x, rank, 5.0))
    monkeypatch.setattr(gf_cf, 'DENSE', 0)
    monkeypatch.setattr(gf_cf, 'WIDTH', 4)
    monkeypatch.setattr(gf_cf, 'RESIDUAL', 1e-10)
    score = GFCF(matrix(x), rank, 5.0).scorer()(torch.arange(num_users))
    torch.testing.assert_close(score, expected)
    again = GFCF(matrix(x), rank, 5.0).scorer()(torch.arange(num_users))
    assert torch.equal(again, score)


def test_lanczos_finds_a_singular_value_as_often_as_it_occurs(monkeypatch):
    """Every connected component has the singular value 1, which a Krylov space of one start sees once."""
    data = planted_blocks(6, 8, 8, generator=torch.Generator().manual_seed(0))
    interactions = InteractionMatrix(*data[:3])
    x = interactions.dense(torch.arange(data.num_users)).numpy()
    expected = torch.from_numpy(brute_force(x, 6, 1.0))
    monkeypatch.setattr(gf_cf, 'DENSE', 0)
    torch.testing.assert_close(GFCF(interactions, 6, 1.0).scorer()(torch.arange(data.num_users)), expected)


def test_float32_is_near_float64(random_rows, matrix):
    interactions = matrix(random_rows(50, 40))
    users = torch.arange(50)
    expected = GFCF(interactions, 5).scorer()(users)
    torch.set_default_dtype(torch.float32)
    out = GFCF(interactions, 5).scorer()(users)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('num_users, num_items', [(3, 2), (2, 3)])
def test_no_interactions(num_users, num_items):
    model = GFCF(InteractionMatrix(torch.empty(2, 0, dtype=torch.long), num_users, num_items))
    assert torch.equal(model.scorer()(torch.arange(num_users)), torch.zeros(num_users, num_items))


def test_contract():
    check_model(GFCF)
    check_model(lambda interactions: GFCF(interactions, 4))
    check_model(lambda interactions: GFCF(interactions, alpha=0.0))


@pytest.mark.parametrize('options, message', [
    (dict(rank=0), "'rank' must be at least 1, got 0"),
    (dict(alpha=-0.1), "'alpha' must be a finite number >= 0, got -0.1"),
    (dict(alpha=float('inf')), "'alpha' must be a finite number >= 0, got inf")])
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        GFCF(InteractionMatrix(torch.tensor([[0], [0]]), 1, 1), **options)
