"""OGB's format and evaluator; all but the first tests need ogb."""
from __future__ import annotations

import gzip
import io
import os
import pickle
import shutil
import struct
import subprocess
import sys
import urllib.error
import zipfile
from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import GlobalStorage

from tvdiff_pyg.datasets import DataError, interaction_data
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn import TVDiffConv
from tvdiff_pyg.transforms import RATED_BY, RATES, HoldOut
from tvdiff_pyg.transforms.ogb import evaluate_ogb, from_ogb, load_ogb, pair_scorer, to_ogb

# What ogb's own loading needs to be allowed; not fit for files of others, see test_arrays_of_wild_bytes_are_refused.
NUMPY = [np.ndarray, np.dtype, type(np.dtype('int64')), np.empty(0).__reduce__()[0], np.int64(0).__reduce__()[0],
         GlobalStorage, DataEdgeAttr, DataTensorAttr]
PARTS = {'train': 'edge_index', 'valid': 'val_edge_label_index', 'test': 'edge_label_index'}


@pytest.fixture
def ogb() -> Any:
    return pytest.importorskip('ogb', reason='ogb is not installed: pip install "tvdiff-pyg[ogb]"')


def graph() -> HeteroData:
    """12 users, 30 items, with ids that a careless CSV would change."""
    users = ['007', '7', 'a,b', 'say "é"', ' blank ', '', *(f'u{k}' for k in range(6))]
    users[5] = 'two\nlines'
    pairs = [(u, i) for u in range(12) for i in range(30) if (5 * u + 3 * i) % 7 < 3 and (u, i) != (0, 29)]
    text = ([users[u] for u, _ in pairs], [f'i{i}' for _, i in pairs])
    test = ([users[1], users[2], users[2], users[9], 'new'], ['i2', 'i5', 'i0', 'i28', 'i1'])
    return interaction_data('tiny', text, test, checksum='0' * 64,
                            item_attributes={'title': {'i3': 'Amélie', 'i4': 'M'}, 'year': {'i3': 2001}})


def split_graph() -> HeteroData:
    return HoldOut(ratio=0.2, seed=3)(graph())


def known(data: HeteroData) -> InteractionMatrix:
    edges = torch.cat([data[RATES][name] for name in PARTS.values()], dim=1)
    return InteractionMatrix(edges, data['user'].num_nodes, data['item'].num_nodes)


def assert_same(out: HeteroData, data: HeteroData) -> None:
    for name in PARTS.values():
        assert torch.equal(out[RATES][name], data[RATES][name]), name
    assert set(out[RATES].keys()) == set(data[RATES].keys())
    assert torch.equal(out[RATED_BY].edge_index, data[RATED_BY].edge_index)
    for name in ('user_id', 'item_id', 'name', 'checksum', 'dropped', 'item_attributes'):
        assert out[name] == data[name], name
    assert (out['user'].num_nodes, out['item'].num_nodes) == (data['user'].num_nodes, data['item'].num_nodes)
    assert out.validate()


# What works without ogb ##############################################################################################


def test_without_ogb_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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


def test_pair_scorer_is_the_scorers_entries() -> None:
    scores = torch.randn(300, 7, generator=torch.Generator().manual_seed(0))
    blocks = []

    def scorer(users: Tensor) -> Tensor:
        blocks.append(users.numel())
        return scores[users]

    pairs = torch.stack([torch.randint(300, (2000,), generator=torch.Generator().manual_seed(1)),
                         torch.randint(7, (2000,), generator=torch.Generator().manual_seed(2))])
    assert torch.equal(pair_scorer(scorer)(pairs), scores[pairs[0], pairs[1]])
    assert blocks == [128, 128, 128]
    assert torch.equal(pair_scorer(scorer)(pairs[:, :1]), scores[pairs[0, :1], pairs[1, :1]])
    assert pair_scorer(scorer)(pairs[:, :0]).numel() == 0


# There and back ######################################################################################################


@pytest.mark.parametrize('metric', ['mrr', 'hits@5'])
def test_round_trip(ogb: Any, tmp_path: Path, metric: str, capsys: pytest.CaptureFixture) -> None:
    data = split_graph()
    before = data.to_dict()
    folder = to_ogb(data, 'ogbl-tiny-set', tmp_path / 'a', eval_metric=metric, num_negatives=5)
    assert folder == tmp_path / 'a' / 'submission_ogbl_tiny_set'
    assert capsys.readouterr() == ('', '')
    assert all(torch.equal(before[RATES][name], data[RATES][name]) for name in PARTS.values())
    shutil.move(tmp_path / 'a', tmp_path / 'b')
    for _ in ('from the raw files', 'from the processed ones'):
        dataset = load_ogb('ogbl-tiny-set', tmp_path / 'b')
        assert (dataset.name, dataset.eval_metric, dataset.task_type) == ('ogbl-tiny-set', metric, 'link prediction')
        assert torch.equal(dataset[0].edge_index_dict[RATES], data[RATES].edge_index)
        assert_same(from_ogb(dataset), data)


def test_a_held_out_item_that_training_lacks_survives(ogb: Any, tmp_path: Path) -> None:
    data = split_graph()
    store = data[RATES]
    store.edge_index = store.edge_index[:, store.edge_index[1] != int(store.val_edge_label_index[1, 0])]
    data[RATED_BY].edge_index = store.edge_index.flip([0])
    to_ogb(data, 'ogbl-tiny', tmp_path, num_negatives=3)
    assert_same(from_ogb(load_ogb('ogbl-tiny', tmp_path)), data)


def test_ogbs_own_reader_takes_it(ogb: Any, tmp_path: Path) -> None:
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


@pytest.mark.parametrize('metric', ['mrr', 'hits@5'])
def test_negatives(ogb: Any, tmp_path: Path, metric: str) -> None:
    data = split_graph()
    matrix = known(data)
    splits = []
    for folder, seed in (('a', 0), ('b', 0), ('c', 1)):
        to_ogb(data, 'ogbl-tiny', tmp_path / folder, eval_metric=metric, num_negatives=12, seed=seed)
        splits.append(load_ogb('ogbl-tiny', tmp_path / folder).get_edge_split())
    for part in ('valid', 'test'):
        if metric == 'mrr':
            source, negative = (splits[0][part][name] for name in ('source_node', 'target_node_neg'))
            assert negative.shape == (data[RATES][PARTS[part]].size(1), 12)
            assert not matrix.contains(source.unsqueeze(1), negative).any()
            assert all(row.unique().numel() == 12 for row in negative)
            name = 'target_node_neg'
        else:
            negative = splits[0][part]['edge_neg']
            assert negative.shape == (12, 2) and negative.unique(dim=0).shape == (12, 2)
            assert not matrix.contains(negative[:, 0], negative[:, 1]).any()
            name = 'edge_neg'
        first, again, other = (split[part][name] for split in splits)
        assert torch.equal(first, again) and not torch.equal(first, other)
    assert set(splits[0]['train']) == ({'source_node', 'target_node'} if metric == 'mrr' else {'edge'})


def test_negatives_to_the_last_one(ogb: Any, tmp_path: Path) -> None:
    data = split_graph()
    matrix = known(data)
    free = int((30 - matrix.user_degree).sum())
    to_ogb(data, 'ogbl-all', tmp_path, eval_metric='hits@5', num_negatives=free)
    negative = load_ogb('ogbl-all', tmp_path).get_edge_split()['test']['edge_neg']
    assert negative.unique(dim=0).size(0) == free and not matrix.contains(negative[:, 0], negative[:, 1]).any()
    with pytest.raises(ValueError, match=f"'num_negatives' must lie in 5..{free} .*got {free + 1}"):
        to_ogb(data, 'ogbl-more', tmp_path, eval_metric='hits@5', num_negatives=free + 1)
    with pytest.raises(ValueError, match=r"'num_negatives' must lie in 1..\d+ .*got 31"):
        to_ogb(data, 'ogbl-more', tmp_path, num_negatives=31)
    assert [path.name for path in tmp_path.iterdir()] == ['submission_ogbl_all']


def test_bad_arguments(ogb: Any, tmp_path: Path) -> None:
    data = split_graph()
    for name in ('tiny', 'ogbn-tiny', 'ogbl-', 'ogbl-../x', 'ogbl-a/b'):
        with pytest.raises(ValueError, match="'name' must be ogbl- and then"):
            to_ogb(data, name, tmp_path)
    for metric in ('hits', 'hits@0', 'rocauc'):
        with pytest.raises(ValueError, match="'eval_metric' must be 'mrr', or 'hits@50'"):
            to_ogb(data, 'ogbl-tiny', tmp_path, eval_metric=metric)
    with pytest.raises(ValueError, match="'num_negatives' must lie in 50.."):
        to_ogb(data, 'ogbl-tiny', tmp_path, eval_metric='hits@50', num_negatives=49)
    with pytest.raises(ValueError, match="'data' has no valid edges .*apply tvdiff_pyg.transforms.HoldOut first"):
        to_ogb(graph(), 'ogbl-tiny', tmp_path)
    with pytest.raises(ValueError, match="'data' must be a HeteroData .*got dict; of a Split, pass its 'data'"):
        to_ogb({}, 'ogbl-tiny', tmp_path)  # type: ignore[arg-type]
    bare = split_graph()
    del bare['user_id']
    with pytest.raises(ValueError, match="'data' has no user_id; build it with tvdiff_pyg.datasets.interaction_data"):
        to_ogb(bare, 'ogbl-tiny', tmp_path)
    featured = split_graph()
    featured['item'].x = torch.zeros(30, 2)
    with pytest.raises(ValueError, match="'data' holds 'x' of item: features and edge attributes are not written"):
        to_ogb(featured, 'ogbl-tiny', tmp_path)
    assert not list(tmp_path.iterdir())
    to_ogb(data, 'ogbl-tiny', tmp_path, num_negatives=3)
    with pytest.raises(ValueError, match="'root' already holds submission_ogbl_tiny: delete"):
        to_ogb(data, 'ogbl-tiny', tmp_path, num_negatives=3)


def test_a_write_that_fails_leaves_nothing(ogb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ogb.io import DatasetSaver

    monkeypatch.setattr(DatasetSaver, 'copy_mapping_dir', lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        to_ogb(split_graph(), 'ogbl-tiny', tmp_path, num_negatives=3)
    assert not list(tmp_path.iterdir())


# Data sets as OGB distributes them ###################################################################################


def write_csv(path: Path, rows: Any) -> None:
    with gzip.open(path, 'wt') as file:
        np.savetxt(file, np.asarray(rows), fmt='%d', delimiter=',')


def save_as_in_2020(split: Any, path: Path) -> None:
    """As the files of OGB's own data sets are: torch's format before the zip, numpy's module names before 2."""
    stream = io.BytesIO()
    torch.save(split, stream, _use_new_zipfile_serialization=False)
    content = stream.getvalue().replace(b'numpy._core.multiarray', b'numpy.core.multiarray')
    assert b'numpy.core.multiarray' in content
    path.write_bytes(content)


def distributed(root: Path) -> Path:
    """A path of 6 drugs in the layout of ogbl-ddi: one direction an edge, ogb adds the other."""
    folder = root / 'ogbl_ddi'
    for name in ('raw', 'split/target', 'mapping'):
        (folder / name).mkdir(parents=True)
    (folder / 'RELEASE_v1.txt').write_text('')
    edge = [[0, 1], [1, 2], [2, 3], [3, 4], [3, 4]]
    write_csv(folder / 'raw' / 'edge.csv.gz', edge)
    write_csv(folder / 'raw' / 'num-node-list.csv.gz', [6])
    write_csv(folder / 'raw' / 'num-edge-list.csv.gz', [len(edge)])
    with gzip.open(folder / 'mapping' / 'nodeidx2drugid.csv.gz', 'wt') as file:
        file.write('node idx,drug id\n' + ''.join(f'{k},DB{k:05d}\n' for k in range(6)))
    negative = np.array([[0, 3], [1, 4], [2, 5]])
    for part, value in (('train', {'edge': np.array(edge)}),
                        ('valid', {'edge': np.array([[0, 2], [1, 0]]), 'edge_neg': negative}),
                        ('test', {'edge': np.array([[4, 5], [2, 0]]), 'edge_neg': negative})):
        save_as_in_2020(value, folder / 'split' / 'target' / f'{part}.pt')
    return folder


def test_a_graph_of_one_node_type(ogb: Any, tmp_path: Path) -> None:
    folder = distributed(tmp_path)
    dataset = load_ogb('ogbl-ddi', tmp_path)
    assert Path(dataset.root) == folder
    assert torch.equal(dataset.get_edge_split()['test']['edge_neg'], torch.tensor([[0, 3], [1, 4], [2, 5]]))
    data = from_ogb(dataset)
    assert (data['user'].num_nodes, data['item'].num_nodes) == (6, 6)
    assert data.user_id == data.item_id == [f'DB{k:05d}' for k in range(6)]
    assert data[RATES].edge_index.t().tolist() == [[0, 1], [1, 0], [1, 2], [2, 1], [2, 3], [3, 2], [3, 4], [4, 3]]
    assert data[RATES].val_edge_label_index.t().tolist() == [[0, 2], [2, 0]]  # 1-0 is trained on
    assert data[RATES].edge_label_index.t().tolist() == [[4, 5], [5, 4]]  # 2-0 is in validation
    assert (data.dropped['validation_pairs_seen'], data.dropped['test_pairs_seen']) == (2, 2)
    assert data.dropped['duplicate_pairs'] == 2
    assert data.name == 'ogbl-ddi'
    shutil.rmtree(folder / 'mapping')
    again = from_ogb(dataset)
    assert again.user_id == [str(k) for k in range(6)] and again.checksum == data.checksum
    save_as_in_2020({'edge': np.array([[0, 5]])}, folder / 'split' / 'target' / 'test.pt')
    assert from_ogb(dataset).checksum != data.checksum


def test_ids_that_do_not_fit(ogb: Any, tmp_path: Path) -> None:
    folder = distributed(tmp_path)
    with gzip.open(folder / 'mapping' / 'nodeidx2drugid.csv.gz', 'wt') as file:
        file.write('node idx,drug id\n0,DB0\n')
    with pytest.raises(DataError, match='nodeidx2drugid.csv.gz: must hold a header and then index and id'):
        from_ogb(load_ogb('ogbl-ddi', tmp_path))


def test_pairs_out_of_range(ogb: Any, tmp_path: Path) -> None:
    folder = distributed(tmp_path)
    save_as_in_2020({'edge': np.array([[4, 6]])}, folder / 'split' / 'target' / 'test.pt')
    with pytest.raises(DataError, match='test: .*indices from 4 to 6; they must lie in 0..5'):
        from_ogb(load_ogb('ogbl-ddi', tmp_path))


def test_knowledge_graphs_are_refused(ogb: Any, tmp_path: Path) -> None:
    folder = distributed(tmp_path)
    for part in PARTS:
        save_as_in_2020({'head': np.array([0]), 'tail': np.array([1])}, folder / 'split' / 'target' / f'{part}.pt')
    with pytest.raises(ValueError, match="'dataset' must split pairs of nodes .*holds 'head', 'tail'"):
        from_ogb(load_ogb('ogbl-ddi', tmp_path))

    from ogb.io import DatasetSaver
    saver = DatasetSaver('ogbl-two', is_hetero=True, version=1, root=str(tmp_path / 'submission'))
    edge = np.array([[0, 1], [0, 1]])
    saver.save_graph_list([{'edge_index_dict': {('a', 'r', 'b'): edge, ('b', 's', 'a'): edge},
                            'num_nodes_dict': {'a': 2, 'b': 2}}])
    saver.save_split({part: {'edge': edge} for part in PARTS}, 'random')
    (tmp_path / 'README.md').write_text('')
    saver.copy_mapping_dir(str(tmp_path))
    saver.save_task_info('link prediction', 'mrr')
    saver.get_meta_dict()
    with pytest.raises(ValueError, match="'dataset' must have one relation between two node types.*has 2"):
        from_ogb(load_ogb('ogbl-two', tmp_path))


def test_what_cannot_be_had(ogb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ogb.linkproppred import dataset_pyg

    def unreachable(url: str) -> bool:
        raise urllib.error.URLError('no route to host')

    monkeypatch.setattr(dataset_pyg, 'decide_download', unreachable)
    for _ in range(2):  # the second time must not find a folder that the first one left
        with pytest.raises(DataError, match='ogbl_collab: cannot be loaded .*no route to host'):
            load_ogb('ogbl-collab', tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match='Invalid dataset name ogbl-nothing'):
        load_ogb('ogbl-nothing', tmp_path)
    folder = to_ogb(split_graph(), 'ogbl-tiny', tmp_path, num_negatives=3)
    (folder / 'tiny' / 'raw' / 'edge_index_dict.npz').unlink()
    with pytest.raises(DataError, match='edge_index_dict.npz'):  # and nothing is downloaded in its place
        load_ogb('ogbl-tiny', tmp_path)
    assert (folder / 'tiny' / 'split').is_dir()


def test_a_question_that_nobody_answers(ogb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (distributed(tmp_path) / 'RELEASE_v1.txt').rename(tmp_path / 'ogbl_ddi' / 'RELEASE_v0.txt')
    monkeypatch.setattr(sys, 'stdin', io.StringIO(''))
    with pytest.raises(DataError, match='ogb asks whether to update or download, and nobody answers'):
        load_ogb('ogbl-ddi', tmp_path)


# Files that would run something ######################################################################################


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
def test_a_foreign_pickle_is_not_run(ogb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, payload: str,
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


def test_an_old_file_is_not_run_either(ogb: Any, tmp_path: Path) -> None:
    folder = distributed(tmp_path)
    marker = tmp_path / 'marker'
    torch.save({'edge': Evil(marker)}, folder / 'split' / 'target' / 'valid.pt', _use_new_zipfile_serialization=False)
    with pytest.raises(DataError, match='posix.mkdir'):
        load_ogb('ogbl-ddi', tmp_path).get_edge_split()
    assert not marker.exists()


@pytest.mark.parametrize('dtype', [b'O', b'i8'])
def test_arrays_of_wild_bytes_are_refused(ogb: Any, tmp_path: Path, dtype: bytes) -> None:
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
def test_arrays_of_other_types_are_refused(ogb: Any, tmp_path: Path, array: np.ndarray) -> None:
    folder = to_ogb(split_graph(), 'ogbl-tiny', tmp_path, num_negatives=3)
    torch.save({'train': array}, folder / 'tiny' / 'split' / 'given' / 'split_dict.pt')
    with pytest.raises(DataError, match='tiny: cannot be loaded .(arrays of .* are not read|an array that)'):
        load_ogb('ogbl-tiny', tmp_path).get_edge_split()


@pytest.mark.parametrize('dtype', ['int32', 'int64', 'float32', 'float64'])
def test_arrays_of_numbers_come_back(ogb: Any, tmp_path: Path, dtype: str) -> None:
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


def test_pickles_in_arrays_are_refused(ogb: Any, tmp_path: Path) -> None:
    folder = to_ogb(split_graph(), 'ogbl-tiny', tmp_path, num_negatives=3)
    marker = tmp_path / 'marker'
    np.savez(folder / 'tiny' / 'raw' / 'edge_index_dict.npz', **{'user___rates___item': np.array([Evil(marker)])})
    with pytest.raises(DataError, match='allow_pickle=False'):
        load_ogb('ogbl-tiny', tmp_path)
    assert not marker.exists()


def test_broken_files(ogb: Any, tmp_path: Path) -> None:
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


def test_globals_that_the_user_allowed_stay_allowed(ogb: Any, tmp_path: Path) -> None:
    to_ogb(split_graph(), 'ogbl-tiny', tmp_path, num_negatives=3)
    with torch.serialization.safe_globals(NUMPY):
        before = set(torch.serialization.get_safe_globals())
        for _ in range(2):
            assert_same(from_ogb(load_ogb('ogbl-tiny', tmp_path)), split_graph())
        assert set(torch.serialization.get_safe_globals()) == before


# The evaluator #######################################################################################################


def table(scores: Dict[tuple, float]) -> Any:
    return lambda pairs: torch.tensor([scores[pair] for pair in map(tuple, pairs.t().tolist())])


def test_hits_by_hand(ogb: Any) -> None:
    part = {'edge': torch.tensor([[0, 1], [0, 2], [0, 3], [0, 4]]), 'edge_neg': torch.tensor([[1, 1], [1, 2], [1, 3]])}
    score = table({(0, 1): 5.0, (0, 2): 3.0, (0, 3): 2.5, (0, 4): 0.5, (1, 1): 3.0, (1, 2): 2.0, (1, 3): 1.0})
    # Best negative 3: above it 5 alone, the tie at 3 does not count; second 2: 5, 3, 2.5; third 1: the same.
    assert evaluate_ogb(score, part, ks=[1, 2, 3]) == {'hits@1': 0.25, 'hits@2': 0.75, 'hits@3': 0.75}
    assert evaluate_ogb(score, part, ks=[2], batch_size=2) == {'hits@2': 0.75}


def test_mrr_by_hand(ogb: Any) -> None:
    part = {'source_node': torch.tensor([0, 1]), 'target_node': torch.tensor([9, 8]),
            'target_node_neg': torch.tensor([[1, 2, 3], [4, 5, 6]])}
    score = table({(0, 9): 2.0, (0, 1): 3.0, (0, 2): 1.0, (0, 3): 2.0,  # rank 2 or 3, by the tie: 2.5
                   (1, 8): 9.0, (1, 4): 1.0, (1, 5): 2.0, (1, 6): 3.0})  # rank 1
    want = {'mrr': (1 / 2.5 + 1) / 2, 'hits@1': 0.5, 'hits@3': 1.0, 'hits@10': 1.0}
    for batch_size in (65536, 4):
        assert evaluate_ogb(score, part, batch_size=batch_size) == pytest.approx(want, abs=1e-7)


def test_scores_of_the_layer_and_of_a_recommender(ogb: Any, tmp_path: Path) -> None:
    data = split_graph()
    to_ogb(data, 'ogbl-hits', tmp_path, eval_metric='hits@5', num_negatives=20)
    part = load_ogb('ogbl-hits', tmp_path).get_edge_split()['test']
    conv = TVDiffConv(12, 8)
    code = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        items = conv((None, None), data[RATES].edge_index, size=(12, 30))
    dense = code @ items.t()
    positive, negative = (dense[pairs[:, 0], pairs[:, 1]] for pairs in (part['edge'], part['edge_neg']))
    want = {f'hits@{k}': float((positive > negative.sort(descending=True).values[k - 1]).double().mean())
            for k in (1, 5, 20)}
    assert 0 < want['hits@20'] and len(set(want.values())) > 1
    assert evaluate_ogb(lambda pairs: conv.correlate(code, items, pairs), part, ks=[1, 5, 20]) == want
    assert evaluate_ogb(pair_scorer(lambda users: dense[users]), part, ks=[1, 5, 20]) == want


def test_what_the_evaluator_refuses(ogb: Any) -> None:
    part = {'edge': torch.tensor([[0, 1]]), 'edge_neg': torch.tensor([[1, 1], [1, 2]])}

    def one(pairs: Tensor) -> Tensor:
        return torch.ones(pairs.size(1))

    for ks in ([3], [0], []):  # ogb itself gives 1.0 for K = 3
        with pytest.raises(ValueError, match="'ks' must lie in 1..2, the number of negative edges"):
            evaluate_ogb(one, part, ks)
    with pytest.raises(ValueError, match="'score' gives NaN"):
        evaluate_ogb(lambda pairs: one(pairs) * torch.nan, part, [1])
    with pytest.raises(ValueError, match=r"'score' must return one score a pair, \[1\]; got \[1, 1\]"):
        evaluate_ogb(lambda pairs: one(pairs).view(-1, 1), part, [1])
    for wrong in ({'edge': part['edge']}, {'edge_neg': part['edge']}, {**part, 'edge': part['edge'][:0]}, {}):
        with pytest.raises(ValueError, match="'part' must be the valid or test part of a split"):
            evaluate_ogb(one, wrong, [1])
