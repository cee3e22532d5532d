"""Which step of the process each training row is taken at (SPEC 2)."""
from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Optional, Tuple, Union

import torch
from torch import Tensor

Device = Union[torch.device, str, None]


class TimestepSampler(torch.nn.Module, ABC):
    """Base: draws steps, and the weights that keep the mean loss unbiased.

    Args:
        num_steps: number of steps :math:`T`.
    """

    def __init__(self, num_steps: int) -> None:
        super().__init__()
        if num_steps < 1:
            raise ValueError(f"'num_steps' must be at least 1, got {num_steps}")
        self.num_steps = num_steps

    @abstractmethod
    def forward(self, batch_size: int, device: Device = None,
                generator: Optional[torch.Generator] = None) -> Tuple[Tensor, Tensor]:
        """Return steps ``[B]`` in 0..T-1 and weights ``[B]``, drawn from ``generator`` on ``device``."""

    def update(self, t: Tensor, loss: Tensor) -> None:
        """Learn from the losses ``[B]`` that the steps ``t`` gave; the base class learns nothing."""


class UniformTimesteps(TimestepSampler):
    """Every step equally often, every weight 1."""

    def forward(self, batch_size: int, device: Device = None,
                generator: Optional[torch.Generator] = None) -> Tuple[Tensor, Tensor]:
        t = torch.randint(self.num_steps, (batch_size,), generator=generator, device=device)
        return t, torch.ones(batch_size, device=device)


class LossHistoryTimesteps(TimestepSampler):
    r"""Steps in proportion to the root mean square of their last losses.

    :math:`p_t = (1 - \epsilon) \sqrt{E[L_t^2]} / \sum_s \sqrt{E[L_s^2]} + \epsilon / T`, weight
    :math:`1 / (T p_t)`; uniform until every step has a full history.

    Args:
        num_steps: number of steps :math:`T`.
        history: how many losses a step remembers.
        uniform: the uniform share :math:`\epsilon`, in (0, 1].

    Raises:
        ValueError: a number out of its range.

    Source: Nichol and Dhariwal, arXiv 2102.09672.
    """

    losses: Tensor
    count: Tensor

    def __init__(self, num_steps: int, history: int = 10, uniform: float = 1e-3) -> None:
        super().__init__(num_steps)
        if history < 1:
            raise ValueError(f"'history' must be at least 1, got {history}")
        if not 0 < uniform <= 1:
            raise ValueError(f"'uniform' must lie in (0, 1], got {uniform}")
        self.history, self.uniform = history, uniform
        self.register_buffer('losses', torch.zeros(num_steps, history, dtype=torch.float64))
        self.register_buffer('count', torch.zeros(num_steps, dtype=torch.long))

    def probability(self) -> Tensor:
        """Return :math:`p_t`, ``[T]``."""
        root = self.losses.square().mean(1).sqrt()
        known = (self.count >= self.history).all() & (root.sum() > 0)  # stays on the device: nothing waits for it
        return torch.where(known, (1 - self.uniform) * root / root.sum() + self.uniform / self.num_steps,
                           1 / self.num_steps)

    def forward(self, batch_size: int, device: Device = None,
                generator: Optional[torch.Generator] = None) -> Tuple[Tensor, Tensor]:
        p = self.probability()
        # torch.multinomial draws no empty sample
        t = torch.multinomial(p, max(batch_size, 1), replacement=True, generator=generator)[:batch_size]
        return t.to(device), (1 / (self.num_steps * p[t])).to(device, torch.get_default_dtype())

    @torch.no_grad()
    def update(self, t: Tensor, loss: Tensor) -> None:
        """Push each loss into its step's ring of the last ``history`` losses, in the order of the batch.

        Occurrence ``k`` of a step (0-based) goes to slot ``(count + k) % history``; only the last ``history``
        occurrences in a batch are kept, so no slot is written twice and the result does not depend on the device.
        """
        order = t.argsort(stable=True)
        step, value = t[order], loss.detach()[order].to(self.losses.dtype)
        number = torch.bincount(t, minlength=self.num_steps)
        occurrence = torch.arange(t.numel(), device=t.device) - (number.cumsum(0) - number)[step]
        keep = occurrence >= (number - self.history)[step]
        slot = (self.count[step] + occurrence) % self.history
        self.losses[step[keep], slot[keep]] = value[keep]
        self.count += number
