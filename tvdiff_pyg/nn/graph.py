"""A graph prepared once for many products."""
from __future__ import annotations

import torch
from torch import Tensor

from tvdiff_pyg.nn.functional import Entries, sparse_matmul


class NormalizedGraph(torch.nn.Module):
    """A normalised adjacency indexed for products from either side: what a fixed graph need not do at every step.

    :meth:`tvdiff_pyg.nn.TVDiffConv.prepare` makes one, and the layer takes it in place of ``edge_index``. It is a
    module without parameters, so that it follows its owner from device to device; its buffers are not in the state
    dict.

    Args:
        adj_t: transposed adjacency as sparse CSR ``[V_dst, V_src]`` with normalised values.

    Memory: five integers and a number an edge.
    """

    row: Tensor
    col: Tensor
    rowptr: Tensor
    perm: Tensor
    colptr: Tensor
    value: Tensor

    def __init__(self, adj_t: Tensor) -> None:
        super().__init__()
        self.num_destination, self.num_source = adj_t.size(0), adj_t.size(1)
        rowptr, col = adj_t.crow_indices(), adj_t.col_indices()
        row = torch.arange(self.num_destination, device=col.device).repeat_interleave(rowptr.diff())
        entries = Entries.of(row, col, self.num_destination, self.num_source)
        for name, index in entries._asdict().items():
            self.register_buffer(name, index, persistent=False)
        self.register_buffer('value', adj_t.values(), persistent=False)

    def matmul(self, h: Tensor) -> Tensor:
        """Return the destination nodes' sums ``[V_dst, d]`` of source rows ``h``, ``[V_src, d]``."""
        if h.size(0) != self.num_source:
            raise ValueError(f"the graph has {self.num_source} source nodes, got {h.size(0)} rows")
        entries = Entries(self.row, self.col, self.rowptr, self.perm, self.colptr)
        return sparse_matmul(entries, self.value.to(h.dtype), h)

    def extra_repr(self) -> str:
        return f'{self.num_source} -> {self.num_destination}, {self.col.numel()} edges'
