"""The thermodynamic view of a model: energy and entropy of what it makes of each user's row (SPEC 10)."""
from __future__ import annotations

import math
from typing import Dict, Literal, NamedTuple, Optional

import torch
from torch import Tensor

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.typing import Scorer

CLIP = 1e-6
ROUNDING = 1e-9  # relative, by which p_j may lie below 1 / n_u and count as equal
BLOCK_ENTRIES = 2 ** 21  # of a block of scores: 16 MB in float64, and a few arrays of that size at a time

Distribution = Literal['clip', 'softmax']


class Thermodynamics(NamedTuple):
    """Energy and entropy of a model's reconstruction, user by user.

    Attributes:
        users: user indices ``[U]``, of users who have interactions.
        observed: their numbers of interactions :math:`n_u` ``[U]``, which is the energy of the data.
        energy: of the model ``[U]``.
        entropy: of the model ``[U]``, in bits.
        population: how many users there are to say something about; above U where ``users`` are a sample.
    """

    users: Tensor
    observed: Tensor
    energy: Tensor
    entropy: Tensor
    population: int

    @property
    def data_entropy(self) -> Tensor:
        r""":math:`\log_2 n_u` ``[U]``, the entropy of the data in bits."""
        return self.observed.double().log2()

    @property
    def delta_energy(self) -> Tensor:
        """Energy of the model minus energy of the data ``[U]``."""
        return self.energy - self.observed

    @property
    def delta_entropy(self) -> Tensor:
        """Entropy of the model minus entropy of the data ``[U]``, in bits."""
        return self.entropy - self.data_entropy

    def total(self) -> Dict[str, float]:
        r"""Return the sums over all users of the population.

        From a sample of U of P users they are estimates, P times the mean, without bias. The values
        ``delta_energy_se`` and ``delta_entropy_se`` are their standard errors,
        :math:`P \sqrt{(1 - U / P)\, s^2 / U}`, and 0 where all users were taken.
        """
        size = self.users.numel()
        out = {name: self.population * float(value.double().mean()) for name, value in (
            ('energy', self.energy), ('entropy', self.entropy), ('data_energy', self.observed),
            ('data_entropy', self.data_entropy), ('delta_energy', self.delta_energy),
            ('delta_entropy', self.delta_entropy))}
        for name, value in (('delta_energy', self.delta_energy), ('delta_entropy', self.delta_entropy)):
            left_out = 1 - size / self.population
            error = float(value.var()) * left_out / size if left_out > 0 and size > 1 else (
                math.inf if left_out > 0 else 0.0)
            out[f'{name}_se'] = self.population * math.sqrt(error)
        return out


@torch.no_grad()
def thermodynamics(
    scorer: Scorer,
    interactions: InteractionMatrix,
    distribution: Distribution = 'clip',
    published: bool = False,
    users: Optional[Tensor] = None,
    block_entries: int = BLOCK_ENTRIES,
) -> Thermodynamics:
    r"""Return energy and entropy of a model's distributions over the items, and those of the data.

    A row of scores becomes a distribution :math:`p_u`: ``clip`` divides :math:`\max(x, 10^{-6})` by its sum, for
    models whose scores reconstruct a row of zeros and ones; ``softmax`` is for models whose scores are logits. Then

    .. math:: S_u = -\sum_j p_j \log_2 p_j, \qquad
        U_u = |\{j: p_j \ge 1 / n_u\}| + \sum_{p_j < 1 / n_u} p_j (p_j n_u)

    against :math:`\log_2 n_u` and :math:`n_u` of the data, whose :math:`p` is uniform over what was observed. SPEC 10
    caps the count at :math:`n_u`, which it cannot exceed, as p sums to 1. The energy jumps at :math:`p_j = 1 / n_u`:
    an exact reconstruction, clipped, lies just below there and has the energy 1, not :math:`n_u`. Rounding, 1e-9 of
    it, does not count as below.

    ``published`` follows the plots of the paper instead. ``softmax``: :math:`p` is clipped at 1e-6 in the entropy.
    ``clip``: the row is divided by its signed sum, and then clipped at 0; a row that now sums above 1 (by more than
    rounding, 1e-6) is divided by its sum, and its energy only counts. (For TV-Diff the published script counted
    DiffRec's rows; this does not.)

    Cost: one score, and about ten operations, for each user and item. Memory: a block of users at a time, as many as
    have ``block_entries`` scores together, but at least one.

    Args:
        scorer: from user indices ``[B]`` to scores ``[B, N]``.
        interactions: the data that the model reconstructs: its training part.
        distribution: ``clip`` or ``softmax``; models say which by their attribute ``distribution``.
        published: whether to take the published definitions.
        users: users to look at ``[U]``; those without interactions are left out. All by default. A random sample
            (:func:`sample_users`) estimates the totals.
        block_entries: bound on the scores that are held at a time, > 0.

    Raises:
        ValueError: an unknown distribution, no user with interactions, or scores that are not finite or, divided by
            their signed sum, no distribution.

    Source: arXiv 2511.20122, its pilot study.
    """
    if distribution not in ('clip', 'softmax'):
        raise ValueError(f"'distribution' must be clip or softmax, got '{distribution}'")
    if block_entries < 1:
        raise ValueError(f"'block_entries' must be at least 1, got {block_entries}")
    degree = interactions.user_degree
    if users is None:
        users = torch.arange(interactions.num_users, device=degree.device)
    users = users[degree[users] > 0]
    if users.numel() == 0:
        raise ValueError("'users' holds nobody with interactions")
    energies, entropies = [], []
    for block in users.split(max(1, block_entries // interactions.num_items)):
        count = degree[block].double().unsqueeze(1)  # [B, 1]
        scores = scorer(block).double()  # [B, N]
        bad = ~scores.isfinite().all(1)
        if bool(bad.any()):
            raise ValueError(f"'scorer' gave user {int(block[bad][0])} scores that are not finite")
        energy, entropy = _published(scores, count, distribution) if published else _ours(scores, count, distribution)
        if not bool(entropy.isfinite().all()):
            raise ValueError(f"'scorer' gave user {int(block[~entropy.isfinite()][0])} scores that sum to 0: they are "
                             f"no distribution as published")
        energies.append(energy)
        entropies.append(entropy)
    return Thermodynamics(users, degree[users], torch.cat(energies), torch.cat(entropies), int((degree > 0).sum()))


def sample_users(interactions: InteractionMatrix, size: int, generator: Optional[torch.Generator] = None) -> Tensor:
    """Return ``size`` random users who have interactions, none twice, or all of them if they are fewer.

    Raises:
        ValueError: ``size`` below 2, which would leave no standard error.
    """
    if size < 2:
        raise ValueError(f"'size' must be at least 2, got {size}")
    users = interactions.user_degree.nonzero().view(-1)
    return users[torch.randperm(users.numel(), generator=generator, device=users.device)[:size]].sort().values


def _ours(scores: Tensor, count: Tensor, distribution: Distribution) -> tuple:
    p = scores.softmax(1) if distribution == 'softmax' else scores.clamp(min=CLIP)
    if distribution == 'clip':
        p /= p.sum(1, keepdim=True)
    return _energy(p, count), torch.special.entr(p).sum(1) / math.log(2)


def _published(scores: Tensor, count: Tensor, distribution: Distribution) -> tuple:
    if distribution == 'softmax':
        p = scores.softmax(1)
        return _energy(p, count), torch.special.entr(p.clamp(min=CLIP)).sum(1) / math.log(2)
    p = (scores / scores.sum(1, keepdim=True)).clamp_(min=0)
    mass = p.sum(1, keepdim=True)
    above = mass > 1 + 1e-6
    p = torch.where(above, p / mass, p)
    energy = torch.where(above.view(-1), _high(p, count).sum(1).double(), _energy(p, count))
    return energy, torch.special.entr(p).sum(1) / math.log(2)


def _energy(p: Tensor, count: Tensor) -> Tensor:
    high = _high(p, count)
    return high.sum(1) + p.masked_fill(high, 0).square_().sum(1) * count.view(-1)


def _high(p: Tensor, count: Tensor) -> Tensor:
    return p * count >= 1 - ROUNDING
