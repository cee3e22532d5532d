"""A two-sided test of drawn frequencies against a known law."""
from __future__ import annotations

import torch
from torch import Tensor


def frequencies_p_value(count: Tensor, probability: Tensor) -> float:
    """Return the p-value of Pearson's chi-square test: near 0 where counts do not follow the law, near 1 where they
    follow it more closely than independent draws can.

    Args:
        count: how often each outcome was drawn ``[K]``.
        probability: the law ``[K]``; outcomes of probability 0 must not occur.

    Raises:
        ValueError: different lengths, probabilities that do not sum to 1, fewer than two possible outcomes, or an
            expected count below 5, where the test does not hold.
    """
    count, probability = count.double(), probability.double()
    if count.shape != probability.shape:
        raise ValueError(f"'count' and 'probability' differ in length: {list(count.shape)}, {list(probability.shape)}")
    if abs(float(probability.sum()) - 1) > 1e-6:
        raise ValueError(f"'probability' must sum to 1, got {float(probability.sum())}")
    possible = probability > 0
    if bool((count[~possible] > 0).any()):
        return 0.0
    expected = count.sum() * probability[possible]
    if expected.numel() < 2 or float(expected.min()) < 5:
        raise ValueError(f"'count' needs two or more possible outcomes with at least 5 expected draws each, got "
                         f"{expected.tolist()}")
    statistic = ((count[possible] - expected).square() / expected).sum()
    return float(torch.special.gammaincc(torch.tensor((expected.numel() - 1) / 2, dtype=torch.float64), statistic / 2))


def assert_frequencies(count: Tensor, probability: Tensor, alpha: float = 1e-3) -> None:
    """Assert that counts follow a law, neither too badly nor too well; fix the seed of what you draw.

    Args:
        count: how often each outcome was drawn ``[K]``.
        probability: the law ``[K]``.
        alpha: share of right samplers that fail on either side, over seeds.
    """
    p = frequencies_p_value(count, probability)
    assert alpha < p < 1 - alpha, (f'p = {p:.3g}: drawn {(count / count.sum()).tolist()}, '
                                   f'expected {probability.tolist()}')
