"""What energy and entropy cost, and the same totals written anew over one whole array."""
from __future__ import annotations

import json
import mmap
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip('pytorch_lightning')
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks import thermo  # noqa: E402


def test_totals_agree_and_memory_is_measured(run_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / 'thermo.json'
    record = thermo.main(['--run', str(run_folder), '--whole', str(run_folder), '--json', str(file)])
    assert json.loads(file.read_text()) == record
    for definition in ('ours', 'published'):
        assert max(record['whole'][definition]['relative_error'].values()) < 1e-6
        assert record['run'][definition]['energy'] == pytest.approx(record['whole'][definition]['energy'], rel=1e-9)


def test_the_peak_is_that_of_the_work() -> None:
    def work() -> float:
        fresh = mmap.mmap(-1, 100_000_000)  # an allocation may fill a hole that earlier tests left in the heap
        held = thermo.torch.frombuffer(fresh, dtype=thermo.torch.float32).fill_(1)
        time.sleep(1)  # the watcher looks every 5 ms, where it is given the processor
        return held.sum().item()

    out, peak, seconds = thermo.peak_beyond(work)
    assert out == 25e6 and peak > 50 and 1 < seconds < 60
