"""Splits by protocol, and the evaluator of each part."""
from __future__ import annotations

import pytest
from torch_geometric.data import HeteroData

from tvdiff_pyg.datasets import interaction_data
from tvdiff_pyg.evaluation import evaluate
from tvdiff_pyg.nn import Popularity
from tvdiff_pyg.split import Split


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
    assert split.known == [split.train, split.validation, split.test]
    assert _pairs(Split.from_data(data, 'holdout', seed=1).validation) != _pairs(split.validation)
    assert 'val_edge_label_index' not in data['user', 'rates', 'item']


def test_paper_trains_on_all_of_train() -> None:
    data = _data()
    split = Split.from_data(data, 'paper')
    assert split.selected_on == 'test' and split.validation is None
    assert split.train.num_interactions == data['user', 'rates', 'item'].edge_index.size(1)
    assert split.seen_when_testing == [split.train] and split.known == [split.train, split.test]
    assert split.test.num_interactions == 2 and data.dropped['test_pairs'] == 1


@pytest.mark.parametrize('protocol', ['holdout', 'paper'])
def test_a_validation_part_that_the_data_set_brings_is_used_and_masked(protocol: str) -> None:
    split = Split.from_data(_data(validation=True), protocol)
    assert split.validation is not None and split.validation.num_interactions == 1
    assert split.seen_when_testing == [split.train, split.validation]


def test_errors() -> None:
    with pytest.raises(ValueError, match="'protocol' must be one of holdout, paper; got 'x'"):
        Split.from_data(_data(), 'x')
    with pytest.raises(ValueError, match="'tiny' has no test part.*set 'dataset.test_ratio' above 0"):
        data = interaction_data('tiny', (['a', 'a', 'a'], ['x', 'y', 'z']), checksum='0' * 64)
        Split.from_data(data, 'holdout')
    with pytest.raises(ValueError, match="validation part of 'tiny' is empty"):
        Split.from_data(interaction_data('tiny', (['a', 'b'], ['x', 'y']), (['a'], ['y']), checksum='0' * 64),
                        'holdout')


def test_errors_of_data_without_a_name() -> None:
    data = _data()
    del data.name
    with pytest.raises(ValueError, match=r'the data has no validation part \(protocol paper\)'):
        Split.of(data, 'paper').evaluator('validation', [5])
    data['user', 'rates', 'item'].edge_label_index = data['user', 'rates', 'item'].edge_label_index[:, :0]
    with pytest.raises(ValueError, match='the test part of the data is empty'):
        Split.of(data, 'paper')
    del data['user', 'rates', 'item'].edge_label_index
    with pytest.raises(ValueError, match=r'the data has no test part \(edge_label_index\)'):
        Split.of(data, 'paper')


def test_each_part_has_its_evaluator() -> None:
    split = Split.from_data(_data(), 'holdout')
    model = Popularity(split.train)
    assert split.validation is not None
    for part, held_out, seen in (('validation', split.validation, [split.train]),
                                 ('test', split.test, [split.train, split.validation])):
        assert split.evaluator(part, [5])(model.scorer()).mean == evaluate(model, held_out, seen, [5]).mean
    with pytest.raises(ValueError, match=r"'tiny' has no validation part \(protocol paper\)"):
        Split.from_data(_data(), 'paper').evaluator('validation', [5])
