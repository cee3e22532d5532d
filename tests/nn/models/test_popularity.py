import torch

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn import Popularity


def test_scores_are_counts():
    model = Popularity(InteractionMatrix(torch.tensor([[0, 1, 2, 0, 0], [1, 1, 1, 3, 3]]), 4, 5))
    assert (model.num_users, model.num_items) == (4, 5)
    score = model.scorer()
    expected = torch.tensor([[0.0, 3, 0, 1, 0]] * 3)
    out = score(torch.tensor([3, 0, 3]))
    assert torch.equal(out, expected)
    out[0, 1] = -torch.inf  # as an evaluation masks: neither other rows nor later calls may see it
    assert torch.equal(out[1:], expected[1:]) and torch.equal(score(torch.tensor([0, 1, 2])), expected)
