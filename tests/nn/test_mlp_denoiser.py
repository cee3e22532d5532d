import pytest
import torch

from tvdiff_pyg.nn import MLPDenoiser
from tvdiff_pyg.testing import check_denoiser


@pytest.mark.parametrize('widths', [4, [4, 5, 3]], ids=str)
def test_contract(widths):
    check_denoiser(lambda m, n: MLPDenoiser(m, n, widths, 8))


@pytest.mark.parametrize('widths', [[4], [4, 3, 6]], ids=str)
def test_is_the_perceptron_over_the_row_and_the_step(widths):
    """The network as published: linear layers over [x_t, g(e_t)], tanh between them, none at the end."""
    denoiser = MLPDenoiser(2, 7, widths, 6, dropout=0.5).eval()
    x, t = torch.rand(3, 7), torch.tensor([0, 2, 5])
    embedding = torch.cat([x, denoiser.time_linear(denoiser.time_embedding(t))], dim=1)
    weight = torch.cat([denoiser.item_weight, denoiser.time_weight])
    h = torch.tanh(embedding @ weight + denoiser.user_bias)
    for layer in denoiser.user_layers:
        h = torch.tanh(torch.nn.functional.linear(h, layer.weight, layer.bias))
    expected = h @ denoiser.item_table.t() + denoiser.item_bias.view(-1)
    torch.testing.assert_close(denoiser(x, t, denoiser.items()), expected)
    index = torch.tensor([5, 0])
    torch.testing.assert_close(denoiser.items(index=index), denoiser.items()[index])


def test_first_weights():
    """Xavier normal, over the joint first layer; biases near zero but not zero."""
    torch.manual_seed(0)
    denoiser = MLPDenoiser(2, 3000, [200, 100], 40)
    for weight, fans in ((denoiser.item_weight, 3240), (denoiser.time_weight, 3240), (denoiser.item_table, 3100),
                         (denoiser.user_layers[0].weight, 300), (denoiser.time_linear.weight, 80)):
        assert float(weight.detach().std()) == pytest.approx((2 / fans) ** 0.5, rel=0.05)
    for bias in (denoiser.user_bias, denoiser.item_bias, denoiser.user_layers[0].bias):
        assert float(bias.detach().std()) == pytest.approx(1e-3, rel=0.25)
    assert len({id(p) for p in denoiser.parameters()}) == 9


@pytest.mark.parametrize('widths', [0, [], [3, 0]], ids=str)
def test_widths_out_of_range(widths):
    with pytest.raises(ValueError, match="'hidden_channels' must be one or more positive widths"):
        MLPDenoiser(2, 3, widths)
