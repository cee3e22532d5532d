"""DiffRec's denoiser: a multi-layer perceptron over interaction rows."""
from __future__ import annotations

from typing import List, Optional, Sequence, Union

import torch
import torch.nn.functional as F
from torch import Tensor

from tvdiff_pyg.nn.denoiser import AnisotropicDenoiser
from tvdiff_pyg.nn.graph import NormalizedGraph

BIAS_STD = 1e-3


class MLPDenoiser(AnisotropicDenoiser):
    r"""Reconstructs interaction rows by an auto-encoder that knows no graph and does not squash its output.

    .. math::
        u = \tanh(\mathrm{drop}(x_t) W_I + g(e_t) W_T + b), \quad u \leftarrow \tanh(u W^l + b^l), \quad
        \hat R = u H^T + c

    H is a free table ``[N, d']`` and :math:`c` one number an item. As ``code`` appends a one to u and ``items`` the
    column c to H, :math:`\hat R` is one product of codes and items, and whatever holds of such products (SPEC 7h)
    holds of this network, biases and all.

    Args:
        num_users: number of users M, which the network does not use.
        num_items: number of items N.
        hidden_channels: width d, or the widths of all hidden layers.
        time_channels: width of the step's embedding.
        dropout: probability with which an entry of :math:`x_t` is dropped in training.

    Raises:
        ValueError: a size out of range.

    Source: Wang et al., "Diffusion Recommender Model", arXiv 2304.04971.
    """

    def __init__(self, num_users: int, num_items: int, hidden_channels: Union[int, Sequence[int]] = 1000,
                 time_channels: int = 10, dropout: float = 0.5) -> None:
        widths: List[int] = [hidden_channels] if isinstance(hidden_channels, int) else list(hidden_channels)
        super().__init__(num_users, num_items, widths[:1], time_channels, 'cat', 'none', dropout)
        if min(widths) < 1:
            raise ValueError(f"'hidden_channels' must be one or more positive widths, got {hidden_channels}")
        self.widths = widths
        self.user_layers = torch.nn.ModuleList(torch.nn.Linear(m, n) for m, n in zip(widths, widths[1:]))
        self.item_table = torch.nn.Parameter(torch.empty(num_items, widths[-1]))  # H
        self.user_bias = torch.nn.Parameter(torch.empty(widths[0]))  # b
        self.item_bias = torch.nn.Parameter(torch.empty(num_items, 1))  # c
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew (Xavier normal; biases with standard deviation 0.001)."""
        if not hasattr(self, 'item_bias'):
            return  # the base class draws before there is everything
        assert self.item_table is not None
        first = self.item_weight.size(0) + self.time_weight.size(0) + self.widths[0]  # one layer over [x_t, g(e_t)]
        for weight in (self.item_weight, self.time_weight):
            torch.nn.init.normal_(weight, std=(2 / first) ** 0.5)
        torch.nn.init.xavier_normal_(self.item_table)
        for bias in (self.user_bias, self.item_bias):
            torch.nn.init.normal_(bias, std=BIAS_STD)
        for layer in (self.time_linear, *self.user_layers):
            torch.nn.init.xavier_normal_(layer.weight)
            torch.nn.init.normal_(layer.bias, std=BIAS_STD)

    def items(self, edge_index: Union[Tensor, NormalizedGraph, None] = None, index: Optional[Tensor] = None,
              sparse_grad: bool = False) -> Tensor:
        """Return ``[H | c]``, ``[N, d' + 1]``; see the base class."""
        assert self.item_table is not None
        table, bias = self.item_table, self.item_bias
        if index is not None:
            return torch.cat([F.embedding(index, part, sparse=sparse_grad) for part in (table, bias)], dim=1)
        return torch.cat([table, bias], dim=1)

    def code(self, z: Tensor, t: Tensor) -> Tensor:
        """Return ``[u | 1]``, ``[B, d' + 1]``, of the input layer's output ``z`` at steps ``t``."""
        u = (z + self.time_code(t) + self.user_bias).tanh()
        for layer in self.user_layers:
            u = layer(u).tanh()
        return torch.cat([u, u.new_ones(u.size(0), 1)], dim=1)

    def extra_repr(self) -> str:
        return f'{self.num_items}, hidden_channels={self.widths}, dropout={self.dropout}'
