"""TVDiffConv in mini-batches of PyG's NeighborLoader and LinkNeighborLoader.

The layer normalises by degrees, which a sampled subgraph gets wrong: `degree=` takes the full graph's, and the loaders
slice them along when they are stored on the nodes. With all neighbours of one hop a mini-batch then equals the full
batch; with k of n neighbours, edge weights n / k keep the sum before the activation unbiased.

The loaders need a compiled sampler: `pip install --no-build-isolation torch-scatter torch-sparse` builds one from
source, or take pyg-lib from PyG's own wheel index. Where there is neither, torch_neighbor_sampler.py does its work.
"""
import warnings

import torch
import torch.nn.functional as F
from torch_geometric.loader import LinkNeighborLoader, NeighborLoader
from torch_geometric.nn import HeteroConv
from torch_geometric.sampler import NeighborSampler
from torch_geometric.typing import WITH_PYG_LIB, WITH_TORCH_SPARSE

from experiment import Selection, options  # the files beside this one
from torch_neighbor_sampler import TorchNeighborSampler
from tvdiff_pyg.datasets import load_dataset
from tvdiff_pyg.nn import TVDiffConv
from tvdiff_pyg.split import Split
from tvdiff_pyg.transforms import RATED_BY, RATES

CHANNELS, NEIGHBORS, BATCH_SIZE, LR = 64, 20, 2048, 5e-3


class OneHop(torch.nn.Module):
    """Embeddings of users and items, each plus what a TVDiffConv makes of its neighbours'."""

    def __init__(self, num_nodes):
        super().__init__()
        self.table = torch.nn.ModuleDict({kind: torch.nn.Embedding(n, CHANNELS) for kind, n in num_nodes.items()})
        for table in self.table.values():
            torch.nn.init.normal_(table.weight, std=0.1)
        self.conv = HeteroConv({relation: TVDiffConv(CHANNELS, CHANNELS) for relation in (RATES, RATED_BY)})

    def forward(self, batch, degree_of_graph=True):
        x = {kind: self.table[kind](batch[kind].n_id) for kind in batch.node_types}
        degree, weight = {kind: batch[kind].degree for kind in x}, {}
        for relation, (_, seed) in batch.edge_index_dict.items():  # n / k of each edge's seed
            n = degree[relation[2]]
            weight[relation] = (n / seed.bincount(minlength=n.numel()))[seed]
        h = self.conv(x, batch.edge_index_dict, edge_weight_dict=weight, degree_dict=degree if degree_of_graph else {})
        return {kind: x[kind] + h[kind] for kind in x}


def main(argv=None):
    args = options(__doc__, seeds=1).parse_args(argv)

    split = Split.from_data(load_dataset(args.dataset, args.data_root), 'holdout')
    data, train, select = split.data, split.train, Selection(split)
    for kind, degree in (('user', train.user_degree), ('item', train.item_degree)):
        data[kind].n_id, data[kind].degree = torch.arange(data[kind].num_nodes), degree
    warnings.filterwarnings('ignore', message=".*'pyg-lib' installation")
    kernel = NeighborSampler if WITH_PYG_LIB or WITH_TORCH_SPARSE else TorchNeighborSampler
    every, some = kernel(data, [-1]), kernel(data, [NEIGHBORS])

    def codes(model, kind, sampler=every, **more):  # of all nodes of a type, in mini-batches of 512
        loader = NeighborLoader(data, None, input_nodes=kind, batch_size=512, neighbor_sampler=sampler)
        return torch.cat([model(batch, **more)[kind][:batch[kind].batch_size] for batch in loader])

    popularity = select.popularity()
    print(f'{kernel.__name__}: item codes of mini-batches against those of the full batch')
    torch.manual_seed(args.seed)
    model, differences = OneHop(data.num_nodes_dict).double(), []
    with torch.no_grad():
        full = model(data)['item']
        for name, sampler, of_graph in (('all neighbours, degrees of the graph', every, True),
                                        ('all neighbours, degrees of the sample', every, False),
                                        (f'{NEIGHBORS} neighbours, degrees of the graph', some, True)):
            difference = (codes(model, 'item', sampler, degree_of_graph=of_graph) - full).abs()
            differences.append(float(difference.max()))
            print(f'{name:<40}mean difference {difference.mean():.1e}, largest {difference.max():.1e}')

    loader = LinkNeighborLoader(data, None, (RATES, train.edge_index), neg_sampling='triplet', batch_size=BATCH_SIZE,
                                shuffle=True, neighbor_sampler=some)
    model, best = model.float(), None
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    for epoch in range(1, args.epochs + 1):
        for batch in loader:
            z = model(batch)
            user, item = z['user'][batch['user'].src_index], z['item']
            margin = (user * (item[batch['item'].dst_pos_index] - item[batch['item'].dst_neg_index])).sum(1)
            loss = -F.logsigmoid(margin).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            z_user, z_item = codes(model, 'user'), codes(model, 'item')
        best = select.better(best, epoch, lambda users: z_user[users] @ z_item.t())
    print('\nLinkNeighborLoader: validation R@20 {:.4f}, test R@20 {:.4f}, NDCG@20 {:.4f}, best epoch {}'.format(*best))
    return differences, best, popularity


if __name__ == '__main__':
    main()
