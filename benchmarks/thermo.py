"""What energy and entropy of all users cost, and whether they are right.

``python -m benchmarks.thermo --run RUN --whole RUN --json FILE``

``--run``: memory beyond the loaded model, and seconds, of ``tvdiff thermo`` on a run, by both definitions (SPEC 10).
``--whole``: a run on a small data set, whose totals are compared with one users x items array in float64.
"""
from __future__ import annotations

import argparse
import platform
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

import psutil
import torch

from tvdiff_pyg.files import write_json
from tvdiff_pyg.training import Run
from tvdiff_pyg.training.environment import versions

CLIP = 1e-6


def peak_beyond(work: Callable[[], Any]) -> Tuple[Any, float, float]:
    """Return what a function gives, the largest resident set while it ran beyond that before, in MB, and seconds."""
    process, peaks, done = psutil.Process(), [0], threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.005):
            peaks.append(process.memory_info().rss - before)

    watcher, began = threading.Thread(target=watch), time.perf_counter()
    watcher.start()
    try:
        out = work()
    finally:
        done.set()
        watcher.join()
    return out, max(peaks) / 1e6, time.perf_counter() - began


def whole(run: Run, published: bool) -> Dict[str, float]:
    """Return the totals of energy and entropy from one array of all scores, written anew from SPEC 10.

    Users without interactions are left out, as everywhere.
    """
    train = run.split.train
    users = train.user_degree.nonzero().view(-1)
    n = train.user_degree[users].double().unsqueeze(1)
    scores = run.model.scorer()(users).double()
    if run.model.distribution == 'softmax':
        p = scores.softmax(1)
        q = p.clamp(min=CLIP) if published else p  # entropy's
        capped = not published
    elif not published:
        p = scores.clamp(min=CLIP)
        q = p = p / p.sum(1, keepdim=True)
        capped = True
    else:
        p = (scores / scores.sum(1, keepdim=True)).clamp(min=0)
        above = p.sum(1, keepdim=True) > 1 + CLIP
        q = p = torch.where(above, p / p.sum(1, keepdim=True), p)
        capped = False
    high = p >= 1 / n
    hits = torch.minimum(high.sum(1, keepdim=True), n) if capped else high.sum(1, keepdim=True)
    low = torch.where(high, 0.0, p * (p * n)).sum(1, keepdim=True)
    if published and run.model.distribution == 'clip':
        low = torch.where(above, 0.0, low)
    return {'energy': float((hits + low).sum()), 'entropy': float(-torch.xlogy(q, q).sum() / torch.tensor(2.0).log())}


def main(argv: Any = None) -> Dict[str, Any]:
    """Measure, write and return the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--run', required=True, help='the larger the better')
    parser.add_argument('--whole', required=True, help='whose users x items array fits memory several times')
    parser.add_argument('--json', required=True)
    options = parser.parse_args(argv)
    record: Dict[str, Any] = {'machine': platform.machine(), 'threads': torch.get_num_threads(), 'versions': versions()}
    for kind, folder in (('run', options.run), ('whole', options.whole)):
        run = Run.load(folder)
        about = record[kind] = {
            **{name: run.metrics[name] for name in ('dataset', 'model', 'split_checksum', 'users', 'items')},
            'hidden_channels': run.recipe.model.hidden_channels}
        for published in (False, True):
            found, peak, seconds = peak_beyond(lambda: run.thermodynamics(published=published).total())
            name = 'published' if published else 'ours'
            about[name] = {'energy': found['energy'], 'entropy': found['entropy'], 'peak_mb': round(peak, 1),
                           'seconds': round(seconds, 1)}
            if kind == 'whole':
                about[name]['relative_error'] = {
                    quantity: abs(found[quantity] - value) / max(abs(value), 1.0)
                    for quantity, value in whole(run, published).items()}
        print(kind, about, flush=True)
    write_json(Path(options.json), record)
    return record


if __name__ == '__main__':
    main()
