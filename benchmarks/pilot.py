"""The paper's pilot study repeated: do diffusion models keep the higher energy, and classic models the lower entropy?

``python -m benchmarks.pilot --work FOLDER [--datasets lastfm amazon-beauty] [--protocol holdout] [--json FILE]
[--md FILE]``

Reads the finished runs that ``benchmarks.accuracy --work FOLDER`` left, and takes delta U and delta S of all users by
our definitions and by those of the paper's plots (SPEC 10), beside the published figures.
"""
from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any, Dict, List, Optional

from benchmarks.ablation import PUBLISHED
from tvdiff_pyg.files import write_json, write_text
from tvdiff_pyg.training import Run
from tvdiff_pyg.training.folder import METRICS

MODELS = {'bpr-mf': 'BPR-MF', 'lightgcn': 'LightGCN', 'diffrec': 'DiffRec', 'tv-diff': 'TV-Diff'}
DIFFUSION = ('diffrec', 'tv-diff')
DATASETS = {'lastfm': 'LastFM', 'amazon-beauty': 'Amazon-Beauty', 'yelp2018': 'Yelp2018', 'gowalla': 'Gowalla'}
QUANTITIES = {'delta_energy': 'delta_U', 'delta_entropy': 'delta_S'}


def measure(folder: Path) -> Dict[str, Any]:
    """Return both quantities of a run by both definitions."""
    run = Run.load(folder)
    out: Dict[str, Any] = {'seed': run.metrics['seed'], 'users': run.split.train.num_users,
                           'pairs': run.split.train.num_interactions, 'recall@20': run.metrics['test']['recall@20']}
    for definition in ('ours', 'published'):
        total = run.thermodynamics(published=definition == 'published').total()
        out[definition] = {name: round(total[name], 3) for name in QUANTITIES}
    return out


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

    def side(quantity: str, higher: bool) -> str:
        """Tell whether all models of one kind lie above (or below) all of the other."""
        values = {kind: [mean[quantity][model] for model in kinds[kind]] for kind in kinds}
        if min(values[higher]) > max(values[not higher]):
            return 'holds'
        return 'is reversed' if max(values[higher]) < min(values[not higher]) else 'holds for some pairs of models only'
    return (f"Diffusion models keep the higher energy: {side('delta_energy', True)}. "
            f"Classic models have the lower entropy: {side('delta_entropy', True)}.")


def page(record: Dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    lines = ['# Pilot study: energy and entropy', '',
             'Made by `python -m benchmarks.pilot` from the runs of `benchmarks.accuracy`. Totals over all users, '
             "model minus data, mean ± deviation over seeds. \"Published\" are the paper's figures, of its own runs; "
             "their TV-Diff delta U counts DiffRec's rows (SPEC 10) and is no evidence. \"As published\" are our runs "
             "by the definitions of the paper's plots."]
    for dataset, found in record['datasets'].items():
        if not found:
            continue
        first = next(iter(found.values()))[0]
        lines += ['', f"## {dataset}, {record['protocol']}", '',
                  f"{first['users']:,} users, {first['pairs']:,} training pairs.", '',
                  f"Ours: {verdict(found, 'ours')}", '', f"As published: {verdict(found, 'published')}", '',
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
                for definition in ('ours', 'published'):
                    values = [run[definition][quantity] for run in runs]
                    cells.append(f'{statistics.mean(values):,.0f}'
                                 + (f' ± {statistics.stdev(values):,.0f}' if len(values) > 1 else ''))
                theirs = published(dataset, model, quantity)
                cells.append('' if theirs is None else f'{theirs:,.0f}')
            lines.append(f"| {MODELS[model]} | {len(runs)} | {statistics.mean(run['recall@20'] for run in runs):.4f} | "
                         + ' | '.join(cells) + ' |')
    return '\n'.join(lines) + '\n'


def main(argv: Any = None) -> Dict[str, Any]:
    """Measure, write and return the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work', required=True, help='the --work folder of benchmarks.accuracy')
    parser.add_argument('--datasets', nargs='+', choices=list(DATASETS), default=['lastfm', 'amazon-beauty'])
    parser.add_argument('--protocol', choices=('holdout', 'paper'), default='holdout')
    parser.add_argument('--json', default=None)
    parser.add_argument('--md', default=None)
    options = parser.parse_args(argv)
    record: Dict[str, Any] = {'protocol': options.protocol, 'datasets': {}}
    for dataset in options.datasets:
        found = record['datasets'].setdefault(dataset, {})
        for model in MODELS:
            folders = sorted((Path(options.work) / dataset / model).glob(f'{options.protocol}-seed*'))
            runs = [measure(folder) for folder in folders if (folder / METRICS).is_file()]
            if runs:
                found[model] = runs
    if options.json:
        write_json(Path(options.json), record)
    if options.md:
        write_text(Path(options.md), page(record))
    print(page(record))
    return record


if __name__ == '__main__':
    main()
