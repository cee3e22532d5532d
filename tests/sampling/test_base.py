"""What every sampler promises, and the law of ``draw_unobserved``."""
import pytest
import torch
from scipy.stats import chisquare

from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.sampling import (
    ARGumbelSampler,
    NegativeSampler,
    PopularitySampler,
    UniformSampler,
    base,
    dense_scores,
    first_per_row,
)
from tvdiff_pyg.testing import assert_frequencies, frequencies_p_value, successive_draws

SAMPLERS = [
    UniformSampler(),
    PopularitySampler(),
    PopularitySampler(-1e4),
    PopularitySampler(1e4),
    ARGumbelSampler(0.1, 'flat'),
    ARGumbelSampler(1.0, 'flat'),
    ARGumbelSampler(0.1, 'score'),
    ARGumbelSampler(0.5, 'score', lam=0.0),
    ARGumbelSampler(1.0, 'score', lam=1000.0),
    ARGumbelSampler(0.5, 'flat', pool_size=4),
    ARGumbelSampler(0.2, 'score', pool_size=1),
]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(sampler, interactions, users, num_negatives, seed=0, num_steps=5):
    scores = torch.randn(users.numel(), interactions.num_items, generator=generator(99))
    t = torch.randint(num_steps, users.shape, generator=generator(98))
    return sampler(interactions, users, num_negatives, dense_scores(scores), t, num_steps, generator(seed))


def test_first_per_row():
    row, item = torch.tensor([2, 0, 2, 0, 2, 0, 2]), torch.tensor([4, 1, 3, 1, 4, 0, 1])
    kept = first_per_row(row, item, 5, torch.tensor([3, 7, 2]))
    assert [index.tolist() for index in kept] == [[0, 0, 2, 2], [1, 0, 4, 3]]


@pytest.mark.parametrize('sampler', SAMPLERS, ids=repr)
def test_contract(sampler, interactions):
    users = torch.tensor([3, 0, 2, 5, 1, 4, 0, 5, 5]).repeat(50)
    seen = interactions.user_degree[users]
    for wanted in (seen, torch.full_like(seen, 3), torch.full_like(seen, 100), torch.zeros_like(seen),
                   torch.ones_like(seen), torch.arange(seen.numel()) % 5):
        row, item = draw(sampler, interactions, users, wanted)
        assert not interactions.contains(users[row], item).any()  # never an observed item
        assert torch.equal(row.bincount(minlength=users.numel()), torch.minimum(wanted, 10 - seen))
        assert torch.equal(row, row.sort().values)
        assert (row * 10 + item).unique().numel() == row.numel()  # none twice in a row
        assert ((0 <= item) & (item < 10)).all()


@pytest.mark.parametrize('sampler', SAMPLERS, ids=repr)
def test_generator(sampler, interactions):
    users = torch.tensor([0, 3, 5, 1, 0]).repeat(20)
    wanted = torch.full_like(users, 2)
    first, second, other = (draw(sampler, interactions, users, wanted, seed) for seed in (0, 0, 1))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    if getattr(sampler, 'gamma', 1) > 0.1 or getattr(sampler, 'pool_size', None):
        assert not torch.equal(first[1], other[1])  # gamma = 0.1 leaves one item, or two that fill up: no choice


@pytest.mark.parametrize('sampler', SAMPLERS, ids=repr)
def test_inputs_stay_untouched(sampler, interactions):
    users, wanted = torch.tensor([0, 5, 2]), torch.tensor([2, 5, 10])
    scores, t = torch.randn(3, 10, generator=generator()), torch.tensor([0, 1, 2])
    before = [v.clone() for v in (users, wanted, scores, t, interactions.col)]
    sampler(interactions, users, wanted, dense_scores(scores), t, 3, generator())
    assert all(map(torch.equal, before, (users, wanted, scores, t, interactions.col)))


@pytest.mark.parametrize('sampler', SAMPLERS, ids=repr)
def test_empty_batch(sampler, interactions):
    none = torch.empty(0, dtype=torch.long)
    row, item = draw(sampler, interactions, none, none)
    assert row.numel() == item.numel() == 0


def subset_law(weight, count):
    law = {}
    for outcome, p in successive_draws(weight, count).items():
        law[tuple(sorted(outcome))] = law.get(tuple(sorted(outcome)), 0) + p
    return law


def subset_counts(row, item, size, index):
    """How often each set of items was drawn; ``row`` is sorted, ``size`` items a row."""
    assert torch.equal(row.view(-1, size)[:, 0], torch.arange(row.numel() // size))
    keys = [tuple(sorted(s)) for s in item.view(-1, size).tolist()]
    return torch.tensor([keys.count(k) for k in index])


@pytest.mark.parametrize('weight', [None, [1.0, 4.0, 2.0, 0.5, 8.0, 3.0]], ids=['uniform', 'weighted'])
@pytest.mark.parametrize('count', [1, 2, 3])
@pytest.mark.parametrize('max_rounds', [0, 1, 8])
def test_law_on_few_items(weight, count, max_rounds, monkeypatch):
    """Rejection alone, the dense block alone, and one going on where the other left off follow one law."""
    monkeypatch.setattr(base, 'MAX_ROUNDS', max_rounds)
    interactions = InteractionMatrix(torch.tensor([[0, 0], [1, 5]]), 1, 6)
    rows = 5000
    users = torch.zeros(rows, dtype=torch.long)
    row, item = base.draw_unobserved(interactions, users, torch.full((rows,), count),
                                     None if weight is None else torch.tensor(weight), generator(1))
    free = [0, 2, 3, 4]
    law = subset_law([1.0 if weight is None else weight[j] for j in free], count)
    law = {tuple(free[k] for k in outcome): p for outcome, p in law.items()}
    assert_frequencies(subset_counts(row, item, count, law), torch.tensor(list(law.values())))


@pytest.mark.parametrize('weighted', [False, True])
def test_law_for_a_user_who_saw_nearly_everything(weighted, monkeypatch):
    """200 items of which 195 are seen: eight rounds of rejection hit the rest about once."""
    calls = []
    top_per_row = base.top_per_row
    monkeypatch.setattr(base, 'top_per_row', lambda key, count: calls.append(count.numel()) or top_per_row(key, count))
    free = [0, 17, 60, 100, 199]
    seen = torch.tensor([j for j in range(200) if j not in free])
    interactions = InteractionMatrix(torch.stack([torch.zeros_like(seen), seen]), 1, 200)
    weight = torch.ones(200)
    if weighted:
        weight[free] = torch.tensor([1.0, 2.0, 3.0, 4.0, 6.0])
    rows = 4000
    row, item = base.draw_unobserved(interactions, torch.zeros(rows, dtype=torch.long), torch.full((rows,), 2),
                                     weight if weighted else None, generator(2))
    assert 0.5 * rows < sum(calls) < rows and max(calls) <= base.ROWS_PER_BLOCK
    law = subset_law(weight[free].tolist(), 2)
    law = {tuple(free[k] for k in outcome): p for outcome, p in law.items()}
    assert_frequencies(subset_counts(row, item, 2, law), torch.tensor(list(law.values())))


def test_rows_are_independent_of_each_other():
    """Two rows of one user: the pair of first draws is uniform over all pairs."""
    interactions = InteractionMatrix(torch.tensor([[0], [3]]), 1, 4)
    counts = torch.zeros(9)
    users, draws = torch.zeros(2, dtype=torch.long), generator(3)
    for _ in range(1800):
        item = UniformSampler()(interactions, users, torch.ones_like(users), generator=draws)[1]
        counts[item[0] * 3 + item[1]] += 1
    assert_frequencies(counts, torch.full((9,), 1 / 9))


def test_gumbel():
    noise = base.gumbel((200_000,), generator(), torch.device('cpu'))
    assert noise.dtype == torch.float64 and noise.isfinite().all()
    edges = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    cdf = torch.cat([torch.zeros(1), (-(-edges).exp()).exp(), torch.ones(1)])
    assert_frequencies(torch.bucketize(noise, edges).bincount(minlength=7), cdf.diff())


def test_p_value_of_frequencies():
    count, law = torch.tensor([30, 40, 25, 0]), torch.tensor([0.25, 0.5, 0.25, 0.0])
    expected = chisquare([30, 40, 25], [95 / 4, 95 / 2, 95 / 4]).pvalue
    torch.testing.assert_close(frequencies_p_value(count, law), expected)
    assert frequencies_p_value(torch.tensor([30, 40, 25, 1]), law) == 0  # an impossible outcome
    with pytest.raises(AssertionError, match='p = 1'):
        assert_frequencies(torch.tensor([2500, 5000, 2500]), law[:3])  # too good to be drawn
    for bad in (torch.tensor([1, 1, 1, 0]), torch.tensor([30, 40, 25])):
        with pytest.raises(ValueError):
            frequencies_p_value(bad, law)


def test_top_per_row():
    key = torch.tensor([[1.0, 3, 2], [5, 4, 6], [0, 0, 1]])
    row, column = base.top_per_row(key, torch.tensor([2, 0, 1]))
    assert row.tolist() == [0, 0, 2] and column.tolist() == [1, 2, 2]


def test_a_subclass_is_a_sampler(interactions):
    class FirstUnobserved(NegativeSampler):
        def forward(self, interactions, users, num_negatives, scores=None, t=None, num_steps=1, generator=None):
            free = (interactions.dense(users) == 0).cumsum(1) * (interactions.dense(users) == 0)
            return ((free > 0) & (free <= num_negatives.view(-1, 1))).nonzero(as_tuple=True)

    row, item = FirstUnobserved()(interactions, torch.tensor([3, 0, 2]), torch.tensor([2, 3, 1]))
    assert row.tolist() == [0, 0, 1, 1, 1] and item.tolist() == [6, 9, 0, 2, 3]
    with pytest.raises(TypeError, match='abstract'):
        NegativeSampler()
