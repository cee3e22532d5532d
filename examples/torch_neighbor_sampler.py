"""PyG's NeighborSampler with torch in place of its compiled kernel, for where neither pyg-lib nor torch-sparse is.

Pass it as `neighbor_sampler=` to NeighborLoader or LinkNeighborLoader. Heterogeneous graphs, any number of hops; slower
than the kernels, and without their temporal, weighted and disjoint sampling.
"""
import torch
from torch_geometric.sampler import HeteroSamplerOutput, NeighborSampler

from tvdiff_pyg.utils import csr_positions


class TorchNeighborSampler(NeighborSampler):
    """Draws at most ``num_neighbors`` (-1: all) distinct neighbours a node, relation and hop."""

    def _sample(self, seed, seed_time=None, **kwargs):
        node = {kind: seed.get(kind, torch.empty(0, dtype=torch.long)) for kind in self.node_types}
        edges = {kind: [] for kind in self.edge_types}
        begin = dict.fromkeys(self.node_types, 0)
        for hop in range(self.num_neighbors.num_hops):
            first, begin = begin, {kind: ids.numel() for kind, ids in node.items()}  # the nodes that the last hop found
            for kind in self.edge_types:
                relation, (source, _, destination) = '__'.join(kind), kind
                limit = self.num_neighbors.get_mapped_values(self.edge_types)[relation][hop]
                ids = node[destination][first[destination]:begin[destination]]
                row, position = csr_positions(self.colptr_dict[relation], ids)  # by row
                rank = torch.arange(row.numel()) - torch.searchsorted(row, row)
                shuffled = (row + torch.rand(row.numel(), dtype=torch.float64)).argsort()  # within each row
                kept = shuffled[(rank < limit) | (limit < 0)]
                edges[kind].append(torch.stack([row[kept] + first[destination], position[kept]]))
                found = self.row_dict[relation][position[kept]]
                node[source] = torch.cat([node[source], found[~torch.isin(found, node[source])].unique()])
        row, col, edge = {}, {}, {}
        for kind, parts in edges.items():
            col[kind], edge[kind] = torch.cat(parts, dim=1)
            local = torch.empty(self.num_nodes[kind[0]], dtype=torch.long)
            local[node[kind[0]]] = torch.arange(node[kind[0]].numel())
            row[kind] = local[self.row_dict['__'.join(kind)][edge[kind]]]
        return HeteroSamplerOutput(node, row, col, edge)
