"""The command line: ``tvdiff demo | data | fit | test | recommend | export | thermo | report | serve``."""
from __future__ import annotations

import csv
import json
import os
import sys
from argparse import Namespace
from dataclasses import fields
from pathlib import Path
from typing import Any, Dict, Iterable, List, NoReturn, Optional, Sequence

from tvdiff_pyg import __version__

EXTRA = "this command needs the packages of the extra 'demo': pip install 'tvdiff-pyg[demo]'"


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run the command line; wrong input ends with one line on standard error and exit status 2."""
    # Tables are made and dropped at every step: huge pages spare most of the page faults that this costs. Torch reads
    # this once, at its first allocation, and ignores it where the system has no such pages.
    os.environ.setdefault('THP_MEM_ALLOC_ENABLE', '1')
    try:
        import jsonargparse  # noqa: F401
        import pytorch_lightning  # noqa: F401
        import safetensors  # noqa: F401

        from tvdiff_pyg.training import TrainingDiverged, TrainingInterrupted
    except ImportError as error:
        _fail(f'{EXTRA} ({error})')

    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        options = _parser().parse_args(_settings_files_first(arguments))
        _COMMANDS[options.command](options[options.command])
    except TrainingInterrupted as error:
        _fail(str(error), status=130)
    except KeyboardInterrupt:
        _fail('interrupted', status=130)
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
    except (ValueError, OSError, ImportError) as error:
        _fail(str(error))
    except TrainingDiverged as error:
        _fail(str(error), status=1)
    except RuntimeError as error:
        if 'allocate' not in str(error) and 'out of memory' not in str(error):
            raise
        _fail(f'not enough memory ({error}): take a smaller model.hidden_channels or training.batch_size', status=1)


def _fail(message: str, status: int = 2) -> NoReturn:
    line = ' '.join(message.split())
    print(f"tvdiff: error: {line if len(line) <= 600 else line[:600] + ' ...'}", file=sys.stderr)
    raise SystemExit(status)


def _settings_files_first(arguments: List[str]) -> List[str]:
    """Put settings files before the other options, so that single settings always override them.

    First the run's own where one is resumed, then the recipe's, then those of --config.
    """
    if arguments[:1] != ['fit']:
        return arguments
    from tvdiff_pyg.training import recipe_path
    from tvdiff_pyg.training.folder import CONFIG, read_settings
    from tvdiff_pyg.training.recipe import INTERACTION_FILE

    values: Dict[str, List[str]] = {'--recipe': [], '--config': [], '--out': []}
    rest: List[str] = []
    position = 1
    while position < len(arguments):
        name, equals, value = arguments[position].partition('=')
        position += 1
        if name not in values:
            rest.append(arguments[position - 1])
        elif equals:
            values[name].append(value)
        elif position < len(arguments):
            values[name].append(arguments[position])
            position += 1
        else:
            raise ValueError(f'{name} needs a value')
    for name in ('--recipe', '--out'):
        if len(values[name]) > 1:
            raise ValueError(f"{name} is given twice, as {' and '.join(values[name])}")
    own_file = any(option.partition('=')[0] == '--dataset.path' for option in rest)
    if own_file and not values['--recipe'] and not values['--config'] and '--resume' not in rest:
        if _option(rest, '--model.name') in (None, 'tv-diff'):
            values['--recipe'].append(INTERACTION_FILE)
        elif _option(rest, '--dataset.name') is None:  # that recipe is for TV-Diff
            rest.insert(0, f'--dataset.name={INTERACTION_FILE}')
    for file in values['--config']:
        _check_config(file)
    files = [str(recipe_path(name)) for name in values['--recipe']] + values['--config']
    if '--resume' in rest and values['--out']:
        folder = Path(values['--out'][0]).expanduser()
        read_settings(folder)  # for its errors
        files.insert(0, str(folder / CONFIG))
    return ['fit', *(f'--config={file}' for file in files),
            *(f'{name}={value}' for name in ('--recipe', '--out') for value in values[name]), *rest]


def _option(arguments: Sequence[str], name: str) -> Optional[str]:
    """Return the value of an option among arguments of the forms ``--name=value`` and ``--name value``."""
    for argument, following in zip(arguments, [*arguments[1:], '']):
        if argument.partition('=')[0] == name:
            return argument.partition('=')[2] if '=' in argument else following
    return None


def _check_config(file: str) -> None:
    """Raise ``ValueError``, naming the file, unless it is a YAML mapping whose groups are mappings too."""
    import yaml

    from tvdiff_pyg.training import Recipe

    try:
        values = yaml.safe_load(Path(file).read_text(encoding='utf-8'))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f'--config {file} cannot be read as YAML: {error}') from error
    if not isinstance(values, dict):
        raise ValueError(f'--config {file} must hold named settings, as the recipes do')
    if 'recipe' in values:
        raise ValueError(f"--config {file} holds 'recipe': pass --recipe {values['recipe']} beside it instead")
    for group in fields(Recipe):
        if group.name in values and not isinstance(values[group.name], dict):
            raise ValueError(f"--config {file}: '{group.name}' must hold named settings, got {values[group.name]!r}")


def _parser() -> Any:
    from jsonargparse import ActionConfigFile, ArgumentParser

    from tvdiff_pyg.training import PROTOCOLS, Recipe, recipe_names
    from tvdiff_pyg.training.recipe import DatasetConfig

    class Parser(ArgumentParser):
        def __init__(self, **options: Any) -> None:
            super().__init__(allow_abbrev=False, **options)  # '--rec' must not pass as --recipe without its file

        def error(self, message: str, ex: Optional[Exception] = None) -> NoReturn:
            _fail(f"{message} (see 'tvdiff --help')")

    def run_parser(description: str) -> Any:
        parser = Parser(description=description)
        parser.add_argument('run', type=str, help='folder of a finished run')
        return parser

    parser = Parser(prog='tvdiff', description='TV-Diff, a tri-view diffusion recommender.')
    parser.add_argument('--version', action='version', version=f'tvdiff {__version__}')
    commands = parser.add_subcommands(dest='command', title='commands')

    demo = Parser(description='Train on MovieLens small, compare with baselines, recommend movies to two people.')
    demo.add_argument('--out', type=Optional[str], help='run folder (default: the first free runs/demo...)')
    demo.add_argument('--seed', type=int, default=0, help="the run's seed")
    commands.add_subcommand('demo', demo, help='two minutes on real ratings')

    data = Parser(description='Print the figures of a data set: sizes, density, degrees, and what was dropped.')
    data.add_class_arguments(DatasetConfig, 'dataset')
    data.add_argument('--data-root', type=Optional[str], help='folder that holds NAME/raw/, as for fit')
    data.add_argument('--json', action='store_true', help='print JSON')
    commands.add_subcommand('data', data, help="a data set's figures, as fit would split it")

    fit = Parser(description='Train a model into a run folder. Every setting of the recipe can be overridden.')
    fit.add_argument('--recipe', type=Optional[str], help=f"one of {', '.join(recipe_names())}")
    fit.add_argument('--config', action=ActionConfigFile, help='a recipe file of your own')
    fit.add_argument('--data-root', type=Optional[str],
                     help='folder that holds NAME/raw/ (default: $TVDIFF_DATA, or a cache that is downloaded to)')
    fit.add_argument('--protocol', choices=PROTOCOLS, default='holdout',
                     help='select the epoch on validation, or on test as the published figures did')
    fit.add_argument('--out', type=Optional[str], help='run folder (default: the first free runs/NAME...)')
    fit.add_argument('--seed', type=int, default=0, help="the run's seed")
    fit.add_argument('--max-epochs', type=Optional[int], help='short for --training.max_epochs')
    fit.add_argument('--resume', action='store_true', help='go on with the run in --out, by its own settings')
    fit.add_class_arguments(Recipe)
    commands.add_subcommand('fit', fit, help='train a model')

    test = run_parser('Evaluate a finished run again, from its weights.')
    test.add_argument('--json', action='store_true', help='print JSON')
    commands.add_subcommand('test', test, help='evaluate a run')

    recommend = run_parser('Print or write the best unseen items of people.')
    recommend.add_argument('--users', type=Optional[str],
                           help='original ids, separated by commas; quote an id that holds one: \'"a,b",c\'')
    recommend.add_argument('--users-file', type=Optional[str], help='a file of original ids, one a line')
    recommend.add_argument('--all', action='store_true', help='everybody; needs --out or --json')
    recommend.add_argument('--history', type=Optional[str],
                           help='for somebody who was not trained on: ids of the items they have seen, as --users')
    recommend.add_argument('-k', type=int, default=10, help='length of the lists')
    recommend.add_argument('--allow', type=Optional[str], help='a file of the only items to be listed, one a line')
    recommend.add_argument('--deny', type=Optional[str], help='a file of items not to be listed')
    recommend.add_argument('--json', action='store_true', help='print JSON lines')
    recommend.add_argument('--out', type=Optional[str],
                           help='write a file instead, with a line (.jsonl) or a row (.parquet) a person')
    commands.add_subcommand('recommend', recommend, help='top-k lists with the original ids')

    export = run_parser('Write a run of tv-diff or diffrec for serving: an encoder from lists of items to query '
                        'vectors (torch.export), the item vectors, the ids, and with --format faiss a search index.')
    export.add_argument('--format', choices=('torch', 'faiss'), default='torch', help='with or without a FAISS index')
    export.add_argument('--index', choices=('flat', 'ivf', 'hnsw'), default='flat',
                        help='of --format faiss: exact, or approximate with its recall measured')
    export.add_argument('--new-items', type=Optional[str],
                        help='a file of interactions, of the form of the one that was trained on: items of theirs that '
                             'were not get vectors from the known users who took them (tv-diff)')
    export.add_argument('--out', type=str, required=True, help='folder to make')
    commands.add_subcommand('export', export, help='an encoder, item vectors and a search index')

    thermo = Parser(description='Energy and entropy of what models make of the training data, against the data: '
                                'delta U and delta S, in total; plots user by user and in their plane.')
    thermo.add_argument('runs', nargs='+', type=str, help='folders of finished runs')
    thermo.add_argument('--published', action='store_true', help="by the definitions of the paper's plots")
    thermo.add_argument('--users', type=Optional[int], help='estimate from a random sample of so many users')
    thermo.add_argument('--seed', type=int, default=0, help='of the sample')
    thermo.add_argument('--out', type=Optional[str],
                        help='folder of the plots and of thermo.csv, user by user (default: the first free '
                             'runs/thermo...)')
    thermo.add_argument('--json', action='store_true', help='print JSON')
    commands.add_subcommand('thermo', thermo, help='energy and entropy of runs')

    report = Parser(description='Write one HTML file about finished runs that needs no network.')
    report.add_argument('runs', nargs='+', type=str, help='folders of finished runs')
    report.add_argument('--out', type=Optional[str], help='the file (default: the first free runs/report....html)')
    commands.add_subcommand('report', report, help='an HTML file about runs')

    serve = run_parser('Serve a run over HTTP until Ctrl-C or SIGTERM: recommendations, search, a demo page. It has no '
                       'TLS and no password: put a proxy before it where others can reach it.')
    serve.add_argument('--host', type=str, default='127.0.0.1', help='address to listen on')
    serve.add_argument('--port', type=int, default=8000, help='0 takes a free one')
    serve.add_argument('--allowed-hosts', type=Optional[str],
                       help='names that requests may be addressed to, separated by commas (default: on loopback its '
                            'own names, elsewhere any)')
    serve.add_argument('--max-k', type=int, default=100, help='longest list')
    serve.add_argument('--max-history', type=int, default=1000, help='most items of a history')
    serve.add_argument('--max-filter', type=int, default=1000, help='most items to allow, or to deny')
    serve.add_argument('--max-body', type=int, default=65536, help='bytes of a body')
    serve.add_argument('--max-waiting', type=int, default=64, help='requests at a time; others are refused')
    serve.add_argument('--threads', type=int, default=1, help='threads that score')
    commands.add_subcommand('serve', serve, help='an HTTP service')
    return parser


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
        print(f'Training on {recipe.dataset.name} into {out}', flush=True)
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
    allow = None if options.allow is None else read_ids(options.allow)
    deny = [] if options.deny is None else read_ids(options.deny)
    answers: Iterable[Dict[str, Any]]
    if options.all:
        answers = run.recommend_all(options.k, allow, deny)
    elif options.history is not None:
        answers = run.recommend_history([_ids(options.history, run.split.data.item_id)], options.k, allow, deny)
    else:
        users = read_ids(options.users_file) if options.users_file else _ids(options.users, run.split.data.user_id)
        answers = run.recommend(users, options.k, allow, deny)
    if options.out:
        print(f'written: {options.out}, {write_lists(answers, Path(options.out).expanduser())} lists')
        return
    for answer in answers:
        if options.json:
            print(json.dumps(answer, ensure_ascii=False))
        else:
            _print_list(answer, options.k)


def _ids(text: str, known: Sequence[str]) -> List[str]:
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
        own = {name: getattr(dataset, name) for name in READING} if dataset.name == INTERACTION_FILE else {}
        new_pairs = read_interactions(options.new_items, **own)
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


_COMMANDS = {'demo': _demo, 'data': _data, 'fit': _fit, 'test': _test, 'recommend': _recommend, 'export': _export,
             'thermo': _thermo, 'report': _report, 'serve': _serve}
