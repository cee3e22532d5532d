"""The observed user-item pairs as compressed sparse rows."""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor
from torch_geometric.utils import cumsum

from tvdiff_pyg.typing import Pairs
from tvdiff_pyg.utils import csr_positions, csr_tensor


class InteractionMatrix(torch.nn.Module):
    r"""The binary matrix :math:`R \in \{0, 1\}^{M \times N}` of observed interactions (SPEC 1).

    It is a module without parameters, so that it follows the model that owns it from device to device.
    Its buffers are not part of the state dict: weights and data are kept apart. Memory: 8 (2 nnz + M + 1)
    bytes of int64; dense rows exist only for the users that are asked for.

    Args:
        edge_index: user-to-item pairs ``[2, nnz]``, in any order; repeated pairs count once.
        num_users: number of rows :math:`M`.
        num_items: number of columns :math:`N`.

    Raises:
        ValueError: ``edge_index`` has the wrong shape or type, or an index is negative or out of range.
    """

    rowptr: Tensor
    col: Tensor
    key: Tensor

    def __init__(self, edge_index: Tensor, num_users: int, num_items: int) -> None:
        super().__init__()
        if edge_index.dim() != 2 or edge_index.size(0) != 2:
            raise ValueError(f"'edge_index' must have shape [2, num_edges], got {list(edge_index.shape)}")
        if edge_index.is_floating_point() or edge_index.is_complex() or edge_index.dtype == torch.bool:
            raise ValueError(f"'edge_index' must hold integers, got {edge_index.dtype}; pass edge_index.long()")
        edge_index = edge_index.long()  # a narrower type would overflow in the keys below
        for name, index, size in (('user', edge_index[0], num_users), ('item', edge_index[1], num_items)):
            if index.numel() and (int(index.min()) < 0 or int(index.max()) >= size):
                raise ValueError(
                    f"'edge_index' holds {name} indices from {int(index.min())} to {int(index.max())}; "
                    f"they must lie in 0..{size - 1} (num_{name}s={size})")
        self.num_users = num_users
        self.num_items = num_items
        key = (edge_index[0] * num_items + edge_index[1]).unique()  # sorted by user, then by item
        count = torch.bincount(key // max(num_items, 1), minlength=num_users)
        self.register_buffer('rowptr', cumsum(count), persistent=False)
        self.register_buffer('col', key % max(num_items, 1), persistent=False)
        self.register_buffer('key', key, persistent=False)

    @property
    def num_interactions(self) -> int:
        """Number of observed pairs."""
        return self.col.numel()

    @property
    def user_degree(self) -> Tensor:
        """Items per user :math:`n_u`, ``[M]``."""
        return self.rowptr.diff()

    @property
    def item_degree(self) -> Tensor:
        """Users per item, ``[N]``."""
        return torch.bincount(self.col, minlength=self.num_items)

    @property
    def edge_index(self) -> Tensor:
        """The pairs ``[2, nnz]``, sorted by user and then by item."""
        user = torch.arange(self.num_users, device=self.col.device)
        return torch.stack([user.repeat_interleave(self.user_degree), self.col])

    @property
    def node_edge_index(self) -> Tensor:
        """Both directions of every pair ``[2, 2 nnz]``, between nodes that count users first, then items.

        The graph of models that have one table for all nodes, as :class:`torch_geometric.nn.LightGCN` does.
        """
        user, item = self.edge_index
        item = item + self.num_users
        return torch.stack([torch.cat([user, item]), torch.cat([item, user])])

    def rows(self, users: Tensor) -> Pairs:
        """Return the observed items of ``users`` as ``(row, item)``, rows counting positions in ``users``."""
        row, position = csr_positions(self.rowptr, users)
        return row, self.col[position]

    def dense(self, users: Tensor, dtype: Optional[torch.dtype] = None) -> Tensor:
        """Return the rows of ``users`` as a dense ``[B, N]`` array of zeros and ones."""
        out = torch.zeros(users.numel(), self.num_items, dtype=dtype, device=users.device)
        out[self.rows(users)] = 1
        return out

    def contains(self, users: Tensor, items: Tensor) -> Tensor:
        """Tell, elementwise, whether the pairs ``(users, items)`` were observed; both broadcast.

        An item out of range was not.
        """
        key = users * self.num_items + items
        if self.key.numel() == 0:
            return torch.zeros_like(key, dtype=torch.bool)
        position = torch.searchsorted(self.key, key).clamp_(max=self.key.numel() - 1)
        return (self.key[position] == key) & (items >= 0) & (items < self.num_items)

    def adj_t(self) -> Tensor:
        """Return :math:`R^T` as a sparse CSR tensor ``[N, M]`` of ones, in PyG's transposed convention."""
        user, item = self.edge_index
        perm = item.argsort(stable=True)
        rowptr = cumsum(self.item_degree)
        return csr_tensor(rowptr, user[perm], torch.ones(perm.numel(), device=perm.device),
                          (self.num_items, self.num_users))

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.num_users} users x {self.num_items} items, '
                f'{self.num_interactions} interactions)')
