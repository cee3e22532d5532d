"""Tests of a data set's figures."""
from __future__ import annotations

import statistics as std

import pytest
import torch
from torch_geometric.data import HeteroData

from tvdiff_pyg.datasets import gini, interaction_data, statistics
from tvdiff_pyg.datasets.data_statistics import describe_statistics
from tvdiff_pyg.transforms import HoldOut


@pytest.mark.parametrize('sizes', [[1], [4, 4, 4], [0, 0, 9], [3, 1, 2], [7, 0, 7, 1, 30, 2, 2]])
def test_gini_is_its_definition(sizes: list[int]) -> None:
    differences = sum(abs(one - other) for one in sizes for other in sizes)
    want = differences / (2 * len(sizes) * sum(sizes))
    assert gini(torch.tensor(sizes)) == pytest.approx(want, abs=1e-12)
    assert gini(torch.tensor(sizes).float() * 3) == pytest.approx(want, abs=1e-12)


def test_gini_at_its_ends() -> None:
    assert gini(torch.zeros(3)) == 0 and gini(torch.full((7,), 1 / 3)) == 0
    assert gini(torch.tensor([0] * 99 + [5])) == pytest.approx(0.99)
    for values, message in ((torch.empty(0), r'shape \[0\]'), (torch.ones(1, 2), r'shape \[1, 2\]'),
                            (torch.tensor([1, -2]), '.* with -2')):
        with pytest.raises(ValueError, match=f"'values' must be a vector of numbers >= 0, got {message}"):
            gini(values)


def test_figures_equal_counting_by_hand() -> None:
    train = (['a', 'a', 'a', 'b', 'b', 'c', 'c', 'c'], ['x', 'y', 'z', 'x', 'x', 'x', 'y', 'w'])
    data = interaction_data('tiny', train, (['a', 'b', 'd'], ['w', 'y', 'x']), (['b'], ['z']), checksum='',
                            dropped_before={'low_ratings': 5})
    got = statistics(data)
    pairs = ['ax', 'ay', 'az', 'bx', 'cx', 'cy', 'cw', 'aw', 'by', 'bz']
    assert (got['name'], got['users'], got['items']) == ('tiny', 3, 4)
    assert got['pairs'] == {'train': 7, 'validation': 1, 'test': 2}
    assert got['density'] == pytest.approx(10 / 12)
    for end, ids, name in ((0, 'abc', 'user_degree'), (1, 'wxyz', 'item_degree')):
        degrees = [sum(pair[end] == one for pair in pairs) for one in ids]
        assert got[name]['mean'] == pytest.approx(std.mean(degrees))
        assert got[name]['median'] == std.median(degrees)
        assert got[name]['max'] == max(degrees)
        assert got[name]['gini'] == pytest.approx(gini(torch.tensor(degrees)))
    assert got['dropped'] == data.dropped and got['dropped']['low_ratings'] == 5
    assert describe_statistics(got).splitlines() == [
        'tiny: 3 users x 4 items, 10 pairs (7 train, 1 validation, 2 test), density 83.333%',
        'items per user: mean 3.3, median 3, max 4, Gini 0.067',
        'users per item: mean 2.5, median 2.5, max 3, Gini 0.100',
        'dropped: 5 rows below the least rating; 1 test pairs whose user or item is absent from train; '
        '1 users of test absent from train; 1 repeated pairs',
    ]


def test_carving_a_validation_part_moves_pairs_only() -> None:
    data = interaction_data('tiny', (['a'] * 9 + ['b'] * 4, list('stuvwxyz0stuv')), checksum='')
    whole, carved = statistics(data), statistics(HoldOut()(data))
    assert carved.pop('pairs') == {'train': 11, 'validation': 2, 'test': 0}
    assert whole.pop('pairs') == {'train': 13, 'validation': 0, 'test': 0}
    assert whole == carved
    with pytest.raises(ValueError, match="no 'edge_index'"):
        statistics(HeteroData())
