import math

import pytest
import torch

from tvdiff_pyg.diffusion import GaussianDiffusion, NoiseSchedule
from tvdiff_pyg.testing import betas, posterior_coefficients, reverse_process

NAMES = ['linear-var', 'linear', 'cosine', 'binomial']
LARGE = dict(scale=1.0, beta_min=0.1, beta_max=0.8)


def process(name='linear-var', num_steps=6, prediction='x0', **options):
    return GaussianDiffusion(NoiseSchedule(name, num_steps, **{**LARGE, **options}), prediction)


def coefficients(name, num_steps=6):
    return posterior_coefficients(betas(name, num_steps, 1.0, 0.1, 0.8))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(x, t):
    """Any function of rows and steps that mixes columns."""
    return torch.tanh(x @ torch.linspace(-1, 1, 25).view(5, 5) + 0.1 * t.view(-1, 1))


ROWS = torch.tensor([[1.0, 0, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.float64)


@pytest.mark.parametrize('name', NAMES)
def test_q_sample_is_the_closed_form_with_given_noise(name):
    noise = torch.randn(3, 5, generator=generator())
    t = torch.tensor([0, 5, 2])
    out = process(name).q_sample(ROWS, t, noise)
    abar = torch.tensor(coefficients(name).alpha_bar)[t].view(-1, 1)
    torch.testing.assert_close(out, abar.sqrt() * ROWS + (1 - abar).sqrt() * noise)


def test_q_sample_moments():
    n, t = 200_000, 3
    x_0 = torch.tensor([1.0, 0.0, -2.0])
    abar = coefficients('binomial').alpha_bar[t]
    out = process('binomial').q_sample(x_0.expand(n, -1), torch.full((n,), t), generator=generator())
    sigma2 = 1 - abar
    standard_error = math.sqrt(sigma2 / n)
    assert ((out.mean(0) - math.sqrt(abar) * x_0).abs() < 4 * standard_error).all()
    covariance = out.t().cov()
    bound = torch.full((3, 3), 4 * sigma2 / math.sqrt(n)).fill_diagonal_(4 * sigma2 * math.sqrt(2 / n))
    assert ((covariance - sigma2 * torch.eye(3)).abs() < bound).all()


def test_posterior_of_the_simulated_chain():
    """Run the chain x_s = sqrt(1 - beta_s) x_{s-1} + sqrt(beta_s) eps and regress x_{t-1} on x_t."""
    n, x_0, t, draw = 400_000, 1.5, 3, generator(1)
    x, path = torch.full((n,), x_0), []
    for beta in betas('binomial', 5, 1.0, 0.1, 0.8):
        x = math.sqrt(1 - beta) * x + math.sqrt(beta) * torch.randn(n, generator=draw)
        path.append(x)
    before, after = path[t - 1], path[t]
    diffusion = process('binomial', 5)

    marginal = diffusion.schedule.sqrt_one_minus_alpha_bar[t] ** 2
    assert abs(after.var() / marginal - 1) < 4 * math.sqrt(2 / n)
    covariance = torch.stack([before, after]).cov()
    slope = covariance[0, 1] / covariance[1, 1]
    intercept = before.mean() - slope * after.mean()
    residual = (before - slope * after - intercept).var()

    step = torch.full((2,), t)
    mean, variance = diffusion.posterior(torch.full((2, 1), x_0), torch.tensor([[0.0], [1.0]]), step)
    assert variance.shape == (2, 1)
    slope_error = math.sqrt(variance[0] / marginal / n)
    assert abs(slope - (mean[1] - mean[0])) < 4 * slope_error
    intercept_error = math.sqrt(variance[0] / n * (1 + after.mean() ** 2 / marginal))
    assert abs(intercept - mean[0]) < 4 * intercept_error
    assert abs(residual / variance[0] - 1) < 4 * math.sqrt(2 / n)


@pytest.mark.parametrize('name', NAMES)
def test_posterior(name):
    _, c1, c2, variance = coefficients(name)
    x0_hat, x_t = torch.randn(3, 5, generator=generator()), torch.randn(3, 5, generator=generator(1))
    for t in range(6):
        mean, var = process(name).posterior(x0_hat, x_t, torch.full((3,), t))
        torch.testing.assert_close(mean, c1[t] * x0_hat + c2[t] * x_t)
        torch.testing.assert_close(var, torch.full((3, 1), variance[t]))
    mean, var = process(name).posterior(x0_hat, x_t, torch.tensor([5, 0, 2]))  # a step a row
    torch.testing.assert_close(mean[2], c1[2] * x0_hat[2] + c2[2] * x_t[2])
    assert torch.equal(mean[1], x0_hat[1]) and var[1] == 0


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('num_steps', [1, 2, 6])
@pytest.mark.parametrize('prediction', ['x0', 'eps'])
def test_sample_against_a_loop(name, num_steps, prediction):
    out = process(name, num_steps, prediction).sample(network, ROWS)
    expected = reverse_process(lambda x, t: network(x, torch.tensor([t])), ROWS,
                               betas(name, num_steps, 1.0, 0.1, 0.8), prediction)
    # coefficients of eps reach 1 / sqrt(abar_t) = 1e3 with cosine: relative to the largest entry
    torch.testing.assert_close(out, expected, rtol=1e-7, atol=1e-7 * max(1.0, float(expected.abs().max())))


def test_steps_run_down_once_each_and_a_single_step_returns_the_network():
    seen = []

    def record(x, t):
        seen.append(t.tolist())
        return network(x, t)

    process(num_steps=3).sample(record, ROWS)
    assert seen == [[2] * 3, [1] * 3, [0] * 3]
    assert torch.equal(process(num_steps=1).sample(network, ROWS), network(ROWS, torch.zeros(3)))


@pytest.mark.parametrize('prediction', ['x0', 'eps'])
def test_start_step(prediction):
    diffusion = process('linear', 4, prediction)
    for start in range(1, 5):
        noised = diffusion.q_sample(ROWS, torch.full((3,), start - 1), generator=generator(3))
        assert not torch.equal(noised, ROWS)
        assert torch.equal(diffusion.sample(network, ROWS, start_step=start, generator=generator(3)),
                           diffusion.sample(network, noised))


def test_sampling_noise_has_the_posterior_variance():
    n = 100_000
    diffusion = process('binomial', 3)
    _, c1, c2, variance = coefficients('binomial', 3)
    x = torch.ones(n, 2)
    inputs = {}

    def constant(x_t, t):
        inputs[int(t[0])] = x_t
        return torch.full_like(x_t, 0.5)

    out = diffusion.sample(constant, x, sampling_noise=True, generator=generator())
    assert torch.equal(out, torch.full_like(x, 0.5))  # step 0 adds no noise
    assert torch.equal(inputs[2], x)
    one, zero = inputs[1], inputs[0]
    for value, mean, var in [(one, c1[2] * 0.5 + c2[2], variance[2]),
                             (zero - c2[1] * one, c1[1] * 0.5, variance[1])]:
        assert ((value.mean(0) - mean).abs() < 4 * math.sqrt(var / n)).all()
        assert ((value.var(0) / var - 1).abs() < 4 * math.sqrt(2 / n)).all()
        assert abs(value.t().corrcoef()[0, 1]) < 4 / math.sqrt(n)
    again = diffusion.sample(network, ROWS, 2, True, generator(5))
    assert torch.equal(again, diffusion.sample(network, ROWS, 2, True, generator(5)))


def test_step_without_noise_is_the_mean():
    diffusion, noise = process(), torch.randn(3, 5, generator=generator())
    t, output = torch.tensor([0, 3, 5]), torch.rand(3, 5, generator=generator(1))
    mean, variance = diffusion.posterior(output, ROWS, t)
    assert torch.equal(diffusion.step(ROWS, t, output), mean)
    torch.testing.assert_close(diffusion.step(ROWS, t, output, noise), mean + variance.sqrt() * noise)


@pytest.mark.parametrize('name', NAMES)
def test_scale_zero_is_no_noise(name):
    diffusion = process(name, 3, scale=0.0)
    assert torch.equal(diffusion.q_sample(ROWS, torch.tensor([0, 1, 2]), generator=generator()), ROWS)
    expected = ROWS
    for t in (2, 1, 0):
        expected = network(expected, torch.tensor([t]))
    assert torch.equal(diffusion.sample(network, ROWS), expected)
    assert torch.equal(diffusion.sample(network, ROWS, 3, True, generator()), expected)


@pytest.mark.parametrize('name', NAMES)
def test_eps_prediction_is_x0_prediction_in_other_words(name):
    eps, x0 = process(name, prediction='eps'), process(name)
    abar = torch.tensor(coefficients(name).alpha_bar)

    def as_eps(x, t):
        a = abar[t].view(-1, 1)
        return (x - a.sqrt() * network(x, t)) / (1 - a).sqrt()

    torch.testing.assert_close(eps.sample(as_eps, ROWS), x0.sample(network, ROWS))
    noise, t = torch.randn(3, 5, generator=generator()), torch.tensor([0, 2, 4])
    torch.testing.assert_close(eps.predict_x0(eps.q_sample(ROWS, t, noise), t, noise), ROWS)
    assert x0.predict_x0(ROWS, t, noise) is noise


def test_the_last_step_draws_nothing():
    draw = generator()
    process(num_steps=1).sample(network, ROWS, sampling_noise=True, generator=draw)
    assert torch.equal(draw.get_state(), generator().get_state())


def test_it_predicts_x0_by_default():
    assert GaussianDiffusion(NoiseSchedule()).prediction == 'x0'


def test_float32_rows_keep_their_type():
    out = process().sample(lambda x, t: x.tanh(), ROWS.float(), 2, True, generator())
    assert out.dtype == torch.float32 and out.isfinite().all()


def test_errors():
    with pytest.raises(ValueError, match="'prediction' must be one of x0, eps; got 'v'"):
        process(prediction='v')
    with pytest.raises(ValueError, match='no noise to predict'):
        process(prediction='eps', scale=0.0)
    for start in (-1, 7):
        with pytest.raises(ValueError, match=f"'start_step' must lie in 0..6, got {start}"):
            process().sample(network, ROWS, start)
