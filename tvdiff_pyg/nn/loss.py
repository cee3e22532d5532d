"""Helmholtz free energy (view I, thermodynamics; SPEC 4)."""
from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Dict, Optional, Type, Union

import torch
import torch.nn.functional as F
from torch import Tensor

from tvdiff_pyg.typing import LossTerms

REDUCTIONS = ('mean', 'sum')


def dense_energy(target: Tensor, output: Tensor) -> Tensor:
    r"""Return the energy term :math:`E_u = \frac{1}{N} \sum_j (x_{0j} - \hat R_{uj})^2` over all items, ``[B]``."""
    return (target - output).square().mean(dim=1)


class EntropyTerm(torch.nn.Module, ABC):
    """Base of the entropy terms :math:`S_u`: a function of the scores of a few pairs, one value a batch row.

    Attributes:
        pairwise: whether a batch row is a pair ``(u, i)`` with one negative, instead of a user.
        needs_negatives: whether negatives have to be drawn.
    """

    pairwise: bool = False
    needs_negatives: bool = True

    @abstractmethod
    def forward(self, positive: Tensor, positive_row: Tensor, negative: Optional[Tensor],
                negative_row: Optional[Tensor], num_rows: int, num_items: int) -> Tensor:
        """Return :math:`S`, ``[num_rows]``.

        Args:
            positive: scores of observed pairs ``[P]``.
            positive_row: their batch rows ``[P]``.
            negative: scores of negatives ``[Q]``, where they are needed.
            negative_row: their batch rows ``[Q]``.
            num_rows: number of rows B in the batch.
            num_items: number of items N in the catalogue.
        """


class NLLEntropy(EntropyTerm):
    r""":math:`S_u = \frac{1}{N} \sum_{j \in R_u} \log s(\hat R_{uj})`: the positive half of :class:`BCEEntropy`."""

    needs_negatives = False

    def forward(self, positive: Tensor, positive_row: Tensor, negative: Optional[Tensor],
                negative_row: Optional[Tensor], num_rows: int, num_items: int) -> Tensor:
        return _row_sum(F.logsigmoid(positive), positive_row, num_rows) / num_items


class BCEEntropy(EntropyTerm):
    r""":math:`S_u = \frac{1}{N} \big[\sum_{j \in R_u} \log s(\hat R_{uj}) + \sum_{j \in neg_u} \log s(-\hat R_{uj})
    \big]`."""

    def forward(self, positive: Tensor, positive_row: Tensor, negative: Optional[Tensor],
                negative_row: Optional[Tensor], num_rows: int, num_items: int) -> Tensor:
        assert negative is not None and negative_row is not None
        return (_row_sum(F.logsigmoid(positive), positive_row, num_rows)
                + _row_sum(F.logsigmoid(-negative), negative_row, num_rows)) / num_items


class BPREntropy(EntropyTerm):
    r""":math:`S = \log(10^{-5} + s(\hat R_{ui} - \hat R_{uj}))` for a pair ``(u, i)`` and its one negative ``j``; a
    pair whose user has seen every item has no negative and adds 0."""

    pairwise = True

    def forward(self, positive: Tensor, positive_row: Tensor, negative: Optional[Tensor],
                negative_row: Optional[Tensor], num_rows: int, num_items: int) -> Tensor:
        assert negative is not None and negative_row is not None
        by_row = positive.new_zeros(num_rows).index_put((positive_row,), positive)
        difference = by_row[negative_row] - negative
        return _row_sum((1e-5 + difference.sigmoid()).log(), negative_row, num_rows)


ENTROPY_TERMS: Dict[str, Type[EntropyTerm]] = {'bce': BCEEntropy, 'nll': NLLEntropy, 'bpr': BPREntropy}


class HelmholtzFreeEnergy(torch.nn.Module):
    r"""The free energy of a batch, :math:`F = \mathrm{mean}_u(E_u - \tau S_u)` (SPEC 4).

    The temperature :math:`\tau` weighs fidelity to the row against spread; :math:`\tau = 0` is the vanilla
    diffusion objective, and then no negatives are needed.

    Args:
        entropy: ``bce``, ``nll``, ``bpr``, or an :class:`EntropyTerm` of your own.
        temperature: :math:`\tau`, >= 0.
        reduction: ``mean`` for the published objective; ``sum`` multiplies it by the number of items. The
            minimiser is the same, but Adam's epsilon no longer swallows the gradients (SPEC 13).

    Raises:
        ValueError: an unknown option, or a temperature out of range.
    """

    def __init__(self, entropy: Union[str, EntropyTerm] = 'bce', temperature: float = 1.0,
                 reduction: str = 'mean') -> None:
        super().__init__()
        if isinstance(entropy, str):
            if entropy not in ENTROPY_TERMS:
                raise ValueError(f"'entropy' must be one of {', '.join(ENTROPY_TERMS)}; got '{entropy}'")
            entropy = ENTROPY_TERMS[entropy]()
        if not 0 <= temperature < math.inf:
            raise ValueError(f"'temperature' must be a finite number >= 0, got {temperature}")
        if reduction not in REDUCTIONS:
            raise ValueError(f"'reduction' must be one of {', '.join(REDUCTIONS)}; got '{reduction}'")
        self.entropy, self.temperature, self.reduction = entropy, temperature, reduction

    @property
    def uses_entropy(self) -> bool:
        """Whether the entropy term counts at all (:math:`\\tau > 0`)."""
        return self.temperature > 0

    @property
    def needs_negatives(self) -> bool:
        """Whether negatives have to be drawn."""
        return self.uses_entropy and self.entropy.needs_negatives

    def forward(self, energy: Tensor, entropy: Optional[Tensor], num_items: int,
                weight: Optional[Tensor] = None) -> LossTerms:
        """Return the loss and its terms.

        Args:
            energy: :math:`E`, ``[B]``.
            entropy: :math:`S`, ``[B]``; not needed where the temperature is 0.
            num_items: number of items N.
            weight: weights of the rows ``[B]``, as importance sampling of steps needs them.
        """
        free_energy = self.free_energy(energy, entropy)
        loss = (free_energy if weight is None else free_energy * weight).mean()
        if self.reduction == 'sum':
            loss = loss * num_items
        return LossTerms(loss, energy.detach().mean(),
                         torch.zeros_like(loss) if entropy is None else entropy.detach().mean())

    def free_energy(self, energy: Tensor, entropy: Optional[Tensor]) -> Tensor:
        r"""Return :math:`E - \tau S` row by row, ``[B]``."""
        if not self.uses_entropy:
            return energy
        if entropy is None:
            raise ValueError(f"'entropy' is needed at temperature {self.temperature}")
        return energy - self.temperature * entropy

    def extra_repr(self) -> str:
        return f'temperature={self.temperature}, reduction={self.reduction}'


def _row_sum(value: Tensor, row: Tensor, num_rows: int) -> Tensor:
    return value.new_zeros(num_rows).index_add(0, row, value)
