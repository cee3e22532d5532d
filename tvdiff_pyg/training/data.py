"""Batches in a seeded order."""
from __future__ import annotations

from typing import Any, Dict, Iterator, List

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Sampler

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.typing import Batch


def derived_seed(seed: int, *key: int) -> int:
    """Return a 63-bit seed that differs for every ``(seed, *key)``: one stream an epoch and purpose."""
    return int(np.random.SeedSequence([seed, *key]).generate_state(1, np.uint64)[0] >> np.uint64(1))


class EpochSampler(Sampler[int]):
    """A permutation that depends on ``(seed, epoch)`` alone, so that a resumed run sees what it would have seen.

    Args:
        size: number of examples.
        seed: the run's seed.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(derived_seed(self.seed, self.epoch, 0))
        return iter(torch.randperm(self.size, generator=generator).tolist())


class InteractionDataModule(pl.LightningDataModule):
    """Batches of users who have interactions, or of observed pairs.

    Args:
        train: the training interactions.
        pairwise: whether an example is a pair instead of a user.
        batch_size: examples a step.
        seed: seed of the order.
    """

    def __init__(self, train: InteractionMatrix, pairwise: bool, batch_size: int, seed: int = 0) -> None:
        super().__init__()
        self.batch_size, self.seed = batch_size, seed
        user, item = train.edge_index
        self.user = user if pairwise else train.user_degree.nonzero().view(-1)
        self.item = item if pairwise else None

    def _collate(self, index: List[int]) -> Batch:
        position = torch.tensor(index)
        return Batch(self.user[position], None if self.item is None else self.item[position])

    def train_dataloader(self) -> DataLoader:
        """Return the batches of an epoch in their seeded order."""
        size = self.user.numel()
        options: Dict[str, Any] = {'collate_fn': self._collate, 'sampler': EpochSampler(size, self.seed),
                                   'generator': torch.Generator()}  # or the loader draws from torch's own
        return DataLoader(range(size), self.batch_size, **options)  # type: ignore[arg-type]
