"""Negatives in proportion to a power of their popularity."""
from __future__ import annotations

import math
from typing import Optional

import torch
from torch import Tensor

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.sampling.base import NegativeSampler, draw_unobserved
from tvdiff_pyg.typing import Pairs, ScoreItems


class PopularitySampler(NegativeSampler):
    r"""Unobserved items with weight :math:`\max(\deg(j), 1)^\alpha` (SPEC 5's second control).

    Args:
        exponent: :math:`\alpha`, a finite number; 0.75 is word2vec's choice.
    """

    def __init__(self, exponent: float = 0.75) -> None:
        super().__init__()
        if not math.isfinite(exponent):
            raise ValueError(f"'exponent' must be finite, got {exponent}")
        self.exponent = exponent

    def forward(
        self,
        interactions: InteractionMatrix,
        users: Tensor,
        num_negatives: Tensor,
        scores: Optional[ScoreItems] = None,
        t: Optional[Tensor] = None,
        num_steps: int = 1,
        generator: Optional[torch.Generator] = None,
    ) -> Pairs:
        log_weight = self.exponent * interactions.item_degree.clamp(min=1).double().log()
        weight = (log_weight - log_weight.max()).exp()  # of the largest weight, so that no exponent overflows ...
        weight = weight.clamp_(min=torch.finfo(weight.dtype).tiny)  # ... or makes an unobserved item impossible
        return draw_unobserved(interactions, users, num_negatives, weight, generator)

    def extra_repr(self) -> str:
        return f'exponent={self.exponent}'
