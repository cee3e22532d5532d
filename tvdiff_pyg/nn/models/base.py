"""What all models have in common."""
from __future__ import annotations

import torch

from tvdiff_pyg.interaction_matrix import InteractionMatrix


class InteractionModel(torch.nn.Module):
    """Base: a model of the training interactions; with a ``scorer`` it is a :class:`~tvdiff_pyg.typing.Recommender`.

    Args:
        interactions: the training interactions.
    """

    def __init__(self, interactions: InteractionMatrix) -> None:
        super().__init__()
        self.interactions = interactions

    @property
    def num_users(self) -> int:
        """Number of users M."""
        return self.interactions.num_users

    @property
    def num_items(self) -> int:
        """Number of items N."""
        return self.interactions.num_items
