"""Data with one right answer a user."""
from __future__ import annotations

from typing import NamedTuple, Optional

import torch
from torch import Tensor


class PlantedBlocks(NamedTuple):
    """Training interactions and what they hold out.

    Attributes:
        edge_index: user-to-item pairs to train on ``[2, nnz]``.
        num_users: number of users M.
        num_items: number of items N.
        held_out: the items held out of each user's block ``[M, hold_out]``, ascending: exactly what a right model
            ranks first once seen items are masked.
    """

    edge_index: Tensor
    num_users: int
    num_items: int
    held_out: Tensor


def planted_blocks(num_blocks: int = 4, users_per_block: int = 8, items_per_block: int = 8, hold_out: int = 1,
                   generator: Optional[torch.Generator] = None) -> PlantedBlocks:
    """Return a block matrix in which every user has seen all items of their block but ``hold_out`` of them.

    Every item is seen by others of the block, never by anybody outside it, and any two users of a block share an
    item: nothing but the held-out items can stand first. These run through each block in a shuffled cyclic order, so
    that no item is held out much more often than another.

    Args:
        num_blocks: number of blocks, at least 2.
        users_per_block: users in each, at least 2.
        items_per_block: items in each, more than twice ``hold_out``.
        hold_out: items held out of each user's block, at least 1.
        generator: source of the shuffle.

    Raises:
        ValueError: a number out of its range.
    """
    if num_blocks < 2 or users_per_block < 2:
        raise ValueError(f"'num_blocks' and 'users_per_block' must be at least 2, got {num_blocks} and "
                         f"{users_per_block}")
    if not 2 <= 2 * hold_out < items_per_block:
        raise ValueError(f"'hold_out' must be at least 1 and below items_per_block / 2 = {items_per_block / 2}, got "
                         f"{hold_out}: else users of a block need not share an item, which tells that they belong "
                         f"together")
    held_out = []
    seen = torch.zeros(num_blocks * users_per_block, num_blocks * items_per_block, dtype=torch.bool)
    for block in range(num_blocks):
        order = torch.randperm(items_per_block, generator=generator)
        for k in range(users_per_block):
            position = (k * hold_out + torch.arange(hold_out)) % items_per_block
            user = block * users_per_block + k
            items = block * items_per_block + order[position].sort().values
            seen[user, block * items_per_block:(block + 1) * items_per_block] = True
            seen[user, items] = False
            held_out.append(items)
    return PlantedBlocks(seen.nonzero().t().contiguous(), seen.size(0), seen.size(1), torch.stack(held_out))
