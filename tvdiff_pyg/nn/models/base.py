"""What all models have in common."""
from __future__ import annotations

from typing import Literal

import torch

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.typing import HistoryScorer, Scorer


class InteractionModel(torch.nn.Module):
    """Base: a model of the training interactions; with a ``scorer`` it is a :class:`~tvdiff_pyg.typing.Recommender`.

    Args:
        interactions: the training interactions.

    Attributes:
        pairwise: whether ``training_loss``, where there is one, takes batches of pairs instead of users.
        distribution: how scores become a distribution over the items: ``clip`` where they reconstruct a row of zeros
            and ones, ``softmax`` where they are logits (:func:`tvdiff_pyg.thermodynamics.thermodynamics`).
    """

    pairwise: bool = False
    distribution: Literal['clip', 'softmax'] = 'clip'

    def __init__(self, interactions: InteractionMatrix) -> None:
        super().__init__()
        self.interactions = interactions

    def scorer(self) -> Scorer:
        """Return the function from user indices ``[B]`` to scores ``[B, N]``."""
        score = self.history_scorer()
        return lambda users: score(self.interactions, users)

    def history_scorer(self) -> HistoryScorer:
        """Return the function that scores people by their items, whether they were trained on or not (fold-in).

        Raises:
            ValueError: the model has a vector for each user of its training, and nothing for others.
        """
        raise ValueError(f'{type(self).__name__} knows only the users that it was trained on: train it anew with '
                         f'these people, or take a model that scores items (tv-diff, diffrec, ease, gf-cf, item-knn)')

    @property
    def trains(self) -> bool:
        """Whether it learns by gradient steps on a ``training_loss``; otherwise ``scorer`` solves it in closed form."""
        return hasattr(self, 'training_loss')

    @property
    def num_users(self) -> int:
        """Number of users M."""
        return self.interactions.num_users

    @property
    def num_items(self) -> int:
        """Number of items N."""
        return self.interactions.num_items
