import sys

import numpy as np
import pytest
import torch

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn import IALS
from tvdiff_pyg.testing import check_model


def solve(x, fixed, regularization, alpha):
    """Each row's factors, given those of the other side: weighted least squares over all its pairs."""
    rows = []
    for row in x:
        confidence = np.diag(1 + alpha * row)
        left = fixed.T @ confidence @ fixed + regularization * np.eye(fixed.shape[1])
        rows.append(np.linalg.solve(left, fixed.T @ confidence @ row))
    return np.array(rows)


def brute_force(x, hidden_channels, regularization, alpha, iterations, seed):
    """Dense alternating least squares from the same first factors, users first."""
    generator = torch.Generator().manual_seed(seed)
    items = torch.rand(x.shape[1], hidden_channels, dtype=torch.float64, generator=generator).numpy() * 0.01
    for _ in range(iterations):
        users = solve(x, items, regularization, alpha)
        items = solve(x.T, users, regularization, alpha)
    return users @ items.T


@pytest.fixture()
def float64():
    pytest.importorskip('implicit')
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('num_users, num_items', [(12, 9), (6, 17), (1, 5), (5, 1)])
@pytest.mark.parametrize('hidden_channels, alpha, iterations', [(2, 0.0, 1), (3, 40.0, 4), (20, 0.5, 3)])
def test_against_dense_least_squares(num_users, num_items, hidden_channels, alpha, iterations, random_rows, matrix):
    x = random_rows(num_users, num_items)
    expected = torch.from_numpy(brute_force(x, hidden_channels, 0.5, alpha, iterations, 3))
    score = IALS(matrix(x), hidden_channels, 0.5, alpha, iterations, 3).scorer()
    torch.testing.assert_close(score(torch.arange(num_users)), expected)
    users = torch.tensor([num_users - 1, 0, 0])
    torch.testing.assert_close(score(users), expected[users])


@pytest.mark.usefixtures('float64')
def test_the_seed_decides(random_rows, matrix):
    interactions, users = matrix(random_rows(12, 9)), torch.arange(12)
    one, same, other = (IALS(interactions, 4, iterations=2, seed=seed).scorer()(users) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.allclose(one, other)


@pytest.mark.usefixtures('float64')
def test_float32_is_near_float64(random_rows, matrix):
    interactions, users = matrix(random_rows(50, 40)), torch.arange(50)
    expected = IALS(interactions, 5, 1.0).scorer()(users)
    torch.set_default_dtype(torch.float32)
    out = IALS(interactions, 5, 1.0).scorer()(users)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('num_users, num_items', [(3, 2), (2, 3)])
def test_no_interactions(num_users, num_items):
    model = IALS(InteractionMatrix(torch.empty(2, 0, dtype=torch.long), num_users, num_items))
    assert torch.equal(model.scorer()(torch.arange(num_users)), torch.zeros(num_users, num_items))


def test_blas_takes_one_thread_while_it_fits(monkeypatch, random_rows, matrix):
    """The library has its own; more of BLAS make it ten times slower, as it warns."""
    als, pools = pytest.importorskip('implicit.cpu.als'), pytest.importorskip('threadpoolctl')
    fit, threads = als.AlternatingLeastSquares.fit, set()

    def watched(*args, **kwargs):
        threads.update(pool['num_threads'] for pool in pools.threadpool_info() if pool['user_api'] == 'blas')
        return fit(*args, **kwargs)

    monkeypatch.setattr(als.AlternatingLeastSquares, 'fit', watched)
    with pools.threadpool_limits(2, 'blas'):
        IALS(matrix(random_rows(6, 5)), 2).scorer()
    assert threads == {1}


def test_contract():
    pytest.importorskip('implicit')
    check_model(lambda interactions: IALS(interactions, 4, 0.1))


def test_without_implicit(monkeypatch, random_rows, matrix):
    monkeypatch.setitem(sys.modules, 'implicit.cpu.als', None)
    monkeypatch.setitem(sys.modules, 'implicit', None)
    model = IALS(matrix(random_rows(3, 4)))
    with pytest.raises(ImportError, match=r'IALS needs implicit .*pip install "tvdiff-pyg\[baselines\]"'):
        model.scorer()


@pytest.mark.parametrize('options, message', [
    (dict(hidden_channels=0), "'hidden_channels' must be at least 1, got 0"),
    (dict(iterations=0), "'iterations' must be at least 1, got 0"),
    (dict(seed=-1), "'seed' must be at least 0, got -1"),
    (dict(regularization=0.0), "'regularization' must be a finite number > 0, got 0.0"),
    (dict(regularization=float('nan')), "'regularization' must be a finite number > 0, got nan"),
    (dict(alpha=-1.0), "'alpha' must be a finite number >= 0, got -1.0")])
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        IALS(InteractionMatrix(torch.tensor([[0], [0]]), 1, 1), **options)
