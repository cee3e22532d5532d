"""Sparse products against the dense ones, values and gradients, in float64."""
import pytest
import torch

from tvdiff_pyg.nn.functional import Entries, energy_and_scores, noisy_matmul, sampled_dot, sparse_matmul

ROWS, COLS, WIDTH = 6, 9, 3


def entries(density, seed=0):
    mask = torch.rand(ROWS, COLS, generator=torch.Generator().manual_seed(seed)) < density
    if 0 < density < 1:
        mask[2], mask[:, 4] = False, False  # an empty row and an empty column
    row, col = mask.nonzero(as_tuple=True)
    return Entries.of(row, col, ROWS, COLS), mask


def normal(*shape, seed=1, grad=True):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_(grad)


@pytest.mark.parametrize('density', [0.0, 0.4, 1.0])
def test_products(density):
    sparse, mask = entries(density)
    value = normal(sparse.col.numel(), grad=False)
    dense = torch.zeros(ROWS, COLS)
    dense[mask] = value
    table, left = normal(COLS, WIDTH, grad=False), normal(ROWS, WIDTH, seed=2, grad=False)
    torch.testing.assert_close(sparse.matmul(value, table), dense @ table)
    torch.testing.assert_close(sparse.matmul(None, table), mask.double() @ table)
    torch.testing.assert_close(sparse.t_matmul(value, left), dense.t() @ left)
    torch.testing.assert_close(sparse.t_matmul(None, left), mask.double().t() @ left)
    torch.testing.assert_close(sparse.sampled_dot(left, table), (left @ table.t())[mask])


@pytest.mark.parametrize('density', [0.0, 0.4, 1.0])
def test_sparse_and_noisy_matmul(density):
    sparse, mask = entries(density)
    value, table = normal(sparse.col.numel(), grad=False), normal(COLS, WIDTH)
    mixing, probes = normal(ROWS, 2, seed=3, grad=False), normal(2, COLS, seed=4, grad=False)
    dense = torch.zeros(ROWS, COLS)
    dense[mask] = value
    torch.testing.assert_close(sparse_matmul(sparse, value, table), dense @ table)
    torch.testing.assert_close(noisy_matmul(sparse, value, mixing, probes, table), (dense + mixing @ probes) @ table)
    assert torch.autograd.gradcheck(lambda w: sparse_matmul(sparse, value, w), table)
    assert torch.autograd.gradcheck(lambda w: noisy_matmul(sparse, value, mixing, probes, w), table)


@pytest.mark.parametrize('density', [0.0, 0.4, 1.0])
def test_sampled_dot(density):
    pairs, mask = entries(density)
    left, right = normal(ROWS, WIDTH), normal(COLS, WIDTH, seed=2)
    torch.testing.assert_close(sampled_dot(pairs, left, right), (left @ right.t())[mask])
    assert torch.autograd.gradcheck(lambda a, b: sampled_dot(pairs, a, b), (left, right))


@pytest.mark.parametrize('density', [0.0, 0.4, 1.0])
@pytest.mark.parametrize('pair_density', [0.0, 0.3])
def test_energy_and_scores(density, pair_density):
    observed, x_0 = entries(density)
    pairs, wanted = entries(pair_density, seed=7)
    code, items = normal(ROWS, WIDTH), normal(COLS, WIDTH, seed=2)
    energy, scores = energy_and_scores(code, items, observed, pairs)
    dense = code @ items.t()
    torch.testing.assert_close(energy, (x_0.double() - dense).square().sum(1))
    torch.testing.assert_close(scores, dense[wanted])
    assert torch.autograd.gradcheck(lambda u, h: energy_and_scores(u, h, observed, pairs), (code, items))
