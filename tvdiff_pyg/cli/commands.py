"""What each command does."""
from __future__ import annotations

import csv
import json
import os
import sys
from argparse import Namespace
from dataclasses import fields
from pathlib import Path
from typing import Any, Container, Dict, Iterable, List


def _free_folder(name: str, suffix: str = '') -> Path:
    number = 1
    while True:
        path = Path('runs') / f"{name}{'' if number == 1 else f'-{number}'}{suffix}"
        if not path.exists():
            return path
        number += 1


def _demo(options: Namespace) -> None:
    from tvdiff_pyg.demo import run_demo

    run_demo(Path(options.out).expanduser() if options.out else _free_folder('demo'), options.seed)


def _data(options: Namespace) -> None:
    from tvdiff_pyg.datasets.data_statistics import describe_statistics, statistics
    from tvdiff_pyg.training import Recipe, load_data
    from tvdiff_pyg.training.recipe import INTERACTION_FILE
    from tvdiff_pyg.transforms import HoldOut

    values = dict(vars(options.dataset))
    if values['path'] is not None and values['name'] is None:
        values['name'] = INTERACTION_FILE
    config = Recipe.from_dict({'dataset': values}).dataset
    data = HoldOut(seed=config.split_seed, keep_existing=True)(load_data(config, options.data_root))
    figures = statistics(data)
    print(json.dumps(figures, indent=2, ensure_ascii=False) if options.json else describe_statistics(figures))


def _fit(options: Namespace) -> None:
    from tvdiff_pyg.distributed import launched
    from tvdiff_pyg.training import Recipe, fit
    from tvdiff_pyg.training.describe import describe_run
    from tvdiff_pyg.training.folder import PLOT

    if options.resume and not options.out:
        raise ValueError('--resume needs --out, the folder of the run to go on with')
    if not options.recipe and not options.config and not options.dataset.name:
        raise ValueError("name a recipe with --recipe, a file of your own with --config, or a data set with "
                         "--dataset.name; 'tvdiff fit --help' lists them")
    values: Dict[str, Dict[str, Any]] = {group.name: dict(vars(vars(options)[group.name])) for group in fields(Recipe)}
    if options.max_epochs is not None:
        values['training']['max_epochs'] = options.max_epochs
    recipe = Recipe.from_dict(values)
    if launched() and not options.out:
        raise ValueError('--out must name the run folder where torchrun starts several processes')
    out = Path(options.out).expanduser() if options.out else _free_folder(
        f'{recipe.dataset.name}-{options.protocol}')
    first = not launched() or os.environ['RANK'] == '0'
    if first:
        print(f"Training {f'on {recipe.dataset.name} ' if recipe.dataset.name else ''}into {out}", flush=True)
    run = fit(recipe, out, options.data_root, options.protocol, options.seed, options.resume, sys.stdout.isatty())
    if not first:
        return
    print(describe_run(run.metrics))
    plot = run.folder / PLOT
    print(f'run: {run.folder}' + (f'   plot: {plot}' if plot.is_file() else ''))


def _test(options: Namespace) -> None:
    from tvdiff_pyg.training import Run
    from tvdiff_pyg.training.describe import describe_run

    run = Run.load(options.run)
    metrics = {**run.metrics, 'test': run.evaluate('test').mean}
    if run.split.validation is not None:
        metrics['validation'] = run.evaluate('validation').mean
    print(json.dumps(metrics, indent=2) if options.json else describe_run(metrics))


def _recommend(options: Namespace) -> None:
    from tvdiff_pyg.training import Run
    from tvdiff_pyg.training.lists import read_ids, write_lists

    ways = {'--users': options.users, '--users-file': options.users_file, '--all': options.all or None,
            '--history': options.history}
    given = [way for way, value in ways.items() if value is not None]
    if len(given) != 1:
        raise ValueError(f"name the people by one of {', '.join(ways)}"
                         + (f", not by {' and '.join(given)}" if given else ''))
    if options.all and not (options.out or options.json):
        raise ValueError('--all needs --out FILE.jsonl or FILE.parquet, or --json')
    run = Run.load(options.run)
    known_users, known_items = run.index('user'), run.index('item')
    allow = None if options.allow is None else read_ids(options.allow, known_items)
    deny = [] if options.deny is None else read_ids(options.deny, known_items)
    unknown = sum(name not in known_items for name in deny)
    if unknown:
        print(f'{options.deny}: {unknown} of {len(deny)} ids are no items of this run, and are never listed',
              file=sys.stderr)
    answers: Iterable[Dict[str, Any]]
    if options.all:
        answers = run.recommend_all(options.k, allow, deny)
    elif options.history is not None:
        answers = run.recommend_history([_ids(options.history, known_items)], options.k, allow, deny)
    else:
        users = read_ids(options.users_file, known_users) if options.users_file else _ids(options.users, known_users)
        answers = run.recommend(users, options.k, allow, deny)
    if options.out:
        print(f'written: {options.out}, {write_lists(answers, Path(options.out).expanduser())} lists')
        return
    for answer in answers:
        if options.json:
            print(json.dumps(answer, ensure_ascii=False))
        else:
            _print_list(answer, options.k)


def _ids(text: str, known: Container[str]) -> List[str]:
    """Read ids separated by commas; a known id may hold some itself."""
    if text in known:
        return [text]
    try:
        return next(csv.reader([text], skipinitialspace=True, strict=True)) or ['']
    except csv.Error as error:
        raise ValueError(f'the ids cannot be read ({error}): separate them by commas, in quotes where they hold some, '
                         f'or write them to a file, one a line') from error


def _print_list(answer: Dict[str, Any], k: int) -> None:
    from tvdiff_pyg.training.describe import describe_item

    print(f"user {answer['user']}" if 'user' in answer else 'for these items')
    for rank, item in enumerate(answer['items'], 1):
        print(f"  {rank:3d}  {item['score']:8.4f}  {item['item']:>8}  {describe_item(item)}".rstrip())
    if len(answer['items']) < k:
        print(f"  no more: {len(answer['items'])} items may be listed")


def _export(options: Namespace) -> None:
    from tvdiff_pyg.datasets.reading import read_interactions
    from tvdiff_pyg.training import Run
    from tvdiff_pyg.training.export import export_run
    from tvdiff_pyg.training.recipe import INTERACTION_FILE, READING

    if options.format == 'torch' and options.index != 'flat':
        raise ValueError('--index goes with --format faiss')
    out = Path(options.out).expanduser()
    run = Run.load(options.run)
    new_pairs = None
    if options.new_items is not None:  # read as the run's own file was
        dataset = run.recipe.dataset
        names = (*READING, 'time_column') if dataset.name == INTERACTION_FILE else ()
        new_pairs = read_interactions(options.new_items, **{name: getattr(dataset, name) for name in names})
    about = export_run(run, out, options.index if options.format == 'faiss' else None, new_pairs)
    print(f"written: {out}, {about['items']} items of width {about['width']}; scores differ from the model's by "
          f"{about['difference']:.1e} of the largest, over {about['compared_users']} users")
    if about['new'] is not None:
        print('new: {items} items from {pairs} pairs; left out: {known_item} pairs of items that were trained on, '
              '{unknown_user} of unknown users'.format(**about['new']))
    if about['index'] is not None:
        print('index: ' + ', '.join(f'{name} {value}' for name, value in about['index'].items()))


def _thermo(options: Namespace) -> None:
    from tvdiff_pyg.training.describe import describe_thermodynamics
    from tvdiff_pyg.training.thermo import compare_runs

    if not 0 <= options.seed < 2 ** 63:
        raise ValueError(f"'--seed' must lie in 0..2^63-1, got {options.seed}")
    if options.users is not None and options.users < 2:
        raise ValueError(f"'--users' must be at least 2, got {options.users}")
    out = Path(options.out).expanduser() if options.out else _free_folder('thermo')
    rows = compare_runs(options.runs, out, options.published, options.users, options.seed)
    print(json.dumps(rows, indent=2, ensure_ascii=False) if options.json else describe_thermodynamics(rows))
    where = sys.stderr if options.json else sys.stdout
    print(f'written: {out}/reconstruction.png, plane.png, thermo.csv', file=where)


def _report(options: Namespace) -> None:
    from tvdiff_pyg.training.report import write_report

    out = Path(options.out).expanduser() if options.out else _free_folder('report', '.html')
    write_report(options.runs, out)
    print(f'written: {out}')


def _serve(options: Namespace) -> None:
    from tvdiff_pyg.serving import Limits, serve

    limits = Limits(max_k=options.max_k, max_history=options.max_history, max_filter=options.max_filter,
                    max_body=options.max_body, max_waiting=options.max_waiting, threads=options.threads)
    hosts = None if options.allowed_hosts is None else [name.strip() for name in options.allowed_hosts.split(',')]
    serve(options.run, options.host, options.port, limits, hosts)


COMMANDS = {'demo': _demo, 'data': _data, 'fit': _fit, 'test': _test, 'recommend': _recommend, 'export': _export,
            'thermo': _thermo, 'report': _report, 'serve': _serve}
