"""Products with sparse operands, and the free energy's parts, without an array over users and items (SPEC 7).

Every function has its gradient written by hand, because autograd's own would gather ``nnz x d`` rows. All sparse work
goes through two primitives: :func:`torch.nn.functional.embedding_bag`, which sums weighted rows of a table without
storing them, and :func:`torch.sparse.sampled_addmm`, which computes single entries of a dense product.
"""
from __future__ import annotations

from typing import Any, NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import cumsum

from tvdiff_pyg.utils import csr_tensor


class Entries(NamedTuple):
    """The positions of a sparse matrix, sorted by row, and the way to read them sorted by column.

    Attributes:
        row, col: positions ``[nnz]``.
        rowptr: where each row starts ``[num_rows + 1]``.
        perm: the entries in the order of their columns ``[nnz]``.
        colptr: where each column starts in that order ``[num_cols + 1]``.
    """

    row: Tensor
    col: Tensor
    rowptr: Tensor
    perm: Tensor
    colptr: Tensor

    @classmethod
    def of(cls, row: Tensor, col: Tensor, num_rows: int, num_cols: int) -> Entries:
        """Index positions that are sorted by row."""
        return cls(row, col, _pointer(row, num_rows), col.argsort(stable=True), _pointer(col, num_cols))

    def matmul(self, value: Optional[Tensor], table: Tensor) -> Tensor:
        """Return the sparse matrix of ``value`` times ``table``, ``[num_rows, d]``: 2 nnz d flops."""
        return _bag(self.col, self.rowptr, value, table)

    def t_matmul(self, value: Optional[Tensor], table: Tensor) -> Tensor:
        """Return its transpose times ``table``, ``[num_cols, d]``."""
        return _bag(self.row[self.perm], self.colptr, None if value is None else value[self.perm], table)

    def sampled_dot(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the inner products ``<left[row], right[col]>``, ``[nnz]``: 2 nnz d flops."""
        pattern = csr_tensor(self.rowptr, self.col, left.new_zeros(self.col.numel()), (left.size(0), right.size(0)))
        return torch.sparse.sampled_addmm(pattern, left, right.t(), beta=0.0).values()


def sparse_matmul(entries: Entries, value: Tensor, table: Tensor) -> Tensor:
    """Return a sparse matrix times ``table``, differentiable in the table.

    Args:
        entries: its positions.
        value: its values ``[nnz]``, constants.
        table: ``[num_cols, d]``.
    """
    return _SparseMatmul.apply(entries, value, table)


def sampled_dot(pairs: Entries, left: Tensor, right: Tensor) -> Tensor:
    """Return ``<left[row], right[col]>`` of every pair, ``[nnz]``, differentiable in both tables."""
    return _SampledDot.apply(pairs, left, right)


def noisy_matmul(entries: Entries, value: Tensor, mixing: Tensor, probes: Tensor, table: Tensor) -> Tensor:
    """Return ``(S + mixing @ probes) @ table``, with sparse ``S``, differentiable in the table.

    Args:
        entries: positions of S.
        value: values of S ``[nnz]``, constants.
        mixing: ``[num_rows, P]``.
        probes: ``[P, num_cols]``.
        table: ``[num_cols, d]``.

    Cost: 2 (nnz + P num_cols + P num_rows) d flops; backward as much again.
    """
    return _NoisyMatmul.apply(entries, value, mixing, probes, table)


def energy_and_scores(code: Tensor, items: Tensor, observed: Entries, pairs: Entries) -> Tuple[Tensor, Tensor]:
    r"""Return squared errors over all items and the scores of a few pairs (SPEC 7c).

    .. math::
        \sum_j (x_{0j} - u H_j^T)^2 = n_u - 2 u \sum_{j \in R_u} H_j + u (H^T H) u^T

    Args:
        code: user codes u, ``[B, d]``.
        items: item codes H, ``[N, d]``.
        observed: the observed items of the batch rows, the ones of :math:`x_0`.
        pairs: the pairs whose scores are wanted.

    Returns:
        The sums ``[B]``, not divided by N, and the scores ``[Q]`` in the order of ``pairs``.

    Cost, forward and backward together: 4 N d^2 for the Gram matrix and its gradient, 6 B d^2, and 2 d flops for each
    entry and pass; the dense path costs 6 B N d for the same.
    """
    return _EnergyAndScores.apply(code, items, observed, pairs)


def _pointer(index: Tensor, size: int) -> Tensor:
    return cumsum(torch.bincount(index, minlength=size))


def _bag(index: Tensor, pointer: Tensor, value: Optional[Tensor], table: Tensor) -> Tensor:
    return F.embedding_bag(index, table, pointer, mode='sum', per_sample_weights=value, include_last_offset=True)


class _SparseMatmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, entries: Entries, value: Tensor, table: Tensor) -> Tensor:
        ctx.entries = entries
        ctx.save_for_backward(value)
        return entries.matmul(value, table)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[None, None, Tensor]:
        value, = ctx.saved_tensors
        return None, None, ctx.entries.t_matmul(value, grad.contiguous())


class _SampledDot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pairs: Entries, left: Tensor, right: Tensor) -> Tensor:
        ctx.pairs = pairs
        ctx.save_for_backward(left, right)
        return pairs.sampled_dot(left, right)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[None, Tensor, Tensor]:
        left, right = ctx.saved_tensors
        grad = grad.contiguous()
        return None, ctx.pairs.matmul(grad, right), ctx.pairs.t_matmul(grad, left)


class _NoisyMatmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, entries: Entries, value: Tensor, mixing: Tensor, probes: Tensor, table: Tensor) -> Tensor:
        ctx.entries = entries
        ctx.save_for_backward(value, mixing, probes)
        return entries.matmul(value, table).addmm_(mixing, probes @ table)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[None, None, None, None, Tensor]:
        value, mixing, probes = ctx.saved_tensors
        grad_table = ctx.entries.t_matmul(value, grad.contiguous())
        return None, None, None, None, grad_table.addmm_(probes.t(), mixing.t() @ grad)


class _EnergyAndScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, code: Tensor, items: Tensor, observed: Entries, pairs: Entries) -> Tuple[Tensor, Tensor]:
        code_gram = code @ (items.t() @ items)  # u G, [B, d]
        observed_sum = observed.matmul(None, items)  # sum of H_j over R_u, [B, d]
        energy = observed.rowptr.diff().to(code.dtype) + (code * (code_gram - 2 * observed_sum)).sum(1)
        ctx.observed, ctx.pairs = observed, pairs
        ctx.save_for_backward(code, items, code_gram - observed_sum)
        return energy, pairs.sampled_dot(code, items)

    @staticmethod
    def backward(ctx: Any, energy_grad: Tensor,
                 score_grad: Tensor) -> Tuple[Tensor, Tensor, None, None]:
        code, items, half_grad = ctx.saved_tensors
        observed, pairs = ctx.observed, ctx.pairs
        twice = 2 * energy_grad.unsqueeze(1)  # [B, 1]
        code_grad = torch.addcmul(pairs.matmul(score_grad, items), half_grad, twice)
        weighted = code * twice
        items_grad = items @ (code.t() @ weighted)  # [N, d]
        items_grad.sub_(observed.t_matmul(None, weighted)).add_(pairs.t_matmul(score_grad, code))
        return code_grad, items_grad, None, None
