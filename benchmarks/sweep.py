"""Train a recipe over a grid of settings and seeds, one run folder a cell, and say what came of it.

``python -m benchmarks.sweep --recipe lastfm --data-root DIR --protocol paper --seeds 0 1 2 --out FOLDER
--vary model.hidden_channels=64,256 --vary model.engine=factored,dense --json FILE``

Settings that change together are joined by ``+``: ``--vary model.energy_items+model.energy_rank=null+0,2048+32``.

Each cell is a ``tvdiff fit`` in a process of its own, so that its peak memory is its own. A cell that has finished is
read, one that was interrupted goes on from its last epoch: kill the sweep whenever you like and call it again. Cells
that the JSON file holds are kept, and not trained again where their folders are gone.
"""
from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import zlib
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Sequence, Tuple

import numpy as np
import yaml

from tvdiff_pyg.cli import DIVERGED
from tvdiff_pyg.files import locked, write_json, write_text
from tvdiff_pyg.training.folder import CONFIG, METRICS, read_history, read_settings
from tvdiff_pyg.training.recipe import Recipe, flatten, recipe_path

WATCHED = ('delta_energy', 'delta_entropy', 'false_negatives', 'false_negatives_by_chance')
Cell = Dict[str, str]  # setting -> value, as written on the command line
Rows = Dict[Tuple[str, int], Dict[str, Any]]  # (cell as JSON, seed) -> the cell and what its run's metrics say


class Diverged(RuntimeError):
    """A training diverged before its first epoch was over."""


def pack(values: np.ndarray) -> str:
    """Return values user by user as text for a JSON file: float16, compressed, base64."""
    return b64encode(zlib.compress(np.asarray(values, np.float16).tobytes(), 9)).decode()


def unpack(text: str) -> np.ndarray:
    """Return what :func:`pack` made text of, as float64."""
    return np.frombuffer(zlib.decompress(b64decode(text)), np.float16).astype(np.float64)


def spread(values: Sequence[float], form: str = '.4f') -> str:
    """Return the mean of values, and their standard deviation where there are several."""
    return f'{statistics.mean(values):{form}}' + (f' ± {statistics.stdev(values):{form}}' if len(values) > 1 else '')


def write_page(path: Path, text: str) -> None:
    """Write a page, or raise ``SystemExit`` where a file with another heading has its name."""
    heading = text.partition('\n')[0]
    if path.is_file() and path.read_text(encoding='utf-8').partition('\n')[0] != heading:
        raise SystemExit(f"{path} is another page than '{heading}': name another --results")
    write_text(path, text)


def curve(folder: Path) -> List[Dict[str, Any]]:
    """Return what is kept of each epoch of a run: seconds from the start, Recall@20, NDCG@20 and what was watched."""
    seconds, out = 0.0, []
    for row in read_history(folder):
        seconds += row['seconds']
        out.append({'epoch': int(row['epoch']), 'seconds': round(seconds, 2), **{
            name: round(value, 6) for name, value in row.items()
            if name.endswith(('recall@20', 'ndcg@20')) or name in WATCHED}})
    return out


def unflatten(settings: Mapping[str, Any]) -> Dict[str, Dict[str, Any]]:
    """Return settings by ``group.name`` in groups, as a recipe's file has them."""
    groups: Dict[str, Dict[str, Any]] = {}
    for name, value in settings.items():
        group, _, key = name.partition('.')
        groups.setdefault(group, {})[key] = value
    return groups


def grid(vary: Sequence[str]) -> List[Cell]:
    """Return the cells of ``name=value,value`` options: every combination."""
    axes: List[List[Tuple[Tuple[str, str], ...]]] = []
    for option in vary:
        names, _, values = option.partition('=')
        axis = [tuple(zip(names.split('+'), value.split('+'))) for value in values.split(',')]
        if not names or not values or any(len(point) != names.count('+') + 1 for point in axis):
            raise ValueError(f"--vary takes NAME=VALUE,VALUE or NAME+NAME=VALUE+VALUE,VALUE+VALUE; got '{option}'")
        axes.append(axis)
    return [dict(itertools.chain(*points)) for points in itertools.product(*axes)]


def folder_name(cell: Cell, seed: int) -> str:
    """Return the name of a cell's run folder."""
    return ','.join([f"{name.rpartition('.')[2]}={value}" for name, value in cell.items()] + [f'seed={seed}'])


def check_run(folder: Path, settings: Mapping[str, Any], protocol: str, seed: int) -> None:
    """Raise ``RuntimeError`` unless a folder's run was begun with these settings, by ``group.name``."""
    found = flatten(read_settings(folder).to_dict())
    wanted = {**settings, 'protocol': protocol, 'seed': seed}
    other = [f'{name} {found.get(name)}, not {value}' for name, value in wanted.items() if found.get(name) != value]
    if other:
        raise RuntimeError(f"{folder} holds a run of other settings ({'; '.join(other)}): delete it, or name another "
                           f'folder of runs')


def run_fit(folder: Path, begin: Sequence[str], always: Sequence[str] = ()) -> Dict[str, Any]:
    """Run ``tvdiff fit`` into a folder in a process of its own, or go on with what was begun there.

    Args:
        folder: the run folder; what is printed is added to ``FOLDER.log`` beside it.
        begin: options of a run that has not been begun; one that has takes its own.
        always: options of either.

    Returns:
        What its ``metrics.json`` holds.

    Raises:
        Diverged: there is no good epoch.
        RuntimeError: it failed otherwise.
    """
    options = ['--resume'] if (folder / CONFIG).is_file() else begin
    call = [sys.executable, '-m', 'tvdiff_pyg', 'fit', '--out', str(folder), *always, *options]
    file = folder.with_name(f'{folder.name}.log')  # names hold points: with_suffix would cut them
    with open(file, 'a', encoding='utf-8') as log:
        status = subprocess.run(call, stdout=log, stderr=subprocess.STDOUT).returncode
    if status == DIVERGED and not (folder / METRICS).is_file():
        raise Diverged(f'{folder.name} diverged: see {file}')
    if status not in (0, DIVERGED):
        raise RuntimeError(f'{folder.name} failed: see {file}')
    metrics: Dict[str, Any] = json.loads((folder / METRICS).read_text(encoding='utf-8'))
    return metrics


def typed(value: str) -> Any:
    """Read a value as the command line does: YAML, but '1e-05' is a number."""
    read = yaml.safe_load(value)
    try:
        return float(read) if isinstance(read, str) else read
    except ValueError:
        return read


def resolve(recipe: str, cell: Cell) -> Dict[str, Any]:
    """Return every setting of a recipe flat, with a cell's changes."""
    groups = yaml.safe_load(recipe_path(recipe).read_text(encoding='utf-8'))
    for group, values in unflatten({name: typed(value) for name, value in cell.items()}).items():
        groups.setdefault(group, {}).update(values)
    return flatten(Recipe.from_dict(groups).to_dict())


def run_cell(recipe: str, protocol: str, cell: Cell, seed: int, folder: Path,
             data_root: Any = None) -> Dict[str, Any]:
    """Train one cell, or read it, or go on with it, and return what its ``metrics.json`` holds, and its curve.

    Raises:
        Diverged: there is no good epoch.
        RuntimeError: the folder holds a run of other settings, or of another version of the recipe.
    """
    if (folder / CONFIG).is_file():
        check_run(folder, resolve(recipe, cell), protocol, seed)
    if (folder / METRICS).is_file():
        metrics: Dict[str, Any] = json.loads((folder / METRICS).read_text(encoding='utf-8'))
    else:
        metrics = run_fit(folder, [
            '--recipe', recipe, '--protocol', protocol, '--seed', str(seed),
            *(f'--{name}={value}' for name, value in cell.items()),
            *(['--data-root', str(data_root)] if data_root else [])])
    # The median is not moved by a pause, as the total is.
    metrics['epoch_s'] = statistics.median(row['seconds'] for row in read_history(folder))
    return {**metrics, 'curve': curve(folder)}


def summary(rows: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Return each cell's mean and standard deviation over its seeds."""
    out = []
    for text in dict.fromkeys(json.dumps(row['cell']) for row in rows):
        mine = [row for row in rows if json.dumps(row['cell']) == text]
        line: Dict[str, Any] = {'cell': json.loads(text), 'seeds': [row['seed'] for row in mine]}
        for part in ('test', 'validation'):
            for name in ('recall@20', 'ndcg@20'):
                values = [row[part][name] for row in mine if row[part]]
                if values:
                    line[f'{part}/{name}'] = statistics.mean(values)
                    line[f'{part}/{name} sd'] = statistics.stdev(values) if len(values) > 1 else None
        for name in ('epoch', 'epochs', 'wall_s', 'peak_rss_mb'):
            line[name] = statistics.mean(row[name] for row in mine)
        line['epoch_s'] = statistics.median(row['epoch_s'] for row in mine)
        out.append(line)
    return out


def table(lines: Sequence[Dict[str, Any]]) -> str:
    """Return a summary as a Markdown table."""
    parts = [part for part in ('validation', 'test') if f'{part}/recall@20' in lines[0]]
    names = list(lines[0]['cell'])
    head = names + [f'{part} {metric}' for part in parts for metric in ('Recall@20', 'NDCG@20')]
    head += ['seeds', 'best epoch', 's an epoch', 's in all', 'peak MB']
    out = ['| ' + ' | '.join(head) + ' |', '|' + '---|' * len(head)]
    for line in lines:
        cells = [line['cell'][name] for name in names]
        for part in parts:
            for metric in ('recall@20', 'ndcg@20'):
                sd = line[f'{part}/{metric} sd']
                cells.append(f"{line[f'{part}/{metric}']:.4f}" + ('' if sd is None else f' ± {sd:.4f}'))
        cells += [str(len(line['seeds'])), f"{line['epoch']:.0f}", f"{line['epoch_s']:.1f}", f"{line['wall_s']:.0f}",
                  f"{line['peak_rss_mb']:.0f}"]
        out.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(out)


def read_rows(file: Path, recipe: str, protocol: str, names: Iterable[str]) -> Rows:
    """Return the rows that a JSON holds, by cell and seed.

    Raises:
        SystemExit: they are not to be compared with runs of this recipe that vary these settings.
    """
    if not file.is_file():
        return {}
    record = json.loads(file.read_text(encoding='utf-8'))
    if any('settings' not in row for row in record['cells']):
        raise SystemExit(f'{file} was written by a version that did not keep the settings: name another --json')
    if (record['recipe'], record['protocol']) != (recipe, protocol) or any(
            list(row['cell']) != list(names) or row['settings'] != resolve(recipe, row['cell'])
            for row in record['cells']):
        raise SystemExit(f'{file} holds runs of another recipe (or of an older version of it), of another protocol or '
                         'that vary other settings: name another --json')
    return {(json.dumps(row['cell']), row['seed']): row for row in record['cells']}


def main(argv: Any = None) -> List[Dict[str, Any]]:
    """Train what is missing, print and write; rows that the file holds are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--recipe', required=True)
    parser.add_argument('--data-root', default=None)
    parser.add_argument('--protocol', choices=('holdout', 'paper'), default='holdout')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--vary', action='append', default=[], metavar='NAME=VALUE,VALUE')
    parser.add_argument('--out', required=True, help='folder of the run folders')
    parser.add_argument('--json', default=None)
    options = parser.parse_args(argv)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    cells = grid(options.vary)
    file = Path(options.json) if options.json else None
    found = read_rows(file, options.recipe, options.protocol, cells[0]) if file else {}
    for seed, cell in itertools.product(options.seeds, cells):
        if (json.dumps(cell), seed) not in found:
            try:
                metrics = run_cell(options.recipe, options.protocol, cell, seed, out / folder_name(cell, seed),
                                   options.data_root)
            except Diverged as error:  # in its first epoch: there is nothing to compare
                print(error, flush=True)
                continue
            del metrics['files']
            found[json.dumps(cell), seed] = {'cell': cell, 'settings': resolve(options.recipe, cell), **metrics}
            if file:
                with locked(file):
                    found = {**read_rows(file, options.recipe, options.protocol, cell), **found}  # others may add
                    rows = list(found.values())
                    write_json(file, {
                        'recipe': options.recipe, 'protocol': options.protocol, 'selected_on': metrics['selected_on'],
                        'summary': summary(rows), 'cells': rows})
        row = found[json.dumps(cell), seed]
        print(f"{folder_name(cell, seed)}: test recall@20 {row['test']['recall@20']:.4f} "
              f"ndcg@20 {row['test']['ndcg@20']:.4f}, {row['wall_s']:.0f} s", flush=True)
    rows = list(found.values())
    if not rows:
        raise SystemExit('all cells diverged')
    selected = 'TEST, as published' if options.protocol == 'paper' else 'validation'
    devices = '; '.join(dict.fromkeys(row['device'] for row in rows))
    print(f'\n{options.recipe}, epochs selected on {selected}, {devices}\n\n{table(summary(rows))}')
    return rows


if __name__ == '__main__':
    main()
