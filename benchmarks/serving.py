"""The HTTP service under load from another process.

``python -m benchmarks.serving --run RUN [--users N] [--seconds S] [--concurrency 1 2 4 8 16] [--json FILE]``

``tvdiff serve`` runs in a process of its own. This one keeps so many requests under way at a time, each on a connection
that stays open, and takes the time from the first byte sent to the last one received. Half of the requests name a user,
half send a user's training items as a history. A level is a closed loop: the more requests at a time, the longer each
waits once the server is busy. ``cpu`` is the processor time of the server by the wall's: 1 is one core kept busy.
"""
from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import psutil

from tvdiff_pyg.files import write_json
from tvdiff_pyg.training.environment import versions
from tvdiff_pyg.training.run import Run

WARM_UP = 50
PACKAGES = ('fastapi', 'starlette', 'uvicorn', 'pydantic', 'h11')


def requests_of(run: Run, num_users: int, k: int, seed: int = 0) -> List[bytes]:
    """Return what is sent: for each of some users one request by id and one by history, in random order."""
    train, data, draw = run.split.train, run.split.data, random.Random(seed)
    bodies: List[Dict[str, Any]] = []
    for user in draw.sample(range(train.num_users), min(num_users, train.num_users)):
        items = train.col[train.rowptr[user]:train.rowptr[user + 1]].tolist()
        bodies += [{'user': data.user_id[user], 'k': k}, {'history': [data.item_id[item] for item in items], 'k': k}]
    draw.shuffle(bodies)
    out = []
    for body in bodies:
        content = json.dumps(body).encode()
        out.append(b'POST /recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n'
                   b'content-length: %d\r\n\r\n' % len(content) + content)
    return out


async def _client(port: int, requests: List[bytes], first: int, step: int, until: float, seconds: List[float]) -> None:
    """Send requests one after the other until it is time."""
    reader, writer = await asyncio.open_connection('127.0.0.1', port)
    position = first
    while time.perf_counter() < until:
        started = time.perf_counter()
        writer.write(requests[position % len(requests)])
        head = await reader.readuntil(b'\r\n\r\n')
        length = re.search(rb'content-length: (\d+)', head)
        if not head.startswith(b'HTTP/1.1 200 ') or length is None:
            raise RuntimeError(f'the service answered {head[:200]!r}')
        await reader.readexactly(int(length[1]))
        seconds.append(time.perf_counter() - started)
        position += step
    writer.close()
    await writer.wait_closed()


async def _load(port: int, requests: List[bytes], concurrency: int, duration: float) -> List[float]:
    seconds: List[float] = []
    until = time.perf_counter() + duration
    await asyncio.gather(*(_client(port, requests, number, concurrency, until, seconds)
                           for number in range(concurrency)))
    return seconds


def measure(server: psutil.Process, port: int, requests: List[bytes], concurrency: int, duration: float
            ) -> Dict[str, Any]:
    """Load the service at one level."""
    before, started = server.cpu_times(), time.perf_counter()
    seconds = asyncio.run(_load(port, requests, concurrency, duration))
    after, wall = server.cpu_times(), time.perf_counter() - started
    used = after.user + after.system - before.user - before.system
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99]) * 1e3
    return {'concurrency': concurrency, 'requests': len(seconds), 'per_second': round(len(seconds) / wall, 1),
            'p50_ms': round(p50, 2), 'p95_ms': round(p95, 2), 'p99_ms': round(p99, 2),
            'max_ms': round(max(seconds) * 1e3, 2), 'cpu': round(used / wall, 2),
            'cpu_ms_per_request': round(used / len(seconds) * 1e3, 2),
            'rss_mb': round(server.memory_info().rss / 1e6, 1)}


def main(argv: Any = None) -> Dict[str, Any]:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--run', required=True, help='folder of a finished run')
    parser.add_argument('--users', type=int, default=500, help='so many different people are asked for')
    parser.add_argument('--seconds', type=float, default=10, help='for each level')
    parser.add_argument('--concurrency', type=int, nargs='+', default=[1, 2, 4, 8, 16], help='requests at a time')
    parser.add_argument('-k', type=int, default=10)
    parser.add_argument('--threads', type=int, default=1, help='of the service')
    parser.add_argument('--json', default=None)
    options = parser.parse_args(argv)
    run = Run.load(options.run)
    requests = requests_of(run, options.users, options.k)
    load = os.getloadavg()[0] if hasattr(os, 'getloadavg') else None
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, '-m', 'tvdiff_pyg', 'serve', options.run, '--port', '0', '--threads', str(options.threads),
         '--max-waiting', str(max(64, *options.concurrency))], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        told = re.search(r'http://127\.0\.0\.1:(\d+)', process.stdout.readline())
        if told is None:
            raise RuntimeError('the service has not started: see its words above')
        ready, port, server = time.perf_counter() - started, int(told[1]), psutil.Process(process.pid)
        asyncio.run(_load(port, requests[:WARM_UP], 1, 1.0))
        levels = []
        for concurrency in options.concurrency:
            levels.append(measure(server, port, requests, concurrency, options.seconds))
            print('  '.join(f'{name} {value}' for name, value in levels[-1].items()), flush=True)
    finally:
        process.terminate()
        status = process.wait(30)
    result = {
        'what': 'closed loop; half of the requests by user, half by history; client and server share the machine',
        'dataset': run.split.data.name, 'model': run.recipe.model.name, 'users': run.model.num_users,
        'items': run.model.num_items, 'hidden_channels': run.recipe.model.hidden_channels, 'k': options.k,
        'threads': options.threads, 'seconds': options.seconds, 'start_s': round(ready, 2), 'exit_status': status,
        'cores': os.cpu_count(), 'load_before': load, 'machine': platform.machine(), 'levels': levels,
        'versions': {**versions(), **{name: version(name) for name in PACKAGES}},
    }
    if options.json:
        write_json(Path(options.json), result)
    return result


if __name__ == '__main__':
    main()
