"""From a list of items to a query vector (SPEC 7b)."""
from __future__ import annotations

import copy
from typing import Any, Dict

import torch
import torch.nn.functional as F
from torch import Tensor

from tvdiff_pyg.diffusion import GaussianDiffusion, NoiseSchedule
from tvdiff_pyg.diffusion.latent import LatentReverse
from tvdiff_pyg.nn.denoiser import AnisotropicDenoiser
from tvdiff_pyg.nn.mlp_denoiser import MLPDenoiser
from tvdiff_pyg.nn.models.tvdiff import TVDiff
from tvdiff_pyg.utils import evaluation_mode


class QueryEncoder(torch.nn.Module):
    r"""Encodes what people have seen as vectors whose inner products with a table are the model's scores.

    The reverse process of a trained model ends in :math:`u_0 H^T` (SPEC 7a), so that ranking is a search for the
    largest inner products of :math:`u_0` with the rows of H. The encoder holds what :math:`u_0` needs, the table is
    :attr:`table`; neither needs users, the graph, or this package once it is exported (``torch.export``).

    Args:
        denoiser: the trained denoiser of TV-Diff or DiffRec.
        diffusion: the process, with ``x0`` prediction.
        table: the denoiser's item codes H, ``[N, d']``.

    Attributes:
        table: H; not part of the module's state.

    Raises:
        ValueError: a process that predicts noise: its scores have a part besides.

    Cost: 2 n d + 2 T d d' flops for n items, and N d + d d' numbers.
    """

    def __init__(self, denoiser: AnisotropicDenoiser, diffusion: GaussianDiffusion, table: Tensor) -> None:
        super().__init__()
        if diffusion.prediction != 'x0':
            raise ValueError("'diffusion' predicts noise: only with prediction x0 are the scores inner products")
        # A copy without what makes the table: W_U alone is a row for every user.
        left_out: Dict[int, Any] = {id(part): None for part in (
            denoiser.conv, denoiser.item_table, denoiser.item_layers, getattr(denoiser, 'item_bias', None))}
        self.denoiser = copy.deepcopy(denoiser, left_out).requires_grad_(False).eval()
        self.table = table
        with torch.no_grad():
            self.latent = LatentReverse(diffusion, self.denoiser.code, self.denoiser.item_weight, table)

    @classmethod
    def of(cls, model: TVDiff) -> QueryEncoder:
        """Take a trained model's."""
        with evaluation_mode(model):
            return cls(model.denoiser, model.diffusion, model.denoiser.items(model.graph))

    @classmethod
    def from_state(cls, config: Dict[str, Any], state: Dict[str, Tensor], table: Tensor) -> QueryEncoder:
        """Build one from its settings, its ``state_dict()`` and the table, without users or a graph.

        Args:
            config: ``model`` (tv-diff or diffrec), ``hidden_channels``, ``time_channels``, ``time_type``, and
                ``schedule``, the arguments of :class:`~tvdiff_pyg.diffusion.NoiseSchedule`.
            state: what ``state_dict()`` gave.
            table: ``[N, d']``.

        Raises:
            ValueError: they do not fit.
        """
        make = {'tv-diff': AnisotropicDenoiser, 'diffrec': MLPDenoiser}[config['model']]
        options = {} if make is MLPDenoiser else {'time_type': config['time_type'], 'normalization': 'none'}
        denoiser = make(1, table.size(0), config['hidden_channels'], config['time_channels'], dropout=0.0,
                        **options).to(table.dtype)
        process = GaussianDiffusion(NoiseSchedule(**config['schedule']))
        out = cls(denoiser, process, table)
        try:
            out.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f'the weights do not fit the settings: {error}') from error
        return cls(out.denoiser, process, table)  # what it computes once, it computes of the weights it is given

    def append(self, rows: Tensor) -> None:
        """Let further items follow: rows of the table ``[n, d']``, and nothing that they say in a history."""
        weight = self.denoiser.item_weight
        self.denoiser.item_weight = torch.nn.Parameter(
            torch.cat([weight, weight.new_zeros(rows.size(0), weight.size(1))]), requires_grad=False)
        self.denoiser.num_items += rows.size(0)
        self.table = torch.cat([self.table, rows])

    def forward(self, item: Tensor, offset: Tensor) -> Tensor:
        """Return query vectors ``[B, d']``.

        Args:
            item: the items of all people one after the other ``[n]``, none twice of one person.
            offset: where each person's items start ``[B]``; the first is 0.
        """
        z = F.embedding_bag(item, self.denoiser.item_weight, offset, mode='sum')
        return self.latent.query(z)
