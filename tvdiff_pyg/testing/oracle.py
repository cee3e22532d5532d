"""Dense references in plain matrix algebra and plain loops, written from SPEC 2 to 6 and from nothing else.

They are slow on purpose, share no code with the package, and compute in float64. Everything fast is compared with
them; so is a part of your own, a denoiser or a schedule, that claims to compute the same.
"""
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tvdiff_pyg.nn.models.tvdiff import TVDiff


def dense_interactions(edge_index: Tensor, num_users: int, num_items: int) -> Tensor:
    """Return the binary matrix R, ``[M, N]`` in float64; repeated pairs count once (SPEC 1)."""
    r = torch.zeros(num_users, num_items, dtype=torch.float64)
    for user, item in edge_index.t().tolist():
        r[user, item] = 1
    return r


def normalized(r: Tensor, normalization: str = 'sym') -> Tensor:
    r"""Return :math:`D_U^{-a} R D_I^{-b}`; zero degrees give 0 (SPEC 1).

    Args:
        r: the matrix ``[M, N]``, weighted or not.
        normalization: ``sym`` (1/2, 1/2), ``left`` (1, 0), ``linkprop`` (1/4, 1/2) or ``raw`` (0, 0).
    """
    a, b = {'sym': (0.5, 0.5), 'left': (1.0, 0.0), 'linkprop': (0.25, 0.5), 'raw': (0.0, 0.0)}[normalization]

    def diagonal(degree: Tensor, exponent: float) -> Tensor:
        return torch.diag(torch.tensor([d ** -exponent if d != 0 else 0.0 for d in degree.tolist()], dtype=r.dtype))

    return diagonal(r.sum(1), a) @ r @ diagonal(r.sum(0), b)


def item_codes(r_bar: Optional[Tensor], weights: Sequence[Tensor], num_hops: int = 1) -> Tensor:
    r"""Return the item codes :math:`H = \tanh((\bar R^T \bar R)^{K - 1} \bar R^T W_U)`, then :math:`H \leftarrow
    \tanh(H W_U^l)` (SPEC 3).

    Args:
        r_bar: the normalised matrix ``[M, N]``; ``None`` for no graph, :math:`H = \tanh(W)`.
        weights: :math:`W_U` ``[M, d]`` (or the free table ``[N, d]``), then the deeper layers ``[d_l, d_(l+1)]``.
        num_hops: K; not used without a graph.
    """
    h = weights[0]
    if r_bar is not None:
        h = r_bar.t() @ h
        for _ in range(num_hops - 1):
            h = r_bar.t() @ (r_bar @ h)
    h = torch.tanh(h)
    for weight in weights[1:]:
        h = torch.tanh(h @ weight)
    return h


def time_features(t: int, channels: int = 64, max_period: float = 1e4) -> Tensor:
    """Return the sinusoidal embedding ``[cos | sin]`` of step ``t``, ``[channels]`` (SPEC 3)."""
    half = channels // 2
    angle = [t * max_period ** (-k / half) for k in range(half)]
    values = [math.cos(a) for a in angle] + [math.sin(a) for a in angle] + [0.0] * (channels % 2)
    return torch.tensor(values, dtype=torch.float64)


def scores(x: Tensor, time_code: Tensor, items: Tensor, weights: Sequence[Tensor], time_type: str = 'cat') -> Tensor:
    r"""Return :math:`\hat R = u H^T`, ``[B, N]``, without dropout (SPEC 3).

    Args:
        x: rows ``[B, N]``.
        time_code: :math:`g(e_t) W_T`, ``[d]`` or ``[B, d]``.
        items: item codes ``[N, d_last]``.
        weights: :math:`W_I` ``[N, d]``, then the deeper layers of the user side.
        time_type: ``cat``, ``align`` or ``gate``.
    """
    z = x @ weights[0]
    u = torch.tanh({'cat': z + time_code, 'align': z * time_code, 'gate': z / (1 + torch.exp(-time_code))}[time_type])
    for weight in weights[1:]:
        u = torch.tanh(u @ weight)
    return u @ items.t()


def betas(name: str, num_steps: int, scale: float, beta_min: float, beta_max: float) -> List[float]:
    """Return the noise schedule beta_0 .. beta_(T-1) (SPEC 2).

    Args:
        name: ``linear-var``, ``linear``, ``cosine`` or ``binomial``.
        num_steps: T.
        scale: noise scale.
        beta_min: start of the range.
        beta_max: end of the range.
    """
    low, high = scale * beta_min, scale * beta_max
    line = [low + (high - low) * t / max(num_steps - 1, 1) for t in range(num_steps)]

    def f(r: float) -> float:
        return math.cos((r + 0.008) / 1.008 * math.pi / 2) ** 2

    if name == 'linear-var':
        out = [min(1 - (1 - line[t]) / (1 - line[t - 1]) if t else line[0], 0.999) for t in range(num_steps)]
    elif name == 'linear':
        out = line
    elif name == 'cosine':
        out = [min(1 - f((t + 1) / num_steps) / f(t / num_steps), 0.999) for t in range(num_steps)]
    elif name == 'binomial':
        out = [1 / (num_steps - t + 1) for t in range(num_steps)]
    else:
        raise ValueError(f"'name' must be linear-var, linear, cosine or binomial; got '{name}'")
    return [1e-5] + out[1:]


class PosteriorCoefficients(NamedTuple):
    """The reverse step's coefficients, one entry a step; see :func:`posterior_coefficients`."""

    alpha_bar: List[float]
    c1: List[float]
    c2: List[float]
    variance: List[float]


def posterior_coefficients(beta: Sequence[float]) -> PosteriorCoefficients:
    r"""Return :math:`\bar\alpha_t, c^1_t, c^2_t` and the posterior variance (SPEC 6)."""
    out = PosteriorCoefficients([], [], [], [])
    previous = 1.0
    for t, b in enumerate(beta):
        alpha_bar = previous * (1 - b)
        out.alpha_bar.append(alpha_bar)
        out.c1.append(b * math.sqrt(previous) / (1 - alpha_bar) if t else 1.0)
        out.c2.append((1 - previous) * math.sqrt(1 - b) / (1 - alpha_bar) if t else 0.0)
        out.variance.append(b * (1 - previous) / (1 - alpha_bar) if t else 0.0)
        previous = alpha_bar
    return out


def reverse_process(denoise: Callable[[Tensor, int], Tensor], x: Tensor, beta: Sequence[float],
                    prediction: str = 'x0', noiseless: bool = False) -> Tensor:
    """Return the rows after all reverse steps without sampling noise, ``[B, N]`` (SPEC 6).

    Args:
        denoise: the network, a function of rows ``[B, N]`` and one step.
        x: rows to start from ``[B, N]``.
        beta: the schedule.
        prediction: ``x0`` or ``eps``.
        noiseless: scale 0, where a step is ``x <- denoise(x, t)``.
    """
    alpha_bar, c1, c2, _ = posterior_coefficients(beta)
    for t in reversed(range(len(beta))):
        output = denoise(x, t)
        if prediction == 'eps':
            output = (x - math.sqrt(1 - alpha_bar[t]) * output) / math.sqrt(alpha_bar[t])
        x = output if noiseless else c1[t] * output + c2[t] * x
    return x


def tvdiff_scores(model: 'TVDiff', users: Tensor) -> Tensor:
    """Return the scores ``[B, N]``, in float64, that SPEC 1 to 6 give for the weights and settings of ``model``.

    Only parameters, names of options and the graph's edges are read from the model; nothing of it is called.

    Raises:
        ValueError: a denoiser other than :class:`~tvdiff_pyg.nn.AnisotropicDenoiser`, whose equations SPEC 3 has not.
    """
    from tvdiff_pyg.nn.denoiser import AnisotropicDenoiser

    if type(model.denoiser) is not AnisotropicDenoiser:
        raise ValueError(f"'model' must have an AnisotropicDenoiser, got {type(model.denoiser).__name__}: write its "
                         f"equations out in a reference of your own")
    d, schedule = model.denoiser, model.diffusion.schedule
    r = dense_interactions(model.interactions.edge_index, model.num_users, model.num_items)

    def double(weight: Tensor) -> Tensor:
        return weight.detach().to('cpu', torch.float64)

    def deeper(layers: torch.nn.ModuleList) -> List[Tensor]:
        return [double(parameter).t() for parameter in layers.parameters()]  # one weight a layer, no bias

    if d.conv is not None:
        items = item_codes(normalized(r, d.normalization), [double(d.conv.weight), *deeper(d.item_layers)], d.num_hops)
    else:
        assert d.item_table is not None
        items = item_codes(None, [double(d.item_table), *deeper(d.item_layers)])
    weights = [double(d.item_weight), *deeper(d.user_layers)]

    def denoise(x: Tensor, t: int) -> Tensor:
        feature = time_features(t, d.time_embedding.channels)
        g = feature @ double(d.time_linear.weight).t() + double(d.time_linear.bias)
        return scores(x, g @ double(d.time_weight), items, weights, d.time_type)

    beta = betas(schedule.name, schedule.num_steps, schedule.scale, schedule.beta_min, schedule.beta_max)
    return reverse_process(denoise, r[users], beta, model.diffusion.prediction, schedule.scale == 0)


def successive_draws(weight: Sequence[float], count: int) -> Dict[Tuple[int, ...], float]:
    """Return the law of ``count`` draws, one after the other, without replacement, in proportion to ``weight``: the
    probability of every ordered outcome (SPEC 5; Plackett-Luce)."""
    law: Dict[Tuple[int, ...], float] = {(): 1.0}
    for _ in range(count):
        law = {(*drawn, j): p * weight[j] / sum(w for k, w in enumerate(weight) if k not in drawn)
               for drawn, p in law.items() for j in range(len(weight)) if j not in drawn}
    return law


def energy(x_0: Sequence[float], output: Sequence[float]) -> float:
    r"""Return :math:`E_u = \frac{1}{N} \sum_j (x_{0j} - \hat R_{uj})^2` of one user (SPEC 4)."""
    return sum((x - y) ** 2 for x, y in zip(x_0, output)) / len(x_0)


def bce_entropy(row: Sequence[float], positives: Sequence[int], negatives: Sequence[int]) -> float:
    """Return ``bce``'s S_u of one user from the user's scores ``[N]``, seen items and negatives (SPEC 4)."""
    return (sum(_log_sigmoid(row[j]) for j in positives) + sum(_log_sigmoid(-row[j]) for j in negatives)) / len(row)


def nll_entropy(row: Sequence[float], positives: Sequence[int]) -> float:
    """Return ``nll``'s S_u, the positive half of :func:`bce_entropy` (SPEC 4)."""
    return bce_entropy(row, positives, [])


def bpr_entropy(positive: float, negative: Optional[float]) -> float:
    """Return ``bpr``'s S of one pair and its negative; 0 where there is no negative (SPEC 4)."""
    if negative is None:
        return 0.0
    return math.log(1e-5 + math.exp(_log_sigmoid(positive - negative)))


def free_energy(energies: Sequence[float], entropies: Sequence[float], temperature: float) -> float:
    r"""Return :math:`\mathrm{mean}_u(E_u) - \tau\, \mathrm{mean}_u(S_u)` (SPEC 4)."""
    return (sum(energies) - temperature * sum(entropies)) / len(energies)


def _log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))
