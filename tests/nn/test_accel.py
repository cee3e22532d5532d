"""What needs torch-scatter and torch-sparse: ``.ci/accel`` builds them and runs this."""
import sys
from pathlib import Path

import pytest
import torch

from tvdiff_pyg.nn import TVDiffConv

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
pytestmark = pytest.mark.accel
torch_sparse = pytest.importorskip('torch_sparse', reason='torch-sparse is not installed: .ci/accel builds it')
pytest.importorskip('torch_scatter', reason='torch-scatter is not installed: .ci/accel builds it')

EDGE_INDEX = torch.tensor([[3, 0, 0, 1, 2, 2], [0, 1, 0, 2, 2, 0]])
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 0.25, 3.0, 1.5])


@pytest.mark.parametrize('normalization', ['sym', 'left', 'linkprop', 'raw'])
@pytest.mark.parametrize('weighted', [False, True])
def test_sparse_tensor(normalization, weighted):
    conv, x = TVDiffConv(3, 6, normalization), torch.randn(5, 3, requires_grad=True)
    weight = WEIGHT.double() if weighted else None
    adj_t = torch_sparse.SparseTensor(row=EDGE_INDEX[1], col=EDGE_INDEX[0], value=weight, sparse_sizes=(4, 5))
    cotangent = torch.randn(4, 6)
    results = []
    for edge_index, edge_weight in ((EDGE_INDEX, weight), (adj_t, None), (conv.prepare(adj_t), None)):
        out = conv((x, None), edge_index, edge_weight, size=(5, 4))
        results.append((out, torch.autograd.grad((out * cotangent).sum(), [x, conv.weight])))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])


def test_every_kernel_gives_the_same_sums_and_gradients():
    backends = pytest.importorskip('benchmarks.backends')
    generator = torch.Generator().manual_seed(0)
    row = torch.randint(30, (200,), generator=generator).sort().values
    col, value = torch.randint(30, (200,), generator=generator), torch.rand(200, generator=generator)
    h, cotangent = torch.randn(30, 7, generator=generator, requires_grad=True), torch.randn(30, 7)
    kernels = backends.kernels(row, col, value, 30)
    assert {'torch-scatter', 'torch-sparse'} < set(kernels)
    results = {name: (out := kernel(h), torch.autograd.grad((out * cotangent).sum(), h)[0])
               for name, kernel in kernels.items()}
    for name, result in results.items():
        torch.testing.assert_close(result, results['scatter'], msg=lambda text, name=name: f'{name}: {text}')
