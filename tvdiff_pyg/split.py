"""The interactions of a data set by purpose: what is trained, validated and tested on (SPEC 12)."""
from __future__ import annotations

from typing import List, NamedTuple, Optional, Sequence

from torch_geometric.data import HeteroData

from tvdiff_pyg.evaluation import DEFAULT_KS, RankingEvaluator
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.transforms import RATES, HoldOut

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
            raise ValueError(f"{_named(data)} has no test part (edge_label_index), and every run is tested: set "
                             f"'dataset.test_ratio' above 0, or name a test part of your own by 'dataset.test_path'")
        validation = store.get('val_edge_label_index')
        for part, index in (('test', store.edge_label_index), ('validation', validation)):
            if index is not None and index.size(1) == 0:
                raise ValueError(f"the {part} part of {_named(data)} is empty: no user has 3 interactions to hold one "
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

    @property
    def known(self) -> List[InteractionMatrix]:
        """All pairs, those of the test part as well: what lists of further items leave out."""
        return [*self.seen_when_testing, self.test]

    def evaluator(self, part: str = 'test', ks: Sequence[int] = DEFAULT_KS,
                  distributed: bool = False) -> RankingEvaluator:
        """Return what ranks and compares on the ``test`` or the ``validation`` part, with the rest masked.

        Args:
            part: ``test`` or ``validation``.
            ks: lengths of the lists.
            distributed: whether processes share the users out; see :class:`RankingEvaluator`.

        Raises:
            ValueError: there is no such part, or a K above the number of items.
        """
        held_out = {'test': self.test, 'validation': self.validation}.get(part)
        if held_out is None:
            raise ValueError(f"{_named(self.data)} has no {part} part (protocol {self.protocol})")
        return RankingEvaluator(held_out, self.seen_when_testing if part == 'test' else [self.train], ks,
                                distributed)


def _named(data: HeteroData) -> str:
    return f"'{data.name}'" if 'name' in data else 'the data'
