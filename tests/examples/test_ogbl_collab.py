"""The collab example on a small data set in the layout of ogbl-collab, by the loading code of the real one."""
from __future__ import annotations

import gzip
import re
import runpy
import sys
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
import torch

pytest.importorskip('ogb', reason='ogb is not installed: pip install "tvdiff-pyg[ogb]"')
from tvdiff_pyg.transforms.ogb import load_ogb  # noqa: E402

EXAMPLE = Path(__file__).resolve().parents[2] / 'examples' / 'ogbl_collab.py'
NUM_AUTHORS, NUM_GROUPS = 120, 6


def collaborations() -> Dict[str, Dict[str, np.ndarray]]:
    """Authors write within their group; the split is by year: up to 2017, 2018, 2019, as in ogbl-collab."""
    rng = np.random.default_rng(0)
    group = np.arange(NUM_AUTHORS) % NUM_GROUPS
    upper = np.stack(np.triu_indices(NUM_AUTHORS, 1), axis=1)
    inside = rng.permutation(upper[group[upper[:, 0]] == group[upper[:, 1]]])
    across = rng.permutation(upper[group[upper[:, 0]] != group[upper[:, 1]]])
    split: Dict[str, Dict[str, np.ndarray]] = {}
    for part, first, last, years in (('train', 0, 500, (2010, 2018)), ('valid', 500, 600, (2018, 2019)),
                                     ('test', 600, 700, (2019, 2020))):
        edge = inside[first:last]
        if part == 'train':
            edge = np.concatenate([edge, edge[:50]])  # some write together in several years
        split[part] = {'edge': edge, 'weight': rng.integers(1, 4, len(edge)), 'year': rng.integers(*years, len(edge))}
    split['valid']['edge_neg'], split['test']['edge_neg'] = across[:400], across[400:800]
    return split


def features() -> np.ndarray:
    """128 numbers an author, as in ogbl-collab, of which eight tell the group through noise."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(NUM_AUTHORS, 128)).astype(np.float32)
    centre = rng.normal(size=(NUM_GROUPS, 8))
    x[:, :8] += 2 * centre[np.arange(NUM_AUTHORS) % NUM_GROUPS]
    return x.round(4)


def write_csv(path: Path, rows: Any, fmt: str = '%d') -> None:
    with gzip.open(path, 'wt') as file:
        np.savetxt(file, np.asarray(rows), fmt=fmt, delimiter=',')


def write_distributed(root: Path) -> None:
    """As OGB's archive unpacks: raw/*.csv.gz with one direction an edge, split/time/*.pt, mapping/, RELEASE_v1.txt."""
    folder = root / 'ogbl_collab'
    for name in ('raw', 'split/time', 'mapping'):
        (folder / name).mkdir(parents=True)
    (folder / 'RELEASE_v1.txt').write_text('')
    split = collaborations()
    write_csv(folder / 'raw' / 'edge.csv.gz', split['train']['edge'])
    write_csv(folder / 'raw' / 'edge_weight.csv.gz', split['train']['weight'])
    write_csv(folder / 'raw' / 'edge_year.csv.gz', split['train']['year'])
    write_csv(folder / 'raw' / 'node-feat.csv.gz', features(), '%.4f')
    write_csv(folder / 'raw' / 'num-node-list.csv.gz', [NUM_AUTHORS])
    write_csv(folder / 'raw' / 'num-edge-list.csv.gz', [len(split['train']['edge'])])
    for part, value in split.items():
        torch.save(value, folder / 'split' / 'time' / f'{part}.pt')


def write_saved(root: Path) -> None:
    """As OGB's DatasetSaver writes it: both directions, arrays in raw/data.npz."""
    from ogb.io import DatasetSaver

    split = collaborations()
    train = split['train']
    both = {name: np.repeat(train[name], 2)[:, None] for name in ('weight', 'year')}
    edge_index = np.concatenate([train['edge'], train['edge'][:, ::-1]], axis=1).reshape(-1, 2).T
    saver = DatasetSaver('ogbl-collab', is_hetero=False, version=1, root=str(root / 'submission'))
    saver.save_graph_list([{'edge_index': edge_index, 'num_nodes': NUM_AUTHORS, 'node_feat': features(),
                            'edge_weight': both['weight'], 'edge_year': both['year']}])
    saver.save_split(split, 'time')
    (root / 'README.md').write_text('')
    saver.copy_mapping_dir(str(root))
    saver.save_task_info('link prediction', 'hits@50')
    meta = saver.get_meta_dict()  # which never names further files: without them ogb's PyG reader leaves them out
    meta['additional edge files'] = 'edge_weight,edge_year'  # as the entry of ogbl-collab in ogb's master.csv
    torch.save(meta, saver.meta_dict_path)


def run(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *options: str) -> List[str]:
    monkeypatch.setattr(sys, 'argv', [str(EXAMPLE), '--root', str(root), '--hidden-channels', '16', '--batch-size',
                                      '200', '--lr', '0.01', '--device', 'cpu', *options])
    capsys.readouterr()
    runpy.run_path(str(EXAMPLE), run_name='__main__')
    return capsys.readouterr().out.splitlines()


def figures(line: str) -> Dict[str, float]:
    return {name: float(value) for name, value in re.findall(r'(hits@\d+) ([0-9.]+)', line)}


@pytest.mark.parametrize('write', [write_distributed, write_saved])
def test_the_layout_is_collabs(write: Any, tmp_path: Path) -> None:
    write(tmp_path)
    dataset = load_ogb('ogbl-collab', tmp_path)
    data, split = dataset[0], dataset.get_edge_split()
    # As the real one prints: x=[V, 128], edge_index=[2, 2 E], edge_weight=[2 E, 1], edge_year=[2 E, 1].
    assert (data.x.shape, data.x.dtype) == ((NUM_AUTHORS, 128), torch.float32)
    torch.testing.assert_close(data.x, torch.from_numpy(features()))
    want = collaborations()
    num_edges = 2 * len(want['train']['edge'])
    assert data.edge_index.shape == (2, num_edges)
    assert data.edge_weight.shape == data.edge_year.shape == (num_edges, 1)
    assert data.is_undirected()
    assert dataset.eval_metric == 'hits@50'
    for part, keys in want.items():
        assert set(split[part]) == set(keys)
        for name, value in keys.items():
            assert torch.equal(split[part][name], torch.from_numpy(value))
    assert torch.equal(data.edge_index[:, ::2].t(), torch.from_numpy(want['train']['edge']))
    assert torch.equal(data.edge_year[::2, 0], torch.from_numpy(want['train']['year']))


@pytest.mark.parametrize('write', [write_distributed, write_saved])
def test_the_example_learns(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                            capsys: pytest.CaptureFixture) -> None:
    write(tmp_path)
    lines = run(tmp_path, monkeypatch, capsys, '--epochs', '15')
    start = next(k for k, line in enumerate(lines) if line.startswith('ogbl-collab:'))
    assert lines[start] == 'ogbl-collab: 120 authors, 550 training pairs, 100 validation and 100 test pairs'
    epochs = [re.fullmatch(r'epoch (\d+): loss ([0-9.]+), valid hits@50 ([0-9.]+)', line)
              for line in lines[start + 1:start + 16]]
    assert [int(match.group(1)) for match in epochs if match] == list(range(1, 16))
    valid = [float(match.group(3)) for match in epochs if match]
    best = int(lines[start + 16].removeprefix('best epoch on validation: '))
    assert best == 1 + valid.index(max(valid))  # the first of the best
    assert figures(lines[start + 17])['hits@50'] == max(valid)
    test = figures(lines[start + 18])
    assert lines[start + 17].startswith('valid: ') and lines[start + 18].startswith('test: ')
    assert list(test) == ['hits@10', 'hits@50', 'hits@100']
    assert test['hits@10'] <= test['hits@50'] <= test['hits@100']
    # Scores at random put 50 / 400 = 0.125 of the pairs above the 50th negative.
    assert test['hits@50'] > 0.5


def test_the_same_seed_gives_the_same_figures_and_years_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                              capsys: pytest.CaptureFixture) -> None:
    write_distributed(tmp_path)
    first, again, recent = (run(tmp_path, monkeypatch, capsys, '--epochs', '2', *options)[-6:]
                            for options in ((), (), ('--since', '2014')))
    assert first == again != recent
    year = collaborations()['train']['year']
    assert f'{int((year >= 2014).sum())} training pairs' in recent[0]
