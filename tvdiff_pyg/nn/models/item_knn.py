"""Item-based nearest neighbours."""
from __future__ import annotations

import math
from typing import List, Tuple

import torch
from torch import Tensor
from torch_geometric.utils import cumsum

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn.models.base import InteractionModel
from tvdiff_pyg.typing import HistoryScorer
from tvdiff_pyg.utils import csr_positions, largest_mask

BLOCK = 128  # items at a time, B x N


class ItemKNN(InteractionModel):
    r"""Scores :math:`X S`: an item by its similarity to those of its nearest neighbours that the user has seen.

    .. math::
        S_{ij} = \frac{|U_i \cap U_j|}{\sqrt{|U_i|\, |U_j|} + \lambda} \quad \text{for } i \in N_k(j), \text{ else } 0

    :math:`U_i` are the users of item i, and :math:`N_k(j)` the k other items with the largest similarity above zero to
    item j; of equal ones, those of the lowest index. Similarities are computed in float64, for a block of items at a
    time. Cost: a pass over N^2 counts, none of them kept, and :math:`\sum_u n_u^2` additions; kN similarities and
    indices in memory; :math:`k n_u` flops, on average, to score a user.

    Args:
        interactions: the training interactions.
        num_neighbors: k, at least 1; more than N - 1 takes all.
        shrinkage: :math:`\lambda \ge 0`, which trusts similarities of rare items less.

    Raises:
        ValueError: ``num_neighbors`` is below 1, or ``shrinkage`` no number from 0 up.

    Source: Sarwar et al., "Item-Based Collaborative Filtering Recommendation Algorithms", WWW 2001; the shrinkage as in
    Ferrari Dacrema et al., "Are We Really Making Much Progress?", arXiv 1907.06902.
    """

    def __init__(self, interactions: InteractionMatrix, num_neighbors: int = 100, shrinkage: float = 0.0) -> None:
        super().__init__(interactions)
        if num_neighbors < 1:
            raise ValueError(f"'num_neighbors' must be at least 1, got {num_neighbors}")
        if not 0 <= shrinkage < math.inf:
            raise ValueError(f"'shrinkage' must be a finite number >= 0, got {shrinkage}")
        self.num_neighbors, self.shrinkage = num_neighbors, shrinkage

    def history_scorer(self) -> HistoryScorer:
        """Find the neighbours and return the function that scores people by their items."""
        rowptr, col, value = self._similarities()
        value = value.to(torch.get_default_dtype())

        def score(histories: InteractionMatrix, users: Tensor) -> Tensor:
            row, item = histories.rows(users)
            pair, position = csr_positions(rowptr, item)
            out = value.new_zeros(users.numel() * self.num_items)
            out.index_add_(0, row[pair] * self.num_items + col[position], value[position])
            return out.view(users.numel(), self.num_items)

        return score

    def _similarities(self) -> Tuple[Tensor, Tensor, Tensor]:
        """Return S as compressed sparse rows."""
        x_t, degree = self.interactions.adj_t(), self.interactions.item_degree.double()
        rowptr, user = x_t.crow_indices(), x_t.col_indices()
        rows: List[Tensor] = []
        cols: List[Tensor] = []
        values: List[Tensor] = []
        for items in torch.arange(self.num_items, device=user.device).split(BLOCK):
            row, position = csr_positions(rowptr, items)
            pair, other = self.interactions.rows(user[position])
            size = items.numel(), self.num_items
            count = torch.bincount(row[pair] * self.num_items + other, minlength=size[0] * size[1]).view(size)
            norm = (degree[items].unsqueeze(1) * degree).sqrt_().add_(self.shrinkage)
            similarity = count / norm.masked_fill_(count == 0, 1)  # [B, N]; an item nobody saw has norm 0
            similarity[torch.arange(size[0], device=user.device), items] = 0
            kept = largest_mask(similarity, min(self.num_neighbors, self.num_items)) & (similarity > 0)
            target, neighbor = kept.nonzero(as_tuple=True)
            rows.append(neighbor)
            cols.append(items[target])
            values.append(similarity[target, neighbor])
        row, perm = torch.cat(rows).sort(stable=True)
        return cumsum(torch.bincount(row, minlength=self.num_items)), torch.cat(cols)[perm], torch.cat(values)[perm]
