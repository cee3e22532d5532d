import pytest
import torch

from tvdiff_pyg.nn import AnisotropicDenoiser
from tvdiff_pyg.testing import dense_interactions, item_codes, normalized, scores, time_features

EDGE_INDEX = torch.tensor([[0, 0, 1, 3, 3, 3, 4], [0, 4, 1, 0, 1, 2, 4]])  # user 2 and item 3 have degree 0
M, N = 5, 6


def denoiser(**options):
    torch.manual_seed(0)
    out = AnisotropicDenoiser(M, N, **{'hidden_channels': 4, 'time_channels': 8, **options})
    torch.nn.init.normal_(out.time_linear.bias)  # 0 at first: would hide a bias that is left out
    return out


def rows():
    return torch.randn(3, N, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('time_type', ['cat', 'align', 'gate'])
@pytest.mark.parametrize('normalization', ['sym', 'left', 'linkprop', 'raw', 'none'])
@pytest.mark.parametrize('widths', [4, [4], [4, 3], [4, 5, 3]], ids=str)
@pytest.mark.filterwarnings('ignore:Sparse')
def test_matrix_algebra(time_type, normalization, widths):
    model = denoiser(time_type=time_type, normalization=normalization, hidden_channels=widths).eval()
    r = dense_interactions(EDGE_INDEX, M, N)
    deeper = [layer.weight.t() for layer in model.item_layers]
    if normalization == 'none':
        h = item_codes(None, [model.item_table, *deeper])
        torch.testing.assert_close(model.items(), h)
    else:
        h = item_codes(normalized(r, normalization), [model.conv.weight, *deeper])
        assert torch.equal(h[3], torch.zeros(h.size(1)))
        torch.testing.assert_close(model.items(r.t().to_sparse_csr()), h)
    torch.testing.assert_close(model.items(EDGE_INDEX), h)

    x, steps = rows(), [0, 7, 3]
    e = torch.stack([time_features(t, 8) for t in steps])
    e = (e @ model.time_linear.weight.t() + model.time_linear.bias) @ model.time_weight
    weights = [model.item_weight, *(layer.weight.t() for layer in model.user_layers)]
    torch.testing.assert_close(model(x, torch.tensor(steps), h), scores(x, e, h, weights, time_type))


@pytest.mark.parametrize('normalization', ['sym', 'left', 'linkprop', 'raw'])
@pytest.mark.parametrize('num_hops', [1, 2, 3])
def test_hops(normalization, num_hops):
    """H_K = tanh((Rbar^T Rbar)^(K-1) Rbar^T W_U), values and gradient, of all items and of some."""
    model = denoiser(normalization=normalization, num_hops=num_hops)
    r = dense_interactions(EDGE_INDEX, M, N)
    rbar, weight = normalized(r, normalization), model.conv.weight
    expected = (torch.linalg.matrix_power(rbar.t() @ rbar, num_hops - 1) @ rbar.t() @ weight).tanh()
    graph = model.conv.prepare(EDGE_INDEX, size=(M, N))
    torch.testing.assert_close(model.items(graph), expected)
    torch.testing.assert_close(item_codes(rbar, [weight], num_hops), expected)
    pick = torch.randn(N, 4, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(torch.autograd.grad((model.items(graph) * pick).sum(), weight),
                               torch.autograd.grad((expected * pick).sum(), weight))
    some = torch.tensor([4, 0, 4])
    torch.testing.assert_close(model.items(graph, some), expected.detach()[some])


def test_encode_code_forward_are_one_path():
    model = denoiser(hidden_channels=[4, 3]).eval()
    x, t, h = rows(), torch.tensor([1, 0, 2]), model.items(EDGE_INDEX)
    torch.testing.assert_close(model.encode(x), x @ model.item_weight)
    assert torch.equal(model(x, t, h), model.code(model.encode(x), t) @ h.t())


def test_dropout_statistics():
    n, p = 400, 0.3
    model = AnisotropicDenoiser(2, n, n, normalization='none', dropout=p)
    with torch.no_grad():
        model.item_weight.copy_(torch.eye(n))  # encode(x) is then drop(x)
    x = torch.full((100, n), 2.0)
    z = model.encode(x, torch.Generator().manual_seed(0)).detach()
    kept = z != 0
    torch.testing.assert_close(z[kept], torch.full_like(z[kept], 2 / (1 - p)))
    sigma = (p * (1 - p) / kept.numel()) ** 0.5
    assert abs(kept.double().mean() - (1 - p)) < 4 * sigma
    assert abs(z.mean() - 2) < 4 * sigma * 2 / (1 - p)
    column = kept.double().mean(0)  # every entry of its own: not whole rows or columns
    assert 0.8 < column.var() / (p * (1 - p) / 100) < 1.2  # 400 columns: standard error 7 %
    row = kept.double().mean(1)
    assert 0.4 < row.var() / (p * (1 - p) / n) < 1.7  # 100 rows: standard error 14 %
    assert torch.equal(z, model.encode(x, torch.Generator().manual_seed(0)))
    assert torch.equal(model.eval().encode(x), x)
    assert torch.equal(x, torch.full((100, n), 2.0))


def test_dropout_zero_trains_on_the_whole_row():
    model = denoiser(dropout=0.0)
    assert model.training and torch.equal(model.encode(rows()), rows() @ model.item_weight)


@pytest.mark.parametrize('normalization', ['sym', 'none'])
def test_reset_parameters_is_xavier_uniform(normalization):
    torch.manual_seed(0)
    model = AnisotropicDenoiser(300, 200, [100, 50], normalization=normalization)
    parameters = dict(model.named_parameters())
    names = {'item_weight': 300, 'time_weight': 164, 'time_linear.weight': 128, 'user_layers.0.weight': 150,
             'item_layers.0.weight': 150, **({'conv.weight': 400} if normalization == 'sym' else {'item_table': 300})}
    assert set(parameters) == {*names, 'time_linear.bias'}
    assert torch.equal(parameters['time_linear.bias'], torch.zeros(64))
    for name, fans in names.items():
        bound = (6 / fans) ** 0.5
        weight = parameters[name]
        assert 0.99 * bound < weight.abs().max() <= bound, name
        assert abs(weight.std() / (bound / 3 ** 0.5) - 1) < 0.03, name  # >= 4,096 draws: standard error <= 0.7 %
    before = {name: parameters[name].detach().clone() for name in names}
    model.reset_parameters()
    assert not any(torch.equal(before[name], parameters[name]) for name in names)


@pytest.mark.parametrize('options, message', [
    (dict(hidden_channels=0), "'hidden_channels' must be one or more positive widths"),
    (dict(hidden_channels=[]), "'hidden_channels'"),
    (dict(hidden_channels=[4, 0]), "'hidden_channels'"),
    (dict(time_type='add'), "'time_type' must be one of cat, align, gate; got 'add'"),
    (dict(normalization='right'), "'normalization' must be one of sym, left, linkprop, raw, none; got 'right'"),
    (dict(dropout=1.0), r"'dropout' must lie in \[0, 1\), got 1.0"),
    (dict(dropout=-0.1), "'dropout'"),
    (dict(dropout=float('nan')), "'dropout'"),
    (dict(time_channels=1), "'channels'"),
    (dict(num_hops=0), "'num_hops' must be at least 1, got 0"),
    (dict(num_hops=2, normalization='none'), "'num_hops' above 1 needs a graph"),
])
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        denoiser(**options)


def test_size_errors():
    with pytest.raises(ValueError, match="'num_users' must be at least 1, got 0"):
        AnisotropicDenoiser(0, 3)
    with pytest.raises(ValueError, match="'num_items' must be at least 1, got 0"):
        AnisotropicDenoiser(3, 0)
    with pytest.raises(ValueError, match="'edge_index' is needed"):
        denoiser().items()
    with pytest.raises(ValueError, match="'edge_index' must be what conv.prepare made"):
        denoiser(num_hops=2).items(EDGE_INDEX)
