"""Recipes: values that are checked, and go round trip."""
from __future__ import annotations

from typing import Any, Dict

import pytest

pytest.importorskip('jsonargparse')
from tvdiff_pyg.training.recipe import Recipe, load_recipe, recipe_path  # noqa: E402


def test_values_go_round_trip() -> None:
    recipe = load_recipe('amazon-beauty')
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert (recipe.diffusion.num_steps, recipe.loss.entropy, recipe.loss.temperature) == (50, 'bpr', 5.0)


@pytest.mark.parametrize('values, expected', [
    ({'los': {}}, "no 'los'; it has dataset, model"),
    ({'loss': 3}, "'loss' must hold named settings, got 3"),
    ({'loss': {'temp': 1}}, 'temp'),
    ({'loss': {'entropy': 'mse'}}, 'mse'),
    ({'model': {'hidden_channels': 'wide'}}, 'wide'),
    ({'training': {'batch_size': 0}}, "'training.batch_size' must be at least 1"),
    ({'training': {'lr': float('nan')}}, "'training.lr' must be"),
    ({'training': {'optimizer': 'row-lazy-adam'}}, "row-lazy-adam needs 'model.energy_items'"),
    ({'model': {'name': 'lightgcn'}, 'training': {'optimizer': 'row-lazy-adam'}}, "so model 'tv-diff'"),
    ({'training': {'ks': [0]}}, "'training.ks' must be"),
    ({'diffusion': {'prediction': 'eps'}}, 'set .model.engine. to dense'),
    ({'dataset': {'name': 'interaction-file'}}, "'dataset.path' must name"),
])
def test_wrong_values_are_named(values: Dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as raised:
        Recipe.from_dict(values)
    assert '\n' not in str(raised.value)


def test_a_recipe_takes_settings_of_the_data_set() -> None:
    recipe = load_recipe('interaction-file', path='ratings.csv', k_core=5)
    assert (recipe.dataset.path, recipe.dataset.k_core, recipe.training.batch_size) == ('ratings.csv', 5, 128)
    with pytest.raises(ValueError, match="'dataset.path' must name"):
        load_recipe('interaction-file')
    with pytest.raises(ValueError, match='kcore'):
        load_recipe('interaction-file', path='ratings.csv', kcore=5)


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no recipe 'lastfn'; choose one of amazon-beauty, .*lastfm"):
        recipe_path('lastfn')


@pytest.mark.parametrize('setting', ['training.batch_size', 'model.name', 'loss.temperature'])
def test_null_is_no_value_where_none_may_be_missing(setting: str) -> None:
    group, name = setting.split('.')
    with pytest.raises(ValueError, match=f"'{setting}' must have a value, got null"):
        Recipe.from_dict({group: {name: None}})
    assert Recipe.from_dict({'training': {'max_minutes': None}}).training.max_minutes is None
