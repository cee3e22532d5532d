"""Tests of the way from interactions as read to the parts of a split."""
from __future__ import annotations

from typing import Any, Dict, List, Tuple

import numpy as np
import pytest
import torch

from tvdiff_pyg.datasets import DataError, hold_out_pairs, interaction_data
from tvdiff_pyg.datasets.records import Records
from tvdiff_pyg.datasets.splits import Parts, check_split, split_records

Pair = Tuple[str, str]


def random_records(seed: int, num_users: int = 15, num_items: int = 12, size: int = 140) -> Records:
    """Pairs in any order, many of them twice or more at different times, with ids that are not ASCII."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.linspace(0.1, 2, num_users)[:, None] * torch.linspace(0.1, 2, num_items)
    user, item = np.divmod(weight.view(-1).multinomial(size, True, generator=generator).numpy(), num_items)
    times = torch.randperm(size, generator=generator).numpy()
    return Records([f'ü{number}' for number in user], [f'日{number}' for number in item], times)


def latest(records: Records) -> Dict[Pair, int]:
    assert records.times is not None
    times: Dict[Pair, int] = {}
    for user, item, time in zip(*records.pairs, records.times.tolist()):
        times[user, item] = max(time, times.get((user, item), -1))
    return times


def sets(parts: Parts) -> List[set]:
    return [set(zip(*part)) for part in parts[:3]]


def reversed_records(records: Records) -> Records:
    return Records(records.users[::-1], records.items[::-1], None if records.times is None else records.times[::-1])


@pytest.mark.parametrize('k', [None, 3, 5])
@pytest.mark.parametrize('seed', range(4))
def test_leave_one_out_equals_brute_force(seed: int, k: Any) -> None:
    records = random_records(seed)
    times = core(latest(records), k or 1)
    want: List[set] = [set(), set(), set()]
    for one in {user for user, _ in times}:
        pairs = sorted((pair for pair in times if pair[0] == one), key=lambda pair: times[pair])
        for part, pair in zip([2, 1], pairs[:-3:-1] if len(pairs) >= 3 else []):
            want[part].add(pair)
    want[0] = set(times) - want[1] - want[2]
    assert len(want[2]) > 3
    assert sets(split_records(records, 'leave-one-out', k_core=k)) == want
    assert sets(split_records(reversed_records(records), 'leave-one-out', k_core=k)) == want


@pytest.mark.parametrize('k', [None, 4])
@pytest.mark.parametrize('seed', range(4))
def test_temporal_is_the_same_moment_for_all(seed: int, k: Any) -> None:
    records = random_records(seed)
    times = core(latest(records), k or 1)
    got = sets(split_records(records, 'temporal', k_core=k))
    assert got[0] | got[1] | got[2] == set(times)
    ordered = sorted(times, key=lambda pair: times[pair])  # no two times are equal: the sizes are met exactly
    num_test = round(0.2 * len(times))
    num_validation = round(0.1 * (len(times) - num_test))
    assert abs(len(got[2]) - 0.2 * len(times)) <= 0.5
    assert abs(len(got[1]) - 0.1 * (len(times) - len(got[2]))) <= 0.5
    assert (len(got[2]), len(got[1])) == pytest.approx((num_test, num_validation), abs=1)
    assert got[2] == set(ordered[len(times) - len(got[2]):]) and got[0] == set(ordered[:len(got[0])])
    assert sets(split_records(reversed_records(records), 'temporal', k_core=k)) == got


def core(times: Dict[Pair, int], k: int) -> Dict[Pair, int]:
    while True:
        low = [pair for pair in times if any(sum(other[end] == pair[end] for other in times) < k for end in (0, 1))]
        if not low:
            return times
        times = {pair: time for pair, time in times.items() if pair != low[0]}


@pytest.mark.parametrize('k', [2, 3, 5])
def test_k_core_is_taken_before_the_split_and_counted(k: int) -> None:
    records = random_records(7)._replace(times=None)
    whole = set(zip(*records.pairs))
    want = set(core(dict.fromkeys(whole, 0), k))
    parts = split_records(records, k_core=k)
    got = sets(parts)
    assert got[0] | got[2] == want and not got[0] & got[2] and not got[1]
    assert parts.dropped == {
        'k_core_pairs': len(whole) - len(want),
        'k_core_users': len({user for user, _ in whole}) - len({user for user, _ in want}),
        'k_core_items': len({item for _, item in whole}) - len({item for _, item in want}),
    }
    assert parts.dropped['k_core_users'] > 0 or k == 2
    # As if the file had held the k-core only.
    kept = [pair for pair in zip(*records.pairs) if pair in want]
    again = split_records(Records([user for user, _ in kept], [item for _, item in kept]))
    assert sets(again) == got


@pytest.mark.parametrize('split, ratio', [('ratio', 0.2), ('leave-one-out', 0.2), ('temporal', 0.2), ('ratio', 0.0)])
def test_parts_are_disjoint_and_copies_stay_together(split: str, ratio: float) -> None:
    records = random_records(3)
    if split == 'ratio':
        records = records._replace(times=None)
    parts = split_records(records, split, ratio, k_core=2)
    train, validation, test = sets(parts)
    assert not train & validation and not train & test and not validation & test
    assert sum(len(part[0]) for part in parts[:3]) + sum(
        pair not in train | validation | test for pair in zip(*records.pairs)) == len(records.users)
    data = interaction_data('parts', parts.train, parts.test, parts.validation, checksum='',
                            dropped_before=parts.dropped)
    copies = sum(len(part[0]) - len(set(zip(*part))) for part in parts[:3])
    assert data.dropped['duplicate_pairs'] == copies > 0
    assert (data.dropped['test_pairs_seen'], data.dropped['validation_pairs_seen']) == (0, 0)
    assert data.dropped['k_core_pairs'] == parts.dropped['k_core_pairs']
    assert bool(test) == (ratio > 0) and bool(validation) == (split != 'ratio')


def test_a_pair_counts_at_its_latest_time() -> None:
    users, items = ['u'] * 5, ['a', 'b', 'c', 'a', 'b']
    train, validation, test = sets(split_records(Records(users, items, np.array([0, 1, 2, 4, 0])), 'leave-one-out'))
    assert (train, validation, test) == ({('u', 'b')}, {('u', 'c')}, {('u', 'a')})


def test_one_user_and_too_little() -> None:
    two = Records(['u', 'u', 'u'], ['a', 'b', 'a'], np.array([0, 1, 2]))
    for split in ('leave-one-out', 'ratio'):
        assert sets(split_records(two._replace(times=None), split)) == [{('u', 'a'), ('u', 'b')}, set(), set()]
    with pytest.raises(DataError, match="'split' temporal: 'time' has 2 distinct values; .* at least 3"):
        split_records(two, 'temporal')
    with pytest.raises(DataError, match="'k_core' 2 leaves nothing of 2 pairs.*take a smaller one"):
        split_records(two._replace(times=None), k_core=2)


def test_the_seed_draws_where_times_are_equal() -> None:
    records = random_records(1)
    same = records._replace(times=np.zeros(len(records.users), dtype=np.int64))
    first = sets(split_records(same, 'leave-one-out', seed=1))
    assert first == sets(split_records(reversed_records(same), 'leave-one-out', seed=1))
    assert first == sets(split_records(same._replace(times=None), 'leave-one-out', seed=1))
    assert first != sets(split_records(same, 'leave-one-out', seed=2))


@pytest.mark.parametrize('options, message', [
    ({'split': 'random'}, "'split' must be one of ratio, leave-one-out, temporal; got 'random'"),
    ({'split': 'ratio', 'test_ratio': 1.0}, "'test_ratio' must lie between 0 and 1"),
    ({'split': 'ratio', 'test_ratio': float('nan')}, "'test_ratio' must lie between 0 and 1"),
    ({'split': 'ratio', 'k_core': 0}, "'k_core' must be at least 1, got 0"),
    ({'split': 'temporal'}, "'split' temporal needs times: name the 'time_column'"),
    ({'split': 'temporal', 'has_time': True, 'test_ratio': 0.0}, "'test_ratio' of a temporal split must be above 0"),
    ({'split': 'leave-one-out', 'test_ratio': 0.3}, "'test_ratio' is not for a leave-one-out split"),
    ({'split': 'ratio', 'has_time': True}, "'time_column' .* is used only where 'split' is leave-one-out or temporal"),
    ({'split': 'leave-one-out', 'has_test': True}, "'split' leave-one-out is for one file of all pairs"),
    ({'split': 'ratio', 'k_core': 2, 'has_validation': True}, "'k_core' is for one file of all pairs.*'validation'"),
    ({'split': 'ratio', 'test_ratio': 0.3, 'has_test': True}, "'test_ratio' is for one file of all pairs"),
])
def test_contradicting_options(options: Dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_split(**options)


def test_hold_out_pairs() -> None:
    users = ['a'] * 10 + ['b'] * 2 + ['a']
    items = [f'i{k}' for k in range(10)] + ['i0', 'i1', 'i3']
    pairs = list(zip(users, items))
    kept, moved = hold_out_pairs((users, items), 0.2, 3, seed=5)
    kept_pairs, moved_pairs = list(zip(*kept)), list(zip(*moved))
    assert len(set(moved_pairs)) == 2 and {user for user, _ in moved_pairs} == {'a'}
    assert set(kept_pairs).isdisjoint(moved_pairs)
    assert sorted(kept_pairs + moved_pairs) == sorted(pairs)
    again = hold_out_pairs((users[::-1], items[::-1]), 0.2, 3, seed=5)
    assert set(zip(*again[1])) == set(moved_pairs)
    choices = {tuple(sorted(set(zip(*hold_out_pairs((users, items), 0.2, 3, seed)[1])))) for seed in range(6)}
    assert len(choices) > 1


def test_copies_of_a_pair_stay_together() -> None:
    pairs = (['a'] * 20, [f'i{k % 5}' for k in range(20)])
    for seed in range(5):
        kept, moved = hold_out_pairs(pairs, 0.2, 3, seed)
        data = interaction_data('copies', kept, moved, checksum='')
        assert len(moved[1]) == 4 and len(set(moved[1])) == 1
        assert data.dropped['duplicate_pairs'] == 15
        assert data.dropped['test_items'] == 1
