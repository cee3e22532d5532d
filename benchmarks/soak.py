"""Train, test, recommend and serve again and again: memory and open files must stay where they are.

``python -m benchmarks.soak --minutes 60 [--one-service] [--json FILE]``

A cycle trains on MovieLens small (d = 16, two epochs) into a folder that is removed afterwards, reads the run back,
evaluates it, makes everybody's lists, folds people in, and answers requests over HTTP, all in one process. After each,
the process's resident memory and open files are noted. The first fifth of the cycles is warming up; the rest must not
grow by more than 0.2 MB or 0.02 files a cycle, by the slope of a straight line.

FastAPI keeps what it knows of up to 4,096 functions, six for each service: making one anew in each cycle costs about
0.1 MB a cycle, for the first 680. ``--one-service`` keeps that of the first cycle, as a program would.
"""
from __future__ import annotations

import argparse
import gc
import platform
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np
import psutil
from fastapi import FastAPI

from tvdiff_pyg.files import write_json
from tvdiff_pyg.serving import create_app
from tvdiff_pyg.training import Recipe, Run, fit
from tvdiff_pyg.training.environment import versions

REQUESTS = 50
MOST_MB, MOST_FILES = 0.2, 0.02  # a cycle


def cycle(number: int, service: Optional[FastAPI] = None) -> FastAPI:
    """Do everything once, with the service over the new run or with another, and return the service."""
    from starlette.testclient import TestClient

    recipe = Recipe.from_dict({
        'dataset': {'name': 'movielens-small'}, 'model': {'hidden_channels': 16},
        'training': {'max_epochs': 2, 'batch_size': 128}})
    with tempfile.TemporaryDirectory() as folder:
        fit(recipe, Path(folder) / 'run', seed=number, progress=False)
        run = Run.load(Path(folder) / 'run')
        assert run.evaluate().mean == run.metrics['test']
        users, items = run.split.data.user_id, run.split.data.item_id
        assert sum(1 for _ in run.recommend_all(10)) == len(users)
        run.recommend_history([items[:5], items[7:9]], 10)
        service = service or create_app(run)
        with TestClient(service, base_url='http://127.0.0.1') as client:
            for position in range(REQUESTS):
                body: Dict[str, Any] = {'user': users[position]} if position % 2 else {'history': [items[position]]}
                assert client.post('/recommend', json=body).status_code == 200
            assert client.get('/health').status_code == 200
        return service


def slope(values: List[float]) -> float:
    """Return by how much a value grows in a cycle, by least squares over all but the first fifth."""
    rest = values[len(values) // 5:]
    return float(np.polyfit(range(len(rest)), rest, 1)[0]) if len(rest) > 1 else 0.0


def main(argv: Optional[List[str]] = None) -> Dict[str, Any]:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--minutes', type=float, default=60)
    parser.add_argument('--one-service', action='store_true')
    parser.add_argument('--json', default=None)
    options = parser.parse_args(argv)
    process, started = psutil.Process(), time.monotonic()
    service: Optional[FastAPI] = None
    memory: List[float] = []
    files: List[int] = []
    while time.monotonic() - started < 60 * options.minutes:
        service = cycle(len(memory), service if options.one_service else None)
        gc.collect()
        memory.append(round(process.memory_info().rss / 1e6, 2))
        files.append(process.num_fds() if hasattr(process, 'num_fds') else process.num_handles())
        print(f'cycle {len(memory)}: {memory[-1]:.1f} MB, {files[-1]} files', flush=True)
    record = {'minutes': options.minutes, 'one_service': options.one_service,
              'cycles': len(memory), 'mb_a_cycle': round(slope(memory), 4),
              'files_a_cycle': round(slope(list(map(float, files))), 4), 'mb': memory, 'files': files,
              'machine': platform.machine(), 'versions': versions()}
    print(f"{record['cycles']} cycles: {record['mb_a_cycle']:+.3f} MB and {record['files_a_cycle']:+.3f} files a cycle")
    if options.json:
        write_json(Path(options.json), record)
    if record['mb_a_cycle'] > MOST_MB or record['files_a_cycle'] > MOST_FILES:
        raise SystemExit('memory or open files grow')
    return record


if __name__ == '__main__':
    main()
