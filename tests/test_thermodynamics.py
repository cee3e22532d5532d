"""Energy and entropy against their definitions, written out number by number."""
import math

import numpy as np
import pytest
import torch

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn import EASE, LightGCN, Popularity
from tvdiff_pyg.thermodynamics import sample_users, thermodynamics

M, N = 30, 17


@pytest.fixture
def interactions():
    generator = torch.Generator().manual_seed(1)
    seen = torch.rand(M, N, generator=generator) < torch.linspace(0.05, 0.9, M).unsqueeze(1)
    seen[3] = False  # nobody's row
    seen[4] = True
    return InteractionMatrix(seen.nonzero().t(), M, N)


@pytest.fixture
def scores(interactions):
    """Scores near the rows, of which some are negative, and rows of which some have none below 0."""
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(M, N, generator=generator, dtype=torch.float64)
    near = interactions.dense(torch.arange(M), torch.float64) + 0.4 * noise
    near[::3] = near[::3].abs()
    return near


def by_hand(row, n, distribution, published):
    """SPEC 10, for one user."""
    renormalised = False
    if distribution == 'softmax':
        p = np.exp(row - row.max())
        p = p / p.sum()
    elif published:
        p = np.maximum(row / row.sum(), 0)
        if p.sum() > 1 + 1e-6:
            p, renormalised = p / p.sum(), True
    else:
        p = np.maximum(row, 1e-6)
        p = p / p.sum()
    q = np.maximum(p, 1e-6) if distribution == 'softmax' and published else p
    entropy = -sum(value * math.log2(value) for value in q if value > 0)
    count = sum(1 for value in p if value >= 1 / n)
    rest = sum(value * (value * n) for value in p if value < 1 / n)
    if renormalised:
        return float(count), entropy
    return min(n, count) + rest, entropy


@pytest.mark.parametrize('block_entries', [1, 5 * N, 10 ** 6])
@pytest.mark.parametrize('published', [False, True])
@pytest.mark.parametrize('distribution', ['clip', 'softmax'])
def test_every_user_is_as_defined(interactions, scores, distribution, published, block_entries):
    assert (scores < 0).any() and (scores > 1).any()
    before = scores.clone()
    out = thermodynamics(lambda users: scores[users], interactions, distribution, published,
                         block_entries=block_entries)
    assert torch.equal(scores, before)
    degree = interactions.user_degree
    assert out.users.tolist() == [user for user in range(M) if degree[user] > 0] and out.population == M - 1
    assert torch.equal(out.observed, degree[out.users])
    expected = [by_hand(scores[user].numpy(), int(degree[user]), distribution, published) for user in out.users]
    torch.testing.assert_close(torch.stack([out.energy, out.entropy], 1), torch.tensor(expected, dtype=torch.float64))
    total = out.total()
    assert total['energy'] == pytest.approx(sum(energy for energy, _ in expected))
    assert total['delta_energy'] == pytest.approx(total['energy'] - interactions.num_interactions)
    assert total['delta_entropy'] == pytest.approx(
        sum(entropy - math.log2(n) for (_, entropy), n in zip(expected, out.observed.tolist())))
    assert total['delta_energy_se'] == total['delta_entropy_se'] == 0


def test_the_cases_of_the_published_definition_all_occur(interactions, scores):
    rows = scores[interactions.user_degree > 0]
    assert bool((rows.sum(1) < 0).any()) and bool((rows >= 0).all(1).any()) and bool((rows < 0).any())


def test_the_data_themselves(interactions):
    """No difference, but for the energy of a clipped row: each item lies a little below 1 / n_u and counts 1 / n_u."""
    for published in (False, True):
        out = thermodynamics(lambda users: interactions.dense(users, torch.float64), interactions, 'clip', published)
        torch.testing.assert_close(out.entropy, out.data_entropy, atol=1e-3, rtol=0)
        clipped = (out.observed < N) & (not published)
        torch.testing.assert_close(out.energy, torch.where(clipped, 1, out.observed).double(), atol=1e-3, rtol=0)


@pytest.mark.parametrize('scale', [0.3, 0.7, 0.9, 1.1])
def test_the_scale_of_an_exact_reconstruction_does_not_matter(interactions, scale):
    out = thermodynamics(lambda users: scale * interactions.dense(users, torch.float64), interactions, 'clip', True)
    torch.testing.assert_close(out.energy, out.observed.double())


def test_no_graph_of_all_scores_is_kept(interactions, scores):
    weight = torch.nn.Parameter(scores)
    out = thermodynamics(lambda users: weight[users], interactions)
    assert not out.energy.requires_grad and not out.entropy.requires_grad


def test_equal_scores_have_the_largest_entropy(interactions):
    for distribution in ('clip', 'softmax'):
        out = thermodynamics(lambda users: torch.full((users.numel(), N), 0.3), interactions, distribution)
        torch.testing.assert_close(out.entropy, torch.full_like(out.entropy, math.log2(N)))


def test_a_sample_estimates_the_totals_with_its_error(interactions, scores):
    whole = thermodynamics(lambda users: scores[users], interactions).total()
    totals = []
    for seed in range(800):
        users = sample_users(interactions, 8, torch.Generator().manual_seed(seed))
        assert users.numel() == 8 == users.unique().numel()
        totals.append(thermodynamics(lambda users: scores[users], interactions, users=users).total())
    for name in ('delta_energy', 'delta_entropy'):
        values = np.array([total[name] for total in totals])
        spread = values.std(ddof=1)
        assert abs(values.mean() - whole[name]) < 4.5 * spread / len(values) ** 0.5
        stated = np.array([total[f'{name}_se'] ** 2 for total in totals]).mean() ** 0.5
        assert stated == pytest.approx(spread, rel=0.12)
    assert sample_users(interactions, 1000).tolist() == interactions.user_degree.nonzero().view(-1).tolist()


def test_never_more_scores_than_asked_for(interactions, scores):
    sizes = []

    def scorer(users):
        sizes.append(users.numel() * N)
        return scores[users]

    thermodynamics(scorer, interactions, block_entries=4 * N + 3)
    assert max(sizes) == 4 * N and sum(sizes) == (M - 1) * N


def test_models_say_how_their_scores_are_meant(interactions):
    assert LightGCN(interactions, 4).distribution == 'softmax'
    assert Popularity(interactions).distribution == EASE(interactions).distribution == 'clip'


@pytest.mark.parametrize('options, message', [
    ({'distribution': 'sum'}, "'distribution' must be clip or softmax, got 'sum'"),
    ({'block_entries': 0}, "'block_entries' must be at least 1"),
    ({'users': torch.tensor([3])}, 'nobody with interactions'),
])
def test_wrong_arguments(interactions, scores, options, message):
    with pytest.raises(ValueError, match=message):
        thermodynamics(lambda users: scores[users], interactions, **options)


def test_scores_that_are_no_distribution(interactions, scores):
    scores[7, 2] = float('nan')
    with pytest.raises(ValueError, match='user 7 scores that are not finite'):
        thermodynamics(lambda users: scores[users], interactions)
    scores[7] = 0
    with pytest.raises(ValueError, match='user 7 scores that sum to 0'):
        thermodynamics(lambda users: scores[users], interactions, published=True)
    with pytest.raises(ValueError, match="'size' must be at least 2, got 1"):
        sample_users(interactions, 1)
