"""AR-GSP against laws that are known without drawing.

With l the log weights, the first draw is the largest of (l_j + g_j) / theta + g'_j, or of l_j + Y_j with
Y = g + theta g'. Its law is P(j) = integral of f_Y(y) prod_{k != j} F_Y(y + l_j - l_k) dy, where
F_Y(y) = E[exp(-exp(theta g' - y))]: a one-dimensional quadrature. For theta -> 0 it is softmax(l).
"""
import math

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from scipy.stats import chi2_contingency

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.sampling import ARGumbelSampler, dense_scores
from tvdiff_pyg.testing import assert_frequencies, frequencies_p_value, successive_draws

NOTHING_SEEN = torch.empty(2, 0, dtype=torch.long)
SPAN = [0.0, -0.4, -1.0, -2.0, -4.0, -6.0]  # a planted span of 6 nats


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def first_draw_law(log_weight, theta):
    u = (np.arange(4000) + 0.5) / 4000
    second = -np.log(-np.log(u))  # quantiles of g'
    y = np.linspace(-6, 30, 6001)
    cdf = np.array([np.exp(-np.exp(theta * second - v)).mean() for v in y])
    density = np.gradient(cdf, y)
    law = []
    for j, lj in enumerate(log_weight):
        rest = [np.interp(y + lj - lk, y, cdf, left=0.0, right=1.0) for k, lk in enumerate(log_weight) if k != j]
        law.append(trapezoid(density * np.prod(rest, axis=0), y))
    return torch.tensor(law) / sum(law)


def pairs(sampler, scores, t, num_steps, rows=20_000, seed=0, count=1):
    """Draw ``count`` negatives for each of ``rows`` rows of a user who has seen nothing."""
    interactions = InteractionMatrix(NOTHING_SEEN, 1, len(scores))
    users = torch.zeros(rows, dtype=torch.long)
    steps = torch.full((rows,), t) if isinstance(t, int) else t
    return sampler(interactions, users, torch.full((rows,), count), dense_scores(torch.tensor(scores).expand(rows, -1)),
                   steps, num_steps, generator(seed))


def test_the_quadrature_has_the_softmax_as_its_limit():
    torch.testing.assert_close(first_draw_law(SPAN, 1e-6), torch.tensor(SPAN).double().softmax(0), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize('t, num_steps, lam', [(0, 5, 0.0), (0, 5, 3.0), (2, 5, 3.0), (4, 5, 3.0), (0, 1, 1000.0)])
def test_score_weights_follow_the_law(t, num_steps, lam):
    theta = math.exp(-lam * (1 - t / num_steps))
    shifted = [s + 7.0 for s in SPAN]  # log-softmax and scores differ by a constant, which cancels
    _, item = pairs(ARGumbelSampler(1.0, 'score', lam), shifted, t, num_steps)
    law = torch.tensor(SPAN).double().softmax(0) if lam == 1000.0 else first_draw_law(SPAN, theta)
    assert_frequencies(item.bincount(minlength=6), law)


def test_temperature_matters_with_score_weights():
    """Sharp at low noise, soft at high noise, row by row within one batch."""
    steps = torch.tensor([0, 49]).repeat(10_000)
    row, item = pairs(ARGumbelSampler(1.0, 'score'), SPAN, steps, 50)
    sharp, soft = (item[steps[row] == t].bincount(minlength=6) for t in (0, 49))
    sharp_law, soft_law = first_draw_law(SPAN, math.exp(-3)), first_draw_law(SPAN, math.exp(-3 / 50))
    assert_frequencies(sharp, sharp_law)
    assert_frequencies(soft, soft_law)
    assert frequencies_p_value(soft, sharp_law) < 1e-12
    assert frequencies_p_value(sharp, soft_law) < 1e-12


@pytest.mark.parametrize('t', [0, 2, 4])
@pytest.mark.parametrize('lam', [0.0, 3.0])
def test_temperature_cannot_matter_with_flat_weights(t, lam):
    _, item = pairs(ARGumbelSampler(1.0, 'flat', lam), SPAN, t, 5)
    assert_frequencies(item.bincount(minlength=6), torch.full((6,), 1 / 6))


@pytest.mark.parametrize('weights', ['flat', 'score'])
def test_two_draws_in_the_sharp_limit_are_plackett_luce(weights):
    """Without g' the order of l + g is that of successive draws in proportion to exp(l)."""
    row, item = pairs(ARGumbelSampler(1.0, weights, 1000.0), SPAN[:4], 0, 5, count=2)
    law = successive_draws([1.0] * 4 if weights == 'flat' else np.exp(SPAN[:4]).tolist(), 2)
    sets = {frozenset(k): 0.0 for k in law}
    for outcome, p in law.items():
        sets[frozenset(outcome)] += p
    drawn = [frozenset(s) for s in item.view(-1, 2).tolist()]
    assert_frequencies(torch.tensor([drawn.count(s) for s in sets]), torch.tensor(list(sets.values())))


@pytest.mark.parametrize('t', [0, 4])
def test_two_draws_against_a_simulation_in_weights(t):
    """SPEC 5 as it is written: draw w_j = exp((l_j + g_j) / theta), then twice in proportion to w, in numpy."""
    log_weight, rows = np.array(SPAN[:4]), 20_000
    rng, theta = np.random.default_rng(0), math.exp(-3 * (1 - t / 5))
    log_w = (log_weight + rng.gumbel(size=(10 * rows, 4))) / theta
    w = np.exp(log_w - log_w.max(1, keepdims=True))
    first = (w.cumsum(1) < rng.random((len(w), 1)) * w.sum(1, keepdims=True)).sum(1)
    w[np.arange(len(w)), first] = 0
    second = (w.cumsum(1) < rng.random((len(w), 1)) * w.sum(1, keepdims=True)).sum(1)
    simulated = np.bincount(np.minimum(first, second) * 4 + np.maximum(first, second), minlength=16)

    _, item = pairs(ARGumbelSampler(1.0, 'score'), SPAN[:4], t, 5, rows, count=2)
    low, high = item.view(-1, 2).sort(1).values.unbind(1)
    drawn = (low * 4 + high).bincount(minlength=16).numpy()
    table = np.stack([drawn, simulated])[:, simulated > 0]
    assert table.shape[1] == 6 and 1e-3 < chi2_contingency(table).pvalue < 1 - 1e-3


@pytest.mark.parametrize('weights', ['flat', 'score'])
@pytest.mark.parametrize('gamma, num_items, accepted', [(0.07, 100, 7), (0.071, 100, 8), (0.2, 10, 2), (1e-9, 10, 1),
                                                        (1.0, 10, 10), (0.1, 30, 3), (0.05, 50, 3)])
def test_only_the_top_share_is_accepted(weights, gamma, num_items, accepted):
    scores = torch.linspace(0, 1, num_items)[torch.randperm(num_items, generator=generator())]
    _, item = pairs(ARGumbelSampler(gamma, weights), scores.tolist(), 3, 5, rows=2000)
    expected = sorted(range(num_items), key=lambda j: -scores[j])[:accepted]
    assert item.unique().tolist() == sorted(expected)


def test_observed_items_use_up_the_accepted_share(interactions):
    """User 0 saw items 1 and 4. The top half are items 0..4: 0, 2 and 3 remain, not 5 and 6."""
    users = torch.zeros(3000, dtype=torch.long)
    scores = dense_scores(torch.linspace(1, 0, 10).expand(3000, -1))
    _, item = ARGumbelSampler(0.5, 'flat')(interactions, users, torch.ones_like(users), scores, users, 5, generator())
    assert_frequencies(item.bincount(minlength=10), torch.tensor([1.0, 0, 1, 1, 0, 0, 0, 0, 0, 0]) / 3)


@pytest.mark.parametrize('weights', ['flat', 'score'])
def test_fills_up_with_the_next_ranked(weights, interactions):
    """Scores fall from item 0 on; gamma accepts item 0 alone."""
    users = torch.tensor([0, 1, 2, 3, 5, 5])
    wanted = torch.tensor([3, 1, 4, 8, 2, 5])
    scores = dense_scores(torch.linspace(1, 0, 10).expand(6, -1))
    row, item = ARGumbelSampler(0.01, weights)(interactions, users, wanted, scores, torch.zeros(6), 5, generator())
    drawn = [sorted(item[row == r].tolist()) for r in range(6)]
    assert drawn == [[0, 2, 3], [0], [], [6, 9], [0, 1], [0, 1, 4, 7, 9]]


def test_a_large_acceptance_beside_a_small_one(interactions):
    """Rows differ in how many accepted items are left: nobody draws beyond one's own share."""
    users = torch.tensor([1, 3, 0]).repeat(2000)
    scores = dense_scores(torch.linspace(1, 0, 10).expand(6000, -1))
    row, item = ARGumbelSampler(0.4, 'flat')(interactions, users, torch.ones_like(users), scores,
                                             torch.zeros_like(users), 5, generator())
    quarter, third = torch.zeros(10), torch.zeros(10)
    quarter[:4], third[[0, 2, 3]] = 1 / 4, 1 / 3  # user 0 saw item 1
    assert_frequencies(item[users[row] == 1].bincount(minlength=10), quarter)
    assert_frequencies(item[users[row] == 0].bincount(minlength=10), third)
    assert set(item[users[row] == 3].tolist()) == {6}  # none accepted: the next-ranked


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize('t', [0, 4])
@pytest.mark.parametrize('lam', [0.0, 3.0, 1e4])
def test_extreme_scores(dtype, t, lam, interactions):
    """Steps of 1e4 outweigh all noise: exactly the best unobserved items, in order."""
    users = torch.tensor([0, 3, 2, 1])
    scores = dense_scores((1e4 * torch.tensor([3.0, 9, -5, 1, 7, 0, -8, 2, -1, -2])).to(dtype).expand(4, -1))
    row, item = ARGumbelSampler(1.0, 'score', lam)(interactions, users, torch.tensor([2, 2, 2, 3]), scores,
                                                   torch.full((4,), t), 5, generator())
    assert row.tolist() == [0, 0, 1, 1, 3, 3, 3] and item.tolist() == [0, 7, 9, 6, 1, 4, 0]


def test_equal_scores_are_no_exception(interactions):
    users = torch.zeros(16_000, dtype=torch.long)
    item = ARGumbelSampler(1.0)(interactions, users, torch.ones_like(users),
                                dense_scores(torch.zeros(16_000, 10)), users, 5, generator())[1]
    free = (interactions.dense(torch.tensor([0]))[0] == 0).double()
    assert_frequencies(item.bincount(minlength=10), free / free.sum())


@pytest.mark.parametrize('options, message', [
    (dict(gamma=0.0), r"'gamma' must lie in \(0, 1\], got 0.0"),
    (dict(gamma=1.1), "'gamma'"),
    (dict(gamma=float('nan')), "'gamma'"),
    (dict(weights='softmax'), "'weights' must be one of flat, score; got 'softmax'"),
    (dict(lam=-1.0), "'lam' must be a finite number >= 0, got -1.0"),
    (dict(lam=float('inf')), "'lam'"),
    (dict(pool_size=0), "'pool_size' must be at least 1, got 0"),
])
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        ARGumbelSampler(**options)


def test_defaults():
    sampler = ARGumbelSampler()
    assert (sampler.gamma, sampler.weights, sampler.lam, sampler.pool_size) == (0.05, 'score', 3.0, None)
    assert ARGumbelSampler(pool_size=1).pool_size == 1


def test_scores_and_steps_are_needed(interactions):
    users = torch.tensor([0])
    with pytest.raises(ValueError, match="'scores' and 't' are needed"):
        ARGumbelSampler()(interactions, users, users + 1, t=users)
    with pytest.raises(ValueError, match="'scores' and 't' are needed"):
        ARGumbelSampler()(interactions, users, users + 1, dense_scores(torch.zeros(1, 10)))


@pytest.mark.parametrize('weights', ['flat', 'score'])
def test_pool_acceptance_converges_to_full_acceptance(weights):
    """Pools of 10, 100 and 1,000 of 2,000 items draw more and more like the whole catalogue."""
    rows, num_items = 4000, 2000
    interactions = InteractionMatrix(NOTHING_SEEN, 1, num_items)
    users = torch.zeros(rows, dtype=torch.long)
    score = torch.linspace(3, -3, num_items)
    scores, t = dense_scores(score.expand(rows, -1)), torch.zeros(rows, dtype=torch.long)

    def histogram(pool_size):
        """Ranks drawn, over 20 pools, in 20 bins of 20 and the rest."""
        counts = torch.zeros(num_items)
        for seed in range(20):
            sampler = ARGumbelSampler(0.1, weights, pool_size=pool_size)
            item = sampler(interactions, users, torch.ones_like(users), scores, t, 5, generator(seed))[1]
            counts += item.bincount(minlength=num_items)
        top = counts[:400].view(20, 20).sum(1) / counts.sum()
        return torch.cat([top, 1 - top.sum().view(1)])

    full = histogram(None)
    distance = [float((histogram(size) - full).abs().sum()) for size in (10, 100, 1000)]
    assert distance[0] > distance[1] > distance[2]
    assert distance[2] < 0.15


def test_one_row_alone_is_served():
    score = torch.arange(4.0).view(1, 4)
    row, item = ARGumbelSampler(0.5)(InteractionMatrix(NOTHING_SEEN, 1, 4), torch.tensor([0]), torch.tensor([2]),
                                     dense_scores(score), torch.zeros(1), 5, generator())
    assert row.tolist() == [0, 0] and sorted(item.tolist()) == [2, 3]


def test_a_pool_that_holds_just_enough_will_do():
    asked = []

    def scores(rows, items):
        asked.append(items)
        return torch.rand(rows.numel(), 4, generator=generator())

    users = torch.tensor([0, 1])
    row, item = ARGumbelSampler(0.5, pool_size=4)(
        InteractionMatrix(NOTHING_SEEN, 2, 10), users, torch.tensor([2, 1]), scores, torch.zeros(2), 5, generator())
    assert row.tolist() == [0, 0, 1] and len(asked) == 1 and set(item.tolist()) <= set(asked[0].tolist())


def test_a_pool_grows_for_those_who_need_more(interactions):
    """Asking for 8 items of a pool of 4: the pool grows to the catalogue, of which the next-ranked fill up."""
    users = torch.tensor([1, 0])
    scores = dense_scores(torch.linspace(1, 0, 10).expand(2, -1))
    sampler = ARGumbelSampler(0.25, 'flat', pool_size=4)
    row, item = sampler(interactions, users, torch.tensor([1, 8]), scores, torch.zeros(2), 5, generator())
    assert row.tolist() == [0] + [1] * 8 and sorted(item[1:].tolist()) == [0, 2, 3, 5, 6, 7, 8, 9]
