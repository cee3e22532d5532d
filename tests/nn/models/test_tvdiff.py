import copy
import pickle

import pytest
import torch

from tvdiff_pyg.diffusion import GaussianDiffusion, LossHistoryTimesteps, NoiseSchedule, TimestepSampler
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn import AnisotropicDenoiser, DiffRec, EntropyTerm, HelmholtzFreeEnergy, TVDiff
from tvdiff_pyg.sampling import ARGumbelSampler, NegativeSampler, PopularitySampler, UniformSampler
from tvdiff_pyg.testing import bce_entropy, bpr_entropy, energy, free_energy, nll_entropy, planted_blocks, tvdiff_scores
from tvdiff_pyg.typing import Batch

# user 2 saw nothing, user 3 everything; item 4 is user 3's alone
MATRIX = InteractionMatrix(torch.tensor([[0, 0, 1, 3, 3, 3, 3, 3], [0, 2, 1, 0, 1, 2, 3, 4]]), 4, 5)
USERS = torch.tensor([3, 0, 2, 1, 0])
PAIRS = Batch(torch.tensor([0, 3, 0, 1]), torch.tensor([2, 4, 0, 1]))


def build(entropy='bce', temperature=2.0, reduction='mean', sampler=None, timesteps=None, prediction='x0',
          schedule=None, dropout=0.0, engine='dense', **options):
    torch.manual_seed(0)
    schedule = {'name': 'linear', 'num_steps': 3, 'scale': 1.0, 'beta_min': 0.1, 'beta_max': 0.5, **(schedule or {})}
    denoiser = AnisotropicDenoiser(4, 5, **{'hidden_channels': 3, 'time_channels': 4, 'dropout': dropout, **options})
    return TVDiff(MATRIX, denoiser, GaussianDiffusion(NoiseSchedule(**schedule), prediction),
                  HelmholtzFreeEnergy(entropy, temperature, reduction), sampler or UniformSampler(), timesteps, engine)


def batch_of(entropy):
    return PAIRS if entropy == 'bpr' else Batch(USERS)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Recorder(NegativeSampler):
    """Takes the first unobserved items and remembers what it was given."""

    def forward(self, interactions, users, num_negatives, scores=None, t=None, num_steps=1, generator=None):
        self.seen = users, num_negatives, scores, t, num_steps
        free = interactions.dense(users) == 0
        self.negatives = (free & (free.cumsum(1) <= num_negatives.view(-1, 1))).nonzero(as_tuple=True)
        return self.negatives


class AllSteps(TimestepSampler):
    """Steps 0, 1, 2, 0, 1, ... with weights that show."""

    def forward(self, batch_size, device=None, generator=None):
        t = torch.arange(batch_size, device=device) % self.num_steps
        return t, 1.0 + t

    def update(self, t, loss):
        self.told = t, loss


class MeanScore(EntropyTerm):
    """The sum of a row's positive scores."""

    needs_negatives = False

    def forward(self, positive, positive_row, negative, negative_row, num_rows, num_items):
        assert negative is None and negative_row is None
        return torch.zeros(num_rows).index_add(0, positive_row, positive)


@pytest.mark.parametrize('entropy', ['bce', 'nll', 'bpr'])
@pytest.mark.parametrize('prediction', ['x0', 'eps'])
@pytest.mark.parametrize('reduction', ['mean', 'sum'])
def test_training_loss_against_loops(entropy, prediction, reduction):
    """Everything after the network, user by user, item by item."""
    sampler, timesteps, captured = Recorder(), AllSteps(3), {}
    model = build(entropy, 2.0, reduction, sampler, timesteps, prediction)
    model.denoiser.register_forward_hook(lambda m, args, out: captured.update(x=args[0], t=args[1], out=out.detach()))
    batch = batch_of(entropy)
    terms = model.training_loss(batch, generator())

    beta = [1e-5, 0.3, 0.5]  # linear from 0.1 to 0.5, the first fixed
    x_0 = MATRIX.dense(batch.users)
    noise = torch.randn(x_0.shape, generator=generator())  # the first thing drawn: AllSteps draws nothing
    energies, entropies = [], []
    sampled = dict(zip(range(9), [[] for _ in range(9)]))
    if entropy != 'nll':
        for row, item in zip(*(v.tolist() for v in sampler.negatives)):
            sampled[row].append(item)
    for b, user in enumerate(batch.users.tolist()):
        t = b % 3
        abar = torch.tensor([1 - v for v in beta[:t + 1]]).prod()
        x_t = abar.sqrt() * x_0[b] + (1 - abar).sqrt() * noise[b]
        torch.testing.assert_close(captured['x'][b], x_t)
        assert captured['t'][b] == t
        out = captured['out'][b]
        target = x_0[b] if prediction == 'x0' else noise[b]
        score = out if prediction == 'x0' else (x_t - (1 - abar).sqrt() * out) / abar.sqrt()
        energies.append(energy(target.tolist(), out.tolist()))
        seen = [j for j in range(5) if x_0[b, j]]
        if entropy == 'bpr':
            i, negative = int(batch.items[b]), sampled[b]
            entropies.append(bpr_entropy(float(score[i]), float(score[negative[0]]) if negative else None))
        elif entropy == 'bce':
            assert len(sampled[b]) == min(len(seen), 5 - len(seen))
            entropies.append(bce_entropy(score.tolist(), seen, sampled[b]))
        else:
            entropies.append(nll_entropy(score.tolist(), seen))
        if entropy != 'nll':
            this, some = torch.tensor([b]), torch.tensor([3, 1])
            torch.testing.assert_close(sampler.seen[2](this, None)[0], score)
            torch.testing.assert_close(sampler.seen[2](this, some)[0], score[some])
    weight = [1.0 + b % 3 for b in range(len(energies))]
    expected = free_energy([w * e for w, e in zip(weight, energies)], [w * s for w, s in zip(weight, entropies)], 2.0)
    torch.testing.assert_close(terms.loss.item(), expected * (5 if reduction == 'sum' else 1))
    torch.testing.assert_close(terms.energy.item(), sum(energies) / len(energies))
    torch.testing.assert_close(terms.entropy.item(), sum(entropies) / len(entropies))
    told = torch.tensor([e - 2.0 * s for e, s in zip(energies, entropies)])
    torch.testing.assert_close(timesteps.told, (captured['t'], told))
    assert not timesteps.told[1].requires_grad
    if entropy != 'nll':
        users, num_negatives, scores, t, num_steps = sampler.seen
        assert users is batch.users and num_steps == 3
        assert not scores(torch.arange(2), None).requires_grad
        assert num_negatives.tolist() == ([1] * 4 if entropy == 'bpr' else [5, 2, 0, 1, 2])


@pytest.mark.parametrize('entropy', ['bce', 'bpr'])
def test_temperature_zero_is_the_diffusion_objective(entropy):
    model = build(entropy, 0.0)
    terms = model.training_loss(batch_of(entropy), generator())
    torch.testing.assert_close(terms.loss, terms.energy)
    assert terms.entropy == 0
    parts = (MATRIX, model.denoiser, model.diffusion, model.loss)
    without = TVDiff(*parts, engine='dense').training_loss(batch_of(entropy), generator())  # no sampler is needed
    torch.testing.assert_close(without.loss, terms.loss)


class Loss(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch):
        return self.model.training_loss(batch, generator()).loss


@pytest.mark.parametrize('entropy', ['bce', 'nll', 'bpr'])
@pytest.mark.parametrize('options', [
    dict(), dict(prediction='eps', time_type='gate'), dict(hidden_channels=[3, 2], time_type='align', reduction='sum'),
    dict(normalization='none', sampler=ARGumbelSampler(0.4)), dict(dropout=0.5), dict(schedule={'scale': 0.0}),
], ids=str)
def test_gradients(entropy, options):
    loss = Loss(build(entropy, **options))  # one generator state: noise, dropout and negatives stay what they are
    names, values = zip(*loss.named_parameters())

    def function(*parameters):
        return torch.func.functional_call(loss, dict(zip(names, parameters)), (batch_of(entropy),))

    values = [v.detach().clone().requires_grad_() for v in values]
    assert torch.autograd.gradcheck(function, values)
    grads = torch.autograd.grad(function(*values), values)
    assert all(g.abs().sum() > 0 for g in grads)  # every weight takes part


SETTINGS = [
    dict(), dict(time_type='align', hidden_channels=[3, 4]), dict(time_type='gate', normalization='linkprop'),
    dict(num_hops=2), dict(num_hops=3, normalization='linkprop', hidden_channels=[3, 4]),
    dict(normalization='none'), dict(normalization='left', schedule={'name': 'cosine', 'num_steps': 7}),
    dict(schedule={'name': 'binomial', 'num_steps': 1}), dict(schedule={'name': 'linear-var', 'scale': 1e-4}),
]


@pytest.mark.parametrize('engine', ['dense', 'factored'])
@pytest.mark.parametrize('prediction, options', [
    *[(prediction, options) for prediction in ('x0', 'eps') for options in SETTINGS],
    ('x0', dict(schedule={'scale': 0.0}))], ids=str)
def test_scorer_is_the_dense_reverse_process(prediction, options, engine):
    model = build(prediction=prediction, dropout=0.5, engine=engine, **options)
    expected = tvdiff_scores(model, USERS)
    out = model.train().scorer()(USERS)
    # eps with cosine divides by sqrt(abar), 1e-3 at the end: relative to the largest entry
    torch.testing.assert_close(out, expected, rtol=1e-7, atol=1e-7 * max(1.0, float(expected.abs().max())))
    assert not out.requires_grad
    single = torch.cat([model.scorer()(u.view(1)) for u in USERS])
    torch.testing.assert_close(single, out)


def test_the_oracle_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="'model' must have an AnisotropicDenoiser, got MLPDenoiser"):
        tvdiff_scores(DiffRec(MATRIX, GaussianDiffusion(NoiseSchedule()), 3), USERS)


@pytest.mark.parametrize('mode', [True, False])
def test_scorer_restores_the_mode_and_changes_nothing(mode):
    model = build(dropout=0.5).train(mode)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    score = model.scorer()
    assert all(m.training == mode for m in model.modules())
    first = score(USERS)
    assert all(m.training == mode for m in model.modules())
    assert torch.equal(first, score(USERS))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with torch.no_grad():
        model.denoiser.item_weight.mul_(2)
    torch.testing.assert_close(model.scorer()(USERS), tvdiff_scores(model, USERS))  # a new scorer, the present weights


def test_same_seed_same_loss():
    for entropy in ('bce', 'bpr'):
        model = build(entropy, sampler=ARGumbelSampler(0.4), dropout=0.5, timesteps=LossHistoryTimesteps(3))
        first, second, other = (model.training_loss(batch_of(entropy), generator(s)).loss for s in (1, 1, 2))
        assert torch.equal(first, second) and not torch.equal(first, other)
        global_state = torch.get_rng_state()
        model.training_loss(batch_of(entropy), generator())
        assert torch.equal(global_state, torch.get_rng_state())


def test_state_dict_holds_weights_only_and_copies_are_whole():
    model = build()
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin.scorer()(USERS), model.scorer()(USERS))
        assert torch.equal(twin.training_loss(Batch(USERS), generator()).loss,
                           model.training_loss(Batch(USERS), generator()).loss)
    torch.testing.assert_close(build(normalization='raw').graph.matmul(torch.eye(4)),
                               MATRIX.dense(torch.arange(4)).t())
    assert build(normalization='none').graph is None
    assert model.float().scorer()(USERS).dtype == torch.float32


@pytest.mark.parametrize('options', [
    dict(sampler=Recorder()), dict(timesteps=AllSteps(3)), dict(entropy=MeanScore()),
    dict(sampler=Recorder(), timesteps=AllSteps(3))], ids=['sampler', 'timesteps', 'entropy', 'both'])
def test_trivial_subclasses_train(options):
    model = build(**options)
    terms = model.training_loss(Batch(USERS), generator())
    terms.loss.backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())
    torch.optim.SGD(model.parameters(), 1e-3).step()
    assert model.training_loss(Batch(USERS), generator()).loss < terms.loss


def test_an_entropy_term_of_ones_own_is_used():
    model = build(entropy=MeanScore(), temperature=3.0, schedule={'scale': 0.0})
    output = model.denoiser(MATRIX.dense(USERS), torch.zeros(5), model.denoiser.items(model.graph))
    model.denoiser.code = lambda z, t, code=model.denoiser.code: code(z, torch.zeros(5))
    terms = model.training_loss(Batch(USERS), generator())
    torch.testing.assert_close(terms.entropy, (output * MATRIX.dense(USERS)).sum(1).mean())
    torch.testing.assert_close(terms.loss, terms.energy - 3 * terms.entropy)


@pytest.mark.parametrize('entropy', ['bce', 'bpr', 'nll'])
@pytest.mark.parametrize('sampler', [
    UniformSampler(), PopularitySampler(), ARGumbelSampler(0.01), ARGumbelSampler(1.0)], ids=repr)
def test_users_with_nothing_and_with_everything(entropy, sampler):
    model = build(entropy, sampler=sampler)
    batch = Batch(torch.tensor([3, 3]), torch.tensor([0, 4])) if entropy == 'bpr' else Batch(torch.tensor([2, 3]))
    terms = model.training_loss(batch, generator())
    assert terms.loss.isfinite()
    if entropy == 'bpr':  # no negative at all
        torch.testing.assert_close(terms.loss, terms.energy)


@pytest.mark.parametrize('entropy', ['bce', 'bpr'])
@pytest.mark.parametrize('sampler', [UniformSampler(), ARGumbelSampler(0.5)], ids=repr)
def test_planted_blocks(entropy, sampler):
    """Every user's held-out item comes first once seen items are masked."""
    data = planted_blocks(4, 8, 8, generator=generator())
    matrix = InteractionMatrix(*data[:3])
    torch.manual_seed(0)
    model = TVDiff(matrix, AnisotropicDenoiser(32, 32, 8, 8), GaussianDiffusion(NoiseSchedule(num_steps=3)),
                   HelmholtzFreeEnergy(entropy, 0.2), sampler)
    optimizer, draw = torch.optim.Adam(model.parameters(), 1e-2), generator()
    users, items = matrix.edge_index
    for _ in range(300):
        if entropy == 'bpr':
            index = torch.randint(users.numel(), (64,), generator=draw)
            batch = Batch(users[index], items[index])
        else:
            batch = Batch(torch.randperm(32, generator=draw))
        optimizer.zero_grad()
        model.training_loss(batch, draw).loss.backward()
        optimizer.step()
    everyone = torch.arange(32)
    seen = matrix.dense(everyone).bool()
    scores = model.scorer()(everyone)
    torch.testing.assert_close(scores, tvdiff_scores(model, everyone))
    assert torch.equal(scores.masked_fill(seen, -torch.inf).argmax(1), data.held_out.view(-1))


@pytest.mark.parametrize('part, message', [
    (dict(denoiser=AnisotropicDenoiser(4, 6, 3)), "'denoiser' is for 4 users x 6 items, 'interactions' for 4 x 5"),
    (dict(sampler=None), "'sampler' is needed"),
    (dict(timesteps=LossHistoryTimesteps(4)), "'timesteps' draws from 4 steps, 'diffusion' has 3"),
])
def test_errors(part, message):
    model = build()
    parts = dict(interactions=MATRIX, denoiser=model.denoiser, diffusion=model.diffusion, loss=model.loss,
                 sampler=UniformSampler())
    with pytest.raises(ValueError, match=message):
        TVDiff(**{**parts, **part})


def test_pairwise_loss_needs_pairs():
    with pytest.raises(ValueError, match="'batch' must hold pairs"):
        build('bpr').training_loss(Batch(USERS), generator())
