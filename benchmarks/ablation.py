"""What each part of TV-Diff is worth: one setting changed at a time, beside the published figures.

``python -m benchmarks.ablation --dataset lastfm --data-root DIR [--axes views temperature] [--seeds 0 1 2]
[--set model.hidden_channels=64] --work FOLDER``

Every point of an axis departs from the data set's recipe in the settings of :data:`AXES`, and in its batch size where
its batches hold users and the recipe's hold pairs, or the other way round; points of several axes that come to the same
settings are trained once. What fails is named at the end, and the others go on; what diverges at once is written down.
Cells are ``tvdiff fit`` runs (:mod:`benchmarks.sweep`): one that
``results/ablation/DATASET-PROTOCOL.json`` holds is kept, a finished run is read, an interrupted one goes on, and
``--finished`` leaves out all others. The JSON is written anew after every cell, with Recall@20 user by user;
``README.md`` and the plots are made from it alone.
"""
from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import yaml
from safetensors.numpy import load_file
from scipy import stats

from benchmarks.spaces import PUBLISHED, Settings
from benchmarks.sweep import Diverged, folder_name, pack, resolve, run_cell, spread, unpack, write_page
from tvdiff_pyg.files import locked, write_json
from tvdiff_pyg.nn.loss import ENTROPY_TERMS
from tvdiff_pyg.training.folder import METRICS as RUN_METRICS, PER_USER, read_history, read_settings
from tvdiff_pyg.training.plots import save_figure
from tvdiff_pyg.training.recipe import flatten

RESULTS = Path(__file__).parent / 'results' / 'ablation'
METRICS = ('recall@20', 'ndcg@20')
BATCH = {'users': 64, 'pairs': 16384}  # for about as many steps an epoch as the recipe's 2,048 of the other kind
SWEEPS = ('hops', 'temperature', 'gamma', 'lam', 'steps', 'noise_scale', 'width')  # axes whose points are numbers
Cells = Dict[str, Dict[str, Any]]  # seed -> what is kept of its run


Axis = Dict[str, Settings]  # what is changed, by the name of the point: what ``published.json`` calls it


def _one(setting: str, *values: Any, **others: Any) -> Axis:
    return {str(value): {setting: yaml.safe_load(str(value)), **others} for value in values}


_NO_GRAPH, _UNIFORM, _HARD = {'model.normalization': 'none'}, {'sampler.name': 'uniform'}, {'sampler.name': 'ar-gsp'}
_BARE = {'loss.temperature': 0.0}
AXES: Dict[str, Axis] = {
    'views': {'vanilla': {**_BARE, **_NO_GRAPH}, 'I': {**_NO_GRAPH, **_UNIFORM}, 'I+II': _UNIFORM, 'I+II+III': _HARD},
    'entropy': {'none': _BARE, **{name: {'loss.entropy': name} for name in ENTROPY_TERMS}},
    'graph': {name: {'model.normalization': name} for name in ('none', 'sym', 'left', 'linkprop')},
    'hops': _one('model.num_layers', 1, 2, 3),
    'temperature': _one('loss.temperature', '0.1', '0.5', 1, 5, 10, 15, 20),
    'gamma': _one('sampler.gamma', *PUBLISHED['gamma']['values'], **_HARD),
    'lam': _one('sampler.lam', 0, 1, 3, 10, **_HARD),
    'steps': _one('diffusion.num_steps', 2, 5, 10, 40, 50, 100),
    'noise_scale': {name: {'diffusion.scale': float(name)} for name in PUBLISHED['noise_scale']['values']},
    'noise_min_max': {f'{low}, {high}': {'diffusion.beta_min': float(low), 'diffusion.beta_max': float(high)}
                      for low, high in PUBLISHED['noise_min_max']['values']},
    'sampler': {'uniform': _UNIFORM, 'popularity': {'sampler.name': 'popularity'},
                **{f'AR-GSP {name}': {**_HARD, 'sampler.weights': name} for name in ('flat', 'score')}},
    'width': _one('model.hidden_channels', 32, 64, 128, 256, 512, 1000),
    'timesteps': {name: {'diffusion.timesteps': name} for name in ('uniform', 'loss-history')},
    'prediction': {name: {'diffusion.prediction': name, 'model.engine': 'dense'} for name in ('x0', 'eps')},
}


def base_settings(recipe: str, changes: Sequence[str]) -> Settings:
    """Return every setting of a recipe flat, with ``NAME=VALUE`` changes.

    Raises:
        ValueError: a change is not of that form, or the recipe cannot be so changed.
    """
    for change in changes:
        if not all(change.partition('=')):
            raise ValueError(f"--set takes NAME=VALUE of a setting of tvdiff fit; got '{change}'")
    return resolve(recipe, dict(change.split('=', 1) for change in changes))


def settings_of(base: Settings, point: Settings) -> Settings:
    """Return what a point changes: its settings, and the batch size where its batches hold what the recipe's do not."""
    kind = _batches_of({**base, **point})
    return {**point, **({} if kind == _batches_of(base) else {'training.batch_size': BATCH[kind]})}


def cell_of(base: Settings, recipe: str, settings: Settings) -> Dict[str, str]:
    """Return how a point with these settings departs from the recipe as it is shipped: what names its run."""
    shipped = base_settings(recipe, [])
    values = {**base, **settings}
    return {name: value if isinstance(value, str) else json.dumps(value)
            for name, value in sorted(values.items()) if value != shipped[name]}


def _batches_of(settings: Settings) -> str:
    return 'pairs' if ENTROPY_TERMS[settings['loss.entropy']].pairwise else 'users'


def read_cell(folder: Path, metrics: Dict[str, Any]) -> Dict[str, Any]:
    """Return what is kept of a run, with its false negatives at the best epoch and its Recall@20 user by user."""
    best = read_history(folder)[metrics['epoch']]
    recipe = read_settings(folder).recipe
    batches_of = _batches_of(flatten(recipe.to_dict()))
    examples = metrics['pairs']['train'] if batches_of == 'pairs' else metrics['users']
    names = ('energy', 'entropy', 'false_negatives', 'false_negatives_by_chance', 'delta_energy', 'delta_entropy')
    kept = ('epoch', 'epochs', 'stopped', 'train_s', 'wall_s', 'peak_rss_mb', 'split_checksum', 'device', 'versions')
    return {**{part: {name: metrics[part][name] for name in METRICS} for part in ('validation', 'test')
               if metrics[part]},
            **{name: metrics[name] for name in kept},
            'batches_of': batches_of,
            'steps': metrics['epochs'] * -(-examples // recipe.training.batch_size),
            'diagnoses': [found['name'] for found in metrics['diagnoses']],
            **{name: best[name] for name in names if name in best},
            'per_user': {METRICS[0]: pack(load_file(folder / PER_USER)[METRICS[0]])}}


def difference(point: Cells, other: Cells) -> Optional[Tuple[float, float, float]]:
    """Return the mean difference in test Recall@20 of a point to another, and its 95 % interval over users.

    Paired user by user and seed by seed, averaged over the seeds that both have, by Student's t; ``None`` where they
    have none in common.

    Raises:
        ValueError: the runs are of different splits.
    """
    pairs = [(point[seed], other[seed]) for seed in point if seed in other]
    if not pairs:
        return None
    if len({cell['split_checksum'] for pair in pairs for cell in pair}) > 1:
        raise ValueError('cells of different splits cannot be compared: name another --results for those of other data')
    ours, theirs = (np.stack([unpack(cell['per_user'][METRICS[0]]) for cell in cells]) for cells in zip(*pairs))
    value = (ours - theirs).mean(0)
    half = float(stats.t.ppf(0.975, value.size - 1) * value.std(ddof=1) / value.size ** 0.5)
    return float(value.mean()), float(value.mean()) - half, float(value.mean()) + half


def published(dataset: str, axis: str, point: str) -> Optional[List[float]]:
    """Return the published Recall@20 and NDCG@20 of a point, selected on test, or ``None``."""
    table = PUBLISHED.get(axis, {})
    if dataset not in table:
        return None
    names = [', '.join(value) if isinstance(value, list) else value for value in table['values']]
    if point not in names:
        return None
    return [table[dataset][metric][names.index(point)] for metric in METRICS]


def _read(file: Path, about: Dict[str, Any]) -> Dict[str, Any]:
    if not file.is_file():
        return {**about, 'axes': {}, 'base': {'cells': {}}}
    record: Dict[str, Any] = json.loads(file.read_text(encoding='utf-8'))
    if record['set'] != about['set']:
        raise SystemExit(f"{file} is of runs with --set {record['set']}: name another --results")
    if record['settings'] != about['settings']:
        raise SystemExit(f'{file} is of runs by another version of the recipe: name another --results and --work')
    return record


def run(options: argparse.Namespace) -> None:
    """Train what is missing, and write the data set's JSON after every cell.

    Raises:
        SystemExit: some cells failed, the others are written; or the JSON is of other runs.
    """
    base = base_settings(options.dataset, options.set)
    file = Path(options.results) / f'{options.dataset}-{options.protocol}.json'
    file.parent.mkdir(parents=True, exist_ok=True)
    about = {'dataset': options.dataset, 'protocol': options.protocol, 'set': options.set, 'settings': base}
    record = _read(file, about)
    if base['sampler.name'] != 'ar-gsp' and not any(change.startswith('sampler.') for change in options.set) and any(
            point.get('sampler.name') == 'ar-gsp' for axis in options.axes for point in AXES[axis].values()):
        raise SystemExit(f'the recipe {options.dataset} draws without AR-GSP: say which AR-GSP is meant, as in --set '
                         'sampler.gamma=0.02 --set sampler.pool_size=2048, or name --axes without it')
    work = Path(options.work) / options.dataset / options.protocol
    work.mkdir(parents=True, exist_ok=True)
    done = {folder_name(cell_of(base, options.dataset, point.get('settings', {})), int(seed)): cell
            for point in (record['base'], *(point for points in record['axes'].values() for point in points.values()))
            for seed, cell in [*point['cells'].items(), *((seed, None) for seed in point.get('diverged', []))]}
    failed: List[str] = []
    base_cell = cell_of(base, options.dataset, {})
    for seed in options.seeds:
        for axis, name, settings in [('', 'base', {})] + [
                (axis, name, settings_of(base, point)) for axis in options.axes
                for name, point in AXES[axis].items()]:
            cell = cell_of(base, options.dataset, settings)
            folder = work / folder_name(cell, seed)
            if folder.name not in done:
                if options.finished and not (folder / RUN_METRICS).is_file():
                    print(f'{options.dataset} {axis} {name} seed {seed}: not finished')
                    continue
                try:
                    metrics = run_cell(options.dataset, options.protocol, cell, seed, folder, options.data_root)
                    try:
                        done[folder.name] = read_cell(folder, metrics)
                    except (OSError, LookupError) as error:
                        raise RuntimeError(f'{folder} is not whole ({error!r}): delete it') from error
                except Diverged:  # in its first epoch
                    done[folder.name] = None
                except (RuntimeError, ValueError) as error:
                    failed.append(f'{axis} {name} seed {seed}: {error}')
                    print(failed[-1], flush=True)
                    continue
            kept = done[folder.name]
            with locked(file):
                record = _read(file, about)  # another process may have added to it
                point = record['base']
                if axis:
                    points = record['axes'].setdefault(axis, {})
                    if name not in points or points[name]['settings'] != settings:  # new, or as it was defined before
                        points[name] = {'cells': {}, 'settings': settings, 'is_base': cell == base_cell}
                    point = points[name]
                if kept:
                    point['cells'][str(seed)] = kept
                else:
                    point['diverged'] = sorted({*point.get('diverged', []), seed})
                write_json(file, record)
            print(f'{options.dataset} {axis} {name} seed {seed}: ' + (
                f"test recall@20 {kept['test']['recall@20']:.4f}, {kept['train_s']:.0f} s" if kept else 'diverged'),
                flush=True)
    if failed:
        raise SystemExit('\n'.join(['not finished:', *failed]))


def _values(point: Dict[str, Any], part: str, metric: str = METRICS[0]) -> List[float]:
    return [cell[part][metric] for cell in point['cells'].values() if part in cell]


def _figure(point: Dict[str, Any], part: str, metric: str) -> str:
    values = _values(point, part, metric)
    return spread(values) if values else ''


def _mean(point: Dict[str, Any], name: str) -> Optional[float]:
    values = [cell[name] for cell in point['cells'].values() if name in cell]
    return statistics.mean(values) if values else None


def _points(record: Dict[str, Any], axis: str) -> Dict[str, Dict[str, Any]]:
    """Return an axis's points that have runs, and last the recipe where it is none of them."""
    found = record['axes'][axis]
    points = {name: {**found[name], 'cells': record['base']['cells']} if found[name]['is_base'] else found[name]
              for name in AXES[axis] if name in found and found[name]['cells']}
    if record['base']['cells'] and not any(point['is_base'] for point in points.values()):
        varied = dict.fromkeys(name for point in AXES[axis].values() for name in point)
        values = ', '.join(str(record['settings'][name]) for name in varied)
        points[f'the recipe ({values})'] = {**record['base'], 'is_base': True, 'settings': {}}
    return points


def table(record: Dict[str, Any], axis: str) -> List[str]:
    """Return an axis as a Markdown table."""
    lines = ['| | validation Recall@20 | test Recall@20 | test NDCG@20 | Recall@20 against the recipe, 95 % | false '
             'negatives (by chance) | seeds | epochs | steps | s | published, on test |',
             '|---|---|---|---|---|---|--:|--:|--:|--:|---|']
    base, points = record['base']['cells'], _points(record, axis)
    for name in dict.fromkeys([*AXES[axis], *points]):
        point = points.get(name)
        theirs = published(record['dataset'], axis, name)
        theirs_text = f'{theirs[0]:.4f} / {theirs[1]:.4f}' if theirs else ''
        if point is None:
            why = 'diverged' if name in record['axes'][axis] else 'not run'
            lines.append(f'| {name} | {why} | | | | | | | | | {theirs_text} |')
            continue
        drawn, chance = _mean(point, 'false_negatives'), _mean(point, 'false_negatives_by_chance')
        common = len(point['cells'].keys() & base.keys())
        seeds = f' (seeds in common: {common})' if 0 < common < len(point['cells']) else ''
        lines.append(
            f"| {name} | {_figure(point, 'validation', METRICS[0])} | {_figure(point, 'test', METRICS[0])} | "
            f"{_figure(point, 'test', METRICS[1])} | "
            f"{'is the recipe' if point['is_base'] else _interval(difference(point['cells'], base)) + seeds} | "
            f"{'' if drawn is None else f'{drawn:.3%} ({chance:.3%})'} | {len(point['cells'])} | "
            f"{_mean(point, 'epochs'):.0f} | {_mean(point, 'steps'):,.0f} | {_mean(point, 'train_s'):.0f} | "
            f'{theirs_text} |')
    return lines


def _interval(found: Optional[Tuple[float, float, float]]) -> str:
    return '' if found is None else '{:+.4f} [{:+.4f}, {:+.4f}]'.format(*found)


def _said(found: Optional[Tuple[float, float, float]]) -> str:
    """Return a difference of points with a seed in common, with its interval, and whether that holds 0."""
    assert found is not None
    return _interval(found) + (', which contains 0' if found[1] <= 0 <= found[2] else '')


def conclusions(record: Dict[str, Any], axis: str) -> Iterator[str]:
    """Yield what an axis says, in sentences: our order or best value, the published one, and what is noise."""
    found = _points(record, axis)
    seeds = sorted(set.intersection(*({*point['cells']} for point in found.values())), key=int) if found else []
    points = {name: {**point, 'cells': {seed: point['cells'][seed] for seed in seeds}} for name, point in found.items()}
    if len(points) < 2 or not seeds:
        if len(points) > 1:
            yield 'No seed is common to all points: nothing is concluded.'
        yield from _endings(record, axis, found)
        return
    cells = {name: point['cells'] for name, point in points.items()}
    part = 'test' if record['protocol'] == 'paper' else 'validation'
    score = {kind: {name: statistics.mean(_values(point, kind)) for name, point in points.items()}
             for kind in (part, 'test')}
    ours, on_test = (sorted(points, key=lambda name: -score[kind][name]) for kind in (part, 'test'))
    known = {name: value[0] for name in AXES[axis] if (value := published(record['dataset'], axis, name))}
    theirs = sorted(known, key=lambda name: -known[name])
    against = {name: difference(cells[ours[0]], cells[name]) for name in points}
    if axis in SWEEPS:
        values = [name for name in AXES[axis] if name in points]  # the recipe's own may be none of them
        yield (f'The best value by {part} is {ours[0]}'
               + (f', number {values.index(ours[0]) + 1} of {len(values)}' if ours[0] in values else '')
               + (f' (by test {on_test[0]})' if part != 'test' else '')
               + (f'; the published best, on test, is {theirs[0]}, number {list(known).index(theirs[0]) + 1} of '
                  f'{len(known)}' if theirs else '') + '.')
        if theirs and theirs[0] in points and theirs[0] != ours[0]:
            yield f'On test {ours[0]} differs from {theirs[0]} by {_said(against[theirs[0]])}.'
        apart = [name for name in ours[1:] if (by := against[name]) and not by[1] <= 0 <= by[2]]
        yield (f"On test {ours[0]} is told apart from {', '.join(apart)} (intervals without 0), and from no other."
               if apart else f'On test {ours[0]} is told apart from no other value: all intervals contain 0.')
    else:
        yield f"By {part} Recall@20: {' > '.join(ours)}" + (
            '.' if part == 'test' else '; test has the same order.' if on_test == ours else
            f"; by test: {' > '.join(on_test)}.")
        theirs = [name for name in theirs if name in points]
        swapped = [(low, high) for number, high in enumerate(theirs) for low in theirs[number + 1:]
                   if ours.index(low) < ours.index(high)]
        if len(theirs) > 1:
            yield f"The order of the published bars, {' > '.join(theirs)}, is {'not ' if swapped else ''}reproduced" + (
                ': here ' + '; '.join(f'{low} lies above {high} (on test by '
                                      f'{_said(difference(cells[low], cells[high]))})' for low, high in swapped)
                if swapped else '') + '.'
        level = [f'{high} and {low}' for high, low in zip(ours, ours[1:])
                 if (by := difference(cells[high], cells[low])) and by[1] <= 0 <= by[2]]
        yield (f"Neighbours in our order that test does not tell apart (the interval contains 0): {'; '.join(level)}."
               if level else 'Test tells all neighbours in our order apart: no interval contains 0.')
    more = any(len(point['cells']) > len(seeds) for point in found.values())
    yield (f"{len(seeds)} seed{'s' if len(seeds) > 1 else ', so that nothing is known of what another would change'}"
           + '.' + (f" All this is said of seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}, which all points "
                    'have; means in the table hold more.' if more else ''))
    yield from _negatives(record, axis, points, ours)
    if axis == 'temperature':
        yield from _balance(found)
    kinds = {kind: [name for name, value in cells.items() for cell in list(value.values())[:1]
                    if cell['batches_of'] == kind] for kind in ('users', 'pairs')}
    if all(kinds.values()):
        steps = {kind: next(iter(cells[names[0]].values())) for kind, names in kinds.items()}
        an_epoch = {kind: cell['steps'] // cell['epochs'] for kind, cell in steps.items()}
        yield (f"Batches hold users for {', '.join(kinds['users'])} (steps an epoch: {an_epoch['users']}) and pairs "
               f"for {', '.join(kinds['pairs'])} ({an_epoch['pairs']}): between the two the number of optimiser steps "
               f'differs as well as the setting.')
    if axis == 'entropy':
        yield ('All terms have the same temperature, though they are of different size: bce and nll are divided by the '
               'number of items, bpr is not (SPEC 4).')
    yield from _endings(record, axis, found)


def _endings(record: Dict[str, Any], axis: str, points: Dict[str, Any]) -> Iterator[str]:
    """Say which runs did not end by patience, and what was diagnosed."""
    found: Dict[str, List[str]] = {}
    for name, point in points.items():
        for seed, cell in point['cells'].items():
            for what in [*([] if cell['stopped'] == 'patience' else [f"Ended as {cell['stopped']}"]),
                         *(f'Diagnosed as {diagnosis}' for diagnosis in cell.get('diagnoses', ()))]:
                found.setdefault(what, []).append(f'{name} (seed {seed})')
    for name in AXES[axis]:
        for seed in record['axes'][axis].get(name, {}).get('diverged', []):
            found.setdefault('Diverged in the first epoch', []).append(f'{name} (seed {seed})')
    for what, where in found.items():
        yield f"{what}: {', '.join(where)}."


def _negatives(record: Dict[str, Any], axis: str, points: Dict[str, Any], ours: Sequence[str]) -> Iterator[str]:
    """Say what harder negatives gain over uniform ones, and what becomes of the share of false negatives."""
    hard = next((name for name in ours if name in AXES['gamma'] or record['settings']['sampler.name'] == 'ar-gsp'),
                None) if axis == 'gamma' else {'sampler': 'AR-GSP score'}.get(axis)
    if hard not in points:
        return
    uniform = [{seed: cell for seed, cell in point['cells'].items() if seed in points[hard]['cells']}
               for found in ([points] if axis == 'sampler' else [_points(record, other) for other in record['axes']])
               for point in found.values() if point['settings'] == _UNIFORM]
    if uniform and (cells := max(uniform, key=len)):
        gain = difference(points[hard]['cells'], cells)
        assert gain is not None
        relative = gain[0] / statistics.mean(_values({'cells': cells}, 'test'))
        name = f'AR-GSP at gamma {hard}' if axis == 'gamma' else hard
        yield (f'Over uniform draws {name} gains {relative:+.1%}, {_said(gain)}, on test'
               + (f" (seed {', '.join(cells)} alone)" if len(cells) == 1 else f" (seeds in common: {', '.join(cells)})"
                  if len(cells) < len(points[hard]['cells']) else '') + '.')
    values = [name for name in AXES[axis] if name in points]
    first, last = ('uniform', hard) if axis == 'sampler' else (values[0], values[-1])
    shares = [_mean(points[name], 'false_negatives') if name in points else None for name in (first, last)]
    if None not in shares:
        yield (f"False negatives go from {shares[0]:.3%} ({first}) to {shares[1]:.3%} ({last}) of what is drawn; by "
               f"chance they would be {_mean(points[last], 'false_negatives_by_chance'):.3%}.")


def _balance(points: Dict[str, Any]) -> Iterator[str]:
    """Say how many times the energy the entropy term is, of what training's loss was in the best epoch."""
    times: Dict[str, float] = {}
    for name in AXES['temperature']:
        terms = [(cell['entropy'], cell['energy']) for cell in points.get(name, {'cells': {}})['cells'].values()
                 if cell.get('entropy') is not None]
        if terms:
            times[name] = statistics.mean(-float(name) * entropy / energy for entropy, energy in terms)
    if times:
        yield (f"In the best epoch's training loss the entropy term, with its temperature, is "
               f"{', '.join(f'{value:.0f} ({name})' for name, value in times.items())} times the energy. Adam's step "
               'does not change with a common factor of the loss: where one term is nearly all of it, its temperature '
               'changes little.')


def draw(record: Dict[str, Any], path: Path) -> None:
    """Draw every axis that was run, ours and the published figures, and the false negatives by sampler and gamma."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    axes = [axis for axis in AXES if axis in record['axes']]
    measured = [axis for axis in ('gamma', 'sampler') if any(
        _mean(point, 'false_negatives') is not None for point in record['axes'].get(axis, {}).values())]
    rows = (len(axes) + len(measured) + 2) // 3
    figure = Figure(figsize=(13, 3.2 * rows), layout='constrained')
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, 3, squeeze=False).ravel()
    for panel, axis in zip(panels, axes + measured):
        names = list(AXES[axis])
        panel.set_xticks(range(len(names)), names, rotation=30 if len(names) > 4 else 0, fontsize='small')
        panel.set_title(axis)
    for panel, axis in zip(panels, axes):
        found, names = _points(record, axis), list(AXES[axis])
        for part, style in (('test', 'o-'), ('validation', 's--')):
            values = {number: _values(found[name], part) for number, name in enumerate(names)
                      if name in found and _values(found[name], part)}
            panel.errorbar(list(values), [statistics.mean(value) for value in values.values()],
                           [statistics.stdev(value) if len(value) > 1 else 0 for value in values.values()], fmt=style,
                           capsize=3, label=part)
        theirs = [(number, published(record['dataset'], axis, name)) for number, name in enumerate(names)]
        known = [(number, value[0]) for number, value in theirs if value]
        if known:
            panel.plot(*zip(*known), 'x:', color='grey', label='published (on test)')
        panel.set_ylabel('Recall@20')
    for panel, axis in zip(panels[len(axes):], measured):
        found = _points(record, axis)
        for label, key, style in (('drawn', 'false_negatives', 'o-'), ('by chance', 'false_negatives_by_chance', ':')):
            shares = [(number, share) for number, name in enumerate(AXES[axis]) if name in found
                      and (share := _mean(found[name], key)) is not None]
            panel.plot(*zip(*shares), style, label=label)
        panel.set_yscale('log')
        panel.set_ylabel('false negatives')
        panel.legend(fontsize='small')
    panels[0].legend(fontsize='small')
    for panel in panels[len(axes) + len(measured):]:
        panel.set_axis_off()
    save_figure(figure, path)


def report(results: Path) -> None:
    """Write ``README.md`` and the plots from the JSON files."""
    lines = ['# Ablations', '', 'Made by `python -m benchmarks.ablation` from the JSON files beside this page. One '
             "setting at a time departs from the data set's recipe, and from what is written after `--set`. Mean and "
             'deviation over seeds. The interval is over users, paired, for the seeds that were run; it does not hold '
             'what another seed would change, and nothing is corrected for the number of comparisons. '
             'False negatives: share of the drawn negatives that are held-out '
             'positives of the part selected on, in the best epoch, and what uniform draws would give. Steps: of the '
             'optimiser, epochs times batches an epoch. Published figures were selected on test; the paper has the '
             "same ones for 'vanilla' and for no entropy term, which here differ in the graph."]
    for file in sorted(results.glob('*.json')):
        record = json.loads(file.read_text(encoding='utf-8'))
        if not record['axes']:
            continue  # no point has been trained yet
        selected = 'selected on TEST' if record['protocol'] == 'paper' else 'selected on validation'
        changes = ''.join(f' --set {change}' for change in record['set'])
        cells = {axis: [(seed, cell) for point in record['axes'][axis].values()
                        for seed, cell in point['cells'].items()] for axis in AXES if axis in record['axes']}
        by_seeds: Dict[str, List[str]] = {}
        for axis, found in cells.items():
            by_seeds.setdefault(' '.join(sorted({seed for seed, _ in found}, key=int)), []).append(axis)
        commands = [f"`python -m benchmarks.ablation --dataset {record['dataset']} --protocol {record['protocol']}"
                    f"{changes} --axes {' '.join(axes)} --seeds {seeds} --data-root DIR --work DIR`"
                    for seeds, axes in by_seeds.items()]
        machines = sorted({f"{cell['device']}, torch {cell['versions']['torch']}"
                           for found in cells.values() for _, cell in found})
        lines += ['', f"## {record['dataset']}, {record['protocol']}: epochs {selected}", '', *commands, '',
                  f"{'; '.join(machines)}.", '',
                  f'![{file.stem}]({file.stem}.png)']
        for axis in AXES:
            if axis in record['axes']:
                lines += ['', f'### {axis}', '', *table(record, axis), '',
                          *(f'- {said}' for said in conclusions(record, axis))]
        missing = [axis for axis in AXES if axis not in record['axes']]
        if missing:
            lines += ['', f"Not run: {', '.join(missing)}."]
        draw(record, results / f'{file.stem}.png')
    if len(lines) > 3:
        write_page(results / 'README.md', '\n'.join(lines) + '\n')


def main(argv: Any = None) -> None:
    """Train, write and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--dataset', help='name of its recipe; without it, only the report is made')
    parser.add_argument('--axes', nargs='+', choices=list(AXES), default=list(AXES))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--protocol', choices=('holdout', 'paper'), default='holdout')
    parser.add_argument('--set', action='append', default=[], metavar='NAME=VALUE', help='for all runs')
    parser.add_argument('--finished', action='store_true', help='train nothing: leave out what has not finished')
    parser.add_argument('--data-root', default=None)
    parser.add_argument('--work', default='runs/ablation', help='folder of the run folders')
    parser.add_argument('--results', default=str(RESULTS), help='folder of the JSON files and the report')
    options = parser.parse_args(argv)
    try:
        if options.dataset:
            run(options)
    finally:
        report(Path(options.results))


if __name__ == '__main__':
    main()
