import torch

from tvdiff_pyg.sampling import UniformSampler
from tvdiff_pyg.testing import assert_frequencies


def test_pairs_are_uniform_over_unobserved_items(interactions):
    rows = 20_000
    users = torch.tensor([0, 5]).repeat(rows)
    row, item = UniformSampler()(interactions, users, torch.ones_like(users),
                                 generator=torch.Generator().manual_seed(0))
    for user in (0, 5):
        free = (interactions.dense(torch.tensor([user]))[0] == 0).double()
        assert_frequencies(item[users[row] == user].bincount(minlength=10), free / free.sum())
