"""Batches in a seeded order."""
from __future__ import annotations

import tracemalloc

import pytest
import torch

pytest.importorskip('pytorch_lightning')
from tvdiff_pyg.interaction_matrix import InteractionMatrix  # noqa: E402
from tvdiff_pyg.training.data import EpochSampler, InteractionDataModule, PartSampler, derived_seed  # noqa: E402


def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch() -> None:
    sampler = EpochSampler(50, seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(50)) == sorted(EpochSampler(50, 4)) and first == list(EpochSampler(50, 3))
    sampler.set_epoch(1)
    assert list(sampler) != first
    seeds = {derived_seed(seed, epoch, purpose) for seed in range(20) for epoch in range(20) for purpose in range(2)}
    assert len(seeds) == 800 and all(0 <= seed < 2 ** 63 for seed in seeds)


def test_an_epoch_is_not_kept_as_a_list() -> None:
    sampler = EpochSampler(40_003, seed=3)
    order = list(sampler)
    parts = [PartSampler(sampler, 64, num_parts=4, rank=rank, world_size=2) for rank in range(2)]
    tracemalloc.start()
    try:
        assert [sum(1 for _ in part) for part in parts] == [2 * 626, 2 * 626]
        assert tracemalloc.get_traced_memory()[1] < 4 * 40_003  # Python's numbers take 40 bytes each
    finally:
        tracemalloc.stop()
    first, second = map(list, parts)
    assert [*first[0], *first[1], *second[0], *second[1]] == order[:64]
    assert first[-2:] == [[order[-3]], [order[-3]]] and second[-2:] == [[order[-2]], [order[-1]]]


@pytest.mark.parametrize('pairwise', [False, True])
def test_batches_cover_every_example_once(pairwise: bool) -> None:
    edges = torch.tensor([[u, i] for u in range(1, 6) for i in range(20) if (u + i) % 3]).t()
    train = InteractionMatrix(edges, 6, 20)
    batches = list(InteractionDataModule(train, pairwise, batch_size=4).train_dataloader())
    users = torch.cat([batch.users for batch in batches])
    if pairwise:
        items = torch.cat([batch.items for batch in batches])  # type: ignore[misc]
        assert sorted(zip(users.tolist(), items.tolist())) == list(map(tuple, train.edge_index.t().tolist()))
    else:
        assert all(batch.items is None for batch in batches)
        assert sorted(users.tolist()) == train.user_degree.nonzero().view(-1).tolist()
