r"""LightGCN against RecBole's, an implementation that shares no code with ours, on the same split.

RecBole is old: ``echo 'torch==2.13.0 numpy==1.26.4 pandas==2.2.3 scipy==1.11.4' | tr ' ' '\n' > constraints.txt``,
``python -m venv PEER``, ``PEER/bin/pip install -c constraints.txt recbole==1.2.1``. Then::

    python -m benchmarks.verify_lightgcn --export FOLDER --data-root DIR
    PEER/bin/python -m benchmarks.verify_lightgcn --peer FOLDER
    python -m benchmarks.verify_lightgcn --ours FOLDER --data-root DIR --json FILE

One table of embeddings and one batch go through both: propagated embeddings, loss and gradient must be the same. Then
both are trained with the same settings, from ``xavier`` (RecBole's first embeddings; ours takes the very tables) or
``normal`` (that of LightGCN's authors), and our evaluator ranks both; from ``xavier`` ours is trained once more on the
batches that RecBole drew, up to its best epoch. What has finished is not trained again.
"""
from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Sequence
from unittest import mock

import numpy as np
import torch

DATASET, PARTS, STARTS = 'lastfm', ('train', 'validation', 'test'), ('xavier', 'normal')
MODEL: Dict[str, Any] = {'hidden_channels': 64, 'num_layers': 2, 'regularization': 1e-4}
TRAINING: Dict[str, Any] = {'lr': 5e-3, 'batch_size': 2048, 'max_epochs': 150, 'patience': 20}
INITIAL_STD = 0.1  # of start normal
METRICS = [f'{part}/{name}' for part in PARTS[1:] for name in ('recall@20', 'ndcg@20')]


def export(split: Any, folder: Path) -> None:
    """Write the parts in RecBole's form, the whole catalogue, and what both are probed with."""
    (folder / DATASET).mkdir(parents=True, exist_ok=True)
    users, items = split.train.num_users, split.train.num_items
    files = {f'{part}.inter': ('user_id:token\titem_id:token', getattr(split, part).edge_index.t()) for part in PARTS}
    for name, (head, rows) in {**files, 'item': ('item_id:token', torch.arange(items))}.items():
        np.savetxt(folder / DATASET / f'{DATASET}.{name}', rows.numpy(), '%d', '\t', header=head, comments='')
    generator, size = np.random.default_rng(0), TRAINING['batch_size']
    user, item = split.train.edge_index.numpy()[:, generator.permutation(split.train.num_interactions)[:size]]
    table = generator.normal(0, INITIAL_STD, (users + items, MODEL['hidden_channels'])).astype(np.float32)
    np.savez(folder / 'probe.npz', table=table, user=user, item=item, negative=generator.integers(0, items, size))


def peer(folder: Path, start: str, seed: int) -> None:
    """Probe and train RecBole's, and write what comes out in our order of users and items."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.general_recommender import LightGCN
    from recbole.trainer import Trainer
    from recbole.utils import init_seed

    sys.argv = sys.argv[:1]  # RecBole reads it
    os.chdir(folder)  # and leaves its logs here
    config = Config('LightGCN', DATASET, config_dict={
        'data_path': str(folder), 'checkpoint_dir': str(folder / 'saved'), 'benchmark_filename': list(PARTS),
        'load_col': {'inter': ['user_id', 'item_id'], 'item': ['item_id']}, 'use_gpu': False, 'state': 'WARNING',
        'seed': seed, 'embedding_size': MODEL['hidden_channels'], 'n_layers': MODEL['num_layers'],
        'reg_weight': MODEL['regularization'], 'require_pow': True,  # squares, halved, over the batch size: as ours
        'learning_rate': TRAINING['lr'], 'train_batch_size': TRAINING['batch_size'], 'epochs': TRAINING['max_epochs'],
        'eval_batch_size': 10 ** 7, 'stopping_step': TRAINING['patience'] - 1,  # it stops an epoch later than it says
        'metrics': ['Recall', 'NDCG'], 'topk': [20], 'valid_metric': 'Recall@20', 'metric_decimal_place': 12})
    init_seed(seed, True)
    data = create_dataset(config)
    train, validation, test = data_preparation(config, data)
    model = LightGCN(config, train.dataset).to(config['device'])
    probe = np.load(folder / 'probe.npz')
    user, item = (torch.tensor(data.token2id(f'{kind}_id', [str(number) for number in range(count - 1)]))
                  for kind, count in (('user', data.user_num), ('item', data.item_num)))  # its first is padding

    def ordered(of_users: torch.Tensor, of_items: torch.Tensor) -> np.ndarray:
        return torch.cat([of_users[user], of_items[item]]).detach().numpy()

    weights = [model.user_embedding.weight, model.item_embedding.weight]
    first = torch.from_numpy(ordered(*weights))
    if start == 'normal':
        first.normal_(std=INITIAL_STD)
    weights[0].data[user], weights[1].data[item] = torch.from_numpy(probe['table']).tensor_split([len(user)])
    loss = model.calculate_loss({model.USER_ID: user[probe['user']], model.ITEM_ID: item[probe['item']],
                                 model.NEG_ITEM_ID: item[probe['negative']]})
    loss.backward()
    out = {'probe_z': ordered(*model.forward()), 'probe_loss': loss.detach().numpy(), 'first': first.numpy(),
           'probe_gradient': ordered(*(weight.grad for weight in weights))}
    weights[0].data[user], weights[1].data[item] = first.tensor_split([len(user)])
    model.zero_grad()
    places = [torch.zeros(len(index) + 1, dtype=torch.long) for index in (user, item)]  # its numbers to ours
    for place, index in zip(places, (user, item)):
        place[index] = torch.arange(len(index))
    drawn, calculate_loss = [], model.calculate_loss

    def recorded(batch: Any) -> torch.Tensor:
        drawn.append(torch.stack([place[batch[name]] for place, name in zip(
            (places[0], places[1], places[1]), (model.USER_ID, model.ITEM_ID, model.NEG_ITEM_ID))]).int().numpy())
        return calculate_loss(batch)

    model.calculate_loss = recorded
    trainer, times = Trainer(config, model), [time.perf_counter()]
    trainer.fit(train, validation, verbose=False, callback_fn=lambda *_: times.append(time.perf_counter()))
    model.load_state_dict(torch.load(trainer.saved_model_file, weights_only=False)['state_dict'])
    model.restore_user_e = model.restore_item_e = None  # those of the last epoch
    own = {f'{part}/{name}': float(value) for part, loader in (('validation', validation), ('test', test))
           for name, value in trainer.evaluate(loader, load_best_model=False).items()}
    epoch = len(times) - 2 - trainer.cur_step
    about = json.dumps({'epoch': epoch, 'epochs': len(times) - 1, 'train_s': times[-1] - times[0], 'own': own})
    batches = len(drawn) // (len(times) - 1) * (epoch + 1)
    part = folder / f'part-{start}-{seed}.npz'  # this environment may lack tvdiff_pyg, which has a function for it
    np.savez(part, z=ordered(*model.forward()), about=about,
             batches=np.concatenate(drawn[:batches], 1), sizes=[batch.shape[1] for batch in drawn[:batches]], **out)
    part.replace(folder / f'peer-{start}-{seed}.npz')
    print(start, seed, about, flush=True)


def check_probe(split: Any, folder: Path, found: Any) -> Dict[str, Any]:
    """Return the largest differences between the two for the same table and batch."""
    from tvdiff_pyg.nn import LightGCN
    from tvdiff_pyg.typing import Batch
    probe = np.load(folder / 'probe.npz')
    user, item, negative = (torch.from_numpy(probe[name]) for name in ('user', 'item', 'negative'))
    model = LightGCN(split.train, **MODEL)
    weight: Any = model.network.embedding.weight
    weight.data = torch.from_numpy(probe['table'])
    with mock.patch.object(model.sampler, 'forward', return_value=(torch.arange(user.numel()), negative)):
        loss = model.training_loss(Batch(user, item)).loss
    loss.backward()
    out = {}
    for name, mine in (('z', model.embeddings()), ('gradient', weight.grad), ('loss', loss)):
        theirs = torch.from_numpy(found[f'probe_{name}'])
        out[name] = {'largest': theirs.abs().max().item(), 'largest_difference': (mine - theirs).abs().max().item()}
    return out


def ours(split: Any, folder: Path, start: str, seed: int, data_root: Any) -> Dict[str, Any]:
    """Train ours as ``tvdiff fit`` does, ``xavier`` from the peer's first embeddings."""
    import torch_geometric.nn

    from tvdiff_pyg.training import Recipe, fit
    recipe = Recipe.from_dict({'dataset': {'name': DATASET}, 'model': {'name': 'lightgcn', **MODEL},
                               'training': TRAINING})
    out = folder / f'ours-{start}-{seed}'

    def reset(self: torch_geometric.nn.LightGCN) -> None:
        if start == 'xavier':
            self.embedding.weight.data = torch.from_numpy(np.load(folder / f'peer-{start}-{seed}.npz')['first'])
        else:
            torch.nn.init.normal_(self.embedding.weight, std=INITIAL_STD)

    with mock.patch.object(torch_geometric.nn.LightGCN, 'reset_parameters', reset):
        run: Any = fit(recipe, out, data_root, seed=seed, resume=out.exists(), progress=False)
    return {'by': 'ours', 'start': start, 'seed': seed, **rank(split, run.model.embeddings().detach()),
            **{name: run.metrics[name] for name in ('epoch', 'epochs', 'train_s')}}


def replay(split: Any, folder: Path, start: str, seed: int) -> Dict[str, Any]:
    """Train ours on the batches that RecBole drew, from its first embeddings, and keep what that gave."""
    from tvdiff_pyg.files import write_json
    from tvdiff_pyg.nn import LightGCN
    from tvdiff_pyg.typing import Batch
    file = folder / f'replay-{start}-{seed}.json'
    if not file.is_file():
        found = np.load(folder / f'peer-{start}-{seed}.npz')
        model = LightGCN(split.train, **MODEL)
        weight: Any = model.network.embedding.weight
        weight.data = torch.from_numpy(found['first'])
        adam = torch.optim.Adam(model.parameters(), TRAINING['lr'])
        for user, item, negative in torch.from_numpy(found['batches']).long().split(found['sizes'].tolist(), 1):
            with mock.patch.object(model.sampler, 'forward', return_value=(torch.arange(user.numel()), negative)):
                loss = model.training_loss(Batch(user, item)).loss
            adam.zero_grad()
            loss.backward()
            adam.step()
        z = model.embeddings().detach()
        difference = (z - torch.from_numpy(found['z'])).abs().max().item() / float(np.abs(found['z']).max())
        write_json(file, {'by': "ours, RecBole's batches", 'start': start, 'seed': seed, **rank(split, z),
                          'largest_difference_of_embeddings': difference})
    out: Dict[str, Any] = json.loads(file.read_text(encoding='utf-8'))
    return out


def rank(split: Any, z: torch.Tensor) -> Dict[str, Any]:
    """Return our evaluator's metrics of a table of users, then items."""
    from tvdiff_pyg.evaluation import RankingEvaluator
    code, table = z.split([split.train.num_users, split.train.num_items])
    out = {}
    for part, seen in (('validation', [split.train]), ('test', split.seen_when_testing)):
        found = RankingEvaluator(getattr(split, part), seen, [20])(lambda users: code[users] @ table.t())
        out.update({f'{part}/{name}': value for name, value in found.mean.items()})
    return {name: out[name] for name in METRICS}


def summary(rows: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Return the means of each metric over the seeds that both have, and the difference in percent."""
    out = []
    for start, by in itertools.product(STARTS, dict.fromkeys(row['by'] for row in rows if row['by'] != 'recbole')):
        ours_, theirs = ({row['seed']: row for row in rows if (row['by'], row['start']) == (one, start)}
                         for one in (by, 'recbole'))
        seeds = sorted(ours_.keys() & theirs.keys())
        for metric in METRICS if seeds else []:
            pairs = [(ours_[seed][metric], theirs[seed][metric]) for seed in seeds]
            x, y = (statistics.mean(values) for values in zip(*pairs))
            percent = [100 * (mine / other - 1) for mine, other in pairs]
            out.append({'start': start, 'by': by, 'metric': metric, 'ours': x, 'recbole': y, 'seeds': seeds,
                        'difference_percent': 100 * (x / y - 1), 'difference_percent_by_seed': percent})
    return out


def replaced(rows: Sequence[Dict[str, Any]], made: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Return rows with those that were made anew in the place of the old ones, which stay where there is no new one."""
    by_name = {(row['by'], row['start'], row['seed']): row for row in [*rows, *made]}
    return list(by_name.values())


def main(argv: Any = None) -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ('export', 'peer', 'ours'):
        parser.add_argument(f'--{name}', type=Path, metavar='FOLDER')
    parser.add_argument('--starts', nargs='+', choices=STARTS, default=list(STARTS))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1])
    parser.add_argument('--data-root', default=None)
    parser.add_argument('--json', type=Path, help='the file of results; what it holds of other cells is kept')
    options = parser.parse_args(argv)
    cells = [(start, seed) for start in options.starts for seed in options.seeds]
    if options.peer:
        for start, seed in cells:
            if not (options.peer / f'peer-{start}-{seed}.npz').is_file():
                peer(options.peer.absolute(), start, seed)
        return
    if options.ours and options.json is None:
        parser.error('--ours needs --json')
    from tvdiff_pyg.datasets import load_dataset
    from tvdiff_pyg.files import write_json
    from tvdiff_pyg.training import Split
    split = Split.from_data(load_dataset(DATASET, options.data_root), 'holdout')
    if options.export:
        export(split, options.export)
    if not options.ours:
        return
    result: Dict[str, Any] = {'dataset': DATASET, 'settings': {**MODEL, **TRAINING}, 'rows': []}
    if options.json.is_file():
        result = json.loads(options.json.read_text(encoding='utf-8'))
    for start, seed in cells:
        made = [ours(split, options.ours, start, seed, options.data_root)]
        file = options.ours / f'peer-{start}-{seed}.npz'
        if file.is_file():
            found = np.load(file)
            result['probe'] = check_probe(split, options.ours, found)
            metrics, about = rank(split, torch.from_numpy(found['z'])), json.loads(str(found['about']))
            made.append({'by': 'recbole', 'start': start, 'seed': seed, **metrics, **about})
            if 'batches' in found and start == 'xavier':
                made.append(replay(split, options.ours, start, seed))
        result['rows'] = replaced(result['rows'], made)
        result['summary'] = summary(result['rows'])
        print(result['summary'], flush=True)
        write_json(options.json, result)


if __name__ == '__main__':
    main()
