"""Small random matrices of interactions."""
import numpy as np
import pytest
import torch

from tvdiff_pyg.interaction_matrix import InteractionMatrix


@pytest.fixture
def random_rows():
    """Make a random 0/1 matrix with an empty row and an empty column, where there is room for them."""
    def make(num_users, num_items, density=0.4, seed=0):
        x = (np.random.default_rng(seed).random((num_users, num_items)) < density).astype(float)
        if num_users > 2 and num_items > 2:
            x[2], x[:, 1] = 0, 0
        return x
    return make


@pytest.fixture
def matrix():
    """Make the interactions of a 0/1 matrix."""
    return lambda x: InteractionMatrix(torch.from_numpy(np.stack(x.nonzero())), *x.shape)
