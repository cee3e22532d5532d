"""Splits by protocol, and batches."""
from __future__ import annotations

import pytest
import torch
from torch_geometric.data import HeteroData

pytest.importorskip('pytorch_lightning')
from tvdiff_pyg.datasets import interaction_data  # noqa: E402
from tvdiff_pyg.training.data import EpochSampler, InteractionDataModule, Split, derived_seed  # noqa: E402


def _data(validation: bool = False) -> HeteroData:
    users, items = zip(*[(f'u{u}', f'i{i}') for u in range(6) for i in range(20) if (u + i) % 3])
    held_out = [('u1', 'i2'), ('u2', 'i4'), ('u9', 'i1')]
    test = tuple(map(list, zip(*held_out)))
    return interaction_data('tiny', (list(users), list(items)), test,  # type: ignore[arg-type]
                            (['u4'], ['i5']) if validation else None, checksum='0' * 64)


def _pairs(matrix: object) -> set:
    return set(map(tuple, matrix.edge_index.t().tolist()))  # type: ignore[attr-defined]


def test_holdout_carves_a_validation_part_from_train() -> None:
    data = _data()
    split = Split.from_data(data, 'holdout')
    assert split.selected_on == 'validation' and split.validation is not None
    assert _pairs(split.train) | _pairs(split.validation) == set(
        map(tuple, data['user', 'rates', 'item'].edge_index.t().tolist()))
    assert not _pairs(split.train) & _pairs(split.validation)
    for user in range(split.train.num_users):  # SPEC 12: n_val = max(1, round(0.1 n_u)) where n_u >= 3
        number = int(split.validation.user_degree[user])
        total = number + int(split.train.user_degree[user])
        assert number == (max(1, round(0.1 * total)) if total >= 3 else 0)
    assert split.seen_when_testing == [split.train, split.validation]
    assert _pairs(Split.from_data(data, 'holdout', seed=1).validation) != _pairs(split.validation)
    assert 'val_edge_label_index' not in data['user', 'rates', 'item']


def test_paper_trains_on_all_of_train() -> None:
    data = _data()
    split = Split.from_data(data, 'paper')
    assert split.selected_on == 'test' and split.validation is None
    assert split.train.num_interactions == data['user', 'rates', 'item'].edge_index.size(1)
    assert split.seen_when_testing == [split.train]
    assert split.test.num_interactions == 2 and data.dropped['test_pairs'] == 1


@pytest.mark.parametrize('protocol', ['holdout', 'paper'])
def test_a_validation_part_that_the_data_set_brings_is_used_and_masked(protocol: str) -> None:
    split = Split.from_data(_data(validation=True), protocol)
    assert split.validation is not None and split.validation.num_interactions == 1
    assert split.seen_when_testing == [split.train, split.validation]


def test_errors() -> None:
    with pytest.raises(ValueError, match="'protocol' must be one of holdout, paper; got 'x'"):
        Split.from_data(_data(), 'x')
    with pytest.raises(ValueError, match="'tiny' has no test part"):
        data = interaction_data('tiny', (['a', 'a', 'a'], ['x', 'y', 'z']), checksum='0' * 64)
        Split.from_data(data, 'holdout')
    with pytest.raises(ValueError, match="validation part of 'tiny' is empty"):
        Split.from_data(interaction_data('tiny', (['a', 'b'], ['x', 'y']), (['a'], ['y']), checksum='0' * 64),
                        'holdout')


def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch() -> None:
    sampler = EpochSampler(50, seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(50)) == sorted(EpochSampler(50, 4)) and first == list(EpochSampler(50, 3))
    sampler.set_epoch(1)
    assert list(sampler) != first
    seeds = {derived_seed(seed, epoch, purpose) for seed in range(20) for epoch in range(20) for purpose in range(2)}
    assert len(seeds) == 800 and all(0 <= seed < 2 ** 63 for seed in seeds)


@pytest.mark.parametrize('pairwise', [False, True])
def test_batches_cover_every_example_once(pairwise: bool) -> None:
    train = Split.from_data(_data(), 'holdout').train
    batches = list(InteractionDataModule(train, pairwise, batch_size=4).train_dataloader())
    users = torch.cat([batch.users for batch in batches])
    if pairwise:
        items = torch.cat([batch.items for batch in batches])  # type: ignore[misc]
        assert set(zip(users.tolist(), items.tolist())) == _pairs(train) and users.numel() == train.num_interactions
    else:
        assert all(batch.items is None for batch in batches)
        assert sorted(users.tolist()) == train.user_degree.nonzero().view(-1).tolist()
