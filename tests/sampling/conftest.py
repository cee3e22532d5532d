import pytest
import torch

from tvdiff_pyg.interaction_matrix import InteractionMatrix

SEEN = {0: [1, 4], 1: [], 2: list(range(10)), 3: [0, 1, 2, 3, 4, 5, 7, 8], 4: [9], 5: [2, 3, 5, 6, 8]}


@pytest.fixture
def interactions():
    """10 items; user 1 saw nothing, user 2 everything, user 3 all but items 6 and 9."""
    pairs = [(user, item) for user, items in SEEN.items() for item in items]
    return InteractionMatrix(torch.tensor(pairs).t(), 6, 10)
