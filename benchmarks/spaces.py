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


class DatasetPlan(NamedTuple):
    """How a data set is run.

    Attributes:
        searched: whether settings are searched; otherwise one of each model is carried over.
        recipe: TV-Diff's first setting.
        source: where that is from.
        budget_minutes: of training, that time to quality is compared within; ``None`` for as long as it takes.
    """

    searched: bool
    recipe: Settings
    source: str = 'the published setting at d = 256'
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
        first: the setting of the first trial: published, or the authors' default; TV-Diff's is the data set's.
        space: what the other trials draw, by setting.
        source: where the first setting is from.
        carried: the setting on data sets that are not searched: the best of another set's search, ``CARRIED_FROM``,
            where nobody has published one or the published one learns too slowly; ``None`` for the first one.
    """

    first: Settings
    space: Dict[str, Any]
    source: str
    carried: Optional[Settings] = None


def _recipe(name: str, width: Optional[int] = 256) -> Settings:
    """Return a recipe's settings flat, at a width that two cores can search."""
    groups = yaml.safe_load(recipe_path(name).read_text(encoding='utf-8'))
    flat = {f'{group}.{key}': value for group, values in groups.items() if group != 'dataset'
            for key, value in values.items()}
    return flat if width is None else {**flat, 'model.hidden_channels': width}


PUBLISHED_BEAUTY: Settings = {  # where the recipe is what the search found from here
    'model.dropout': 0.5, 'diffusion.scale': 1e-4, 'loss.temperature': 0.5, 'sampler.gamma': 0.05, 'training.lr': 1e-3}

DATASETS: Dict[str, DatasetPlan] = {
    'movielens-small': DatasetPlan(True, _recipe('movielens-small'), 'the recipe at d = 256'),
    'lastfm': DatasetPlan(True, _recipe('lastfm')),
    'amazon-beauty': DatasetPlan(True, {**_recipe('amazon-beauty'), **PUBLISHED_BEAUTY}),
    'ml-1m': DatasetPlan(True, _recipe('ml-1m'), 'published for larger sets, at d = 256'),
    'gowalla': DatasetPlan(False, _recipe('gowalla', None),
                           'found by hand, eight runs on this validation part; uniform negatives', 90),
    'yelp2018': DatasetPlan(False, _recipe('yelp2018', None), 'the published setting', 90),
}

CARRIED_FROM = 'amazon-beauty'  # of the searched sets, the one that is nearest to Gowalla and Yelp2018 in density
_PAIRS: Settings = {'training.batch_size': 2048, 'training.lr': 1e-3, 'training.patience': 20}
_PAIRS_SPACE = {
    'model.hidden_channels': Choice((64, 128, 256)), 'model.regularization': LogRange(1e-5, 1e-1),
    'training.lr': LogRange(5e-4, 2e-2), 'training.batch_size': Choice((2048, 8192)),
}

MODELS: Dict[str, ModelPlan] = {
    'tv-diff': ModelPlan({}, {
        'training.lr': LogRange(3e-4, 3e-3), 'loss.reduction': Choice(('mean', 'sum')),
        'loss.temperature': Choice((0.5, 1.0, 2.0, 5.0, 10.0)), 'sampler.gamma': Choice((0.02, 0.05, 0.1, 0.2)),
        'model.dropout': Choice((0.3, 0.5, 0.7)), 'diffusion.scale': LogRange(1e-5, 1e-2),
    }, ''),
    'diffrec': ModelPlan({
        'model.hidden_channels': 1000, 'model.time_channels': 10, 'model.reweight': True, 'diffusion.num_steps': 5,
        'diffusion.scale': 1e-4, 'diffusion.beta_min': 5e-4, 'diffusion.beta_max': 5e-3, 'training.batch_size': 400,
        'training.lr': 1e-4, 'training.patience': 20,
    }, {
        'model.hidden_channels': Choice((256, 512, 1000)), 'model.dropout': Choice((0.3, 0.5, 0.7)),
        'model.reweight': Choice((True, False)), 'diffusion.num_steps': Choice((5, 10, 40)),
        'diffusion.scale': LogRange(1e-4, 1e-1), 'training.lr': LogRange(5e-5, 2e-3),
    }, 'the authors\' setting for a sparse set (arXiv 2304.04971, their inference script)'),
    'lightgcn': ModelPlan({'model.hidden_channels': 64, 'model.num_layers': 3, 'model.regularization': 1e-4, **_PAIRS},
                          {**_PAIRS_SPACE, 'model.num_layers': Choice((1, 2, 3, 4))}, 'arXiv 2002.02126',
                          {'model.hidden_channels': 256, 'model.num_layers': 3, 'model.regularization': 8.07e-05,
                           'training.batch_size': 8192, 'training.lr': 0.00569, 'training.patience': 20}),
    'bpr-mf': ModelPlan({'model.hidden_channels': 64, 'model.regularization': 1e-4, **_PAIRS}, _PAIRS_SPACE,
                        "LightGCN's"),
    'gf-cf': ModelPlan({'model.hidden_channels': 256, 'model.alpha': 0.3},
                       {'model.hidden_channels': Choice((32, 64, 128, 256, 512)),
                        'model.alpha': Choice((0.0, 0.1, 0.2, 0.3, 0.5, 1.0))}, 'arXiv 2108.07567'),
    'ease': ModelPlan({'model.regularization': 80.0}, {'model.regularization': LogRange(1.0, 5000.0)},
                      'as reported for Gowalla (BARS)'),
    'ials': ModelPlan({'model.hidden_channels': 64, 'model.regularization': 0.1, 'model.alpha': 10.0},
                      {'model.hidden_channels': Choice((32, 64, 128, 256)),
                       'model.regularization': LogRange(1e-2, 1e2), 'model.alpha': LogRange(0.5, 50.0)}, 'ours',
                      {'model.hidden_channels': 128, 'model.regularization': 10.3, 'model.alpha': 20.1}),
    'item-knn': ModelPlan({'model.num_neighbors': 100, 'model.regularization': 0.0},
                          {'model.num_neighbors': Choice((10, 20, 50, 100, 200, 500)),
                           'model.regularization': Choice((0.0, 1.0, 5.0, 10.0, 50.0, 100.0))}, 'ours',
                          {'model.num_neighbors': 200, 'model.regularization': 50.0}),
    'popularity': ModelPlan({}, {}, 'none'),
}


def _carried(dataset: str, model: str) -> Optional[Settings]:
    return None if DATASETS[dataset].searched else MODELS[model].carried


def first_setting(dataset: str, model: str) -> Settings:
    """Return the setting of the first trial, or of all cells where there is no search."""
    return DATASETS[dataset].recipe if model == 'tv-diff' else _carried(dataset, model) or MODELS[model].first


def source_of_first(dataset: str, model: str) -> str:
    """Return where that setting is from."""
    if _carried(dataset, model):
        return f'best of ten trials on {CARRIED_FROM}'
    return DATASETS[dataset].source if model == 'tv-diff' else MODELS[model].source
