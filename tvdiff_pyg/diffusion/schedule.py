"""Noise schedules (SPEC 2): betas in float64, then buffers."""
from __future__ import annotations

import math
from typing import Callable, Dict, Optional

import torch
from torch import Tensor

FIRST_BETA = 1e-5
MAX_BETA = 0.999


def _linear_var(num_steps: int, scale: float, beta_min: float, beta_max: float) -> Tensor:
    variance = torch.linspace(scale * beta_min, scale * beta_max, num_steps, dtype=torch.float64)
    alpha_bar = 1 - variance
    previous = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
    return (1 - alpha_bar / previous).clamp(max=MAX_BETA)


def _linear(num_steps: int, scale: float, beta_min: float, beta_max: float) -> Tensor:
    return torch.linspace(scale * beta_min, scale * beta_max, num_steps, dtype=torch.float64)


def _cosine(num_steps: int, scale: float, beta_min: float, beta_max: float) -> Tensor:
    ratio = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    f = torch.cos((ratio + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=MAX_BETA)


def _binomial(num_steps: int, scale: float, beta_min: float, beta_max: float) -> Tensor:
    return 1 / (num_steps - torch.arange(num_steps, dtype=torch.float64) + 1)


SCHEDULES: Dict[str, Callable[[int, float, float, float], Tensor]] = {
    'linear-var': _linear_var,
    'linear': _linear,
    'cosine': _cosine,
    'binomial': _binomial,
}


class NoiseSchedule(torch.nn.Module):
    r"""How much noise each of :math:`T` steps adds: :math:`\beta_t` and :math:`\bar\alpha_t = \prod_{s \le t}
    (1 - \beta_s)`, :math:`t = 0..T-1` (SPEC 2).

    With :math:`b_t` running evenly from ``scale * beta_min`` to ``scale * beta_max``:

    * ``linear-var``: :math:`\bar\alpha_t = 1 - b_t` and :math:`\beta_t = 1 - \bar\alpha_t / \bar\alpha_{t-1}`;
    * ``linear``: :math:`\beta_t = b_t`;
    * ``cosine``: :math:`\beta_t = 1 - f((t+1)/T) / f(t/T)`, :math:`f(r) = \cos^2(\frac{r + 0.008}{1.008}
      \frac{\pi}{2})`;
    * ``binomial``: :math:`\beta_t = 1 / (T - t + 1)`.

    The :math:`\beta_t` of ``linear-var`` and ``cosine`` are cut at 0.999, and :math:`\beta_0` is then fixed to 1e-5.
    ``cosine`` and ``binomial`` ignore scale and range, except that ``scale = 0`` turns the noise off whatever the
    schedule. Everything is computed in float64: in the published settings :math:`1 - \bar\alpha` goes from 1e-5 to at
    most 2e-5, in steps of 1e-8 to 1e-6, and float32 resolves 6e-8 beside 1. So the derived coefficients, not
    :math:`\bar\alpha`, are what becomes a buffer of type ``dtype``.

    Args:
        name: one of the four schedules.
        num_steps: number of steps :math:`T \ge 1`.
        scale: noise scale, >= 0.
        beta_min: start of the range, in (0, 1).
        beta_max: end of the range, in [beta_min, 1).
        dtype: type of the buffers; default: torch's default type.

    Attributes:
        sqrt_alpha_bar, sqrt_one_minus_alpha_bar: factors of the forward process, ``[T]``.
        posterior_x0, posterior_xt: :math:`c^1_t, c^2_t`, the posterior mean's weights of x0 and x_t (SPEC 6).
        snr_weight: :math:`\bar\alpha_{t-1} / (1 - \bar\alpha_{t-1}) - \bar\alpha_t / (1 - \bar\alpha_t)`, by how
            much the signal-to-noise ratio falls, and 1 at t = 0 and without noise (arXiv 2304.04971).
        posterior_variance: :math:`\beta_t (1 - \bar\alpha_{t-1}) / (1 - \bar\alpha_t)`; exactly 0 at t = 0.

    Raises:
        ValueError: an unknown name, or a number out of its range.
    """

    sqrt_alpha_bar: Tensor
    sqrt_one_minus_alpha_bar: Tensor
    posterior_x0: Tensor
    posterior_xt: Tensor
    posterior_variance: Tensor
    snr_weight: Tensor

    def __init__(
        self,
        name: str = 'linear-var',
        num_steps: int = 5,
        scale: float = 1e-4,
        beta_min: float = 5e-4,
        beta_max: float = 5e-3,
        dtype: Optional[torch.dtype] = None,
    ) -> None:
        super().__init__()
        if name not in SCHEDULES:
            raise ValueError(f"'name' must be one of {', '.join(SCHEDULES)}; got '{name}'")
        if num_steps < 1:
            raise ValueError(f"'num_steps' must be at least 1, got {num_steps}")
        if not 0 <= scale < math.inf:
            raise ValueError(f"'scale' must be a finite number >= 0 (0: no noise), got {scale}")
        if not 0 < beta_min <= beta_max < 1:
            raise ValueError(f"'beta_min' and 'beta_max' must satisfy 0 < beta_min <= beta_max < 1, "
                             f"got {beta_min} and {beta_max}")
        if name in ('linear', 'linear-var') and scale * beta_max >= 1:
            raise ValueError(f"'scale' * 'beta_max' must stay below 1, got {scale} * {beta_max}")
        self.name, self.num_steps, self.scale = name, num_steps, scale
        self.beta_min, self.beta_max = beta_min, beta_max

        beta = SCHEDULES[name](num_steps, scale, beta_min, beta_max)
        beta[0] = FIRST_BETA
        alpha_bar = torch.cumprod(1 - beta, dim=0)
        previous = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
        posterior_x0 = beta * previous.sqrt() / (1 - alpha_bar)
        posterior_xt = (1 - previous) * (1 - beta).sqrt() / (1 - alpha_bar)
        variance = beta * (1 - previous) / (1 - alpha_bar)
        posterior_x0[0], posterior_xt[0], variance[0] = 1, 0, 0  # by definition, not by rounding (SPEC 6)
        snr_weight = torch.ones_like(beta)
        if scale > 0:
            snr = alpha_bar / (1 - alpha_bar)
            snr_weight[1:] = snr[:-1] - snr[1:]
        for key, value in (
            ('sqrt_alpha_bar', alpha_bar.sqrt()),
            ('sqrt_one_minus_alpha_bar', (1 - alpha_bar).sqrt()),
            ('posterior_x0', posterior_x0),
            ('posterior_xt', posterior_xt),
            ('posterior_variance', variance),
            ('snr_weight', snr_weight),
        ):
            self.register_buffer(key, value.to(dtype or torch.get_default_dtype()), persistent=False)

    @property
    def noiseless(self) -> bool:
        """Whether there is no noise at all (``scale = 0``)."""
        return self.scale == 0

    def extra_repr(self) -> str:
        return (f'{self.name}, num_steps={self.num_steps}, scale={self.scale}, '
                f'beta_min={self.beta_min}, beta_max={self.beta_max}')
