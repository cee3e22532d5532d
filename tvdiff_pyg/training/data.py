"""Batches in a seeded order."""
from __future__ import annotations

from typing import Any, Dict, Iterator, List, Tuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
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

    def order(self) -> Tensor:
        """Return the permutation ``[size]``: 8 bytes an example, where Python's numbers take 40."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, self.epoch, 0))
        return torch.randperm(self.size, generator=generator)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order().tolist())


class PartSampler(Sampler[List[int]]):
    """The parts of each batch that one of several processes works on, one after the other.

    A batch is cut into ``num_parts`` of as equal sizes as can be, and each process takes equally many of them that
    follow one another, so that the parts do not depend on the number of processes. A part without examples, of a batch
    that has fewer than parts, is given the batch's first at weight 0: every process takes part in every step.

    Args:
        sampler: the order of the examples.
        batch_size: examples a batch, over all processes.
        num_parts: parts of a batch.
        rank: this process.
        world_size: number of processes.

    Raises:
        ValueError: the parts cannot be shared out evenly.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int, num_parts: int = 1, rank: int = 0,
                 world_size: int = 1) -> None:
        if num_parts % world_size:
            raise ValueError(f"'training.num_parts' must be a multiple of the number of processes, {world_size}; got "
                             f"{num_parts}")
        self.sampler, self.batch_size, self.num_parts, self.rank = sampler, batch_size, num_parts, rank
        self.own = num_parts // world_size

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size) * self.own

    def number(self, index: int) -> int:
        """Return which part of its batch the ``index``-th part of an epoch in this process is."""
        return self.rank * self.own + index % self.own

    def _range(self, index: int) -> Tuple[int, int, int, int]:
        start = index // self.own * self.batch_size
        size = min(self.batch_size, len(self.sampler) - start)
        number = self.number(index)
        return start, size, start + size * number // self.num_parts, start + size * (number + 1) // self.num_parts

    def weight(self, index: int) -> float:
        """Return that part's number of examples over the mean of all parts of its batch."""
        _, size, low, high = self._range(index)
        return (high - low) * self.num_parts / size

    def __iter__(self) -> Iterator[List[int]]:
        order = self.sampler.order()
        for index in range(len(self)):
            start, _, low, high = self._range(index)
            yield (order[low:high] if high > low else order[start:start + 1]).tolist()


class InteractionDataModule(pl.LightningDataModule):
    """Batches of users who have interactions, or of observed pairs.

    Args:
        train: the training interactions.
        pairwise: whether an example is a pair instead of a user.
        batch_size: examples a step, over all processes.
        seed: seed of the order.
        num_parts: parts of a batch; see :class:`PartSampler`.
        rank: this process.
        world_size: number of processes.
    """

    def __init__(self, train: InteractionMatrix, pairwise: bool, batch_size: int, seed: int = 0, num_parts: int = 1,
                 rank: int = 0, world_size: int = 1) -> None:
        super().__init__()
        user, item = train.edge_index
        self.user = user if pairwise else train.user_degree.nonzero().view(-1)
        self.item = item if pairwise else None
        self.parts = PartSampler(EpochSampler(self.user.numel(), seed), batch_size, num_parts, rank, world_size)

    def _collate(self, index: List[int]) -> Batch:
        position = torch.tensor(index)
        return Batch(self.user[position], None if self.item is None else self.item[position])

    def train_dataloader(self) -> DataLoader:
        """Return the batches, or this process's parts of them, in their seeded order."""
        options: Dict[str, Any] = {'collate_fn': self._collate, 'batch_sampler': self.parts,
                                   'generator': torch.Generator()}  # or the loader draws from torch's own
        return DataLoader(range(self.user.numel()), **options)  # type: ignore[arg-type]
