"""Who will write with whom? Link prediction on ogbl-collab with TVDiffConv, measured by OGB's own evaluator.

    pip install "tvdiff-pyg[ogb]"
    python examples/ogbl_collab.py --root data   # downloads 0.1 GB where data/ogbl_collab is not there
"""
from __future__ import annotations

import argparse
from typing import Dict, Optional, Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch_geometric.utils import coalesce

from tvdiff_pyg.nn import CrossCorrelation, TVDiffConv
from tvdiff_pyg.nn.graph import NormalizedGraph
from tvdiff_pyg.transforms.ogb import evaluate_ogb, load_ogb


class LinkPredictor(torch.nn.Module):
    """A node's code is its own features plus one hop of TVDiffConv; a pair's score is the product of its codes."""

    def __init__(self, in_channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.own = torch.nn.Linear(in_channels, hidden_channels)
        self.conv = TVDiffConv(in_channels, hidden_channels)
        self.correlate = CrossCorrelation()

    def forward(self, x: Tensor, graph: NormalizedGraph) -> Tensor:
        return self.own(x) + self.conv(x, graph)  # [V, hidden]

    def score(self, code: Tensor, pairs: Tensor) -> Tensor:
        return self.correlate(code, code, pairs.to(code.device))  # [Q]


def main(argv: Optional[Sequence[str]] = None) -> Dict[str, Dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', default='data', help='folder that holds, or will hold, ogbl_collab/')
    parser.add_argument('--name', default='ogbl-collab', help='data set, with the features and split of ogbl-collab')
    parser.add_argument('--since', type=int, default=0, help='learn only from collaborations of this year and later')
    parser.add_argument('--epochs', type=int, default=20)
    parser.add_argument('--hidden-channels', type=int, default=256)
    parser.add_argument('--batch-size', type=int, default=65536)
    parser.add_argument('--lr', type=float, default=1e-3)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args(argv)

    dataset = load_ogb(args.name, args.root)
    data, split = dataset[0], dataset.get_edge_split()
    num_nodes = data.num_nodes
    # The graph holds the training edges in both directions, one for each year; their weights count papers.
    recent = data.edge_year.view(-1) >= args.since
    edge_index, weight = coalesce(data.edge_index[:, recent], data.edge_weight.view(-1)[recent].float(),
                                  num_nodes, reduce='sum')
    pairs = split['train']['edge'][split['train']['year'].view(-1) >= args.since].t()  # [2, E]

    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    model = LinkPredictor(data.num_features, args.hidden_channels).to(args.device)
    graph = model.conv.prepare(edge_index, weight, (num_nodes, num_nodes)).to(args.device)
    x = data.x.to(args.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    print(f'{args.name}: {num_nodes} authors, {pairs.size(1)} training pairs, '
          f"{len(split['valid']['edge'])} validation and {len(split['test']['edge'])} test pairs")

    best: Dict[str, Dict[str, float]] = {}
    best_epoch = 0
    for epoch in range(1, args.epochs + 1):
        model.train()
        total = 0.0
        for index in torch.randperm(pairs.size(1), generator=generator).split(args.batch_size):
            # Of pairs drawn at random hardly one is an edge; these are the negatives of OGB's own examples, too.
            negative = torch.randint(num_nodes, (2, index.numel()), generator=generator)
            optimizer.zero_grad()
            score = model.score(model(x, graph), torch.cat([pairs[:, index], negative], dim=1))
            label = (torch.arange(score.numel(), device=score.device) < index.numel()).to(score.dtype)
            loss = binary_cross_entropy_with_logits(score, label)
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * index.numel()

        model.eval()
        with torch.no_grad():
            code = model(x, graph)
        figures = {part: evaluate_ogb(lambda batch: model.score(code, batch), split[part], ks=(10, 50, 100))
                   for part in ('valid', 'test')}
        if not best or figures['valid']['hits@50'] > best['valid']['hits@50']:  # selected on validation, never on test
            best, best_epoch = figures, epoch
        print(f"epoch {epoch}: loss {total / pairs.size(1):.4f}, valid hits@50 {figures['valid']['hits@50']:.4f}")

    print(f'best epoch on validation: {best_epoch}')
    for part, values in best.items():
        print(f'{part}: ' + ', '.join(f'{name} {value:.4f}' for name, value in values.items()))
    return best


if __name__ == '__main__':
    main()
