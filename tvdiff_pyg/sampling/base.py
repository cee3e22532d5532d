"""The interface of negative samplers, and drawing without replacement."""
from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Optional

import torch
from torch import Tensor

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.typing import Pairs, ScoreItems

MAX_ROUNDS = 8  # of rejection, before the rows that are left take the dense way
ROWS_PER_BLOCK = 64  # rows of a dense block


class NegativeSampler(torch.nn.Module, ABC):
    """Base: draws unobserved items for the rows of a batch, never an observed one, and no item twice for one row."""

    @abstractmethod
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
        """Return the negatives as ``(row, item)``, sorted by row.

        The order within a row may carry meaning (AR-GSP gives the hardest first): whoever pairs them one by one with
        positives that are sorted too shuffles one side before.

        Args:
            interactions: what every user has seen.
            users: user of each row ``[B]``.
            num_negatives: how many to draw for each row ``[B]``; a row gets fewer only where its user has fewer
                unobserved items.
            scores: gives the model's present scores, without gradient, of batch rows over items, which all these rows
                share.
            t: step of each row ``[B]``.
            num_steps: number of steps T.
            generator: source of all randomness.
        """

    def set_epoch(self, epoch: int) -> None:
        """Be told that an epoch, counted from 0, begins; for samplers that change while training."""


def dense_scores(scores: Tensor) -> ScoreItems:
    """Return the function that samplers ask for scores, where all of them, ``[B, N]``, are there anyway."""
    return lambda rows, items: scores[rows] if items is None else scores[rows.unsqueeze(1), items]


def draw_unobserved(
    interactions: InteractionMatrix,
    users: Tensor,
    num_negatives: Tensor,
    weight: Optional[Tensor] = None,
    generator: Optional[torch.Generator] = None,
) -> Pairs:
    r"""Draw unobserved items one after the other, without replacement, in proportion to ``weight``.

    Draws with replacement from the whole catalogue, of which observed and repeated items are struck out, follow
    exactly that law: about ``num_negatives`` draws a row and no users x items array. Rows that are not full after
    a few rounds, those of users who saw nearly everything, draw the rest by Gumbel top-n over a dense block, which
    goes on with the same law.

    Args:
        interactions: what every user has seen.
        users: user of each row ``[B]``.
        num_negatives: how many to draw for each row ``[B]``; capped at what the user has not seen.
        weight: weights of the items ``[N]``, > 0; uniform if absent.
        generator: source of all randomness.
    """
    num_items = interactions.num_items
    want = torch.minimum(num_negatives, num_items - interactions.user_degree[users])
    cumulative = None if weight is None else weight.double().cumsum(0)
    row, item = want.new_empty(0), want.new_empty(0)
    missing = want
    for _ in range(MAX_ROUNDS):
        rows = torch.arange(users.numel(), device=users.device).repeat_interleave(missing + (missing + 3) // 4)
        if rows.numel() == 0:
            break
        if cumulative is None:
            drawn = torch.randint(num_items, rows.shape, generator=generator, device=rows.device)
        else:
            u = torch.rand(rows.shape, dtype=torch.float64, generator=generator, device=rows.device)
            drawn = torch.searchsorted(cumulative, u * cumulative[-1], right=True).clamp_(max=num_items - 1)
        new = ~interactions.contains(users[rows], drawn)
        row, item = torch.cat([row, rows[new]]), torch.cat([item, drawn[new]])
        row, item = first_per_row(row, item, num_items, want)
        missing = want - torch.bincount(row, minlength=users.numel())
    for block in (missing > 0).nonzero().view(-1).split(ROWS_PER_BLOCK):
        key = gumbel((block.numel(), num_items), generator, users.device)
        if weight is not None:
            key += weight.log()
        key[interactions.rows(users[block])] = -torch.inf
        drawn_before = torch.isin(row, block)
        key[torch.searchsorted(block, row[drawn_before]), item[drawn_before]] = -torch.inf
        position, drawn = top_per_row(key, missing[block])
        row, item = torch.cat([row, block[position]]), torch.cat([item, drawn])
    order = row.argsort(stable=True)
    return row[order], item[order]


def first_per_row(row: Tensor, item: Tensor, num_items: int, count: Tensor) -> Pairs:
    """Return the first ``count[b]`` distinct items of each row b as ``(row, item)``, sorted by row.

    Args:
        row: rows in 0..B-1, in any order; within a row, items keep theirs.
        item: their items, of which some may occur in a row more than once.
        num_items: number of items N.
        count: how many to keep of each row, ``[B]``.
    """
    key = row * num_items + item
    order = key.argsort(stable=True)
    key = key[order]
    first = torch.ones_like(key, dtype=torch.bool)
    first[1:] = key[1:] != key[:-1]
    kept = order[first].sort().values
    row, item = row[kept], item[kept]
    by_row = row.argsort(stable=True)
    row, item = row[by_row], item[by_row]
    size = torch.bincount(row, minlength=count.numel())
    rank = torch.arange(row.numel(), device=row.device) - (size.cumsum(0) - size)[row]
    keep = rank < count[row]
    return row[keep], item[keep]


def gumbel(shape: tuple, generator: Optional[torch.Generator], device: torch.device) -> Tensor:
    """Return float64 standard Gumbel noise, ``-log(E)`` with ``E`` exponential: finite at both ends of the range."""
    exponential = torch.empty(shape, device=device, dtype=torch.float64).exponential_(generator=generator)
    return exponential.clamp_(min=torch.finfo(torch.float64).tiny).log_().neg_()


def top_per_row(key: Tensor, count: Tensor) -> Pairs:
    """Return the ``count[b]`` columns with the largest keys of each row b as ``(row, column)``, sorted by row."""
    largest = int(count.max()) if count.numel() else 0
    column = key.topk(largest, dim=1).indices  # [B, largest], descending
    keep = torch.arange(largest, device=key.device) < count.unsqueeze(1)
    row = torch.arange(key.size(0), device=key.device).repeat_interleave(count)
    return row, column[keep]
