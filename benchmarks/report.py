"""Tables and plots of the accuracy benchmark, from its JSON files alone.

``python -m benchmarks.report [--results FOLDER]`` writes ``README.md`` and, a data set, ``DATASET.md``,
``DATASET-curves.png`` and ``DATASET-cost.png`` into the folder of the results.
"""
from __future__ import annotations

import argparse
import json
import statistics
import zlib
from base64 import b64decode
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from benchmarks.accuracy import RESULTS, SEEDED
from benchmarks.spaces import DATASETS, MODELS
from tvdiff_pyg.evaluation import holm, paired_test
from tvdiff_pyg.files import write_text

OURS = 'tv-diff'
SIMPLE = ('popularity', 'item-knn', 'ease', 'gf-cf', 'ials', 'bpr-mf')
METRICS = ('recall@20', 'ndcg@20')
ALPHA = 0.05
TITLES = {'holdout': 'Hold-out: selected on validation', 'paper': 'Paper protocol: epoch selected on TEST'}
PUBLISHED: Dict[Tuple[str, str], str] = {  # SPEC 9: all selected on test, so beside the paper protocol only
    ('lastfm', 'tv-diff'): '.3133 / .2953', ('amazon-beauty', 'tv-diff'): '.1475 / .0852',
    ('yelp2018', 'tv-diff'): '.0700 / .0582',
    ('gowalla', 'lightgcn'): '.1830 / .1554', ('gowalla', 'ease'): '.1765 / .1467',
    ('gowalla', 'gf-cf'): '.1849 / .1518', ('gowalla', 'item-knn'): '.1570 / .1214',
    ('yelp2018', 'lightgcn'): '.0653 / .0532', ('yelp2018', 'ease'): '.0657 / .0552',
    ('yelp2018', 'gf-cf'): '.0697 / .0571', ('yelp2018', 'item-knn'): '.0639 / .0531',
}
Cell = Dict[str, Any]


def read(results: Path, dataset: str, model: str, protocol: str) -> List[Cell]:
    """Return a model's cells, one a seed."""
    files = sorted((results / dataset / model).glob(f'{protocol}-seed*.json'))
    return sorted((json.loads(file.read_text(encoding='utf-8')) for file in files), key=lambda cell: cell['seed'])


def read_all(results: Path, dataset: str, protocol: str) -> Dict[str, List[Cell]]:
    """Return the cells of every model that has some."""
    return {model: cells for model in MODELS if (cells := read(results, dataset, model, protocol))}


def best_of(found: Dict[str, List[Cell]]) -> str:
    """Return the model with the highest Recall@20 on test, in the mean over its seeds."""
    return max(found, key=lambda model: _mean(found[model], lambda cell: cell['metrics']['test'][METRICS[0]]))


def per_user(cells: List[Cell], metric: str) -> np.ndarray:
    """Return the test part's values user by user, averaged over the seeds."""
    values = [np.frombuffer(zlib.decompress(b64decode(cell['per_user'][metric])), np.float16) for cell in cells]
    return np.mean([value.astype(np.float64) for value in values], axis=0)


def _mean(cells: List[Cell], get: Any) -> float:
    return statistics.mean(get(cell) for cell in cells)


def _figure(cells: List[Cell], metric: str) -> str:
    values = [cell['metrics']['test'][metric] for cell in cells]
    return f'{statistics.mean(values):.4f}' + (f' ± {statistics.stdev(values):.4f}' if len(values) > 1 else '')


def compare(found: Dict[str, List[Cell]]) -> Dict[str, Tuple[float, float]]:
    """Return each model's relative difference of Recall@20 to TV-Diff and its p-value, corrected for their number."""
    if OURS not in found:
        return {}
    splits = {cell['metrics']['split_checksum'] for cells in found.values() for cell in cells}
    if len(splits) != 1:
        raise ValueError(f'cells of {len(splits)} different splits cannot be compared: {sorted(splits)}')
    ours = per_user(found[OURS], METRICS[0])
    others = [model for model in found if model != OURS]
    values = [per_user(found[model], METRICS[0]) for model in others]
    p = holm([paired_test(value, ours) for value in values])
    return {model: (value.mean() / ours.mean() - 1, p_value) for model, value, p_value in zip(others, values, p)}


def headline(found: Dict[str, List[Cell]], compared: Dict[str, Tuple[float, float]]) -> str:
    """Say who wins, before anything else."""
    best = best_of(found)
    missing = [model for model in MODELS if model not in found]
    partial = f" Not run yet: {', '.join(missing)}." if missing else ''
    if OURS not in found:
        return f'Best so far: {best}; TV-Diff has not been run.'
    better = [(model, *compared[model]) for model in compared if compared[model][0] > 0]
    if not better:
        runner, (difference, p) = max(compared.items(), key=lambda item: item[1][0]) if compared else ('', (0, 1))
        if not runner:
            return 'TV-Diff alone has been run.'
        if p >= ALPHA:
            return f'TV-Diff and {runner} are level: {difference:+.1%} Recall@20, not significant.{partial}'
        return (f"TV-Diff {'leads' if missing else 'wins'}; next is {runner} at {difference:+.1%} Recall@20 "
                f"(significant).{partial}")
    names = ', '.join(f"{'the simple ' if model in SIMPLE else ''}{model} ({difference:+.1%}, "
                      f"{'significant' if p < ALPHA else 'not significant'})"
                      for model, difference, p in sorted(better, key=lambda item: -item[1]))
    return f'**TV-Diff does not win: beaten in Recall@20 by {names}.**{partial}'


def command(dataset: str, model: str, protocol: str, seeds: str = '0 1 2') -> str:
    """Return the command that would fill an empty cell."""
    seeds = seeds if model in (*SEEDED, 'MODEL') else '0'
    return f'`--datasets {dataset} --models {model} --protocol {protocol} --seeds {seeds}`'


def table(results: Path, dataset: str, protocol: str) -> Tuple[str, List[str]]:
    """Return who wins, and the lines of one table."""
    found = read_all(results, dataset, protocol)
    on_test = protocol == 'paper'
    title = f'## {TITLES[protocol]}'
    if not found:
        said = f'Not run: {command(dataset, "MODEL", protocol)}.'
        return said, [title, '', said, '']
    compared = compare(found)
    cell = next(iter(found.values()))[0]['metrics']
    said = headline(found, compared)
    lines = [title, '', said, '',
             f"{cell['users']:,} users x {cell['items']:,} items, {cell['pairs']['train']:,} / "
             f"{cell['pairs']['validation']:,} / {cell['pairs']['test']:,} pairs; `{cell['split_checksum'][:12]}`.",
             '', '| model | Recall@20 | NDCG@20 | against TV-Diff | p (Holm) | seeds | settings | train s | '
             'test users/s | peak MB |' + (' published (on test) |' if on_test else ''),
             '|---|---|---|--:|--:|--:|---|--:|--:|--:|' + ('---|' if on_test else '')]
    for model in MODELS:
        published = f" {PUBLISHED.get((dataset, model), '')} |" if on_test else ''
        if model not in found:
            lines.append(f'| {model} | | | | | | {command(dataset, model, protocol)} | | | |{published}')
            continue
        cells = found[model]
        difference = ['', '']
        if model in compared:
            by, p = compared[model]
            difference = [f'{by:+.1%}', f'{p:.2g}' if p > 1e-99 else '< 1e-99']
        late = '' if all(cell['converged'] for cell in cells) else ', NOT CONVERGED'
        users = np.frombuffer(zlib.decompress(b64decode(cells[0]['per_user'][METRICS[0]])), np.float16).size
        lines.append(
            f"| {model} | {_figure(cells, 'recall@20')} | {_figure(cells, 'ndcg@20')} | {difference[0]} | "
            f"{difference[1]} | {len(cells)} | {cells[0]['chosen']}{late} | "
            f"{_mean(cells, lambda c: c['metrics']['train_s']):.0f} | "
            f"{users / _mean(cells, lambda c: max(c['metrics']['test_s'], 1e-2)):,.0f} | "
            f"{_mean(cells, lambda c: c['metrics']['peak_rss_mb']):.0f} |{published}")
    quality = time_to_quality(found)
    return said, lines + ([''] + [quality] if quality else []) + ['']


def _selection(cell: Cell) -> List[Tuple[float, float]]:
    name = f"{cell['metrics']['selected_on']}/recall@20"
    return [(row['seconds'], row[name]) for row in cell['curve']]


def time_to_quality(found: Dict[str, List[Cell]]) -> Optional[str]:
    """Return the seconds until TV-Diff passed the best that LightGCN reached on what its epoch was selected on."""
    if OURS not in found or 'lightgcn' not in found:
        return None
    peer, ours = _selection(found['lightgcn'][0]), _selection(found[OURS][0])
    goal = max(value for _, value in peer)
    reached = next(seconds for seconds, value in peer if value == goal)
    passed = next((seconds for seconds, value in ours if value > goal), None)
    where = found[OURS][0]['metrics']['selected_on']
    said = 'did not pass it' if passed is None else f'passed it after {passed:,.0f} s of training'
    return (f"Time to quality, seed {found[OURS][0]['seed']}: LightGCN reached its best {where} Recall@20, {goal:.4f}, "
            f'after {reached:,.0f} s of training; TV-Diff {said}.')


def plot(results: Path, dataset: str) -> None:
    """Draw the hold-out's convergence curves, and accuracy against seconds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = read_all(results, dataset, 'holdout')
    for kind in ('curves', 'cost'):
        figure = Figure(figsize=(7, 4.2), layout='constrained')
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for number, (model, cells) in enumerate(found.items()):
            color = f'C{number}'
            if kind == 'cost':
                axes.scatter(max(_mean(cells, lambda c: c['metrics']['train_s']), 0.1),
                             _mean(cells, lambda c: c['metrics']['test']['recall@20']), color=color, label=model)
            for cell in cells if kind == 'curves' and cells[0]['curve'] else ():
                axes.plot(*zip(*_selection(cell)), color=color, label=model if cell is cells[0] else None)
        axes.set_xscale('log')
        axes.set_xlabel('seconds of training')
        axes.set_ylabel(f"{'test' if kind == 'cost' else 'validation'} Recall@20")
        axes.set_title(f'{dataset}, hold-out')
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
        figure.savefig(results / f'{dataset}-{kind}.png', dpi=110)


def summary(results: Path) -> List[str]:
    """Return the lines of a table of Recall@20 by the hold-out, over the data sets that TV-Diff has been run on."""
    cells = {dataset: found for dataset in DATASETS if OURS in (found := read_all(results, dataset, 'holdout'))}
    best = {dataset: best_of(found) for dataset, found in cells.items()}
    lines = [f"| model | {' | '.join(cells)} |", '|---' * (len(cells) + 1) + '|']
    for model in MODELS:
        row = []
        for dataset, found in cells.items():
            own = found.get(model, [])
            figure = _figure(own, METRICS[0]) if own else ''
            late = '' if all(cell['converged'] for cell in own) else ' *'
            row.append(f"{f'**{figure}**' if model == best[dataset] else figure}{late}")
        lines.append(f"| {model} | {' | '.join(row)} |")
    return lines


def main(argv: Any = None) -> str:
    """Write the tables and plots, and return the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--results', default=str(RESULTS))
    results = Path(parser.parse_args(argv).results)
    lines = ['# Accuracy', '', 'Made by `python -m benchmarks.report` from the JSON files beside it; the cells come '
             'from `python -m benchmarks.accuracy ... --data-root DIR`. An empty row of a table names the options '
             'that fill it. TV-Diff has d = 256 where settings are searched, else 1000 (as published). What was done '
             'the same for all, and what these tables do not say: [benchmarks/README.md](../../README.md).', '',
             '| data set | hold-out | paper protocol |', '|---|---|---|']
    pages: List[str] = []
    for dataset in DATASETS:
        page, said = [f'# {dataset}', ''], []
        for protocol in TITLES:
            headed, table_lines = table(results, dataset, protocol)
            said.append(headed.replace('**', ''))
            page += table_lines
        if any((results / dataset).glob('*/holdout-seed*.json')):
            plot(results, dataset)
            page += [f'![Convergence on {dataset}]({dataset}-curves.png)', '',
                     f'![Accuracy against seconds on {dataset}]({dataset}-cost.png)', '']
        lines.append(f'| [{dataset}]({dataset}.md) | {said[0]} | {said[1]} |')
        pages.append('\n'.join(page))
        write_text(results / f'{dataset}.md', pages[-1])
    lines += ['', 'Recall@20 on test, hold-out (* not converged):', '', *summary(results), '']
    write_text(results / 'README.md', '\n'.join(lines))
    return '\n'.join(pages)


if __name__ == '__main__':
    print(main())
