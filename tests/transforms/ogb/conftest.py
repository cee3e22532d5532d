"""A _graph to write, a data set as OGB distributes them, and what comes back."""
from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import torch
from torch_geometric.data import HeteroData

from tvdiff_pyg.datasets import interaction_data
from tvdiff_pyg.transforms import RATED_BY, RATES, HoldOut


@pytest.fixture
def ogb() -> Any:
    return pytest.importorskip('ogb', reason='ogb is not installed: pip install "tvdiff-pyg[ogb]"')


def _graph() -> HeteroData:
    """12 users, 30 items, with ids that a careless CSV would change."""
    users = ['007', '7', 'a,b', 'say "é"', ' blank ', '', *(f'u{k}' for k in range(6))]
    users[5] = 'two\nlines'
    pairs = [(u, i) for u in range(12) for i in range(30) if (5 * u + 3 * i) % 7 < 3 and (u, i) != (0, 29)]
    text = ([users[u] for u, _ in pairs], [f'i{i}' for _, i in pairs])
    test = ([users[1], users[2], users[2], users[9], 'new'], ['i2', 'i5', 'i0', 'i28', 'i1'])
    return interaction_data('tiny', text, test, checksum='0' * 64,
                            item_attributes={'title': {'i3': 'Amélie', 'i4': 'M'}, 'year': {'i3': 2001}})


def _split_graph() -> HeteroData:
    return HoldOut(ratio=0.2, seed=3)(_graph())


def _assert_same(out: HeteroData, data: HeteroData) -> None:
    for name in ('edge_index', 'val_edge_label_index', 'edge_label_index'):
        assert torch.equal(out[RATES][name], data[RATES][name]), name
    assert set(out[RATES].keys()) == set(data[RATES].keys())
    assert torch.equal(out[RATED_BY].edge_index, data[RATED_BY].edge_index)
    for name in ('user_id', 'item_id', 'name', 'checksum', 'dropped', 'item_attributes'):
        assert out[name] == data[name], name
    assert (out['user'].num_nodes, out['item'].num_nodes) == (data['user'].num_nodes, data['item'].num_nodes)
    assert out.validate()


def _write_csv(path: Path, rows: Any) -> None:
    with gzip.open(path, 'wt') as file:
        np.savetxt(file, np.asarray(rows), fmt='%d', delimiter=',')


def _save_as_in_2020(split: Any, path: Path) -> None:
    """As the files of OGB's own data sets are: torch's format before the zip, numpy's module names before 2."""
    stream = io.BytesIO()
    torch.save(split, stream, _use_new_zipfile_serialization=False)
    content = stream.getvalue().replace(b'numpy._core.multiarray', b'numpy.core.multiarray')
    assert b'numpy.core.multiarray' in content
    path.write_bytes(content)


def _distributed(root: Path) -> Path:
    """A path of 6 drugs in the layout of ogbl-ddi: one direction an edge, ogb adds the other."""
    folder = root / 'ogbl_ddi'
    for name in ('raw', 'split/target', 'mapping'):
        (folder / name).mkdir(parents=True)
    (folder / 'RELEASE_v1.txt').write_text('')
    edge = [[0, 1], [1, 2], [2, 3], [3, 4], [3, 4]]
    _write_csv(folder / 'raw' / 'edge.csv.gz', edge)
    _write_csv(folder / 'raw' / 'num-node-list.csv.gz', [6])
    _write_csv(folder / 'raw' / 'num-edge-list.csv.gz', [len(edge)])
    with gzip.open(folder / 'mapping' / 'nodeidx2drugid.csv.gz', 'wt') as file:
        file.write('node idx,drug id\n' + ''.join(f'{k},DB{k:05d}\n' for k in range(6)))
    negative = np.array([[0, 3], [1, 4], [2, 5]])
    for part, value in (('train', {'edge': np.array(edge)}),
                        ('valid', {'edge': np.array([[0, 2], [1, 0]]), 'edge_neg': negative}),
                        ('test', {'edge': np.array([[4, 5], [2, 0]]), 'edge_neg': negative})):
        _save_as_in_2020(value, folder / 'split' / 'target' / f'{part}.pt')
    return folder


@pytest.fixture
def graph() -> Callable[[], HeteroData]:
    return _graph


@pytest.fixture
def split_graph() -> Callable[[], HeteroData]:
    return _split_graph


@pytest.fixture
def assert_same() -> Callable[[HeteroData, HeteroData], None]:
    return _assert_same


@pytest.fixture
def distributed() -> Callable[[Path], Path]:
    return _distributed


@pytest.fixture
def save_as_in_2020() -> Callable[[Any, Path], None]:
    return _save_as_in_2020
