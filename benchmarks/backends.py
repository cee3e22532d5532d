"""Kernels that sum neighbours, over sizes: which is fastest, forward and backward.

``python -m benchmarks.backends [--edges 10000 100000 1000000] [--hidden-channels 16 64 256] [--json FILE]``

A random bipartite graph of E edges, E / 20 sources and as many destinations; the weighted sum of source rows into
destinations and its gradient for the sources.

* ``scatter``: gather the rows of the edges, scale them, add them up (PyG's message passing on torch alone);
* ``csr``: :func:`torch.sparse.mm` on a transposed adjacency that is there already;
* ``bag``: :class:`~tvdiff_pyg.nn.graph.NormalizedGraph`, prepared once for a fixed graph;
* ``sort+bag``: the same from an edge list that comes new each time;
* ``torch-scatter`` and ``torch-sparse``, where they are installed (``.ci/accel`` builds them).
"""
from __future__ import annotations

import argparse
import platform
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Callable, Dict, List

import torch
from torch import Tensor
from torch_geometric.utils import scatter, spmm

from benchmarks.speed import seconds
from tvdiff_pyg.files import write_json
from tvdiff_pyg.nn.functional import Entries, sparse_matmul
from tvdiff_pyg.nn.graph import NormalizedGraph
from tvdiff_pyg.training.environment import versions
from tvdiff_pyg.utils import csr_tensor

DEGREE = 20


def kernels(row: Tensor, col: Tensor, value: Tensor, size: int) -> Dict[str, Callable[[Tensor], Tensor]]:
    """Return every kernel that is there, as a function of source rows; ``row`` are destinations, sorted."""
    entries = Entries.of(row, col, size, size)
    adj_t = csr_tensor(entries.rowptr, col, value, (size, size))
    graph = NormalizedGraph(adj_t)
    order = torch.randperm(row.numel(), generator=torch.Generator().manual_seed(1))
    mixed_row, mixed_col, mixed_value = row[order], col[order], value[order]

    def sort_and_bag(h: Tensor) -> Tensor:
        back = mixed_row.argsort(stable=True)
        return sparse_matmul(Entries.of(mixed_row[back], mixed_col[back], size, size), mixed_value[back], h)

    out: Dict[str, Callable[[Tensor], Tensor]] = {
        'scatter': lambda h: scatter(h[mixed_col] * mixed_value.unsqueeze(1), mixed_row, dim_size=size, reduce='sum'),
        'csr': lambda h: spmm(adj_t, h),
        'bag': graph.matmul,
        'sort+bag': sort_and_bag,
    }
    if find_spec('torch_scatter'):
        from torch_scatter import scatter as torch_scatter
        out['torch-scatter'] = lambda h: torch_scatter(h[mixed_col] * mixed_value.unsqueeze(1), mixed_row, dim=0,
                                                       dim_size=size, reduce='sum')
    if find_spec('torch_sparse'):
        from torch_sparse import SparseTensor
        sparse = SparseTensor(rowptr=entries.rowptr, col=col, value=value, sparse_sizes=(size, size))
        sparse.storage.csr2csc(), sparse.storage.colptr()  # a fixed graph keeps them
        out['torch-sparse'] = lambda h: sparse.matmul(h)
    return out


def main(argv: Any = None) -> List[Dict[str, Any]]:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--edges', type=int, nargs='+', default=[10_000, 100_000, 1_000_000])
    parser.add_argument('--hidden-channels', type=int, nargs='+', default=[16, 64, 256])
    parser.add_argument('--repeat', type=int, default=5)
    parser.add_argument('--json', default=None)
    options = parser.parse_args(argv)
    rows: List[Dict[str, Any]] = []
    for edges in options.edges:
        generator, size = torch.Generator().manual_seed(0), max(edges // DEGREE, 1)
        row = torch.randint(size, (edges,), generator=generator).sort().values
        col, value = torch.randint(size, (edges,), generator=generator), torch.rand(edges, generator=generator)
        for width in options.hidden_channels:
            h = torch.randn(size, width, generator=generator).requires_grad_()
            grad, expected = torch.randn(size, width, generator=generator), None
            found: Dict[str, float] = {}
            for name, kernel in kernels(row, col, value, size).items():
                def both(kernel: Callable[[Tensor], Tensor] = kernel) -> Tensor:
                    return torch.autograd.grad((kernel(h) * grad).sum(), h)[0]

                got = both()
                expected = got if expected is None else expected
                torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
                found[name] = seconds(both, options.repeat)
            rows.append({'edges': edges, 'hidden_channels': width, **{f'{name}_s': s for name, s in found.items()}})
            if len(rows) == 1:
                print('| edges | d | ' + ' | '.join(f'{name}, ms' for name in found) + ' |')
                print('|--:|--:|' + '--:|' * len(found))
            best = min(found.values())
            print(f'| {edges:,} | {width} | ' + ' | '.join(
                f"{'**' if s == best else ''}{1e3 * s:.2f}{'**' if s == best else ''}" for s in found.values()) + ' |',
                flush=True)
    if options.json:
        result = {'rows': rows, 'degree': DEGREE, 'threads': torch.get_num_threads(), 'machine': platform.machine(),
                  'versions': versions()}
        write_json(Path(options.json), result)
    return rows


if __name__ == '__main__':
    main()
