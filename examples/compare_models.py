"""TV-Diff, LightGCN, EASE and popularity through one interface and one evaluator: which differences are no chance?

A model of tvdiff_pyg.nn has `scorer()`, and `training_loss(batch, generator)` if it learns by gradient steps. Epochs
and EASE's regularisation are chosen on validation. Recall@20 is compared user by user (paired t-test), and the p-values
are corrected for their number by Holm's method. They speak of the users: other seeds of the training are not in them.

The settings of TV-Diff are those of the data set's recipe (extra `train`), LightGCN's are the ones of the other
examples; the test needs scipy (extra `baselines`). For each regularisation EASE inverts a matrix whose order is the
lesser of the numbers of users and items: leave it out of `--models` for gowalla and yelp2018.
"""
import copy
import itertools
import time

import torch

from experiment import options  # the file beside this one
from tvdiff_pyg.datasets import load_dataset
from tvdiff_pyg.evaluation import holm, paired_test
from tvdiff_pyg.nn import EASE, LightGCN, Popularity
from tvdiff_pyg.split import Split
from tvdiff_pyg.training import build_model, load_recipe
from tvdiff_pyg.typing import Batch

MODELS = ('TV-Diff', 'LightGCN', 'EASE', 'popularity')
PATIENCE = 10


def fit(model, lr, batch_size, epochs, generator, validate):
    """Train by steps, and take the weights of the epoch that is best on validation."""
    train, best, best_epoch, weights = model.interactions, -1.0, 0, None
    users, items = train.edge_index if model.pairwise else (train.user_degree.nonzero().view(-1), None)
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for epoch in range(1, epochs + 1):
        for index in torch.randperm(users.numel(), generator=generator).split(batch_size):
            optimizer.zero_grad()
            batch = Batch(users[index], None if items is None else items[index])
            model.training_loss(batch, generator).loss.backward()
            optimizer.step()
        recall = validate(model)
        if recall > best:
            best, best_epoch, weights = recall, epoch, copy.deepcopy(model.state_dict())
        if epoch - best_epoch >= PATIENCE:
            break
    model.load_state_dict(weights)
    return model, f'epoch {best_epoch} of {epoch}'


def main(argv=None):
    parser = options(__doc__, epochs=60, seeds=1)
    parser.add_argument('--models', nargs='+', default=list(MODELS), choices=MODELS)
    parser.add_argument('--regularizations', type=float, nargs='+', default=[10, 30, 100, 300, 1000],
                        help='tried for EASE')
    args = parser.parse_args(argv)
    recipe = load_recipe(args.dataset)
    split = Split.from_data(load_dataset(args.dataset, args.data_root), 'holdout')
    train, on_validation, on_test = split.train, split.evaluator('validation', [20]), split.evaluator('test', [20])
    results = {}

    def validate(model):
        return on_validation(model.scorer()).mean['recall@20']

    print(f"{'model':<12}{'R@20':>8}{'NDCG@20':>9}{'coverage':>10}{'seconds':>9}  chosen on validation")
    for name in args.models:
        began, chosen = time.perf_counter(), ''
        torch.manual_seed(args.seed)
        generator = torch.Generator().manual_seed(args.seed)
        if name == 'TV-Diff':
            model, chosen = fit(build_model(recipe, train), recipe.training.lr, recipe.training.batch_size,
                                args.epochs, generator, validate)
        elif name == 'LightGCN':
            model, chosen = fit(LightGCN(train, 64, num_layers=2, regularization=1e-3), 2e-2, 8192,
                                args.epochs, generator, validate)
        elif name == 'EASE':
            model = max((EASE(train, value) for value in args.regularizations), key=validate)
            chosen = f'regularisation {model.regularization:g}'
        else:
            model = Popularity(train)
        seconds, results[name] = time.perf_counter() - began, on_test(model.scorer())
        mean = results[name].mean
        print(f"{name:<12}{mean['recall@20']:>8.4f}{mean['ndcg@20']:>9.4f}{mean['coverage@20']:>10.4f}"
              f'{seconds:>9.1f}  {chosen}', flush=True)

    pairs = list(itertools.combinations(results, 2))
    recall = {name: result.per_user['recall@20'] for name, result in results.items()}
    corrected = holm([paired_test(recall[a], recall[b]) for a, b in pairs])
    print(f'\nRecall@20 of {on_test.users.numel()} users, paired; p by Holm for {len(pairs)} comparisons')
    for (a, b), p in zip(pairs, corrected):
        shown = f'p {p:.2g}' if p >= 1e-99 else 'p < 1e-99'
        print(f"{a + ' - ' + b:<24}{(recall[a] - recall[b]).mean():>+8.4f}   {shown}"
              f"{'' if p < 0.05 else '   no clear difference'}")
    return results, dict(zip(pairs, corrected))


if __name__ == '__main__':
    main()
