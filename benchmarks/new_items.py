"""What it is worth to give new items a row of H without training: hidden items come back with a few interactions.

``python -m benchmarks.new_items --data-root DIR --work FOLDER [--dataset lastfm] [--set model.hidden_channels=64]``

A tenth of the items with at least ``--least`` training users is left out of the training data, and a model is trained
without them. It is exported with ``n`` random training pairs of each (``tvdiff export --new-items``), and the users
whose test part holds such items are ranked over the whole catalogue. Beside it stand the same model trained on
everything, which knows these items, and item-based neighbours, which can take them up without training too.
"""
from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

import torch
from torch import Tensor

from benchmarks.ablation import base_settings
from benchmarks.sweep import unflatten
from tvdiff_pyg.files import write_json
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn import ItemKNN
from tvdiff_pyg.nn.query_encoder import QueryEncoder
from tvdiff_pyg.retrieval import top_k
from tvdiff_pyg.split import Split
from tvdiff_pyg.training import Recipe, Run, fit, load_data, load_recipe
from tvdiff_pyg.training.export import append_new_items, histories

NUMBERS = (1, 2, 5, 10, 20)
K, K_NEW = 20, 10  # list lengths: over the whole catalogue, and over the hidden items alone


def hide(train: InteractionMatrix, share: float, least: int, seed: int) -> Tensor:
    """Return which items are hidden, boolean ``[N]``."""
    eligible = (train.item_degree >= least).nonzero().view(-1)
    order = torch.randperm(eligible.numel(), generator=torch.Generator().manual_seed(seed))
    hidden = torch.zeros(train.num_items, dtype=torch.bool)
    hidden[eligible[order[:max(1, round(share * eligible.numel()))]]] = True
    return hidden


def some(edges: Tensor, number: int, seed: int) -> Tensor:
    """Return ``number`` random pairs of each item of these ``[2, E]``."""
    order = torch.randperm(edges.size(1), generator=torch.Generator().manual_seed(seed))
    edges = edges[:, order]
    by_item = edges[1].argsort(stable=True)
    edges = edges[:, by_item]
    count = torch.bincount(edges[1])
    rank = torch.arange(edges.size(1)) - (count.cumsum(0) - count)[edges[1]]
    return edges[:, rank < number]


def trained(values: Dict[str, Any], out: Path, seed: int) -> Run:
    """Train, or read what was trained with these settings."""
    return fit(Recipe.from_dict(values), out, seed=seed, resume=out.exists(), progress=False)


def write_pairs(path: Path, edges: Tensor, users: Sequence[str], items: Sequence[str]) -> str:
    """Write pairs as a table of ids, and return its name."""
    path.write_text('\n'.join(['user\titem', *(f'{users[u]}\t{items[i]}' for u, i in edges.t().tolist())]) + '\n',
                    encoding='utf-8')
    return str(path)


def recall(score: Callable[[Tensor], Tensor], wanted: InteractionMatrix, seen: InteractionMatrix,
           hidden: Tensor) -> List[float]:
    """Return Recall@20 among all items and Recall@10 among the hidden ones, averaged over the users who want some."""
    users = wanted.user_degree.nonzero().view(-1)
    out = []
    for k, allowed in ((K, None), (K_NEW, hidden)):
        best = top_k(score, users, k, [seen], allowed).items
        hits = wanted.contains(users.unsqueeze(1), best).sum(1)
        out.append(float((hits / wanted.user_degree[users]).mean()))
    return out


def measure(options: argparse.Namespace, seed: int) -> Dict[str, Any]:
    """Return the figures of one choice of items, which seeds the training as well."""
    split = Split.from_data(load_data(load_recipe(options.dataset).dataset, options.data_root), 'paper')
    users, items = split.data.user_id, split.data.item_id
    edges = split.train.edge_index
    hidden = hide(split.train, options.share, options.least, seed)
    work = Path(options.work) / options.dataset / f'{seed}-share{options.share}-least{options.least}'
    work.mkdir(parents=True, exist_ok=True)
    values = unflatten(base_settings(options.dataset, options.set))
    test = write_pairs(work / 'test.tsv', split.test.edge_index, users, items)
    runs = {}
    for name, pairs in (('all', edges), ('without', edges[:, ~hidden[edges[1]]])):
        file = write_pairs(work / f'{name}.tsv', pairs, users, items)
        runs[name] = trained({**values, 'dataset': {'name': 'interaction-file', 'path': file, 'test_path': test}},
                             work / name, seed)
    test_edges = split.test.edge_index
    wanted = InteractionMatrix(test_edges[:, hidden[test_edges[1]]], len(users), len(items))
    models: Dict[str, Any] = {name: run.model for name, run in runs.items()}
    known_all = aligned(runs['all'], QueryEncoder.of(models['all']), split, runs['all'].split.data.item_id)
    out: Dict[str, Any] = {'seed': seed, 'hidden': int(hidden.sum()), 'users': int((wanted.user_degree > 0).sum()),
                           'pairs': wanted.num_interactions, 'trained': recall(known_all, wanted, split.train, hidden),
                           'rows': {}, 'neighbours': {}}
    for number in (*NUMBERS, None):
        given = edges[:, hidden[edges[1]]]
        given = given if number is None else some(given, number, seed)
        run = runs['without']
        encoder = QueryEncoder.of(models['without'])
        new, _ = append_new_items(run, encoder, ([users[u] for u in given[0]], [items[i] for i in given[1]]))
        order = [*run.split.data.item_id, *(item['item'] for item in new)]
        key = str(number or 'all')
        out['rows'][key] = recall(aligned(run, encoder, split, order), wanted, split.train, hidden)
        known = InteractionMatrix(torch.cat([edges[:, ~hidden[edges[1]]], given], 1), len(users), len(items))
        out['neighbours'][key] = recall(ItemKNN(known, 100, 10.0).scorer(), wanted, split.train, hidden)
    return out


def aligned(run: Run, encoder: QueryEncoder, split: Split, order: Sequence[str]) -> Callable[[Tensor], Tensor]:
    """Return the scores of the data set's users over its items, by an encoder whose table has another order."""
    position = {name: number for number, name in enumerate(order)}
    column = torch.tensor([position[name] for name in split.data.item_id])
    user = torch.tensor([run.index('user')[name] for name in split.data.user_id])

    @torch.no_grad()
    def score(users: Tensor) -> Tensor:
        return (encoder(*histories(run.split.train, user[users])) @ encoder.table.t())[:, column]

    return score


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--dataset', default='lastfm')
    parser.add_argument('--data-root')
    parser.add_argument('--set', nargs='*', default=[], metavar='NAME=VALUE')
    parser.add_argument('--share', type=float, default=0.1)
    parser.add_argument('--least', type=int, default=20)
    parser.add_argument('--seeds', nargs='+', type=int, default=[0])
    parser.add_argument('--work', required=True)
    parser.add_argument('--json')
    options = parser.parse_args()
    cells: List[Dict[str, Any]] = [measure(options, seed) for seed in options.seeds]
    record = {'dataset': options.dataset, 'set': options.set, 'share': options.share, 'least': options.least,
              'metrics': [f'recall@{K} among all items', f'recall@{K_NEW} among the hidden ones'], 'cells': cells}
    if options.json:
        write_json(Path(options.json), record)
    print(f'{cells[0]["hidden"]} hidden items; Recall@{K} among all, Recall@{K_NEW} among the hidden')
    lines = [(f'{key} interactions, {name}', [cell[name][key] for cell in cells])
             for name in ('rows', 'neighbours') for key in cells[0]['rows']]
    for what, values in [*lines, ('trained on all', [cell['trained'] for cell in cells])]:
        print(f'{what:>28}  ' + '  '.join(f'{statistics.mean(part):.4f}' for part in zip(*values)))


if __name__ == '__main__':
    main()
