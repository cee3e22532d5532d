"""Tables and plots of the accuracy benchmark, from its JSON files alone.

``python -m benchmarks.report [--results FOLDER]`` writes ``README.md`` and, a data set, ``DATASET.md``,
``DATASET-curves.png``, ``DATASET-cost.png`` and ``DATASET-plane.png`` into the folder of the results.
"""
from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from benchmarks.accuracy import RESULTS, SEEDED, distinct
from benchmarks.spaces import DATASETS, MODELS, PUBLISHED, first
from benchmarks.sweep import spread, unpack, write_page
from tvdiff_pyg.evaluation import holm, paired_test
from tvdiff_pyg.training.plots import save_figure

OURS = 'tv-diff'
SIMPLE = ('popularity', 'item-knn', 'ease', 'gf-cf', 'ials', 'bpr-mf')
METRICS = ('recall@20', 'ndcg@20')
PLOTS = (('curves', 'Convergence', 'seconds of training', 'validation Recall@20'),
         ('cost', 'Accuracy against seconds', 'seconds of training', 'test Recall@20'),
         ('plane', 'Energy and entropy by epoch, the best one marked,', 'energy, model minus data, a user',
          'entropy, model minus data, bits a user'))
ALPHA, SEEDS = 0.05, 3
TITLES = {'holdout': 'Hold-out: selected on validation', 'paper': 'Paper protocol: epoch selected on TEST'}
_NAMES = {'LightGCN': 'lightgcn', 'EASE': 'ease', 'GF-CF': 'gf-cf', 'ItemCF': 'item-knn'}  # in its list of peers
Cell = Dict[str, Any]
Compared = Dict[str, Tuple[float, Optional[float]]]  # model -> relative difference to TV-Diff, p-value if tested


def published(dataset: str) -> Dict[str, str]:
    """Return the published figures by model, ours or theirs: all selected on test, so for the paper protocol only."""
    peers: Dict[str, List[Any]] = dict(PUBLISHED['peers_public_split'].get(dataset, {}))
    views = PUBLISHED['views'].get(dataset)
    if views:
        peers[OURS] = [views[metric][-1] for metric in METRICS]
    return {_NAMES.get(name, name): ' / '.join('-' if value is None else f'{value:.4f}'.lstrip('0') for value in values)
            for name, values in peers.items()}


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
    return np.mean([unpack(cell['per_user'][metric]) for cell in cells], axis=0)


def _mean(cells: List[Cell], get: Any) -> float:
    return statistics.mean(get(cell) for cell in cells)


def _figure(cells: List[Cell], metric: str) -> str:
    return spread([cell['metrics']['test'][metric] for cell in cells])


def _converged(cells: List[Cell]) -> bool:
    return all(cell['converged'] for cell in cells)


def compare(found: Dict[str, List[Cell]], metric: str = METRICS[0]) -> Compared:
    """Return each model's relative difference to TV-Diff and its p-value, corrected for the number of models tested.

    Where a cell of either has not converged there is no p-value: it would be of budgets.

    Raises:
        ValueError: cells of different splits, or a model's cells are of different settings.
    """
    splits = {cell['metrics']['split_checksum'] for cells in found.values() for cell in cells}
    if len(splits) != 1:
        raise ValueError(f'cells of {len(splits)} different splits cannot be compared: {sorted(splits)}')
    for model, cells in found.items():
        if any(cell['settings'] != cells[0]['settings'] for cell in cells):
            raise ValueError(f'the cells of {model} are of different settings: delete those of an older search')
    if OURS not in found:
        return {}
    ours = per_user(found[OURS], metric)
    others = [model for model in found if model != OURS]
    values = {model: per_user(found[model], metric) for model in others}
    tested = [model for model in others if _converged([*found[model], *found[OURS]])]
    p = dict(zip(tested, holm([paired_test(values[model], ours) for model in tested])))
    return {model: (value.mean() / ours.mean() - 1, p.get(model)) for model, value in values.items()}


def headline(found: Dict[str, List[Cell]], compared: Dict[str, Compared]) -> str:
    """Say who wins, before anything else, from the cells and what :func:`compare` gave for each metric."""
    if OURS not in found:
        return f'Best so far: {best_of(found)}; TV-Diff has not been run.'
    beaten, beaten_by_ndcg = (_beaten(compared[metric]) for metric in METRICS)
    level, level_by_ndcg = (_level(compared[metric]) for metric in METRICS)
    missing = [model for model in MODELS if model not in found]
    late = [model for model in found if not _converged(found[model])]
    few = [f'{model} {len(cells)}' for model, cells in found.items() if model in SEEDED and len(cells) < SEEDS]
    more = ''.join((f' By NDCG@20 {beaten_by_ndcg}.' if beaten_by_ndcg else '',
                    f' By NDCG@20 level with {level_by_ndcg}.' if level_by_ndcg else '',
                    f" Fewer than {SEEDS} seeds: {', '.join(few)}." if few else '',
                    f" Not converged: {', '.join(late)}." if late else '',
                    f" Not run yet: {', '.join(missing)}." if missing else ''))
    if beaten:
        return (f'**TV-Diff does not win: by Recall@20 {beaten}.**'
                + (f' By Recall@20 level with {level}.' if level else '') + more)
    if len(found) == 1:
        return 'TV-Diff alone has been run.'
    if level:
        return f'TV-Diff is level by Recall@20 with {level}.{more}'
    runner, (difference, p) = max(compared[METRICS[0]].items(), key=lambda item: item[1][0])
    return (f"TV-Diff {'leads' if missing or late else 'wins'}; next is {runner} at {difference:+.1%} Recall@20 "
            f"({_significance(p)}).{more}")


def _significance(p: Optional[float]) -> str:
    return 'not tested' if p is None else f"{'' if p < ALPHA else 'not '}significant over users"


def _beaten(compared: Compared) -> str:
    """Return which models are above TV-Diff, the best first, or nothing."""
    better = sorted(((difference, model, p) for model, (difference, p) in compared.items() if difference > 0),
                    key=lambda row: row[:2], reverse=True)
    names = ', '.join(f"{'the simple ' if model in SIMPLE else ''}{model} ({difference:+.1%}, {_significance(p)})"
                      for difference, model, p in better)
    return f'it is beaten by {names}' if names else ''


def _level(compared: Compared) -> str:
    """Return which models are not above TV-Diff and not told apart from it either, the nearest first, or nothing."""
    near = sorted(((difference, model, p) for model, (difference, p) in compared.items()
                   if difference <= 0 and p is not None and p >= ALPHA), reverse=True)
    return ', '.join(f'{model} ({difference:+.1%}, p = {p:.2g})' for difference, model, p in near)


def _which(results: Path, dataset: str, model: str) -> str:
    """Return where the setting that a search found best is from, if it is none that was drawn."""
    path = results / dataset / model / 'search.json'
    if not (DATASETS[dataset].searched and MODELS[model].space and path.is_file()):
        return ''
    record = json.loads(path.read_text(encoding='utf-8'))
    return f' (the first: {first(dataset, model).source})' if record['best'] == 0 else ''


def unequal_budgets(results: Path, dataset: str, found: Dict[str, List[Cell]]) -> List[str]:
    """Return a warning where the models' settings were searched with other numbers of trials or minutes."""
    budgets: Dict[str, List[str]] = {}
    for model in found:
        path = results / dataset / model / 'search.json'
        if DATASETS[dataset].searched and MODELS[model].space and path.is_file():
            record = json.loads(path.read_text(encoding='utf-8'))
            trials = len(distinct(record))
            budgets.setdefault(f"{trials} trials of {record['minutes_a_trial']:g} minutes", []).append(model)
    if len(budgets) < 2:
        return []
    return ['', '**Unequal budgets:** ' + '; '.join(
        f"{budget} for {', '.join(models)}" for budget, models in budgets.items()) + '.']


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
    try:
        compared = {metric: compare(found, metric) for metric in METRICS}
    except ValueError as error:
        raise ValueError(f'{results / dataset}, {protocol}: {error}') from error
    said = headline(found, compared)
    theirs = published(dataset) if on_test else {}
    cell = next(iter(found.values()))[0]['metrics']
    lines = [title, '', said, '',
             f"{cell['users']:,} users x {cell['items']:,} items, {cell['pairs']['train']:,} / "
             f"{cell['pairs']['validation']:,} / {cell['pairs']['test']:,} pairs; `{cell['split_checksum'][:12]}`."
             + (' Its own validation part is kept from training under this protocol too.'
                if on_test and cell['pairs']['validation'] else ''),
             '', '| model | Recall@20 | against TV-Diff | p (Holm) | NDCG@20 | against TV-Diff | p (Holm) | seeds | '
             'settings | train s | test users/s | peak MB |' + (' published (on test) |' if on_test else ''),
             '|---|---|--:|--:|---|--:|--:|--:|---|--:|--:|--:|' + ('---|' if on_test else '')]
    for model in MODELS:
        other = f" {theirs.pop(model, '')} |" if on_test else ''
        if model not in found:
            lines.append(f'| {model} | | | | | | | | {command(dataset, model, protocol)} | | | |{other}')
            continue
        cells, figures = found[model], ''
        chosen = cells[0]['chosen'] + _which(results, dataset, model)
        late = '' if _converged(cells) else ', NOT CONVERGED'
        for metric in METRICS:
            by, p = compared[metric].get(model, (None, None))
            figures += f"{_figure(cells, metric)} | {'' if by is None else f'{by:+.1%}'} | " + (
                '' if p is None else f'{p:.2g}' if p > 1e-99 else '< 1e-99') + ' | '
        users = per_user(cells[:1], METRICS[0]).size
        lines.append(
            f"| {model} | {figures}{len(cells)} | {chosen}{late} | "
            f"{_mean(cells, lambda c: c['metrics']['train_s']):.0f} | "
            f"{users / _mean(cells, lambda c: max(c['metrics']['test_s'], 1e-2)):,.0f} | "
            f"{_mean(cells, lambda c: c['metrics']['peak_rss_mb']):.0f} |{other}")
    lines += [f'| {model}, not run here | | | | | | | | | | | | {figure} |' for model, figure in theirs.items()]
    for model in found:
        seeds = sorted({*range(SEEDS)} - {cell['seed'] for cell in found[model]})
        if model in SEEDED and seeds and DATASETS[dataset].searched:
            lines += ['', f"More seeds: {command(dataset, model, protocol, ' '.join(map(str, seeds)))}"]
    lines += unequal_budgets(results, dataset, found)
    quality = time_to_quality(found, DATASETS[dataset].budget_minutes)
    return said, lines + ([''] + [quality] if quality else []) + ['']


def _selection(cell: Cell) -> List[Tuple[float, float]]:
    name = f"{cell['metrics']['selected_on']}/recall@20"
    return [(row['seconds'], row[name]) for row in cell['curve']]


def time_to_quality(found: Dict[str, List[Cell]], minutes: Optional[float] = None) -> Optional[str]:
    """Return the seconds until TV-Diff passed the best that LightGCN reached on what its epoch was selected on.

    Args:
        found: the cells of a data set and protocol.
        minutes: an equal budget: epochs of either that began later do not count. Without one, seeds of which either
            model has not converged do not.
    """
    peers = {cell['seed']: cell for cell in found.get('lightgcn', [])}
    rows = []
    for cell in found.get(OURS, []):
        if cell['seed'] in peers and (minutes or _converged([cell, peers[cell['seed']]])):
            peer, ours = (_within(_selection(one), minutes) for one in (peers[cell['seed']], cell))
            goal = max(value for _, value in peer)
            rows.append((goal, next(seconds for seconds, value in peer if value == goal),
                         next((seconds for seconds, value in ours if value > goal), None)))
    if not rows:
        return None
    goals, reached, all_passed = zip(*rows)
    passed = [seconds for seconds in all_passed if seconds is not None]
    where = found[OURS][0]['metrics']['selected_on']
    said = 'did not pass it' if not passed else f"passed it after {spread(passed, ',.0f')} s" + (
        f' in {len(passed)} of {len(rows)} seeds' if len(passed) < len(rows) else '')
    within = f' within {minutes:.0f} minutes of training' if minutes else ''
    return (f"Time to quality, {len(rows)} seed{'s' if len(rows) > 1 else ''}: LightGCN reached its best {where} "
            f"Recall@20{within}, {spread(goals)}, after {spread(reached, ',.0f')} s of training; "
            f'TV-Diff {said}.')


def _within(curve: List[Tuple[float, float]], minutes: Optional[float]) -> List[Tuple[float, float]]:
    began = [0.0] + [seconds for seconds, _ in curve]
    return [row for row, start in zip(curve, began) if minutes is None or start < 60 * minutes]


def plot(results: Path, dataset: str) -> List[str]:
    """Draw the hold-out: convergence, accuracy against seconds, and the way through energy and entropy if logged."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = read_all(results, dataset, 'holdout')
    drawn = []
    for kind, title, x, y in PLOTS:
        figure = Figure(figsize=(7, 4.2), layout='constrained')
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for number, (model, cells) in enumerate(found.items()):
            color = f'C{number}'
            if kind == 'cost':
                axes.scatter(max(_mean(cells, lambda c: c['metrics']['train_s']), 0.1),
                             _mean(cells, lambda c: c['metrics']['test']['recall@20']), color=color, label=model)
                continue
            for cell in cells:
                path = _selection(cell) if kind == 'curves' else [
                    (row['delta_energy'], row['delta_entropy']) for row in cell['curve'] if 'delta_energy' in row]
                if path:
                    axes.plot(*zip(*path), color=color, linewidth=1, label=model if cell is cells[0] else None)
                    if kind == 'plane':
                        axes.plot(*path[cell['metrics']['epoch']], 'o', color=color)
        if kind != 'plane':
            axes.set_xscale('log')
        axes.set(xlabel=x, ylabel=y, title=f'{dataset}, hold-out')
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
            save_figure(figure, results / f'{dataset}-{kind}.png')
            drawn += [f'![{title} on {dataset}]({dataset}-{kind}.png)', '']
    return drawn


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
            late = '' if _converged(own) else ' *'
            row.append(f"{f'**{figure}**' if model == best[dataset] else figure}{late}")
        lines.append(f"| {model} | {' | '.join(row)} |")
    return lines


def shift(results: Path) -> List[str]:
    """Return the lines of a table of Recall@20 on test over that on validation, by the hold-out."""
    cells = {dataset: found for dataset in DATASETS if (found := read_all(results, dataset, 'holdout'))}
    lines = [f"| model | {' | '.join(cells)} |", '|---' * (len(cells) + 1) + '|']
    for model in MODELS:
        row = []
        for found in cells.values():
            ratio = [_mean(found[model], lambda cell: cell['metrics'][part][METRICS[0]])
                     for part in ('test', 'validation')] if model in found else []
            row.append(f'{ratio[0] / ratio[1]:.2f}' if ratio else '')
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
            page += plot(results, dataset)
        lines.append(f'| [{dataset}]({dataset}.md) | {said[0]} | {said[1]} |')
        pages.append('\n'.join(page))
        write_page(results / f'{dataset}.md', pages[-1])
    lines += ['', 'Recall@20 on test, hold-out (* not converged):', '', *summary(results), '',
              "Recall@20 on test over that on validation, hold-out. The validation part is random pairs of each user's "
              'training part (ml-1m brings its own). Where the ratio differs between models, the test part is of '
              'another kind, and what is best on validation need not be best on test:', '', *shift(results), '']
    write_page(results / 'README.md', '\n'.join(lines))
    return '\n'.join(pages)


if __name__ == '__main__':
    print(main())
