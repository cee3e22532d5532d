"""GaussianDiffusion with somebody else's denoiser: an MLP on user rows, as in DiffRec (arXiv 2304.04971).

The process knows no network: it asks for a function of (x_t, t), here PyG's MLP on the noisy row beside the step's
embedding. Training noises rows with `q_sample` and compares them with what `predict_x0` makes of the output; ranking
runs `sample` from the clean rows. A schedule of scale 0 adds no noise: an autoencoder with dropout, the control.
"""
import argparse

import torch
import torch.nn.functional as F
from torch_geometric.nn import MLP

from tvdiff_pyg.datasets import load_dataset
from tvdiff_pyg.diffusion import GaussianDiffusion, NoiseSchedule
from tvdiff_pyg.nn import Popularity, TimeEmbedding
from tvdiff_pyg.split import Split

HIDDEN, TIME, NUM_STEPS, BATCH_SIZE, LR = 300, 10, 5, 64, 1e-3


class RowMLP(torch.nn.Module):
    """Rows [B, N] and steps [B] to an output [B, N]."""

    def __init__(self, num_items):
        super().__init__()
        self.embed = TimeEmbedding(TIME)
        self.mlp = MLP([num_items + TIME, HIDDEN, num_items], act='tanh', norm=None)

    def forward(self, x_t, t):
        x_t = F.dropout(x_t, 0.5, self.training)  # not normalised: the reverse process feeds outputs back
        return self.mlp(torch.cat([x_t, self.embed(t)], dim=1))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dataset', default='movielens-small', help='a name of tvdiff_pyg.datasets')
    parser.add_argument('--data-root', help='folder that holds NAME/raw/, for the other data sets')
    parser.add_argument('--epochs', type=int, default=30)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--scales', type=float, nargs='+', default=[0.0, 0.1, 10.0], help='of the noise')
    args = parser.parse_args(argv)

    split = Split.from_data(load_dataset(args.dataset, args.data_root), 'holdout')
    train = split.train
    on_validation, on_test = (split.evaluator(part, [20]) for part in ('validation', 'test'))
    popularity, figures = on_test(Popularity(train).scorer()).mean, {}
    print(f"popularity: R@20 {popularity['recall@20']:.4f}, NDCG@20 {popularity['ndcg@20']:.4f}\n")
    for scale in args.scales:
        diffusion, runs = GaussianDiffusion(NoiseSchedule('linear-var', NUM_STEPS, scale), prediction='x0'), []
        for seed in args.seeds:
            torch.manual_seed(seed)  # PyG's initialisation, and dropout
            generator = torch.Generator().manual_seed(seed)
            denoiser = RowMLP(train.num_items)
            scorer = lambda users: diffusion.sample(denoiser, train.dense(users, torch.float))  # noqa: E731
            optimizer = torch.optim.Adam(denoiser.parameters(), lr=LR)
            best, losses = (-1.0,), []
            for epoch in range(1, args.epochs + 1):
                denoiser.train()
                for users in torch.randperm(train.num_users, generator=generator).split(BATCH_SIZE):
                    x_0 = train.dense(users, torch.float)  # [B, N]: this network reads whole rows
                    t = torch.randint(NUM_STEPS, users.shape, generator=generator)
                    x_t = diffusion.q_sample(x_0, t, generator=generator)
                    x0_hat = diffusion.predict_x0(x_t, t, denoiser(x_t, t))
                    loss = (x_0 - x0_hat).square().sum(1).mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    losses.append(float(loss.detach()))
                denoiser.eval()
                recall = on_validation(scorer).mean['recall@20']
                if recall > best[0]:  # the test part is looked at, never chosen by
                    test = on_test(scorer).mean
                    best = (recall, test['recall@20'], test['ndcg@20'], epoch)
            runs.append((*best, losses[0], losses[-1]))
        name = f'T = {NUM_STEPS}, scale {scale:g}'
        figures[name] = torch.tensor(runs)
        mean, sd = figures[name].mean(0), figures[name].std(0, correction=int(len(runs) > 1))
        print(f'{name:<22} validation R@20 {mean[0]:.4f}   test R@20 {mean[1]:.4f} ± {sd[1]:.4f}   '
              f'NDCG@20 {mean[2]:.4f} ± {sd[2]:.4f}   best epochs {figures[name][:, 3].int().tolist()}   '
              f'loss {mean[4]:.2f} to {mean[5]:.2f}', flush=True)
    return figures, popularity


if __name__ == '__main__':
    main()
