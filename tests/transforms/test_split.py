"""Tests of the splits by time."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tvdiff_pyg.transforms import leave_one_out_parts, temporal_parts


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize('seed', range(5))
def test_leave_one_out_equals_sorting_each_user(seed: int) -> None:
    user = torch.randint(0, 12, (60,), generator=generator(seed)) * 7
    time = torch.randperm(60, generator=generator(seed + 100)) - 30
    want = [0] * 60
    for one in set(user.tolist()):
        edges = sorted((edge for edge in range(60) if user[edge] == one), key=lambda edge: int(time[edge]))
        if len(edges) >= 4:
            want[edges[-1]], want[edges[-2]] = 2, 1
    assert leave_one_out_parts(user, time, 4, generator()).tolist() == want
    assert leave_one_out_parts(user, time.double() / 7, 4, generator(9)).tolist() == want
    assert 2 in want and 0 in [want[edge] for edge in range(60) if (user == user[edge]).sum() < 4]


def test_leave_one_out_draws_among_equal_times_only() -> None:
    user, time = torch.zeros(5, dtype=torch.long), torch.tensor([3, 9, 9, 9, 1])
    rng = generator(1)
    tests, validations = torch.zeros(5), torch.zeros(5)
    for _ in range(1800):
        part = leave_one_out_parts(user, time, 3, rng)
        tests, validations = tests + (part == 2), validations + (part == 1)
    for count in (tests, validations):
        assert count[[0, 4]].tolist() == [0, 0] and int(count.sum()) == 1800
        # 1 of 3: mean 600, standard deviation sqrt(1800 * 2 / 9) = 20; two-sided, 4.5 deviations
        assert float((count[1:4] - 600).abs().max()) < 90


def test_leave_one_out_without_times_is_seeded() -> None:
    user = torch.arange(20).repeat_interleave(6)
    state = torch.get_rng_state()
    first = leave_one_out_parts(user, None, 3, generator(4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, leave_one_out_parts(user, None, 3, generator(4)))
    assert not torch.equal(first, leave_one_out_parts(user, None, 3, generator(5)))
    for number in (1, 2):
        assert torch.bincount(user[first == number]).tolist() == [1] * 20


def test_leave_one_out_wrong_arguments() -> None:
    user = torch.zeros(3, dtype=torch.long)
    with pytest.raises(ValueError, match="'min_interactions' must be at least 3"):
        leave_one_out_parts(user, None, 2, generator())
    with pytest.raises(ValueError, match=r"'user_index' must be a vector, got shape \[1, 3\]"):
        leave_one_out_parts(user[None], None, 3, generator())
    with pytest.raises(ValueError, match=r"'time' must be a vector of 3 numbers, got shape \[2\]"):
        leave_one_out_parts(user, torch.arange(2), 3, generator())
    with pytest.raises(ValueError, match="'time' must hold finite numbers"):
        leave_one_out_parts(user, torch.tensor([1.0, float('nan'), 2.0]), 3, generator())


def brute_force_cut(times: list[int], moments: list[int], ratio: float) -> int:
    """Return the last moment before the later part: all are tried, the later of two as good is taken."""
    def off(moment: int) -> float:
        return abs(sum(time > moment for time in times) - ratio * len(times))

    best = min(map(off, moments))
    return max(moment for moment in moments if off(moment) == best)


@pytest.mark.parametrize('distinct', [3, 4, 10, 60])
def test_temporal_equals_brute_force(distinct: int) -> None:
    for seed in range(8):
        time = torch.cat([torch.arange(distinct), torch.randint(0, distinct, (80,), generator=generator(seed))]) * 5 - 9
        time = time[torch.randperm(time.numel(), generator=generator(seed))]
        times = time.tolist()
        moments = sorted(set(times))
        for ratio in (0.01, 0.2, 0.5, 0.99):
            test = brute_force_cut(times, moments[1:-1], ratio)
            rest = [one for one in times if one <= test]
            train = brute_force_cut(rest, [one for one in moments if one < test], 0.1)
            want = [2 if one > test else 1 if one > train else 0 for one in times]
            assert temporal_parts(time, ratio).tolist() == want
            assert temporal_parts(time.double() / 3, ratio).tolist() == want
            assert set(want) == {0, 1, 2}


def test_temporal_sizes_and_ties() -> None:
    assert temporal_parts(torch.arange(100), 0.2).bincount().tolist() == [72, 8, 20]
    # 4 | 4 | 2 pairs: a test part of 2 and one of 6 are as far from 0.4 * 10: the later moment
    assert temporal_parts(torch.tensor([1] * 4 + [2] * 4 + [3] * 2), 0.4).tolist() == [0] * 4 + [1] * 4 + [2] * 2


@pytest.mark.parametrize('time, ratio, message', [
    (torch.tensor([1, 2, 2]), 0.2, "'time' has 2 distinct values; a temporal split needs at least 3"),
    (torch.empty(0), 0.2, "'time' has 0 distinct values"),
    (torch.arange(5), 0.0, "'test_ratio' must lie between 0 and 1"),
    (torch.arange(5), float('nan'), "'test_ratio' must lie between 0 and 1"),
    (torch.tensor([1.0, 2.0, float('inf')]), 0.2, 'finite'),
])
def test_temporal_wrong_arguments(time: Tensor, ratio: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        temporal_parts(time, ratio)
