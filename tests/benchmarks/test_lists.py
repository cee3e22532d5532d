"""Lists for everybody, and rows for new items."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip('pytorch_lightning')
from benchmarks import lists, new_items  # noqa: E402
from tvdiff_pyg.interaction_matrix import InteractionMatrix  # noqa: E402
from tvdiff_pyg.training import Run  # noqa: E402


def test_every_way_is_measured_on_all_users(run_folder: Path, tmp_path: Path) -> None:
    for package in ('implicit', 'faiss', 'pyarrow'):
        pytest.importorskip(package)
    run = Run.load(run_folder)
    options = lists.argparse.Namespace(k=5, queries=7)
    for name, way in lists.WAYS.items():
        got = way(run if name != 'dense' else Run.load(run_folder), options)
        assert got['users'] == (7 if name in ('exact', 'flat', 'ivf', 'hnsw') else 40) and got['s'] > 0
    record = lists.main(['--run', str(run_folder), '-k', '5', '--ways', 'recommend_all', '--json',
                         str(tmp_path / 'x.json')])
    assert record == json.loads((tmp_path / 'x.json').read_text())
    way = record['ways']['recommend_all']
    assert way['users_per_s'] == pytest.approx(way['users'] / way['s'], abs=0.1) and way['peak_mb'] >= way['loaded_mb']


def test_hidden_items_and_what_is_given_of_them() -> None:
    seen = torch.rand(60, 12, generator=torch.Generator().manual_seed(0)) < torch.linspace(0.1, 0.9, 12)
    train = InteractionMatrix(seen.nonzero().t(), 60, 12)
    hidden = new_items.hide(train, 0.5, least=20, seed=1)
    eligible = train.item_degree >= 20
    assert int(hidden.sum()) == round(0.5 * int(eligible.sum())) and not (hidden & ~eligible).any()
    edges = train.edge_index[:, hidden[train.edge_index[1]]]
    given = new_items.some(edges, 3, seed=0)
    assert torch.equal(torch.bincount(given[1], minlength=12), 3 * hidden.long())
    assert bool(train.contains(*given).all())
    assert new_items.some(edges, 100, 0).size(1) == edges.size(1)


def test_recall_counts_hidden_items_among_all_and_among_themselves() -> None:
    wanted = InteractionMatrix(torch.tensor([[0, 0, 2], [25, 26, 27]]), 3, 40)
    seen = InteractionMatrix(torch.tensor([[0], [0]]), 3, 40)
    hidden = torch.arange(40) >= 25
    score = torch.zeros(3, 40)
    score[0, 25], score[2, :25] = 1.0, 1.0  # user 2: 25 items before the one that is wanted
    among_all, among_hidden = new_items.recall(lambda users: score[users], wanted, seen, hidden)
    assert among_all == pytest.approx((1 / 2 + 0) / 2) and among_hidden == pytest.approx(1.0)


def test_all_of_a_hidden_item_nearly_gives_it_back(tmp_path: Path) -> None:
    cell = new_items.measure(new_items.argparse.Namespace(
        dataset='movielens-small', data_root=None, share=0.1, least=20, work=str(tmp_path),
        set=['model.hidden_channels=8', 'training.max_epochs=2', 'training.thermo_users=0']), seed=0)
    assert cell['hidden'] > 20 and cell['users'] > 100
    assert cell['rows']['all'][1] > cell['rows']['1'][1] and cell['neighbours']['all'][1] > 0.5
    assert all(0 <= value <= 1 for pair in cell['rows'].values() for value in pair)
