"""Tests of loading without ogb, and without running what a file holds."""
from __future__ import annotations

import gzip
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict

import numpy as np
import pytest
import torch
from torch_geometric.data import HeteroData
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import GlobalStorage

from tvdiff_pyg.datasets import DataError
from tvdiff_pyg.transforms import RATES
from tvdiff_pyg.transforms.ogb import evaluate_ogb, from_ogb, load_ogb, to_ogb

# What ogb's own loading needs to be allowed; not fit for files of others, see test_arrays_of_wild_bytes_are_refused.
NUMPY = [np.ndarray, np.dtype, type(np.dtype('int64')), np.empty(0).__reduce__()[0], np.int64(0).__reduce__()[0],
         GlobalStorage, DataEdgeAttr, DataTensorAttr]


def test_ogbs_own_reader_takes_it(ogb: Any, split_graph: Callable[[], HeteroData], tmp_path: Path) -> None:
    """The meta data are those that ogb wants, without us: OGB's documented check of a data set before submission."""
    from ogb.linkproppred import PygLinkPropPredDataset

    data = split_graph()
    folder = to_ogb(data, 'ogbl-tiny', tmp_path, num_negatives=3)
    meta = torch.load(folder / 'meta_dict.pt')
    assert Path(meta['dir_path']) == folder / 'tiny'
    with torch.serialization.safe_globals(NUMPY):
        dataset = PygLinkPropPredDataset('ogbl-tiny', meta_dict=meta)
        split = dataset.get_edge_split()
    assert split['test']['source_node'].tolist() == data[RATES].edge_label_index[0].tolist()
    readme = (folder / 'tiny' / 'mapping' / 'README.md').read_text(encoding='utf-8')
    assert 'ogbl-tiny' in readme and 'seed 0' in readme and '3 candidates' in readme
    with gzip.open(folder / 'tiny' / 'mapping' / 'item_entidx2name.csv.gz', 'rt') as file:
        assert file.read().splitlines()[:3] == ['ent idx,ent name', '0,i0', '1,i1']


def test_without_ogb_the_message_says_what_to_install(split_graph: Callable[[], HeteroData],
                                                      monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ('ogb', 'ogb.io', 'ogb.linkproppred'):
        monkeypatch.setitem(sys.modules, name, None)
    part = {'edge': torch.zeros(1, 2), 'edge_neg': torch.zeros(1, 2)}
    for call in (lambda: to_ogb(split_graph(), 'ogbl-tiny', tmp_path), lambda: load_ogb('ogbl-collab', tmp_path),
                 lambda: evaluate_ogb(lambda pairs: pairs[0], part)):
        with pytest.raises(ImportError, match=r'pip install "tvdiff-pyg\[ogb\]"'):
            call()
    assert not list(tmp_path.iterdir())


def test_the_package_does_not_import_ogb() -> None:
    code = ("import sys; sys.modules['ogb'] = None; import tvdiff_pyg.transforms, tvdiff_pyg.transforms.ogb; "
            "print(sorted(name for name in sys.modules if name.startswith('ogb')))")
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout == "['ogb']\n"


class Evil:
    """Makes a folder when it is unpickled the ordinary way."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


class Foreign:
    """No harm, but none of OGB's types either."""


def payloads(marker: Path) -> Dict[str, Any]:
    return {'posix.mkdir': Evil(marker), 'Foreign': Foreign()}


def test_the_payload_would_work(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Evil(tmp_path / 'marker')))
    assert (tmp_path / 'marker').is_dir()


@pytest.mark.parametrize('forced_unsafe', [False, True])
@pytest.mark.parametrize('payload', ['posix.mkdir', 'Foreign'])
@pytest.mark.parametrize('file', ['meta_dict.pt', 'tiny/split/given/split_dict.pt', 'tiny/processed/pre_transform.pt',
                                  'tiny/processed/pre_filter.pt', 'tiny/processed/geometric_data_processed.pt'])
def test_a_foreign_pickle_is_not_run(ogb: Any, split_graph: Callable[[], HeteroData], tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch, file: str, payload: str,
                                     forced_unsafe: bool) -> None:
    if forced_unsafe:
        monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    environment, allowed = dict(os.environ), set(torch.serialization.get_safe_globals())
    folder = to_ogb(split_graph(), 'ogbl-tiny', tmp_path, num_negatives=3)
    load_ogb('ogbl-tiny', tmp_path).get_edge_split()
    assert (folder / file).is_file()
    marker = tmp_path / 'marker'
    torch.save({'train': payloads(marker)[payload]}, folder / file)
    want = f'a .pt file holds .*{payload}, which is no data .*nothing of it was run'
    with pytest.raises(DataError, match=want) as info:
        load_ogb('ogbl-tiny', tmp_path).get_edge_split()
    assert 'weights_only' not in str(info.value) and '\n' not in str(info.value)
    assert not marker.exists()
    environment.pop('PYTEST_CURRENT_TEST'), os.environ.pop('PYTEST_CURRENT_TEST')
    assert dict(os.environ) == environment
    assert set(torch.serialization.get_safe_globals()) == allowed


def test_an_old_file_is_not_run_either(ogb: Any, distributed: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = distributed(tmp_path)
    marker = tmp_path / 'marker'
    torch.save({'edge': Evil(marker)}, folder / 'split' / 'target' / 'valid.pt', _use_new_zipfile_serialization=False)
    with pytest.raises(DataError, match='posix.mkdir'):
        load_ogb('ogbl-ddi', tmp_path).get_edge_split()
    assert not marker.exists()


@pytest.mark.parametrize('dtype', [b'O', b'i8'])
def test_arrays_of_wild_bytes_are_refused(ogb: Any, split_graph: Callable[[], HeteroData], tmp_path: Path,
                                          dtype: bytes) -> None:
    """``numpy.ndarray(1, 'O', b'AAAAAAAA')``, an object at address 0x41...: with NUMPY allowed, reading it crashes."""
    wild = (b'\x80\x02cnumpy\nndarray\nK\x01\x85cnumpy\ndtype\nX' + struct.pack('<I', len(dtype)) + dtype + b'\x85R'
            b'c_codecs\nencode\nX\x08\0\0\0AAAAAAAAX\x06\0\0\0latin1\x86R\x87R.')
    folder = to_ogb(split_graph(), 'ogbl-tiny', tmp_path, num_negatives=3)
    path = folder / 'tiny' / 'split' / 'given' / 'split_dict.pt'
    with zipfile.ZipFile(path) as file:
        content = {name: wild if name.endswith('data.pkl') else file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, 'w') as file:
        for name, value in content.items():
            file.writestr(name, value)
    with pytest.raises(DataError, match='tiny: cannot be loaded'):
        load_ogb('ogbl-tiny', tmp_path).get_edge_split()


@pytest.mark.parametrize('array', [np.array(['text']), np.array([None]), np.array([1 + 1j]), np.array([1], '>i8'),
                                   np.array([(1, 2)], 'i8,i8')], ids=repr)
def test_arrays_of_other_types_are_refused(ogb: Any, split_graph: Callable[[], HeteroData], tmp_path: Path,
                                           array: np.ndarray) -> None:
    folder = to_ogb(split_graph(), 'ogbl-tiny', tmp_path, num_negatives=3)
    torch.save({'train': array}, folder / 'tiny' / 'split' / 'given' / 'split_dict.pt')
    with pytest.raises(DataError, match='tiny: cannot be loaded .(arrays of .* are not read|an array that)'):
        load_ogb('ogbl-tiny', tmp_path).get_edge_split()


@pytest.mark.parametrize('dtype', ['int32', 'int64', 'float32', 'float64'])
def test_arrays_of_numbers_come_back(ogb: Any, split_graph: Callable[[], HeteroData], tmp_path: Path,
                                     dtype: str) -> None:
    folder = to_ogb(split_graph(), 'ogbl-tiny', tmp_path, num_negatives=3)
    array = np.arange(6).reshape(2, 3).astype(dtype)
    split = {'train': {'rows': array, 'columns': np.asfortranarray(array), 'none': array[:0], 'number': array[1, 2],
                       'tensor': torch.ones(2), 'types': ['a', 'b']}}
    torch.save(split, folder / 'tiny' / 'split' / 'given' / 'split_dict.pt')
    out = load_ogb('ogbl-tiny', tmp_path).get_edge_split()['train']
    want = torch.from_numpy(array)
    assert out['rows'].dtype == want.dtype and torch.equal(out['rows'], want) and torch.equal(out['columns'], want)
    assert out['none'].shape == (0, 3) and out['number'] == 5 and out['types'] == ['a', 'b']
    assert torch.equal(out['tensor'], torch.ones(2))


def test_pickles_in_arrays_are_refused(ogb: Any, split_graph: Callable[[], HeteroData], tmp_path: Path) -> None:
    folder = to_ogb(split_graph(), 'ogbl-tiny', tmp_path, num_negatives=3)
    marker = tmp_path / 'marker'
    np.savez(folder / 'tiny' / 'raw' / 'edge_index_dict.npz', **{'user___rates___item': np.array([Evil(marker)])})
    with pytest.raises(DataError, match='allow_pickle=False'):
        load_ogb('ogbl-tiny', tmp_path)
    assert not marker.exists()


def test_broken_files(ogb: Any, split_graph: Callable[[], HeteroData], tmp_path: Path) -> None:
    folder = to_ogb(split_graph(), 'ogbl-tiny', tmp_path, num_negatives=3)
    path = folder / 'tiny' / 'split' / 'given' / 'split_dict.pt'
    whole = path.read_bytes()
    for content in (b'', whole[:100], whole[:-50], b'no pickle at all'):
        path.write_bytes(content)
        with pytest.raises(DataError, match='tiny: cannot be loaded'):
            load_ogb('ogbl-tiny', tmp_path).get_edge_split()
    path.write_bytes(whole)
    for text, reason in (('[]', 'it must hold name, '), ('{', 'interaction_graph.json: cannot be loaded'),
                         ('{"name": "", "checksum": "", "dropped": {}, "item_attributes": {"a": [1]}}', '30 values')):
        (folder / 'tiny' / 'mapping' / 'interaction_graph.json').write_text(text)
        with pytest.raises(DataError, match=reason):
            from_ogb(load_ogb('ogbl-tiny', tmp_path))
    torch.save(torch.ones(1), folder / 'meta_dict.pt')
    with pytest.raises(DataError, match='submission_ogbl_tiny: cannot be loaded'):
        load_ogb('ogbl-tiny', tmp_path)


def test_globals_that_the_user_allowed_stay_allowed(ogb: Any, split_graph: Callable[[], HeteroData],
                                                    assert_same: Callable[..., None], tmp_path: Path) -> None:
    to_ogb(split_graph(), 'ogbl-tiny', tmp_path, num_negatives=3)
    with torch.serialization.safe_globals(NUMPY):
        before = set(torch.serialization.get_safe_globals())
        for _ in range(2):
            assert_same(from_ogb(load_ogb('ogbl-tiny', tmp_path)), split_graph())
        assert set(torch.serialization.get_safe_globals()) == before
