"""Accuracy of TV-Diff and its peers: the same data, protocol, loop, tuning budget and tests for every model.

``python -m benchmarks.accuracy --datasets lastfm --models tv-diff lightgcn ease --seeds 0 1 2 --protocol both
--data-root DIR --work FOLDER [--budget-minutes B]``

Per data set and model, settings are searched on validation (the first setting and nine random ones, none of them
twice, the same number and the same minutes for every model; the draws depend on data set and model alone); then a cell
is trained for each protocol and seed, with the setting that did best. Gowalla and Yelp2018 are not searched: one
setting is carried over (``spaces.py`` says from where). Everything goes on where it stopped: a finished cell's JSON is
kept, an interrupted run resumes from its last epoch, and so does one that ran out of an earlier, smaller budget. What
fails is named at the end, and the others go on. ``python -m benchmarks.report`` makes the tables and plots from the
JSON files.
"""
from __future__ import annotations

import argparse
import itertools
import json
import shutil
import zlib
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from safetensors.numpy import load_file

from benchmarks.spaces import DATASETS, MODELS, Choice, Settings, first
from benchmarks.sweep import Diverged, check_run, curve, pack, run_fit, unflatten
from tvdiff_pyg.files import write_json
from tvdiff_pyg.training.folder import CONFIG, PER_USER
from tvdiff_pyg.training.recipe import MODELS as MODEL_SETTINGS, Recipe, flatten

RESULTS = Path(__file__).parent / 'results' / 'accuracy'
SEARCHED_ON = 'recall@20'
GRADIENT = [name for name, settings in MODEL_SETTINGS.items() if 'training' in settings.others]
SEEDED = [*GRADIENT, 'ials']  # the others come out the same whatever the seed
DRAWS = 10  # a trial, at most: a space may have fewer settings than trials


def recipe_of(dataset: str, model: str, settings: Settings) -> Recipe:
    """Return the recipe that a model's settings stand for; settings that are defaults may be left out."""
    return Recipe.from_dict(unflatten({'dataset.name': dataset, 'model.name': model, **settings}))


def draw_setting(dataset: str, model: str, number: int) -> Settings:
    """Return the setting of a trial: the first one, or a random draw that depends on its number alone."""
    settings = first(dataset, model).settings
    if number == 0:
        return settings
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space: Dict[str, Any] = {
        name: optuna.distributions.CategoricalDistribution(choice.values) if isinstance(choice, Choice)
        else optuna.distributions.FloatDistribution(choice.low, choice.high, log=True)
        for name, choice in MODELS[model].space.items()}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(zlib.crc32(f'{dataset}/{model}'.encode())))
    drawn = [study.ask(space).params for _ in range(number)][-1]
    return {**settings, **{name: float(f'{value:.3g}') if isinstance(value, float) else value
                           for name, value in drawn.items()}}


def train(folder: Path, dataset: str, model: str, protocol: str, seed: int, settings: Settings,
          minutes: Optional[float], data_root: Optional[str]) -> Dict[str, Any]:
    """Run ``tvdiff fit`` into a folder, or go on with it, or read it, and return its metrics.

    Raises:
        RuntimeError: the folder holds a run of other settings.
    """
    if not (folder / CONFIG).is_file():
        shutil.rmtree(folder, ignore_errors=True)  # stopped before it had begun
    else:
        expected = flatten(recipe_of(dataset, model, settings).to_dict())
        del expected['training.max_minutes']  # it may go on with another budget
        check_run(folder, expected, protocol, seed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return run_fit(
        folder,
        [f'--dataset.name={dataset}', f'--model.name={model}', '--protocol', protocol, '--seed', str(seed),
         *(f'--{name}={json.dumps(value) if isinstance(value, (bool, list)) else value}'
           for name, value in settings.items()), *(['--data-root', data_root] if data_root else [])],
        [f"--training.max_minutes={minutes or 'null'}"] if model in GRADIENT else [])


def search(dataset: str, model: str, work: Path, results: Path, trials: int, minutes: float,
           data_root: Optional[str]) -> Dict[str, Any]:
    """Search a model's settings on validation, or go on, and return the record of the trials.

    Raises:
        RuntimeError: the record is of another search space, other draws, or another limit of minutes.
    """
    path = results / dataset / model / 'search.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    space = {name: list(choice.values) if isinstance(choice, Choice) else [*choice]
             for name, choice in MODELS[model].space.items()}
    record: Dict[str, Any] = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {
        'dataset': dataset, 'model': model, 'selected_on': f'validation {SEARCHED_ON}', 'seed': 0,
        'minutes_a_trial': minutes, 'source_of_first': first(dataset, model).source,
        'space': space, 'trials': []}
    if record['space'] != space or any(
            recipe_of(dataset, model, trial['settings']) != recipe_of(dataset, model, draw_setting(
                dataset, model, trial['number'])) for trial in record['trials']):
        raise RuntimeError(f'{path} is of another search than spaces.py describes: delete it with its cells, or name '
                           f'another --results')
    if record['minutes_a_trial'] != minutes:
        raise RuntimeError(f"{path} is of trials of {record['minutes_a_trial']:g} minutes: name these by "
                           f'--trial-minutes, or another --results')
    wanted = trials if MODELS[model].space else 1
    for number in range(max((trial['number'] for trial in record['trials']), default=-1) + 1, DRAWS * wanted):
        tried = distinct(record)
        if len(tried) >= wanted:
            break
        settings = draw_setting(dataset, model, number)
        if settings in tried:  # drawn from few values
            continue
        folder = work / dataset / model / f'trial-{number}'
        trial: Dict[str, Any] = {'number': number, 'settings': settings}
        try:
            metrics = train(folder, dataset, model, 'holdout', 0, settings, minutes, data_root)
            trial.update({'validation': metrics['validation'][SEARCHED_ON], 'stopped': metrics['stopped'],
                          'epochs': metrics['epochs'], 'train_s': metrics['train_s'], 'wall_s': metrics['wall_s']})
        except Diverged as error:  # in its first epoch
            trial.update({'validation': 0.0, 'stopped': f'diverged: {error}', 'epochs': 0, 'train_s': 0, 'wall_s': 0})
        record['trials'].append(trial)
        record['best'] = max(record['trials'], key=lambda t: t['validation'])['number']
        write_json(path, record)
        print(f"{dataset} {model} trial {number}: validation {trial['validation']:.4f}, {trial['stopped']}, "
              f"{trial['wall_s']:.0f} s, {settings}", flush=True)
        for other in record['trials']:
            if other['number'] != record['best']:
                shutil.rmtree(work / dataset / model / f"trial-{other['number']}", ignore_errors=True)
    return record


def distinct(record: Dict[str, Any]) -> List[Settings]:
    """Return the settings that a search has tried, each once."""
    tried: List[Settings] = []
    for trial in record['trials']:
        if trial['settings'] not in tried:
            tried.append(trial['settings'])
    return tried


def cell(folder: Path, metrics: Dict[str, Any], settings: Settings, chosen: str) -> Dict[str, Any]:
    """Return what is kept of a finished run: figures, curve and the test part's values user by user."""
    metrics = {name: value for name, value in metrics.items() if name != 'files'}
    out = {'model': metrics['model'], 'dataset': metrics['dataset'], 'protocol': metrics['protocol'],
           'seed': metrics['seed'], 'settings': settings, 'chosen': chosen,
           'converged': metrics['stopped'] in ('patience', 'closed form'), 'metrics': metrics, 'curve': curve(folder)}
    values = load_file(folder / PER_USER)
    out['per_user'] = {name: pack(values[name]) for name in ('recall@20', 'ndcg@20')}
    return out


def is_finished(path: Path, dataset: str, model: str, settings: Settings, minutes: Optional[float]) -> bool:
    """Tell whether a cell has its JSON, and has not merely run out of a smaller budget.

    Raises:
        RuntimeError: the JSON is of other settings.
    """
    if not path.is_file():
        return False
    kept = json.loads(path.read_text(encoding='utf-8'))
    if recipe_of(dataset, model, kept['settings']) != recipe_of(dataset, model, settings):
        raise RuntimeError(f'{path} is of other settings than those that were found best: delete it, or name another '
                           f'--results')
    metrics = kept['metrics']
    return metrics['stopped'] != 'max_minutes' or minutes is not None and metrics['train_s'] >= 60 * minutes


def choose(dataset: str, model: str, options: argparse.Namespace) -> Tuple[Settings, str, Optional[int]]:
    """Return the setting that a model's cells are trained with, where it is from, and the search's best trial."""
    if not DATASETS[dataset].searched:
        carried = first(dataset, model)
        return carried.settings, f'carried over: {carried.source}', None
    record = search(dataset, model, Path(options.work), Path(options.results), options.trials, options.trial_minutes,
                    options.data_root)
    best = next(trial for trial in record['trials'] if trial['number'] == record['best'])
    return best['settings'], f'best of {len(distinct(record))} trials on validation', best['number']


def make_cell(path: Path, dataset: str, model: str, protocol: str, seed: int, settings: Settings, chosen: str,
              best: Optional[int], options: argparse.Namespace) -> None:
    """Train a cell, or go on with it, and write its JSON, unless it is there."""
    if is_finished(path, dataset, model, settings, options.budget_minutes):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(options.work) / dataset / model
    folder, trial = work / f'{protocol}-seed{seed}', work / f'trial-{best}'
    if (protocol, seed) == ('holdout', 0) and (trial / CONFIG).is_file() and not folder.exists():
        trial.rename(folder)  # the same run, begun by the search
    metrics = train(folder, dataset, model, protocol, seed, settings, options.budget_minutes, options.data_root)
    write_json(path, cell(folder, metrics, settings, chosen))
    print(f"{dataset} {model} {protocol} seed {seed}: test recall@20 {metrics['test']['recall@20']:.4f} "
          f"ndcg@20 {metrics['test']['ndcg@20']:.4f}, {metrics['stopped']}, {metrics['wall_s']:.0f} s", flush=True)


def main(argv: Any = None) -> List[Path]:
    """Search, train and write; return the cells' files.

    Raises:
        SystemExit: some cells failed; the others are written.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--datasets', nargs='+', choices=list(DATASETS), default=list(DATASETS))
    parser.add_argument('--models', nargs='+', choices=list(MODELS), default=list(MODELS))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--protocol', choices=('holdout', 'paper', 'both'), default='both')
    parser.add_argument('--trials', type=int, default=10, help='settings that are tried for each model')
    parser.add_argument('--trial-minutes', type=float, default=6, help='of training, at most, for each trial')
    parser.add_argument('--budget-minutes', type=float, help='of training, at most, for each cell')
    parser.add_argument('--data-root', default=None)
    parser.add_argument('--work', default='runs/accuracy', help='folder of the run folders')
    parser.add_argument('--results', default=str(RESULTS), help='folder of the JSON files')
    parser.add_argument('--search-only', action='store_true')
    options = parser.parse_args(argv)
    if options.trials < 1:
        parser.error(f"'--trials' must be at least 1, got {options.trials}")
    protocols: Sequence[str] = ('holdout', 'paper') if options.protocol == 'both' else (options.protocol,)
    files: List[Path] = []
    failed: List[str] = []
    for dataset, model in itertools.product(options.datasets, options.models):
        try:
            chosen = choose(dataset, model, options)
        except (RuntimeError, ValueError) as error:
            failed.append(f'{dataset} {model}: {error}')
            print(failed[-1], flush=True)
            continue
        if options.search_only:
            continue
        for protocol, seed in itertools.product(protocols, options.seeds if model in SEEDED else [0]):
            path = Path(options.results) / dataset / model / f'{protocol}-seed{seed}.json'
            try:
                make_cell(path, dataset, model, protocol, seed, *chosen, options)
                files.append(path)
            except (RuntimeError, ValueError) as error:
                failed.append(f'{dataset} {model} {protocol} seed {seed}: {error}')
                print(failed[-1], flush=True)
    if failed:
        raise SystemExit('\n'.join(['not finished:', *failed]))
    return files


if __name__ == '__main__':
    main()
