"""The options of the command line, and in which order they are read."""
from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, Dict, List, NoReturn, Optional, Sequence

from tvdiff_pyg import __version__


def fail(message: str, status: int = 2) -> NoReturn:
    """End the program with one line on standard error."""
    line = ' '.join(message.split())
    print(f"tvdiff: error: {line if len(line) <= 600 else line[:600] + ' ...'}", file=sys.stderr)
    raise SystemExit(status)


def settings_files_first(arguments: List[str]) -> List[str]:
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


def make_parser() -> Any:
    """Return the parser of all commands; it needs the extra 'train'."""
    from jsonargparse import ActionConfigFile, ArgumentParser

    from tvdiff_pyg.training import PROTOCOLS, Recipe, recipe_names
    from tvdiff_pyg.training.recipe import PARSER_MODE, DatasetConfig

    class Parser(ArgumentParser):
        def __init__(self, **options: Any) -> None:
            # '--rec' must not pass as --recipe without its file
            super().__init__(allow_abbrev=False, parser_mode=PARSER_MODE, **options)

        def error(self, message: str, ex: Optional[Exception] = None) -> NoReturn:
            fail(f"{message} (see 'tvdiff --help')")

    def run_parser(description: str) -> Any:
        parser = Parser(description=description)
        parser.add_argument('run', type=str, help='folder of a finished run')
        return parser

    parser = Parser(prog='tvdiff', description='TV-Diff, a tri-view diffusion recommender.')
    parser.add_argument('--version', action='version', version=f'tvdiff {__version__}')
    commands = parser.add_subcommands(dest='command', title='commands')

    demo = Parser(description='Train on MovieLens small, compare with baselines, recommend movies to two people.')
    demo.add_argument('--out', type=str, help='run folder (default: the first free runs/demo...)')
    demo.add_argument('--seed', type=int, default=0, help="the run's seed")
    commands.add_subcommand('demo', demo, help='two minutes on real ratings')

    data = Parser(description='Print the figures of a data set: sizes, density, degrees, and what was dropped.')
    data.add_class_arguments(DatasetConfig, 'dataset')
    data.add_argument('--data-root', type=str, help='folder that holds NAME/raw/, as for fit')
    data.add_argument('--json', action='store_true', help='print JSON')
    commands.add_subcommand('data', data, help="a data set's figures, as fit would split it")

    fit = Parser(description='Train a model into a run folder. Every setting of the recipe can be overridden.')
    fit.add_argument('--recipe', type=str, help=f"one of {', '.join(recipe_names())}")
    fit.add_argument('--config', action=ActionConfigFile, help='a recipe file of your own')
    fit.add_argument('--data-root', type=str,
                     help='folder that holds NAME/raw/ (default: $TVDIFF_DATA, or a cache that is downloaded to)')
    fit.add_argument('--protocol', choices=PROTOCOLS, default='holdout',
                     help='select the epoch on validation, or on test as the published figures did')
    fit.add_argument('--out', type=str, help='run folder (default: the first free runs/NAME...)')
    fit.add_argument('--seed', type=int, default=0, help="the run's seed")
    fit.add_argument('--max-epochs', type=Optional[int], help='short for --training.max_epochs')
    fit.add_argument('--resume', action='store_true', help='go on with the run in --out, by its own settings')
    fit.add_class_arguments(Recipe)
    commands.add_subcommand('fit', fit, help='train a model')

    test = run_parser('Evaluate a finished run again, from its weights.')
    test.add_argument('--json', action='store_true', help='print JSON')
    commands.add_subcommand('test', test, help='evaluate a run')

    recommend = run_parser('Print or write the best unseen items of people. What the data have of a user is seen, the '
                           'held-out parts included.')
    recommend.add_argument('--users', type=str,
                           help='original ids, separated by commas; quote an id that holds one: \'"a,b",c\'')
    recommend.add_argument('--users-file', type=str, help='a file of original ids, one a line')
    recommend.add_argument('--all', action='store_true', help='everybody; needs --out or --json')
    recommend.add_argument('--history', type=str,
                           help='for somebody who was not trained on: ids of the items they have seen, as --users')
    recommend.add_argument('-k', type=int, default=10, help='length of the lists')
    recommend.add_argument('--allow', type=str, help='a file of the only items to be listed, one a line')
    recommend.add_argument('--deny', type=str, help='a file of items not to be listed')
    recommend.add_argument('--json', action='store_true', help='print JSON lines')
    recommend.add_argument('--out', type=str,
                           help='write a file instead, with a line (.jsonl) or a row (.parquet) a person')
    commands.add_subcommand('recommend', recommend, help='top-k lists with the original ids')

    export = run_parser('Write a run of tv-diff or diffrec for serving: an encoder from lists of items to query '
                        'vectors (torch.export), the item vectors, the ids, and with --format faiss a search index.')
    export.add_argument('--format', choices=('torch', 'faiss'), default='torch', help='with or without a FAISS index')
    export.add_argument('--index', choices=('flat', 'ivf', 'hnsw'), default='flat',
                        help='of --format faiss: exact, or approximate with its recall measured')
    export.add_argument('--new-items', type=str,
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
    thermo.add_argument('--out', type=str,
                        help='folder of the plots and of thermo.csv, user by user (default: the first free '
                             'runs/thermo...)')
    thermo.add_argument('--json', action='store_true', help='print JSON')
    commands.add_subcommand('thermo', thermo, help='energy and entropy of runs')

    report = Parser(description='Write one HTML file about finished runs that needs no network.')
    report.add_argument('runs', nargs='+', type=str, help='folders of finished runs')
    report.add_argument('--out', type=str, help='the file (default: the first free runs/report....html)')
    commands.add_subcommand('report', report, help='an HTML file about runs')

    serve = run_parser('Serve a run over HTTP until Ctrl-C or SIGTERM: recommendations, search, a demo page. It has no '
                       'TLS and no password: put a proxy before it where others can reach it.')
    serve.add_argument('--host', type=str, default='127.0.0.1', help='address to listen on')
    serve.add_argument('--port', type=int, default=8000, help='0 takes a free one')
    serve.add_argument('--allowed-hosts', type=str,
                       help='names that requests may be addressed to, separated by commas (default: on loopback its '
                            'own names, elsewhere any)')
    serve.add_argument('--max-k', type=int, default=100, help='longest list')
    serve.add_argument('--max-history', type=int, default=1000, help='most items of a history')
    serve.add_argument('--max-filter', type=int, default=1000, help='most items to allow, or to deny')
    serve.add_argument('--max-body', type=Optional[int],
                       help='bytes of a body (default: 64 for each item of a history and two filters, at least 65536)')
    serve.add_argument('--max-waiting', type=int, default=64, help='requests at a time; others are refused')
    serve.add_argument('--threads', type=int, default=1, help='threads that score')
    commands.add_subcommand('serve', serve, help='an HTTP service')
    return parser
