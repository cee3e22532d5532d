"""Tests of the per-user hold-out."""
from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from tvdiff_pyg.transforms import RATED_BY, RATES, HoldOut, hold_out_mask

DEGREES = [0, 1, 2, 3, 14, 15, 25, 35, 100]
# max(1, round(n / 10)) from 3 on; 15 -> 2 and 25 -> 2: halves go to the even number; 35 -> 3.5 -> 4.
EXPECTED = [0, 0, 0, 1, 1, 2, 2, 4, 10]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def graph(degrees: list[int] = DEGREES, num_items: int = 120) -> HeteroData:
    pairs = [(user, (7 * user + 11 * k) % num_items) for user, degree in enumerate(degrees) for k in range(degree)]
    data = HeteroData()
    data['user'].num_nodes = len(degrees)
    data['item'].num_nodes = num_items
    data[RATES].edge_index = torch.tensor(sorted(pairs)).t().contiguous()
    data[RATES].edge_label_index = torch.tensor([[0], [1]])
    data[RATED_BY].edge_index = data[RATES].edge_index.flip([0])
    return data


def pairs_of(edge_index: Tensor) -> set[tuple[int, int]]:
    pairs = list(map(tuple, edge_index.t().tolist()))
    assert len(set(pairs)) == len(pairs)
    return set(pairs)


def test_mask_counts_per_user() -> None:
    user = torch.arange(len(DEGREES)).repeat_interleave(torch.tensor(DEGREES))
    mask = hold_out_mask(user, 0.1, 3, generator())
    assert torch.bincount(user[mask], minlength=len(DEGREES)).tolist() == EXPECTED


def test_mask_takes_any_order_and_sparse_users() -> None:
    user = torch.tensor([90, 5, 90, 5, 90, 5, 7, 90])
    mask = hold_out_mask(user, 0.5, 3, generator())
    assert torch.bincount(user[mask], minlength=91)[[5, 7, 90]].tolist() == [2, 0, 2]  # round(1.5) = 2


def test_mask_leaves_every_user_one() -> None:
    mask = hold_out_mask(torch.tensor([0, 0, 1, 1, 1]), 0.99, 2, generator())
    assert [int(mask[:2].sum()), int(mask[2:].sum())] == [1, 2]


def test_mask_is_uniform_over_a_users_interactions() -> None:
    rng = generator(1)
    user = torch.zeros(5, dtype=torch.long)
    hits = sum(hold_out_mask(user, 0.4, 3, rng).double() for _ in range(2000))
    # 2 of 5: mean 800 each, standard deviation sqrt(2000 * 0.4 * 0.6) = 22; two-sided, 4.5 deviations
    assert isinstance(hits, Tensor)
    assert float((hits - 800).abs().max()) < 100
    assert int(hits.sum()) == 4000


def test_mask_uses_only_its_generator() -> None:
    user = torch.arange(6).repeat_interleave(20)
    state = torch.get_rng_state()
    first = hold_out_mask(user, 0.1, 3, generator(4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, hold_out_mask(user, 0.1, 3, generator(4)))
    assert not torch.equal(first, hold_out_mask(user, 0.1, 3, generator(5)))


def test_mask_of_nothing() -> None:
    assert hold_out_mask(torch.empty(0, dtype=torch.long), 0.1, 3, generator()).shape == (0,)


@pytest.mark.parametrize('ratio', [0.0, 1.0, -0.1, 1.5, float('nan')])
def test_ratio_out_of_range(ratio: float) -> None:
    with pytest.raises(ValueError, match="'ratio' must lie between 0 and 1"):
        hold_out_mask(torch.tensor([0]), ratio, 3, generator())
    with pytest.raises(ValueError, match="'ratio' must lie between 0 and 1"):
        HoldOut(ratio=ratio)


def test_other_arguments_out_of_range() -> None:
    with pytest.raises(ValueError, match="'min_interactions' must be at least 2"):
        HoldOut(min_interactions=1)
    with pytest.raises(ValueError, match=r"'user_index' must be a vector, got shape \[1, 2\]"):
        hold_out_mask(torch.zeros(1, 2, dtype=torch.long), 0.1, 3, generator())


def test_hold_out_moves_edges() -> None:
    data = graph()
    before = copy.deepcopy(data.to_dict())
    out = HoldOut(seed=3)(data)

    held = out[RATES].val_edge_label_index
    assert torch.bincount(held[0], minlength=len(DEGREES)).tolist() == EXPECTED
    kept, moved = pairs_of(out[RATES].edge_index), pairs_of(held)
    assert kept.isdisjoint(moved)
    assert kept | moved == pairs_of(data[RATES].edge_index)
    assert torch.equal(out[RATED_BY].edge_index, out[RATES].edge_index.flip([0]))
    assert torch.equal(out[RATES].edge_label_index, data[RATES].edge_label_index)
    assert out.validate()

    after = data.to_dict()
    assert 'val_edge_label_index' not in data[RATES]
    for edge_type in (RATES, RATED_BY):
        assert torch.equal(after[edge_type]['edge_index'], before[edge_type]['edge_index'])


def test_hold_out_is_deterministic_and_independent_of_edge_order() -> None:
    data = graph()
    want = HoldOut(seed=3)(data)
    shuffled = graph()
    perm = torch.randperm(data[RATES].num_edges, generator=generator(9))
    shuffled[RATES].edge_index = shuffled[RATES].edge_index[:, perm]
    shuffled[RATED_BY].edge_index = shuffled[RATED_BY].edge_index.flip([1])
    out = HoldOut(seed=3)(shuffled)

    assert torch.equal(HoldOut(seed=3)(data)[RATES].val_edge_label_index, want[RATES].val_edge_label_index)
    assert torch.equal(out[RATES].val_edge_label_index, want[RATES].val_edge_label_index)
    assert pairs_of(out[RATES].edge_index) == pairs_of(want[RATES].edge_index)
    assert pairs_of(out[RATED_BY].edge_index.flip([0])) == pairs_of(want[RATES].edge_index)
    assert pairs_of(HoldOut(seed=4)(data)[RATES].val_edge_label_index) != pairs_of(want[RATES].val_edge_label_index)


def test_edge_attributes_follow_but_labels_of_the_same_length_stay() -> None:
    data = graph()
    edge_index = data[RATES].edge_index
    data[RATES].time = edge_index[0] * 1000 + edge_index[1]
    data[RATES].note = [f'{user} {item}' for user, item in edge_index.t().tolist()]
    data[RATES].edge_label_index = edge_index.clone()
    result = HoldOut()(data)
    out = result[RATES]
    assert torch.equal(out.time, out.edge_index[0] * 1000 + out.edge_index[1])
    assert out.note == [f'{user} {item}' for user, item in out.edge_index.t().tolist()]
    assert torch.equal(out.edge_label_index, edge_index)
    assert out.is_edge_attr('time')
    assert data[RATES].is_edge_attr('time')


def test_existing_validation_part() -> None:
    data = HoldOut()(graph())
    with pytest.raises(ValueError, match="already has 'val_edge_label_index'.*keep_existing=True"):
        HoldOut()(data)
    out = HoldOut(keep_existing=True)(data)
    assert torch.equal(out[RATES].edge_index, data[RATES].edge_index)
    assert torch.equal(out[RATES].val_edge_label_index, data[RATES].val_edge_label_index)


def test_data_without_edges_or_with_repeated_ones() -> None:
    with pytest.raises(ValueError, match="no 'edge_index' for edge type"):
        HoldOut()(HeteroData())
    data = graph()
    data[RATES].edge_index = data[RATES].edge_index[:, [0, 1, 1, 2]]
    with pytest.raises(ValueError, match="repeats an edge"):
        HoldOut()(data)


def test_repr() -> None:
    assert repr(HoldOut(0.2, seed=7)) == 'HoldOut(ratio=0.2, min_interactions=3, seed=7)'
