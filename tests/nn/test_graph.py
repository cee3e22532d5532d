"""A prepared graph gives what the layer gives on the graph itself."""
import copy

import pytest
import torch

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn import TVDiffConv

EDGES = torch.tensor([[0, 0, 1, 3, 3, 3, 0], [4, 1, 1, 0, 1, 2, 2]])  # source 2 and destination 3 have no edge
MATRIX = InteractionMatrix(EDGES, 4, 5)


@pytest.mark.parametrize('normalization', ['sym', 'left', 'linkprop', 'raw'])
@pytest.mark.parametrize('featureless', [True, False])
def test_prepared_and_plain_agree(normalization, featureless):
    conv = TVDiffConv(4 if featureless else 3, 6, normalization)
    x = None if featureless else torch.randn(4, 3, requires_grad=True)
    graph = conv.prepare(MATRIX.adj_t().double())
    leaves = [conv.weight] if featureless else [conv.weight, x]
    weight = torch.randn(5, 6)
    plain, prepared = conv((x, None), EDGES, size=(4, 5)), conv((x, None), graph)
    torch.testing.assert_close(prepared, plain)
    torch.testing.assert_close(torch.autograd.grad((prepared * weight).sum(), leaves),
                               torch.autograd.grad((plain * weight).sum(), leaves))


def test_degrees_of_the_full_graph():
    conv = TVDiffConv(4, 2)
    degree = (torch.tensor([4, 2, 1, 5]), torch.tensor([2, 3, 4, 1, 9]))
    graph = conv.prepare(MATRIX.adj_t().double(), degree=degree)
    torch.testing.assert_close(conv((None, None), graph),
                               conv((None, None), EDGES, size=(4, 5), degree=degree))


def test_some_destinations_alone():
    conv = TVDiffConv(4, 2, act=None)
    graph = conv.prepare(MATRIX.adj_t().double())
    for index in ([1, 0, 3, 1], [], [3]):
        index = torch.tensor(index, dtype=torch.long)
        torch.testing.assert_close(graph.matmul(conv.weight, index), graph.matmul(conv.weight)[index])


def test_a_wrong_number_of_rows_is_named_and_copies_work():
    conv = TVDiffConv(4, 2)
    graph = copy.deepcopy(conv.prepare(MATRIX.adj_t().double()))
    with pytest.raises(ValueError, match='the graph has 4 source nodes, got 3 rows'):
        TVDiffConv(3, 2)((None, None), graph)
    assert graph.state_dict() == {}


@pytest.mark.parametrize('normalization', ['sym', 'left'])
def test_the_way_back_is_the_transpose(normalization):
    graph = TVDiffConv(4, 2, normalization).prepare(MATRIX.adj_t().double())
    dense = graph.matmul(torch.eye(4).double())  # [5, 4]
    h = torch.randn(5, 3, dtype=torch.double, requires_grad=True)
    torch.testing.assert_close(graph.transpose_matmul(h), dense.t() @ h)
    assert torch.autograd.gradcheck(graph.transpose_matmul, h)
    with pytest.raises(ValueError, match='the graph has 5 destination nodes, got 4 rows'):
        graph.transpose_matmul(torch.zeros(4, 3))
