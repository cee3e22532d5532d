"""What a run trains, validates and tests on (SPEC 12)."""
from __future__ import annotations

from typing import Any, Dict, Iterator, List, NamedTuple, Optional

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Sampler
from torch_geometric.data import HeteroData

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.transforms import RATES, HoldOut
from tvdiff_pyg.typing import Batch

PROTOCOLS = ('holdout', 'paper')


class Split(NamedTuple):
    """The interactions of a run by purpose, and the id maps.

    Attributes:
        data: the graph with its held-out edges; its ``edge_index`` is what is trained on.
        protocol: ``holdout`` selects on validation; ``paper`` selects on test, as the published figures did.
        train, validation, test: the pairs; under ``paper`` the validation part is ``None`` unless the data set
            brings one.
    """

    data: HeteroData
    protocol: str
    train: InteractionMatrix
    validation: Optional[InteractionMatrix]
    test: InteractionMatrix

    @classmethod
    def from_data(cls, data: HeteroData, protocol: str, seed: int = 0) -> Split:
        """Split a data set by a protocol.

        Args:
            data: as the data sets give it.
            protocol: ``holdout`` or ``paper``.
            seed: seed of the validation part, where it is carved from the training part here.

        Raises:
            ValueError: an unknown protocol, no test part, or too little data for a validation part.
        """
        if protocol not in PROTOCOLS:
            raise ValueError(f"'protocol' must be one of {', '.join(PROTOCOLS)}; got '{protocol}'")
        if protocol == 'holdout':
            data = HoldOut(seed=seed, keep_existing=True)(data)
        return cls.of(data, protocol)

    @classmethod
    def of(cls, data: HeteroData, protocol: str) -> Split:
        """Take a data set as it is already split."""
        store = data[RATES]
        sizes = (data['user'].num_nodes, data['item'].num_nodes)
        if 'edge_label_index' not in store:
            raise ValueError(f"'{data.name}' has no test part (edge_label_index)")
        validation = store.get('val_edge_label_index')
        for part, index in (('test', store.edge_label_index), ('validation', validation)):
            if index is not None and index.size(1) == 0:
                raise ValueError(f"the {part} part of '{data.name}' is empty: no user has 3 interactions to hold one "
                                 f"out of, or none of its pairs has a user and an item that occur in train")
        return cls(data, protocol, InteractionMatrix(store.edge_index, *sizes),
                   None if validation is None else InteractionMatrix(validation, *sizes),
                   InteractionMatrix(store.edge_label_index, *sizes))

    @property
    def selected_on(self) -> str:
        """The part that the best epoch is chosen on: ``validation`` or ``test``."""
        return 'validation' if self.protocol == 'holdout' else 'test'

    @property
    def seen_when_testing(self) -> List[InteractionMatrix]:
        """What is masked in the test: training, and validation where there is one."""
        return [part for part in (self.train, self.validation) if part is not None]


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
