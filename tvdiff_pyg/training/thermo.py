"""Runs side by side in the thermodynamic view: the paper's pilot study."""
from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, Container, Dict, List, Optional, Sequence, Union

from tvdiff_pyg.files import write_text
from tvdiff_pyg.thermodynamics import Thermodynamics
from tvdiff_pyg.training.folder import RunError
from tvdiff_pyg.training.plots import plane_figure, reconstruction_figure, save_figure
from tvdiff_pyg.training.run import Run

COLUMNS = ('run', 'user', 'observed', 'energy', 'entropy', 'delta_energy', 'delta_entropy')


def distinct_names(folders: Sequence[Union[str, Path]]) -> List[str]:
    """Return the runs' names; raise ``RunError`` where one folder is named twice, however it is written."""
    names = [str(folder) for folder in folders]
    if len({Path(name).resolve() for name in names}) < len(names):
        raise RunError('a run is named twice: name each once')
    return names


def run_label(run: Run, taken: Container[str], ending: str = '') -> str:
    """Return a short name of a run that tells it from those before."""
    about = f"{run.metrics['model']}, {run.metrics['dataset']}"
    label = f'{about}, {run.folder.name}{ending}'
    return f'{about}, {run.folder.resolve()}{ending}' if label in taken else label


def compare_runs(folders: Sequence[Union[str, Path]], out: Path, published: bool = False,
                 num_users: Optional[int] = None, seed: int = 0) -> List[Dict[str, Any]]:
    """Look at finished runs, write plots and a table user by user, and return the totals of each.

    Args:
        folders: the runs.
        out: a folder for ``reconstruction.png``, ``plane.png`` and ``thermo.csv``; must not hold anything yet.
        published: by the definitions of the paper's plots (:func:`tvdiff_pyg.thermodynamics.thermodynamics`).
        num_users: estimate from a random sample of so many users of each run.
        seed: of the sample.

    Raises:
        RunError: a folder holds no finished run, is named twice, or has scores that are no distribution; ``out`` is in
            use.
    """
    names = distinct_names(folders)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f'{out} exists already: name another folder with --out')
    rows: List[Dict[str, Any]] = []
    seen: Dict[str, Thermodynamics] = {}
    paths: Dict[str, Any] = {}
    users = io.StringIO()
    writer = csv.writer(users, lineterminator='\n')
    writer.writerow(COLUMNS)
    for name in names:
        run = Run.load(name)  # one at a time: its tables go before the next run's come
        try:
            value = run.thermodynamics(num_users, published, seed)
        except ValueError as error:  # scores that are no distribution
            raise RunError(f'{name}: {error}') from error
        size = value.population
        rows.append({'run': name, 'model': run.metrics['model'], 'dataset': run.metrics['dataset'],
                     'protocol': run.metrics['protocol'], 'pairs': run.metrics['pairs']['train'],
                     'split_checksum': run.metrics['split_checksum'],
                     'seed': run.metrics['seed'], 'users': size,
                     'sampled': value.users.numel() if value.users.numel() < size else None,
                     'definition': 'published' if published else 'ours', **value.total()})
        label = run_label(run, seen, ' (as published)' if published else '')
        seen[label] = value
        paths[label] = [] if published else run.history()  # what is logged is by our definition
        ids = run.split.data.user_id
        writer.writerows(zip([name] * value.users.numel(), [ids[user] for user in value.users.tolist()], *(
            getattr(value, column).tolist() for column in COLUMNS[2:])))
    out.mkdir(parents=True, exist_ok=True)
    save_figure(reconstruction_figure(seen), out / 'reconstruction.png')
    means = {label: {column: row[column] / row['users'] for column in COLUMNS[-2:]} for label, row in zip(seen, rows)}
    save_figure(plane_figure(means, paths), out / 'plane.png')
    write_text(out / 'thermo.csv', users.getvalue())
    return rows
