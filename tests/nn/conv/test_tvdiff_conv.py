from shutil import which

import pytest
import torch
from torch_geometric import EdgeIndex
from torch_geometric.nn.aggr import SumAggregation
from torch_geometric.testing import assert_module
from torch_geometric.typing import SparseTensor

from tvdiff_pyg.nn import TVDiffConv
from tvdiff_pyg.nn.conv import tvdiff_conv
from tvdiff_pyg.testing import normalized

NORMALIZATIONS = ['sym', 'left', 'linkprop', 'raw']
EDGE_INDEX = torch.tensor([[3, 0, 0, 1, 2, 2], [0, 1, 0, 2, 2, 0]])  # source 4 and destination 3 have degree 0
SIZE = (5, 4)
WEIGHT = [0.5, 2.0, 1.0, 0.25, 3.0, 1.5]


def adjacency(edge_weight=None, edge_index=EDGE_INDEX, size=SIZE):
    a = torch.zeros(size)
    for k, (source, destination) in enumerate(edge_index.t().tolist()):
        a[source, destination] += 1.0 if edge_weight is None else float(edge_weight[k])
    return a


def features(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[None, WEIGHT], ids=['unweighted', 'weighted'])
def edge_weight(request):
    return None if request.param is None else torch.tensor(request.param)


@pytest.mark.parametrize('normalization', NORMALIZATIONS)
@pytest.mark.parametrize('featureless', [False, True])
def test_matrix_algebra(normalization, featureless, edge_weight):
    conv = TVDiffConv(5 if featureless else 3, 6, normalization)
    x = None if featureless else features(5, 3)
    h = conv.weight if featureless else x @ conv.weight
    expected = (normalized(adjacency(edge_weight), normalization).t() @ h).tanh()
    out = conv((x, None), EDGE_INDEX, edge_weight, size=SIZE)
    torch.testing.assert_close(out, expected)
    assert torch.equal(out[3], torch.zeros(6))  # degree 0

    perm = torch.tensor([4, 2, 0, 5, 1, 3])
    weight = None if edge_weight is None else edge_weight[perm]
    torch.testing.assert_close(conv((x, None), EDGE_INDEX[:, perm], weight, size=SIZE), expected)


@pytest.mark.parametrize('normalization', NORMALIZATIONS)
@pytest.mark.parametrize('layout', [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc], ids=str)
@pytest.mark.filterwarnings('ignore:Sparse')
def test_sparse_tensors(normalization, layout, edge_weight):
    conv = TVDiffConv(3, 6, normalization)
    x = features(5, 3)
    adj_t = adjacency(edge_weight).t().to_sparse(layout=layout)
    before = adj_t.to_dense()
    out = conv((x, None), adj_t)
    torch.testing.assert_close(out, conv((x, None), EDGE_INDEX, edge_weight, size=SIZE))
    assert torch.equal(adj_t.to_dense(), before)
    out.square().sum().backward()
    grad, conv.weight.grad = conv.weight.grad, None
    conv((x, None), EDGE_INDEX, edge_weight, size=SIZE).square().sum().backward()
    torch.testing.assert_close(grad, conv.weight.grad)


@pytest.mark.filterwarnings('ignore:Sparse')
def test_repeated_edges_add_up():
    conv = TVDiffConv(2, 3)
    edge_index = torch.tensor([[0, 0, 1], [0, 0, 0]])
    x = features(2, 2)
    merged = conv((x, None), torch.tensor([[0, 1], [0, 0]]), torch.tensor([2.0, 1.0]), size=(2, 1))
    torch.testing.assert_close(conv((x, None), edge_index, size=(2, 1)), merged)
    coo = torch.sparse_coo_tensor(edge_index.flip(0), torch.ones(3), (1, 2))  # not coalesced
    torch.testing.assert_close(conv((x, None), coo), merged)


@pytest.mark.parametrize('sort_order', ['row', 'col'])
def test_edge_index_class(sort_order):
    conv, x = TVDiffConv(3, 6), features(5, 3)
    edge_index, _ = EdgeIndex(EDGE_INDEX, sparse_size=SIZE).sort_by(sort_order)
    out = conv((x, None), edge_index, size=SIZE)
    torch.testing.assert_close(out, conv((x, None), EDGE_INDEX, size=SIZE))


@pytest.mark.parametrize('normalization', NORMALIZATIONS)
def test_one_set_of_nodes(normalization):
    conv, x = TVDiffConv(3, 6, normalization), features(5, 3)
    a = adjacency(size=(5, 5))
    torch.testing.assert_close(conv(x, EDGE_INDEX), (normalized(a, normalization).t() @ x @ conv.weight).tanh())


def test_bipartite_features():
    conv, x = TVDiffConv((3, 7), 6), features(5, 3)
    expected = conv((x, None), EDGE_INDEX, size=SIZE)
    assert torch.equal(conv((x, features(4, 7)), EDGE_INDEX), expected)  # they only tell the number of nodes
    assert torch.equal(conv((x, features(4, 7)), EDGE_INDEX, size=(None, 4)), expected)


@pytest.mark.parametrize('in_channels', [-1, (-1, -1)])
def test_lazy(in_channels):
    conv, x = TVDiffConv(in_channels, 6), features(5, 3)
    out = conv((x, None), EDGE_INDEX, size=SIZE)
    assert conv.in_channels == 3 and conv.weight.shape == (3, 6) and conv.weight.dtype == torch.float64
    torch.testing.assert_close(out, (normalized(adjacency()).t() @ x @ conv.weight).tanh())
    with pytest.raises(ValueError, match='number of source nodes'):
        TVDiffConv(in_channels, 6)((None, None), EDGE_INDEX, size=SIZE)


@pytest.mark.parametrize('normalization, a, b', [('sym', .5, .5), ('left', 1., 0.), ('linkprop', .25, .5)])
def test_degree_of_the_full_graph(normalization, a, b):
    conv, x = TVDiffConv(3, 6, normalization), features(5, 3)
    keep = torch.tensor([0, 2, 4])
    degree = (torch.tensor([2, 1, 2, 1, 0]), torch.tensor([3, 1, 2, 0]))  # integers do
    sampled = adjacency(edge_index=EDGE_INDEX[:, keep])
    full = adjacency()
    assert degree[0].tolist() == full.sum(1).tolist() and degree[1].tolist() == full.sum(0).tolist()
    expected = torch.zeros(4, 6)
    for source, destination in sampled.nonzero().tolist():
        factor = full[source].sum() ** -a * full[:, destination].sum() ** -b
        expected[destination] += factor * (x[source] @ conv.weight)
    out = conv((x, None), EDGE_INDEX[:, keep], size=SIZE, degree=degree)
    torch.testing.assert_close(out, expected.tanh())
    adj_t = sampled.t().to_sparse_coo()
    torch.testing.assert_close(conv((x, None), adj_t, degree=degree), expected.tanh())
    zero = (degree[0] * 0, degree[1])
    assert torch.equal(conv((x, None), EDGE_INDEX, size=SIZE, degree=zero), torch.zeros(4, 6))


def test_flow(edge_weight):
    conv = TVDiffConv(3, 6, 'linkprop')
    back = TVDiffConv(3, 6, 'linkprop', flow='target_to_source')
    back.load_state_dict(conv.state_dict())
    x = features(5, 3)
    expected = conv((x, None), EDGE_INDEX, edge_weight, size=SIZE)
    out = back((None, x), EDGE_INDEX.flip(0), edge_weight, size=SIZE[::-1])
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(back((features(4, 9), x), EDGE_INDEX.flip(0), edge_weight), expected)
    with pytest.raises(ValueError, match='Flow direction'):
        back((None, x), adjacency().t().to_sparse_coo())


@pytest.mark.parametrize('act, function', [
    (None, lambda h: h), ('relu', torch.relu), (torch.nn.Sigmoid(), torch.sigmoid)])
def test_activation(act, function):
    conv, x = TVDiffConv(3, 6, act=act), features(5, 3)
    torch.testing.assert_close(conv((x, None), EDGE_INDEX, size=SIZE),
                               function(normalized(adjacency()).t() @ x @ conv.weight))


@pytest.mark.parametrize('normalization', NORMALIZATIONS)
def test_gradients(normalization):
    conv = TVDiffConv(2, 2, normalization)

    def function(x, weight, edge_weight):
        return torch.func.functional_call(conv, {'weight': weight}, ((x, None), EDGE_INDEX, edge_weight, SIZE))

    inputs = (features(5, 2), features(2, 2, 1), torch.tensor(WEIGHT))
    assert torch.autograd.gradcheck(function, [i.requires_grad_() for i in inputs])


@pytest.mark.parametrize('form', ['few edges', 'many edges', 'prepared'])
def test_transforms_of_torch_func(form, monkeypatch):
    monkeypatch.setattr(tvdiff_conv, 'SORT_FROM', 2 ** 60 if form == 'few edges' else 0)
    conv, x, tangent, weight = TVDiffConv(3, 6), features(5, 3), features(5, 3, 1), features(4, 6)
    edges = conv.prepare(EDGE_INDEX, size=SIZE) if form == 'prepared' else EDGE_INDEX

    def loss(x):
        return (conv((x, None), edges, size=SIZE) * weight).sum()

    leaf = x.clone().requires_grad_()
    expected, = torch.autograd.grad(loss(leaf), leaf)
    torch.testing.assert_close(torch.func.grad(loss)(x), expected)
    torch.testing.assert_close(torch.func.jvp(loss, (x,), (tangent,)), (loss(x), (expected * tangent).sum()))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, tangent)
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(loss(dual))[1], (expected * tangent).sum())
    both = torch.stack([x, tangent])
    torch.testing.assert_close(torch.func.vmap(loss)(both), torch.stack([loss(x), loss(tangent)]))
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(both)[0], expected)


@pytest.mark.parametrize('normalization', NORMALIZATIONS)
def test_signed_weights_need_degrees_of_their_own(normalization):
    conv, x = TVDiffConv(3, 6, normalization), features(5, 3)
    weight = torch.tensor([-1.0, 1] * 3) * torch.tensor(WEIGHT)
    absolute = adjacency(weight.abs())
    degree = absolute.sum(1), absolute.sum(0)
    adj_t, leaf = adjacency(weight).t().to_sparse_coo(), weight.clone().requires_grad_()
    expected = (normalized(absolute, normalization).t() * adjacency(weight).t().sign() @ x @ conv.weight).tanh()
    for edges in ((EDGE_INDEX, leaf), (adj_t, None)):
        torch.testing.assert_close(conv((x, None), *edges, SIZE, degree), expected)
        if normalization != 'raw':
            with pytest.raises(ValueError, match="degrees must be >= 0, but a source node's is -1.*pass 'degree'"):
                conv((x, None), *edges, SIZE)
    torch.testing.assert_close(conv((x, None), conv.prepare(EDGE_INDEX, weight, SIZE, degree)), expected)
    conv((x, None), EDGE_INDEX, leaf, SIZE, degree).sum().backward()
    assert leaf.grad.isfinite().all()
    if normalization == 'raw':
        torch.testing.assert_close(conv((x, None), EDGE_INDEX, weight, SIZE), expected)
        return
    with pytest.raises(ValueError, match="degrees must be >= 0"):
        conv.prepare(EDGE_INDEX, weight, SIZE)
    with pytest.raises(ValueError, match="degrees must be >= 0"):
        conv((x, None), EDGE_INDEX, None, SIZE, (-degree[0], degree[1]))


def test_gradient_of_a_zero_weight_is_finite():
    edge_weight = torch.tensor([1.0, 0.0], requires_grad=True)
    TVDiffConv(2, 3)((features(2, 2), None), torch.tensor([[0, 1], [0, 1]]), edge_weight, size=(2, 2)).sum().backward()
    assert edge_weight.grad.isfinite().all()


def test_float32():
    conv, x = TVDiffConv(3, 6), features(5, 3)
    expected = conv((x, None), EDGE_INDEX, size=SIZE)
    out = conv.float()((x.float(), None), EDGE_INDEX, size=SIZE)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-6)  # a few units of 6e-8, sums of 3


def test_glorot_and_repr():
    torch.manual_seed(0)
    conv = TVDiffConv(300, 100)
    bound = (6 / 400) ** 0.5
    assert 0.99 * bound < conv.weight.abs().max() <= bound
    assert abs(conv.weight.std() / (bound / 3 ** 0.5) - 1) < 0.02  # 30,000 draws: standard error 0.3 %
    assert str(conv) == 'TVDiffConv(300, 100, normalization=sym)'


@pytest.mark.parametrize('arguments, message', [
    (dict(), "'size' is needed"),
    (dict(size=(None, None)), "'size' is needed"),
    (dict(size=(6, 4)), "'size' tells of 6 source nodes"),
    (dict(size=SIZE, edge_weight=torch.ones(5)), r'shape \[6\].*got \[5\]'),
    (dict(size=SIZE, edge_weight=torch.ones(6, 1)), r'shape \[6\].*got \[6, 1\]'),
    (dict(size=SIZE, degree=(torch.ones(4), torch.ones(4))), '5 source nodes, got 4'),
    (dict(size=SIZE, degree=(torch.ones(5), torch.ones(5))), '4 destination nodes, got 5'),
    (dict(size=SIZE, degree=(torch.ones(5, 1), torch.ones(4))), r'5 source nodes, got 5 of shape \[5, 1\]'),
    (dict(size=SIZE, degree=(torch.ones(5), torch.ones(4, 1))), r'4 destination nodes, got 4 of shape \[4, 1\]'),
])
@pytest.mark.parametrize('normalization', ['sym', 'raw'])
def test_errors_in_a_call(normalization, arguments, message):
    with pytest.raises(ValueError, match=message):
        TVDiffConv(3, 6, normalization)((features(5, 3), None), EDGE_INDEX, **arguments)


def test_errors():
    with pytest.raises(ValueError, match="'normalization' must be one of sym, left, linkprop, raw; got 'right'"):
        TVDiffConv(3, 6, 'right')
    adj_t = adjacency().t().to_sparse_coo()
    with pytest.raises(ValueError, match="'edge_weight' goes with a COO"):
        TVDiffConv(3, 6)((features(5, 3), None), adj_t, torch.ones(6))
    with pytest.raises(ValueError, match="'edge_index' tells of 5 source nodes"):
        TVDiffConv(3, 6)((features(4, 3), None), adj_t)


@pytest.mark.parametrize('form', ['sparse', 'prepared'])
@pytest.mark.parametrize('flow', ['source_to_target', 'target_to_source'])
@pytest.mark.filterwarnings('ignore:Sparse')
def test_a_graph_of_another_number_of_destinations(form, flow):
    """As torch infers it where the last destinations have no edges."""
    if (form, flow) == ('sparse', 'target_to_source'):
        pytest.skip('MessagePassing takes no sparse tensor there')
    conv, x, turn = TVDiffConv(3, 6, flow=flow), features(5, 3), slice(None, None, 1 if flow[0] == 's' else -1)
    graph = adjacency().t()[:3].to_sparse_coo() if form == 'sparse' else \
        conv.prepare(EDGE_INDEX[[0, 1][turn]], size=(5, 3)[turn])
    expected = conv((x, None)[turn], graph)
    assert expected.shape == (3, 6)
    assert torch.equal(conv((x, features(3, 7))[turn], graph, size=(5, 3)[turn]), expected)
    for size in ((5, 4), (None, 2), (6, 3)):
        with pytest.raises(ValueError, match="'edge_index' tells of 3 destination|'size' tells of 6 source nodes"):
            conv((x, None)[turn], graph, size=size[turn])
    with pytest.raises(ValueError, match="'edge_index' tells of 3 destination nodes, but .* tell of 4: make"):
        conv((x, features(4, 7))[turn], graph)
    with pytest.raises(ValueError, match="'edge_index' tells of 3 destination nodes, but .* tell of 5: make"):
        conv(x, graph)  # one set of nodes


def test_correlate_takes_pairs_in_any_order():
    conv = TVDiffConv(4, 3)
    code, items = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    pairs = torch.tensor([[3, 0, 3, 1, 0], [1, 4, 1, 0, 2]])  # unsorted, one pair twice
    expected = (code[pairs[0]] * items[pairs[1]]).sum(1)
    out = conv.correlate(code, items, pairs)
    torch.testing.assert_close(out, expected)
    weight = torch.arange(1.0, 6)
    torch.testing.assert_close(torch.autograd.grad((out * weight).sum(), (code, items)),
                               torch.autograd.grad((expected * weight).sum(), (code, items)))


def test_a_lazy_layer_loads_a_state_dict():
    made, lazy = TVDiffConv(4, 3), TVDiffConv(-1, 3)
    lazy.load_state_dict(made.state_dict())
    assert lazy.in_channels == 4 and torch.equal(lazy.weight, made.weight)


def test_a_lazy_layer_has_a_state_dict():
    first, second = TVDiffConv(-1, 3), TVDiffConv(-1, 3)
    second.load_state_dict(first.state_dict())
    assert second.in_channels == -1
    assert second((features(5, 3), None), EDGE_INDEX, size=SIZE).shape == (4, 3)


@pytest.mark.filterwarnings('ignore:Sparse')
@pytest.mark.parametrize('normalization', NORMALIZATIONS)
@pytest.mark.parametrize('form', ['one set', 'sources', 'pair', 'featureless'])
def test_pygs_own_assertions(normalization, form):
    """Shape, permuted edges, torch-sparse (where installed), CSC and COO layouts."""
    conv, source = TVDiffConv(5 if form == 'featureless' else 3, 6, normalization), features(5, 3)
    x = {'one set': source, 'sources': (source, None), 'pair': (source, features(4, 2)), 'featureless': (None, None)}
    size = {'size': SIZE} if form in ('sources', 'featureless') else {}
    assert_module(conv, x[form], EDGE_INDEX, expected_size=(5 if form == 'one set' else 4, 6), **size)


@pytest.mark.parametrize('dtype, tolerance', [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
@pytest.mark.filterwarnings('ignore:Sparse')
def test_half_precision(dtype, tolerance):
    conv, x = TVDiffConv(3, 6), features(5, 3)
    expected = conv((x, None), EDGE_INDEX, size=SIZE)
    conv, x = conv.to(dtype), x.to(dtype)
    edges = [EDGE_INDEX, adjacency().t().to(dtype).to_sparse_csr(), conv.prepare(EDGE_INDEX, size=SIZE)]
    for edge_index in edges:
        out = conv((x, None), edge_index, size=SIZE)
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)
        out.sum().backward()
        assert conv.weight.grad.isfinite().all()


@pytest.mark.parametrize('featureless', [False, True])
@pytest.mark.filterwarnings('ignore:Sparse')
def test_one_type_under_autocast(featureless, monkeypatch):
    """Whatever the form of the edges, and however many there are."""
    conv = TVDiffConv(5 if featureless else 3, 6).float()
    x = None if featureless else features(5, 3).float()
    expected = conv((x, None), EDGE_INDEX, size=SIZE)
    for edges in (EDGE_INDEX, adjacency().t().float().to_sparse_csr(), conv.prepare(EDGE_INDEX, size=SIZE)):
        for limit in (0, 2 ** 60):
            monkeypatch.setattr(tvdiff_conv, 'SORT_FROM', limit)
            with torch.autocast('cpu', torch.bfloat16):
                out = conv((x, None), edges, size=SIZE)
            assert out.dtype == (torch.float32 if featureless else torch.bfloat16)
            torch.testing.assert_close(out.float(), expected, rtol=2e-2, atol=2e-2)
            grad, = torch.autograd.grad(out.sum(), conv.weight)
            assert grad.dtype == torch.float32 and grad.isfinite().all()


def test_half_precision_counts_degrees_beyond_its_range():
    """A degree of 70,000 is infinite in float16, and 257 is 256 in bfloat16."""
    edges = torch.stack([torch.zeros(70_000, dtype=torch.long), torch.arange(70_000)])
    for dtype in (torch.float16, torch.bfloat16):
        out = TVDiffConv(1, 1, act=None).to(dtype)
        out.weight.data.fill_(1)
        got = out((torch.full((1, 1), 256.0, dtype=dtype), None), edges, size=(1, 70_000))
        torch.testing.assert_close(got.double(), torch.full((70_000, 1), 256 / 70_000 ** 0.5), rtol=1e-2, atol=0)


@pytest.mark.parametrize('normalization', NORMALIZATIONS)
def test_prepare_takes_edges_as_well(normalization, edge_weight):
    conv, x = TVDiffConv(3, 6, normalization), features(5, 3)
    expected = conv((x, None), EDGE_INDEX, edge_weight, size=SIZE)
    graph = conv.prepare(EDGE_INDEX, edge_weight, SIZE)
    torch.testing.assert_close(conv((x, None), graph), expected)
    back = TVDiffConv(3, 6, normalization, flow='target_to_source')
    back.load_state_dict(conv.state_dict())
    torch.testing.assert_close(back((None, x), back.prepare(EDGE_INDEX.flip(0), edge_weight, SIZE[::-1])), expected)
    with pytest.raises(ValueError, match="'size' is needed to prepare"):
        conv.prepare(EDGE_INDEX)
    for more in ({'edge_weight': torch.ones(6)}, {'degree': (torch.ones(5), torch.ones(4))}):
        with pytest.raises(ValueError, match='are part of a prepared'):
            conv((x, None), graph, **more)


@pytest.mark.parametrize('normalization', NORMALIZATIONS)
def test_prepare_takes_whole_numbers_as_weights(normalization):
    conv, x, weight = TVDiffConv(3, 6, normalization), features(5, 3), torch.tensor([1, 2, 1, 1, 3, 1])
    expected = conv((x, None), EDGE_INDEX, weight, size=SIZE)
    assert expected.any()
    torch.testing.assert_close(conv((x, None), conv.prepare(EDGE_INDEX, weight, SIZE)), expected)
    adj_t = adjacency(weight).long().t().to_sparse_csr()
    torch.testing.assert_close(conv((x, None), conv.prepare(adj_t)), expected)


@pytest.mark.parametrize('aggr', ['sum', 'mean', 'max', 'min', 'mul', 'median', 'std', 'var', 'softmax',
                                  SumAggregation(), ['sum', 'max'], ['sum', 'mean']], ids=str)
@pytest.mark.parametrize('form', ['csr', 'torch-sparse', 'prepared'])
@pytest.mark.parametrize('explain', [False, True], ids=['plain', 'explain'])
@pytest.mark.filterwarnings('ignore:Sparse')
def test_every_aggregation_takes_every_form_of_the_edges(aggr, form, explain):
    """Weighted and normalised, whether PyG can fuse it or not."""
    if form == 'torch-sparse':
        pytest.importorskip('torch_sparse')
    order = (EDGE_INDEX[1] * 5 + EDGE_INDEX[0]).argsort()  # as in the graph: an explanation's mask is one entry an edge
    edges, weight, x = EDGE_INDEX[:, order], torch.tensor(WEIGHT)[order], features(5, 3)
    if form == 'csr':
        graph = torch.sparse_coo_tensor(edges.flip(0), weight, SIZE[::-1]).to_sparse_csr()
    elif form == 'torch-sparse':
        graph = SparseTensor(row=edges[1], col=edges[0], value=weight, sparse_sizes=SIZE[::-1])
    else:
        graph = TVDiffConv(3, 6).prepare(edges, weight, SIZE)
    conv, back = (TVDiffConv(3, 6, aggr=aggr, flow=flow) for flow in ('source_to_target', 'target_to_source'))
    back.load_state_dict(conv.state_dict())
    for layer in (conv, back):
        layer.explain, layer._edge_mask = explain, torch.linspace(-1, 1, 6)
    expected = conv((x, None), edges, weight, size=SIZE)
    torch.testing.assert_close(conv((x, None), graph, size=SIZE), expected)
    if form == 'prepared':
        torch.testing.assert_close(back((None, x), graph, size=SIZE[::-1]), expected)


@pytest.mark.parametrize('in_channels', [3, -1])
def test_a_graph_is_prepared_in_the_layers_precision(in_channels, edge_weight):
    torch.set_default_dtype(torch.float32)
    conv, x = TVDiffConv(in_channels, 6).double(), features(5, 3).double()
    weight = None if edge_weight is None else edge_weight.float()
    graph = conv.prepare(EDGE_INDEX, weight, SIZE)
    torch.testing.assert_close(conv((x, None), graph), conv((x, None), EDGE_INDEX, weight, SIZE), rtol=0, atol=1e-15)
    assert TVDiffConv(3, 6).half().prepare(EDGE_INDEX, torch.ones(6).long(), SIZE).norm.dtype == torch.float32


@pytest.mark.filterwarnings('ignore:Sparse')
def test_blocked_sparse_tensors_are_refused():
    conv, adj_t = TVDiffConv(3, 6), adjacency().t().to_sparse_bsr((1, 1))
    for call in (lambda: conv((features(5, 3), None), adj_t), lambda: conv.prepare(adj_t)):
        with pytest.raises(ValueError, match="'edge_index' must be COO, CSR or CSC .* got torch.sparse_bsr"):
            call()


def test_what_cannot_be_prepared():
    with pytest.raises(ValueError, match=r'shape \[6\].*got \[9\]'):
        TVDiffConv(3, 6).prepare(EDGE_INDEX, torch.ones(9), SIZE)
    with pytest.raises(ValueError, match="'edge_weight' goes with a COO"):
        TVDiffConv(3, 6).prepare(adjacency().t().to_sparse_csr(), torch.ones(6))
    TVDiffConv(3, 6, aggr='add').prepare(EDGE_INDEX, size=SIZE)
    for aggr in ('mean', 'max'):
        with pytest.raises(ValueError, match=f"'aggr' must be sum for a prepared graph, got {aggr}"):
            TVDiffConv(3, 6, aggr=aggr).prepare(EDGE_INDEX, size=SIZE)


@pytest.mark.parametrize('normalization', NORMALIZATIONS)
@pytest.mark.parametrize('layout', [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc], ids=str)
@pytest.mark.filterwarnings('ignore:Sparse')
def test_prepare_takes_sparse_tensors_of_every_layout(normalization, layout):
    conv, x, weight = TVDiffConv(3, 6, normalization), features(5, 3), torch.tensor([*WEIGHT, 1.0])
    edges = torch.cat([EDGE_INDEX, torch.tensor([[0], [1]])], 1)  # one twice
    adj_t = torch.sparse_coo_tensor(edges.flip(0), weight, SIZE[::-1])  # not coalesced
    if layout != torch.sparse_coo:
        adj_t = adj_t.to_sparse(layout=layout)
    torch.testing.assert_close(conv((x, None), conv.prepare(adj_t)), conv((x, None), edges, weight, size=SIZE))


@pytest.mark.parametrize('normalization', NORMALIZATIONS)
def test_prepare_refuses_to_cut_a_gradient(normalization):
    conv, weight = TVDiffConv(3, 6, normalization), torch.tensor(WEIGHT, requires_grad=True)
    adj_t = torch.sparse_coo_tensor(EDGE_INDEX.flip(0), weight, SIZE[::-1])
    for edges in ((EDGE_INDEX, weight, SIZE), (adj_t,), (adj_t.to_sparse_csr(),)):
        with pytest.raises(ValueError, match="'edge_weight', the values of .* require a gradient.*pass 'edge_index'"):
            conv.prepare(*edges)
        with torch.no_grad():
            assert not conv.prepare(*edges).norm.requires_grad
    if normalization != 'raw':
        with pytest.raises(ValueError, match="or 'degree' require a gradient"):
            conv.prepare(EDGE_INDEX, None, SIZE, (torch.ones(5, requires_grad=True), torch.ones(4)))


@pytest.mark.parametrize('edge_index, message', [
    (torch.tensor([[5], [0]]), r"row 0 of 'edge_index' holds 5 to 5, but there are 5 such nodes.*0\.\.4"),
    (torch.tensor([[0], [4]]), r"row 1 of 'edge_index' holds 4 to 4, but there are 4 such nodes"),
    (torch.tensor([[0, -1], [0, 1]]), r"row 0 of 'edge_index' holds -1 to 0"),
    (torch.tensor([[0.0], [1.0]]), "'edge_index' must hold integers"),
    (torch.tensor([0, 1]), r"of shape \[2, n\]"),
])
def test_edges_out_of_range(edge_index, message):
    conv = TVDiffConv(3, 6)
    with pytest.raises(ValueError, match=message):
        conv((features(5, 3), None), edge_index, size=SIZE)
    with pytest.raises(ValueError, match=message):
        conv.prepare(edge_index, size=SIZE)


def test_no_edges_at_all():
    conv = TVDiffConv(3, 6)
    none = torch.empty(2, 0, dtype=torch.long)
    for edge_index in (none, conv.prepare(none, size=SIZE)):
        out = conv((features(5, 3), None), edge_index, size=SIZE)
        assert torch.equal(out, torch.zeros(4, 6))
        out.sum().backward()


@pytest.mark.parametrize('normalization', NORMALIZATIONS)
def test_sorted_sums_are_the_scattered_ones(normalization, edge_weight, monkeypatch):
    for flow in ('source_to_target', 'target_to_source'):
        conv, x = TVDiffConv(3, 6, normalization, flow=flow), features(5, 3).requires_grad_()
        pair, edges, size = ((x, None), EDGE_INDEX, SIZE) if flow == 'source_to_target' else \
            ((None, x), EDGE_INDEX.flip(0), SIZE[::-1])
        results = []
        for limit in (2 ** 60, 0):
            monkeypatch.setattr(tvdiff_conv, 'SORT_FROM', limit)
            monkeypatch.setattr(conv, 'propagate', None if limit == 0 else conv.propagate)  # not called
            out = conv(pair, edges, edge_weight, size=size)
            results.append((out, torch.autograd.grad((out * torch.arange(24.0).view(4, 6)).sum(), [x, conv.weight])))
        torch.testing.assert_close(*results)


def test_messages_are_made_where_somebody_looks(monkeypatch):
    monkeypatch.setattr(tvdiff_conv, 'SORT_FROM', 0)
    conv, x, seen = TVDiffConv(3, 6), features(5, 3), []
    expected = conv((x, None), EDGE_INDEX, size=SIZE)
    conv.register_message_forward_hook(lambda module, inputs, messages: seen.append(messages.shape))
    torch.testing.assert_close(conv((x, None), EDGE_INDEX, size=SIZE), expected)
    assert seen == [(6, 6)]
    weight = torch.tensor(WEIGHT, requires_grad=True)
    TVDiffConv(3, 6, 'raw')((x, None), EDGE_INDEX, weight, size=SIZE).sum().backward()
    assert weight.grad.abs().min() > 0
    for aggr in ('max', 'mean'):
        other = TVDiffConv(3, 6, aggr=aggr)
        got = other((x, None), EDGE_INDEX, size=SIZE)
        monkeypatch.setattr(tvdiff_conv, 'SORT_FROM', 2 ** 60)
        torch.testing.assert_close(got, other((x, None), EDGE_INDEX, size=SIZE))
        monkeypatch.setattr(tvdiff_conv, 'SORT_FROM', 0)


@pytest.mark.parametrize('form, backend', [('edges', 'eager'), ('weighted', 'eager'), ('weighted', 'inductor'),
                                           ('prepared', 'aot_eager'), ('prepared', 'inductor')])
def test_compiles_whole_with_dynamic_sizes(form, backend):
    """fullgraph: no graph break; then other sizes without a change of the result."""
    if backend == 'inductor' and not (which('g++') or which('clang++')):
        pytest.skip('no C++ compiler for inductor')
    torch.compiler.reset()
    conv = TVDiffConv(3, 6)
    compiled = torch.compile(conv, dynamic=True, fullgraph=True, backend=backend)
    for extra in (0, 3, 7):
        size = (5 + extra, 4 + extra)
        x = features(size[0], 3)
        edges = torch.cat([EDGE_INDEX, torch.arange(extra).repeat(2, 1) + 4], 1)
        edges = edges.clamp(max=size[1] - 1)
        weight = None if form == 'edges' else torch.rand(edges.size(1))
        expected = conv((x, None), edges, weight, size=size)
        graph = {'edge_index': edges, 'edge_weight': weight, 'size': size}
        if form == 'prepared':
            graph = {'edge_index': conv.prepare(edges, weight, size)}
        out = compiled((x, None), **graph)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(torch.autograd.grad(out.square().sum(), conv.weight),
                                   torch.autograd.grad(expected.square().sum(), conv.weight))


def test_exports():
    conv, x = TVDiffConv(3, 6), features(5, 3)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv

        def forward(self, x, y, edge_index):
            return self.conv((x, y), edge_index)

    dims = {'x': {0: torch.export.Dim('sources', min=2)}, 'y': {0: torch.export.Dim('destinations', min=2)},
            'edge_index': {1: torch.export.Dim('edges', min=2)}}
    program = torch.export.export(Model(), (x, features(4, 2), EDGE_INDEX), dynamic_shapes=dims)
    for sources, destinations, edges in ((5, 4, EDGE_INDEX), (7, 9, torch.tensor([[6, 1, 0], [8, 0, 0]]))):
        x, y = features(sources, 3), features(destinations, 2)
        torch.testing.assert_close(program.module()(x, y, edges), conv((x, y), edges))


def test_reset_parameters_draws_anew_and_by_torchs_seed():
    conv = TVDiffConv(3, 6)
    first = conv.weight.detach().clone()
    conv.reset_parameters()
    assert not torch.equal(conv.weight, first)
    torch.manual_seed(3)
    conv.reset_parameters()
    torch.manual_seed(3)
    assert torch.equal(conv.weight, TVDiffConv(3, 6).weight)
