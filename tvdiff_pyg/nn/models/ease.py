"""EASE: the linear item-item model in closed form."""
from __future__ import annotations

import math
from typing import Tuple

import torch
from torch import Tensor

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn.models.base import InteractionModel
from tvdiff_pyg.typing import HistoryScorer, Scorer
from tvdiff_pyg.utils import csr_tensor

BLOCK = 256  # users at a time, B x N


class EASE(InteractionModel):
    r"""Scores :math:`X B`, where :math:`B` minimises :math:`\|X - X B\|_F^2 + \lambda \|B\|_F^2` with a zero diagonal.

    With :math:`P = (X^T X + \lambda I)^{-1}` the minimiser is :math:`B = I - P\, \mathrm{diag}(P)^{-1}`. The inverse is
    taken on the smaller side: where M < N, :math:`P = (I - X^T K X) / \lambda` with :math:`K = (X X^T + \lambda
    I)^{-1}`, so :math:`X P = K X` and no N x N array is made. Cost: one inverse of order n = min(M, N) in float64, n^3
    flops and 8 n^2 bytes, as it is taken in place; 2 B nnz (or 2 B N^2) flops for B users.

    Args:
        interactions: the training interactions.
        regularization: :math:`\lambda > 0`.

    Raises:
        ValueError: ``regularization`` is not a positive number, or, when solving, too small for float64.

    Source: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", arXiv 1905.03375.
    """

    def __init__(self, interactions: InteractionMatrix, regularization: float = 500.0) -> None:
        super().__init__(interactions)
        if not 0 < regularization < math.inf:
            raise ValueError(f"'regularization' must be a finite number > 0, got {regularization}")
        self.regularization = regularization

    def scorer(self) -> Scorer:
        """Solve the model and return the function from user indices ``[B]`` to scores ``[B, N]``."""
        return self._dual_scorer()[0] if self.num_users < self.num_items else super().scorer()

    def history_scorer(self) -> HistoryScorer:
        """Solve the model and return the function that scores people by their items."""
        return self._dual_scorer()[1] if self.num_users < self.num_items else self._primal_scorer()

    def _primal_scorer(self) -> HistoryScorer:
        x_t = self._x_t()  # [N, M]
        p = self._inverse((x_t @ x_t.t().to_sparse_csr()).to_dense())  # [N, N]
        b = p.div_(-p.diagonal().clone())  # -P_ij / P_jj
        b.fill_diagonal_(0)
        b = b.to(torch.get_default_dtype())
        return lambda histories, users: histories.dense(users, b.dtype) @ b

    def _dual_scorer(self) -> Tuple[Scorer, HistoryScorer]:
        x_t = self._x_t()  # [N, M]
        k = self._inverse((x_t.t().to_sparse_csr() @ x_t).to_dense())  # [M, M], symmetric
        diagonal = torch.ones(self.num_items, dtype=k.dtype, device=k.device)  # lambda * diag(P)
        for users in torch.arange(self.num_users, device=k.device).split(BLOCK):
            row, item = self.interactions.rows(users)
            kx = x_t @ k[:, users]  # (K X)^T of the block, [N, B]
            diagonal.index_add_(0, item, -kx[item, row])
        scale = self.regularization / diagonal

        def score(users: Tensor) -> Tensor:
            kx = (x_t @ k[:, users]).t()  # x P = K X of a training user, [B, N]
            return (self.interactions.dense(users, kx.dtype) - kx * scale).to(torch.get_default_dtype())

        def score_histories(histories: InteractionMatrix, users: Tensor) -> Tensor:
            x = histories.dense(users, k.dtype)  # [B, N]
            overlap = x_t.t() @ x.t()  # with every training user, [M, B]
            xp = (x - (x_t @ (k @ overlap)).t()) / self.regularization  # x P of anybody: B M^2 flops more
            return (x - xp * scale).to(torch.get_default_dtype())

        return score, score_histories

    def _x_t(self) -> Tensor:
        x_t = self.interactions.adj_t()
        return csr_tensor(x_t.crow_indices(), x_t.col_indices(), x_t.values().double(),
                          (self.num_items, self.num_users))

    def _inverse(self, gram: Tensor) -> Tensor:
        gram.diagonal().add_(self.regularization)
        lapack = gram.t()  # symmetric, so the same matrix, in LAPACK's column order: then both steps work in place
        try:
            torch.linalg.cholesky(lapack, out=lapack)
        except torch.linalg.LinAlgError as error:
            raise ValueError(f"'regularization' must be larger for these interactions: at {self.regularization} the "
                             f'system cannot be solved ({error})') from error
        return torch.cholesky_inverse(lapack, out=lapack)
