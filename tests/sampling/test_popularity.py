import pytest
import torch

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.sampling import PopularitySampler
from tvdiff_pyg.testing import assert_frequencies


@pytest.mark.parametrize('exponent', [0.75, 0.0, 2.0, -1.0])
def test_pairs_follow_the_power_of_the_degree(exponent, interactions):
    degree = interactions.dense(torch.arange(6)).sum(0).clamp(min=1)
    users = torch.tensor([0, 1]).repeat(20_000)
    row, item = PopularitySampler(exponent)(interactions, users, torch.ones_like(users),
                                            generator=torch.Generator().manual_seed(0))
    for user in (0, 1):
        weight = degree.double() ** exponent * (interactions.dense(torch.tensor([user]))[0] == 0)
        assert_frequencies(item[users[row] == user].bincount(minlength=10), weight / weight.sum())


def test_the_default_exponent():
    assert PopularitySampler().exponent == 0.75


def test_an_item_without_interactions_counts_as_one():
    interactions = InteractionMatrix(torch.tensor([[1, 2, 3], [0, 0, 0]]), 4, 3)  # degrees 3, 0, 0
    users = torch.zeros(20_000, dtype=torch.long)
    item = PopularitySampler(1.0)(interactions, users, torch.ones_like(users),
                                  generator=torch.Generator().manual_seed(0))[1]
    assert_frequencies(item.bincount(minlength=3), torch.tensor([3.0, 1.0, 1.0]) / 5)


@pytest.mark.parametrize('exponent', [float('nan'), float('inf')])
def test_errors(exponent):
    with pytest.raises(ValueError, match="'exponent' must be finite"):
        PopularitySampler(exponent)
