"""Settings in, parts out."""
from __future__ import annotations

import pytest
import torch

pytest.importorskip('jsonargparse')
from tvdiff_pyg.diffusion import LossHistoryTimesteps  # noqa: E402
from tvdiff_pyg.interaction_matrix import InteractionMatrix  # noqa: E402
from tvdiff_pyg.sampling import ARGumbelSampler, PopularitySampler, UniformSampler  # noqa: E402
from tvdiff_pyg.training.building import build_model  # noqa: E402
from tvdiff_pyg.training.recipe import Recipe  # noqa: E402


def test_every_setting_reaches_its_part() -> None:
    recipe = Recipe.from_dict({
        'model': {'hidden_channels': [6, 5], 'time_channels': 8, 'time_type': 'gate', 'normalization': 'left',
                  'dropout': 0.25, 'engine': 'dense'},
        'diffusion': {'schedule': 'cosine', 'num_steps': 7, 'scale': 0.5, 'beta_min': 0.01, 'beta_max': 0.02,
                      'prediction': 'eps', 'timesteps': 'loss-history'},
        'loss': {'entropy': 'bpr', 'temperature': 3, 'reduction': 'sum'},
        'sampler': {'gamma': 0.3, 'weights': 'flat', 'lam': 2, 'pool_size': 3},
    })
    model = build_model(recipe, InteractionMatrix(torch.tensor([[0, 1], [1, 0]]), 3, 4))
    denoiser, diffusion, sampler = model.denoiser, model.diffusion, model.sampler
    assert denoiser.widths == [6, 5] and denoiser.time_weight.shape == (8, 6)
    assert (denoiser.time_type, denoiser.normalization, denoiser.dropout) == ('gate', 'left', 0.25)
    schedule = diffusion.schedule
    assert (schedule.name, schedule.num_steps, schedule.scale, schedule.beta_min, schedule.beta_max) == (
        'cosine', 7, 0.5, 0.01, 0.02)
    assert model.engine == 'dense'
    assert diffusion.prediction == 'eps' and isinstance(model.timesteps, LossHistoryTimesteps)
    assert model.loss.entropy.pairwise and (model.loss.temperature, model.loss.reduction) == (3.0, 'sum')
    assert isinstance(sampler, ARGumbelSampler)
    assert (sampler.gamma, sampler.weights, sampler.lam, sampler.pool_size) == (0.3, 'flat', 2.0, 3)


@pytest.mark.parametrize('name, cls', [('uniform', UniformSampler), ('popularity', PopularitySampler)])
def test_controls(name: str, cls: type) -> None:
    recipe = Recipe.from_dict({'sampler': {'name': name}})
    assert isinstance(build_model(recipe, InteractionMatrix(torch.zeros(2, 1, dtype=torch.long), 1, 2)).sampler, cls)
