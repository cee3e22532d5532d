"""Most popular items first: what every recommender has to beat."""
from __future__ import annotations

import torch
from torch import Tensor

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.typing import Scorer


class Popularity(torch.nn.Module):
    """Scores every item by its number of users, alike for everybody.

    Args:
        interactions: the training interactions.
    """

    def __init__(self, interactions: InteractionMatrix) -> None:
        super().__init__()
        self.interactions = interactions

    @property
    def num_users(self) -> int:
        """Number of users."""
        return self.interactions.num_users

    @property
    def num_items(self) -> int:
        """Number of items."""
        return self.interactions.num_items

    def scorer(self) -> Scorer:
        """Return the function from user indices ``[B]`` to scores ``[B, N]``."""
        popularity = self.interactions.item_degree.to(torch.get_default_dtype())

        def score(users: Tensor) -> Tensor:
            return popularity.repeat(users.numel(), 1)  # a copy: callers mask in place

        return score
