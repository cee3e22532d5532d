"""Sinusoidal embedding of the diffusion step."""
from __future__ import annotations

import math

import torch
from torch import Tensor


class TimeEmbedding(torch.nn.Module):
    r"""The step as :math:`[\cos(t \omega_k) | \sin(t \omega_k)]`, :math:`\omega_k = P^{-k / (c/2)}`, :math:`k = 0 ..
    c/2 - 1` (SPEC 3); an odd width gets one zero column.

    Args:
        channels: width :math:`c`, >= 2.
        max_period: longest period :math:`P`.

    Shapes: ``[B]`` -> ``[B, channels]``.

    Source: Vaswani et al., arXiv 1706.03762, in the form of arXiv 2006.11239.
    """

    frequency: Tensor

    def __init__(self, channels: int = 64, max_period: float = 1e4) -> None:
        super().__init__()
        if channels < 2:
            raise ValueError(f"'channels' must be at least 2, got {channels}")
        self.channels = channels
        half = channels // 2
        frequency = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float64) / half)
        self.register_buffer('frequency', frequency.to(torch.get_default_dtype()), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        angle = t.to(self.frequency.dtype).unsqueeze(-1) * self.frequency  # [B, c/2]
        embedding = torch.cat([angle.cos(), angle.sin()], dim=-1)
        return torch.nn.functional.pad(embedding, (0, self.channels % 2))

    def extra_repr(self) -> str:
        return f'{self.channels}'
