"""DiffRec: the same process without graph, entropy or negatives."""
from __future__ import annotations

from typing import Optional, Sequence, Union

from torch import Tensor

from tvdiff_pyg.diffusion.gaussian import GaussianDiffusion
from tvdiff_pyg.diffusion.timesteps import LossHistoryTimesteps, TimestepSampler
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn.loss import HelmholtzFreeEnergy
from tvdiff_pyg.nn.mlp_denoiser import MLPDenoiser
from tvdiff_pyg.nn.models.tvdiff import TVDiff


class DiffRec(TVDiff):
    r"""The diffusion recommender that TV-Diff departs from: an MLP denoiser and the squared error alone.

    .. math::
        L = \mathrm{mean}_u\Big(\frac{w_t}{N} \sum_j (x_{0j} - \hat R_{uj})^2\Big), \qquad
        w_t = \mathrm{SNR}(t - 1) - \mathrm{SNR}(t), \quad w_0 = 1

    Trained and ranked by the factored engine like :class:`TVDiff`, exactly (SPEC 7h), or by the ``dense`` one.

    Args:
        interactions: the training interactions.
        diffusion: the process; with ``x0`` prediction.
        hidden_channels: width, or widths, of the hidden layers.
        time_channels: width of the step's embedding.
        dropout: probability with which an entry of a noisy row is dropped in training.
        reweight: whether steps weigh :math:`w_t`; otherwise all weigh 1.
        reduction: ``mean`` over the items as published, or ``sum``.
        timesteps: how steps are drawn; by default in proportion to their past losses, as published.
        engine: ``factored`` or ``dense``.

    Raises:
        ValueError: a setting out of range, or another prediction.

    Source: Wang et al., "Diffusion Recommender Model", arXiv 2304.04971.
    """

    def __init__(self, interactions: InteractionMatrix, diffusion: GaussianDiffusion,
                 hidden_channels: Union[int, Sequence[int]] = 1000, time_channels: int = 10, dropout: float = 0.5,
                 reweight: bool = True, reduction: str = 'mean', timesteps: Optional[TimestepSampler] = None,
                 engine: str = 'factored') -> None:
        if diffusion.prediction != 'x0':
            raise ValueError("'diffusion' must predict x0: DiffRec's weights of the steps are for that")
        denoiser = MLPDenoiser(interactions.num_users, interactions.num_items, hidden_channels, time_channels, dropout)
        super().__init__(interactions, denoiser, diffusion, HelmholtzFreeEnergy('nll', 0.0, reduction),
                         timesteps=timesteps or LossHistoryTimesteps(diffusion.num_steps), engine=engine)
        self.reweight = reweight

    def _weighted(self, energy: Tensor, t: Tensor) -> Tensor:
        return energy * self.diffusion.schedule.snr_weight.to(energy.dtype)[t] if self.reweight else energy
