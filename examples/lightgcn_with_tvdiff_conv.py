"""PyG's LightGCN with its LGConv layers replaced by TVDiffConv.

Both layers sum each node's neighbours, weighted by 1 / sqrt(deg * deg), over LightGCN's homogeneous graph of users and
items with every edge in both directions. TVDiffConv adds two things: a d x d weight W, and an activation. LightGCN
averages its layers' outputs, so all of them keep the width d. With W = I and act=None the layers are the same, which is
checked first.
"""
import argparse

import torch
from torch_geometric.nn import LightGCN
from torch_geometric.utils import to_torch_csr_tensor

from tvdiff_pyg.datasets import load_dataset
from tvdiff_pyg.nn import Popularity, TVDiffConv
from tvdiff_pyg.sampling import UniformSampler
from tvdiff_pyg.split import Split

CHANNELS, NUM_LAYERS, BATCH_SIZE, LR, LAMBDA = 64, 2, 8192, 2e-2, 1e-3


def lightgcn(num_nodes, layer):
    model = LightGCN(num_nodes, CHANNELS, NUM_LAYERS)
    if layer != 'LGConv':
        model.convs = torch.nn.ModuleList(
            TVDiffConv(CHANNELS, CHANNELS, act='tanh' if 'tanh' in layer else None) for _ in range(NUM_LAYERS))
    if 'from I' in layer:
        for conv in model.convs:
            torch.nn.init.eye_(conv.weight)
    return model


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dataset', default='movielens-small', help='a name of tvdiff_pyg.datasets')
    parser.add_argument('--data-root', help='folder that holds NAME/raw/, for the other data sets')
    parser.add_argument('--epochs', type=int, default=30)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    args = parser.parse_args(argv)

    split = Split.from_data(load_dataset(args.dataset, args.data_root), 'holdout')
    train, num_users, num_items = split.train, split.train.num_users, split.train.num_items
    user, item = train.edge_index
    edge_index = torch.stack([torch.cat([user, item + num_users]), torch.cat([item + num_users, user])])
    adj_t = to_torch_csr_tensor(edge_index, size=(num_users + num_items,) * 2)  # symmetric; faster than edge_index

    plain, replaced = lightgcn(num_users + num_items, 'LGConv'), lightgcn(num_users + num_items, 'TVDiffConv from I')
    replaced.embedding = plain.embedding
    with torch.no_grad():
        difference = float((plain.get_embedding(adj_t) - replaced.get_embedding(adj_t)).abs().max())
    print(f'TVDiffConv with W = I, act=None against LGConv: largest difference of an embedding {difference:.1e}')

    on_validation, on_test = (split.evaluator(part, [20]) for part in ('validation', 'test'))
    popularity, figures, sampler = on_test(Popularity(train).scorer()).mean, {}, UniformSampler()
    print(f"popularity: R@20 {popularity['recall@20']:.4f}, NDCG@20 {popularity['ndcg@20']:.4f}\n")
    for name in ('LGConv', 'TVDiffConv', 'TVDiffConv, W from I', 'TVDiffConv, tanh'):
        runs = []
        for seed in args.seeds:
            torch.manual_seed(seed)
            generator = torch.Generator().manual_seed(seed)
            model = lightgcn(num_users + num_items, name)
            optimizer = torch.optim.Adam(model.parameters(), lr=LR)
            best = (-1.0,)
            for epoch in range(1, args.epochs + 1):
                for index in torch.randperm(user.numel(), generator=generator).split(BATCH_SIZE):
                    u, i = user[index], item[index] + num_users
                    j = sampler(train, u, torch.ones_like(u), generator=generator)[1] + num_users
                    pairs = torch.stack([torch.cat([u, u]), torch.cat([i, j])])
                    positive, negative = model(adj_t, pairs).chunk(2)
                    loss = model.recommendation_loss(positive, negative, pairs.unique(), LAMBDA)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                with torch.no_grad():
                    z_user, z_item = model.get_embedding(adj_t).split([num_users, num_items])
                scorer = lambda users: z_user[users] @ z_item.t()  # noqa: E731
                recall = on_validation(scorer).mean['recall@20']
                if recall > best[0]:  # the test part is looked at, never chosen by
                    test = on_test(scorer).mean
                    best = (recall, test['recall@20'], test['ndcg@20'], epoch)
            runs.append(best)
        figures[name] = torch.tensor(runs)
        mean, sd = figures[name].mean(0), figures[name].std(0, correction=int(len(runs) > 1))
        print(f'{name:<22} validation R@20 {mean[0]:.4f}   test R@20 {mean[1]:.4f} ± {sd[1]:.4f}   '
              f'NDCG@20 {mean[2]:.4f} ± {sd[2]:.4f}   best epochs {figures[name][:, 3].int().tolist()}', flush=True)
    return difference, figures, popularity


if __name__ == '__main__':
    main()
