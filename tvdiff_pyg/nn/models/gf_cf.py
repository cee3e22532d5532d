"""GF-CF: a linear and an ideal low-pass graph filter in closed form."""
from __future__ import annotations

import math
from typing import Tuple

import torch
from torch import Tensor

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn.models.base import InteractionModel
from tvdiff_pyg.typing import HistoryScorer
from tvdiff_pyg.utils import csr_positions, csr_tensor

DENSE = 4096  # up to this many users or items, all eigenvectors are the fastest way to some of them
WIDTH = 16  # vectors of a Lanczos block: singular values that occur more often than that may be missed
RESIDUAL = 1e-6  # of a unit eigenvector, the largest eigenvalue being 1
NULL = 1e-12  # squared singular values below are rounding of 0; the largest is 1


class GFCF(InteractionModel):
    r"""Scores :math:`X (\tilde R^T \tilde R + \alpha\, D_I^{-1/2} V V^T D_I^{1/2})`.

    :math:`\tilde R = D_U^{-1/2} R D_I^{-1/2}`, zero degrees giving 0, and :math:`V` holds its right singular vectors to
    the ``rank`` largest singular values. Vectors to the singular value 0 are left out, so that a rank above that of
    the matrix has one answer. They are found in float64: on the dense Gram matrix of the smaller side where that is
    small, or where ``rank`` is more than half of it, else by block Lanczos from a fixed start. Cost: 2 B nnz +
    2 B N rank flops for B users; 2 N rank numbers, and to find them 10 rank min(M, N) or a few times that.

    Args:
        interactions: the training interactions.
        rank: number of singular vectors, at least 1.
        alpha: :math:`\alpha \ge 0`, the weight of the ideal low-pass filter; 0 leaves the linear filter alone.

    Raises:
        ValueError: ``rank`` is below 1, or ``alpha`` no number from 0 up.

    Source: Shen et al., "How Powerful is Graph Convolution for Recommendation?", arXiv 2108.07567.
    """

    def __init__(self, interactions: InteractionMatrix, rank: int = 256, alpha: float = 0.3) -> None:
        super().__init__(interactions)
        if rank < 1:
            raise ValueError(f"'rank' must be at least 1, got {rank}")
        if not 0 <= alpha < math.inf:
            raise ValueError(f"'alpha' must be a finite number >= 0, got {alpha}")
        self.rank, self.alpha = rank, alpha

    def history_scorer(self) -> HistoryScorer:
        """Solve the model and return the function that scores people by their items."""
        r_t, r = self._normalized()
        dtype = torch.get_default_dtype()
        low_pass = None
        if self.alpha > 0:
            v, degree = self._singular_vectors(r_t, r), self.interactions.item_degree.double().unsqueeze(1)
            left = (v * degree.rsqrt().masked_fill_(degree == 0, 0)).to(dtype)  # [N, rank]
            low_pass = left, (self.alpha * v * degree.sqrt()).t().to(dtype)
        r_t = r_t.to(dtype)
        rowptr, neighbor, value = r_t.crow_indices(), r_t.col_indices(), r_t.values()

        def score(histories: InteractionMatrix, users: Tensor) -> Tensor:
            row, item = histories.rows(users)
            entry, position = csr_positions(rowptr, item)
            h = value.new_zeros(self.num_users * users.numel())  # R~ X^T, from the few users who saw the same items
            h.index_add_(0, neighbor[position] * users.numel() + row[entry], value[position])
            out = (r_t @ h.view(self.num_users, users.numel())).t()  # [B, N]
            if low_pass is None:
                return out
            code = out.new_zeros(users.numel(), low_pass[0].size(1)).index_add_(0, row, low_pass[0][item])  # [B, rank]
            return out + code @ low_pass[1]

        return score

    def _normalized(self) -> Tuple[Tensor, Tensor]:
        r"""Return :math:`\tilde R^T` and :math:`\tilde R` in float64, as sparse CSR both."""
        x_t, (row, col) = self.interactions.adj_t(), self.interactions.edge_index
        by_user, by_item = self.interactions.user_degree, self.interactions.item_degree
        rowptr, user, item = x_t.crow_indices(), x_t.col_indices(), torch.arange(self.num_items, device=col.device)
        r_t = csr_tensor(rowptr, user, (by_item[item.repeat_interleave(by_item)] * by_user[user]).double().rsqrt(),
                         (self.num_items, self.num_users))
        r = csr_tensor(self.interactions.rowptr, col, (by_user[row] * by_item[col]).double().rsqrt(),
                       (self.num_users, self.num_items))
        return r_t, r

    def _singular_vectors(self, r_t: Tensor, r: Tensor) -> Tensor:
        """Return V, ``[N, rank]`` or narrower."""
        if self.num_items <= self.num_users:
            first, second = r_t, r
        else:
            first, second = r, r_t
        size = first.size(0)
        if size <= max(DENSE, 2 * self.rank):
            square, u = torch.linalg.eigh((first @ second).to_dense())
            square, u = square[-self.rank:], u[:, -self.rank:]
        else:
            square, u = self._lanczos(first, second)
        keep = square > NULL
        square, u = square[keep], u[:, keep]
        return u if self.num_items <= self.num_users else (second @ u) / square.sqrt()

    def _lanczos(self, first: Tensor, second: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the largest eigenvalues and their vectors of A = ``first @ second``, which is symmetric.

        Block Lanczos with full reorthogonalisation and no restart: the basis grows until every residual is small. A
        single vector (scipy's ARPACK) misses copies: it finds 5 of the 8 singular values 1 of LastFM's 8 components.
        """
        size, generator = first.size(0), torch.Generator().manual_seed(0)
        count, check = 0, min(5 * max(self.rank, WIDTH), size)
        basis = first.new_empty(check, size, layout=torch.strided)  # orthonormal rows Q, [m, size]
        products = torch.empty_like(basis)  # Q A
        block = basis[:0]
        while True:
            if block.numel() == 0:  # at the start, and where the basis is invariant
                block = torch.randn(min(WIDTH, size - count), size, dtype=first.dtype, generator=generator)
                block = self._orthonormal(block.to(first.device), basis[:count])
            block = block[:check - count]
            product = (first @ (second @ block.t().contiguous())).t()
            basis[count:count + len(block)], products[count:count + len(block)] = block, product
            count += len(block)
            if count == check:
                square, rotation = torch.linalg.eigh(basis @ products.t())
                square, rotation = square[-self.rank:], rotation[:, -self.rank:]
                u = basis.t() @ rotation
                residual = products.t() @ rotation - u * square
                if count == size or bool(residual.norm(dim=0).max() < RESIDUAL):
                    return square, u
                check = min(check + max(self.rank, WIDTH), size)
                more = basis.new_empty(check - count, size)
                basis, products = torch.cat([basis, more]), torch.cat([products, more])
            block = self._orthonormal(product, basis[:count])

    @staticmethod
    def _orthonormal(block: Tensor, basis: Tensor) -> Tensor:
        """Return orthonormal rows for what ``block`` has outside the span of ``basis``; none where it has nothing."""
        for _ in range(2):  # once leaves rounding errors of the size of what is taken away
            block = block - (block @ basis.t()) @ basis
        q, r = torch.linalg.qr(block.t())
        if bool(r.diagonal().abs().min() < NULL):
            return basis[:0]
        block = q.t()
        return torch.linalg.qr((block - (block @ basis.t()) @ basis).t()).Q.t()
