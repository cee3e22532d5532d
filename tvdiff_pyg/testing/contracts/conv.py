"""The contract of a bipartite convolution."""
from __future__ import annotations

import copy
import warnings
from typing import Any, Callable, Dict, List

import torch
from torch import Tensor

from tvdiff_pyg.testing.contracts.common import (
    EXACT,
    SINGLE,
    check_reset,
    check_state_dict,
    close,
    default_dtype,
    generator,
    global_generator_rests,
    gradients,
    has_shape,
    is_finite,
    laboratory,
    normal,
    raises_value_error,
    reach,
    rule,
    shaken,
    untouched,
)


@laboratory()
def check_conv(make: Callable[[int, int], torch.nn.Module]) -> None:
    """Check a bipartite convolution, called as ``conv((x_src, x_dst or None), edge_index or adj_t, size=...)``.

    Args:
        make: ``make(in_channels, out_channels)`` returns the layer; source and destination features have one width.

    Raises:
        AssertionError: a rule is broken.
    """
    given, fresh, size = _bipartite(), _bipartite(), (5, 4)
    x, x_dst, edge_index = (given.pop(name) for name in ('x', 'x_dst', 'edge_index'))
    conv: Any = shaken(make(3, 6).double()).eval()

    def run(edges: Tensor, **options: Any) -> List[Tensor]:
        """Return the output and the gradients."""
        features = x.clone().requires_grad_()
        out = conv((features, None), edges, **options)
        return [out.detach(), *gradients(out, [features, *conv.parameters()])]

    with rule('a conv returns [V_dst, out_channels]'):
        has_shape(conv((x, None), edge_index, size=size), 4, 6)
        has_shape(conv((x, x_dst), edge_index), 4, 6)
    with rule('nodes without edges give finite rows and gradients'):
        for edges in (edge_index, edge_index[:, :0]):
            for value in run(edges, size=size):
                is_finite(value)
    expected = run(edge_index, size=size)
    with rule('the same call gives the same output and draws no random numbers'), global_generator_rests():
        close(run(edge_index, size=size), expected, EXACT)
    with rule('the order of the edges changes neither output nor gradients'):
        for seed in range(3):
            order = torch.randperm(edge_index.size(1), generator=generator(seed))
            close(run(edge_index[:, order], size=size), expected)
    for layout, matrix in given.items():
        with rule('a sparse adj_t gives the output and gradients of its edge_index', layout):
            close(run(matrix), expected)
    with rule('inputs stay as they were'), untouched(**fresh):
        conv((fresh['x'], fresh['x_dst']), fresh['edge_index'])
        for layout in given:
            conv((fresh['x'], None), fresh[layout])
    with rule('size adds destinations and changes no other row'):
        out = conv((x, None), edge_index, size=(5, 7))
        has_shape(out, 7, 6)
        close(out[:4].detach(), expected[0])
    with rule('a size that does not fit features or edges raises ValueError'):
        for wrong in ((4, 4), (6, 4), (5, 2)):
            raises_value_error(lambda: conv((x, None), edge_index, size=wrong))
        for rows in (4, 6):
            raises_value_error(lambda: conv((normal(rows, 3), None), given['sparse CSR']))
        for rows in (3, 6):
            raises_value_error(lambda: conv((x, None), given['sparse CSR'], size=(5, rows)))
            raises_value_error(lambda: conv((x, normal(rows, 3)), given['sparse CSR']))
    with rule('gradients reach the source features and every weight'):
        named = [('x', x.clone().requires_grad_()), *conv.named_parameters()]
        reach(named, conv((named[0][1], x_dst), edge_index))
    with rule('float32 stays float32 and close to float64'), default_dtype(torch.float32):
        out = copy.deepcopy(conv).float()((x.float(), None), edge_index, size=size).detach()
        assert out.dtype == torch.float32, f'the output is {out.dtype}'
        close(out.double(), expected[0], SINGLE)
    with rule('repr names the class'):
        assert type(conv).__name__ in repr(conv), repr(conv)
    check_reset(conv)
    check_state_dict(lambda: make(3, 6).double().eval(), lambda made: made((x, None), edge_index, size=size))


def _bipartite() -> Dict[str, Tensor]:
    """Features of 5 sources and 4 destinations, of which the last have no edges, and the edges in all forms."""
    edge_index = torch.tensor([[3, 0, 0, 1, 2, 2], [0, 1, 0, 2, 2, 0]])
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Sparse')  # torch's remarks that these layouts are young
        adj_t = torch.sparse_coo_tensor(edge_index.flip(0), torch.ones(edge_index.size(1)), (4, 5)).coalesce()
        return {'x': normal(5, 3), 'x_dst': normal(4, 3, seed=1), 'edge_index': edge_index, 'sparse COO': adj_t,
                'sparse CSR': adj_t.to_sparse_csr(), 'sparse CSC': adj_t.to_sparse_csc()}
