"""The k-core of a set of interactions."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def k_core_mask(user_index: Tensor, item_index: Tensor, k: int) -> Tensor:
    r"""Find the k-core: the largest part in which every user has at least ``k`` items and every item ``k`` users.

    Users and items of degree below :math:`k` are taken away until there are none. The largest part is unique, so the
    order does not matter. Cost :math:`O(E \log E)`: an edge is visited when an end of it goes, and no more.

    Args:
        user_index: the user of each interaction, ``[E]``; no pair twice.
        item_index: its item, ``[E]``.
        k: at least 1.

    Returns:
        A boolean mask ``[E]``, true where the interaction is in the k-core; nowhere, if there is none.

    Raises:
        ValueError: ``k`` is out of range, or the indices are not two vectors of one length.
    """
    if k < 1:
        raise ValueError(f"'k' must be at least 1, got {k}")
    if user_index.dim() != 1 or user_index.shape != item_index.shape:
        raise ValueError(f"'user_index' and 'item_index' must be vectors of one length, got shapes "
                         f"{list(user_index.shape)} and {list(item_index.shape)}")
    num_edges = user_index.numel()
    user, item = (np.unique(index.cpu().numpy(), return_inverse=True)[1] for index in (user_index, item_index))
    # One numbering of both kinds of nodes, and the edges of each node side by side.
    node = np.concatenate([user, item + (int(user.max()) + 1 if num_edges else 0)])
    edges = np.argsort(node, kind='stable') % max(num_edges, 1)
    count = np.bincount(node)
    start = np.cumsum(count) - count
    degree = count.copy()
    kept = np.ones(num_edges, dtype=bool)
    going = np.flatnonzero(degree < k)
    while going.size:
        # Nothing in here is as long as all nodes or edges: a long chain that falls one by one stays cheap.
        size = count[going]
        gone = edges[np.repeat(start[going] - (np.cumsum(size) - size), size) + np.arange(size.sum())]
        gone = np.unique(gone[kept[gone]])
        kept[gone] = False
        ends, lost = np.unique(np.concatenate([node[gone], node[gone + num_edges]]), return_counts=True)
        degree[ends] -= lost
        going = ends[(degree[ends] < k) & (degree[ends] > 0)]  # a node without edges has nothing left to take away
    return torch.from_numpy(kept).to(user_index.device)
