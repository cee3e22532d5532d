"""What of the comparison with RecBole needs no RecBole."""
from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks import verify_lightgcn  # noqa: E402


def _row(by: str, seed: int, value: float) -> dict:
    return {'by': by, 'start': 'xavier', 'seed': seed, **{name: value for name in verify_lightgcn.METRICS}}


def test_rows_are_kept_until_there_are_new_ones() -> None:
    old = [_row('recbole', 0, 0.5), _row('ours', 0, 0.4), _row('ours', 1, 0.3)]
    rows = verify_lightgcn.replaced(old, [_row('ours', 0, 0.25)])
    assert rows == [old[0], _row('ours', 0, 0.25), old[2]]
    assert all(line['seeds'] == [0] and line['difference_percent'] == -50 for line in verify_lightgcn.summary(rows))
