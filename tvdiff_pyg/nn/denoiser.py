"""The anisotropic denoiser (view II, topology; SPEC 3)."""
from __future__ import annotations

from typing import List, Optional, Sequence, Union

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.nn.inits import glorot

from tvdiff_pyg.nn.conv.tvdiff_conv import NORMALIZATIONS, TVDiffConv
from tvdiff_pyg.nn.graph import NormalizedGraph
from tvdiff_pyg.nn.time_embedding import TimeEmbedding

TIME_TYPES = ('cat', 'align', 'gate')


class AnisotropicDenoiser(torch.nn.Module):
    r"""Reconstructs interaction rows as the cross-correlation of user codes and item codes (SPEC 3).

    .. math::
        z = \mathrm{drop}(x_t) W_I, \quad e = g(e_t) W_T, \quad u = \tanh(z \oplus e), \quad
        H = \tanh(\bar R^T W_U), \quad \hat R = u H^T

    :math:`W_I`: N x d, :math:`W_U`: M x d, :math:`W_T`: c x d, :math:`g` a linear layer on the step's sinusoidal
    embedding. :math:`\oplus` is ``cat`` (sum), ``align`` (product) or ``gate`` (:math:`z\, s(e)`). Deeper variants
    go on with :math:`u \leftarrow \tanh(u W_I^l)`, :math:`H \leftarrow \tanh(H W_U^l)`. K hops, against which the paper
    sets its one, are :math:`H = \tanh((\bar R^T \bar R)^{K - 1} \bar R^T W_U)`. This is the dense path: a
    forward pass costs 4 B N d flops and makes one B x N array; the faster paths are tested against it.

    Args:
        num_users: number of users M.
        num_items: number of items N.
        hidden_channels: width d, or the widths of all layers.
        time_channels: width c of the step's embedding.
        time_type: ``cat``, ``align`` or ``gate``.
        normalization: degree normalisation of the graph: ``sym``, ``left``, ``linkprop`` or ``raw``; ``none`` for
            no graph at all, :math:`H = \tanh(W)` with a free N x d table.
        dropout: probability with which an entry of :math:`x_t` is dropped in training.
        num_hops: K >= 1; 1 in the paper.

    Raises:
        ValueError: an unknown option or a size out of range.

    Source: arXiv 2511.20122.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        hidden_channels: Union[int, Sequence[int]] = 1000,
        time_channels: int = 64,
        time_type: str = 'cat',
        normalization: str = 'sym',
        dropout: float = 0.5,
        num_hops: int = 1,
    ) -> None:
        super().__init__()
        widths: List[int] = [hidden_channels] if isinstance(hidden_channels, int) else list(hidden_channels)
        if not widths or min(widths) < 1:
            raise ValueError(f"'hidden_channels' must be one or more positive widths, got {hidden_channels}")
        for name, size in (('num_users', num_users), ('num_items', num_items), ('num_hops', num_hops)):
            if size < 1:
                raise ValueError(f"'{name}' must be at least 1, got {size}")
        if time_type not in TIME_TYPES:
            raise ValueError(f"'time_type' must be one of {', '.join(TIME_TYPES)}; got '{time_type}'")
        if normalization not in (*NORMALIZATIONS, 'none'):
            raise ValueError(f"'normalization' must be one of {', '.join(NORMALIZATIONS)}, none; "
                             f"got '{normalization}'")
        if num_hops > 1 and normalization == 'none':
            raise ValueError("'num_hops' above 1 needs a graph, but 'normalization' is none")
        if not 0 <= dropout < 1:
            raise ValueError(f"'dropout' must lie in [0, 1), got {dropout}")
        self.num_users, self.num_items, self.widths = num_users, num_items, widths
        self.time_type, self.normalization, self.dropout, self.num_hops = time_type, normalization, dropout, num_hops

        self.item_weight = torch.nn.Parameter(torch.empty(num_items, widths[0]))  # W_I
        self.time_embedding = TimeEmbedding(time_channels)
        self.time_linear = Linear(time_channels, time_channels, weight_initializer='glorot',
                                  bias_initializer='zeros')  # g
        self.time_weight = torch.nn.Parameter(torch.empty(time_channels, widths[0]))  # W_T
        self.user_layers = torch.nn.ModuleList(
            Linear(m, n, bias=False, weight_initializer='glorot') for m, n in zip(widths, widths[1:]))
        self.conv: Optional[TVDiffConv] = None
        self.item_table: Optional[torch.nn.Parameter] = None
        if normalization == 'none':
            self.item_table = torch.nn.Parameter(torch.empty(num_items, widths[0]))
        else:
            self.conv = TVDiffConv(num_users, widths[0], normalization)  # W_U
        self.item_layers = torch.nn.ModuleList(
            Linear(m, n, bias=False, weight_initializer='glorot') for m, n in zip(widths, widths[1:]))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew (Xavier uniform, biases 0)."""
        glorot(self.item_weight)
        glorot(self.time_weight)
        glorot(self.item_table)
        for module in (self.time_linear, self.conv, *self.user_layers, *self.item_layers):
            if module is not None:
                module.reset_parameters()

    def items(self, edge_index: Union[Tensor, NormalizedGraph, None] = None, index: Optional[Tensor] = None,
              sparse_grad: bool = False) -> Tensor:
        """Return the item codes ``H``, ``[N, d]``.

        Args:
            edge_index: user-to-item edges ``[2, E]``, the sparse ``adj_t`` ``[N, M]``, or what ``conv.prepare``
                made of it; not needed, and not used, where ``normalization`` is ``none``.
            index: only the rows of these items ``[n]``, at the cost of their own edges (of all edges where there are
                more hops); with what ``conv.prepare`` made, which more hops need too.
            sparse_grad: with ``index``: whether the first weight gets a sparse gradient of the rows that took part.
        """
        if self.conv is None:
            assert self.item_table is not None
            h = self.item_table if index is None else F.embedding(index, self.item_table, sparse=sparse_grad)
            h = h.tanh()
        elif index is not None or self.num_hops > 1:
            if not isinstance(edge_index, NormalizedGraph):
                raise ValueError("'edge_index' must be what conv.prepare made where 'index' is given, or 'num_hops' is "
                                 "above 1")
            if self.num_hops > 1:
                h = edge_index.matmul(self.conv.weight)
                for _ in range(self.num_hops - 1):
                    h = edge_index.matmul(edge_index.transpose_matmul(h))
                h = self.conv.act(h if index is None else h[index])
            else:
                h = self.conv.act(edge_index.matmul(self.conv.weight, index, sparse_grad))
        else:
            if edge_index is None:
                raise ValueError("'edge_index' is needed to compute the item codes")
            h = self.conv((None, None), edge_index, size=(self.num_users, self.num_items))
        for layer in self.item_layers:
            h = layer(h).tanh()
        return h

    def encode(self, x: Tensor, generator: Optional[torch.Generator] = None) -> Tensor:
        """Return ``z``, ``[B, d]``, of rows ``[B, N]``, with dropout in training."""
        if self.training and self.dropout > 0:
            keep = torch.empty_like(x).bernoulli_(1 - self.dropout, generator=generator)
            x = x * keep / (1 - self.dropout)
        return x @ self.item_weight

    def time_code(self, t: Tensor) -> Tensor:
        """Return ``e``, ``[B, d]``, of steps ``[B]``."""
        return self.time_linear(self.time_embedding(t)) @ self.time_weight

    def code(self, z: Tensor, t: Tensor) -> Tensor:
        """Return the user codes ``u``, ``[B, d]``, of the input layer's output ``z`` at steps ``t``."""
        e = self.time_code(t)
        if self.time_type == 'cat':
            u = z + e
        elif self.time_type == 'align':
            u = z * e
        else:
            u = z * e.sigmoid()
        u = u.tanh()
        for layer in self.user_layers:
            u = layer(u).tanh()
        return u

    def forward(self, x_t: Tensor, t: Tensor, items: Tensor, generator: Optional[torch.Generator] = None) -> Tensor:
        """Return the output over all items ``[B, N]``.

        Args:
            x_t: noisy rows ``[B, N]``.
            t: steps ``[B]``.
            items: the item codes of :meth:`items`, computed once for as many calls as the weights stay.
            generator: source of the dropout mask.
        """
        return self.code(self.encode(x_t, generator), t) @ items.t()

    def extra_repr(self) -> str:
        return (f'{self.num_users}, {self.num_items}, hidden_channels={self.widths}, time_type={self.time_type}, '
                f'normalization={self.normalization}, dropout={self.dropout}, num_hops={self.num_hops}')
