"""The comparison with published figures, on planted data."""
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, List

import pytest
import torch
from torch_geometric.data import HeteroData

pytest.importorskip('pytorch_lightning')
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks import verify  # noqa: E402
from tvdiff_pyg.testing import planted_blocks  # noqa: E402
from tvdiff_pyg.transforms import RATES  # noqa: E402


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> List[str]:
    """Two models on a data set that both must solve, measured in this process; the pairs that were."""
    blocks = planted_blocks(generator=torch.Generator().manual_seed(0))
    data = HeteroData()
    data['user'].num_nodes, data['item'].num_nodes = blocks.num_users, blocks.num_items
    data[RATES].edge_index = blocks.edge_index
    user = torch.arange(blocks.num_users)
    data[RATES].edge_label_index = torch.stack([user, blocks.held_out.view(-1)])
    data.name, data.checksum = 'planted', 'abc'
    measured: List[str] = []

    def load(name: str, root: Any) -> HeteroData:
        assert (name, root) == ('planted', 'here')
        return data

    def here(module: str, arguments: List[str]) -> Any:
        assert module == 'benchmarks.verify'
        before = capsys.readouterr().out
        assert verify.main(arguments) == []
        out = capsys.readouterr().out
        print(before, end='')
        measured.append(arguments[1])
        return json.loads(out.splitlines()[-1])

    monkeypatch.setattr(verify, 'load_dataset', load)
    monkeypatch.setattr(verify, 'child', here)
    monkeypatch.setattr(verify, 'PUBLISHED', {
        ('ease', 'planted'): verify.Published(1.0, 1.005, {'regularization': 1.0}, 'us'),
        ('gf-cf', 'planted'): verify.Published(0.5, 1.0, {'rank': 4, 'alpha': 0.3}, 'nobody')})
    return measured


def test_it_measures_writes_and_prints(planted: List[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / 'verify.json'
    options = ['--datasets', 'planted', '--data-root', 'here', '--json', str(file)]
    rows = verify.main(['--models', 'gf-cf', 'ease', *options])
    assert planted == ['gf-cf', 'ease']
    assert [row['recall@20'] for row in rows] == [1, 1] and [row['ndcg@20'] for row in rows] == [1, 1]
    far, near = rows
    assert far['difference_recall@20_percent'] == 100 and far['difference_ndcg@20_percent'] == 0
    assert near['difference_ndcg@20_percent'] == pytest.approx(-100 / 201)
    assert [verify.agrees(row) for row in rows] == [False, True]
    for row in rows:
        assert row['peak_rss_mb'] > 100 and row['fit_s'] > 0 and row['rank_s'] > 0  # of the whole process
        assert (row['protocol'], row['checksum'], row['test_users']) == ('paper', 'abc', 32)
    assert near['settings'] == {'regularization': 1.0}
    assert json.loads(file.read_text())['rows'] == [near, far]  # in the order of PUBLISHED
    printed = capsys.readouterr().out
    assert '| ease | planted | 1.0000 / 1.0000 | 1.0000 / 1.0050 | +0.00 / -0.50 | ' in printed
    assert '1 of 2 agree within 1 %' in printed

    again = verify.main(['--models', 'ease', *options])  # keeps what is not measured anew
    assert json.loads(file.read_text())['rows'] == [*again, far]


def test_all_figures_have_a_model_and_a_data_set() -> None:
    from tvdiff_pyg.datasets import DATASETS

    for (model, dataset), published in verify.PUBLISHED.items():
        assert model in verify.MODELS and dataset in DATASETS
        assert 0 < published.ndcg < 1 and 0 < published.recall < 1 and published.source
