"""AR-GSP negatives for PyG's LightGCN and for plain matrix factorisation, trained by BPR: do they help, by how much?

The sampler asks for two things. Scores: here <z_u, z_i> under the present weights. A step t of T: the draw among the
accepted items has the temperature theta = exp(-lam (1 - t / T)), which sharpens it from noisy steps to clean ones.
Without diffusion every row is clean, so t = 0, T = 1, and theta = exp(-lam) is one constant: at lam = 3 the draw nearly
follows softmax(score) over the accepted items, at lam = 0 it is flatter.

Uniform and popularity-weighted negatives are the controls; the accepted share gamma is chosen on validation. Matrix
factorisation is LightGCN without layers.
"""
import math

import torch
from torch_geometric.nn import LightGCN
from torch_geometric.utils import to_torch_csr_tensor

from experiment import Selection, options, summary  # the file beside this one
from tvdiff_pyg.datasets import load_dataset
from tvdiff_pyg.sampling import ARGumbelSampler, PopularitySampler, UniformSampler
from tvdiff_pyg.split import Split

CHANNELS, BATCH_SIZE, LR, LAMBDA = 64, 8192, 2e-2, 1e-3


def main(argv=None):
    parser = options(__doc__)
    parser.add_argument('--gammas', type=float, nargs='+', default=[0.05, 0.2])
    parser.add_argument('--lam', type=float, default=3.0)
    args = parser.parse_args(argv)

    split = Split.from_data(load_dataset(args.dataset, args.data_root), 'holdout')
    train, num_users, num_items = split.train, split.train.num_users, split.train.num_items
    user, item = train.edge_index
    num_nodes = num_users + num_items
    adj_t = to_torch_csr_tensor(train.node_edge_index, size=(num_nodes, num_nodes))  # symmetric; faster than edges
    select, figures = Selection(split), {}
    popularity = select.popularity()
    samplers = {'uniform': UniformSampler(), 'by popularity': PopularitySampler(),
                **{f'AR-GSP {gamma:g}': ARGumbelSampler(gamma, lam=args.lam) for gamma in args.gammas}}
    for model_name, num_layers in (('MF', 0), ('LightGCN', 2)):
        for name, sampler in samplers.items():
            runs = []
            for seed in args.seeds:
                torch.manual_seed(seed)
                generator = torch.Generator().manual_seed(seed)
                model = LightGCN(num_nodes, CHANNELS, num_layers)
                optimizer = torch.optim.Adam(model.parameters(), lr=LR)
                best = None
                for epoch in range(1, args.epochs + 1):
                    for index in torch.randperm(user.numel(), generator=generator).split(BATCH_SIZE):
                        # By user, as negatives come, but in random order within a user: AR-GSP gives the hardest first.
                        index = index[user[index].argsort(stable=True)]
                        users, count = user[index].unique(return_counts=True)  # one ranking a user, not a pair
                        z = model.get_embedding(adj_t)
                        z_user, z_item = z.detach()[users], z.detach()[num_users:]
                        scores = (lambda rows, items: z_user[rows] @ (  # noqa: E731
                            z_item if items is None else z_item[items]).t())
                        row, negative = sampler(train, users, count, scores, torch.zeros_like(users), 1, generator)
                        u, i, j = users[row], item[index] + num_users, negative + num_users
                        loss = model.recommendation_loss((z[u] * z[i]).sum(1), (z[u] * z[j]).sum(1),
                                                         torch.cat([u, i, j]).unique(), LAMBDA)
                        optimizer.zero_grad()
                        loss.backward()
                        optimizer.step()
                    with torch.no_grad():
                        z_user, z_item = model.get_embedding(adj_t).split([num_users, num_items])
                    best = select.better(best, epoch, lambda users: z_user[users] @ z_item.t())
                runs.append(best)
            figures[model_name, name] = summary(f'{model_name:<9}{name}', runs)
        name = max(list(samplers)[2:], key=lambda name: figures[model_name, name][:, 0].mean())  # on validation
        for control in list(samplers)[:2]:
            gain = (figures[model_name, name] - figures[model_name, control])[:, 1]  # of test R@20, paired by seed
            n, mean, sd = len(gain), gain.mean(), gain.std(correction=int(len(gain) > 1))
            clear = n > 1 and mean.abs() > 2 * sd / math.sqrt(n)
            print(f'{model_name}, {name} against {control}: R@20 {mean:+.4f} ± {sd:.4f}, '
                  f'{mean / figures[model_name, control][:, 1].mean():+.1%}, higher with {int((gain > 0).sum())} of '
                  f"{n} seeds: {'no clear difference' if not clear else 'better' if mean > 0 else 'worse'}")
        print()
    return figures, popularity


if __name__ == '__main__':
    main()
