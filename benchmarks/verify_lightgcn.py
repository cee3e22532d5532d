"""LightGCN against RecBole's, an implementation that shares no code with ours, on the same split.

RecBole is old, so it gets an environment of its own, which needs nothing of ours but this file (``constraints.txt``:
torch==2.13.0 numpy==1.26.4 pandas==2.2.3 scipy==1.11.4, one a line)::

    python -m venv PEER && PEER/bin/pip install -c constraints.txt recbole
    python -m benchmarks.verify_lightgcn --export FOLDER --data-root DIR
    PEER/bin/python benchmarks/verify_lightgcn.py --peer FOLDER --start xavier normal --seeds 0 1
    python -m benchmarks.verify_lightgcn --ours FOLDER --data-root DIR --json FILE

First, one table of embeddings and one batch go through both: propagated embeddings, loss and gradient must be the same.
Then both are trained with the same settings, from each other's distribution of first embeddings too (``xavier``:
RecBole's uniform, ours starts from the very tables; ``normal``: ours, of standard deviation 0.1), and our evaluator
ranks the tables of both. What has finished is not trained again: kill it whenever you like.
"""
from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple
from unittest import mock

import numpy as np
import torch

DATASET, PARTS, STARTS = 'lastfm', ('train', 'validation', 'test'), ('xavier', 'normal')
WIDTH, LAYERS, LR, BATCH, REGULARIZATION, EPOCHS, PATIENCE = 64, 2, 5e-3, 2048, 1e-4, 150, 20
INITIAL_STD = 0.1  # ours
METRICS = ('recall@20', 'ndcg@20')


def load_split(data_root: Any) -> Any:
    """Return the hold-out split."""
    from tvdiff_pyg.datasets import load_dataset
    from tvdiff_pyg.training import Split
    return Split.from_data(load_dataset(DATASET, data_root), 'holdout')


def export(split: Any, folder: Path) -> None:
    """Write the parts in RecBole's form, the whole catalogue, and what both are probed with."""
    (folder / DATASET).mkdir(parents=True, exist_ok=True)
    files: Dict[str, Tuple[str, List[List[int]]]] = {
        f'{part}.inter': ('user_id:token\titem_id:token', getattr(split, part).edge_index.t().tolist())
        for part in PARTS}
    files['item'] = ('item_id:token', [[item] for item in range(split.train.num_items)])
    for name, (head, rows) in files.items():
        lines = [head, *('\t'.join(map(str, row)) for row in rows)]
        (folder / DATASET / f'{DATASET}.{name}').write_text('\n'.join(lines) + '\n', encoding='utf-8')
    generator = np.random.default_rng(0)
    users, items = split.train.num_users, split.train.num_items
    pairs = split.train.edge_index.numpy()[:, generator.permutation(split.train.num_interactions)[:BATCH]]
    np.savez(folder / 'probe.npz', table=generator.normal(0, INITIAL_STD, (users + items, WIDTH)).astype(np.float32),
             user=pairs[0], item=pairs[1], negative=generator.integers(0, items, BATCH), num_users=users)


def peer(folder: Path, start: str, seed: int) -> None:
    """Probe and train RecBole's, and write what comes out in our order of users and items."""
    from recbole.config import Config  # type: ignore
    from recbole.data import create_dataset, data_preparation  # type: ignore
    from recbole.model.general_recommender import LightGCN  # type: ignore
    from recbole.trainer import Trainer  # type: ignore
    from recbole.utils import init_seed  # type: ignore

    sys.argv = sys.argv[:1]  # RecBole reads it
    config = Config('LightGCN', DATASET, config_dict={
        'data_path': str(folder), 'checkpoint_dir': str(folder / 'saved'), 'benchmark_filename': list(PARTS),
        'load_col': {'inter': ['user_id', 'item_id'], 'item': ['item_id']}, 'use_gpu': False, 'state': 'WARNING',
        'seed': seed, 'embedding_size': WIDTH, 'n_layers': LAYERS, 'reg_weight': REGULARIZATION,
        'require_pow': True,  # squares, halved, over the batch size: as ours
        'learning_rate': LR, 'train_batch_size': BATCH, 'epochs': EPOCHS,
        'stopping_step': PATIENCE - 1,  # it stops one epoch later than it says
        'metrics': ['Recall', 'NDCG'], 'topk': [20], 'valid_metric': 'Recall@20', 'metric_decimal_place': 12,
        'eval_batch_size': 512 * 20000})
    init_seed(seed, True)
    data = create_dataset(config)
    train, validation, test = data_preparation(config, data)
    model = LightGCN(config, train.dataset).to(config['device'])
    probe = np.load(folder / 'probe.npz')
    users = int(probe['num_users'])
    user, item = (torch.tensor(data.token2id(f'{kind}_id', [str(number) for number in range(count)]))
                  for kind, count in (('user', users), ('item', len(probe['table']) - users)))

    def ordered(of_users: torch.Tensor, of_items: torch.Tensor) -> np.ndarray:
        return torch.cat([of_users[user], of_items[item]]).detach().numpy()

    def put(table: torch.Tensor) -> None:
        with torch.no_grad():
            model.user_embedding.weight[user], model.item_embedding.weight[item] = table[:users], table[users:]

    first = torch.from_numpy(ordered(model.user_embedding.weight, model.item_embedding.weight))
    put(torch.from_numpy(probe['table']))
    loss = model.calculate_loss({model.USER_ID: user[probe['user']], model.ITEM_ID: item[probe['item']],
                                 model.NEG_ITEM_ID: item[probe['negative']]})
    loss.backward()
    probed = {'probe_z': ordered(*model.forward()), 'probe_loss': loss.item(),
              'probe_gradient': ordered(model.user_embedding.weight.grad, model.item_embedding.weight.grad)}
    if start == 'normal':
        first = torch.empty_like(first).normal_(std=INITIAL_STD)
    put(first)
    model.zero_grad()

    trainer, history = Trainer(config, model), []
    started = time.perf_counter()
    trainer.fit(train, validation, verbose=False, callback_fn=lambda epoch, score: history.append(score))
    seconds = time.perf_counter() - started
    model.load_state_dict(torch.load(trainer.saved_model_file, weights_only=False)['state_dict'])
    model.restore_user_e = model.restore_item_e = None  # those of the last epoch
    own = {f'{part}/{name}': float(value) for part, loader in (('validation', validation), ('test', test))
           for name, value in trainer.evaluate(loader, load_best_model=False).items()}
    best = max(range(len(history)), key=lambda epoch: (history[epoch], epoch))
    file = folder / f'peer-{start}-{seed}.npz'
    np.savez(file.with_suffix('.tmp.npz'), **probed, first=first.numpy(), z=ordered(*model.forward()), users=users,
             about=json.dumps({'epoch': best, 'epochs': len(history), 'train_s': seconds, 'own': own}))
    os.replace(file.with_suffix('.tmp.npz'), file)
    print(f'{file.name}: {len(history)} epochs, best {best}, {seconds:.0f} s, {own}', flush=True)


def check_probe(split: Any, folder: Path, found: Any) -> Dict[str, float]:
    """Return the largest differences between the two for the same table and batch."""
    from tvdiff_pyg.nn import LightGCN
    from tvdiff_pyg.typing import Batch
    probe = np.load(folder / 'probe.npz')
    user, item, negative = (torch.from_numpy(probe[name]) for name in ('user', 'item', 'negative'))
    model = LightGCN(split.train, WIDTH, LAYERS, REGULARIZATION)
    weight = model.network.embedding.weight
    weight.data.copy_(torch.from_numpy(probe['table']))
    with mock.patch.object(model.sampler, 'forward', return_value=(torch.arange(BATCH), negative)):
        loss = model.training_loss(Batch(user, item)).loss
    loss.backward()
    assert weight.grad is not None
    out = {'loss': loss.item(), 'peer_loss': float(found['probe_loss']),
           'difference_loss': abs(loss.item() - float(found['probe_loss']))}
    for name, mine in (('z', model.embeddings().detach()), ('gradient', weight.grad)):
        theirs = torch.from_numpy(found[f'probe_{name}'])
        out.update({f'largest_{name}': float(theirs.abs().max()),
                    f'largest_difference_{name}': float((mine - theirs).abs().max())})
    return out


def ours(split: Any, folder: Path, start: str, seed: int, first: Any, data_root: Any) -> Dict[str, Any]:
    """Train ours as ``tvdiff fit`` does, ``xavier`` from the peer's first embeddings."""
    from tvdiff_pyg.nn import LightGCN
    from tvdiff_pyg.training import Recipe, fit
    recipe = Recipe.from_dict({
        'dataset': {'name': DATASET}, 'training': {'lr': LR, 'batch_size': BATCH, 'max_epochs': EPOCHS,
                                                   'patience': PATIENCE, 'ks': [20]},
        'model': {'name': 'lightgcn', 'hidden_channels': WIDTH, 'num_layers': LAYERS,
                  'regularization': REGULARIZATION}})

    def reset(self: LightGCN) -> None:
        self.network.embedding.weight.data.copy_(torch.from_numpy(first))

    own = LightGCN.reset_parameters
    out = folder / f'ours-{start}-{seed}'
    with mock.patch.object(LightGCN, 'reset_parameters', reset if start == 'xavier' else own):
        run = fit(recipe, out, data_root, seed=seed, resume=out.exists(), progress=False)
    return {'by': 'ours', 'start': start, 'seed': seed, **{name: run.metrics[name] for name in (
        'epoch', 'epochs', 'train_s')}, **{part: {name: run.metrics[part][name] for name in METRICS}
                                           for part in PARTS[1:]}}


def rank(split: Any, z: torch.Tensor) -> Dict[str, Any]:
    """Return our evaluator's metrics of a table of users, then items."""
    from tvdiff_pyg.evaluation import RankingEvaluator
    code, table = z.split([split.train.num_users, split.train.num_items])
    out = {}
    for part, seen in (('validation', [split.train]), ('test', split.seen_when_testing)):
        mean = RankingEvaluator(getattr(split, part), seen, [20])(lambda users: code[users] @ table.t()).mean
        out[part] = {name: mean[name] for name in METRICS}
    return out


def summary(rows: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Return, by start, the means over the seeds, ours, the peer's and the difference in percent of the peer's."""
    out = []
    for start in dict.fromkeys(row['start'] for row in rows):
        line: Dict[str, Any] = {'start': start}
        for part, name in ((part, name) for part in PARTS[1:] for name in METRICS):
            mine, theirs = ([row[part][name] for row in rows if (row['by'], row['start']) == (by, start)]
                            for by in ('ours', 'recbole'))
            a, b = statistics.mean(mine), statistics.mean(theirs)
            spread = math.nan if len(mine) < 2 else 100 / b * max(max(x) - min(x) for x in (mine, theirs))
            line[f'{part}/{name}'] = {'ours': a, 'recbole': b, 'difference_percent': 100 * (a / b - 1),
                                      'range_of_seeds_percent': None if math.isnan(spread) else spread}
        out.append(line)
    return out


def main(argv: Any = None) -> None:
    """Do one of the halves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    half = parser.add_mutually_exclusive_group(required=True)
    for name in ('export', 'peer', 'ours'):
        half.add_argument(f'--{name}', type=Path, metavar='FOLDER')
    parser.add_argument('--start', nargs='+', choices=STARTS, default=list(STARTS))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1])
    parser.add_argument('--data-root', default=None)
    parser.add_argument('--json', default=None)
    options = parser.parse_args(argv)
    cells = [(start, seed) for seed in options.seeds for start in options.start]
    if options.export:
        export(load_split(options.data_root), options.export)
        return
    if options.peer:
        for start, seed in cells:
            if not (options.peer / f'peer-{start}-{seed}.npz').is_file():
                peer(options.peer.absolute(), start, seed)
        return
    split, rows = load_split(options.data_root), []
    for start, seed in cells:
        found = np.load(options.ours / f'peer-{start}-{seed}.npz')
        rows.append({'by': 'recbole', 'start': start, 'seed': seed, **json.loads(str(found['about'])),
                     **rank(split, torch.from_numpy(found['z']))})
        rows.append(ours(split, options.ours, start, seed, found['first'], options.data_root))
        result = {'dataset': DATASET, 'probe': check_probe(split, options.ours, found), 'summary': summary(rows),
                  'rows': rows}
        print(json.dumps(rows[-2:]), flush=True)
        if options.json:
            Path(options.json).write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
