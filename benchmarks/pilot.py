"""The paper's pilot study repeated: do diffusion models keep the higher energy, and classic models the lower entropy?

``python -m benchmarks.pilot --work FOLDER [--datasets lastfm amazon-beauty] [--protocol paper] [--json FILE]
[--md FILE]``

Reads the finished runs that ``benchmarks.accuracy --work FOLDER`` left, and takes delta U and delta S of all users by
our definitions and by those of the paper's plots (SPEC 10), beside the published figures. What ``--json`` holds of
other runs is kept. The page and its plots are made from the JSON alone, without ``--work`` too. The protocol ``paper``
trains on the published training part; totals over another number of pairs cannot be compared, values a pair can.
"""
from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

import numpy as np
import torch

from benchmarks.spaces import PUBLISHED
from benchmarks.sweep import pack, spread, unpack
from tvdiff_pyg.files import write_atomically, write_json, write_text
from tvdiff_pyg.thermodynamics import Thermodynamics
from tvdiff_pyg.training import Run
from tvdiff_pyg.training.environment import versions
from tvdiff_pyg.training.folder import METRICS
from tvdiff_pyg.training.plots import plane_figure, reconstruction_figure
from tvdiff_pyg.training.recipe import flatten

MODELS = {'bpr-mf': 'BPR-MF', 'lightgcn': 'LightGCN', 'diffrec': 'DiffRec', 'tv-diff': 'TV-Diff'}
DIFFUSION = ('diffrec', 'tv-diff')
DATASETS = {'lastfm': 'LastFM', 'amazon-beauty': 'Amazon-Beauty', 'yelp2018': 'Yelp2018', 'gowalla': 'Gowalla'}
OWN_SPLIT = ('gowalla',)  # the published figures are of a split that we have not: its size is not known
QUANTITIES = {'delta_energy': 'delta_U', 'delta_entropy': 'delta_S'}
UNITS = {'delta_energy': 'published_pairs', 'delta_entropy': 'users'}  # what the published totals are sums over
CLOSE = 0.05  # relative difference up to which figures agree
NUM_DRAWN, NUM_EPOCHS = 1000, 100  # users and epochs that are kept for the plots
Runs = List[Dict[str, Any]]


def measure(folder: Path, in_full: bool = True) -> Dict[str, Any]:
    """Return both quantities of a run by both definitions; ``in_full``, with what plots and explanations need."""
    begun = time.perf_counter()
    run = Run.load(folder)
    metrics, train = run.metrics, run.split.train
    out: Dict[str, Any] = {
        'seed': metrics['seed'], 'users': train.num_users, 'pairs': train.num_interactions,
        'published_pairs': metrics['pairs']['train'] + metrics['pairs']['validation'],
        'recall@20': metrics['test']['recall@20'],
        'settings': {name: value for name, value in flatten(run.recipe.to_dict()).items()
                     if name != 'training.max_minutes'},  # what stops it says what came of that
        **{name: metrics[name] for name in ('split_checksum', 'stopped', 'device', 'versions')}}
    for definition in ('ours', 'published'):
        value = run.thermodynamics(published=definition == 'published')
        total = value.total()
        out[definition] = {name: round(total[name], 3) for name in QUANTITIES}
        if definition == 'ours' and in_full:
            order = value.observed.argsort(stable=True)[::-(-value.users.numel() // NUM_DRAWN)]
            out['per_user'] = {name: pack(getattr(value, name)[order].numpy())
                               for name in ('observed', 'energy', 'entropy')}
    if in_full:
        path = [row for row in run.history() if 'delta_energy' in row]
        out['path'] = [{name: round(row[name], 4) for name in ('epoch', *QUANTITIES)}
                       for row in path[::-(-len(path) // NUM_EPOCHS) or 1]]
        if metrics['model'] in DIFFUSION:
            out['rows'] = rows(run)
        number, count = train.user_degree.unique(return_counts=True)
        out['items'], out['degrees'] = train.num_items, [number.tolist(), count.tolist()]
    out['seconds'] = round(time.perf_counter() - begun, 3)
    return out


def rows(run: Run) -> Dict[str, Any]:
    """Return what the published energy finds in a diffusion model's rows, and what other readings of it would find.

    The published count of p_j >= 1 / n_u, here of up to n_u items a user, is repeated for rows that are divided in
    other ways, or not.
    """
    train, scorer = run.split.train, run.model.scorer()
    readings: Dict[str, float] = defaultdict(float)
    largest, mass, turned = [], [], 0
    for users in train.user_degree.nonzero().view(-1).split(256):
        n = train.user_degree[users].unsqueeze(1)  # [B, 1]
        scores, seen = scorer(users).double(), train.dense(users, torch.bool)  # [B, N]
        signed = scores / scores.sum(1, keepdim=True)
        p = _distribution(signed)
        top = scores >= scores.topk(int(n.max())).values.gather(1, n - 1)
        largest.append(p.amax(1) * n.view(-1))
        mass.append((p * seen).sum(1))
        turned += int((scores.sum(1) < 0).sum())
        for name, high in (
                ('as they are', scores >= 1 / n),
                ('divided by the signed sum alone', signed >= 1 / n),
                ('over the observed items alone', _distribution(scores * seen) >= 1 / n),
                ('over the n_u highest scores alone', _distribution(scores * top) >= 1 / n),
                ('softmax', scores.softmax(1) >= 1 / n),
                ('observed items among the n_u highest scores, whatever p', seen & top)):
            readings[name] += float((high.sum(1, keepdim=True).minimum(n) - n).sum())
    found = torch.cat(largest)
    return {'largest': [float(found.median()), float(found.max())], 'observed_mass': float(torch.cat(mass).mean()),
            'negative_sums': turned, 'readings': dict(readings)}


def _distribution(scores: torch.Tensor) -> torch.Tensor:
    p = scores.clamp(min=0)
    return p / p.sum(1, keepdim=True)


def entropy_bound(degrees: List[List[int]], items: int, kept: float) -> float:
    r"""Return what delta S cannot exceed, in bits, where ``kept`` items in all have :math:`p_j \ge 1 / n_u`.

    A row with k such items has at most the entropy of one that is uniform over them, at 1 / n_u, and over the others:
    :math:`\Delta S_u \le (1 - k / n_u) \log_2 ((N - k) / (n_u - k))`. The bound of the sum is by Lagrange's dual, for
    any share of the ``kept`` items among the users.

    Args:
        degrees: the numbers of interactions that users have, and how many users have each.
        items: number of items N, above all of them.
        kept: how many items there are in all, 0 .. the number of pairs.
    """
    best = float('inf')
    for weight in np.linspace(0, 2, 401):  # bits an item: any value gives a bound
        bound = -weight * kept
        for n, users in zip(*degrees):
            k = np.arange(n + 1)
            entropy = (1 - k / n) * np.log2((items - k) / np.maximum(n - k, 1))  # 0 for k = n
            bound += users * float((entropy + weight * k).max())
        best = min(best, bound)
    return best


def published(dataset: str, model: str, quantity: str) -> Optional[float]:
    """Return the published figure, of the paper's own runs and split."""
    table = PUBLISHED[QUANTITIES[quantity]]
    values: Optional[List[float]] = table.get(DATASETS[dataset])
    return None if values is None else values[table['models'].index(MODELS[model])]


def verdict(found: Dict[str, List[Dict[str, Any]]], definition: str) -> str:
    """Say whether the two halves of the claim hold among the models that were run."""
    kinds = {kind: [model for model in found if (model in DIFFUSION) is kind] for kind in (True, False)}
    if not kinds[True] or not kinds[False]:
        return 'Not enough models to say.'
    mean = {quantity: {model: statistics.mean(run[definition][quantity] for run in runs)
                       for model, runs in found.items()} for quantity in QUANTITIES}

    sides = {quantity: side(*([mean[quantity][model] for model in kinds[kind]] for kind in (True, False)))
             for quantity in QUANTITIES}
    return (f"Diffusion models keep the higher energy: {sides['delta_energy']}. "
            f"Classic models have the lower entropy: {sides['delta_entropy']}.")


def side(higher: Sequence[float], lower: Sequence[float]) -> str:
    """Tell whether all values of one kind of models lie above all of the other's."""
    if min(higher) > max(lower):
        return 'holds'
    return 'is reversed' if max(higher) < min(lower) else 'holds for some pairs of models only'


def _mean(runs: Runs, definition: str, quantity: str) -> float:
    return statistics.mean(run[definition][quantity] for run in runs)


def agreement(dataset: str, found: Dict[str, Runs]) -> Iterator[str]:
    """Yield, for each model and quantity, whether ours as published agrees with the published figure."""
    if dataset in OWN_SPLIT:
        yield 'The published figures are of another split, whose number of pairs is not known: not compared.'
        return
    for model, runs in found.items():
        for quantity, unit in (('delta_energy', 'pair'), ('delta_entropy', 'user')):
            theirs = published(dataset, model, quantity)
            if theirs is None:
                continue
            per = theirs / runs[0][UNITS[quantity]]
            ours = _mean(runs, 'published', quantity) / runs[0]['pairs' if unit == 'pair' else 'users']
            by = ours / per - 1
            yield (f"{MODELS[model]}, {QUANTITIES[quantity].replace('_', ' ')}: "
                   + (f'agrees within {CLOSE:.0%}' if abs(by) <= CLOSE else 'is not reproduced')
                   + (f' ({by:+.1%})' if abs(by) < 1 else '') + f': {ours:.3f} a {unit} against {per:.3f}.')


def explanation(dataset: str, found: Dict[str, Runs]) -> Iterator[str]:
    """Yield why the published energy of our diffusion models is what it is, and what the published figures allow."""
    ours = {model: found[model] for model in DIFFUSION if model in found}
    if ours and all(run['published']['delta_energy'] == -run['pairs'] for runs in ours.values() for run in runs):
        seen = {MODELS[model]: runs[0]['rows'] for model, runs in ours.items()}
        yield ('By the published definition the energy of ' + ' and '.join(seen) + ' is 0 for every user, delta U = -n '
               'exactly: a row is divided by its sum over the whole catalogue, and no item of any row then reaches 1 / '
               'n_u. ' + '; '.join(
                   f"{name}: p_j n_u is at most {row['largest'][1]:.2f}, in the median row {row['largest'][0]:.2f}, "
                   f"and the observed items hold {row['observed_mass']:.0%} of a row"
                   + (f" ({row['negative_sums']:,} rows have a negative sum: the division turns them over)"
                      if row['negative_sums'] else '') for name, row in seen.items()) + '.')
    theirs = {model: published(dataset, model, 'delta_energy') for model in ours}
    if dataset in OWN_SPLIT or None in theirs.values() or not ours:
        return
    first = next(iter(ours.values()))[0]
    if first['pairs'] == first['published_pairs']:
        tried = {name: [runs[0]['rows']['readings'][name] for runs in ours.values()]
                 for name in first['rows']['readings']}
        near = [name for name, values in tried.items()
                if all(abs(value / their - 1) <= CLOSE for value, their in zip(values, theirs.values()))]
        yield (f"Delta U of {' / '.join(MODELS[model] for model in ours)} if the definition took rows otherwise, "
               'and of a row n_u items at most (one run each; not taken of the other models): '
               + '; '.join(f"{name} {' / '.join(f'{value:,.0f}' for value in values)}"
                           for name, values in tried.items())
               + f"; published {' / '.join(f'{value:,.0f}' for value in theirs.values())}. "
               + (f"Near it comes: {'; '.join(near)}." if near else f'None comes within {CLOSE:.0%} for all.'))
    if 'diffrec' in theirs:  # TV-Diff's counts the same rows
        kept = first['published_pairs'] + theirs['diffrec'] - first['users']  # what lies below adds less than 1 a user
        bound, entropy = (entropy_bound(first['degrees'], first['items'], kept),
                          published(dataset, 'diffrec', 'delta_entropy'))
        if entropy is not None and bound < entropy:
            yield (f"The two published figures of DiffRec cannot be of the same rows under one definition: delta U = "
                   f"{theirs['diffrec']:,.0f} needs {kept:,.0f} items with p_j >= 1 / n_u at least, and then delta S "
                   f'cannot exceed {bound:,.0f} bits, whatever the model; published is {entropy:,.0f}.')


def page(record: Dict[str, Any], stem: str = 'pilot') -> str:
    """Return the tables as Markdown."""
    lines = ['# Pilot study: energy and entropy', '',
             'Made by `python -m benchmarks.pilot` from the runs of `benchmarks.accuracy`. Totals over all users, '
             'model minus data, mean ± deviation over seeds; in parentheses delta U a training pair, and delta S a '
             'user, in bits. "Published" are the paper\'s figures, of its own runs; their TV-Diff delta U counts '
             'DiffRec\'s rows (SPEC 10) and is no evidence. "As published" are our runs by the definitions of the '
             "paper's plots."]
    for dataset, found in record['datasets'].items():
        if not found:
            continue
        first = next(iter(found.values()))[0]
        same = first['pairs'] == first['published_pairs']
        lines += ['', f"## {dataset}, {record['protocol']}", '',
                  f"{first['users']:,} users, {first['pairs']:,} training pairs"
                  + ('' if dataset in OWN_SPLIT else ', as in the published split' if same else
                     f"; the published split has {first['published_pairs']:,}, so that totals differ by that alone")
                  + ('. Epochs are selected on TEST, as published.' if record['protocol'] == 'paper' else '.'),
                  '', f"- Ours: {verdict(found, 'ours')}", f"- As published: {verdict(found, 'published')}",
                  *(f'- {said}' for said in (*agreement(dataset, found), *explanation(dataset, found))), '',
                  '| model | seeds | test Recall@20 | delta U, ours | delta U, as published | delta U, published | '
                  'delta S, ours | delta S, as published | delta S, published |',
                  '|---|--:|--:|--:|--:|--:|--:|--:|--:|']
        for model in MODELS:
            runs = found.get(model, [])
            if not runs:
                lines.append(f'| {MODELS[model]} | not run | | | | | | | |')
                continue
            cells = []
            for quantity in QUANTITIES:
                unit = runs[0]['pairs' if quantity == 'delta_energy' else 'users']
                for definition in ('ours', 'published'):
                    values = [run[definition][quantity] for run in runs]
                    cells.append(f"{spread(values, ',.0f')} ({statistics.mean(values) / unit:.3f})")
                theirs = published(dataset, model, quantity)
                per = '' if theirs is None or dataset in OWN_SPLIT else f' ({theirs / runs[0][UNITS[quantity]]:.3f})'
                cells.append('' if theirs is None else f'{theirs:,.0f}{per}')
            late = '' if all(run.get('stopped', 'patience') == 'patience' for run in runs) else ', NOT CONVERGED'
            recall = statistics.mean(run['recall@20'] for run in runs)
            seeds = ', '.join(str(run['seed']) for run in runs)
            lines.append(f"| {MODELS[model]}{late} | {seeds} | {recall:.4f} | {' | '.join(cells)} |")
        seconds = sum(run['seconds'] for runs in found.values() for run in runs)
        logged = ', '.join(MODELS[model] for model, runs in found.items() if runs[0]['path']) or 'none'
        lines += ['', f"Runs: {first['device']}, torch {first['versions']['torch']}; split "
                  f"`{first['split_checksum'][:12]}`. Measured in {seconds:,.0f} s with torch "
                  f"{record['versions']['torch']}.", '', f'![{dataset}]({stem}-{dataset}.png)', '',
                  f'The first seed user by user, and the means of all seeds; epochs, where they were logged '
                  f'({logged}), as means over a sample of users, so that a line need not end in its dot.']
    return '\n'.join(lines) + '\n'


def check_runs(dataset: str, found: Dict[str, Runs]) -> None:
    """Raise ``SystemExit`` where a data set's runs are of several splits, or a model's of several settings."""
    if len({run['split_checksum'] for runs in found.values() for run in runs}) > 1:
        raise SystemExit(f'the runs of {dataset} are of different splits: name another --json, or another --work')
    for model, runs in found.items():
        settings = [run['settings'] for run in runs if 'settings' in run]  # kept since a later version
        if any(other != settings[0] for other in settings):
            raise SystemExit(f'the runs of {model} on {dataset} are of different settings: name another --json, or '
                             f'delete the run folders of an older search')


def draw(dataset: str, found: Dict[str, Runs], path: Path) -> None:
    """Draw the first run of each model user by user and, below, all models and published figures in the plane."""
    from matplotlib.image import imsave

    seen, totals, paths = {}, {}, {}
    for model, runs in found.items():
        observed, energy, entropy = (torch.from_numpy(unpack(runs[0]['per_user'][name]))
                                     for name in ('observed', 'energy', 'entropy'))
        users = torch.arange(observed.numel())
        seen[f"{MODELS[model]}, seed {runs[0]['seed']}"] = Thermodynamics(users, observed, energy, entropy, len(users))
        totals[MODELS[model]] = {name: _mean(runs, 'ours', name) / runs[0]['users'] for name in QUANTITIES}
        paths[MODELS[model]] = runs[0]['path']
        theirs = {name: published(dataset, model, name) for name in QUANTITIES}
        if dataset not in OWN_SPLIT and None not in theirs.values():
            totals[f'{MODELS[model]}, published'] = {name: value / runs[0]['users'] for name, value in theirs.items()
                                                     if value is not None}
    figures = [reconstruction_figure(seen), plane_figure(totals, paths)]
    figures[1].set_figwidth(figures[0].get_figwidth())
    for figure in figures:
        figure.canvas.draw()
    image = np.concatenate([np.asarray(figure.canvas.buffer_rgba()) for figure in figures])
    write_atomically(path, lambda temporary: imsave(temporary, image, format='png'))


def main(argv: Any = None) -> Dict[str, Any]:
    """Measure, write and return the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work', help='the --work folder of benchmarks.accuracy; without it, --json is read')
    parser.add_argument('--datasets', nargs='+', choices=list(DATASETS), default=['lastfm', 'amazon-beauty'])
    parser.add_argument('--protocol', choices=('holdout', 'paper'), default='paper')
    parser.add_argument('--json', default=None)
    parser.add_argument('--md', default=None, help='the page; a plot for each data set goes beside it')
    options = parser.parse_args(argv)
    if not options.work and not options.json:
        parser.error('--work or --json must say where the figures come from')
    record: Dict[str, Any] = {'protocol': options.protocol, 'datasets': {}}
    if options.json and (Path(options.json).is_file() or not options.work):
        record = json.loads(Path(options.json).read_text(encoding='utf-8'))
    if options.work:
        if record['protocol'] != options.protocol:
            parser.error(f"{options.json} is of the protocol {record['protocol']}: name another --json")
        record['versions'] = versions()
        for dataset in options.datasets:
            found = record['datasets'].setdefault(dataset, {})
            for model in MODELS:
                folders = {int(folder.name.rpartition('seed')[2]): folder for folder in
                           (Path(options.work) / dataset / model).glob(f'{options.protocol}-seed*')
                           if (folder / METRICS).is_file()}
                runs = {run['seed']: run for run in found.get(model, [])}
                first = min({*runs, *folders}, default=0)
                runs.update({seed: measure(folder, seed == first) for seed, folder in folders.items()})
                if runs:
                    found[model] = [runs[seed] for seed in sorted(runs)]
            check_runs(dataset, found)
        if options.json:
            write_json(Path(options.json), record)
    if options.md:
        path = Path(options.md)
        write_text(path, page(record, path.stem))
        for dataset, found in record['datasets'].items():
            if found:
                draw(dataset, found, path.with_name(f'{path.stem}-{dataset}.png'))
    print(page(record))
    return record


if __name__ == '__main__':
    main()
