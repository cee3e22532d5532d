"""Exact top-k lists in blocks."""
from __future__ import annotations

from typing import TYPE_CHECKING, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.typing import HistoryScorer, Recommender, Scorer
from tvdiff_pyg.utils import largest_mask

if TYPE_CHECKING:
    from tvdiff_pyg.nn.models.base import InteractionModel

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


def id_list(argument: str, names: Iterable[str]) -> List[str]:
    """Return original ids as a list; raise ``ValueError`` for one text, of which each letter would be an id."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise ValueError(f"'{argument}' must be a list of ids, got {names!r}: write ['{names}']")
    names = list(names)
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"'{argument}' holds {name!r}, but ids are text: write '{name}'")
    return names


def user_blocks(users: Tensor, block_size: int = BLOCK_SIZE) -> Iterator[Tuple[Tensor, int]]:
    """Cut users into blocks of one fixed size, the last padded by repeating its first user.

    A matrix product rounds differently for another shape, so scores are only ever computed in this one shape:
    then a user's list does not depend on who else was asked for (SPEC 12).

    Yields:
        A block ``[block_size]`` and how many of its users count.
    """
    for block in users.split(block_size) if users.numel() else ():
        padding = block[:1].expand(block_size - block.numel())
        yield torch.cat([block, padding]), block.numel()


@torch.no_grad()
def top_k(scorer: Scorer, users: Tensor, k: int, seen: Sequence[InteractionMatrix] = (),
          allowed: Optional[Tensor] = None, block_size: int = BLOCK_SIZE) -> TopK:
    """Rank the items that a block of users has not seen; of equal scores the lower index comes first.

    Args:
        scorer: a model's scoring function.
        users: user indices ``[B]``; any number, scored in fixed blocks. One block of scores, ``block_size`` x N, is
            in memory at a time.
        k: length of the lists, 1..N.
        seen: interactions to mask.
        allowed: which items may be listed, boolean ``[N]``; all by default.
        block_size: users to score at a time. A smaller block answers a single user sooner, with scores that differ by
            rounding.

    Raises:
        ValueError: ``k`` out of range, ``seen`` of another catalogue than the scores, ``allowed`` that is no boolean
            ``[N]``, or a score that is NaN.
    """
    items: List[Tensor] = []
    values: List[Tensor] = []
    for block, count in user_blocks(users, block_size):
        scores = scorer(block)[:count]
        num_items = scores.size(1)
        check_k(k, num_items)
        for number, interactions in enumerate(seen):
            if interactions.num_items != num_items:
                raise ValueError(f"'seen[{number}]' is of {interactions.num_items} items, the scores are of "
                                 f"{num_items}: take both from one data set")
        if allowed is not None and (allowed.dtype != torch.bool or allowed.shape != (num_items,)):
            raise ValueError(f"'allowed' must be boolean, of shape [{num_items}], got {allowed.dtype} of shape "
                             f"{list(allowed.shape)}: of item indices, take torch.isin(torch.arange({num_items}), "
                             f"indices)")
        if bool(scores.isnan().any()):
            raise ValueError('the model gives NaN scores: its weights are broken, train it anew')
        scores = scores.clone()
        for interactions in seen:
            scores[interactions.rows(block[:count])] = -torch.inf
        if allowed is not None:
            scores[:, ~allowed] = -torch.inf
        best = largest(scores, k)
        items.append(best.items)
        values.append(best.scores)
    if not items:
        check_k(k, max(k, 1))
        return TopK(users.new_empty(0, k), torch.empty(0, k, device=users.device))
    return TopK(torch.cat(items), torch.cat(values))


def largest(scores: Tensor, k: int) -> TopK:
    """Return the ``k`` largest scores of each row, descending, of equal ones the lower index first.

    ``topk`` leaves open which of equal scores it takes, and in which order.

    Args:
        scores: ``[B, N]``, without NaN.
        k: 1..N.
    """
    values, items = scores.topk(k, dim=1)
    items, order = items.sort(dim=1)
    values = values.gather(1, order)
    least = values.amin(1, keepdim=True)
    tied = ((scores >= least).sum(1) > k).nonzero().view(-1)  # equal ones were left out
    if tied.numel():
        items[tied] = largest_mask(scores[tied], k).nonzero()[:, 1].view(-1, k)
        values[tied] = scores[tied].gather(1, items[tied])
    values, order = values.sort(dim=1, descending=True, stable=True)
    return TopK(items.gather(1, order), values)


def fold_in(model: InteractionModel, histories: InteractionMatrix, k: int, allowed: Optional[Tensor] = None,
            scorer: Optional[HistoryScorer] = None, block_size: int = BLOCK_SIZE) -> TopK:
    """Return the ``k`` best items of people who need not have been trained on, from the items that they have seen.

    Nothing is trained. The items of a user of the training part get that user's scores (SPEC 7b), to the bit where the
    model scores all rows alike (TV-Diff, DiffRec, GF-CF, ItemKNN, popularity), and within rounding with EASE.

    Args:
        model: a model with a ``history_scorer``.
        histories: what each person has seen; these items are masked.
        k: length of the lists, 1..N.
        allowed: which items may be listed, boolean ``[N]``; all by default.
        scorer: the model's ``history_scorer()``, where many calls share one.
        block_size: as in :func:`top_k`.

    Raises:
        ValueError: items of another catalogue, a model that knows only its own users, or as :func:`top_k`.
    """
    check_k(k, model.num_items)
    if histories.num_items != model.num_items:
        raise ValueError(f"'histories' are of {histories.num_items} items, the model has {model.num_items}")
    score = model.history_scorer() if scorer is None else scorer
    people = torch.arange(histories.num_users, device=histories.col.device)
    return top_k(lambda rows: score(histories, rows), people, k, [histories], allowed,
                 block_size)


def recommend(model: Recommender, users: Tensor, k: int, seen: Sequence[InteractionMatrix] = (),
              allowed: Optional[Tensor] = None, scorer: Optional[Scorer] = None, block_size: int = BLOCK_SIZE) -> TopK:
    """Return the ``k`` best unseen items of each user; see :func:`top_k`.

    Args:
        model: any model that can score.
        users: user indices ``[B]`` in 0..M-1.
        k: length of the lists, 1..N.
        seen: interactions to mask.
        allowed: which items may be listed, boolean ``[N]``; all by default.
        scorer: the model's ``scorer()``, where many calls share one.
        block_size: as in :func:`top_k`.

    Raises:
        ValueError: a user index out of range, or as :func:`top_k`.
    """
    check_k(k, model.num_items)
    if users.numel() and not 0 <= int(users.min()) <= int(users.max()) < model.num_users:
        raise ValueError(f"'users' must lie in 0..{model.num_users - 1}, got {int(users.min())}..{int(users.max())}")
    return top_k(model.scorer() if scorer is None else scorer, users, k, seen, allowed, block_size)
