"""What the examples share: their options, the choice of the epoch on validation, and means over seeds."""
import argparse

import torch

from tvdiff_pyg.datasets import DATASETS
from tvdiff_pyg.nn import Popularity


def options(text, epochs=30, seeds=3):
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dataset', default='movielens-small', choices=sorted(DATASETS))
    parser.add_argument('--data-root', help='folder that holds NAME/raw/; without it the other sets are downloaded')
    parser.add_argument('--epochs', type=int, default=epochs)
    if seeds == 1:
        parser.add_argument('--seed', type=int, default=0)
    else:
        parser.add_argument('--seeds', type=int, nargs='+', default=list(range(seeds)))
    return parser


class Selection:
    """Chooses the best epoch on the validation part of a split; the test part is looked at, never chosen by."""

    def __init__(self, split):
        self.train = split.train
        self.on_validation, self.on_test = (split.evaluator(part, [20]) for part in ('validation', 'test'))

    def popularity(self):
        mean = self.on_test(Popularity(self.train).scorer()).mean
        print(f"popularity: R@20 {mean['recall@20']:.4f}, NDCG@20 {mean['ndcg@20']:.4f}\n")
        return mean

    def better(self, best, epoch, scorer):
        """Return `best` (at first None), or this epoch: its validation R@20, test R@20, test NDCG@20 and number."""
        recall = self.on_validation(scorer).mean['recall@20']
        if best is not None and recall <= best[0]:
            return best
        test = self.on_test(scorer).mean
        return recall, test['recall@20'], test['ndcg@20'], epoch


def summary(name, runs):
    """Print the mean ± standard deviation over the seeds, a row of `better` each, and return them as a tensor.

    A row may have two columns more: the loss of the first step and of the last.
    """
    runs = torch.tensor(runs)
    mean, sd = runs.mean(0), runs.std(0, correction=int(len(runs) > 1))
    print(f'{name:<22} validation R@20 {mean[0]:.4f}   test R@20 {mean[1]:.4f} ± {sd[1]:.4f}   '
          f'NDCG@20 {mean[2]:.4f} ± {sd[2]:.4f}   best epochs {runs[:, 3].int().tolist()}'
          + (f'   loss {mean[4]:.2f} to {mean[5]:.2f}' if len(mean) > 4 else ''), flush=True)
    return runs
