"""Uniform negatives."""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.sampling.base import NegativeSampler, draw_unobserved
from tvdiff_pyg.typing import Pairs, ScoreItems


class UniformSampler(NegativeSampler):
    """Every unobserved item alike; the control for :class:`ARGumbelSampler` (SPEC 5)."""

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
        return draw_unobserved(interactions, users, num_negatives, generator=generator)
