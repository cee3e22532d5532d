"""TV-Diff: the three views and the process, wired together."""
from __future__ import annotations

from typing import Optional, Tuple

import torch
from torch import Tensor

from tvdiff_pyg.diffusion.gaussian import GaussianDiffusion, standard_normal
from tvdiff_pyg.diffusion.timesteps import TimestepSampler, UniformTimesteps
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn.denoiser import AnisotropicDenoiser
from tvdiff_pyg.nn.loss import HelmholtzFreeEnergy, dense_energy
from tvdiff_pyg.sampling.base import NegativeSampler
from tvdiff_pyg.typing import Batch, LossTerms, Pairs, Scorer
from tvdiff_pyg.utils import csr_tensor, evaluation_mode


class TVDiff(torch.nn.Module):
    r"""A tri-view diffusion recommender: parts in, no maths of its own.

    A training step noises the rows of a batch, denoises them, and takes the free energy of the result; with
    ``eps`` prediction the energy compares noise with predicted noise, and scores are :math:`\hat x_0`. Ranking
    starts from a user's clean row and runs the whole reverse process (SPEC 6).

    Args:
        interactions: the training interactions: the graph, and the rows to reconstruct.
        denoiser: view II.
        diffusion: the process.
        loss: view I.
        sampler: view III; needed only where the loss needs negatives.
        timesteps: how steps are drawn in training; uniformly by default.

    Raises:
        ValueError: the parts do not fit together.

    Source: arXiv 2511.20122.
    """

    adj_rowptr: Optional[Tensor]
    adj_col: Optional[Tensor]

    def __init__(
        self,
        interactions: InteractionMatrix,
        denoiser: AnisotropicDenoiser,
        diffusion: GaussianDiffusion,
        loss: HelmholtzFreeEnergy,
        sampler: Optional[NegativeSampler] = None,
        timesteps: Optional[TimestepSampler] = None,
    ) -> None:
        super().__init__()
        if (denoiser.num_users, denoiser.num_items) != (interactions.num_users, interactions.num_items):
            raise ValueError(f"'denoiser' is for {denoiser.num_users} users x {denoiser.num_items} items, "
                             f"'interactions' for {interactions.num_users} x {interactions.num_items}")
        if loss.needs_negatives and sampler is None:
            raise ValueError("'sampler' is needed: the loss has an entropy term with negatives")
        if timesteps is not None and timesteps.num_steps != diffusion.num_steps:
            raise ValueError(f"'timesteps' draws from {timesteps.num_steps} steps, 'diffusion' has "
                             f"{diffusion.num_steps}")
        self.interactions, self.denoiser, self.diffusion = interactions, denoiser, diffusion
        self.loss, self.sampler = loss, sampler
        self.timesteps = timesteps if timesteps is not None else UniformTimesteps(diffusion.num_steps)
        # The adjacency is kept as its parts: a module that holds a sparse CSR tensor cannot be deep-copied.
        adj_t = None if denoiser.conv is None else interactions.adj_t()
        self.register_buffer('adj_rowptr', None if adj_t is None else adj_t.crow_indices(), persistent=False)
        self.register_buffer('adj_col', None if adj_t is None else adj_t.col_indices(), persistent=False)

    @property
    def adj_t(self) -> Optional[Tensor]:
        """The graph :math:`R^T` as a sparse CSR tensor ``[N, M]``, or ``None`` where the denoiser uses none."""
        if self.adj_rowptr is None or self.adj_col is None:
            return None
        value = torch.ones(self.adj_col.numel(), dtype=self.denoiser.item_weight.dtype, device=self.adj_col.device)
        return csr_tensor(self.adj_rowptr, self.adj_col, value, (self.num_items, self.num_users))

    @property
    def num_users(self) -> int:
        """Number of users M."""
        return self.interactions.num_users

    @property
    def num_items(self) -> int:
        """Number of items N."""
        return self.interactions.num_items

    def training_loss(self, batch: Batch, generator: Optional[torch.Generator] = None) -> LossTerms:
        """Return the loss of a batch and its terms.

        Args:
            batch: users, or pairs where ``loss.entropy.pairwise``.
            generator: source of steps, noise, dropout and negatives.
        """
        users = batch.users
        t, weight = self.timesteps(users.numel(), users.device, generator)
        x_0 = self.interactions.dense(users, self.denoiser.item_weight.dtype)  # [B, N]
        noise = None if self.diffusion.schedule.noiseless else standard_normal(x_0, generator)
        x_t = self.diffusion.q_sample(x_0, t, noise)
        output = self.denoiser(x_t, t, self.denoiser.items(self.adj_t), generator)
        scores = self.diffusion.predict_x0(x_t, t, output)

        target = x_0 if self.diffusion.prediction == 'x0' else noise
        assert target is not None
        energy = dense_energy(target, output)  # [B]
        entropy = self._entropy(batch, scores, t, generator) if self.loss.uses_entropy else None
        self.timesteps.update(t, self.loss.free_energy(energy, entropy).detach())
        return self.loss(energy, entropy, self.num_items, weight)

    def _entropy(self, batch: Batch, scores: Tensor, t: Tensor, generator: Optional[torch.Generator]) -> Tensor:
        row, item = self._positives(batch)
        negative: Tuple[Optional[Tensor], Optional[Tensor]] = (None, None)
        if self.loss.needs_negatives:
            assert self.sampler is not None
            negative_row, negative_item = self.sampler(
                self.interactions, batch.users, torch.bincount(row, minlength=t.numel()), scores.detach(), t,
                self.diffusion.num_steps, generator)
            negative = (scores[negative_row, negative_item], negative_row)
        return self.loss.entropy(scores[row, item], row, *negative, t.numel(), self.num_items)

    def _positives(self, batch: Batch) -> Pairs:
        if not self.loss.entropy.pairwise:
            return self.interactions.rows(batch.users)
        if batch.items is None:
            raise ValueError("'batch' must hold pairs: the entropy term is pairwise")
        return torch.arange(batch.users.numel(), device=batch.users.device), batch.items

    def scorer(self) -> Scorer:
        """Return the function from user indices ``[B]`` to reconstructed rows ``[B, N]``, with dropout off.

        It is good for the weights of this moment: after a training step, ask for another.
        """
        with evaluation_mode(self):
            items = self.denoiser.items(self.adj_t)

        def score(users: Tensor) -> Tensor:
            with evaluation_mode(self):
                x_0 = self.interactions.dense(users, items.dtype)
                return self.diffusion.sample(lambda x_t, t: self.denoiser(x_t, t, items), x_0)

        return score
