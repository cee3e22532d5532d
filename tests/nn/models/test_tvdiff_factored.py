"""The factored engine against the dense oracle (SPEC 7)."""
import pytest
import torch

from tvdiff_pyg.diffusion import GaussianDiffusion, NoiseSchedule
from tvdiff_pyg.interaction_matrix import InteractionMatrix
from tvdiff_pyg.nn import AnisotropicDenoiser, HelmholtzFreeEnergy, TVDiff
from tvdiff_pyg.nn.functional import Entries
from tvdiff_pyg.nn.models import tvdiff
from tvdiff_pyg.sampling import ARGumbelSampler, UniformSampler
from tvdiff_pyg.typing import Batch

M, N = 7, 11
MATRIX = InteractionMatrix((torch.rand(M, N, generator=torch.Generator().manual_seed(5)) < 0.35).nonzero().t(), M, N)
USERS = torch.tensor([3, 0, 2, 6, 0])
NOISY = {'name': 'linear', 'num_steps': 4, 'scale': 1.0, 'beta_min': 0.1, 'beta_max': 0.5}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def build(engine, entropy='bce', temperature=2.0, reduction='mean', sampler=None, schedule=None, prediction='x0',
          num_probes=64, energy_items=None, energy_rank=0, row_gradients=False, **options):
    torch.manual_seed(0)
    denoiser = AnisotropicDenoiser(M, N, **{'hidden_channels': 4, 'time_channels': 6, 'dropout': 0.0, **options})
    return TVDiff(MATRIX, denoiser, GaussianDiffusion(NoiseSchedule(**{**NOISY, **(schedule or {})}), prediction),
                  HelmholtzFreeEnergy(entropy, temperature, reduction), sampler or UniformSampler(),
                  engine=engine, num_probes=num_probes, energy_items=energy_items, energy_rank=energy_rank,
                  row_gradients=row_gradients)


def batch_of(entropy):
    if entropy != 'bpr':
        return Batch(USERS)
    row, item = MATRIX.rows(USERS)
    return Batch(USERS[row], item)


def loss_and_gradients(model, batch, seed=0):
    terms = model.training_loss(batch, generator(seed))
    return terms, torch.autograd.grad(terms.loss, list(model.parameters()))


@pytest.mark.parametrize('entropy', ['bce', 'nll', 'bpr'])
@pytest.mark.parametrize('options', [
    dict(), dict(temperature=0.0), dict(reduction='sum'), dict(sampler=ARGumbelSampler(0.5)),
    dict(time_type='align', normalization='left'), dict(time_type='gate', hidden_channels=[4, 3]),
    dict(normalization='none'), dict(normalization='linkprop', hidden_channels=[3, 5, 2])], ids=str)
def test_without_noise_the_engines_are_one(entropy, options):
    """No noise and no dropout: the same draws, hence the same loss, terms and gradients."""
    models = [build(engine, entropy, schedule={'scale': 0.0}, **options) for engine in ('dense', 'factored')]
    (dense, dense_grad), (factored, factored_grad) = (loss_and_gradients(model, batch_of(entropy)) for model in models)
    torch.testing.assert_close(factored, dense)
    torch.testing.assert_close(factored_grad, dense_grad)


@pytest.mark.parametrize('entropy', ['bce', 'bpr'])
def test_with_the_same_noise_the_engines_are_one(entropy, monkeypatch):
    """The dense engine is given the rows that the probes mix to."""
    mixed = {}
    noisy_matmul = tvdiff.noisy_matmul

    def record(entries, value, mixing, probes, table, index):
        mixed['noise'] = mixing @ probes
        return noisy_matmul(entries, value, mixing, probes, table, index)

    monkeypatch.setattr(tvdiff, 'noisy_matmul', record)
    dense, factored = (build(engine, entropy, temperature=0.0) for engine in ('dense', 'factored'))
    batch = batch_of(entropy)
    expected, gradients = loss_and_gradients(factored, batch)
    t = factored.timesteps(batch.users.numel(), None, generator())[0]
    unit = mixed['noise'] / factored.diffusion.schedule.sqrt_one_minus_alpha_bar[t].unsqueeze(1)
    monkeypatch.setattr(tvdiff, 'standard_normal', lambda like, generator: unit)
    got, dense_gradients = loss_and_gradients(dense, batch)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(dense_gradients, gradients)


@pytest.mark.parametrize('entropy', ['bce', 'bpr'])
@pytest.mark.parametrize('options', [
    dict(), dict(hidden_channels=[4, 3]), dict(energy_items=6), dict(energy_items=6, row_gradients=True),
    dict(energy_items=6, energy_rank=2, normalization='none')], ids=str)
def test_trains_under_autocast(entropy, options):
    model = build('factored', entropy, **options).float()
    expected, gradients = loss_and_gradients(model, batch_of(entropy))
    with torch.autocast('cpu', torch.bfloat16):
        terms = model.training_loss(batch_of(entropy), generator())
    torch.testing.assert_close(terms.loss, expected.loss, rtol=1e-2, atol=0)
    for parameter, near in zip(model.parameters(), gradients):
        grad, = torch.autograd.grad(terms.loss, parameter, retain_graph=True)
        assert grad.dtype == torch.float32
        assert (grad.to_dense() - near.to_dense()).norm() < 0.05 * near.to_dense().norm()


def samples_of_z(engine, dropout, draws=30_000):
    """The input layer's output for one user at one step, many times over."""
    model = build(engine, dropout=dropout).train()
    users, t = torch.full((draws,), 3), torch.full((draws,), 2)
    x_0 = MATRIX.dense(users[:1]).expand(draws, -1)
    if engine == 'dense':
        x_t = model.diffusion.q_sample(x_0, t, generator=generator(1))
        return model.denoiser.encode(x_t, generator(2)).detach()
    # Probes are shared within a batch: a batch of one row each, so that the draws are independent.
    draw, out = generator(3), []
    observed = Entries.of(*MATRIX.rows(users[:1]), 1, N)
    for _ in range(draws // 10):
        out.append(model._noisy_input(observed, t[:1], torch.float64, draw).detach())
    return torch.cat(out)


@pytest.mark.parametrize('dropout', [0.0, 0.5])
def test_shared_probes_have_the_mean_and_covariance_of_the_dense_process(dropout):
    """Two-sided, at 4.5 standard errors for each of 4 means and 10 covariances; the exact moments are known."""
    model = build('dense', dropout=dropout)
    weight, x_0 = model.denoiser.item_weight.detach(), MATRIX.dense(torch.tensor([3]))[0]
    sqrt_abar = model.diffusion.schedule.sqrt_alpha_bar[2]
    sigma2 = model.diffusion.schedule.sqrt_one_minus_alpha_bar[2] ** 2
    keep = 1 - dropout
    mean = sqrt_abar * x_0 @ weight
    variance = (sigma2 + sqrt_abar ** 2 * x_0 * (1 - keep)) / keep  # of an entry of drop(x_t)
    covariance = weight.t() @ (variance.unsqueeze(1) * weight)
    for engine in ('dense', 'factored'):
        z = samples_of_z(engine, dropout)
        error = covariance.diagonal().div(len(z)).sqrt()
        assert ((z.mean(0) - mean).abs() < 4.5 * error).all(), engine
        products = torch.einsum('ni,nj->nij', z - mean, z - mean)
        error = products.std(0) / len(z) ** 0.5
        assert ((products.mean(0) - covariance).abs() < 4.5 * error).all(), engine


def test_users_noise_is_standard_normal_whatever_the_number_of_probes():
    for num_probes in (1, 3):
        model = build('factored', num_probes=num_probes)
        observed = Entries.of(torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long), 1, N)
        draw = generator(4)
        z = torch.cat([model._noisy_input(observed, torch.tensor([2]), torch.float64, draw).detach()
                       for _ in range(3000)])
        z /= model.diffusion.schedule.sqrt_one_minus_alpha_bar[2]
        covariance = (model.denoiser.item_weight.t() @ model.denoiser.item_weight).detach()
        products = torch.einsum('ni,nj->nij', z, z)
        assert ((products.mean(0) - covariance).abs() < 4.5 * products.std(0) / len(z) ** 0.5).all()


@pytest.mark.parametrize('entropy', ['bce', 'bpr'])
def test_the_gradient_agrees_in_expectation(entropy):
    """The whole loss with noise, dropout and random negatives, averaged over draws; two-sided, 5 standard errors."""
    noise = {'beta_min': 0.001, 'beta_max': 0.01}  # SPEC 7e: with dropout exact to second order in the noise
    mean, error = {}, {}
    for engine in ('dense', 'factored'):
        model = build(engine, entropy, dropout=0.5, schedule=noise).train()
        batch, draws = batch_of(entropy), 600
        gradients = torch.stack([
            torch.cat([g.view(-1) for g in loss_and_gradients(model, batch, seed)[1]]) for seed in range(draws)])
        mean[engine], error[engine] = gradients.mean(0), gradients.std(0) / draws ** 0.5
    difference = (mean['factored'] - mean['dense']).abs()
    scale = (error['factored'] ** 2 + error['dense'] ** 2).sqrt()
    assert (difference <= 5 * scale + 1e-12).all()
    assert mean['dense'].norm() > 10 * scale.norm() / scale.numel() ** 0.5  # and there is a gradient to agree on


@pytest.mark.parametrize('energy_rank', [0, 2])
@pytest.mark.parametrize('entropy', ['bce', 'bpr'])
def test_the_stochastic_gradient_agrees_in_expectation(entropy, energy_rank):
    """Against the exact energy, averaged over draws of items; two-sided, 5 standard errors."""
    options = dict(entropy=entropy, schedule={'scale': 0.0}, temperature=0.0)
    models = [build('factored', **options),
              build('factored', energy_items=6, energy_rank=energy_rank, **options)]
    results = [[], []]
    for seed in range(400):
        for model, into in zip(models, results):  # the same steps, which are drawn first
            terms, gradients = loss_and_gradients(model, batch_of(entropy), seed)
            into.append(torch.cat([terms.loss.detach().view(1), *(g.view(-1) for g in gradients)]))
    difference = torch.stack(results[1]) - torch.stack(results[0])
    error = difference.std(0) / len(difference) ** 0.5
    assert (difference.mean(0).abs() <= 5 * error + 1e-12).all() and error[0] > 0 and error.norm() > 0


@pytest.mark.parametrize('entropy', ['bce', 'nll', 'bpr'])
@pytest.mark.parametrize('options', [
    dict(), dict(temperature=0.0), dict(sampler=ARGumbelSampler(0.5, pool_size=4)), dict(normalization='none'),
    dict(sampler=ARGumbelSampler(0.5)), dict(hidden_channels=[3, 5], normalization='left')], ids=str)
def test_the_rows_that_a_step_touches_are_enough(entropy, options, monkeypatch):
    """All rows of H or some, dense gradients or sparse ones: the same loss and gradients (SPEC 7g)."""
    models = [build('factored', entropy, schedule={'scale': 0.0}, energy_items=3, row_gradients=sparse, **options)
              for sparse in (False, False, True)]
    batch = batch_of(entropy)._replace(users=torch.tensor([3, 0])) if entropy != 'bpr' else \
        Batch(*(part[:3] for part in batch_of(entropy)))
    items, touched = models[0].denoiser.items, []
    monkeypatch.setattr(models[1].denoiser, 'items', lambda graph, index=None, sparse_grad=False: touched.append(
        index) or items.__func__(models[1].denoiser, graph, index, sparse_grad))
    results = []
    for model, few in zip(models, (False, True, False)):
        monkeypatch.setattr(model, '_few_edges', lambda items, few=few: few)
        terms = model.training_loss(batch, generator())
        terms.loss.backward()
        results.append((terms, [parameter.grad.to_dense() for parameter in model.parameters()]))
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[2], results[0])
    if not isinstance(models[1].sampler, ARGumbelSampler):  # which may ask for the whole catalogue
        assert touched and all(index is not None for index in touched)
    assert models[2].denoiser.item_weight.grad.is_sparse
    big = models[2].denoiser.item_table if options.get('normalization') == 'none' else models[2].denoiser.conv.weight
    assert big.grad.is_sparse


def test_rows_are_chosen_by_their_edges():
    assert build('factored', energy_items=1, normalization='none')._few_edges(torch.arange(N))
    model = build('factored', energy_items=1, hidden_channels=1000)
    degree = MATRIX.item_degree
    assert model._few_edges(degree.argmin().view(1)) and not model._few_edges(torch.arange(N))
    narrow = build('factored', energy_items=1, hidden_channels=1)  # gathering an edge costs more than its product
    half = degree.argsort()[:N // 2]
    assert model._few_edges(half) and not narrow._few_edges(half)


def test_noise_on_a_random_subset_has_the_right_covariance_in_the_mean():
    """Two-sided, 4.5 standard errors."""
    model = build('factored', energy_items=5, row_gradients=True)
    observed, draw = Entries.of(torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long), 1, N), generator(4)
    z = torch.cat([model._noisy_input(observed, torch.tensor([2]), torch.float64, draw).detach() for _ in range(6000)])
    z /= model.diffusion.schedule.sqrt_one_minus_alpha_bar[2]
    covariance = (model.denoiser.item_weight.t() @ model.denoiser.item_weight).detach()
    products = torch.einsum('ni,nj->nij', z, z)
    assert ((products.mean(0) - covariance).abs() < 4.5 * products.std(0) / len(z) ** 0.5).all()


def test_noise_on_a_random_subset_leaves_the_energy_without_bias():
    """A user without interactions and codes near 0, where tanh is linear: the energy is known. Two-sided, 4.5 standard
    errors; noise on the energy's own items would read twice as much."""
    matrix = InteractionMatrix(MATRIX.edge_index, M + 1, N)
    model = TVDiff(matrix, AnisotropicDenoiser(M + 1, N, 4, dropout=0.0), GaussianDiffusion(NoiseSchedule(num_steps=1)),
                   HelmholtzFreeEnergy('nll', 0.0), energy_items=1, row_gradients=True)
    variance = model.diffusion.schedule.sqrt_one_minus_alpha_bar[0] ** 2
    items = model.denoiser.items(model.graph).detach()
    with torch.no_grad():
        model.denoiser.time_weight.zero_()
        model.denoiser.item_weight.copy_(0.1 * items)  # an item's own score is what its noise moves most
    draw, energies = generator(7), []
    for _ in range(2000):
        energies.append(model.training_loss(Batch(torch.tensor([M])), draw).energy.detach() / variance)
    energy = torch.stack(energies)
    expected = (0.1 * items @ items.t()).square().sum() / N
    assert (energy.mean() - expected).abs() < 4.5 * energy.std() / len(energy) ** 0.5 < 0.5 * expected


def test_a_sample_as_large_as_the_catalogue_is_the_exact_energy():
    got, expected = (loss_and_gradients(build('factored', energy_items=size), batch_of('bce')) for size in (N, None))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize('start_step', [1, 2, 4])
@pytest.mark.parametrize('prediction', ['x0', 'eps'])
def test_start_step(start_step, prediction):
    scores = [build(engine, prediction=prediction).scorer(start_step, generator=generator())(USERS)
              for engine in ('dense', 'factored')]
    torch.testing.assert_close(*scores)


def test_sampling_noise_falls_back_to_the_oracle_and_says_so():
    with pytest.warns(UserWarning, match='no exact form in the latent space'):
        scorer = build('factored').scorer(sampling_noise=True, generator=generator())
    torch.testing.assert_close(scorer(USERS), build('dense').scorer(sampling_noise=True, generator=generator())(USERS))


def test_float32_stays_close_at_many_steps():
    """SPEC 7a prototype: 1.2e-7 relative; a bound of 1e-5."""
    options = dict(schedule={'name': 'linear-var', 'num_steps': 50, 'scale': 1e-4, 'beta_min': 1e-3, 'beta_max': 5e-3})
    exact = build('dense', **options).scorer()(USERS)
    for engine in ('dense', 'factored'):
        got = build(engine, **options).float().scorer()(USERS).double()
        assert (got - exact).abs().max() < 1e-5 * exact.abs().max(), engine


def test_errors():
    with pytest.raises(ValueError, match="'engine' must be one of factored, dense; got 'fast'"):
        build('fast')
    with pytest.raises(ValueError, match="use engine dense for eps"):
        build('factored', prediction='eps').training_loss(Batch(USERS), generator())
    with pytest.raises(ValueError, match="'num_probes' must be at least 1"):
        build('factored', num_probes=0)
    for options in (dict(energy_items=0), dict(energy_items=3, engine='dense')):
        with pytest.raises(ValueError, match="'energy_items' must be at least 1, on engine factored"):
            build(**{'engine': 'factored', **options})
    for options in (dict(energy_rank=-1), dict(energy_rank=2),
                    dict(energy_rank=2, energy_items=3, row_gradients=True)):
        with pytest.raises(ValueError, match="'energy_rank' must be at least 0, and go with"):
            build('factored', **options)
    for items in (None, N):
        with pytest.raises(ValueError, match="'row_gradients' need 'energy_items' below the number of items"):
            build('factored', energy_items=items, row_gradients=True)
    with pytest.raises(ValueError, match="'edge_index' must be what conv.prepare made"):
        build('factored').denoiser.items(MATRIX.edge_index, torch.tensor([1]))
    with pytest.raises(ValueError, match=r"'start_step' must lie in 0\.\.4, got 5"):
        build('factored').scorer(5)


@pytest.mark.parametrize('entropy', ['bce', 'bpr', 'nll'])
def test_users_with_nothing_and_with_everything(entropy):
    matrix = InteractionMatrix(torch.tensor([[1] * 4, [0, 1, 2, 3]]), 2, 4)
    for sampler in (UniformSampler(), ARGumbelSampler(0.01), ARGumbelSampler(0.5, pool_size=2)):
        model = TVDiff(matrix, AnisotropicDenoiser(2, 4, 3), GaussianDiffusion(NoiseSchedule()),
                       HelmholtzFreeEnergy(entropy), sampler)
        batch = Batch(torch.tensor([1, 1]), torch.tensor([0, 3])) if entropy == 'bpr' else Batch(torch.tensor([0, 1]))
        assert model.training_loss(batch, generator()).loss.isfinite()
