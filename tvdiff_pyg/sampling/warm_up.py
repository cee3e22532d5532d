"""Easy negatives first, hard ones later."""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.sampling.base import NegativeSampler
from tvdiff_pyg.sampling.uniform import UniformSampler
from tvdiff_pyg.typing import Pairs, ScoreItems


class WarmUpSampler(NegativeSampler):
    """Another sampler, after some epochs of uniform negatives: scores mean little while weights are fresh.

    Whoever trains tells it the epoch (:meth:`set_epoch`); until then it is epoch 0.

    Args:
        sampler: what draws from epoch ``epochs`` on.
        epochs: number of epochs of uniform negatives, >= 0.

    Raises:
        ValueError: ``epochs`` < 0.
    """

    def __init__(self, sampler: NegativeSampler, epochs: int) -> None:
        super().__init__()
        if epochs < 0:
            raise ValueError(f"'epochs' must be at least 0, got {epochs}")
        self.sampler, self.epochs, self.epoch = sampler, epochs, 0
        self.uniform = UniformSampler()

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

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
        sampler = self.uniform if self.epoch < self.epochs else self.sampler
        return sampler(interactions, users, num_negatives, scores, t, num_steps, generator)
