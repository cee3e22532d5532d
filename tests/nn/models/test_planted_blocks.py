"""The planted data itself: :mod:`tvdiff_pyg.testing.planted`."""
import pytest
import torch

from tvdiff_pyg.testing import dense_interactions, planted_blocks


@pytest.mark.parametrize('num_blocks, users, items, hold_out', [(2, 2, 3, 1), (4, 8, 8, 1), (3, 7, 5, 2), (2, 9, 7, 3)])
def test_planted_blocks(num_blocks, users, items, hold_out):
    data = planted_blocks(num_blocks, users, items, hold_out, torch.Generator().manual_seed(0))
    assert (data.num_users, data.num_items) == (num_blocks * users, num_blocks * items)
    assert data.held_out.shape == (data.num_users, hold_out)
    seen = dense_interactions(data.edge_index, data.num_users, data.num_items)
    assert data.edge_index.size(1) == data.num_users * (items - hold_out) == seen.sum()
    block = torch.block_diag(*[torch.ones(users, items, dtype=torch.float64)] * num_blocks)
    for user in range(data.num_users):
        assert (block - seen)[user].nonzero().view(-1).tolist() == data.held_out[user].tolist()
    count = data.held_out.view(-1).bincount(minlength=data.num_items)
    assert count.max() - count.min() <= 1 and seen.sum(0).min() >= 1
    assert ((seen @ seen.t() > 0) == (block @ block.t() > 0)).all()  # users share an item iff they share a block


def test_generator():
    first, second, other = (planted_blocks(generator=torch.Generator().manual_seed(s)).held_out for s in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)


@pytest.mark.parametrize('arguments', [(1, 3, 3), (2, 1, 3), (2, 3, 3, 0), (2, 3, 4, 2)])
def test_errors(arguments):
    with pytest.raises(ValueError):
        planted_blocks(*arguments)
