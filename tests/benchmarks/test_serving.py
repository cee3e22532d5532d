"""The load on the service, in a second."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip('pytorch_lightning')
pytest.importorskip('fastapi')
from benchmarks.serving import main, requests_of  # noqa: E402
from tvdiff_pyg.training import Run  # noqa: E402


def test_half_ask_by_user_and_half_by_history(run_folder: Path) -> None:
    run = Run.load(run_folder)
    bodies = [json.loads(request.partition(b'\r\n\r\n')[2]) for request in requests_of(run, 10, 5)]
    users = [body['user'] for body in bodies if 'user' in body]
    assert len(bodies) == 20 and len(set(users)) == 10 and all(body['k'] == 5 for body in bodies)
    known = set(run.split.data.item_id)
    assert all(set(body['history']) <= known for body in bodies if 'history' in body)


def test_it_measures_a_service_of_its_own(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / 'serving.json'
    main(['--run', str(run_folder), '--seconds', '0.5', '--concurrency', '1', '3', '--json', str(out)])
    result = json.loads(out.read_text())
    assert [level['concurrency'] for level in result['levels']] == [1, 3] and result['exit_status'] == 0
    for level in result['levels']:
        assert level['requests'] > 10 and 0 < level['p50_ms'] <= level['p95_ms'] <= level['p99_ms'] <= level['max_ms']
        assert level['per_second'] == pytest.approx(level['requests'] / .5, rel=.3)
        # Each of so many waits for its answer before it asks again.
        assert level['per_second'] * level['p50_ms'] / 1e3 < 1.5 * level['concurrency'] and 0 < level['cpu'] < 2.5
