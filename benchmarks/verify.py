"""The models against their published figures, on the public splits.

``python -m benchmarks.verify --models ease gf-cf --datasets gowalla yelp2018 --data-root DIR [--json FILE]``

Recall@20 and NDCG@20 on test under the protocol of the published figures: fitted on the whole training part, which is
masked, and nothing else. Settings are those that the source gives; where they were searched, it was on test. Each pair
is measured in a process of its own, so that its peak memory is its own. The file is written anew after every pair, and
keeps what it holds of others.

To add a model, add the function that fits it to :data:`MODELS` and its figures to :data:`PUBLISHED`.
"""
from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

os.environ.setdefault('THP_MEM_ALLOC_ENABLE', '1')  # as the command line does; before torch allocates

import torch  # noqa: E402

from benchmarks.speed import child  # noqa: E402
from tvdiff_pyg.datasets import load_dataset  # noqa: E402
from tvdiff_pyg.files import write_json  # noqa: E402
from tvdiff_pyg.nn import EASE, GFCF  # noqa: E402
from tvdiff_pyg.split import Split  # noqa: E402
from tvdiff_pyg.training.environment import peak_rss_mb, versions  # noqa: E402
from tvdiff_pyg.typing import Recommender  # noqa: E402

METRICS = ('recall@20', 'ndcg@20')
TOLERANCE = 1.0  # percent


class Published(NamedTuple):
    """What a source reports of a model on a data set.

    Attributes:
        recall, ndcg: Recall@20 and NDCG@20 on test.
        settings: what the model is fitted with, beside the split.
        source: who reports it.
    """

    recall: float
    ndcg: float
    settings: Dict[str, Any]
    source: str


MODELS: Dict[str, Callable[..., Recommender]] = {
    'ease': lambda split, **settings: EASE(split.train, **settings),
    'gf-cf': lambda split, **settings: GFCF(split.train, **settings),
}
"""Name of a model to the function that fits it: from a :class:`~tvdiff_pyg.training.Split` and the settings."""

PUBLISHED: Dict[Tuple[str, str], Published] = {
    ('ease', 'gowalla'): Published(0.176493, 0.146657, {'regularization': 80.0}, 'BARS, EASE_gowalla_m1'),
    ('ease', 'yelp2018'): Published(0.065707, 0.055216, {'regularization': 300.0}, 'BARS, EASE_yelp18_x1'),
    ('gf-cf', 'gowalla'): Published(0.1849, 0.1518, {'rank': 256, 'alpha': 0.3}, 'arXiv 2108.07567'),
    ('gf-cf', 'yelp2018'): Published(0.0697, 0.0571, {'rank': 256, 'alpha': 0.3}, 'arXiv 2108.07567'),
}


def measure(model: str, dataset: str, data_root: Optional[str] = None) -> Dict[str, Any]:
    """Fit and rank one pair in this process."""
    published = PUBLISHED[model, dataset]
    split = Split.from_data(load_dataset(dataset, data_root), 'paper')
    evaluator = split.evaluator('test', [20])
    started = time.perf_counter()
    scorer = MODELS[model](split, **published.settings).scorer()
    fitted = time.perf_counter()
    mean = evaluator(scorer).mean
    out: Dict[str, Any] = {'model': model, 'dataset': dataset, 'settings': published.settings}
    for name, expected in zip(METRICS, (published.recall, published.ndcg)):
        out.update({name: mean[name], f'published_{name}': expected,
                    f'difference_{name}_percent': 100 * (mean[name] / expected - 1)})
    return {**out, 'fit_s': fitted - started, 'rank_s': time.perf_counter() - fitted, 'peak_rss_mb': peak_rss_mb(),
            'source': published.source, 'protocol': split.protocol, 'checksum': split.data.checksum,
            'train': str(split.train), 'test_users': evaluator.users.numel(), 'threads': torch.get_num_threads(),
            'machine': platform.machine(), 'versions': versions()}


def agrees(row: Dict[str, Any]) -> bool:
    """Tell whether both metrics lie within the tolerance of the published ones."""
    return all(abs(row[f'difference_{name}_percent']) <= TOLERANCE for name in METRICS)


def table(rows: List[Dict[str, Any]]) -> str:
    """Return the pairs as a Markdown table."""
    out = ['| model | data | Recall@20 / NDCG@20 | published | difference, % | seconds | peak MB | source |',
           '|---|---|--:|--:|--:|--:|--:|---|']
    for row in rows:
        ours, published, difference = (
            ' / '.join(text.format(row[key.format(name)]) for name in METRICS) for key, text in (
                ('{}', '{:.4f}'), ('published_{}', '{:.4f}'), ('difference_{}_percent', '{:+.2f}')))
        out.append(f"| {row['model']} | {row['dataset']} | {ours} | {published} | {difference} | "
                   f"{row['fit_s'] + row['rank_s']:.0f} | {row['peak_rss_mb']:.0f} | {row['source']} |")
    return '\n'.join(out)


def main(argv: Any = None) -> List[Dict[str, Any]]:
    """Measure, print and write. This process does no work itself: Linux counts its peak memory as its children's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--models', nargs='+', choices=list(MODELS), default=list(MODELS))
    parser.add_argument('--datasets', nargs='+', choices=sorted({dataset for _, dataset in PUBLISHED}),
                        default=['gowalla', 'yelp2018'])
    parser.add_argument('--data-root', default=None)
    parser.add_argument('--json', default=None)
    parser.add_argument('--pair', nargs=2, metavar=('MODEL', 'DATASET'), help='measure one pair in this process')
    options = parser.parse_args(argv)
    if options.pair:
        print(json.dumps(measure(options.pair[0], options.pair[1], options.data_root)))
        return []

    file = Path(options.json) if options.json else None
    kept = json.loads(file.read_text(encoding='utf-8'))['rows'] if file and file.is_file() else []
    found = {(row['model'], row['dataset']): row for row in kept}
    rows: List[Dict[str, Any]] = []
    for pair in ((model, dataset) for model in options.models for dataset in options.datasets):
        if pair not in PUBLISHED:
            continue
        row = child('benchmarks.verify', ['--pair', *pair, *(['--data-root', options.data_root]
                                                             if options.data_root else [])])
        rows.append(row)
        found[pair] = row
        print(f"{row['model']} on {row['dataset']}: recall@20 {row['recall@20']:.4f} ndcg@20 {row['ndcg@20']:.4f}, "
              f"{row['fit_s']:.0f} s to fit, {row['rank_s']:.0f} s to rank", flush=True)
        if file:
            order = [found[key] for key in PUBLISHED if key in found]
            write_json(file, {'tolerance_percent': TOLERANCE, 'rows': order})
    print(f'\n{table(rows)}\n\n{sum(map(agrees, rows))} of {len(rows)} agree within {TOLERANCE:g} %')
    return rows


if __name__ == '__main__':
    main()
