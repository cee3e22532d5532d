"""The Helmholtz free energy as the loss of PyG's LightGCN, instead of BPR.

LightGCN gives a code z_u for every user and z_i for every item; the reconstruction of a user's row is z_u Z^T. The free
energy E - tau S asks that it be near the row (E: the squared error over *all* items) and that the observed items and as
many negatives be told apart (S). `energy_and_scores` computes E exactly, from the Gram matrix Z^T Z, and the scores of
the few pairs in S, so that no users x items array is made. tau = 0 is the squared error alone.
"""
import argparse

import torch
from torch_geometric.nn import LightGCN
from torch_geometric.utils import to_torch_csr_tensor

from tvdiff_pyg.datasets import load_dataset
from tvdiff_pyg.nn import HelmholtzFreeEnergy, Popularity
from tvdiff_pyg.nn.functional import Entries, energy_and_scores, sampled_dot
from tvdiff_pyg.sampling import UniformSampler
from tvdiff_pyg.split import Split

CHANNELS, NUM_LAYERS, BATCH_SIZE, LR, LAMBDA = 64, 2, 128, 2e-2, 1e-3


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dataset', default='movielens-small', help='a name of tvdiff_pyg.datasets')
    parser.add_argument('--data-root', help='folder that holds NAME/raw/, for the other data sets')
    parser.add_argument('--epochs', type=int, default=30)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--temperatures', type=float, nargs='+', default=[0.0, 1.0])
    args = parser.parse_args(argv)

    split = Split.from_data(load_dataset(args.dataset, args.data_root), 'holdout')
    train, num_users, num_items = split.train, split.train.num_users, split.train.num_items
    user, item = train.edge_index
    edge_index = torch.stack([torch.cat([user, item + num_users]), torch.cat([item + num_users, user])])
    adj_t = to_torch_csr_tensor(edge_index, size=(num_users + num_items,) * 2)  # symmetric; faster than edge_index
    on_validation, on_test = (split.evaluator(part, [20]) for part in ('validation', 'test'))
    popularity, figures, sampler = on_test(Popularity(train).scorer()).mean, {}, UniformSampler()
    print(f"popularity: R@20 {popularity['recall@20']:.4f}, NDCG@20 {popularity['ndcg@20']:.4f}\n")
    for name, free_energy in (('BPR', None), *((f'free energy, tau = {tau:g}', HelmholtzFreeEnergy(
            'bce', temperature=tau, reduction='sum')) for tau in args.temperatures)):
        runs = []
        for seed in args.seeds:
            torch.manual_seed(seed)
            generator = torch.Generator().manual_seed(seed)
            model = LightGCN(num_users + num_items, CHANNELS, NUM_LAYERS)
            optimizer = torch.optim.Adam(model.parameters(), lr=LR)
            best, losses = (-1.0,), []
            for epoch in range(1, args.epochs + 1):
                for users in torch.randperm(num_users, generator=generator).split(BATCH_SIZE):
                    z_user, z_item = model.get_embedding(adj_t).split([num_users, num_items])
                    z_user, (row, item), size = z_user[users], train.rows(users), (users.numel(), num_items)
                    drawn = sampler(train, users, row.bincount(minlength=users.numel()), generator=generator)
                    observed, unobserved = Entries.of(row, item, *size), Entries.of(*drawn, *size)  # both by row
                    negative = sampled_dot(unobserved, z_user, z_item)
                    if free_energy is None:
                        nodes = torch.cat([users, item + num_users, drawn[1] + num_users]).unique()
                        loss = model.recommendation_loss(sampled_dot(observed, z_user, z_item), negative, nodes, LAMBDA)
                    else:
                        energy, positive = energy_and_scores(z_user, z_item, observed, observed)
                        entropy = free_energy.entropy(positive, row, negative, drawn[0], *size)
                        loss = free_energy(energy / num_items, entropy, num_items).loss
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    losses.append(float(loss.detach()))
                with torch.no_grad():
                    z_user, z_item = model.get_embedding(adj_t).split([num_users, num_items])
                scorer = lambda users: z_user[users] @ z_item.t()  # noqa: E731
                recall = on_validation(scorer).mean['recall@20']
                if recall > best[0]:  # the test part is looked at, never chosen by
                    test = on_test(scorer).mean
                    best = (recall, test['recall@20'], test['ndcg@20'], epoch)
            runs.append((*best, losses[0], losses[-1]))
        figures[name] = torch.tensor(runs)
        mean, sd = figures[name].mean(0), figures[name].std(0, correction=int(len(runs) > 1))
        print(f'{name:<22} validation R@20 {mean[0]:.4f}   test R@20 {mean[1]:.4f} ± {sd[1]:.4f}   '
              f'NDCG@20 {mean[2]:.4f} ± {sd[2]:.4f}   best epochs {figures[name][:, 3].int().tolist()}   '
              f'loss {mean[4]:.2f} to {mean[5]:.2f}', flush=True)
    return figures, popularity


if __name__ == '__main__':
    main()
