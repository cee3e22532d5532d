"""LightGCN, and matrix factorisation as its case of no layers, by BPR."""
from __future__ import annotations

import math
from typing import Optional

import torch
import torch.nn.functional as F
import torch_geometric.nn
from torch import Tensor

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn.conv.tvdiff_conv import TVDiffConv
from tvdiff_pyg.nn.graph import NormalizedGraph
from tvdiff_pyg.nn.models.base import InteractionModel
from tvdiff_pyg.sampling.base import NegativeSampler
from tvdiff_pyg.sampling.uniform import UniformSampler
from tvdiff_pyg.typing import Batch, LossTerms, Scorer
from tvdiff_pyg.utils import evaluation_mode


class LightGCN(InteractionModel):
    r"""Free embeddings, averaged over the hops of the graph, ranked pair by pair.

    .. math::
        Z = \frac{1}{L + 1} \sum_{l=0}^{L} \bar A^l E, \quad s_{ui} = \langle z_u, z_i \rangle, \quad
        \mathcal{L} = \mathrm{mean}\Big(-\log \sigma(s_{ui} - s_{uj}) + \tfrac{\lambda}{2} (\|e_u\|^2 + \|e_i\|^2 +
        \|e_j\|^2)\Big)

    over observed pairs (u, i) with one negative j each. With ``num_layers = 0`` this is matrix factorisation by BPR.
    Parameters and averaging are those of :class:`torch_geometric.nn.LightGCN`; the hops are taken by a prepared graph,
    the fastest kernel that ``benchmarks.backends`` found on CPUs.

    Args:
        interactions: the training interactions.
        hidden_channels: width d of the embeddings.
        num_layers: hops L, >= 0.
        regularization: :math:`\lambda`, >= 0.
        sampler: of negatives; uniform by default.

    Raises:
        ValueError: a number out of its range, or a batch without pairs.

    Cost: 2 L 4 E d flops a step over E edges, forward and backward, whatever the batch.

    Source: He et al., arXiv 2002.02126; Rendle et al., arXiv 1205.2618.
    """

    pairwise = True
    distribution = 'softmax'

    def __init__(self, interactions: InteractionMatrix, hidden_channels: int = 64, num_layers: int = 3,
                 regularization: float = 1e-4, sampler: Optional[NegativeSampler] = None) -> None:
        super().__init__(interactions)
        for name, value, least in (('hidden_channels', hidden_channels, 1), ('num_layers', num_layers, 0)):
            if value < least:
                raise ValueError(f"'{name}' must be at least {least}, got {value}")
        if not 0 <= regularization < math.inf:
            raise ValueError(f"'regularization' must be a finite number >= 0, got {regularization}")
        self.regularization, self.sampler = regularization, sampler or UniformSampler()
        nodes = self.num_users + self.num_items
        self.network = torch_geometric.nn.LightGCN(nodes, hidden_channels, num_layers)
        self.graph: Optional[NormalizedGraph] = None
        if num_layers:
            self.graph = TVDiffConv(nodes, 1).prepare(interactions.node_edge_index, size=(nodes, nodes))

    def reset_parameters(self) -> None:
        """Draw the embeddings anew: Xavier uniform, better on LastFM than the authors' normal (``verify_lightgcn``)."""
        self.network.reset_parameters()

    def embeddings(self) -> Tensor:
        """Return the averaged embeddings Z of users, then items, ``[M + N, d]``."""
        x = self.network.embedding.weight
        out = x * self.network.alpha[0]
        for alpha in self.network.alpha[1:]:
            assert self.graph is not None
            x = self.graph.matmul(x)
            out = out + x * alpha
        return out

    def training_loss(self, batch: Batch, generator: Optional[torch.Generator] = None) -> LossTerms:
        """Return the loss of a batch of pairs; its terms are the regulariser and the mean log-likelihood.

        Args:
            batch: pairs.
            generator: source of the negatives.
        """
        if batch.items is None:
            raise ValueError("'batch' must hold pairs: the loss is pairwise")
        z = self.embeddings()
        code, table = z.detach().split([self.num_users, self.num_items])
        users, one = batch.users, torch.ones_like(batch.users)

        def scores(rows: Tensor, items: Optional[Tensor]) -> Tensor:
            return code[users[rows]] @ (table if items is None else table[items]).t()

        row, negative = self.sampler(self.interactions, users, one, scores, torch.zeros_like(users), 1, generator)
        pairs = torch.stack([users[row], batch.items[row] + self.num_users, negative + self.num_users])  # [3, B]
        code_u, code_i, code_j = F.embedding(pairs, z)  # who has seen everything has no negative, and no pair here
        count = max(batch.users.numel(), 1)
        likelihood = F.logsigmoid((code_u * (code_i - code_j)).sum(1)).sum() / count
        penalty = self.regularization / 2 * self.network.embedding(pairs).square().sum() / count
        return LossTerms(penalty - likelihood, penalty.detach(), likelihood.detach())

    def scorer(self) -> Scorer:
        """Return the function from user indices ``[B]`` to scores ``[B, N]`` under the present weights."""
        with evaluation_mode(self):
            code, table = self.embeddings().split([self.num_users, self.num_items])
        return lambda users: code[users] @ table.t()
