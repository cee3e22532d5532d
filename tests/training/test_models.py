"""Every model that a recipe can name: trained or solved into a run folder, read back, refused where it does not fit."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import pytest
import torch

pytest.importorskip('pytorch_lightning')
from tvdiff_pyg.interaction_matrix import InteractionMatrix  # noqa: E402
from tvdiff_pyg.nn import EASE, GFCF, IALS, DiffRec, ItemKNN, LightGCN, Popularity, TVDiff  # noqa: E402
from tvdiff_pyg.sampling import ARGumbelSampler, UniformSampler  # noqa: E402
from tvdiff_pyg.training import Recipe, Run, fit  # noqa: E402
from tvdiff_pyg.training.building import build_model  # noqa: E402
from tvdiff_pyg.training.describe import describe_run  # noqa: E402
from tvdiff_pyg.training.folder import LOG, PER_USER, PLOT  # noqa: E402
from tvdiff_pyg.training.recipe import MODELS  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

CLASSES = {'tv-diff': TVDiff, 'diffrec': DiffRec, 'lightgcn': LightGCN, 'bpr-mf': LightGCN, 'gf-cf': GFCF, 'ease': EASE,
           'ials': IALS, 'item-knn': ItemKNN, 'popularity': Popularity}
MATRIX = InteractionMatrix(torch.tensor([[0, 1], [1, 0]]), 3, 4)


def _needs(model: str) -> None:
    if model == 'ials':
        pytest.importorskip('implicit')
    if model in ('gf-cf', 'ials'):
        pytest.importorskip('scipy')


def _recipe(ratings_file: Path, model: str, **training: Any) -> Recipe:
    width: Dict[str, Any] = {'hidden_channels': 8} if 'hidden_channels' in MODELS[model].model else {}
    if 'training' in MODELS[model].others:
        training = {'max_epochs': 2, 'batch_size': 16, **training}
    return Recipe.from_dict({'dataset': {'name': 'interaction-file', 'path': str(ratings_file)},
                             'model': {'name': model, **width}, 'training': {'ks': [5, 20], **training}})


@pytest.mark.parametrize('model', list(MODELS))
def test_fit_and_read_back(model: str, ratings_file: Path, tmp_path: Path) -> None:
    _needs(model)
    fitted = fit(_recipe(ratings_file, model), tmp_path / 'run', progress=False)
    read = Run.load(tmp_path / 'run')
    assert type(read.model) is CLASSES[model] and read.metrics == fitted.metrics and read.recipe == fitted.recipe
    evaluation = read.evaluate('test')
    assert evaluation.mean == fitted.metrics['test']
    assert read.recommend(['u03'], 5) == fitted.recommend(['u03'], 5)
    per_user = load_file(tmp_path / 'run' / PER_USER)
    assert torch.equal(per_user['users'], evaluation.users)
    assert torch.equal(per_user['ndcg@5'], evaluation.per_user['ndcg@5'])
    trains = 'training' in MODELS[model].others
    assert fitted.metrics['model'] == model and (fitted.metrics['epoch'] is not None) == trains
    assert (tmp_path / 'run' / LOG).exists() == (tmp_path / 'run' / PLOT).exists() == trains
    text = describe_run(fitted.metrics)
    assert f'{model}, protocol holdout, seed 0: ' + ('epoch ' if trains else 'solved in closed form') in text
    assert fit(_recipe(ratings_file, model), tmp_path / 'run', resume=True, progress=False).metrics == fitted.metrics


def test_bpr_mf_has_no_hops() -> None:
    build = lambda name: build_model(Recipe.from_dict({'model': {'name': name}}), MATRIX)  # noqa: E731
    assert build('bpr-mf').network.num_layers == 0 and build('lightgcn').network.num_layers == 3


def test_each_model_has_its_own_defaults() -> None:
    recipe = Recipe.from_dict({'model': {'name': 'lightgcn'}})
    assert (recipe.model.hidden_channels, recipe.model.num_layers, recipe.sampler.name) == (64, 3, 'uniform')
    assert isinstance(build_model(recipe, MATRIX).sampler, UniformSampler)
    recipe = Recipe.from_dict({'model': {'name': 'lightgcn'}, 'sampler': {'name': 'ar-gsp', 'gamma': 0.3}})
    assert isinstance(build_model(recipe, MATRIX).sampler, ARGumbelSampler)
    recipe = Recipe.from_dict({'model': {'name': 'diffrec'}})
    assert (recipe.model.hidden_channels, recipe.model.reweight, recipe.diffusion.timesteps) == (
        1000, True, 'loss-history')
    recipe = Recipe.from_dict({})
    assert (recipe.model.name, recipe.model.hidden_channels, recipe.sampler.name, recipe.diffusion.timesteps) == (
        'tv-diff', 1000, 'ar-gsp', 'uniform')
    for model in MODELS:
        recipe = Recipe.from_dict({'model': {'name': model}})
        assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize('values, setting', [
    ({'model': {'name': 'ease', 'hidden_channels': 8}}, 'model.hidden_channels'),
    ({'model': {'name': 'ease'}, 'training': {'lr': 0.1}}, 'training.lr'),
    ({'model': {'name': 'lightgcn', 'dropout': 0.1}}, 'model.dropout'),
    ({'model': {'name': 'lightgcn'}, 'loss': {'temperature': 2.0}}, 'loss.temperature'),
    ({'model': {'name': 'diffrec'}, 'sampler': {'name': 'uniform'}}, 'sampler.name'),
    ({'model': {'name': 'popularity', 'alpha': 1.0}}, 'model.alpha'),
    ({'model': {'name': 'tv-diff', 'regularization': 1.0}}, 'model.regularization'),
])
def test_settings_of_another_model_are_refused(values: Dict[str, Any], setting: str) -> None:
    with pytest.raises(ValueError, match=f"'{setting}' is .* but model '{values['model']['name']}' has no such"):
        Recipe.from_dict(values)


def test_time_runs_out_and_is_given_again(ratings_file: Path, tmp_path: Path) -> None:
    """A run that was stopped by its budget goes on with a larger one, to what it would have been."""
    short = fit(_recipe(ratings_file, 'tv-diff', max_epochs=4, max_minutes=1e-6), tmp_path / 'run', progress=False)
    assert (short.metrics['stopped'], short.metrics['epochs']) == ('max_minutes', 1)
    assert 'NOT CONVERGED: out of time' in describe_run(short.metrics)
    again = fit(_recipe(ratings_file, 'tv-diff', max_epochs=4, max_minutes=1e-6), tmp_path / 'run', resume=True,
                progress=False)
    assert again.metrics == short.metrics
    longer = fit(_recipe(ratings_file, 'tv-diff', max_epochs=4), tmp_path / 'run', resume=True, progress=False)
    whole = fit(_recipe(ratings_file, 'tv-diff', max_epochs=4), tmp_path / 'whole', progress=False)
    assert (longer.metrics['stopped'], longer.metrics['epochs']) == ('max_epochs', 4)
    assert longer.metrics['test'] == whole.metrics['test'] and longer.metrics['train_s'] > short.metrics['train_s']
    with pytest.raises(ValueError, match="'training.max_minutes' must be a finite number > 0, got 0"):
        _recipe(ratings_file, 'tv-diff', max_minutes=0)
