"""The types that the parts of the package hand to each other."""
from __future__ import annotations

from typing import TYPE_CHECKING, Callable, NamedTuple, Optional, Protocol, Tuple

from torch import Tensor

if TYPE_CHECKING:
    from tvdiff_pyg.interaction_matrix import InteractionMatrix

Denoise = Callable[[Tensor, Tensor], Tensor]
"""``denoise(x_t, t)``: noisy rows ``[B, N]`` and steps ``[B]`` to the network's output ``[B, N]``."""

Scorer = Callable[[Tensor], Tensor]
"""``scorer(users)``: user indices ``[B]`` to scores over all items ``[B, N]``; higher is better."""

HistoryScorer = Callable[['InteractionMatrix', Tensor], Tensor]
"""``score(histories, rows)``: the items of some people, and which of them ``[B]``, to scores over all items ``[B, N]``.
The people need not have been there when the model was trained."""

ScoreItems = Callable[[Tensor, Optional[Tensor]], Tensor]
"""``score_items(rows, items)``: scores of some batch rows ``[b]`` over some items ``[C]``, or over all items where that
is ``None``: ``[b, C]``. Whoever ranks asks for what is needed, and no more is computed."""

Pairs = Tuple[Tensor, Tensor]
"""``(row, item)``: two index vectors of one length; ``row`` counts positions in a batch, not users."""


class Batch(NamedTuple):
    """One batch of training examples.

    Attributes:
        users: user indices ``[B]``; a user may occur more than once.
        items: one observed item a row, ``[B]``, for pairwise losses; otherwise ``None``.
    """

    users: Tensor
    items: Optional[Tensor] = None


class LossTerms(NamedTuple):
    """A loss and what it is made of, all of them scalars.

    Attributes:
        loss: what is minimised.
        energy: the reconstruction term, before weighting.
        entropy: the entropy term, before weighting (0 where it is not used).
    """

    loss: Tensor
    energy: Tensor
    entropy: Tensor


class Recommender(Protocol):
    """What evaluation, retrieval and the thermodynamic view ask of a model.

    ``scorer()`` computes what all users share (an item table, say) once and returns the function that
    scores blocks of users with it, so that nobody has to decide when a cache goes stale.
    """

    @property
    def num_users(self) -> int:
        """Number of users ``M``."""

    @property
    def num_items(self) -> int:
        """Number of items ``N``."""

    def scorer(self) -> Scorer:
        """Return a function from user indices ``[B]`` to scores ``[B, N]`` under the present weights."""
