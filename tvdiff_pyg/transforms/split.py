"""Splits of interactions by time: leave-one-out a user, and one moment for all."""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

TRAIN, VALIDATION, TEST = 0, 1, 2


def leave_one_out_parts(user_index: Tensor, time: Optional[Tensor], min_interactions: int,
                        generator: torch.Generator) -> Tensor:
    """Hold out each user's last interaction for the test and the one before it for validation.

    Interactions of a user at one time, or all of them where there is no time, are in random order.

    Args:
        user_index: the user of each interaction, ``[E]``. The random order depends on the order of the interactions:
            sort them first where it should not.
        time: its time, ``[E]``, or ``None``.
        min_interactions: users with fewer interactions give none; at least 3.
        generator: the only source of randomness.

    Returns:
        The part of each interaction, ``[E]``: 0 for train, 1 for validation, 2 for test.

    Raises:
        ValueError: ``min_interactions`` is out of range, or a shape or a time is wrong.
    """
    if min_interactions < 3:
        raise ValueError(f"'min_interactions' must be at least 3, so that a user of a leave-one-out split keeps one, "
                         f"got {min_interactions}")
    if user_index.dim() != 1:
        raise ValueError(f"'user_index' must be a vector, got shape {list(user_index.shape)}")
    num_edges, device = user_index.numel(), user_index.device
    noise = torch.rand(num_edges, dtype=torch.float64, generator=generator, device=generator.device)
    perm = noise.to(device).argsort(stable=True)
    if time is not None:
        _check_time(time, num_edges)
        perm = perm[time[perm].argsort(stable=True)]
    _, user, count = user_index.unique(return_inverse=True, return_counts=True)
    perm = perm[user[perm].argsort(stable=True)]  # users in order, each one's interactions by time
    user = user[perm]
    later = count.cumsum(0)[user] - torch.arange(num_edges, device=device) - 1  # how many of the user's come after
    part = torch.where(later == 0, TEST, torch.where(later == 1, VALIDATION, TRAIN))
    part[count[user] < min_interactions] = TRAIN
    return torch.empty_like(part).scatter_(0, perm, part)


def temporal_parts(time: Tensor, test_ratio: float, validation_ratio: float = 0.1) -> Tensor:
    r"""Split at two moments that are the same for all users: train, then validation, then test.

    The test part is all that happens after a moment, chosen between two distinct times so that the size of the part
    is as near as can be to :math:`\mathrm{ratio} \cdot E`, the later one of two that are equally near. Interactions
    at one time are never split. The validation part is chosen likewise from what is left.

    Args:
        time: the time of each interaction, ``[E]``, with at least 3 distinct ones.
        test_ratio: the part for the test, between 0 and 1, both excluded.
        validation_ratio: the part of the rest for validation, likewise.

    Returns:
        The part of each interaction, ``[E]``: 0 for train, 1 for validation, 2 for test.

    Raises:
        ValueError: a ratio is out of range, a time is not finite, or there are fewer than 3 distinct times.
    """
    for name, ratio in (('test_ratio', test_ratio), ('validation_ratio', validation_ratio)):
        if not 0 < ratio < 1:
            raise ValueError(f"'{name}' must lie between 0 and 1, both excluded, got {ratio}")
    _check_time(time, time.numel())
    moment, rank, count = time.unique(return_inverse=True, return_counts=True)
    if moment.numel() < 3:
        raise ValueError(f"'time' has {moment.numel()} distinct values; a temporal split needs at least 3")
    num_before = count.cumsum(0)

    def cut(first: int, end: int, ratio: float) -> int:
        """Return after which of the moments ``first, ..., end - 2`` the later part of ``0, ..., end - 1`` begins."""
        size = num_before[end - 1] - num_before[first:end - 1]
        off = (size - ratio * num_before[end - 1]).abs().flip(0)  # argmin gives the first, which is now the latest
        return end - 2 - int(off.argmin())

    last_before_test = cut(1, moment.numel(), test_ratio)  # from 1: two moments are left, for train and validation
    last_of_train = cut(0, last_before_test + 1, validation_ratio)
    return (rank > last_of_train).long() + (rank > last_before_test).long()


def _check_time(time: Tensor, num_edges: int) -> None:
    if time.shape != (num_edges,):
        raise ValueError(f"'time' must be a vector of {num_edges} numbers, got shape {list(time.shape)}")
    if time.is_floating_point() and not bool(time.isfinite().all()):
        raise ValueError("'time' must hold finite numbers")
