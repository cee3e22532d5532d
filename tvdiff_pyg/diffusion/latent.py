"""The reverse process in the code's space, without a row over the catalogue (SPEC 7a)."""
from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor

from tvdiff_pyg.diffusion.gaussian import GaussianDiffusion


class LatentReverse(torch.nn.Module):
    r"""The reverse process of any denoiser of the form ``code(x W, t) @ table^T``, exactly and without noise.

    Scores over the catalogue are linear in the code, and the next step's input layer is linear in the scores; so with
    :math:`K = H^T W` a step needs no row at all:

    .. math::
        z_{t-1} = k_t z_t + m_t u_t K, \qquad u_t = \mathrm{code}(z_t, t), \qquad z_{T-1} = x W

    ``x0`` prediction has :math:`k_t = c^2_t, m_t = c^1_t`; as :math:`c^1_0 = 1, c^2_0 = 0`, the result is exactly
    :math:`u_0 H^T`. ``eps`` has :math:`k_t = c^1_t / \sqrt{\bar\alpha_t} + c^2_t` and :math:`m_t = -c^1_t
    \sqrt{1 - \bar\alpha_t} / \sqrt{\bar\alpha_t}`; its result is :math:`q H^T + a x` with :math:`q = \sum_t m_t
    (\prod_{s < t} k_s) u_t` and :math:`a = \prod_t k_t`. Without noise (scale 0), :math:`k_t = 0, m_t = 1`.

    Args:
        diffusion: the process.
        code: ``code(z, t)``: outputs of the input layer ``[B, d]`` and one step ``[1]`` to codes ``[B, d']``.
        weight: the input layer W, ``[N, d]``.
        table: the output table H, ``[N, d']``.

    Attributes:
        residual: the factor a of the start rows in the result; 0 for ``x0``.
        transfer: K, ``[d', d]``; a buffer that follows the module from device to device and is no part of its state.

    Cost: 2 N d d' flops once, 2 T d d' a user, and 2 N d' for the final product with the table; the dense process
    takes 4 T N d a user.
    """

    transfer: Tensor

    def __init__(self, diffusion: GaussianDiffusion, code: Callable[[Tensor, Tensor], Tensor], weight: Tensor,
                 table: Tensor) -> None:
        super().__init__()
        schedule = diffusion.schedule
        if schedule.noiseless:
            previous, predicted = torch.zeros(diffusion.num_steps), torch.ones(diffusion.num_steps)
        elif diffusion.prediction == 'x0':
            previous, predicted = schedule.posterior_xt, schedule.posterior_x0
        else:
            previous = schedule.posterior_x0 / schedule.sqrt_alpha_bar + schedule.posterior_xt
            predicted = -schedule.posterior_x0 * schedule.sqrt_one_minus_alpha_bar / schedule.sqrt_alpha_bar
        self.previous, self.predicted = previous.tolist(), predicted.tolist()
        self.residual = 0.0 if diffusion.prediction == 'x0' else float(previous.double().prod())
        self.code = code
        self.register_buffer('transfer', table.t() @ weight, persistent=False)

    def query(self, z: Tensor) -> Tensor:
        """Return the codes q, ``[B, d']``, whose products with the table are the scores.

        Args:
            z: the input layer's output for the start rows, ``x W``, ``[B, d]``.
        """
        query: Tensor = torch.zeros((), dtype=z.dtype, device=z.device)
        for step in reversed(range(len(self.previous))):
            k, m = self.previous[step], self.predicted[step]
            u = self.code(z, torch.tensor([step], device=z.device))
            query = k * query + m * u
            if step > 0:
                z = torch.addmm(z, u, self.transfer, beta=k, alpha=m)
        return query
