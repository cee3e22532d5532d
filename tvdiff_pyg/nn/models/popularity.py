"""Most popular items first: what every recommender has to beat."""
from __future__ import annotations

import torch
from torch import Tensor

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn.models.base import InteractionModel
from tvdiff_pyg.typing import HistoryScorer


class Popularity(InteractionModel):
    """Scores every item by its number of users, alike for everybody.

    Args:
        interactions: the training interactions.
    """

    def history_scorer(self) -> HistoryScorer:
        """Return the function that scores people by their items, which does not look at them."""
        popularity = self.interactions.item_degree.to(torch.get_default_dtype())

        def score(histories: InteractionMatrix, users: Tensor) -> Tensor:
            return popularity.repeat(users.numel(), 1)  # a copy: callers mask in place

        return score
