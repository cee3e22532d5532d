"""Tests of the k-core."""
from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

from tvdiff_pyg.transforms import k_core_mask


def brute_force(user: Tensor, item: Tensor, k: int) -> list[bool]:
    """Take away one edge at a time whose user or item has too few, and begin again."""
    pairs = list(zip(user.tolist(), item.tolist()))
    kept = list(range(len(pairs)))
    while True:
        users, items = [pairs[e][0] for e in kept], [pairs[e][1] for e in kept]
        low = next((e for e in kept if users.count(pairs[e][0]) < k or items.count(pairs[e][1]) < k), None)
        if low is None:
            return [e in kept for e in range(len(pairs))]
        kept.remove(low)


@pytest.mark.parametrize('seed', range(6))
def test_equals_brute_force(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.linspace(0.1, 2, 12)[:, None] * torch.linspace(0.1, 2, 9)  # some users and items have few
    key = weight.view(-1).multinomial(45, generator=generator)
    user, item = key // 9 * 1000 + 3, key % 9  # numbers with gaps, in no order
    sizes = []
    for k in range(1, 7):
        got = k_core_mask(user, item, k)
        assert got.tolist() == brute_force(user, item, k)
        sizes.append(int(got.sum()))
    assert sizes[0] == 45 and sizes[-1] == 0 and len(set(sizes)) > 3


def test_users_and_items_of_one_number_are_not_one_node() -> None:
    assert k_core_mask(torch.tensor([0, 1]), torch.tensor([1, 0]), 2).tolist() == [False, False]
    square = torch.tensor([[0, 0, 1, 1, 2], [0, 1, 0, 1, 1]])
    assert k_core_mask(*square, 2).tolist() == [True] * 4 + [False]


def test_a_chain_that_falls_one_by_one_is_linear() -> None:
    def seconds(length: int) -> float:
        number = torch.arange(length)
        start = time.perf_counter()
        assert not k_core_mask((number + 1) // 2, number // 2, 2).any()  # user 0 - item 0 - user 1 - item 1 - ...
        return time.perf_counter() - start

    seconds(100)
    short = min(seconds(2000) for _ in range(3))
    assert min(seconds(20000) for _ in range(2)) < 40 * short  # quadratic: 100


def test_nothing_and_wrong_arguments() -> None:
    none = torch.empty(0, dtype=torch.long)
    assert k_core_mask(none, none, 3).shape == (0,)
    with pytest.raises(ValueError, match="'k' must be at least 1, got 0"):
        k_core_mask(none, none, 0)
    with pytest.raises(ValueError, match=r'vectors of one length, got shapes \[2\] and \[3\]'):
        k_core_mask(torch.arange(2), torch.arange(3), 2)
