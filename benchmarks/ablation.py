"""What each part of TV-Diff is worth: one setting changed at a time, beside the published figures.

``python -m benchmarks.ablation --dataset lastfm --data-root DIR [--axes views temperature] [--seeds 0 1 2]
[--set model.hidden_channels=64] --work FOLDER``

Every point of an axis departs from the data set's recipe in the settings of :data:`AXES`; points of several axes that
come to the same settings are trained once. Cells are ``tvdiff fit`` runs (:mod:`benchmarks.sweep`): finished ones are
read, interrupted ones go on. ``results/ablation/DATASET-PROTOCOL.json`` is written anew after every cell; ``README.md``
and the plots are made from the JSON files alone.
"""
from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import yaml
from safetensors.numpy import load_file
from scipy import stats

from benchmarks.sweep import folder_name, run_cell, typed
from tvdiff_pyg.files import write_json, write_text
from tvdiff_pyg.training.folder import METRICS as RUN_METRICS, PER_USER, read_history, read_settings
from tvdiff_pyg.training.plots import save_figure
from tvdiff_pyg.training.recipe import load_recipe, recipe_path

RESULTS = Path(__file__).parent / 'results' / 'ablation'
PUBLISHED: Dict[str, Any] = json.loads((Path(__file__).parent / 'published.json').read_text(encoding='utf-8'))
METRICS = ('recall@20', 'ndcg@20')
Settings = Dict[str, Any]  # 'group.name' -> value


class Axis(NamedTuple):
    """What is changed.

    Attributes:
        points: settings by the name of the point; a name is what ``published.json`` calls it.
    """

    points: Dict[str, Settings]


def _one(setting: str, *values: Any, **others: Any) -> Axis:
    return Axis({str(value): {setting: yaml.safe_load(str(value)), **others} for value in values})


_NO_GRAPH, _UNIFORM, _HARD = {'model.normalization': 'none'}, {'sampler.name': 'uniform'}, {'sampler.name': 'ar-gsp'}
_BARE = {'loss.entropy': 'bce', 'loss.temperature': 0.0}  # without the term, batches are of users
AXES: Dict[str, Axis] = {
    'views': Axis({'vanilla': {**_BARE, **_NO_GRAPH}, 'I': {**_NO_GRAPH, **_UNIFORM}, 'I+II': _UNIFORM,
                   'I+II+III': _HARD}),
    'entropy': Axis({'none': _BARE, **{name: {'loss.entropy': name} for name in ('bce', 'bpr', 'nll')}}),
    'graph': Axis({name: {'model.normalization': name} for name in ('none', 'sym', 'left', 'linkprop')}),
    'hops': _one('model.num_layers', 1, 2, 3),
    'temperature': _one('loss.temperature', '0.1', '0.5', 1, 5, 10, 15, 20),
    'gamma': _one('sampler.gamma', *PUBLISHED['gamma']['values'], **_HARD),
    'lam': _one('sampler.lam', 0, 1, 3, 10, **_HARD),
    'steps': _one('diffusion.num_steps', 2, 5, 10, 40, 50, 100),
    'noise_scale': Axis({name: {'diffusion.scale': float(name)} for name in PUBLISHED['noise_scale']['values']}),
    'noise_min_max': Axis({f'{low}, {high}': {'diffusion.beta_min': float(low), 'diffusion.beta_max': float(high)}
                           for low, high in PUBLISHED['noise_min_max']['values']}),
    'sampler': Axis({'uniform': _UNIFORM, 'popularity': {'sampler.name': 'popularity'},
                     **{f'AR-GSP {name}': {**_HARD, 'sampler.weights': name}
                        for name in ('flat', 'score')}}),
    'width': _one('model.hidden_channels', 32, 64, 128, 256, 512, 1000),
    'timesteps': Axis({name: {'diffusion.timesteps': name} for name in ('uniform', 'loss-history')}),
    'prediction': Axis({'x0': {}, 'eps': {'diffusion.prediction': 'eps', 'model.engine': 'dense'}}),
}


def base_settings(recipe: str, changes: Sequence[str]) -> Settings:
    """Return every setting of a recipe flat, with ``NAME=VALUE`` changes."""
    flat = {f'{group}.{name}': value for group, values in load_recipe(recipe).to_dict().items()
            for name, value in values.items()}
    for change in changes:
        name, _, value = change.partition('=')
        if name not in flat or not value:
            raise ValueError(f"--set takes NAME=VALUE of a setting of tvdiff fit; got '{change}'")
        flat[name] = typed(value)
    return flat


def cell_of(base: Settings, recipe: str, point: Settings) -> Dict[str, str]:
    """Return how a point departs from the recipe as it is shipped: what names its run."""
    shipped = base_settings(recipe, [])
    values = {**base, **point}
    return {name: value if isinstance(value, str) else json.dumps(value)
            for name, value in sorted(values.items()) if value != shipped[name]}


def read_cell(folder: Path, metrics: Dict[str, Any]) -> Dict[str, Any]:
    """Return what is kept of a run, with its false negatives at the best epoch."""
    best = read_history(folder)[metrics['epoch']]
    names = ('false_negatives', 'false_negatives_by_chance', 'delta_energy', 'delta_entropy')
    return {**{part: {name: metrics[part][name] for name in METRICS} for part in ('validation', 'test')
               if metrics[part]},
            'epoch': metrics['epoch'], 'epochs': metrics['epochs'], 'stopped': metrics['stopped'],
            'train_s': metrics['train_s'], 'split_checksum': metrics['split_checksum'],
            'diagnoses': [found['name'] for found in metrics['diagnoses']],
            **{name: best[name] for name in names if name in best}}


def interval(point: Sequence[Path], base: Sequence[Path]) -> Optional[Tuple[float, float, float]]:
    """Return the mean difference in test Recall@20 of a point to the base, and its 95 % interval over users.

    Paired user by user and seed by seed, averaged over the seeds, by Student's t.
    """
    differences = [np.asarray(load_file(a / PER_USER)['recall@20'], dtype=np.float64)
                   - np.asarray(load_file(b / PER_USER)['recall@20'], dtype=np.float64) for a, b in zip(point, base)]
    if not differences:
        return None
    value = np.mean(differences, axis=0)
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


def run(options: argparse.Namespace) -> None:
    """Train what is missing, and write the data set's JSON after every cell."""
    base = base_settings(options.dataset, options.set)
    file = Path(options.results) / f'{options.dataset}-{options.protocol}.json'
    file.parent.mkdir(parents=True, exist_ok=True)
    record: Dict[str, Any] = json.loads(file.read_text(encoding='utf-8')) if file.is_file() else {'axes': {}}
    if record.get('set', options.set) != options.set:
        raise SystemExit(f"{file} is of runs with --set {record['set']}: name another --results")
    recipe = yaml.safe_load(recipe_path(options.dataset).read_text(encoding='utf-8'))
    if record.get('recipe', recipe) != recipe:
        raise SystemExit(f'{file} is of runs by another version of the recipe: name another --results and --work')
    record.update({'dataset': options.dataset, 'protocol': options.protocol, 'set': options.set,
                   'recipe': recipe})
    work = Path(options.work) / options.dataset / options.protocol
    work.mkdir(parents=True, exist_ok=True)
    base_cell = cell_of(base, options.dataset, {})
    for seed in options.seeds:
        for axis, name, cell in [('', 'base', base_cell)] + [
                (axis, name, cell_of(base, options.dataset, point)) for axis in options.axes
                for name, point in AXES[axis].points.items()]:
            folder = work / folder_name(cell, seed)
            metrics = run_cell(options.dataset, options.protocol, cell, seed, folder, options.data_root)
            _check_settings(folder, {**base, **(AXES[axis].points[name] if axis else {})})
            record['device'], record['versions'] = metrics['device'], metrics['versions']
            if not axis:
                continue
            point = record['axes'].setdefault(axis, {}).setdefault(name, {'cells': {}})
            point['settings'] = AXES[axis].points[name]
            point['is_base'] = cell == base_cell
            point['cells'][str(seed)] = read_cell(folder, metrics)
            pairs = [(work / folder_name(cell, number), work / folder_name(base_cell, number))
                     for number in map(int, point['cells'])]
            pairs = [pair for pair in pairs if all((run / RUN_METRICS).is_file() for run in pair)]
            point['difference'] = None if point['is_base'] else interval(*zip(*pairs))
            write_json(file, record)
            recall = metrics['test']['recall@20']
            print(f'{options.dataset} {axis} {name} seed {seed}: test recall@20 {recall:.4f}, '
                  f"{metrics['train_s']:.0f} s", flush=True)


def _check_settings(folder: Path, expected: Settings) -> None:
    """Raise unless a run has these settings: one by an older recipe may lie in a folder of the same name."""
    groups = read_settings(folder).recipe.to_dict()
    for name, value in expected.items():
        group, _, key = name.partition('.')
        if groups[group][key] != value:
            raise RuntimeError(f'{folder} was trained with {name}={groups[group][key]}, not {value}: name another '
                               f'--work')


def _mean(cells: Sequence[Dict[str, Any]], part: str, metric: str) -> str:
    values = [cell[part][metric] for cell in cells if part in cell]
    if not values:
        return ''
    return f'{statistics.mean(values):.4f}' + (f' ± {statistics.stdev(values):.4f}' if len(values) > 1 else '')


def table(record: Dict[str, Any], axis: str) -> List[str]:
    """Return an axis as a Markdown table."""
    lines = ['| | validation Recall@20 | test Recall@20 | test NDCG@20 | Recall@20 against the recipe, 95 % | false '
             'negatives (by chance) | seeds | epochs | s | published, on test |',
             '|---|---|---|---|---|---|--:|--:|--:|---|']
    points = record['axes'][axis]
    for name in AXES[axis].points:
        point = points.get(name)
        theirs = published(record['dataset'], axis, name)
        theirs_text = f'{theirs[0]:.4f} / {theirs[1]:.4f}' if theirs else ''
        if point is None:
            lines.append(f'| {name} | not run | | | | | | | | {theirs_text} |')
            continue
        cells = list(point['cells'].values())
        difference = 'is the recipe' if point['is_base'] else '' if not point['difference'] else (
            '{:+.4f} [{:+.4f}, {:+.4f}]'.format(*point['difference']))
        drawn = [cell['false_negatives'] for cell in cells if 'false_negatives' in cell]
        chance = [cell['false_negatives_by_chance'] for cell in cells if 'false_negatives' in cell]
        false = f'{statistics.mean(drawn):.3%} ({statistics.mean(chance):.3%})' if drawn else ''
        lines.append(
            f"| {name} | {_mean(cells, 'validation', METRICS[0])} | {_mean(cells, 'test', METRICS[0])} | "
            f"{_mean(cells, 'test', METRICS[1])} | {difference} | {false} | {len(cells)} | "
            f"{statistics.mean(cell['epochs'] for cell in cells):.0f} | "
            f"{statistics.mean(cell['train_s'] for cell in cells):.0f} | {theirs_text} |")
    return lines


def draw(record: Dict[str, Any], path: Path) -> None:
    """Draw every axis that was run: ours, and the published figures."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    axes = [axis for axis in AXES if axis in record['axes']]
    rows = (len(axes) + 2) // 3
    figure = Figure(figsize=(13, 3.2 * rows), layout='constrained')
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, 3, squeeze=False).ravel()
    for panel, axis in zip(panels, axes):
        names = list(AXES[axis].points)
        for label, part, style in (('test', 'test', 'o-'), ('validation', 'validation', 's--')):
            shown = [name for name in names if part in next(iter(
                record['axes'][axis].get(name, {'cells': {'': {}}})['cells'].values()))]
            values = [[cell[part][METRICS[0]] for cell in record['axes'][axis][name]['cells'].values()]
                      for name in shown]
            panel.errorbar([names.index(name) for name in shown], [statistics.mean(value) for value in values],
                           [statistics.stdev(value) if len(value) > 1 else 0 for value in values], fmt=style,
                           capsize=3, label=label)
        theirs = [(number, published(record['dataset'], axis, name)) for number, name in enumerate(names)]
        known = [(number, value[0]) for number, value in theirs if value]
        if known:
            panel.plot(*zip(*known), 'x:', color='grey', label='published (on test)')
        panel.set_xticks(range(len(names)), names, rotation=30 if len(names) > 4 else 0, fontsize='small')
        panel.set_title(axis)
        panel.set_ylabel('Recall@20')
    panels[0].legend(fontsize='small')
    for panel in panels[len(axes):]:
        panel.set_axis_off()
    save_figure(figure, path)


def report(results: Path) -> None:
    """Write ``README.md`` and the plots from the JSON files."""
    lines = ['# Ablations', '', 'Made by `python -m benchmarks.ablation` from the JSON files beside this page. One '
             "setting at a time departs from the data set's recipe, and from what is written after `--set`. Mean and "
             'deviation over seeds. The interval is over users, paired, for the seeds that were run; it does not hold '
             'what another seed would change. False negatives: share of the drawn negatives that are held-out '
             'positives of the part selected on, in the best epoch, and what uniform draws would give. Published '
             'figures were selected on test.']
    for file in sorted(results.glob('*.json')):
        record = json.loads(file.read_text(encoding='utf-8'))
        selected = 'selected on TEST' if record['protocol'] == 'paper' else 'selected on validation'
        changes = ''.join(f' --set {change}' for change in record['set'])
        command = (f"python -m benchmarks.ablation --dataset {record['dataset']} --protocol {record['protocol']}"
                   f"{changes} --axes ... --seeds 0 1 2 --data-root DIR --work DIR")
        lines += ['', f"## {record['dataset']}, {record['protocol']}: epochs {selected}", '', f'`{command}`', '',
                  f"{record['device']}, torch {record['versions']['torch']}.", '',
                  f'![{file.stem}]({file.stem}.png)']
        for axis in AXES:
            if axis in record['axes']:
                lines += ['', f'### {axis}', '', *table(record, axis)]
        missing = [axis for axis in AXES if axis not in record['axes']]
        if missing:
            lines += ['', f"Not run: {', '.join(missing)}."]
        draw(record, results / f'{file.stem}.png')
    write_text(results / 'README.md', '\n'.join(lines) + '\n')


def main(argv: Any = None) -> None:
    """Train, write and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--dataset', help='name of its recipe; without it, only the report is made')
    parser.add_argument('--axes', nargs='+', choices=list(AXES), default=list(AXES))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--protocol', choices=('holdout', 'paper'), default='holdout')
    parser.add_argument('--set', action='append', default=[], metavar='NAME=VALUE', help='for all runs')
    parser.add_argument('--data-root', default=None)
    parser.add_argument('--work', default='runs/ablation', help='folder of the run folders')
    parser.add_argument('--results', default=str(RESULTS), help='folder of the JSON files and the report')
    options = parser.parse_args(argv)
    if options.dataset:
        run(options)
    report(Path(options.results))


if __name__ == '__main__':
    main()
