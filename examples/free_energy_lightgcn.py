"""The Helmholtz free energy as the loss of PyG's LightGCN, instead of BPR.

LightGCN gives a code z_u for every user and z_i for every item; the reconstruction of a user's row is z_u Z^T. The free
energy E - tau S asks that it be near the row (E: the squared error over *all* items) and that the observed items and as
many negatives be told apart (S). `energy_and_scores` computes E exactly, from the Gram matrix Z^T Z, and the scores of
the few pairs in S, so that no users x items array is made. tau = 0 is the squared error alone.
"""
import torch
from torch_geometric.nn import LightGCN
from torch_geometric.utils import to_torch_csr_tensor

from experiment import Selection, options, summary  # the file beside this one
from tvdiff_pyg.datasets import load_dataset
from tvdiff_pyg.nn import HelmholtzFreeEnergy
from tvdiff_pyg.nn.functional import Entries, energy_and_scores, sampled_dot
from tvdiff_pyg.sampling import UniformSampler
from tvdiff_pyg.split import Split

CHANNELS, NUM_LAYERS, BATCH_SIZE, LR, LAMBDA = 64, 2, 128, 2e-2, 1e-3


def main(argv=None):
    parser = options(__doc__)
    parser.add_argument('--temperatures', type=float, nargs='+', default=[0.0, 1.0])
    args = parser.parse_args(argv)

    split = Split.from_data(load_dataset(args.dataset, args.data_root), 'holdout')
    train, num_users, num_items = split.train, split.train.num_users, split.train.num_items
    num_nodes = num_users + num_items
    adj_t = to_torch_csr_tensor(train.node_edge_index, size=(num_nodes, num_nodes))  # symmetric; faster than edges
    select, figures, sampler = Selection(split), {}, UniformSampler()
    popularity = select.popularity()
    for name, free_energy in (('BPR', None), *((f'free energy, tau = {tau:g}', HelmholtzFreeEnergy(
            'bce', temperature=tau, reduction='sum')) for tau in args.temperatures)):
        runs = []
        for seed in args.seeds:
            torch.manual_seed(seed)
            generator = torch.Generator().manual_seed(seed)
            model = LightGCN(num_nodes, CHANNELS, NUM_LAYERS)
            optimizer = torch.optim.Adam(model.parameters(), lr=LR)
            best, losses = None, []
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
                best = select.better(best, epoch, lambda users: z_user[users] @ z_item.t())
            runs.append((*best, losses[0], losses[-1]))
        figures[name] = summary(name, runs)
    return figures, popularity


if __name__ == '__main__':
    main()
