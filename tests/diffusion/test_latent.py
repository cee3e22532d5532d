"""The reverse process in the code's space against the dense one."""
import pytest
import torch

from tvdiff_pyg.diffusion import GaussianDiffusion, LatentReverse, NoiseSchedule

USERS, ITEMS, WIDTH, CODE = 4, 9, 3, 2  # d and d' differ


def code(z, t):
    return torch.tanh(z @ torch.linspace(-1, 1, WIDTH * CODE).view(WIDTH, CODE) + 0.3 * t.view(-1, 1))


@pytest.mark.parametrize('num_steps', [1, 2, 7])
@pytest.mark.parametrize('prediction, scale', [('x0', 1.0), ('x0', 0.0), ('eps', 1.0)])
@pytest.mark.parametrize('name', ['linear', 'linear-var', 'binomial'])
def test_it_is_the_dense_process(name, prediction, scale, num_steps):
    generator = torch.Generator().manual_seed(0)
    weight, table = torch.randn(ITEMS, WIDTH, generator=generator), torch.randn(ITEMS, CODE, generator=generator)
    x_0 = (torch.rand(USERS, ITEMS, generator=generator) < 0.4).double()
    diffusion = GaussianDiffusion(NoiseSchedule(name, num_steps, scale, 0.1, 0.8), prediction)

    reverse = LatentReverse(diffusion, code, weight, table)
    query = reverse.query(x_0 @ weight)

    dense = diffusion.sample(lambda x, t: code(x @ weight, t) @ table.t(), x_0)
    torch.testing.assert_close(query @ table.t() + reverse.residual * x_0, dense)
    assert query.shape == (USERS, CODE) and query.dtype == torch.float64
    assert (reverse.residual == 0) == (prediction == 'x0')


def test_the_product_of_the_factors_is_taken_in_float64():
    """Fifty factors, each rounded to half a float32's last place, would be out by more than one of them is."""
    schedule = NoiseSchedule('linear', 50, 1.0, 0.1, 0.8, dtype=torch.float32)
    reverse = LatentReverse(GaussianDiffusion(schedule, 'eps'), code, torch.zeros(2, 2), torch.zeros(2, 2))
    exact = torch.tensor(reverse.previous).double().prod()
    torch.testing.assert_close(torch.tensor(reverse.residual), exact, rtol=1e-12, atol=0)
