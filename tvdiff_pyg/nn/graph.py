"""A graph prepared once for many products."""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

from tvdiff_pyg.nn.functional import Entries, sparse_matmul
from tvdiff_pyg.utils import csr_positions


class NormalizedGraph(torch.nn.Module):
    """A normalised adjacency indexed for products from either side: what a fixed graph need not do at every step.

    :meth:`tvdiff_pyg.nn.TVDiffConv.prepare` makes one, and the layer takes it in place of ``edge_index``. It is a
    module without parameters, so that it follows its owner from device to device; its buffers are not in the state
    dict.

    Args:
        adj_t: transposed adjacency as sparse CSR ``[V_dst, V_src]`` with normalised values.

    Memory: three integers and a number an edge, an integer a node.
    """

    row: Tensor
    col: Tensor
    rowptr: Tensor
    perm: Tensor
    colptr: Tensor
    norm: Tensor

    def __init__(self, adj_t: Tensor) -> None:
        super().__init__()
        self.num_destination, self.num_source = adj_t.size(0), adj_t.size(1)
        # Copies: views of a sparse tensor cannot be traced by torch.compile.
        rowptr, col, norm = (part.clone() for part in (adj_t.crow_indices(), adj_t.col_indices(), adj_t.values()))
        row = torch.arange(self.num_destination, device=col.device).repeat_interleave(rowptr.diff())
        entries = Entries.of(row, col, self.num_destination, self.num_source)
        for name, index in entries._asdict().items():
            self.register_buffer(name, index, persistent=False)
        self.register_buffer('norm', norm, persistent=False)

    def matmul(self, h: Tensor, index: Optional[Tensor] = None, sparse_grad: bool = False) -> Tensor:
        """Return the destination nodes' sums ``[V_dst, d]`` of source rows ``h``, ``[V_src, d]``.

        Args:
            h: source rows.
            index: only these destination nodes ``[n]``, at the cost of their own edges; the result is ``[n, d]``.
            sparse_grad: whether the gradient of ``h`` is a sparse tensor of the rows that took part.
        """
        if h.size(0) != self.num_source:
            raise ValueError(f"the graph has {self.num_source} source nodes, got {h.size(0)} rows")
        if index is None:
            entries, value = Entries(self.row, self.col, self.rowptr, self.perm, self.colptr), self.norm
        else:
            row, position = csr_positions(self.rowptr, index)
            entries = Entries.of(row, self.col[position], index.numel(), self.num_source)
            value = self.norm[position]
        return sparse_matmul(entries, value.to(h.dtype), h, sparse_grad).to(h.dtype)  # float32 under autocast

    def transpose_matmul(self, h: Tensor) -> Tensor:
        """Return the source nodes' sums ``[V_src, d]`` of destination rows ``h``, ``[V_dst, d]``: a hop back."""
        if h.size(0) != self.num_destination:
            raise ValueError(f"the graph has {self.num_destination} destination nodes, got {h.size(0)} rows")
        back = torch.empty_like(self.perm).scatter_(0, self.perm, torch.arange(self.perm.numel(),
                                                                               device=self.perm.device))
        entries = Entries(self.col[self.perm], self.row[self.perm], self.colptr, back, self.rowptr)
        return sparse_matmul(entries, self.norm[self.perm].to(h.dtype), h).to(h.dtype)

    def extra_repr(self) -> str:
        return f'{self.num_source} -> {self.num_destination}, {self.col.numel()} edges'
