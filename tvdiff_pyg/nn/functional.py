"""Products with sparse operands, and the free energy's parts, without an array over users and items (SPEC 7).

Every function has its gradient written by hand, because autograd's own would gather ``nnz x d`` rows; so
:mod:`torch.func` does not go through them. Under autocast they compute in float32. All sparse work goes through two
primitives: :func:`torch.nn.functional.embedding_bag`, which sums weighted rows of a table without storing them, and
:func:`torch.sparse.sampled_addmm`, which computes single entries of a dense product.
"""
from __future__ import annotations

from functools import wraps
from typing import Any, Callable, NamedTuple, Optional, Tuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import cumsum

from tvdiff_pyg.utils import csr_tensor

Function = TypeVar('Function', bound=Callable[..., Any])
_HALF = (torch.float16, torch.bfloat16)


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

    def among(self, columns: Tensor) -> Entries:
        """Return the same entries in a matrix of these columns alone, ``[n]``, sorted, which hold all of them."""
        return Entries.of(self.row, torch.searchsorted(columns, self.col), self.rowptr.numel() - 1, columns.numel())

    def matmul(self, value: Optional[Tensor], table: Tensor) -> Tensor:
        """Return the sparse matrix of ``value`` times ``table``, ``[num_rows, d]``: 2 nnz d flops."""
        return _bag(self.col, self.rowptr, value, table)

    def t_matmul(self, value: Optional[Tensor], table: Tensor) -> Tensor:
        """Return its transpose times ``table``, ``[num_cols, d]``."""
        return _bag(self.row[self.perm], self.colptr, None if value is None else value[self.perm], table)

    def t_matmul_rows(self, value: Tensor, table: Tensor) -> Tensor:
        """Return the same as a sparse tensor that holds the rows of the columns that occur, and no others."""
        occurs = self.colptr.diff().nonzero().view(-1)
        pointer = torch.cat([self.colptr[occurs], self.colptr[-1:]])
        rows = _bag(self.row[self.perm], pointer, value[self.perm], table)
        return _row_sparse(occurs, rows, self.colptr.numel() - 1)

    def sampled_dot(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the inner products ``<left[row], right[col]>``, ``[nnz]``: 2 nnz d flops."""
        if left.dtype in _HALF:  # torch has no kernel for it
            return self.sampled_dot(left.float(), right.float()).to(left.dtype)
        pattern = csr_tensor(self.rowptr, self.col, left.new_zeros(self.col.numel()), (left.size(0), right.size(0)))
        return torch.sparse.sampled_addmm(pattern, left, right.t(), beta=0.0).values()


class EnergySample(NamedTuple):
    r"""The items that a stochastic energy looks at (SPEC 7d), and what it takes exactly.

    Attributes:
        item: items drawn with replacement ``[Q]``.
        weight: :math:`1 / (Q p_j)` of each, with :math:`p_j` the probability that a draw gives it ``[Q]``.
        sketch: random start ``[d, r]`` of the subspace iteration; ``None`` for no exact part.
    """

    item: Tensor
    weight: Tensor
    sketch: Optional[Tensor] = None


def _without_autocast(function: Function) -> Function:
    """Switch autocast off in a function and give it float32 for half precision: torch's sparse kernels are not cast."""
    @wraps(function)
    def switched(*arguments: Any, **options: Any) -> Any:
        device = next(value.device.type for value in (*arguments, *options.values()) if isinstance(value, Tensor))
        if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
            return function(*arguments, **options)
        with torch.autocast(device, enabled=False):
            return function(*map(_single, arguments), **{name: _single(value) for name, value in options.items()})

    return switched  # type: ignore[return-value]


def _single(value: Any) -> Any:
    if isinstance(value, EnergySample):
        return EnergySample(*map(_single, value))
    return value.float() if isinstance(value, Tensor) and value.dtype in _HALF else value


@_without_autocast
def sparse_matmul(entries: Entries, value: Tensor, table: Tensor, sparse_grad: bool = False) -> Tensor:
    """Return a sparse matrix times ``table``, differentiable in the table.

    Args:
        entries: its positions.
        value: its values ``[nnz]``, constants.
        table: ``[num_cols, d]``.
        sparse_grad: whether the gradient is a sparse tensor of the rows that took part.
    """
    return _SparseMatmul.apply(entries, value, table, sparse_grad)


@_without_autocast
def sampled_dot(pairs: Entries, left: Tensor, right: Tensor) -> Tensor:
    """Return ``<left[row], right[col]>`` of every pair, ``[nnz]``, differentiable in both tables."""
    return _SampledDot.apply(pairs, left, right)


@_without_autocast
def noisy_matmul(entries: Entries, value: Tensor, mixing: Tensor, probes: Tensor, table: Tensor,
                 index: Optional[Tensor] = None) -> Tensor:
    """Return ``(S + mixing @ probes) @ table``, with sparse ``S``, differentiable in the table.

    Args:
        entries: positions of S.
        value: values of S ``[nnz]``, constants.
        mixing: ``[num_rows, P]``.
        probes: ``[P, num_cols]``, or ``[P, n]`` where there is an ``index``.
        table: ``[num_cols, d]``.
        index: the columns ``[n]``, none twice, that the probes are for, the others being zero. The gradient is then
            a sparse tensor of the rows that took part.

    Cost: 2 (nnz + P num_cols + P num_rows) d flops; backward as much again.
    """
    return _NoisyMatmul.apply(entries, value, mixing, probes, table, index)


@_without_autocast
def energy_and_scores(code: Tensor, items: Tensor, observed: Entries, pairs: Entries,
                      sample: Optional[EnergySample] = None) -> Tuple[Tensor, Tensor]:
    r"""Return squared errors over all items and the scores of a few pairs (SPEC 7c, 7d).

    .. math::
        \sum_j (x_{0j} - u H_j^T)^2 = n_u - 2 u \sum_{j \in R_u} H_j + u (H^T H) u^T

    With a ``sample``, the last term is estimated, and so are its gradients, both without bias: the Gram matrix
    :math:`H^T H` becomes :math:`\sum_{j \in Q} w_j H_j^T H_j`. The variance of that is mostly that of the few
    directions in which user codes are large; with a ``sketch`` these, an orthonormal basis V of r directions found by
    subspace iteration on :math:`A = \sum_u u^T u`, are taken exactly: :math:`H^T (H V)` in the forward pass,
    :math:`(H V) (V^T A V) V^T` in the backward pass, and the sample serves for what is left.

    Args:
        code: user codes u, ``[B, d]``.
        items: item codes H, ``[N, d]``.
        observed: the observed items of the batch rows, the ones of :math:`x_0`.
        pairs: the pairs whose scores are wanted.
        sample: items to estimate the energy from; ``None`` for the exact energy. Its items and the columns of
            ``observed`` and ``pairs`` are rows of ``items``, which need not hold any others.

    Returns:
        The sums ``[B]``, not divided by N, and the scores ``[Q]`` in the order of ``pairs``.

    Raises:
        ValueError: a second derivative (``create_graph``) with a ``sample``.

    Cost, forward and backward together: 4 N d^2 for the Gram matrix and its gradient, 4 B d^2, and 2 d flops for each
    entry and pass. Where B < 2 d / 3, the batch's scores of all items are cheaper, 6 B N d, as on the dense path; they
    are then fewer than the entries of H. With a sample, 4 Q d^2 instead of 4 N d^2, and with a
    sketch 6 N d r more and some multiples of (B + d) d r.
    """
    return _EnergyAndScores.apply(code, items, observed, pairs, sample)


def _pointer(index: Tensor, size: int) -> Tensor:
    return cumsum(torch.bincount(index, minlength=size))


def _bag(index: Tensor, pointer: Tensor, value: Optional[Tensor], table: Tensor) -> Tensor:
    return F.embedding_bag(index, table, pointer, mode='sum', per_sample_weights=value, include_last_offset=True)


def _row_sparse(index: Tensor, rows: Tensor, num_rows: int) -> Tensor:
    """Return rows ``[n, d]`` at ascending indices ``[n]`` as a sparse tensor."""
    return torch.sparse_coo_tensor(index.unsqueeze(0), rows, (num_rows, rows.size(1)), check_invariants=False,
                                   is_coalesced=True)


class _SparseMatmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, entries: Entries, value: Tensor, table: Tensor, sparse_grad: bool) -> Tensor:
        ctx.entries, ctx.sparse_grad = entries, sparse_grad
        ctx.save_for_backward(value)
        return entries.matmul(value, table)

    @staticmethod
    @_without_autocast
    def backward(ctx: Any, grad: Tensor) -> Tuple[None, None, Tensor, None]:
        value, = ctx.saved_tensors
        product = ctx.entries.t_matmul_rows if ctx.sparse_grad else ctx.entries.t_matmul
        return None, None, product(value, grad.contiguous()), None


class _SampledDot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pairs: Entries, left: Tensor, right: Tensor) -> Tensor:
        ctx.pairs = pairs
        ctx.save_for_backward(left, right)
        return pairs.sampled_dot(left, right)

    @staticmethod
    @_without_autocast
    def backward(ctx: Any, grad: Tensor) -> Tuple[None, Tensor, Tensor]:
        left, right = ctx.saved_tensors
        grad = grad.contiguous()
        return None, ctx.pairs.matmul(grad, right), ctx.pairs.t_matmul(grad, left)


class _NoisyMatmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, entries: Entries, value: Tensor, mixing: Tensor, probes: Tensor, table: Tensor,
                index: Optional[Tensor]) -> Tensor:
        ctx.entries = entries
        ctx.save_for_backward(value, mixing, probes, index)
        noise = probes @ (table if index is None else table[index])
        return entries.matmul(value, table).addmm_(mixing, noise)

    @staticmethod
    @_without_autocast
    def backward(ctx: Any, grad: Tensor) -> Tuple[None, None, None, None, Tensor, None]:
        value, mixing, probes, index = ctx.saved_tensors
        grad, noise_grad = grad.contiguous(), mixing.t() @ grad
        if index is None:
            return None, None, None, None, ctx.entries.t_matmul(value, grad).addmm_(probes.t(), noise_grad), None
        grad_table = ctx.entries.t_matmul_rows(value, grad)
        order = index.argsort()
        noise_table = _row_sparse(index[order], probes[:, order].t() @ noise_grad, grad_table.size(0))
        return None, None, None, None, grad_table + noise_table, None


class _EnergyAndScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, code: Tensor, items: Tensor, observed: Entries, pairs: Entries,
                sample: Optional[EnergySample]) -> Tuple[Tensor, Tensor]:
        scores = basis = item_part = drawn = None
        if sample is None and 3 * code.size(0) < 2 * code.size(1):
            scores = code @ items.t()  # [B, N]
            code_gram = scores @ items  # u G, [B, d]
        elif sample is None:
            code_gram = code @ (items.t() @ items)
        else:
            drawn = items[sample.item]  # [Q, d]
            gram = (drawn * sample.weight.unsqueeze(1)).t() @ drawn
            if sample.sketch is None:
                code_gram = code @ gram
            else:
                basis = _dominant_subspace(code, sample.sketch)  # V, [d, r]
                code_part, item_part = code @ basis, items @ basis  # [B, r], [N, r]
                code_gram = code_part @ (items.t() @ item_part).t()
                code_gram += torch.addmm(code, code_part, basis.t(), alpha=-1) @ gram
        observed_sum = observed.matmul(None, items)  # sum of H_j over R_u, [B, d]
        energy = observed.rowptr.diff().to(code.dtype) + (code * (code_gram - 2 * observed_sum)).sum(1)
        ctx.observed, ctx.pairs, ctx.sample = observed, pairs, sample
        ctx.save_for_backward(code, items, code_gram - observed_sum, scores, basis, item_part, drawn)
        return energy, pairs.sampled_dot(code, items)

    @staticmethod
    @_without_autocast
    def backward(ctx: Any, energy_grad: Tensor,
                 score_grad: Tensor) -> Tuple[Tensor, Tensor, None, None, None]:
        code, items, half_grad, scores, basis, item_part, drawn = ctx.saved_tensors
        observed, pairs, sample = ctx.observed, ctx.pairs, ctx.sample
        if torch.is_grad_enabled():  # for a second derivative, where what the forward pass saved would be constants
            if sample is not None:
                raise ValueError("'sample' must be None for a second derivative")
            half_grad, scores = code @ (items.t() @ items) - observed.matmul(None, items), None
        twice = 2 * energy_grad.unsqueeze(1)  # [B, 1]
        code_grad = torch.addcmul(pairs.matmul(score_grad, items), half_grad, twice)
        weighted = code * twice
        if scores is not None:
            items_grad = scores.t() @ weighted  # [N, d]
        elif sample is None:
            items_grad = items @ (code.t() @ weighted)
        else:
            moment = code.t() @ weighted  # A, [d, d]
            if basis is None:
                items_grad = torch.zeros_like(items)
            else:
                exact = (basis.t() @ moment @ basis) @ basis.t()  # [r, d]
                items_grad = item_part @ exact
                moment = moment - basis @ exact
            items_grad.index_add_(0, sample.item, (drawn * sample.weight.unsqueeze(1)) @ moment)
        items_grad.sub_(observed.t_matmul(None, weighted)).add_(pairs.t_matmul(score_grad, code))
        return code_grad, items_grad, None, None, None


def _dominant_subspace(code: Tensor, sketch: Tensor) -> Tensor:
    """Return an orthonormal basis ``[d, r]`` of about the r directions in which the rows of ``code`` are largest."""
    if code.dtype in _HALF:
        return _dominant_subspace(code.float(), sketch.float()).to(code.dtype)
    moment = code.t() @ code
    return torch.linalg.qr(moment @ torch.linalg.qr(moment @ sketch).Q).Q
