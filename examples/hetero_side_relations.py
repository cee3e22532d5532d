"""TVDiffConv beside SAGEConv on a heterogeneous graph: users like films, films have genres.

Ratings go through TVDiffConv and film-genre relations through SAGEConv, wired by HeteroConv. Then the same network is
written for one node type and converted by to_hetero, which puts every layer on every relation: a relation that a layer
is not meant for gets no edges, of which both layers make zeros. With its weights copied, the converted network is
checked to give the same codes. The task is to rank the films that a user will like, with and without the genres.
"""
import argparse

import torch
import torch.nn.functional as F
from torch_geometric.nn import HeteroConv, SAGEConv, to_hetero

from tvdiff_pyg.datasets import load_dataset
from tvdiff_pyg.nn import Popularity, TVDiffConv
from tvdiff_pyg.sampling import UniformSampler
from tvdiff_pyg.split import Split
from tvdiff_pyg.transforms import RATED_BY, RATES

RATINGS, SIDE = (RATES, RATED_BY), (('item', 'has', 'genre'), ('genre', 'of', 'item'))
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dataset', default='movielens-small', choices=['movielens-small'])  # no other one has genres
    parser.add_argument('--epochs', type=int, default=30)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    args = parser.parse_args(argv)

    split = Split.from_data(load_dataset(args.dataset), 'holdout')
    data, train, genres = split.data, split.train, split.data.item_attributes['genres']
    names = sorted({genre for of_item in genres for genre in of_item})
    pairs = [(item, names.index(genre)) for item, of_item in enumerate(genres) for genre in of_item]
    data['genre'].num_nodes = len(names)
    data[SIDE[0]].edge_index = torch.tensor(pairs).t().contiguous()
    data[SIDE[1]].edge_index = data[SIDE[0]].edge_index.flip(0)
    edges, none = data.edge_index_dict, torch.empty(2, 0, dtype=torch.long)
    ratings, side = ({relation: edges[relation] if relation in wanted else none for relation in edges}
                     for wanted in (RATINGS, SIDE))

    def network(name):
        """The parameters, and the function that makes the codes of all nodes: embeddings plus the layer's output."""
        x = torch.nn.ParameterDict({kind: 0.1 * torch.randn(n, CHANNELS) for kind, n in data.num_nodes_dict.items()})
        if name == 'to_hetero':
            layer, inputs = to_hetero(OneNodeType(), data.metadata(),
                                      input_map={'x': 'node', 'ratings': 'edge', 'side': 'edge'}), (ratings, side)
        else:
            layer = HeteroConv({relation: TVDiffConv(-1, CHANNELS) if relation in RATINGS else sage()
                                for relation in edges if relation in RATINGS or name == 'HeteroConv'})
            inputs = (edges,)
        with torch.no_grad():
            layer(dict(x), *inputs)  # finds the widths that were left open (-1)
        return x, layer, lambda: {kind: x[kind] + h for kind, h in layer(dict(x), *inputs).items()}

    (x, wired, codes), (y, converted, same) = network('HeteroConv'), network('to_hetero')
    y.load_state_dict(x.state_dict())
    for relation, layer in wired.convs.items():
        twins = converted.rate if relation in RATINGS else converted.side
        twins['__'.join(relation)].load_state_dict(layer.state_dict())
    with torch.no_grad():
        difference = max(float((codes()[kind] - same()[kind]).abs().max()) for kind in data.node_types)
    print(f'{data}\n\nto_hetero with the weights of HeteroConv: largest difference of a code {difference:.1e}')

    on_validation, on_test = (split.evaluator(part, [20]) for part in ('validation', 'test'))
    popularity, figures, sampler = on_test(Popularity(train).scorer()).mean, {}, UniformSampler()
    print(f"popularity: R@20 {popularity['recall@20']:.4f}, NDCG@20 {popularity['ndcg@20']:.4f}\n")
    user, item = train.edge_index
    for name in ('ratings alone', 'HeteroConv', 'to_hetero'):
        runs = []
        for seed in args.seeds:
            torch.manual_seed(seed)
            generator = torch.Generator().manual_seed(seed)
            x, layer, codes = network(name)
            optimizer = torch.optim.Adam([*x.parameters(), *layer.parameters()], lr=LR)
            best = (-1.0,)
            for epoch in range(1, args.epochs + 1):
                for index in torch.randperm(user.numel(), generator=generator).split(BATCH_SIZE):
                    u, i = user[index], item[index]
                    j = sampler(train, u, torch.ones_like(u), generator=generator)[1]
                    z = codes()
                    loss = -F.logsigmoid((z['user'][u] * (z['item'][i] - z['item'][j])).sum(1)).mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                with torch.no_grad():
                    z = codes()
                scorer = lambda users: z['user'][users] @ z['item'].t()  # noqa: E731
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
