import math

import pytest
import torch

from tvdiff_pyg.nn import TimeEmbedding


@pytest.mark.parametrize('channels, max_period', [(64, 1e4), (2, 1e4), (7, 100.0)])
def test_closed_form(channels, max_period):
    steps = [0, 1, 5, 49]
    out = TimeEmbedding(channels, max_period)(torch.tensor(steps))
    half = channels // 2
    expected = torch.zeros(4, channels)
    for row, t in enumerate(steps):
        for k in range(half):
            expected[row, k] = math.cos(t / max_period ** (k / half))
            expected[row, half + k] = math.sin(t / max_period ** (k / half))
    torch.testing.assert_close(out, expected)
    assert torch.equal(out[0], torch.tensor([1.0] * half + [0.0] * (channels - half)))


def test_errors():
    with pytest.raises(ValueError, match="'channels' must be at least 2, got 1"):
        TimeEmbedding(1)
