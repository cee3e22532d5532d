"""Matrix factorisation by alternating least squares: the implicit library behind our interface."""
from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn.models.base import InteractionModel
from tvdiff_pyg.typing import Scorer


class IALS(InteractionModel):
    r"""Scores :math:`P Q^T`, where the factors are fitted to all pairs, the observed ones with more confidence.

    .. math::
        \min_{P, Q} \sum_{u, i} (1 + \alpha R_{ui}) (R_{ui} - p_u q_i^T)^2 + \lambda (\|P\|_F^2 + \|Q\|_F^2)

    Users and items are solved for in turn, exactly, by Cholesky; a user or an item without interactions gets zeros.
    The library's own ``alpha`` is the confidence itself, :math:`1 + \alpha` here. It computes on the CPU, in float64
    where that is torch's default type, else in float32. Cost: per iteration :math:`4 d^2 nnz + (M + N) d^3 / 3` flops.

    Args:
        interactions: the training interactions.
        hidden_channels: d, at least 1.
        regularization: :math:`\lambda > 0`.
        alpha: :math:`\alpha \ge 0`.
        iterations: number of rounds over users and items, at least 1.
        seed: seed of the first factors, at least 0.

    Raises:
        ValueError: an argument out of its range.
        ImportError: by :meth:`scorer`, without implicit.

    Source: Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008.
    """

    def __init__(self, interactions: InteractionMatrix, hidden_channels: int = 64, regularization: float = 0.01,
                 alpha: float = 1.0, iterations: int = 15, seed: int = 0) -> None:
        super().__init__(interactions)
        for name, number, least in (('hidden_channels', hidden_channels, 1), ('iterations', iterations, 1),
                                    ('seed', seed, 0)):
            if number < least:
                raise ValueError(f"'{name}' must be at least {least}, got {number}")
        if not 0 < regularization < math.inf:
            raise ValueError(f"'regularization' must be a finite number > 0, got {regularization}")
        if not 0 <= alpha < math.inf:
            raise ValueError(f"'alpha' must be a finite number >= 0, got {alpha}")
        self.hidden_channels, self.regularization, self.alpha = hidden_channels, regularization, alpha
        self.iterations, self.seed = iterations, seed

    def scorer(self) -> Scorer:
        """Fit the factors and return the function from user indices ``[B]`` to scores ``[B, N]``."""
        try:
            from implicit.cpu.als import AlternatingLeastSquares
            from scipy.sparse import csr_matrix
            from threadpoolctl import threadpool_limits  # implicit needs it too
        except ImportError as error:
            raise ImportError(f'IALS needs implicit ({error}): pip install "tvdiff-pyg[baselines]"') from error
        dtype, observed = torch.get_default_dtype(), self.interactions
        computed = torch.float64 if dtype == torch.float64 else torch.float32
        first = torch.rand(self.num_items, self.hidden_channels, dtype=torch.float64,
                           generator=torch.Generator().manual_seed(self.seed))
        x = csr_matrix((np.ones(observed.num_interactions, np.float32), observed.col.cpu().numpy(),
                        observed.rowptr.cpu().numpy()), (self.num_users, self.num_items))
        with threadpool_limits(1, 'blas'):  # else its threads and those of BLAS stand in each other's way, it warns
            model = AlternatingLeastSquares(
                self.hidden_channels, self.regularization, 1 + self.alpha, iterations=self.iterations, use_cg=False)
            # Its own first factors are others in float32 than in float64; those of users count for nothing.
            model.item_factors = first.mul_(0.01).to(computed).numpy()
            model.user_factors = torch.zeros(self.num_users, self.hidden_channels, dtype=computed).numpy()
            model.fit(x, show_progress=False)
        p, q = (torch.from_numpy(factors).to(observed.col.device, dtype)
                for factors in (model.user_factors, model.item_factors))

        def score(users: Tensor) -> Tensor:
            return p[users] @ q.t()

        return score
