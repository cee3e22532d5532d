"""Exact top-k lists in blocks."""
from __future__ import annotations

from typing import Iterator, List, NamedTuple, Sequence, Tuple

import torch
from torch import Tensor

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.typing import Recommender, Scorer

BLOCK_SIZE = 128


class TopK(NamedTuple):
    """Ranked lists.

    Attributes:
        items: item indices ``[B, k]``, best first.
        scores: their scores ``[B, k]``; ``-inf`` marks places that no unseen item was left for.
    """

    items: Tensor
    scores: Tensor


def check_k(k: int, num_items: int) -> None:
    """Raise ``ValueError`` unless a list of ``k`` of ``num_items`` items makes sense."""
    if not 1 <= k <= num_items:
        raise ValueError(f"'k' must lie in 1..{num_items}, the number of items; got {k}")


def user_blocks(users: Tensor) -> Iterator[Tuple[Tensor, int]]:
    """Cut users into blocks of one fixed size, the last padded by repeating its first user.

    A matrix product rounds differently for another shape, so scores are only ever computed in this one shape:
    then a user's list does not depend on who else was asked for (SPEC 12).

    Yields:
        A block ``[BLOCK_SIZE]`` and how many of its users count.
    """
    for block in users.split(BLOCK_SIZE) if users.numel() else ():
        padding = block[:1].expand(BLOCK_SIZE - block.numel())
        yield torch.cat([block, padding]), block.numel()


@torch.no_grad()
def top_k(scorer: Scorer, users: Tensor, k: int, seen: Sequence[InteractionMatrix] = ()) -> TopK:
    """Rank the items that a block of users has not seen.

    Args:
        scorer: a model's scoring function.
        users: user indices ``[B]``; any number, scored in fixed blocks. One block of scores, ``BLOCK_SIZE`` x N, is
            in memory at a time.
        k: length of the lists, 1..N.
        seen: interactions to mask.

    Raises:
        ValueError: ``k`` out of range, or a score that is NaN.
    """
    items: List[Tensor] = []
    values: List[Tensor] = []
    for block, count in user_blocks(users):
        scores = scorer(block)[:count]
        check_k(k, scores.size(1))
        if bool(scores.isnan().any()):
            raise ValueError('the model gives NaN scores: its weights are broken, train it anew')
        scores = scores.clone()
        for interactions in seen:
            scores[interactions.rows(block[:count])] = -torch.inf
        best = scores.topk(k, dim=1)
        items.append(best.indices)
        values.append(best.values)
    if not items:
        return TopK(users.new_empty(0, k), torch.empty(0, k))
    return TopK(torch.cat(items), torch.cat(values))


def recommend(model: Recommender, users: Tensor, k: int, seen: Sequence[InteractionMatrix] = ()) -> TopK:
    """Return the ``k`` best unseen items of each user; see :func:`top_k`.

    Args:
        model: any model that can score.
        users: user indices ``[B]`` in 0..M-1.
        k: length of the lists, 1..N.
        seen: interactions to mask.

    Raises:
        ValueError: ``k`` or a user index out of range, or NaN scores.
    """
    check_k(k, model.num_items)
    if users.numel() and not 0 <= int(users.min()) <= int(users.max()) < model.num_users:
        raise ValueError(f"'users' must lie in 0..{model.num_users - 1}, got {int(users.min())}..{int(users.max())}")
    return top_k(model.scorer(), users, k, seen)
