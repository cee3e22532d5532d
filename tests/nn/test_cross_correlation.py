"""Scores of given pairs against the full product."""
import pytest
import torch

from tvdiff_pyg.nn import CrossCorrelation, TVDiffConv

PAIRS = torch.tensor([[3, 0, 3, 1, 0], [1, 4, 1, 0, 2]])  # unsorted, one pair twice


def test_values_and_gradients():
    source, target = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    head = CrossCorrelation()
    torch.testing.assert_close(head(source, target, PAIRS), (source @ target.t())[PAIRS[0], PAIRS[1]])
    assert torch.autograd.gradcheck(lambda a, b: head(a, b, PAIRS), (source, target))
    assert head(source, target, PAIRS[:, :0]).shape == (0,)


def test_transforms_of_torch_func():
    head, source, target = CrossCorrelation(), torch.randn(2, 4, 3), torch.randn(5, 3)
    expected = (source @ target.t())[:, PAIRS[0], PAIRS[1]]
    torch.testing.assert_close(torch.func.vmap(head, (0, None, None))(source, target, PAIRS), expected)
    value, tangent = torch.func.jvp(lambda s: head(s, target, PAIRS), (source[0],), (source[1],))
    torch.testing.assert_close((value, tangent), tuple(expected))  # linear
    grad = torch.func.grad(lambda s: head(s, target, PAIRS).sum())(source[0])
    torch.testing.assert_close(grad, torch.zeros(4, 3).index_add(0, PAIRS[0], target[PAIRS[1]]))


@pytest.mark.parametrize('form', ['edges', 'sparse', 'prepared'])
@pytest.mark.filterwarnings('ignore:Sparse')
def test_autocast_with_a_convolution(form):
    torch.manual_seed(0)  # two draws of a hundred differ by more, where a sum nearly cancels
    head, conv, lin = CrossCorrelation(), TVDiffConv(3, 6).float(), torch.nn.Linear(3, 6).float()
    x, leaves = torch.randn(4, 3).float(), [conv.weight, lin.weight]
    adj_t = torch.sparse_coo_tensor(PAIRS.flip(0), torch.ones(5), (5, 4)).float()
    graph = {'edges': PAIRS, 'sparse': adj_t, 'prepared': conv.prepare(adj_t)}[form]
    results = []
    for enabled in (False, True):
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            scores = head(lin(x), conv((x, None), graph, size=(4, 5)), PAIRS)
        assert scores.dtype == torch.float32
        results.append([scores.detach(), *torch.autograd.grad(scores.square().sum(), leaves)])
    for near, value in zip(*results):
        assert (value - near).norm() < 0.03 * near.norm()


@pytest.mark.parametrize('width, pairs, message', [
    (3, [[4], [0]], r"row 0 of 'edge_label_index' holds 4 to 4, but there are 4 such nodes"),
    (3, [[0], [5]], "row 1 of 'edge_label_index'"),
    (3, [[0, -1], [0, 0]], 'holds -1 to 0'),
    (2, [[0], [0]], "'source' and 'target' must be codes of one width, got 2 and 3"),
])
def test_errors(width, pairs, message):
    with pytest.raises(ValueError, match=message):
        CrossCorrelation()(torch.randn(4, width), torch.randn(5, 3), torch.tensor(pairs))
