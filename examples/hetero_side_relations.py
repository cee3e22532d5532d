"""TVDiffConv beside SAGEConv on a heterogeneous graph: users like items, items belong to groups.

The groups are the films' genres; of the data sets without any, the powers of two of an item's users in training.
Ratings go through TVDiffConv, groups through SAGEConv, wired by HeteroConv. Then the same network is written for one
node type and converted by to_hetero, which puts every layer on every relation: one that a layer is not meant for gets
no edges, of which both layers make zeros. With its weights copied it is checked to give the same codes.
"""
import torch
import torch.nn.functional as F
from torch_geometric.nn import HeteroConv, SAGEConv, to_hetero

from experiment import Selection, options, summary  # the file beside this one
from tvdiff_pyg.datasets import load_dataset
from tvdiff_pyg.nn import TVDiffConv
from tvdiff_pyg.sampling import UniformSampler
from tvdiff_pyg.split import Split
from tvdiff_pyg.transforms import RATED_BY, RATES

RATINGS, SIDE = (RATES, RATED_BY), (('item', 'in', 'group'), ('group', 'of', 'item'))
CHANNELS, BATCH_SIZE, LR = 64, 8192, 1e-2


def sage():  # the relation and nothing else, so that it gives zeros where there are no edges
    return SAGEConv((-1, -1), CHANNELS, root_weight=False, bias=False)


class OneNodeType(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rate, self.side = TVDiffConv(-1, CHANNELS), sage()

    def forward(self, x, ratings, side):
        return self.rate(x, ratings) + self.side(x, side)


def main(argv=None):
    args = options(__doc__).parse_args(argv)

    split = Split.from_data(load_dataset(args.dataset, args.data_root), 'holdout')
    data, train = split.data, split.train
    groups = data.item_attributes.get('genres') or [[number.bit_length()] for number in train.item_degree.tolist()]
    names = sorted({group for of_item in groups for group in of_item})
    pairs = [(item, names.index(group)) for item, of_item in enumerate(groups) for group in of_item]
    data['group'].num_nodes = len(names)
    data[SIDE[0]].edge_index = torch.tensor(pairs).t().contiguous()
    data[SIDE[1]].edge_index = data[SIDE[0]].edge_index.flip(0)
    edges, none = data.edge_index_dict, torch.empty(2, 0, dtype=torch.long)

    def network(name):  # parameters, and the function that makes the codes of all nodes: embeddings plus layer
        x = torch.nn.ParameterDict({kind: 0.1 * torch.randn(n, CHANNELS) for kind, n in data.num_nodes_dict.items()})
        if name == 'to_hetero':
            kinds = {'x': 'node', 'ratings': 'edge', 'side': 'edge'}
            layer = to_hetero(OneNodeType(), data.metadata(), input_map=kinds)
            inputs = [{relation: edges[relation] if relation in wanted else none for relation in edges}
                      for wanted in (RATINGS, SIDE)]
        else:
            layer = HeteroConv({relation: TVDiffConv(-1, CHANNELS) if relation in RATINGS else sage()
                                for relation in edges if relation in RATINGS or name == 'HeteroConv'})
            inputs = [edges]
        with torch.no_grad():
            layer(dict(x), *inputs)  # finds the widths that were left open (-1)
        return x, layer, lambda: {kind: x[kind] + h for kind, h in layer(dict(x), *inputs).items()}

    (x, wired, codes), (y, converted, same) = network('HeteroConv'), network('to_hetero')
    y.load_state_dict(x.state_dict())
    for relation, layer in wired.convs.items():
        twins = converted.rate if relation in RATINGS else converted.side
        twins['__'.join(relation)].load_state_dict(layer.state_dict())
    difference = max(float((codes()[kind] - same()[kind]).abs().max().detach()) for kind in data.node_types)
    print(f'{data}\n\nto_hetero with the weights of HeteroConv: largest difference of a code {difference:.1e}')

    select, figures, sampler = Selection(split), {}, UniformSampler()
    popularity = select.popularity()
    user, item = train.edge_index
    for name in ('ratings alone', 'HeteroConv', 'to_hetero'):
        runs = []
        for seed in args.seeds:
            torch.manual_seed(seed)
            generator = torch.Generator().manual_seed(seed)
            x, layer, codes = network(name)
            optimizer = torch.optim.Adam([*x.parameters(), *layer.parameters()], lr=LR)
            best = None
            for epoch in range(1, args.epochs + 1):
                for index in torch.randperm(user.numel(), generator=generator).split(BATCH_SIZE):
                    u, i = user[index], item[index]
                    j = sampler(train, u, torch.ones_like(u), generator=generator)[1]
                    z = codes()
                    loss = -F.logsigmoid((z['user'][u] * (z['item'][i] - z['item'][j])).sum(1)).mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                z = {kind: code.detach() for kind, code in codes().items()}
                best = select.better(best, epoch, lambda users: z['user'][users] @ z['item'].t())
            runs.append(best)
        figures[name] = summary(name, runs)
    return difference, figures, popularity


if __name__ == '__main__':
    main()
