"""Tests of OGB's files: there and back."""
from __future__ import annotations

import gzip
import io
import shutil
import sys
import urllib.error
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import torch
from torch_geometric.data import HeteroData

from tvdiff_pyg.datasets import DataError
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.transforms import RATED_BY, RATES
from tvdiff_pyg.transforms.ogb import from_ogb, load_ogb, to_ogb

PARTS = {'train': 'edge_index', 'valid': 'val_edge_label_index', 'test': 'edge_label_index'}


def known(data: HeteroData) -> InteractionMatrix:
    edges = torch.cat([data[RATES][name] for name in PARTS.values()], dim=1)
    return InteractionMatrix(edges, data['user'].num_nodes, data['item'].num_nodes)


@pytest.mark.parametrize('metric', ['mrr', 'hits@5'])
def test_round_trip(ogb: Any, split_graph: Callable[[], HeteroData], assert_same: Callable[..., None], tmp_path: Path,
                    metric: str, capsys: pytest.CaptureFixture) -> None:
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


def test_a_held_out_item_that_training_lacks_survives(ogb: Any, split_graph: Callable[[], HeteroData],
                                                      assert_same: Callable[..., None], tmp_path: Path) -> None:
    data = split_graph()
    store = data[RATES]
    store.edge_index = store.edge_index[:, store.edge_index[1] != int(store.val_edge_label_index[1, 0])]
    data[RATED_BY].edge_index = store.edge_index.flip([0])
    to_ogb(data, 'ogbl-tiny', tmp_path, num_negatives=3)
    assert_same(from_ogb(load_ogb('ogbl-tiny', tmp_path)), data)


@pytest.mark.parametrize('metric', ['mrr', 'hits@5'])
def test_negatives(ogb: Any, split_graph: Callable[[], HeteroData], tmp_path: Path, metric: str) -> None:
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


def test_negatives_to_the_last_one(ogb: Any, split_graph: Callable[[], HeteroData], tmp_path: Path) -> None:
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


def test_bad_arguments(ogb: Any, split_graph: Callable[[], HeteroData], graph: Callable[[], HeteroData],
                       tmp_path: Path) -> None:
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


def test_a_write_that_fails_leaves_nothing(ogb: Any, split_graph: Callable[[], HeteroData], tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    from ogb.io import DatasetSaver

    monkeypatch.setattr(DatasetSaver, 'copy_mapping_dir', lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        to_ogb(split_graph(), 'ogbl-tiny', tmp_path, num_negatives=3)
    assert not list(tmp_path.iterdir())


def test_a_graph_of_one_node_type(ogb: Any, distributed: Callable[[Path], Path], save_as_in_2020: Callable[..., None],
                                  tmp_path: Path) -> None:
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


def test_ids_that_do_not_fit(ogb: Any, distributed: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = distributed(tmp_path)
    with gzip.open(folder / 'mapping' / 'nodeidx2drugid.csv.gz', 'wt') as file:
        file.write('node idx,drug id\n0,DB0\n')
    with pytest.raises(DataError, match='nodeidx2drugid.csv.gz: must hold a header and then index and id'):
        from_ogb(load_ogb('ogbl-ddi', tmp_path))


def test_pairs_out_of_range(ogb: Any, distributed: Callable[[Path], Path], save_as_in_2020: Callable[..., None],
                            tmp_path: Path) -> None:
    folder = distributed(tmp_path)
    save_as_in_2020({'edge': np.array([[4, 6]])}, folder / 'split' / 'target' / 'test.pt')
    with pytest.raises(DataError, match='test: .*indices from 4 to 6; they must lie in 0..5'):
        from_ogb(load_ogb('ogbl-ddi', tmp_path))


def test_knowledge_graphs_are_refused(ogb: Any, distributed: Callable[[Path], Path],
                                      save_as_in_2020: Callable[..., None], tmp_path: Path) -> None:
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


def test_what_cannot_be_had(ogb: Any, split_graph: Callable[[], HeteroData], tmp_path: Path,
                            monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_question_that_nobody_answers(ogb: Any, distributed: Callable[[Path], Path], tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    (distributed(tmp_path) / 'RELEASE_v1.txt').rename(tmp_path / 'ogbl_ddi' / 'RELEASE_v0.txt')
    monkeypatch.setattr(sys, 'stdin', io.StringIO(''))
    with pytest.raises(DataError, match='ogb asks whether to update or download, and nobody answers'):
        load_ogb('ogbl-ddi', tmp_path)
