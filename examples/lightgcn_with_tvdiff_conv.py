"""PyG's LightGCN with its LGConv layers replaced by TVDiffConv.

Both layers sum each node's neighbours, weighted by 1 / sqrt(deg * deg), over LightGCN's homogeneous graph of users and
items with every edge in both directions. TVDiffConv adds two things: a d x d weight W, and an activation. LightGCN
averages its layers' outputs, so all of them keep the width d. With W = I and act=None the layers are the same, which is
checked first.
"""
import torch
from torch_geometric.nn import LightGCN
from torch_geometric.utils import to_torch_csr_tensor

from experiment import Selection, options, summary  # the file beside this one
from tvdiff_pyg.datasets import load_dataset
from tvdiff_pyg.nn import TVDiffConv
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
    args = options(__doc__).parse_args(argv)

    split = Split.from_data(load_dataset(args.dataset, args.data_root), 'holdout')
    train, num_users, num_items = split.train, split.train.num_users, split.train.num_items
    user, item = train.edge_index
    num_nodes = num_users + num_items
    adj_t = to_torch_csr_tensor(train.node_edge_index, size=(num_nodes, num_nodes))  # symmetric; faster than edges

    torch.manual_seed(0)
    plain, replaced = lightgcn(num_nodes, 'LGConv'), lightgcn(num_nodes, 'TVDiffConv from I')
    replaced.embedding = plain.embedding
    with torch.no_grad():
        difference = float((plain.get_embedding(adj_t) - replaced.get_embedding(adj_t)).abs().max())
    print(f'TVDiffConv with W = I, act=None against LGConv: largest difference of an embedding {difference:.1e}')

    select, figures, sampler = Selection(split), {}, UniformSampler()
    popularity = select.popularity()
    for name in ('LGConv', 'TVDiffConv', 'TVDiffConv, W from I', 'TVDiffConv, tanh'):
        runs = []
        for seed in args.seeds:
            torch.manual_seed(seed)
            generator = torch.Generator().manual_seed(seed)
            model = lightgcn(num_nodes, name)
            optimizer = torch.optim.Adam(model.parameters(), lr=LR)
            best = None
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
                best = select.better(best, epoch, lambda users: z_user[users] @ z_item.t())
            runs.append(best)
        figures[name] = summary(name, runs)
    return difference, figures, popularity


if __name__ == '__main__':
    main()
