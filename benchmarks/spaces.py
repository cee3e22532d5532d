"""What the accuracy benchmark tries for each model: a first setting, and the space that it searches on validation.

To add a model, give it an entry in :data:`MODELS`; to add a data set, one in :data:`DATASETS`.
"""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Tuple

import yaml

from tvdiff_pyg.training.recipe import recipe_path

Settings = Dict[str, Any]  # 'group.name' -> value, as on the command line of 'tvdiff fit'
PUBLISHED: Dict[str, Any] = json.loads((Path(__file__).parent / 'published.json').read_text(encoding='utf-8'))


class First(NamedTuple):
    """A setting to begin with, and where it is from."""

    settings: Settings
    source: str


class DatasetPlan(NamedTuple):
    """How a data set is run.

    Attributes:
        searched: whether settings are searched; otherwise the first one of each model is carried over.
        first: by model, where this data set has one of its own: TV-Diff always, others where one was published for it,
            or, without a search, where what was published learns too slowly to be a fair opponent.
        budget_minutes: of training, that time to quality is compared within; ``None`` for as long as it takes.
    """

    searched: bool
    first: Dict[str, First]
    budget_minutes: Optional[float] = None


class Choice(NamedTuple):
    """One of some values."""

    values: Tuple[Any, ...]


class LogRange(NamedTuple):
    """A number, uniform in its logarithm."""

    low: float
    high: float


class ModelPlan(NamedTuple):
    """How a model is run.

    Attributes:
        first: the setting of the first trial, published or the authors' default, unless the data set has another.
        space: what the other trials draw, by setting.
    """

    first: First
    space: Dict[str, Any]


def _recipe(name: str, width: Optional[int] = 256) -> Settings:
    """Return a recipe's settings flat, at a width that two cores can search."""
    groups = yaml.safe_load(recipe_path(name).read_text(encoding='utf-8'))
    flat = {f'{group}.{key}': value for group, values in groups.items() if group != 'dataset'
            for key, value in values.items()}
    return flat if width is None else {**flat, 'model.hidden_channels': width}


PUBLISHED_BEAUTY: Settings = {  # where the recipe is what the search found from here
    'model.dropout': 0.5, 'diffusion.scale': 1e-4, 'loss.temperature': 0.5, 'sampler.gamma': 0.05, 'training.lr': 1e-3}
_ML_1M: Settings = {  # batches of 2,048 users would be three steps an epoch, and patience 10 of them thirty
    'model.hidden_channels': 256, 'diffusion.num_steps': 40, 'diffusion.scale': 1e-3, 'diffusion.beta_min': 1e-3,
    'diffusion.beta_max': 1e-2, 'loss.entropy': 'bce', 'loss.temperature': 10.0, 'loss.reduction': 'mean',
    'sampler.name': 'ar-gsp', 'sampler.gamma': 0.02, 'sampler.weights': 'score', 'sampler.pool_size': 2048,
    'training.batch_size': 400, 'training.lr': 1e-3, 'training.patience': 20, 'training.max_epochs': 400}
_DIFFREC: Settings = {
    'model.hidden_channels': 1000, 'model.time_channels': 10, 'model.reweight': True, 'diffusion.num_steps': 5,
    'diffusion.scale': 1e-4, 'diffusion.beta_min': 5e-4, 'diffusion.beta_max': 5e-3, 'training.batch_size': 400,
    'training.lr': 1e-4, 'training.patience': 20}
_DIFFREC_ML_1M: Settings = {
    **_DIFFREC, 'model.hidden_channels': [600, 200, 600], 'diffusion.num_steps': 40, 'diffusion.scale': 5e-3,
    'diffusion.beta_min': 5e-3, 'diffusion.beta_max': 1e-2, 'training.lr': 1e-3}

_PUBLISHED = 'the published setting, selected on test, at d = 256'
_BEST = 'best of ten trials on'  # a test holds these to the searches
_CARRIED = {
    'lightgcn': First({'model.hidden_channels': 256, 'model.num_layers': 3, 'model.regularization': 8.07e-05,
                       'training.batch_size': 8192, 'training.lr': 0.00569, 'training.patience': 20},
                      f'{_BEST} amazon-beauty'),
    'diffrec': First({**_DIFFREC, 'diffusion.scale': 0.0201, 'training.lr': 0.000469, 'model.dropout': 0.3},
                     f'{_BEST} lastfm'),
    'bpr-mf': First({'model.hidden_channels': 256, 'model.regularization': 0.00145, 'training.batch_size': 2048,
                     'training.lr': 0.00235, 'training.patience': 20}, f'{_BEST} lastfm'),
    'ials': First({'model.hidden_channels': 128, 'model.regularization': 10.3, 'model.alpha': 20.1},
                  f'{_BEST} amazon-beauty'),
    'item-knn': First({'model.num_neighbors': 200, 'model.regularization': 50.0}, f'{_BEST} amazon-beauty'),
}

DATASETS: Dict[str, DatasetPlan] = {
    'movielens-small': DatasetPlan(True, {'tv-diff': First(_recipe('movielens-small'), 'the recipe at d = 256')}),
    'lastfm': DatasetPlan(True, {'tv-diff': First(_recipe('lastfm'), _PUBLISHED)}),
    'amazon-beauty': DatasetPlan(True, {
        'tv-diff': First({**_recipe('amazon-beauty'), **PUBLISHED_BEAUTY}, _PUBLISHED)}),
    'ml-1m': DatasetPlan(True, {
        'tv-diff': First(_ML_1M, 'published for larger sets, at d = 256 and with batches of 400 users'),
        'diffrec': First(_DIFFREC_ML_1M, "the authors' for this set (arXiv 2304.04971, their inference script)"),
    }),
    'gowalla': DatasetPlan(False, {**_CARRIED, 'tv-diff': First(
        _recipe('gowalla', None), 'found by hand, eight runs on this validation part; uniform negatives')}, 90),
    'yelp2018': DatasetPlan(False, {**_CARRIED, 'tv-diff': First(_recipe('yelp2018', None),
                                                                 "Gowalla's, found by hand there; T as published"),
                                    'ease': First({'model.regularization': 300.0}, 'as reported for it (BARS)')}, 90),
}

_PAIRS: Settings = {'training.batch_size': 2048, 'training.lr': 1e-3, 'training.patience': 20}
_PAIRS_SPACE = {
    'model.hidden_channels': Choice((64, 128, 256)), 'model.regularization': LogRange(1e-5, 1e-1),
    'training.lr': LogRange(5e-4, 2e-2), 'training.batch_size': Choice((2048, 8192)),
}

MODELS: Dict[str, ModelPlan] = {
    'tv-diff': ModelPlan(First({}, 'the data set has its own'), {
        'training.lr': LogRange(3e-4, 3e-3), 'loss.reduction': Choice(('mean', 'sum')),
        'loss.temperature': Choice((0.5, 1.0, 2.0, 5.0, 10.0)), 'sampler.gamma': Choice((0.02, 0.05, 0.1, 0.2)),
        'model.dropout': Choice((0.3, 0.5, 0.7)), 'diffusion.scale': LogRange(1e-5, 1e-2),
    }),
    'diffrec': ModelPlan(First(_DIFFREC, 'the authors\' noise for a sparse set (arXiv 2304.04971, their inference '
                                         'script) at twice its rate'), {
        'model.hidden_channels': Choice((256, 512, 1000)), 'model.dropout': Choice((0.3, 0.5, 0.7)),
        'model.reweight': Choice((True, False)), 'diffusion.num_steps': Choice((5, 10, 40)),
        'diffusion.scale': LogRange(1e-4, 1e-1), 'training.lr': LogRange(5e-5, 2e-3),
    }),
    'lightgcn': ModelPlan(First({'model.hidden_channels': 64, 'model.num_layers': 3, 'model.regularization': 1e-4,
                                 **_PAIRS}, 'arXiv 2002.02126'),
                          {**_PAIRS_SPACE, 'model.num_layers': Choice((1, 2, 3, 4))}),
    'bpr-mf': ModelPlan(First({'model.hidden_channels': 64, 'model.regularization': 1e-4, **_PAIRS}, "LightGCN's"),
                        _PAIRS_SPACE),
    'gf-cf': ModelPlan(First({'model.hidden_channels': 256, 'model.alpha': 0.3}, 'arXiv 2108.07567'),
                       {'model.hidden_channels': Choice((32, 64, 128, 256, 512)),
                        'model.alpha': Choice((0.0, 0.1, 0.2, 0.3, 0.5, 1.0))}),
    'ease': ModelPlan(First({'model.regularization': 80.0}, 'as reported for Gowalla (BARS)'),
                      {'model.regularization': LogRange(1.0, 5000.0)}),
    'ials': ModelPlan(First({'model.hidden_channels': 64, 'model.regularization': 0.1, 'model.alpha': 10.0}, 'ours'),
                      {'model.hidden_channels': Choice((32, 64, 128, 256)),
                       'model.regularization': LogRange(1e-2, 1e2), 'model.alpha': LogRange(0.5, 50.0)}),
    'item-knn': ModelPlan(First({'model.num_neighbors': 100, 'model.regularization': 0.0}, 'ours'),
                          {'model.num_neighbors': Choice((10, 20, 50, 100, 200, 500)),
                           'model.regularization': Choice((0.0, 1.0, 5.0, 10.0, 50.0, 100.0))}),
    'popularity': ModelPlan(First({}, 'none'), {}),
}


def first(dataset: str, model: str) -> First:
    """Return the setting of the first trial, or of all cells where there is no search, and its source."""
    return DATASETS[dataset].first.get(model, MODELS[model].first)
