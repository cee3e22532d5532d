"""TV-Diff from its parts, trained by a loop in plain PyTorch.

The settings are those of the data set's recipe (tvdiff_pyg/recipes/NAME.yaml), which `tvdiff fit --recipe NAME` takes,
too. Training ends when Recall@20 on the validation part has not risen for `patience` epochs; the test part is ranked
once, with the weights of the best epoch. Recipes need the extra `train`.
"""
import copy
import time

import torch

from experiment import options  # the file beside this one
from tvdiff_pyg.datasets import load_dataset
from tvdiff_pyg.diffusion import GaussianDiffusion, NoiseSchedule
from tvdiff_pyg.nn import AnisotropicDenoiser, HelmholtzFreeEnergy, Popularity, TVDiff
from tvdiff_pyg.sampling import ARGumbelSampler, UniformSampler
from tvdiff_pyg.split import Split
from tvdiff_pyg.training import load_recipe
from tvdiff_pyg.training.optimizer import WeightAverage
from tvdiff_pyg.typing import Batch


def tvdiff(recipe, train):
    of, process, loss, sampler = recipe.model, recipe.diffusion, recipe.loss, recipe.sampler
    denoiser = AnisotropicDenoiser(train.num_users, train.num_items, of.hidden_channels, of.time_channels,
                                   of.time_type, of.normalization, of.dropout)
    schedule = NoiseSchedule(process.schedule, process.num_steps, process.scale, process.beta_min, process.beta_max)
    negatives = UniformSampler() if sampler.name == 'uniform' else ARGumbelSampler(
        sampler.gamma, sampler.weights, sampler.lam, sampler.pool_size)
    return TVDiff(train, denoiser, GaussianDiffusion(schedule, process.prediction),
                  HelmholtzFreeEnergy(loss.entropy, loss.temperature, loss.reduction), negatives)


def main(argv=None):
    args = options(__doc__, epochs=400, seeds=1).parse_args(argv)
    recipe = load_recipe(args.dataset)
    training = recipe.training
    split = Split.from_data(load_dataset(args.dataset, args.data_root), 'holdout')
    train = split.train
    on_validation, on_test = split.evaluator('validation', [20]), split.evaluator('test', [10, 20, 50])

    torch.manual_seed(args.seed)  # of the first weights
    generator = torch.Generator().manual_seed(args.seed)  # of the order, steps, noise, dropout and negatives
    model = tvdiff(recipe, train)
    optimizer = torch.optim.Adam(model.parameters(), training.lr, (0.9, training.beta2))
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, training.lr_decay)
    average = WeightAverage(model, training.average or 0.0)  # with decay 0 these are the weights themselves
    # An example is a user's row, or a pair where the entropy term compares an item with a negative (BPR).
    users, items = train.edge_index if model.pairwise else (train.user_degree.nonzero().view(-1), None)
    history, best_epoch, weights = [], 0, None
    for epoch in range(1, args.epochs + 1):
        began, energy, entropy = time.perf_counter(), 0.0, 0.0
        for index in torch.randperm(users.numel(), generator=generator).split(training.batch_size):
            batch = Batch(users[index], None if items is None else items[index])
            terms = model.training_loss(batch, generator)
            optimizer.zero_grad()
            terms.loss.backward()
            optimizer.step()
            average.update(model)
            energy += float(terms.energy) * index.numel() / users.numel()
            entropy += float(terms.entropy) * index.numel() / users.numel()
        schedule.step()
        with average.in_place_of(model):
            recall = on_validation(model.scorer()).mean['recall@20']
            if recall > max(history, default=-1.0):
                best_epoch, weights = epoch, copy.deepcopy(model.state_dict())
        history.append(recall)
        print(f'epoch {epoch:3d}   energy {energy:.6f}   entropy {entropy:.6f}   validation R@20 {recall:.4f}   '
              f'{time.perf_counter() - began:.1f} s', flush=True)
        if epoch - best_epoch >= training.patience:
            break

    model.load_state_dict(weights)
    test, popularity = on_test(model.scorer()).mean, on_test(Popularity(train).scorer()).mean
    print(f"\n{args.dataset}, test part, epoch {best_epoch}\n{'':<14}{'TV-Diff':>10}{'popularity':>12}")
    for name, value in test.items():
        print(f'{name:<14}{value:>10.4f}{popularity[name]:>12.4f}')
    return model, history, best_epoch, test, popularity


if __name__ == '__main__':
    main()
