"""A training step of LightGCN: ours against PyG's model over each kernel that it takes.

``python -m benchmarks.lightgcn --dataset gowalla --data-root DIR [--json FILE]``

The same embeddings, batch, negatives and loss; the losses are compared. PyG's model sums over a COO edge list, torch's
CSR tensor, and torch-sparse's ``SparseTensor`` where that is installed (``.ci/accel`` builds it); it gets normalised
weights, and need not normalise at each step.
"""
from __future__ import annotations

import argparse
import platform
import statistics
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Callable, Dict, List

import torch
import torch_geometric.nn
from torch import Tensor
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from tvdiff_pyg.datasets import load_dataset
from tvdiff_pyg.files import write_json
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn import LightGCN
from tvdiff_pyg.sampling import UniformSampler
from tvdiff_pyg.training.environment import versions
from tvdiff_pyg.transforms import RATES
from tvdiff_pyg.typing import Batch
from tvdiff_pyg.utils import csr_tensor

REGULARIZATION = 1e-4


class _Given(UniformSampler):
    """Gives the same negatives at every call."""

    def __init__(self, items: Tensor) -> None:
        super().__init__()
        self.items = items

    def forward(self, interactions: InteractionMatrix, users: Tensor, *args: Any, **kwargs: Any) -> Any:
        return torch.arange(users.numel()), self.items


def losses(train: InteractionMatrix, width: int, num_layers: int, batch_size: int) -> Dict[str, Callable[[], Tensor]]:
    """Return each way of computing the loss of one batch."""
    generator = torch.Generator().manual_seed(0)
    user, item = train.edge_index
    batch = torch.randint(user.numel(), (batch_size,), generator=generator)
    users, positive = user[batch], item[batch]
    row, negative = UniformSampler()(train, users, torch.ones_like(users), generator=generator)
    users, positive = users[row], positive[row]
    ours = LightGCN(train, width, num_layers, REGULARIZATION, _Given(negative))
    shift, nodes = train.num_users, train.num_users + train.num_items
    coo, weight = gcn_norm(train.node_edge_index, None, nodes, add_self_loops=False)
    order = coo[1].argsort(stable=True)
    source, target, value = coo[0][order], coo[1][order], weight[order]
    rowptr = torch.cat([torch.zeros(1, dtype=torch.long), torch.bincount(target, minlength=nodes).cumsum(0)])
    graphs: Dict[str, Any] = {'PyG, edge list': (coo, weight), 'PyG, torch CSR': (csr_tensor(
        rowptr, source, value, (nodes, nodes)), None)}
    if find_spec('torch_sparse'):
        from torch_sparse import SparseTensor
        graphs['PyG, SparseTensor'] = SparseTensor(rowptr=rowptr, col=source, value=value,
                                                   sparse_sizes=(nodes, nodes)), None
    peer = torch_geometric.nn.LightGCN(nodes, width, num_layers, normalize=False)
    peer.embedding = ours.network.embedding
    pairs = torch.stack([users.repeat(2), torch.cat([positive, negative]) + shift])
    touched = torch.cat([users, pairs[1]])

    def theirs(graph: Any) -> Tensor:
        first, second = peer(graph[0], pairs, graph[1]).chunk(2)
        return peer.recommendation_loss(first, second, touched, lambda_reg=REGULARIZATION / 2)

    out: Dict[str, Callable[[], Tensor]] = {'ours': lambda: ours.training_loss(Batch(users, positive)).loss}
    for name, graph in graphs.items():
        out[name] = lambda graph=graph: theirs(graph)  # type: ignore[misc]
    return {**out, '_embedding': lambda: ours.network.embedding.weight}


def main(argv: Any = None) -> List[Dict[str, Any]]:
    """Measure in turn, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--dataset', default='gowalla')
    parser.add_argument('--data-root', default=None)
    parser.add_argument('--hidden-channels', type=int, default=64)
    parser.add_argument('--num-layers', type=int, default=3)
    parser.add_argument('--batch-size', type=int, default=2048)
    parser.add_argument('--repeat', type=int, default=5)
    parser.add_argument('--json', default=None)
    options = parser.parse_args(argv)
    data = load_dataset(options.dataset, options.data_root)
    train = InteractionMatrix(data[RATES].edge_index, data['user'].num_nodes, data['item'].num_nodes)
    ways = losses(train, options.hidden_channels, options.num_layers, options.batch_size)
    embedding = ways.pop('_embedding')()
    optimizer = torch.optim.Adam([embedding], lr=0.0, fused=True)  # a step's cost, without its effect
    found: Dict[str, List[float]] = {name: [] for name in ways}
    expected = float(ways['ours']().detach())
    for _ in range(options.repeat + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            optimizer.zero_grad()
            loss = way()
            loss.backward()
            optimizer.step()
            found[name].append(time.perf_counter() - started)
            torch.testing.assert_close(float(loss.detach()), expected, rtol=1e-4, atol=1e-6)
    rows: List[Dict[str, Any]] = [{'name': name, 'step_s': statistics.median(seconds[1:])}
                                  for name, seconds in found.items()]
    print(f'{options.dataset}, d = {options.hidden_channels}, {options.num_layers} layers, '
          f'batch {options.batch_size}, {torch.get_num_threads()} threads\n\n| LightGCN | s a step | |\n|---|--:|--:|')
    for row in rows:
        row['ratio'] = row['step_s'] / rows[0]['step_s']
        print(f"| {row['name']} | {row['step_s']:.3f} | {row['ratio']:.1f} x |")
    if options.json:
        result = {**vars(options), 'threads': torch.get_num_threads(), 'machine': platform.machine(), 'rows': rows,
                  'versions': versions()}
        write_json(Path(options.json), result)
    return rows


if __name__ == '__main__':
    main()
