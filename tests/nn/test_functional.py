"""Sparse products against the dense ones, values and gradients, in float64."""
import pytest
import torch

from tvdiff_pyg.nn.functional import EnergySample, Entries, energy_and_scores, noisy_matmul, sampled_dot, sparse_matmul

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
@pytest.mark.parametrize('width', [WIDTH, 3 * ROWS // 2, 3 * ROWS // 2 + 1])  # scores in the last
def test_energy_and_scores(density, pair_density, width):
    observed, x_0 = entries(density)
    pairs, wanted = entries(pair_density, seed=7)
    code, items = normal(ROWS, width), normal(COLS, width, seed=2)
    energy, scores = energy_and_scores(code, items, observed, pairs)
    dense = code @ items.t()
    torch.testing.assert_close(energy, (x_0.double() - dense).square().sum(1))
    torch.testing.assert_close(scores, dense[wanted])
    assert torch.autograd.gradcheck(lambda u, h: energy_and_scores(u, h, observed, pairs), (code, items))


@pytest.mark.parametrize('density', [0.0, 0.4, 1.0])
def test_second_derivatives_of_products(density):
    sparse, mask = entries(density)
    value, table, left = normal(sparse.col.numel(), grad=False), normal(COLS, WIDTH), normal(ROWS, WIDTH, seed=2)
    mixing, probes = normal(ROWS, 2, seed=3, grad=False), normal(2, COLS, seed=4, grad=False)
    assert torch.autograd.gradgradcheck(lambda w: sparse_matmul(sparse, value, w).tanh(), table)
    assert torch.autograd.gradgradcheck(lambda w: noisy_matmul(sparse, value, mixing, probes, w).tanh(), table)
    assert torch.autograd.gradgradcheck(lambda a, b: sampled_dot(sparse, a, b).tanh(), (left, table))


@pytest.mark.parametrize('width', [WIDTH, 3 * ROWS // 2 + 1])  # by a Gram matrix, by scores
def test_second_derivatives_of_the_energy(width):
    (observed, x_0), pairs = entries(0.4), entries(0.3, seed=7)[0]
    code, items = normal(ROWS, width), normal(COLS, width, seed=2)

    def hessian(energy):
        return torch.autograd.functional.hessian(lambda u, h: energy(u, h).sum(), (code, items))

    torch.testing.assert_close(hessian(lambda u, h: energy_and_scores(u, h, observed, pairs)[0]),
                               hessian(lambda u, h: (x_0.double() - u @ h.t()).square().sum(1)))
    assert torch.autograd.gradgradcheck(lambda u, h: energy_and_scores(u, h, observed, pairs), (code, items))
    sample = EnergySample(torch.tensor([1, 5]), torch.ones(2))
    for drawn in (sample, sample._replace(sketch=normal(width, 2, grad=False))):
        energy, scores = energy_and_scores(code, items, observed, pairs, drawn)
        with pytest.raises(ValueError, match="'sample' must be None for a second derivative"):
            torch.autograd.grad(energy.sum(), code, create_graph=True)


@pytest.mark.parametrize('dtypes', [(torch.bfloat16, torch.bfloat16), (torch.float32, torch.bfloat16)])
@pytest.mark.parametrize('inside', [True, False], ids=['backward inside', 'backward outside'])
def test_autocast_leaves_float32(dtypes, inside):
    """The same numbers as float32 gives, and gradients of the inputs' own types."""
    observed, pairs = entries(0.4)[0], entries(0.3, seed=7)[0]
    leaves = [normal(ROWS, WIDTH).to(dtypes[0]), normal(COLS, WIDTH, seed=2).to(dtypes[1])]
    value, mixing, probes, sketch = (normal(*shape, seed=3, grad=False).to(dtypes[1]) for shape in (
        (observed.col.numel(),), (ROWS, 2), (2, COLS), (WIDTH, 2)))
    sample = EnergySample(torch.tensor([1, 5]), torch.ones(2, dtype=dtypes[1]), sketch)

    def results(code, items, sample, value, mixing, probes):
        out = [sparse_matmul(observed, value, items), sampled_dot(pairs, code, items),
               noisy_matmul(observed, value, mixing, probes=probes, table=items),
               *energy_and_scores(code, items, observed, pairs),
               *energy_and_scores(code, items, observed, pairs, sample=sample)]
        return out, sum(part.square().sum() for part in out)

    single = [leaf.detach().float().requires_grad_() for leaf in leaves]
    expected, total = results(*single, EnergySample(sample.item, sample.weight.float(), sketch.float()),
                              value.float(), mixing.float(), probes.float())
    gradients = torch.autograd.grad(total, single)
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    with torch.autocast('cpu', torch.bfloat16):
        out, total = results(*leaves, sample, value, mixing, probes)
        got = torch.autograd.grad(total, leaves) if inside else None
    got = got or torch.autograd.grad(total, leaves)
    torch.testing.assert_close(out, expected, rtol=0, atol=0)
    assert tuple(grad.dtype for grad in got) == dtypes
    torch.testing.assert_close([grad.float() for grad in got], list(gradients), rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize('dtype, tolerance', [(torch.bfloat16, 5e-2), (torch.float16, 5e-3)])
def test_half_precision(dtype, tolerance):
    observed, pairs = entries(0.4)[0], entries(0.3, seed=7)[0]
    code, items = normal(ROWS, WIDTH), normal(COLS, WIDTH, seed=2)
    sketch = normal(WIDTH, 1, grad=False)
    for sample in (None, EnergySample(torch.tensor([1, 5]), torch.ones(2), sketch)):
        energy, scores = energy_and_scores(code, items, observed, pairs, sample)
        gradients = torch.autograd.grad(energy.sum() + scores.sum(), (code, items))
        half = [leaf.detach().to(dtype).requires_grad_() for leaf in (code, items)]
        sample = sample and EnergySample(sample.item, sample.weight.to(dtype), sketch.to(dtype))
        out = energy_and_scores(*half, observed, pairs, sample)
        assert out[0].dtype == out[1].dtype == dtype
        got = torch.autograd.grad(out[0].sum() + out[1].sum(), half)
        for value, near in zip((*out, *got), (energy, scores, *gradients)):
            assert (value.double() - near).abs().max() < tolerance * near.abs().max()


@pytest.mark.parametrize('density', [0.0, 0.4, 1.0])
def test_sparse_gradients_are_the_dense_ones_of_the_rows_that_took_part(density):
    sparse, mask = entries(density)
    value, weight = normal(sparse.col.numel(), grad=False), normal(ROWS, WIDTH, seed=5, grad=False)
    mixing, index = normal(ROWS, 2, seed=3, grad=False), torch.tensor([7, 0, 4])
    few, probes = normal(2, 3, seed=4, grad=False), torch.zeros(2, COLS)
    probes[:, index] = few
    for got, expected, rows in [
        (lambda w: sparse_matmul(sparse, value, w, sparse_grad=True), lambda w: sparse_matmul(sparse, value, w),
         set(mask.any(0).nonzero().view(-1).tolist())),
        (lambda w: noisy_matmul(sparse, value, mixing, few, w, index),
         lambda w: noisy_matmul(sparse, value, mixing, probes, w),
         {0, 4, 7} | set(mask.any(0).nonzero().view(-1).tolist())),
    ]:
        tables = [normal(COLS, WIDTH) for _ in range(2)]
        for function, table in zip((got, expected), tables):
            (function(table) * weight).sum().backward()
        torch.testing.assert_close(got(tables[0]), expected(tables[0]))
        assert tables[0].grad.is_sparse and not tables[1].grad.is_sparse
        assert set(tables[0].grad.coalesce().indices()[0].tolist()) == rows
        torch.testing.assert_close(tables[0].grad.to_dense(), tables[1].grad)
        first = [torch.autograd.grad(function(table).tanh().sum(), table, create_graph=True)[0].to_dense()
                 for function, table in zip((got, expected), tables)]
        second = [torch.autograd.grad(grad.square().sum(), table)[0].to_dense() for grad, table in zip(first, tables)]
        torch.testing.assert_close(*second)


def test_entries_among_some_columns():
    sparse, mask = entries(0.3)
    columns, table = mask.any(0).nonzero().view(-1), normal(COLS, WIDTH, grad=False)
    torch.testing.assert_close(sparse.among(columns).matmul(None, table[columns]), mask.double() @ table)


@pytest.mark.parametrize('rank', [None, 1, 2, WIDTH])
def test_the_stochastic_energy_and_its_gradients_have_no_bias(rank):
    """One draw of one item: the mean over all draws, by enumeration, is the exact value."""
    observed, pairs = entries(0.4)[0], entries(0.3, seed=7)[0]
    code, items = normal(ROWS, WIDTH), normal(COLS, WIDTH, seed=2)
    energy_weight, score_weight = normal(ROWS, seed=8, grad=False), normal(pairs.col.numel(), seed=9, grad=False)
    sketch = None if rank is None else normal(WIDTH, rank, seed=10, grad=False)
    p = torch.rand(COLS, generator=torch.Generator().manual_seed(11)) + 0.1
    p /= p.sum()

    def results(sample):
        energy, scores = energy_and_scores(code, items, observed, pairs, sample)
        gradients = torch.autograd.grad((energy * energy_weight).sum() + (scores * score_weight).sum(), (code, items))
        return energy.detach(), scores.detach(), *gradients

    drawn = [results(EnergySample(torch.tensor([j]), 1 / p[j:j + 1], sketch)) for j in range(COLS)]
    mean = [sum(p[j] * drawn[j][part] for j in range(COLS)) for part in range(4)]
    torch.testing.assert_close(mean, list(results(None)))
    spread = sum((drawn[j][0] - mean[0]).abs().sum() for j in range(COLS))
    assert (spread < 1e-9) == (rank == WIDTH)  # all directions taken exactly leave nothing to draw
