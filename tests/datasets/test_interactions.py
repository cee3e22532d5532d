"""Tests of the graph builder."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tvdiff_pyg.datasets import DataError, interaction_data
from tvdiff_pyg.transforms import RATED_BY, RATES, HoldOut

TRAIN = (['10', '2', '2', '10', '2'], ['7', '30', '7', '7', '100'])
VALIDATION = (['2', '10', '10', '99'], ['30', '100', '100', '7'])
TEST = (['10', '10', '2', '98', '99', '2', '2'], ['30', '100', '7', '7', '55', '55', '55'])


def test_builder_exactly() -> None:
    titles = {'100': 'hundred', '7': 'seven', '55': 'not in train'}
    data = interaction_data('tiny', TRAIN, TEST, VALIDATION, checksum='abc', item_attributes={'title': titles})
    assert data.user_id == ['2', '10']
    assert data.item_id == ['7', '30', '100']
    assert (data['user'].num_nodes, data['item'].num_nodes) == (2, 3)
    assert data.item_attributes['title'] == ['seven', None, 'hundred']
    assert data[RATES].edge_index.tolist() == [[0, 0, 0, 1], [0, 1, 2, 0]]
    assert data[RATED_BY].edge_index.tolist() == [[0, 1, 2, 0], [0, 0, 0, 1]]
    assert data[RATES].val_edge_label_index.tolist() == [[1], [2]]
    assert data[RATES].edge_label_index.tolist() == [[1], [1]]
    assert data[RATES].edge_index.dtype == torch.int64
    assert (data.name, data.checksum) == ('tiny', 'abc')
    assert data.dropped == {
        'validation_pairs': 1, 'validation_users': 1, 'validation_items': 0, 'validation_pairs_seen': 1,
        'test_pairs': 3, 'test_users': 2, 'test_items': 1, 'test_pairs_seen': 2,
        'duplicate_pairs': 3,
    }
    assert data.validate()


def test_attributes_are_what_json_has() -> None:
    years = {'7': np.int64(1994), '30': float('nan'), '100': np.float32('nan'), '55': object()}
    genres = {'7': ('drama', np.str_('war')), '30': [], '100': {'main': np.bool_(True)}}
    data = interaction_data('tiny', TRAIN, checksum='abc', item_attributes={'year': years, 'genres': genres})
    assert data.item_attributes == {'year': [1994, None, None], 'genres': [['drama', 'war'], [], {'main': True}]}
    assert json.loads(json.dumps(data.item_attributes, allow_nan=False)) == data.item_attributes
    for value, named in ((np.datetime64('1994-01-01'), 'datetime.date.*date'), (float('inf'), 'inf'), (b'x', 'bytes'),
                         ([np.ones(2)], 'ndarray'), ({1: 2}, 'dict'), (np.longdouble(1), 'longdouble')):
        with pytest.raises(TypeError, match=f"'item_attributes' year holds .*{named}.*: convert it"):
            interaction_data('tiny', TRAIN, checksum='abc', item_attributes={'year': {'7': value}})


def test_builder_does_not_depend_on_file_order() -> None:
    first = interaction_data('tiny', TRAIN, TEST, checksum='')
    other = interaction_data('tiny', (TRAIN[0][::-1], TRAIN[1][::-1]), (TEST[0][::-1], TEST[1][::-1]), checksum='')
    assert first[RATES].edge_index.tolist() == other[RATES].edge_index.tolist()
    assert first[RATES].edge_label_index.tolist() == other[RATES].edge_label_index.tolist()
    assert first.item_id == other.item_id


@pytest.mark.parametrize('ids, expected', [
    (['10', '9', '-3', '0'], ['-3', '0', '9', '10']),
    (['10', '9', '007'], ['007', '10', '9']),  # a leading zero: not canonical, so text order, and nothing is merged
    (['7', '07'], ['07', '7']),
    (['b', 'a', 'Ä', 'é'], ['a', 'b', 'Ä', 'é']),
])
def test_order_of_ids(ids: list[str], expected: list[str]) -> None:
    data = interaction_data('ids', (ids, ['1'] * len(ids)), checksum='')
    assert data.user_id == expected


def test_optional_parts_are_absent() -> None:
    data = interaction_data('tiny', TRAIN, checksum='')
    assert 'edge_label_index' not in data[RATES]
    assert 'val_edge_label_index' not in data[RATES]
    assert data.dropped['duplicate_pairs'] == 1
    assert sum(data.dropped.values()) == 1


def test_a_test_part_that_is_wholly_dropped_is_empty() -> None:
    data = interaction_data('tiny', TRAIN, (['x'], ['y']), checksum='')
    assert data[RATES].edge_label_index.shape == (2, 0)
    assert (data.dropped['test_pairs'], data.dropped['test_users'], data.dropped['test_items']) == (1, 1, 1)


def test_builder_errors() -> None:
    with pytest.raises(DataError, match='tiny: the training part holds no interactions'):
        interaction_data('tiny', ([], []), checksum='')
    with pytest.raises(ValueError, match="'test' has 1 users but 2 items"):
        interaction_data('tiny', TRAIN, (['1'], ['1', '2']), checksum='')
    with pytest.raises(TypeError, match='original ids must be text, got 1'):
        interaction_data('tiny', ([1], ['1']), checksum='')  # type: ignore[list-item]


def test_graph_survives_a_weights_only_file_and_the_hold_out(tmp_path: Path) -> None:
    data = interaction_data('tiny', TRAIN, TEST, VALIDATION, checksum='abc', item_attributes={'title': {'7': 'seven'}})
    torch.save(data.to_dict(), tmp_path / 'data.pt')
    back = data.__class__.from_dict(torch.load(tmp_path / 'data.pt', weights_only=True))
    assert back.dropped == data.dropped
    assert back.item_attributes['title'] == data.item_attributes['title']
    assert torch.equal(back[RATES].edge_label_index, data[RATES].edge_label_index)
    out = HoldOut(ratio=0.5)(interaction_data('tiny', TRAIN, TEST, checksum='abc'))
    assert out[RATES].val_edge_label_index.shape == (2, 2)
    assert out.item_id == data.item_id


def test_pyg_can_cut_and_sample_the_graph():
    """What NeighborLoader and subgraph do to every node attribute must work: text is kept off the nodes."""
    data = interaction_data('tiny', (['a', 'b', 'b'], ['x', 'x', 'y']), (['a'], ['y']), checksum='0' * 64,
                            item_attributes={'title': {'x': 'X'}})
    part = data.subgraph({'user': torch.tensor([1]), 'item': torch.tensor([0, 1])})
    assert part[RATES].edge_index.tolist() == [[0, 0], [0, 1]] and part.item_attributes == {'title': ['X', None]}
    assert all(not isinstance(value, list) for store in data.node_stores for value in store.values())


@pytest.mark.parametrize('name', ['item', 'score', 'held_out'])
def test_attributes_do_not_stand_in_for_what_lists_say_themselves(name: str) -> None:
    with pytest.raises(ValueError, match=f"'item_attributes' {name} has a name that lists use themselves"):
        interaction_data('tiny', TRAIN, checksum='abc', item_attributes={name: {'7': 'seven'}})
