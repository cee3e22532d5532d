"""The contract of a data set."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, List, Tuple

import torch
from torch_geometric.data import HeteroData, InMemoryDataset

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.testing.contracts.common import laboratory, rule
from tvdiff_pyg.transforms import RATED_BY, RATES


@laboratory()
def check_dataset(make: Callable[[], InMemoryDataset]) -> None:
    """Check a data set: one interaction graph, as :func:`~tvdiff_pyg.datasets.interaction_data` builds it.

    Args:
        make: loads the data set anew at every call.

    Raises:
        AssertionError: a rule is broken.
    """
    dataset = make()
    with rule('a data set holds one HeteroData'):
        assert len(dataset) == 1 and isinstance(dataset[0], HeteroData), f'{len(dataset)} x {type(dataset[0]).__name__}'
    data: Any = dataset[0]
    sizes = data['user'].num_nodes, data['item'].num_nodes
    with rule('ids are distinct texts, one a node'):
        for ids, size in zip((data.user_id, data.item_id), sizes):
            assert len(ids) == len(set(ids)) == size, f'{len(ids)} ids, {len(set(ids))} distinct, {size} nodes'
            assert all(isinstance(value, str) for value in ids), f'some are no text: {ids[:3]}'
    parts = {name: data[RATES][name] for name in ('edge_index', 'val_edge_label_index', 'edge_label_index')
             if name in data[RATES]}
    for name, index in parts.items():
        with rule('pairs are integers [2, E] in range', name):
            InteractionMatrix(index, *sizes)
    with rule('no pair occurs twice, in one part or in two'):
        key = torch.cat([user * sizes[1] + item for user, item in parts.values()])
        assert key.unique().numel() == key.numel(), f'{key.numel() - key.unique().numel()} times'
    with rule('every user and every item has a training pair'):
        for index, size in zip(data[RATES].edge_index, sizes):
            assert index.unique().numel() == size, f'{index.unique().numel()} of {size} have'
    with rule('the reverse edges are the training pairs flipped'):
        assert torch.equal(data[RATED_BY].edge_index, data[RATES].edge_index.flip(0)), 'they are others'
    with rule('name and checksum tell the data apart'):
        assert data.name and isinstance(data.name, str), f'name = {data.name!r}'
        assert len(data.checksum) == 64 and int(data.checksum, 16) >= 0, f'checksum = {data.checksum!r}, no SHA-256'
    with rule('loading again gives the same graph'):
        again: Any = make()[0]
        for name, index in parts.items():
            assert torch.equal(again[RATES][name], index), f"'{name}' is another"
        for name in ('user_id', 'item_id', 'name', 'checksum'):
            assert again[name] == data[name], f"'{name}' is another"
    with rule('loading again writes nothing'):
        before = _files(dataset)
        make()
        assert _files(dataset) == before, f'{sorted(set(_files(dataset)) ^ set(before))[:3]}'


def _files(dataset: InMemoryDataset) -> List[Tuple[str, int, int]]:
    return sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size)
                  for folder in (dataset.raw_dir, dataset.processed_dir) for path in Path(folder).rglob('*'))
