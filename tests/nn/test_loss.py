import math

import pytest
import torch

from tvdiff_pyg.nn import BCEEntropy, BPREntropy, EntropyTerm, HelmholtzFreeEnergy, NLLEntropy, dense_energy
from tvdiff_pyg.testing import bce_entropy, bpr_entropy, energy, free_energy, nll_entropy

N = 5
POSITIVES = [[0, 3], [], [0, 1, 2, 3, 4], [2]]  # user 1 saw nothing, user 2 everything
NEGATIVES = [[4, 1], [], [], [0]]


def table(seed=0, scale=2.0):
    return scale * torch.randn(4, N, generator=torch.Generator().manual_seed(seed))


def pairs(lists):
    return (torch.tensor([row for row, items in enumerate(lists) for _ in items]),
            torch.tensor([item for items in lists for item in items]))


def test_energy():
    x_0, output = table(0), table(1)
    expected = torch.tensor([energy(x, y) for x, y in zip(x_0.tolist(), output.tolist())])
    torch.testing.assert_close(dense_energy(x_0, output), expected)
    torch.testing.assert_close(energy([1.0, 0.0], [0.5, 2.0]), 2.125)  # the oracle, by hand


@pytest.mark.parametrize('scale', [1.0, 30.0])
def test_bce_and_nll(scale):
    output, (row, item), (negative_row, negative_item) = table(0, scale), pairs(POSITIVES), pairs(NEGATIVES)
    arguments = (output[row, item], row, output[negative_row, negative_item], negative_row, 4, N)
    rows = output.tolist()
    bce = torch.tensor([bce_entropy(r, p, n) for r, p, n in zip(rows, POSITIVES, NEGATIVES)])
    nll = torch.tensor([nll_entropy(r, p) for r, p in zip(rows, POSITIVES)])
    torch.testing.assert_close(BCEEntropy()(*arguments), bce)
    torch.testing.assert_close(NLLEntropy()(*arguments), nll)
    torch.testing.assert_close(NLLEntropy()(*arguments[:2], None, None, 4, N), nll)
    assert BCEEntropy()(*arguments)[1] == 0


def test_bce_by_hand():
    out = BCEEntropy()(torch.tensor([0.0]), torch.tensor([0]), torch.tensor([0.0]), torch.tensor([0]), 1, 4)
    torch.testing.assert_close(out, torch.tensor([-2 * math.log(2) / 4]))


@pytest.mark.parametrize('scale', [1.0, 30.0])
def test_bpr(scale):
    positive, negative = table(0, scale)[0], table(1, scale)[0]
    row, negative_row = torch.arange(5), torch.tensor([0, 1, 3, 4])  # row 2 has no negative
    expected = [bpr_entropy(float(positive[k]), float(negative[k]) if k != 2 else None) for k in range(5)]
    out = BPREntropy()(positive, row, negative[negative_row], negative_row, 5, N)
    torch.testing.assert_close(out, torch.tensor(expected))
    assert out[2] == 0


def test_bpr_by_hand_and_its_floor():
    def term(difference):
        zero = torch.zeros(1, dtype=torch.long)
        positive = torch.tensor([difference], requires_grad=True)
        out = BPREntropy()(positive, zero, torch.zeros(1), zero, 1, N)
        return float(out.detach()), float(torch.autograd.grad(out.sum(), positive)[0])

    torch.testing.assert_close(term(0.0)[0], math.log(1e-5 + 0.5))
    torch.testing.assert_close(term(-1e4), (math.log(1e-5), 0.0))
    torch.testing.assert_close(term(1e4), (math.log(1e-5 + 1), 0.0))


def test_extreme_scores_stay_finite():
    score, row = torch.tensor([-1e4, 1e4], requires_grad=True), torch.tensor([0, 0])
    out = BCEEntropy()(score, row, score, row, 1, 2)
    torch.testing.assert_close(out, torch.tensor([-1e4]))
    out.sum().backward()
    torch.testing.assert_close(score.grad, torch.tensor([0.5, -0.5]))


@pytest.mark.parametrize('temperature', [0.0, 0.5, 10.0])
def test_free_energy(temperature):
    e, s = table(0)[0], table(1)[0]
    mean = HelmholtzFreeEnergy('bce', temperature)(e, s, N)
    torch.testing.assert_close(mean.loss.item(), free_energy(e.tolist(), s.tolist(), temperature))
    torch.testing.assert_close(mean.energy, e.mean())
    torch.testing.assert_close(mean.entropy, s.mean())
    total = HelmholtzFreeEnergy('bce', temperature, 'sum')(e, s, N)
    torch.testing.assert_close(total.loss, N * mean.loss)
    torch.testing.assert_close(total.energy, mean.energy)  # the terms are reported alike

    weight = torch.tensor([2.0, 0.0, 1.0, 0.5, 1.0])
    weighted = HelmholtzFreeEnergy('bce', temperature)(e, s, N, weight)
    torch.testing.assert_close(weighted.loss, (weight * (e - temperature * s)).sum() / 5)
    torch.testing.assert_close(weighted.energy, e.mean())


def test_gradient_flows_through_the_loss_alone():
    e, s = torch.rand(3, requires_grad=True), torch.rand(3, requires_grad=True)
    terms = HelmholtzFreeEnergy('bce', 2.0)(e, s, N)
    assert not terms.energy.requires_grad and not terms.entropy.requires_grad
    terms.loss.backward()
    torch.testing.assert_close(e.grad, torch.full((3,), 1 / 3))
    torch.testing.assert_close(s.grad, torch.full((3,), -2 / 3))


def test_temperature_zero_needs_nothing():
    loss = HelmholtzFreeEnergy('bce', 0.0)
    assert not loss.uses_entropy and not loss.needs_negatives
    terms = loss(torch.tensor([1.0, 3.0]), None, N)
    assert terms.loss == 2 and terms.entropy == 0


def test_what_the_terms_need():
    assert [(t.pairwise, t.needs_negatives) for t in (BCEEntropy, NLLEntropy, BPREntropy)] == [
        (False, True), (False, False), (True, True)]
    assert not HelmholtzFreeEnergy('nll').needs_negatives and HelmholtzFreeEnergy('bpr').needs_negatives
    term = BPREntropy()
    assert HelmholtzFreeEnergy(term).entropy is term
    with pytest.raises(TypeError, match='abstract'):
        EntropyTerm()


@pytest.mark.parametrize('options, message', [
    (dict(entropy='ce'), "'entropy' must be one of bce, nll, bpr; got 'ce'"),
    (dict(temperature=-1.0), "'temperature' must be a finite number >= 0, got -1.0"),
    (dict(temperature=float('nan')), "'temperature'"),
    (dict(temperature=float('inf')), "'temperature'"),
    (dict(reduction='none'), "'reduction' must be one of mean, sum; got 'none'"),
])
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        HelmholtzFreeEnergy(**options)


def test_defaults():
    loss = HelmholtzFreeEnergy()
    assert isinstance(loss.entropy, BCEEntropy) and loss.temperature == 1 and loss.reduction == 'mean'


def test_missing_entropy():
    with pytest.raises(ValueError, match="'entropy' is needed at temperature 2.0"):
        HelmholtzFreeEnergy('bce', 2.0)(torch.ones(2), None, N)
