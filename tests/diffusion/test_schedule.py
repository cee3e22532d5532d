import numpy as np
import pytest
import torch

from tvdiff_pyg.diffusion import NoiseSchedule
from tvdiff_pyg.testing import betas

NAMES = ['linear-var', 'linear', 'cosine', 'binomial']
COEFFICIENTS = ['sqrt_alpha_bar', 'sqrt_one_minus_alpha_bar', 'posterior_x0', 'posterior_xt', 'posterior_variance']


def numpy_betas(name, num_steps, scale, low, high):
    line = scale * np.linspace(low, high, num_steps)
    t = np.arange(num_steps)
    if name == 'linear-var':
        abar = 1 - line
        beta = np.minimum(1 - abar / np.r_[1, abar[:-1]], 0.999)
    elif name == 'linear':
        beta = line.copy()
    elif name == 'cosine':
        f = np.cos((np.r_[t, num_steps] / num_steps + 0.008) / 1.008 * np.pi / 2) ** 2
        beta = np.minimum(1 - f[1:] / f[:-1], 0.999)
    else:
        beta = 1 / (num_steps - t + 1)
    beta[0] = 1e-5
    return beta


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('num_steps', [1, 2, 5, 50])
@pytest.mark.parametrize('scale, low, high', [(1e-4, 5e-4, 5e-3), (1e-3, 1e-3, 1e-2), (1.0, 0.1, 0.8), (0.0, 0.1, 0.8)])
def test_closed_forms(name, num_steps, scale, low, high):
    beta = numpy_betas(name, num_steps, scale, low, high)
    np.testing.assert_allclose(betas(name, num_steps, scale, low, high), beta, rtol=1e-9, atol=1e-15)  # the oracle too
    abar = np.cumprod(1 - beta)
    prev = np.r_[1, abar[:-1]]
    schedule = NoiseSchedule(name, num_steps, scale, low, high)
    expected = {
        'sqrt_alpha_bar': np.sqrt(abar),
        'sqrt_one_minus_alpha_bar': np.sqrt(1 - abar),
        'posterior_x0': beta * np.sqrt(prev) / (1 - abar),
        'posterior_xt': (1 - prev) * np.sqrt(1 - beta) / (1 - abar),
        'posterior_variance': beta * (1 - prev) / (1 - abar),
    }
    for key, value in expected.items():
        first = 1 if key.startswith('posterior') else 0  # step 0: see test_first_step_is_exact
        # 1 - abar is near 1e-5 and has lost five of its sixteen digits; small numbers count as much as large ones
        actual, value = getattr(schedule, key)[first:], torch.from_numpy(value)[first:]
        torch.testing.assert_close(actual, value, rtol=1e-9, atol=1e-20)
    assert schedule.noiseless == (scale == 0)


@pytest.mark.parametrize('num_steps, scale, low, high', [
    (5, 1e-4, 5e-4, 5e-3), (50, 1e-4, 1e-3, 5e-3), (50, 1e-3, 1e-3, 1e-2), (10, 1e-3, 1e-3, 1e-2),
    (40, 1e-3, 1e-3, 1e-2)])
def test_the_published_settings_hardly_differ_from_1(num_steps, scale, low, high):
    """As the class tells, and as its float64 is for."""
    variance = NoiseSchedule('linear-var', num_steps, scale, low, high).sqrt_one_minus_alpha_bar ** 2
    assert 0.999e-5 < variance.min() and variance.max() < 2e-5
    assert 0.8e-8 < variance.diff().min() and variance.diff().max() < 1.01e-6


def test_which_betas_are_cut():
    assert max(betas('linear', 5, 1.0, 0.5, 0.9999)) == 0.9999
    assert NoiseSchedule('linear', 2, 1.0, 0.5, 0.9999).sqrt_one_minus_alpha_bar[1] ** 2 > 0.9995
    assert NoiseSchedule('linear-var', 2, 1.0, 0.5, 0.9999).sqrt_one_minus_alpha_bar[1] ** 2 < 0.9991


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_first_step_is_exact(name, dtype):
    for num_steps in (1, 7):
        schedule = NoiseSchedule(name, num_steps, dtype=dtype)
        assert schedule.posterior_x0[0] == 1 and schedule.posterior_xt[0] == 0 and schedule.posterior_variance[0] == 0
        torch.testing.assert_close(schedule.sqrt_one_minus_alpha_bar[0].double() ** 2, torch.tensor(1e-5))
        assert all(getattr(schedule, key).dtype == dtype for key in COEFFICIENTS)


@pytest.mark.parametrize('name', NAMES)
def test_computed_in_float64(name):
    wide = NoiseSchedule(name, 50, dtype=torch.float64)
    torch.set_default_dtype(torch.float32)  # which the fixture restores anyway
    narrow = NoiseSchedule(name, 50)
    for key in COEFFICIENTS:
        assert torch.equal(getattr(narrow, key), getattr(wide, key).float()), key


def test_defaults_are_the_published_setting():
    schedule = NoiseSchedule()
    assert (schedule.name, schedule.num_steps, schedule.scale) == ('linear-var', 5, 1e-4)
    assert (schedule.beta_min, schedule.beta_max) == (5e-4, 5e-3)


@pytest.mark.parametrize('name', NAMES)
def test_buffers(name):
    schedule = NoiseSchedule(name)
    assert schedule.state_dict() == {} and list(schedule.parameters()) == []
    assert schedule.to(torch.float32).posterior_x0.dtype == torch.float32


@pytest.mark.parametrize('name', NAMES)
def test_posterior_is_bayes_rule(name):
    """p(x_{t-1} | x_t, x_0) from the Gaussian prior q(x_{t-1} | x_0) and likelihood q(x_t | x_{t-1})."""
    schedule = NoiseSchedule(name, 6, 1.0, 0.1, 0.8)
    beta = numpy_betas(name, 6, 1.0, 0.1, 0.8)
    abar = np.cumprod(1 - beta)
    for t in range(1, 6):
        prior_precision, precision = 1 / (1 - abar[t - 1]), (1 - beta[t]) / beta[t]
        variance = 1 / (prior_precision + precision)
        torch.testing.assert_close(schedule.posterior_variance[t].item(), variance)
        torch.testing.assert_close(schedule.posterior_x0[t].item(), variance * prior_precision * abar[t - 1] ** 0.5)
        torch.testing.assert_close(schedule.posterior_xt[t].item(), variance * (1 - beta[t]) ** 0.5 / beta[t])


def test_a_constant_line_adds_noise_once():
    schedule = NoiseSchedule('linear-var', 5, 1.0, 0.3, 0.3)  # abar does not move after step 0: c1 = 0, c2 = 1
    torch.testing.assert_close(schedule.posterior_x0[1:], torch.zeros(4))
    torch.testing.assert_close(schedule.posterior_xt[1:], torch.ones(4))


@pytest.mark.parametrize('options, message', [
    (dict(name='quadratic'), "'name' must be one of linear-var, linear, cosine, binomial; got 'quadratic'"),
    (dict(num_steps=0), "'num_steps' must be at least 1, got 0"),
    (dict(scale=-1e-4), "'scale' must be a finite number >= 0"),
    (dict(scale=float('nan')), "'scale'"),
    (dict(scale=float('inf')), "'scale'"),
    (dict(beta_min=0.0), "0 < beta_min <= beta_max < 1, got 0.0"),
    (dict(beta_min=0.1, beta_max=0.01), '0 < beta_min <= beta_max < 1'),
    (dict(beta_max=1.0), '0 < beta_min <= beta_max < 1'),
    (dict(scale=200.0), "'scale' [*] 'beta_max' must stay below 1"),
    (dict(name='linear', scale=200.0), "'scale' [*] 'beta_max' must stay below 1"),
    (dict(name='cosine', scale=float('inf')), "'scale'"),
])
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        NoiseSchedule(**options)


@pytest.mark.parametrize('name', ['linear-var', 'linear', 'cosine', 'binomial'])
def test_snr_weight_is_the_fall_of_the_ratio(name):
    schedule = NoiseSchedule(name, 5, 0.5, 0.01, 0.2, dtype=torch.float64)
    ratio = [float(a) ** 2 / float(b) ** 2 for a, b in zip(schedule.sqrt_alpha_bar, schedule.sqrt_one_minus_alpha_bar)]
    expected = [1.0] + [ratio[t - 1] - ratio[t] for t in range(1, 5)]
    torch.testing.assert_close(schedule.snr_weight, torch.tensor(expected, dtype=torch.float64))
    assert (schedule.snr_weight > 0).all()
    assert NoiseSchedule(name, 5, 0.0).snr_weight.tolist() == [1.0] * 5
