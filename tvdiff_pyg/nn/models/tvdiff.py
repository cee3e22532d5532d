"""TV-Diff: the three views and the process, wired together."""
from __future__ import annotations

import warnings
from typing import Optional, Tuple

import torch
from torch import Tensor

from tvdiff_pyg.diffusion.gaussian import GaussianDiffusion, standard_normal
from tvdiff_pyg.diffusion.latent import LatentReverse
from tvdiff_pyg.diffusion.timesteps import TimestepSampler, UniformTimesteps
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn.denoiser import AnisotropicDenoiser
from tvdiff_pyg.nn.functional import EnergySample, Entries, energy_and_scores, noisy_matmul, sparse_matmul
from tvdiff_pyg.nn.graph import NormalizedGraph
from tvdiff_pyg.nn.loss import HelmholtzFreeEnergy, dense_energy
from tvdiff_pyg.nn.models.base import InteractionModel
from tvdiff_pyg.sampling.base import NegativeSampler, dense_scores
from tvdiff_pyg.typing import Batch, HistoryScorer, LossTerms, Pairs, ScoreItems, Scorer
from tvdiff_pyg.utils import check_index, evaluation_mode

ENGINES = ('factored', 'dense')
NUM_PROBES = 64  # noise rows that a batch shares
EDGE_OVERHEAD = 256  # flops that take as long as gathering and sorting an edge of a subset of rows


class TVDiff(InteractionModel):
    r"""A tri-view diffusion recommender: parts in, no maths of its own.

    A training step noises the rows of a batch, denoises them, and takes the free energy of the result; with
    ``eps`` prediction the energy compares noise with predicted noise, and scores are :math:`\hat x_0`. Ranking
    starts from a user's clean row and runs the whole reverse process (SPEC 6).

    The ``factored`` engine needs no B x N array (SPEC 7): rows enter as sparse bags, noise as a mixture of a few
    shared probe rows, the energy through the Gram matrix of the item codes, and ranking runs in the codes' space. Two
    parts make scores of all items nevertheless: the exact energy where B < 2 d / 3, as they are then fewer than the
    entries of H and cost less, and a sampler that ranks the catalogue (``ARGumbelSampler`` without ``pool_size``, in
    blocks of rows). Loss and ranking are exact; the noise is exactly Gaussian for every user, but correlated across the
    batch. It does not train with ``eps`` prediction. ``dense`` is the paper's way, step by step, and the oracle.

    Args:
        interactions: the training interactions: the graph, and the rows to reconstruct.
        denoiser: view II.
        diffusion: the process.
        loss: view I.
        sampler: view III; needed only where the loss needs negatives.
        timesteps: how steps are drawn in training; uniformly by default.
        engine: ``factored`` or ``dense``.
        num_probes: number of shared noise rows P of the factored engine.
        energy_items: number of random items that the factored engine estimates the energy from (SPEC 7d); ``None``, or
            the catalogue's size and more, for the exact energy. Where the rows of H that a step then needs have few
            edges, it computes no others (SPEC 7g).
        energy_rank: number of directions of the user codes that a stochastic energy takes exactly, to reduce its
            variance; needs all rows of H.
        row_gradients: whether the two tables get sparse gradients of the rows that a step touches, for an optimiser
            that leaves the others alone. The noise then falls on as many random items as ``energy_items`` tells, drawn
            apart from the energy's and scaled so that its covariance is right in the mean; it is not Gaussian then.

    Raises:
        ValueError: the parts do not fit together, or an unknown engine.
        TypeError: ``sampler`` is the class of one.

    Source: arXiv 2511.20122.
    """

    def __init__(
        self,
        interactions: InteractionMatrix,
        denoiser: AnisotropicDenoiser,
        diffusion: GaussianDiffusion,
        loss: HelmholtzFreeEnergy,
        sampler: Optional[NegativeSampler] = None,
        timesteps: Optional[TimestepSampler] = None,
        engine: str = 'factored',
        num_probes: int = NUM_PROBES,
        energy_items: Optional[int] = None,
        energy_rank: int = 0,
        row_gradients: bool = False,
    ) -> None:
        super().__init__(interactions)
        if (denoiser.num_users, denoiser.num_items) != (interactions.num_users, interactions.num_items):
            raise ValueError(f"'denoiser' is for {denoiser.num_users} users x {denoiser.num_items} items, "
                             f"'interactions' for {interactions.num_users} x {interactions.num_items}")
        if isinstance(sampler, type):
            raise TypeError(f"'sampler' is the class {sampler.__name__}: pass {sampler.__name__}(...)")
        if loss.needs_negatives and sampler is None:
            raise ValueError("'sampler' is needed: the loss has an entropy term with negatives")
        if timesteps is not None and timesteps.num_steps != diffusion.num_steps:
            raise ValueError(f"'timesteps' draws from {timesteps.num_steps} steps, 'diffusion' has "
                             f"{diffusion.num_steps}")
        if engine not in ENGINES:
            raise ValueError(f"'engine' must be one of {', '.join(ENGINES)}; got '{engine}'")
        if num_probes < 1:
            raise ValueError(f"'num_probes' must be at least 1, got {num_probes}")
        self.denoiser, self.diffusion, self.loss, self.sampler = denoiser, diffusion, loss, sampler
        self.timesteps = timesteps if timesteps is not None else UniformTimesteps(diffusion.num_steps)
        if energy_items is not None and (energy_items < 1 or engine != 'factored'):
            raise ValueError(f"'energy_items' must be at least 1, on engine factored; got {energy_items} on {engine}")
        if energy_rank < 0 or energy_rank and (energy_items is None or row_gradients):
            raise ValueError(f"'energy_rank' must be at least 0, and go with 'energy_items' and without "
                             f"'row_gradients'; got {energy_rank}")
        if row_gradients and (energy_items is None or energy_items >= interactions.num_items):
            raise ValueError(f"'row_gradients' need 'energy_items' below the number of items, got {energy_items}: the "
                             f"exact energy touches all of them")
        if row_gradients and getattr(denoiser, 'num_hops', 1) > 1:
            raise ValueError("'row_gradients' need a denoiser of one hop: more touch nearly all rows")
        self.engine, self.num_probes = engine, num_probes
        self.energy_items, self.energy_rank, self.row_gradients = energy_items, energy_rank, row_gradients
        self.graph: Optional[NormalizedGraph] = None
        if denoiser.conv is not None:
            adj_t = interactions.adj_t()
            self.graph = denoiser.conv.prepare(adj_t.to(denoiser.item_weight.dtype))

    @property
    def pairwise(self) -> bool:  # type: ignore[override]
        """Whether it trains on pairs: as its entropy term asks for, also where that is left out at temperature 0."""
        return self.loss.entropy.pairwise

    def training_loss(self, batch: Batch, generator: Optional[torch.Generator] = None) -> LossTerms:
        """Return the loss of a batch and its terms.

        Args:
            batch: users, or pairs where :attr:`pairwise`.
            generator: source of steps, noise, dropout and negatives.

        Raises:
            ValueError: the engine cannot train with this prediction type, or the batch lacks pairs.
        """
        t, weight = self.timesteps(batch.users.numel(), batch.users.device, generator)
        step = self._factored_step if self.engine == 'factored' else self._dense_step
        energy, entropy = step(batch, t, generator)  # [B] each
        energy = self._weighted(energy, t)
        self.timesteps.update(t, self.loss.free_energy(energy, entropy).detach())
        return self.loss(energy, entropy, self.num_items, weight)

    def _weighted(self, energy: Tensor, t: Tensor) -> Tensor:
        return energy

    def _dense_step(self, batch: Batch, t: Tensor,
                    generator: Optional[torch.Generator]) -> Tuple[Tensor, Optional[Tensor]]:
        items = self.denoiser.items(self.graph)  # [N, d]
        x_0 = self.interactions.dense(batch.users, items.dtype)  # [B, N]
        noise = None if self.diffusion.schedule.noiseless else standard_normal(x_0, generator)
        x_t = self.diffusion.q_sample(x_0, t, noise)
        output = self.denoiser(x_t, t, items, generator)
        scores = self.diffusion.predict_x0(x_t, t, output)
        target = x_0 if self.diffusion.prediction == 'x0' else noise
        assert target is not None
        energy = dense_energy(target, output)
        if not self.loss.uses_entropy:
            return energy, None
        positive = self._positives(batch)
        negative = self._negatives(batch, positive, dense_scores(scores.detach()), t, generator)
        return energy, self._entropy(scores[positive], positive, scores[negative], negative, t.numel())

    def _factored_step(self, batch: Batch, t: Tensor,
                       generator: Optional[torch.Generator]) -> Tuple[Tensor, Optional[Tensor]]:
        if self.diffusion.prediction != 'x0':
            raise ValueError("'engine' factored trains with prediction x0 only: use engine dense for eps")
        size = t.numel()
        observed = Entries.of(*self.interactions.rows(batch.users), size, self.num_items)
        drawn: Optional[Tensor] = None
        table: Optional[Tensor] = None  # all of H, [N, d]
        if self.energy_items is not None and self.energy_items < self.num_items and not self.energy_rank:
            drawn = torch.randint(self.num_items, (self.energy_items,), generator=generator, device=t.device)
        if drawn is None or not (self.row_gradients or self._few_edges(torch.cat([observed.col, drawn]))):
            table = self.denoiser.items(self.graph)
        noisy = self._noisy_input(observed, t, self.denoiser.item_weight.dtype, generator)
        code = self.denoiser.code(noisy, t)  # [B, d]

        positive = negative = self._no_pairs(t)
        if self.loss.uses_entropy:
            detached_code, detached_table = code.detach(), None if table is None else table.detach()

            def scores(rows: Tensor, index: Optional[Tensor]) -> Tensor:
                if detached_table is not None:
                    items = detached_table if index is None else detached_table[index]
                else:
                    with torch.no_grad():
                        items = self.denoiser.items(self.graph, index)
                return detached_code[rows] @ items.t()

            positive = self._positives(batch)
            negative = self._negatives(batch, positive, scores, t, generator)
        row = torch.cat([positive[0], negative[0]])
        order = row.argsort(stable=True)
        pairs = Entries.of(row[order], torch.cat([positive[1], negative[1]])[order], size, self.num_items)
        if table is None:
            assert drawn is not None
            touched = torch.cat([observed.col, pairs.col, drawn]).unique()
            observed, pairs = observed.among(touched), pairs.among(touched)
            drawn = torch.searchsorted(touched, drawn)
            items = self.denoiser.items(self.graph, touched, self.row_gradients)
        else:
            items = table
        energy, sorted_scores = energy_and_scores(code, items, observed, pairs,
                                                  self._energy_sample(items, drawn, generator))
        energy = energy / self.num_items
        if not self.loss.uses_entropy:
            return energy, None
        pair_scores = torch.empty_like(sorted_scores).index_copy(0, order, sorted_scores)
        count = positive[0].numel()
        return energy, self._entropy(pair_scores[:count], positive, pair_scores[count:], negative, size)

    def _few_edges(self, items: Tensor) -> bool:
        """Tell whether the rows of H of these items cost less than all rows do (SPEC 7g).

        All rows cost 4 d flops an edge, forward and backward. An edge of a subset is gathered and sorted besides,
        which takes the time of :data:`EDGE_OVERHEAD` flops.
        """
        if self.graph is None:
            return True
        width, degree = self.denoiser.widths[0], self.graph.rowptr.diff()
        edges = int(degree[items.unique()].sum())
        return edges * (4 * width + EDGE_OVERHEAD) < self.graph.col.numel() * 4 * width

    def _energy_sample(self, items: Tensor, drawn: Optional[Tensor],
                       generator: Optional[torch.Generator]) -> Optional[EnergySample]:
        if self.energy_items is None or self.energy_items >= self.num_items:
            return None
        if drawn is not None:
            weight = items.new_full(drawn.size(), self.num_items / drawn.numel())
            return EnergySample(drawn, weight)
        # The variance is least for p in proportion to |H_j|^2; a tenth of p uniform bounds the weights.
        norm = items.detach().square().sum(1).double()
        p = 0.9 * norm / norm.sum() + 0.1 / self.num_items
        cumulative = p.cumsum(0)
        u = torch.rand(self.energy_items, dtype=p.dtype, generator=generator, device=p.device) * cumulative[-1]
        index = torch.searchsorted(cumulative, u, right=True).clamp_(max=self.num_items - 1)
        sketch = torch.randn(items.size(1), self.energy_rank, dtype=items.dtype, device=items.device,
                             generator=generator)
        return EnergySample(index, (1 / (self.energy_items * p[index])).to(items.dtype), sketch)

    def _noisy_input(self, observed: Entries, t: Tensor, dtype: torch.dtype,
                     generator: Optional[torch.Generator]) -> Tensor:
        """Return the input layer's output for noisy rows with dropout (SPEC 7e), ``[B, d]``."""
        schedule, weight = self.diffusion.schedule, self.denoiser.item_weight
        keep = 1 - self.denoiser.dropout if self.training else 1.0
        value = torch.ones(observed.col.numel(), dtype=dtype, device=t.device)
        if keep < 1:
            value.bernoulli_(keep, generator=generator).div_(keep)
        if schedule.noiseless:
            return sparse_matmul(observed, value, weight, self.row_gradients)
        value *= schedule.sqrt_alpha_bar.to(dtype)[t][observed.row]
        index, scale = None, 1.0
        if self.row_gradients:
            # Not the energy's items: that would count those whose own noise moved their score.
            assert self.energy_items is not None
            index = torch.randint(self.num_items, (self.energy_items,), generator=generator, device=t.device).unique()
            scale = (self.num_items / index.numel()) ** 0.5
        probes = torch.randn(self.num_probes, self.num_items if index is None else index.numel(), dtype=dtype,
                             device=t.device, generator=generator)
        mixing = torch.randn(t.numel(), self.num_probes, dtype=dtype, device=t.device, generator=generator)
        mixing = torch.nn.functional.normalize(mixing, dim=1)  # unit rows: each mixture is N(0, I)
        mixing *= (schedule.sqrt_one_minus_alpha_bar.to(dtype)[t] * (scale / keep ** 0.5)).unsqueeze(1)
        return noisy_matmul(observed, value, mixing, probes, weight, index)

    def _entropy(self, positive_score: Tensor, positive: Pairs, negative_score: Tensor, negative: Pairs,
                 size: int) -> Tensor:
        drawn = (negative_score, negative[0]) if self.loss.needs_negatives else (None, None)
        return self.loss.entropy(positive_score, positive[0], *drawn, size, self.num_items)

    def _positives(self, batch: Batch) -> Pairs:
        if not self.loss.entropy.pairwise:
            return self.interactions.rows(batch.users)
        if batch.items is None:
            raise ValueError("'batch' must hold pairs: the entropy term is pairwise")
        return torch.arange(batch.users.numel(), device=batch.users.device), batch.items

    def _negatives(self, batch: Batch, positive: Pairs, scores: ScoreItems, t: Tensor,
                   generator: Optional[torch.Generator]) -> Pairs:
        if not self.loss.needs_negatives:
            return self._no_pairs(t)
        assert self.sampler is not None
        return self.sampler(self.interactions, batch.users, torch.bincount(positive[0], minlength=t.numel()), scores, t,
                            self.diffusion.num_steps, generator)

    @staticmethod
    def _no_pairs(like: Tensor) -> Pairs:
        return like.new_empty(0), like.new_empty(0)

    def new_item_codes(self, edge_index: Tensor, num_new: int) -> Tensor:
        r"""Return the rows of H of items that were not trained on, ``[num_new, d]``, from known users who took them.

        .. math::
            H_j = \tanh\Big(\sum_{u \ni j} d_u^{-a} d_j^{-b} (W_U)_u\Big)

        where :math:`d_u` is the degree of the training part, :math:`d_j` that of the new item, a and b those of the
        normalisation. Nothing is trained, and the scores of all other items stay as they are. Such an item can be
        listed; in a history it says nothing, as it has no row of :math:`W_I`.

        Args:
            edge_index: pairs of a user, 0..M-1, and a new item, 0..num_new-1, ``[2, E]``, none twice.
            num_new: number of new items.

        Raises:
            ValueError: a model without a graph or of several hops, or an index out of range.

        Cost: 2 E d flops.
        """
        conv = self.denoiser.conv
        if conv is None or self.denoiser.num_hops > 1:
            raise ValueError('only a model with a graph and one hop has rows for new items: others need training anew')
        check_index('edge_index', edge_index, (self.num_users, num_new))
        degree = (self.interactions.user_degree, torch.bincount(edge_index[1], minlength=num_new))
        with evaluation_mode(self):
            h = conv((None, None), edge_index, size=(self.num_users, num_new), degree=degree)
            for layer in self.denoiser.item_layers:
                h = layer(h).tanh()
        return h

    def scorer(self, start_step: int = 0, sampling_noise: bool = False,
               generator: Optional[torch.Generator] = None) -> Scorer:
        """Return the function from user indices ``[B]`` to reconstructed rows ``[B, N]``, with dropout off.

        It is good for the weights of this moment: after a training step, ask for another.

        Args:
            start_step: 0 starts from the clean rows; s > 0 first noises them to step s - 1. At most T.
            sampling_noise: whether each reverse step adds noise; only the dense engine can, and takes over.
            generator: source of that noise.

        Raises:
            ValueError: ``start_step`` out of 0..T.
        """
        score = self.history_scorer(start_step, sampling_noise, generator)
        return lambda users: score(self.interactions, users)

    def history_scorer(self, start_step: int = 0, sampling_noise: bool = False,
                       generator: Optional[torch.Generator] = None) -> HistoryScorer:
        """Return the function that scores people by their items, whether they were trained on or not (SPEC 7b).

        Arguments and errors are those of :meth:`scorer`.
        """
        if not 0 <= start_step <= self.diffusion.num_steps:
            raise ValueError(f"'start_step' must lie in 0..{self.diffusion.num_steps}, got {start_step}")
        if sampling_noise and self.engine == 'factored':
            warnings.warn('sampling noise has no exact form in the latent space: ranking by the dense reverse process',
                          stacklevel=3)
        with evaluation_mode(self):
            items = self.denoiser.items(self.graph)
            latent = None
            if self.engine == 'factored' and not sampling_noise:
                latent = LatentReverse(self.diffusion, self.denoiser.code, self.denoiser.item_weight, items)

        def score(histories: InteractionMatrix, users: Tensor) -> Tensor:
            with evaluation_mode(self):
                if latent is None:
                    return self.diffusion.sample(lambda x_t, t: self.denoiser(x_t, t, items),
                                                 histories.dense(users, items.dtype), start_step,
                                                 sampling_noise, generator)
                row, item = histories.rows(users)
                if start_step > 0:
                    t = torch.full_like(users, start_step - 1)
                    x = self.diffusion.q_sample(histories.dense(users, items.dtype), t, generator=generator)
                    out = latent.query(x @ self.denoiser.item_weight) @ items.t()
                    return out if latent.residual == 0 else out.add_(x, alpha=latent.residual)
                observed = Entries.of(row, item, users.numel(), self.num_items)
                out = latent.query(observed.matmul(None, self.denoiser.item_weight)) @ items.t()
                if latent.residual != 0:
                    out[row, item] += latent.residual
                return out

        return score
