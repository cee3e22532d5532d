"""The Gaussian forward process and its reverse (SPEC 2 and 6)."""
from __future__ import annotations

from typing import Optional, Tuple

import torch
from torch import Tensor

from tvdiff_pyg.diffusion.schedule import NoiseSchedule
from tvdiff_pyg.typing import Denoise

PREDICTIONS = ('x0', 'eps')


class GaussianDiffusion(torch.nn.Module):
    r"""Noise is added to rows by :math:`q(x_t | x_0) = N(\sqrt{\bar\alpha_t} x_0, (1 - \bar\alpha_t) I)` and taken
    away step by step with a network that the caller passes in.

    The process holds no network and draws from no hidden generator. Where the schedule's scale is 0 there is no
    noise: the forward process returns :math:`x_0`, and a reverse step is :math:`x \leftarrow \hat x_0(x, t)`.

    Args:
        schedule: the noise schedule.
        prediction: what the network's output means, ``x0`` or ``eps``.

    Raises:
        ValueError: an unknown prediction type, or ``eps`` where there is no noise to predict.

    Source: Ho et al., arXiv 2006.11239; on interaction rows Wang et al. (DiffRec), arXiv 2304.04971.
    """

    def __init__(self, schedule: NoiseSchedule, prediction: str = 'x0') -> None:
        super().__init__()
        if prediction not in PREDICTIONS:
            raise ValueError(f"'prediction' must be one of {', '.join(PREDICTIONS)}; got '{prediction}'")
        if prediction == 'eps' and schedule.noiseless:
            raise ValueError("'prediction' cannot be 'eps' with a schedule of scale 0: there is no noise to predict")
        self.schedule = schedule
        self.prediction = prediction

    @property
    def num_steps(self) -> int:
        """Number of steps :math:`T`."""
        return self.schedule.num_steps

    def q_sample(self, x_0: Tensor, t: Tensor, noise: Optional[Tensor] = None,
                 generator: Optional[torch.Generator] = None) -> Tensor:
        r"""Return :math:`x_t = \sqrt{\bar\alpha_t} x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon`.

        Args:
            x_0: clean rows ``[B, N]``.
            t: steps ``[B]`` in 0..T-1.
            noise: :math:`\epsilon`, ``[B, N]``; drawn from ``generator`` if absent.
            generator: source of the noise.
        """
        if self.schedule.noiseless:
            return x_0
        if noise is None:
            noise = standard_normal(x_0, generator)
        return (_rows(self.schedule.sqrt_alpha_bar, t, x_0) * x_0
                + _rows(self.schedule.sqrt_one_minus_alpha_bar, t, x_0) * noise)

    def predict_x0(self, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        r"""Return :math:`\hat x_0`: the output itself, or :math:`(x_t - \sqrt{1 - \bar\alpha_t}\, \hat\epsilon) /
        \sqrt{\bar\alpha_t}` for ``eps``."""
        if self.prediction == 'x0':
            return output
        return ((x_t - _rows(self.schedule.sqrt_one_minus_alpha_bar, t, x_t) * output)
                / _rows(self.schedule.sqrt_alpha_bar, t, x_t))

    def posterior(self, x0_hat: Tensor, x_t: Tensor, t: Tensor) -> Tuple[Tensor, Tensor]:
        r"""Return mean ``[B, N]`` and variance ``[B, 1]`` of :math:`q(x_{t-1} | x_t, \hat x_0)`."""
        mean = (_rows(self.schedule.posterior_x0, t, x_t) * x0_hat
                + _rows(self.schedule.posterior_xt, t, x_t) * x_t)
        return mean, _rows(self.schedule.posterior_variance, t, x_t)

    def step(self, x_t: Tensor, t: Tensor, output: Tensor, noise: Optional[Tensor] = None) -> Tensor:
        r"""Return :math:`x_{t-1}`: the posterior mean, plus its standard deviation times ``noise`` if given."""
        x0_hat = self.predict_x0(x_t, t, output)
        if self.schedule.noiseless:
            return x0_hat
        mean, variance = self.posterior(x0_hat, x_t, t)
        return mean if noise is None else mean + variance.sqrt() * noise

    def sample(self, denoise: Denoise, x_0: Tensor, start_step: int = 0, sampling_noise: bool = False,
               generator: Optional[torch.Generator] = None) -> Tensor:
        """Run the reverse process over all steps and return the reconstructed rows ``[B, N]``.

        Args:
            denoise: the network.
            x_0: rows to start from ``[B, N]``.
            start_step: 0 starts from the clean rows; s > 0 first noises them to step s - 1. At most T.
            sampling_noise: whether each step adds the posterior's noise.
            generator: source of all noise.

        Raises:
            ValueError: ``start_step`` out of 0..T.
        """
        if not 0 <= start_step <= self.num_steps:
            raise ValueError(f"'start_step' must lie in 0..{self.num_steps}, got {start_step}")
        x = x_0
        if start_step > 0:
            x = self.q_sample(x_0, self._steps(x, start_step - 1), generator=generator)
        for step in reversed(range(self.num_steps)):
            t = self._steps(x, step)
            noise = standard_normal(x, generator) if sampling_noise and step > 0 else None
            x = self.step(x, t, denoise(x, t), noise)
        return x

    @staticmethod
    def _steps(x: Tensor, step: int) -> Tensor:
        return torch.full((x.size(0),), step, dtype=torch.long, device=x.device)

    def extra_repr(self) -> str:
        return f'prediction={self.prediction}'


def standard_normal(like: Tensor, generator: Optional[torch.Generator]) -> Tensor:
    """Return standard normal noise of the shape, type and device of ``like``."""
    return torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)


def _rows(coefficient: Tensor, t: Tensor, like: Tensor) -> Tensor:
    return coefficient[t].to(like.dtype).view(-1, *[1] * (like.dim() - 1))
