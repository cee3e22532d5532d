"""Most popular items first: what every recommender has to beat."""
from __future__ import annotations

import torch
from torch import Tensor

from tvdiff_pyg.nn.models.base import InteractionModel
from tvdiff_pyg.typing import Scorer


class Popularity(InteractionModel):
    """Scores every item by its number of users, alike for everybody.

    Args:
        interactions: the training interactions.
    """

    def scorer(self) -> Scorer:
        """Return the function from user indices ``[B]`` to scores ``[B, N]``."""
        popularity = self.interactions.item_degree.to(torch.get_default_dtype())

        def score(users: Tensor) -> Tensor:
            return popularity.repeat(users.numel(), 1)  # a copy: callers mask in place

        return score
